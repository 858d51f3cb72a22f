"""The virtual-time loop: its clock, its order, asyncio's own tools in it, deadlocks and limits."""

from __future__ import annotations

import asyncio
import contextvars
import math
import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.embedded.virtual_time import (
    DeadlockError,
    OverrunError,
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


class TestClock:
    def test_starts_at_zero_and_steps_to_the_deadline(self) -> None:
        async def main() -> list[float]:
            seen = [now()]
            await asyncio.sleep(1.5)
            seen.append(now())
            await asyncio.sleep(0)
            seen.append(now())
            return seen

        assert run_virtual(main()) == [0.0, 1.5, 1.5]

    def test_never_waits_on_the_real_clock(self) -> None:
        began = time.monotonic()
        run_virtual(asyncio.sleep(30 * 86400.0), limit=31 * 86400.0)
        assert time.monotonic() - began < 5

    def test_stands_on_a_deadline_beyond_the_longest_select(self) -> None:
        """BaseEventLoop never selects for more than a day; the clock must get past that."""

        async def main() -> float:
            await asyncio.sleep(400_000.1)
            return now()

        assert run_virtual(main(), limit=1e6) == 400_000.1

    @given(st.lists(st.just(0.0) | st.floats(1e-6, 1e6), min_size=1, max_size=8))
    def test_stands_exactly_on_each_deadline(self, delays: list[float]) -> None:
        async def main() -> None:
            for delay in delays:
                due = now() + delay
                await asyncio.sleep(delay)
                assert now() == due

        run_virtual(main(), limit=math.inf)

    @given(st.lists(st.floats(0, 100, allow_nan=False), max_size=12))
    def test_is_monotonic_and_fires_in_order_of_deadline(self, delays: list[float]) -> None:
        fired: list[tuple[float, float]] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            for delay in delays:
                loop.call_at(delay, lambda due=delay: fired.append((due, loop.time())))
            await asyncio.sleep(101)

        run_virtual(main())
        assert [due for due, _ in fired] == sorted(delays)
        assert all(abs(at - due) <= 1e-9 for due, at in fired)
        assert [at for _, at in fired] == sorted(at for _, at in fired)

    def test_does_not_move_while_something_is_ready(self) -> None:
        async def main() -> None:
            for _ in range(1000):
                await asyncio.sleep(0)
                assert now() == 0.0

        run_virtual(main())

    def test_does_not_stop_for_a_cancelled_timer(self) -> None:
        async def main() -> list[float]:
            loop = asyncio.get_running_loop()
            loop.call_later(1, pytest.fail).cancel()
            await asyncio.sleep(2)
            return [now()]

        assert run_virtual(main()) == [2.0]

    def test_a_deadline_in_the_past_fires_now(self) -> None:
        async def main() -> float:
            await asyncio.sleep(5)
            fired = asyncio.Event()
            asyncio.get_running_loop().call_at(1.0, fired.set)
            await fired.wait()
            return now()

        assert run_virtual(main()) == 5.0

    @pytest.mark.parametrize("when", [math.inf, -math.inf, math.nan])
    def test_a_deadline_must_be_finite(self, loop: VirtualTimeLoop, when: float) -> None:
        with pytest.raises(ValueError, match="finite"):
            loop.call_at(when, print)

    def test_timer_handles_tell_their_deadline(self, loop: VirtualTimeLoop) -> None:
        handle = loop.call_later(2.5, print)
        assert handle.when() == 2.5
        assert not handle.cancelled()
        handle.cancel()
        assert handle.cancelled()


class TestOrder:
    def test_timers_of_one_deadline_fire_in_the_order_they_were_armed(self) -> None:
        """A heap alone does not keep it: 200 equal deadlines with others in between come out shuffled."""
        fired: list[int] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            for number in range(200):
                loop.call_at(1.0, fired.append, number)
                loop.call_at(number / 400, lambda: None)
            await asyncio.sleep(2)

        run_virtual(main())
        assert fired == list(range(200))

    def test_equal_deadlines_reached_by_different_sums_stay_apart_in_order(self) -> None:
        fired: list[str] = []

        async def worker(name: str, step: float, steps: int) -> None:
            for _ in range(steps):
                await asyncio.sleep(step)
            fired.append(name)

        async def main() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(worker("tenths", 0.1, 10))
                group.create_task(worker("halves", 0.5, 2))
                group.create_task(worker("one", 1.0, 1))

        run_virtual(main())
        # ten tenths sum to 0.9999999999999999; of the two at 1.0 the one armed at 0.0 precedes the one armed at 0.5
        assert fired == ["tenths", "one", "halves"]

    def test_two_runs_of_one_seed_are_one_run(self) -> None:
        def world(seed: int) -> list[tuple[float, str]]:
            rng = random.Random(seed)
            log: list[tuple[float, str]] = []

            async def actor() -> None:
                task = asyncio.current_task()
                assert task is not None
                for _ in range(10):
                    await asyncio.sleep(rng.choice([0, 0.5, 0.5, 1, rng.random()]))
                    log.append((now(), task.get_name()))

            async def main() -> None:
                async with asyncio.TaskGroup() as group:
                    for _ in range(20):
                        group.create_task(actor())

            run_virtual(main())
            return log

        assert world(1) == world(1)
        assert world(1) != world(2)

    def test_tasks_are_named_per_loop(self) -> None:
        async def main() -> list[str]:
            named = asyncio.create_task(asyncio.sleep(0), name="mine")
            first = asyncio.create_task(asyncio.sleep(0))
            await asyncio.gather(named, first)
            return [named.get_name(), first.get_name()]

        assert run_virtual(main()) == run_virtual(main()) == ["mine", "task-3"]

    def test_left_over_tasks_are_cancelled_in_the_order_they_were_made(self) -> None:
        ended: list[int] = []

        async def forever(number: int) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(number)

        async def main() -> list[asyncio.Task[None]]:
            made = [asyncio.create_task(forever(number)) for number in range(50)]
            await asyncio.sleep(1)
            return made

        left = run_virtual(main())
        assert ended == list(range(50))
        assert all(task.cancelled() for task in left)


class TestStandardTools:
    def test_timeout(self) -> None:
        async def main() -> float:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3):
                    await asyncio.Event().wait()
            return now()

        assert run_virtual(main()) == 3.0

    def test_timeout_not_reached_leaves_no_trace(self) -> None:
        async def main() -> float:
            async with asyncio.timeout(3):
                await asyncio.sleep(1)
            await asyncio.sleep(10)
            return now()

        assert run_virtual(main()) == 11.0

    def test_wait_for_and_wait(self) -> None:
        async def main() -> float:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 2)
            slow = asyncio.create_task(asyncio.sleep(9))
            done, pending = await asyncio.wait([slow], timeout=1)
            assert (done, pending) == (set(), {slow})
            await slow
            return now()

        assert run_virtual(main()) == 11.0

    def test_task_group_runs_its_children_side_by_side(self) -> None:
        async def main() -> tuple[float, int]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(asyncio.sleep(delay, delay)) for delay in (3, 1, 2)]
            return now(), sum(task.result() for task in tasks)

        assert run_virtual(main()) == (3.0, 6)

    def test_queue_lock_and_condition(self) -> None:
        async def main() -> list[tuple[float, int]]:
            queue: asyncio.Queue[int] = asyncio.Queue(1)
            got: list[tuple[float, int]] = []

            async def produce() -> None:
                for number in range(3):
                    await queue.put(number)

            async def consume() -> None:
                for _ in range(3):
                    await asyncio.sleep(1)
                    got.append((now(), await queue.get()))

            async with asyncio.TaskGroup() as group:
                group.create_task(produce())
                group.create_task(consume())
            return got

        assert run_virtual(main()) == [(1.0, 0), (2.0, 1), (3.0, 2)]

    def test_context_variables_follow_tasks_and_timers(self) -> None:
        variable = contextvars.ContextVar("variable", default="outer")

        async def main() -> list[str]:
            seen: list[str] = []
            variable.set("main")
            context = contextvars.Context()
            loop = asyncio.get_running_loop()
            loop.call_later(1, lambda: seen.append(variable.get()))
            loop.call_later(1, lambda: seen.append(variable.get()), context=context)
            loop.call_soon_threadsafe(lambda: seen.append(variable.get()), context=context)
            await asyncio.sleep(1)
            return seen

        assert run_virtual(main()) == ["outer", "main", "outer"]


