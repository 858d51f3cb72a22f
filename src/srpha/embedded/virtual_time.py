"""Virtual time: an asyncio event loop whose clock jumps to the next timer instead of waiting for it.

The embedded world and the tests run on :class:`VirtualTimeLoop`, so that an hour of fail-over costs milliseconds and
two runs with the same seed are the same run. The rules of such a loop:

* ``time()`` starts at 0.0 and moves only when no callback is ready; it then stands exactly at the next deadline.
* A timer never fires before its deadline, not even by the rounding that a real loop allows itself.
* Callbacks run in the order they were scheduled in; timers of one deadline run in the order they were armed in.
* Nothing outside the process takes part. A real file descriptor, thread, signal or child process cannot be ordered
  against a clock that jumps, so asking the loop for one raises :class:`RealWorldError` and changes nothing.
  ``call_soon_threadsafe`` is accepted from the loop's own thread only. A socket used without the loop is not noticed.
* Nothing ready and no timer armed means that nothing will ever happen again: :class:`DeadlockError` names who waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
import selectors
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, TypeVarTuple, Unpack

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

DEFAULT_LIMIT: Final = 3600.0
"""Virtual seconds that :func:`run_virtual` grants when its caller names no limit."""

_STALL_TURNS: Final = 1_000_000
"""Turns of the loop without a step of the clock after which it is held to spin for ever."""

CLOCK_END: Final = float(2**24)
"""Virtual seconds (194 days) up to which a float tells two nanoseconds apart, which asyncio's timers rely on."""

_SAME_INSTANT: Final = 1e-9
"""Seconds within which asyncio takes two deadlines for one: the resolution it reads from the monotonic clock."""


class VirtualTimeError(RuntimeError):
    """Base of the faults of a run in virtual time."""


class DeadlockError(VirtualTimeError):
    """Nothing is ready and no timer is armed, yet the run is not over."""


class OverrunError(VirtualTimeError):
    """The run needs more virtual time than its limit, or spins without letting the clock move."""


class RealWorldError(VirtualTimeError, NotImplementedError):
    """The virtual loop was asked for something of the real world: a descriptor, thread, signal or process."""


class _Deadline(float):
    """A timer's deadline in seconds that sorts after every equal deadline armed before it."""

    order: int

    def __new__(cls, when: float, order: int) -> _Deadline:
        made = super().__new__(cls, when)
        made.order = order
        return made

    def __lt__(self, other: float) -> bool:
        if isinstance(other, _Deadline) and float(self) == float(other):
            return self.order < other.order
        return float(self) < float(other)


