"""A thread of one's own for calls into the kernel that may block.

A login may block its caller for 70 s (facts: srp C.1) and cannot be taken back. So the one who waits may leave; the
call goes on, and what is submitted meanwhile waits its turn. The thread does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import queue
import signal
import threading
from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")


_Jobs: TypeAlias = "queue.SimpleQueue[Callable[[Callable[[], None]], None] | None]"


class _Job(Generic[T]):
    """One call, and where its result goes."""

    __slots__ = ("_call", "_future", "_loop")

    def __init__(self, call: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        self._call = call
        self._loop = loop
        self._future: asyncio.Future[T] = loop.create_future()

    @property
    def future(self) -> asyncio.Future[T]:
        return self._future

    def run(self, over: Callable[[], None]) -> None:
        """In the thread: carry the call out unless nobody waits any more; ``over`` comes before the end is told."""
        if self._future.cancelled():
            over()
            return
        try:
            result = self._call()
        except Exception as error:  # whatever it is, it is raised again where the call was submitted
            failure = error
            over()
            self._tell(lambda: self._future.set_exception(failure))
        else:
            over()
            self._tell(lambda: self._future.set_result(result))

    def _tell(self, settle: Callable[[], None]) -> None:
        def on_the_loop() -> None:
            if not self._future.done():
                settle()

        try:
            self._loop.call_soon_threadsafe(on_the_loop)
        except RuntimeError:
            return  # the loop was closed meanwhile: nobody is left to be told


class Worker:
    """Carries out calls one after the other in a thread that starts with the first of them.

    ``busy`` is for status displays: a call runs or waits.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: _Jobs = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._open = 0
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """A call runs or waits, also one whose caller has left."""
        return self._open > 0

    async def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` in the thread and give its result or raise its exception.

        Cancelled, a call that has begun goes on by itself, and one that has not is dropped.
        """
        job = _Job(function, asyncio.get_running_loop())
        with self._lock:
            self._open += 1
        self._jobs.put(job.run)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(self._jobs,), name=self._name, daemon=True)
            self._thread.start()
        return await job.future

    def close(self) -> None:
        """Let the thread end after the calls that are in line; a later call begins another one."""
        if self._thread is not None:
            self._thread = None
            self._jobs.put(None)
            self._jobs = queue.SimpleQueue()

    def _run(self, jobs: _Jobs) -> None:
        # A signal that is handled in this thread would end a login half-way with EINTR.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while (job := jobs.get()) is not None:
            job(self._over)

    def _over(self) -> None:
        with self._lock:
            self._open -= 1
