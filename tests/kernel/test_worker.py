"""The worker against real threads; the clock plays no part."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest

from srpha.kernel.worker import Worker

pytestmark = pytest.mark.realtime


async def test_calls_give_their_result_or_raise_their_exception() -> None:
    worker = Worker("w")
    assert await worker.call(lambda: 3) == 3

    def fail() -> None:
        raise OSError(5, "no")

    with pytest.raises(OSError, match="no"):
        await worker.call(fail)
    assert not worker.busy
    worker.close()


async def test_calls_run_one_after_the_other_in_one_thread_of_their_own() -> None:
    worker = Worker("w")
    threads = await asyncio.gather(*(worker.call(threading.get_ident) for _ in range(5)))
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()
    worker.close()


async def test_a_caller_that_leaves_does_not_stop_the_call_and_the_next_one_waits() -> None:
    worker = Worker("w")
    begun, let_go = threading.Event(), threading.Event()
    done: list[str] = []

    def slow() -> None:
        begun.set()
        let_go.wait(60)
        done.append("slow")

    first = asyncio.create_task(worker.call(slow))
    await asyncio.to_thread(begun.wait, 60)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert worker.busy
    never = asyncio.create_task(worker.call(lambda: done.append("never")))
    second = asyncio.create_task(worker.call(lambda: done.append("second")))
    await asyncio.sleep(0)
    never.cancel()
    await asyncio.sleep(0)
    assert done == []
    let_go.set()
    await second
    assert done == ["slow", "second"], "a call that had not begun is dropped with its caller"
    worker.close()


async def test_a_call_after_the_end_is_carried_out_while_an_old_one_still_blocks() -> None:
    worker = Worker("w")
    begun, let_go = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        let_go.wait(60)

    first = asyncio.create_task(worker.call(slow))
    await asyncio.to_thread(begun.wait, 60)
    worker.close()
    assert await worker.call(lambda: 3) == 3
    assert worker.busy
    let_go.set()
    await first
    assert not worker.busy
    worker.close()


async def test_signals_are_left_to_the_main_thread() -> None:
    worker = Worker("w")
    blocked = await worker.call(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    assert {signal.SIGHUP, signal.SIGINT, signal.SIGTERM} <= blocked
    worker.close()


def test_a_loop_that_closes_under_a_call_harms_nobody() -> None:
    worker = Worker("w")
    begun, let_go, ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        let_go.wait(60)

    async def leave() -> None:
        task = asyncio.create_task(worker.call(slow))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()

    asyncio.run(leave())
    let_go.set()

    async def again() -> None:
        await worker.call(ended.set)

    asyncio.run(again())
    assert ended.is_set()
    worker.close()


def test_the_thread_does_not_keep_the_process() -> None:
    async def daemon() -> bool:
        worker = Worker("w")
        is_daemon = await worker.call(lambda: threading.current_thread().daemon)
        worker.close()
        worker.close()
        return is_daemon

    assert asyncio.run(daemon())
