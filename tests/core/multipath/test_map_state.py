from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from srpha.core.multipath.grouping import alua_priority, group_paths
from srpha.core.multipath.map_state import MapState
from srpha.core.multipath.path import PathSlot
from srpha.core.multipath.policy import Failback, GroupingPolicy, MapPolicy, NoPathRetry, SelectorKind
from srpha.wire.scsi.alua import AccessState


def policy(
    grouping: GroupingPolicy = GroupingPolicy.FAILOVER,
    failback: Failback | float = Failback.IMMEDIATE,
    no_path_retry: NoPathRetry | int = NoPathRetry.QUEUE,
) -> MapPolicy:
    return MapPolicy(
        grouping=grouping,
        selector=SelectorKind.ROUND_ROBIN,
        failback=failback,
        no_path_retry=no_path_retry,
        polling_interval=5.0,
    )


def slot(number: int, priority: int = 1, **how: object) -> PathSlot:
    path = PathSlot(f"8:{16 * number}", **how)  # type: ignore[arg-type]
    path.priority = priority
    return path


def filled(rules: MapPolicy, *paths: PathSlot) -> MapState[PathSlot]:
    state: MapState[PathSlot] = MapState(rules)
    for path in paths:
        state.add(path, 0.0)
    return state


def layout(state: MapState[PathSlot]) -> list[list[str]]:
    return [[path.dev_t for path in group.paths] for group in state.groups]


def test_grouping_policies() -> None:
    made = [
        slot(0, 10, serial="x", node_name=b"t1", target_port_group=1),
        slot(1, 50, serial="x", node_name=b"t2", target_port_group=2),
        slot(2, 10, serial="y", node_name=b"t1", target_port_group=2),
    ]

    def grouped(rule_: GroupingPolicy) -> list[list[int]]:
        return [[made.index(path) for path in group] for group in group_paths(rule_, made)]

    assert grouped(GroupingPolicy.FAILOVER) == [[1], [0], [2]]
    assert grouped(GroupingPolicy.MULTIBUS) == [[0, 1, 2]]
    assert grouped(GroupingPolicy.GROUP_BY_PRIO) == [[1], [0, 2]]
    assert grouped(GroupingPolicy.GROUP_BY_SERIAL) == [[0, 1], [2]]
    assert grouped(GroupingPolicy.GROUP_BY_NODE_NAME) == [[1], [0, 2]]
    assert grouped(GroupingPolicy.GROUP_BY_TPG) == [[1, 2], [0]]


@pytest.mark.parametrize(
    ("state", "preferred", "priority"),
    [
        (AccessState.ACTIVE_OPTIMIZED, False, 50),
        (AccessState.ACTIVE_OPTIMIZED, True, 50),
        (AccessState.ACTIVE_NON_OPTIMIZED, False, 10),
        (AccessState.ACTIVE_NON_OPTIMIZED, True, 90),
        (AccessState.LBA_DEPENDENT, False, 5),
        (AccessState.STANDBY, False, 1),
        (AccessState.UNAVAILABLE, False, 0),
        (AccessState.OFFLINE, False, 0),
        (AccessState.TRANSITIONING, False, 0),
    ],
)
def test_alua_priorities(state: AccessState, preferred: bool, priority: int) -> None:
    assert alua_priority(state, preferred) == priority


def test_io_stays_in_the_group_until_its_last_path_fails() -> None:
    a, b, c = slot(0, 50), slot(1, 50), slot(2, 10)
    state = filled(policy(GroupingPolicy.GROUP_BY_PRIO), a, b, c)
    assert layout(state) == [["8:0", "8:16"], ["8:32"]]
    assert state.fail(a, 1.0)
    assert not state.fail(a, 1.0)
    assert a.fail_count == 1
    assert {state.select(1), state.select(1)} == {b}
    state.fail(b, 2.0)
    assert state.select(1) is c
    assert state.current is state.groups[1]