class TestDeadlock:
    def test_is_told_with_the_names_and_places_of_who_waits(self) -> None:
        async def wait_for_godot() -> None:
            await asyncio.Event().wait()

        async def main() -> None:
            await asyncio.sleep(2)
            async with asyncio.TaskGroup() as group:
                group.create_task(wait_for_godot(), name="estragon")

        with pytest.raises(DeadlockError) as caught:
            run_virtual(main())
        text = str(caught.value)
        assert "deadlock at 2 s" in text
        assert "main (" in text
        assert "estragon (" in text
        assert "Event.wait at " in text  # the innermost coroutine, not only the task's own

    def test_finished_tasks_are_not_named(self) -> None:
        async def main() -> None:
            done = asyncio.create_task(asyncio.sleep(1), name="already over")
            await done
            await asyncio.get_running_loop().create_future()

        with pytest.raises(DeadlockError) as caught:
            run_virtual(main())
        assert "already over" not in str(caught.value)

    def test_still_lets_every_task_clean_up(self) -> None:
        cleaned: list[str] = []

        async def main() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(1)
                cleaned.append("main")

        with pytest.raises(DeadlockError):
            run_virtual(main())
        assert cleaned == ["main"]

    def test_a_bare_loop_tells_it_too(self, loop: VirtualTimeLoop) -> None:
        with pytest.raises(DeadlockError, match="no task"):
            loop.run_forever()

    def test_a_cancelled_last_timer_is_a_deadlock(self) -> None:
        async def main() -> None:
            asyncio.get_running_loop().call_later(10, print).cancel()
            await asyncio.Event().wait()

        with pytest.raises(DeadlockError, match="deadlock at 0 s"):
            run_virtual(main())


