from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.core.multipath.path import PathSlot
from srpha.core.multipath.policy import SelectorKind
from srpha.core.multipath.selectors import Selector, make_selector


def paths(count: int) -> list[PathSlot]:
    return [PathSlot(f"8:{16 * number}") for number in range(count)]


def names(selector: Selector[PathSlot], size: int, count: int) -> list[str | None]:
    chosen = [selector.select(size) for _ in range(count)]
    return [path.dev_t if path else None for path in chosen]


def test_round_robin_takes_turns_and_a_returning_path_is_next() -> None:
    a, b, c = paths(3)
    selector = make_selector(SelectorKind.ROUND_ROBIN, [a, b, c])
    assert names(selector, 1, 4) == ["8:0", "8:16", "8:32", "8:0"]
    selector.fail(b)
    selector.fail(b)
    assert names(selector, 1, 3) == ["8:32", "8:0", "8:32"]
    selector.reinstate(b)
    selector.reinstate(b)
    assert names(selector, 1, 3) == ["8:16", "8:0", "8:32"]


def test_queue_length_takes_the_shortest_queue_and_balances_ties() -> None:
    a, b, c = paths(3)
    selector = make_selector(SelectorKind.QUEUE_LENGTH, [a, b, c])
    assert names(selector, 1, 4) == ["8:0", "8:16", "8:32", "8:0"]
    a.in_flight, b.in_flight, c.in_flight = 3, 2, 5
    assert names(selector, 1, 2) == ["8:16", "8:16"]
    assert selector.status_words(c) == ("5",)
    assert selector.table_words(c) == ("1",)


def test_service_time_compares_bytes_in_flight_at_equal_throughput() -> None:
    a, b = paths(2)
    selector = make_selector(SelectorKind.SERVICE_TIME, [a, b])
    assert names(selector, 4096, 3) == ["8:0", "8:16", "8:0"]
    a.in_flight_bytes = 8192
    assert names(selector, 4096, 2) == ["8:16", "8:16"]
    assert selector.status_words(a) == ("8192", "1")
    assert selector.table_words(a) == ("1", "1")


@pytest.mark.parametrize(
    ("throughputs", "loads", "size", "best"),
    [
        ((1, 4), (0, 0), 100, 1),  # same load: the quicker path
        ((0, 1), (0, 5000), 100, 1),  # 0 is the last resort
        ((1, 4), (0, 1000), 100, 0),  # 100/1 against 1100/4
        ((1, 4), (0, 200), 100, 1),  # 100/1 against 300/4
        ((1, 2), (0, 100), 100, 1),  # 100/1 against 200/2: a tie, the quicker path
        ((0, 0), (10, 5), 100, 1),
    ],
)
def test_service_time_with_different_throughputs(
    throughputs: tuple[int, int], loads: tuple[int, int], size: int, best: int
) -> None:
    for order in ((0, 1), (1, 0)):
        made = paths(2)
        for path, throughput, load in zip(made, throughputs, loads, strict=True):
            path.relative_throughput, path.in_flight_bytes = throughput, load
        selector = make_selector(SelectorKind.SERVICE_TIME, [made[index] for index in order])
        assert selector.select(size) is made[best]


@given(
    st.sampled_from(SelectorKind),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=5),
    st.integers(1, 8),
)
def test_no_usable_path_is_better_than_the_chosen_one(
    kind: SelectorKind, loads: list[tuple[int, int, int]], size: int
) -> None:
    made = paths(len(loads))
    for path, (count, size_out, throughput) in zip(made, loads, strict=True):
        path.in_flight, path.in_flight_bytes, path.relative_throughput = count, size_out, throughput
    selector = make_selector(kind, made)
    before = list(selector.paths)
    chosen = selector.select(size)
    assert chosen is not None
    assert selector.paths == [path for path in before if path is not chosen] + [chosen]
    if kind is SelectorKind.QUEUE_LENGTH:
        assert chosen.in_flight == min(path.in_flight for path in made)
    if kind is SelectorKind.SERVICE_TIME and all(path.relative_throughput for path in made):
        times = [(path.in_flight_bytes + size) / path.relative_throughput for path in made]
        same_load = len({path.in_flight_bytes for path in made}) == 1
        assert same_load or times[made.index(chosen)] <= min(times) * (1 + 1e-9)


@pytest.mark.parametrize("kind", SelectorKind)
def test_without_a_usable_path_there_is_none(kind: SelectorKind) -> None:
    (path,) = paths(1)
    selector = make_selector(kind, [path])
    assert selector.kind is kind
    selector.fail(path)
    assert selector.select(1) is None