def test_immediate_failback() -> None:
    a, b = slot(0, 50), slot(1, 10)
    state = filled(policy(), a, b)
    state.fail(a, 1.0)
    assert state.select(1) is b
    assert state.reinstate(a, 2.0)
    assert not state.reinstate(a, 2.0)
    assert state.select(1) is a


def test_manual_failback_waits_for_switch_group() -> None:
    a, b = slot(0, 50), slot(1, 10)
    state = filled(policy(failback=Failback.MANUAL), a, b)
    state.fail(a, 1.0)
    state.reinstate(a, 2.0)
    assert state.select(1) is b
    assert state.next_deadline() == math.inf
    state.switch_group(1)
    assert state.select(1) is a
    assert state.select(1) is a
    with pytest.raises(ValueError, match="no path group 3"):
        state.switch_group(3)


def test_delayed_failback_comes_after_its_time_unless_the_reason_goes() -> None:
    a, b = slot(0, 50), slot(1, 10)
    state = filled(policy(failback=10.0), a, b)
    state.fail(a, 1.0)
    state.reinstate(a, 2.0)
    assert state.next_deadline() == 12.0
    assert not state.tick(11.9)
    assert state.select(1) is b
    assert state.tick(12.0)
    assert state.select(1) is a
    state.fail(a, 20.0)
    state.reinstate(a, 21.0)
    state.fail(a, 22.0)
    assert not state.tick(31.0)
    assert state.select(1) is b


def test_followover_follows_the_first_path_of_a_better_group_only() -> None:
    a, b, c = slot(0, 50), slot(1, 50), slot(2, 10)
    state = filled(policy(GroupingPolicy.GROUP_BY_PRIO, Failback.FOLLOWOVER), c)
    state.add(a, 0.0)
    state.add(b, 0.0)
    assert state.current is state.groups[1]  # another host may have moved the array: stay
    state.fail(a, 1.0)
    state.reinstate(a, 2.0)
    assert state.select(1) is c  # b was there all the time
    state.fail(a, 3.0)
    state.fail(b, 3.0)
    state.reinstate(b, 4.0)
    assert state.select(1) is b


def test_a_change_of_priorities_regroups_and_fails_back() -> None:
    a, b = slot(0, 50), slot(1, 10)
    state = filled(policy(GroupingPolicy.GROUP_BY_PRIO), a, b)
    assert not state.set_priority(a, 50, 1.0)
    assert state.set_priority(a, 10, 1.0)
    assert layout(state) == [["8:0", "8:16"]]
    assert state.set_priority(b, 50, 2.0)
    assert layout(state) == [["8:16"], ["8:0"]]
    assert state.select(1) is b


def test_bypassed_groups_are_the_last_resort() -> None:
    a, b = slot(0), slot(1)
    state = filled(policy(), a, b)
    state.bypass_group(1, True)
    assert state.select(1) is b
    state.fail(b, 1.0)
    assert state.select(1) is a
    state.add(slot(2), 2.0)
    assert [group.bypassed for group in state.groups] == [True, False, False]
    state.bypass_group(1, False)
    with pytest.raises(ValueError, match="no path group 0"):
        state.bypass_group(0, True)


def test_no_path_retry_counts_from_the_last_failure_and_recovers() -> None:
    a = slot(0)
    state = filled(policy(no_path_retry=4), a)
    state.fail(a, 100.0)
    assert state.select(1) is None
    assert (state.holds_io, state.queueing, state.next_deadline()) == (True, True, 120.0)
    assert not state.tick(119.9)
    assert state.tick(120.0)
    assert (state.holds_io, state.queueing, state.next_deadline()) == (False, False, math.inf)
    state.reinstate(a, 130.0)
    assert (state.holds_io, state.queueing) == (True, True)
    assert state.select(1) is a