class TestLimit:
    def test_up_to_the_limit_is_allowed(self) -> None:
        run_virtual(asyncio.sleep(10), limit=10)

    def test_beyond_the_limit_is_an_overrun(self) -> None:
        with pytest.raises(OverrunError, match=r"to 10\.5 s, its limit is 10 s; waiting: main \(sleep at "):
            run_virtual(asyncio.sleep(10.5), limit=10)

    def test_an_endless_ticker_is_an_overrun(self) -> None:
        ticks: list[float] = []

        async def main() -> None:
            while True:
                await asyncio.sleep(1)
                ticks.append(now())

        with pytest.raises(OverrunError):
            run_virtual(main(), limit=100)
        assert ticks[-1] == 100.0

    def test_spinning_without_a_step_of_the_clock_is_an_overrun(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("srpha.embedded.virtual_time._STALL_TURNS", 1000)

        async def main() -> None:
            await asyncio.sleep(1)
            while True:  # noqa: ASYNC110 - the point of the test
                await asyncio.sleep(0)

        with pytest.raises(OverrunError, match="the clock stands at 1 s for 1000 turns"):
            run_virtual(main())

    def test_the_count_of_turns_starts_again_with_each_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("srpha.embedded.virtual_time._STALL_TURNS", 100)

        async def main() -> None:
            for _ in range(10):
                for _ in range(80):
                    await asyncio.sleep(0)
                await asyncio.sleep(0.001)

        run_virtual(main())

    @pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
    def test_a_limit_is_positive(self, limit: float) -> None:
        with pytest.raises(ValueError, match="positive"):
            run_virtual(asyncio.sleep(0), limit=limit)

    def test_no_limit(self) -> None:
        run_virtual(asyncio.sleep(1.6e7), limit=math.inf)

    def test_the_clock_ends_where_floats_get_too_coarse(self) -> None:
        with pytest.raises(OverrunError, match="its limit is 16777216 s"):
            run_virtual(asyncio.sleep(1e9), limit=math.inf)

    @given(st.floats(1.6e7, 2**24 - 2), st.floats(1e-9, 1))
    def test_near_its_end_the_clock_still_fires_every_timer(self, start: float, delay: float) -> None:
        async def main() -> None:
            await asyncio.sleep(start)
            await asyncio.sleep(delay)

        run_virtual(main(), limit=math.inf)

    @given(st.lists(st.floats(0, 5e-9), max_size=20))
    def test_deadlines_nanoseconds_apart_do_not_stall_the_clock(self, delays: list[float]) -> None:
        async def main() -> None:
            await asyncio.sleep(1)
            for delay in delays:
                asyncio.get_running_loop().call_later(delay, print).cancel()
                await asyncio.sleep(delay)

        run_virtual(main())


def test_timer_never_fires_early() -> None:
    """Two deadlines closer than asyncio's clock resolution fire in one turn, each at its own time."""
    first, second = 64.24, math.nextafter(64.24, 65)
    seen: list[float] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.call_at(first, lambda: seen.append(loop.time()))
        loop.call_at(second, lambda: seen.append(loop.time()))
        await asyncio.sleep(65)

    run_virtual(run())
    assert seen == [first, second]


def test_deadline_that_is_judged_by_the_clock_is_reached() -> None:
    """What looks at the clock when its timer fires, and else arms it again, does not spin while others keep busy."""
    deadline = math.nextafter(1.0, 2)
    turns = 0

    async def run() -> None:
        loop = asyncio.get_running_loop()
        over = asyncio.Event()

        def expire() -> None:
            nonlocal turns
            turns += 1
            if loop.time() >= deadline:
                over.set()
            else:
                loop.call_at(deadline, expire)
                loop.call_soon(lambda: None)

        loop.call_at(1.0, lambda: None)
        loop.call_at(deadline, expire)
        await over.wait()

    run_virtual(run())
    assert turns == 1
