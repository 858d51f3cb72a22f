from __future__ import annotations

from dataclasses import replace

from storage import connection, mapping, path

from srpha.core.connections.drain import DrainAssessment, assess_drain, held_paths, hosts_of, paths_to_reinstate
from srpha.core.recovery.remote_port import RemotePortState
from srpha.core.seams import CheckerState, DeviceState, PathState

FAILED = PathState.FAILED


def test_hosts_of_local_ports() -> None:
    connections = [connection(0, local=0), connection(1, local=1), connection(2, local=0)]
    assert hosts_of(connections, {"mlx5_0/1"}) == {0, 2}
    assert hosts_of(connections, {"mlx5_0/2"}) == frozenset()


def test_paths_over_the_hosts_are_held_where_another_is_healthy() -> None:
    maps = [mapping(path(0), path(1)), mapping(path(2), path(3, state=FAILED), name="mpathb")]
    assert assess_drain(maps, {0}) == DrainAssessment(("mpatha",), ("sda",), ("sda",), ())
    assert assess_drain(maps, {2}) == DrainAssessment(("mpathb",), (), (), ("mpathb",))
    assert assess_drain(maps, {9}) == DrainAssessment((), (), (), ())


def test_the_healthy_one_must_be_over_another_port_and_healthy_in_every_layer() -> None:
    for other in (
        path(1, device=DeviceState.BLOCKED),
        replace(path(1), checker=CheckerState.FAULTY),
        path(1, state=FAILED),
    ):
        assert assess_drain([mapping(path(0), other)], {0}).stranded == ("mpatha",)
    assert assess_drain([mapping(path(0), path(1))], {0, 1}).stranded == ("mpatha",)


def test_a_map_that_is_named_may_lose_its_last_path() -> None:
    assert assess_drain([mapping(path(0))], {0}, ["mpatha"]) == DrainAssessment(("mpatha",), ("sda",), ("sda",), ())


def test_paths_that_are_out_already_are_held_too() -> None:
    maps = [mapping(path(0, state=FAILED), path(1))]
    assert assess_drain(maps, {0}) == DrainAssessment(("mpatha",), ("sda",), (), ())


def test_what_is_given_back() -> None:
    maps = [mapping(path(0, state=FAILED), path(1, state=FAILED), path(2), path(3, state=FAILED))]
    owed = held_paths(maps, {0, 1, 2})
    assert owed == {"sda": 0, "sdb": 1}
    running = [connection(0), connection(1)]
    assert paths_to_reinstate(maps, running, owed) == ("sda", "sdb")
    assert paths_to_reinstate(maps, [connection(0, state=RemotePortState.BLOCKED), connection(1)], owed) == ("sdb",)
    assert paths_to_reinstate(maps, [connection(0, removing=True)], owed) == ()
    assert paths_to_reinstate(maps, running, {"sda": 7}) == ()
    offline = [mapping(path(0, state=FAILED, device=DeviceState.BLOCKED))]
    assert paths_to_reinstate(offline, running, owed) == ()