def test_a_blocked_path_postpones_the_count() -> None:
    a = slot(0)
    state = filled(policy(no_path_retry=1), a)
    state.fail(a, 100.0, pending=True)
    assert state.next_deadline() == math.inf
    assert state.holds_io
    state.fail(a, 200.0)
    assert state.next_deadline() == 205.0
    state.fail(a, 203.0, pending=True)  # an attempt to reconnect does not start the count anew
    assert state.next_deadline() == 205.0


def test_queue_and_fail() -> None:
    for retry, holds in ((NoPathRetry.QUEUE, True), (NoPathRetry.FAIL, False)):
        a = slot(0)
        state = filled(policy(no_path_retry=retry), a)
        state.fail(a, 1.0)
        assert (state.holds_io, state.queueing, state.next_deadline()) == (holds, holds, math.inf)


def test_the_last_path_may_be_removed() -> None:
    a = slot(0)
    state = filled(policy(no_path_retry=2), a)
    with pytest.raises(ValueError, match="already"):
        state.add(a, 0.0)
    state.remove(a, 10.0)
    assert (state.groups, state.current, state.select(1)) == ((), None, None)
    assert state.next_deadline() == 20.0
    for call in (state.fail, state.reinstate, state.remove):
        with pytest.raises(ValueError, match="not in the map"):
            call(a, 0.0)


class MapMachine(RuleBasedStateMachine):
    """Random lives of a map against the few things that must always hold."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.state = filled(policy(GroupingPolicy.GROUP_BY_PRIO, Failback.IMMEDIATE, 3))
        self.paths: list[PathSlot] = []
        self.made = 0

    @rule(priority=st.sampled_from([1, 10, 50]), usable=st.booleans())
    @precondition(lambda self: len(self.paths) < 6)
    def add(self, priority: int, usable: bool) -> None:
        path = slot(self.made, priority)
        path.usable = usable
        self.made += 1
        self.paths.append(path)
        self.state.add(path, self.now)

    @rule(data=st.data(), what=st.sampled_from(["fail", "block", "reinstate", "remove", "prio"]))
    @precondition(lambda self: self.paths)
    def change(self, data: st.DataObject, what: str) -> None:
        path = data.draw(st.sampled_from(self.paths))
        match what:
            case "fail":
                self.state.fail(path, self.now)
            case "block":
                self.state.fail(path, self.now, pending=True)
            case "reinstate":
                self.state.reinstate(path, self.now)
            case "remove":
                self.state.remove(path, self.now)
                self.paths.remove(path)
            case _:
                self.state.set_priority(path, data.draw(st.sampled_from([1, 10, 50])), self.now)

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self.state.next_deadline():
            self.state.tick(self.now)

    @invariant()
    def every_path_is_in_one_group_and_only_usable_ones_are_chosen(self) -> None:
        grouped = [path for group in self.state.groups for path in group.paths]
        assert sorted(path.dev_t for path in grouped) == sorted(path.dev_t for path in self.paths)
        for group in self.state.groups:
            assert {path for path in group.paths if path.usable} == set(group.selector.paths)
            assert len({path.priority for path in group.paths}) == 1
        assert [group.number for group in self.state.groups] == list(range(1, len(self.state.groups) + 1))

    @invariant()
    def io_goes_to_the_best_usable_path(self) -> None:
        usable = [path for path in self.paths if path.usable]
        chosen = self.state.select(1)
        assert (chosen is None) == (not usable)
        if chosen is not None:
            assert chosen in usable
            assert chosen.priority == max(path.priority for path in usable)

    @invariant()
    def io_is_never_queued_for_ever_without_a_reason(self) -> None:
        hopeless = bool(self.made) and not any(path.usable or path.pending for path in self.paths)
        if hopeless:
            assert self.state.next_deadline() <= self.now + 15.0 or not self.state.holds_io
        else:
            assert self.state.holds_io


TestMapMachine = MapMachine.TestCase
TestMapMachine.settings = settings(max_examples=60, stateful_step_count=30)
