"""The virtual-time loop: what fails a run, how it cleans up, and what of the real world it refuses."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from srpha.embedded.virtual_time import (
    DeadlockError,
    OverrunError,
    RealWorldError,
    VirtualTimeError,
    VirtualTimeLoop,
    run_virtual,
)


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.fixture
def loop() -> Iterator[VirtualTimeLoop]:
    made = VirtualTimeLoop()
    yield made
    made.close()


class TestFailures:
    def test_the_exception_of_main_propagates_as_it_is(self) -> None:
        error = KeyError("mine")

        async def main() -> None:
            raise error

        with pytest.raises(KeyError) as caught:
            run_virtual(main())
        assert caught.value is error
        assert not hasattr(error, "__notes__")

    def test_an_exception_group_propagates_unchanged(self) -> None:
        async def fail(error: Exception) -> None:
            raise error

        async def main() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail(KeyError("a")))
                group.create_task(fail(OSError("b")))

        with pytest.raises(ExceptionGroup) as caught:
            run_virtual(main())
        assert [type(error) for error in caught.value.exceptions] == [KeyError, OSError]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_an_interrupt_propagates(self, error: type[BaseException]) -> None:
        async def main() -> None:
            raise error

        with pytest.raises(error):
            run_virtual(main())

    def test_a_failed_callback_fails_the_run(self) -> None:
        async def main() -> str:
            asyncio.get_running_loop().call_later(1, lambda: 1 // 0)
            await asyncio.sleep(2)
            return "fine"

        with pytest.raises(ExceptionGroup, match="nobody looked at") as caught:
            run_virtual(main())
        assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]

    def test_a_failed_task_that_nobody_keeps_fails_the_run(self) -> None:
        async def fail() -> None:
            raise OSError("lost")

        async def main() -> None:
            asyncio.create_task(fail())  # noqa: RUF006 - the point of the test
            await asyncio.sleep(1)

        with pytest.raises(ExceptionGroup) as caught:
            run_virtual(main())
        assert [repr(error) for error in caught.value.exceptions] == ["OSError('lost')"]

    def test_a_failed_task_that_somebody_keeps_but_never_asks_fails_the_run(self) -> None:
        kept: list[asyncio.Task[None]] = []

        async def fail() -> None:
            raise OSError("kept")

        async def main() -> None:
            kept.append(asyncio.create_task(fail()))
            await asyncio.sleep(1)

        with pytest.raises(ExceptionGroup) as caught:
            run_virtual(main())
        assert [repr(error) for error in caught.value.exceptions] == ["OSError('kept')"]
        kept.clear()
        gc.collect()  # nothing more may be reported

    def test_a_failed_task_in_a_reference_cycle_fails_the_run(self) -> None:
        class Owner:
            task: asyncio.Task[None]

            async def fail(self) -> None:
                raise OSError("cycle")

            async def start(self) -> None:
                self.task = asyncio.create_task(self.fail())

        async def main() -> None:
            await Owner().start()
            await asyncio.sleep(1)

        gc.disable()
        try:
            with pytest.raises(ExceptionGroup) as caught:
                run_virtual(main())
        finally:
            gc.enable()
        assert [repr(error) for error in caught.value.exceptions] == ["OSError('cycle')"]

    def test_an_exception_that_somebody_looked_at_is_no_failure(self) -> None:
        async def fail() -> None:
            raise OSError("seen")

        async def main() -> str:
            task = asyncio.create_task(fail())
            await asyncio.sleep(1)
            assert isinstance(task.exception(), OSError)
            (result,) = await asyncio.gather(fail(), return_exceptions=True)
            assert isinstance(result, OSError)
            return "fine"

        assert run_virtual(main()) == "fine"

    def test_several_failures_are_all_told(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.call_later(1, lambda: 1 // 0)
            loop.call_later(2, lambda: {}["key"])
            loop.call_exception_handler({"message": "a message without an exception"})
            await asyncio.sleep(3)

        with pytest.raises(ExceptionGroup) as caught:
            run_virtual(main())
        assert [type(error) for error in caught.value.exceptions] == [VirtualTimeError, ZeroDivisionError, KeyError]
        assert "without an exception" in str(caught.value.exceptions[0])

    def test_unnoticed_failures_become_notes_when_main_fails_too(self) -> None:
        async def main() -> None:
            asyncio.get_running_loop().call_soon(lambda: 1 // 0)
            await asyncio.sleep(1)
            raise KeyError("main")

        with pytest.raises(KeyError) as caught:
            run_virtual(main())
        (note,) = caught.value.__notes__
        assert "ZeroDivisionError" in note

    def test_an_exception_raised_while_being_cancelled_at_the_end_fails_the_run(self) -> None:
        async def stubborn() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                raise OSError("while cancelled")

        async def main() -> asyncio.Task[None]:
            task = asyncio.create_task(stubborn())
            await asyncio.sleep(1)
            return task

        with pytest.raises(ExceptionGroup) as caught:
            run_virtual(main())
        assert [repr(error) for error in caught.value.exceptions] == ["OSError('while cancelled')"]

    def test_a_task_that_refuses_to_end_fails_the_run(self, caplog: pytest.LogCaptureFixture) -> None:
        async def immortal() -> None:
            for _ in range(2):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    continue

        async def main() -> None:
            asyncio.create_task(immortal(), name="immortal")  # noqa: RUF006 - dropped on purpose
            await asyncio.sleep(1)

        with pytest.raises(ExceptionGroup) as caught:
            run_virtual(main())
        (error,) = caught.value.exceptions
        assert isinstance(error, DeadlockError)
        assert "immortal" in str(error)
        assert "cleaning up" in error.__notes__[0]
        caught.value.__traceback__ = error.__traceback__ = None
        gc.collect()
        assert all("destroyed but it is pending" in record.message for record in caplog.records)

    def test_a_task_made_while_cleaning_up_fails_the_run(self, caplog: pytest.LogCaptureFixture) -> None:
        async def hydra() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                heads.append(asyncio.create_task(asyncio.sleep(1), name="head"))

        heads: list[asyncio.Task[None]] = []

        async def main() -> None:
            heads.append(asyncio.create_task(hydra()))
            await asyncio.sleep(1)

        with pytest.raises(ExceptionGroup) as caught:
            run_virtual(main())
        assert "head" in str(caught.value.exceptions[0])
        heads.clear()
        gc.collect()
        assert len(caplog.records) <= 1


class TestCleaningUp:
    def test_async_generators_are_closed(self) -> None:
        closed: list[float] = []

        async def numbers() -> AsyncIterator[int]:
            try:
                for number in range(10):
                    yield number
            finally:
                await asyncio.sleep(1)
                closed.append(now())

        async def main() -> AsyncIterator[int]:
            generator = numbers()
            async for number in generator:
                if number == 2:
                    break
            return generator

        run_virtual(main())
        assert closed == [1.0]

    def test_the_loop_is_closed_and_no_loop_is_left_behind(self) -> None:
        async def main() -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

        assert run_virtual(main()).is_closed()
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()

    def test_debug_is_off_whatever_the_environment_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")

        async def main() -> bool:
            return asyncio.get_running_loop().get_debug()

        assert run_virtual(main()) is False

    def test_it_does_not_nest(self) -> None:
        async def main() -> None:
            run_virtual(asyncio.sleep(1))

        with pytest.raises(VirtualTimeError, match="while an event loop runs"):
            run_virtual(main())

    def test_tasks_get_time_to_clean_up_after_an_overrun(self) -> None:
        cleaned: list[float] = []

        async def main() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(5)
                cleaned.append(now())

        with pytest.raises(OverrunError):
            run_virtual(main(), limit=10)
        assert cleaned == [5.0]  # the clock had nothing to stop at before the limit


class TestTheRealWorldIsRefused:
    def check(self, attempt: Callable[[], Awaitable[object]]) -> None:
        async def main() -> None:
            with pytest.raises(RealWorldError, match="virtual time"):
                await attempt()

        run_virtual(main())

    def test_file_descriptors(self) -> None:
        read, write = os.pipe()
        try:

            async def main() -> None:
                loop = asyncio.get_running_loop()
                with pytest.raises(RealWorldError, match="file descriptor"):
                    loop.add_reader(read, print)
                with pytest.raises(RealWorldError, match="file descriptor"):
                    loop.add_writer(write, print)
                assert not loop.remove_reader(read)

            run_virtual(main())
        finally:
            os.close(read)
            os.close(write)

    def test_sockets(self) -> None:
        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            self.check(lambda: asyncio.get_running_loop().sock_recv(left, 1))

    def test_threads(self) -> None:
        self.check(lambda: asyncio.to_thread(print))

    def test_name_look_up(self) -> None:
        self.check(lambda: asyncio.get_running_loop().getaddrinfo("localhost", 1))

    def test_child_processes(self) -> None:
        self.check(lambda: asyncio.create_subprocess_exec(sys.executable, "-c", ""))
        self.check(lambda: asyncio.create_subprocess_shell("true"))

    def test_signals_in_the_manner_of_platforms_without_them(self, loop: VirtualTimeLoop) -> None:
        with pytest.raises(NotImplementedError):
            loop.add_signal_handler(signal.SIGTERM, print)

    def test_call_soon_threadsafe_works_in_the_loop_s_own_thread(self) -> None:
        async def main() -> None:
            called = asyncio.Event()
            asyncio.get_running_loop().call_soon_threadsafe(called.set)
            await called.wait()

        run_virtual(main())

    def test_call_soon_threadsafe_is_refused_in_another_thread(self, loop: VirtualTimeLoop) -> None:
        caught: list[RealWorldError] = []

        def other() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except RealWorldError as error:
                caught.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert "another thread" in str(caught[0])