class _Clock(selectors.BaseSelector):
    """The selector of a virtual loop: where a real one would sleep, it moves the clock."""

    def __init__(self, waiting: Callable[[], str]) -> None:
        self.now = 0.0
        self.limit = math.inf
        self._turns = 0
        self._deadlines: list[float] = []
        self._keys: dict[FileDescriptorLike, selectors.SelectorKey] = {}
        self._waiting = waiting

    def arm(self, when: float) -> None:
        """Remember a deadline, so that the clock can stand on it to the last bit."""
        heapq.heappush(self._deadlines, float(when))

    def register(self, fileobj: FileDescriptorLike, events: int, data: object = None) -> selectors.SelectorKey:
        if self._keys:  # the first is the self-pipe, which every selector loop makes for itself
            raise RealWorldError(f"virtual time: the loop cannot wait for the real file descriptor {fileobj!r}")
        descriptor = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._keys[fileobj] = selectors.SelectorKey(fileobj, descriptor, events, data)
        return self._keys[fileobj]

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._keys

    def close(self) -> None:
        self._keys.clear()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Step the clock by ``timeout`` seconds; never waits and never reports a descriptor."""
        if timeout is None:
            raise DeadlockError(f"deadlock at {self.now:.9g} s: nothing is scheduled; waiting: {self._waiting()}")
        self._turns += 1
        if timeout > 0:
            self._advance(self.now + timeout)
        if self._turns > _STALL_TURNS:
            self._turns = 0
            raise OverrunError(
                f"the clock stands at {self.now:.9g} s for {_STALL_TURNS} turns of the loop; waiting: {self._waiting()}"
            )
        return []

    def reach(self, when: float) -> None:
        """Stand at ``when`` or later."""
        if when > self.now:
            self.now = when
            self._turns = 0

    def _advance(self, target: float) -> None:
        """Go to ``target``, or to the armed deadline that it misses by the rounding of ``now + (deadline - now)``."""
        rounding = max(_SAME_INSTANT, 2 * math.ulp(target))
        while self._deadlines and (self._deadlines[0] <= self.now or self._deadlines[0] < target - rounding):
            heapq.heappop(self._deadlines)
        if self._deadlines and self._deadlines[0] <= target + rounding:
            target = self._deadlines[0]
        limit = min(self.limit, CLOCK_END)
        if target > limit:
            raise OverrunError(
                f"the run would go on to {target:.9g} s, its limit is {limit:.9g} s; waiting: {self._waiting()}"
            )
        self.reach(target)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time; see the module's rules. Make one per run and close it afterwards.

    An error out of ``run_until_complete`` that is a :class:`VirtualTimeError` leaves the loop usable, so that its tasks
    can still be cancelled and awaited.
    """

    def __init__(self) -> None:
        self._clock = _Clock(self._describe_waiting)
        self._armed = 0
        self._made = 0
        self._tasks: weakref.WeakValueDictionary[int, asyncio.Task[Any]] = weakref.WeakValueDictionary()
        super().__init__(self._clock)
        self._home = threading.get_ident()

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._clock.now

    def set_limit(self, until: float) -> None:
        """Let the clock go up to ``until`` virtual seconds; a step beyond raises :class:`OverrunError`."""
        self._clock.limit = until

    def tasks(self) -> list[asyncio.Task[Any]]:
        """The tasks that still exist, done or not, in the order they were made in."""
        return list(self._tasks.values())

    def create_task(  # type: ignore[override]  # the overloads of the base differ between Python versions
        self, coro: Coroutine[Any, Any, T], *, name: object = None, context: contextvars.Context | None = None
    ) -> asyncio.Task[T]:
        """Make a task; without a name it is called ``task-N``, counted per loop so that two runs agree."""
        self._made += 1
        task = super().create_task(coro, name=f"task-{self._made}" if name is None else str(name), context=context)
        self._tasks[self._made] = task
        return task

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Arm a timer for virtual second ``when``, which must be finite."""
        if not math.isfinite(when):
            raise ValueError(f"a deadline is a finite number of seconds, got {when!r}")
        self._armed += 1
        self._clock.arm(when)
        return super().call_at(_Deadline(when, self._armed), self._fire, float(when), callback, *args, context=context)

    def _fire(self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> None:
        """Run a timer's callback, never before its deadline.

        asyncio fires together what is due within its clock's resolution. A callback that finds its deadline not reached
        by a rounding error would arm it again, and again at once, in an instant that never ends.
        """
        self._clock.reach(when)
        callback(*args)

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """``call_soon``; raises :class:`RealWorldError` in a thread other than the one that made the loop."""
        if threading.get_ident() != self._home:
            _refuse("a callback from another thread")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refused: a thread does not keep virtual time."""
        _refuse("a thread (run_in_executor, to_thread, getaddrinfo)")

    def add_signal_handler(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refused: a signal does not keep virtual time."""
        _refuse("a signal handler")

    def subprocess_exec(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refused: a child process does not keep virtual time."""
        _refuse("a child process")

    def subprocess_shell(self, *_args: object, **_kwargs: object) -> NoReturn:
        """Refused: a child process does not keep virtual time."""
        _refuse("a child process")

    def _describe_waiting(self) -> str:
        waiting = [f"{task.get_name()} ({_place(task)})" for task in self.tasks() if not task.done()]
        return ", ".join(waiting) if waiting else "no task"


def run_virtual(coro: Coroutine[Any, Any, T], *, limit: float = DEFAULT_LIMIT) -> T:
    """Run ``coro`` to its end in a fresh :class:`VirtualTimeLoop` and give its result.

    ``limit`` is in virtual seconds, at most :data:`CLOCK_END`. As with :func:`asyncio.run`, whatever is left when
    ``coro`` ends is cancelled, in the order it was made in, and async generators are closed; cleaning up may take
    another ``limit``.

    Raises what ``coro`` raises, unchanged; :class:`DeadlockError` or :class:`OverrunError` when it cannot end; and an
    ``ExceptionGroup`` when ``coro`` succeeded but a callback or a task failed and nobody looked. If ``coro`` failed
    too, those failures are notes on its exception.
    """
    if not limit > 0:
        coro.close()
        raise ValueError(f"a limit is a positive number of virtual seconds, got {limit!r}")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        coro.close()
        raise VirtualTimeError("run_virtual cannot be called while an event loop runs in this thread")

    stray: list[Exception] = []
    loop = VirtualTimeLoop()
    loop.set_debug(False)
    loop.set_limit(limit)
    loop.set_exception_handler(lambda _loop, context: stray.append(_failure(context)))
    try:
        try:
            result = loop.run_until_complete(loop.create_task(coro, name="main"))
        finally:
            _clean_up(loop, limit, stray)
    except BaseException as error:
        for other in stray:
            if other is not error:
                error.add_note(f"also failed, unnoticed: {other!r}")
        raise
    if stray:
        raise ExceptionGroup("failures that nobody looked at in a virtual run", stray)
    return result


def _clean_up(loop: VirtualTimeLoop, grace: float, stray: list[Exception]) -> None:
    """Cancel what is left, close async generators, gather the failures that nobody looked at, close the loop."""
    try:
        loop.set_limit(loop.time() + grace)
        left = [task for task in loop.tasks() if not task.done()]
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
    except VirtualTimeError as error:
        error.add_note("while cleaning up: a cancelled task or a closed generator does not end")
        stray.append(error)
    else:
        if late := [task.get_name() for task in loop.tasks() if not task.done()]:
            stray.append(VirtualTimeError(f"tasks made while cleaning up outlive the run: {', '.join(late)}"))
    finally:
        for task in loop.tasks():
            # The flag behind "exception was never retrieved", which asyncio itself reads only at the task's collection.
            if getattr(task, "_log_traceback", False):
                fault = task.exception()
                stray.append(fault if isinstance(fault, Exception) else VirtualTimeError(f"{task!r}: {fault!r}"))
        loop.set_exception_handler(None)
        loop.close()


def _failure(context: Mapping[str, Any]) -> Exception:
    """The exception that an asyncio exception-handler context is about."""
    error = context.get("exception")
    return error if isinstance(error, Exception) else VirtualTimeError(str(context.get("message", context)))


def _place(task: asyncio.Task[Any]) -> str:
    """Where a suspended task stands: its innermost coroutine as ``name at file:line``."""
    inner: object = task.get_coro()
    while (deeper := getattr(inner, "cr_await", None)) is not None and hasattr(deeper, "cr_frame"):
        inner = deeper
    name = getattr(inner, "__qualname__", type(inner).__name__)
    frame = getattr(inner, "cr_frame", None)
    return name if frame is None else f"{name} at {frame.f_code.co_filename}:{frame.f_lineno}"


def _refuse(what: str) -> NoReturn:
    raise RealWorldError(f"virtual time: {what} cannot take part in a run whose clock jumps")
