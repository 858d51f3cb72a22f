from __future__ import annotations

from dataclasses import replace

from storage import connection, mapping, path

from srpha.core.changes import connection_events, connection_name, map_events
from srpha.core.events import Event, EventKind, Severity
from srpha.core.recovery.remote_port import RemotePortState
from srpha.core.seams import Connection, PathState

K = EventKind
FAILED = PathState.FAILED
FOUR = [connection(0), connection(1, remote=2), connection(2, local=1), connection(3, local=1, remote=2)]


def kinds(events: list[Event]) -> list[EventKind]:
    return [event.kind for event in events]


def changes(old: list[Connection], new: list[Connection], told: tuple[int, ...] = ()) -> list[EventKind]:
    return kinds(connection_events(old, new, told, 1.0))


def test_nothing_changed() -> None:
    assert changes(FOUR, FOUR) == []
    item = mapping(path(0), path(1))
    assert map_events([item], [item], FOUR, 1.0) == []


def test_connection_comes_and_goes() -> None:
    one = connection(0)
    assert changes([], [one]) == [K.CONNECTION_STATE, K.DEVICE_ADDED]
    assert changes([], [one], (0,)) == [K.DEVICE_ADDED]
    assert changes([one], []) == [K.CONNECTION_REMOVED, K.DEVICE_REMOVED]


def test_state_and_devices_of_a_connection() -> None:
    one = connection(0)
    blocked = replace(one, state=RemotePortState.BLOCKED)
    (event,) = connection_events([one], [blocked], (), 1.0)
    assert (event.kind, event.severity) == (K.CONNECTION_STATE, Severity.WARNING)
    assert event.text == f"{connection_name(one)}: host0 was running, is blocked"
    assert changes([one], [replace(one, removing=True)]) == [K.CONNECTION_STATE]
    assert changes([one], [replace(one, devices=())]) == [K.DEVICE_REMOVED]
    assert changes([replace(one, devices=())], [one]) == [K.DEVICE_ADDED]


def test_reused_number_is_another_connection_only_by_number() -> None:
    assert changes([connection(0)], [connection(5)]) == [
        K.CONNECTION_REMOVED,
        K.DEVICE_REMOVED,
        K.CONNECTION_STATE,
        K.DEVICE_ADDED,
    ]


def test_map_and_paths_come_and_go() -> None:
    assert kinds(map_events([], [mapping(path(0))], FOUR, 1.0)) == [K.MAP_ADDED]
    assert kinds(map_events([mapping(path(0))], [], FOUR, 1.0)) == [K.MAP_REMOVED]
    both = mapping(path(0), path(1))
    assert kinds(map_events([mapping(path(0))], [both], FOUR, 1.0)) == [K.PATH_ADDED]
    assert kinds(map_events([both], [mapping(path(0))], FOUR, 1.0)) == [K.PATH_REMOVED]


def test_disk_name_used_again_is_another_path() -> None:
    new = replace(path(0), hctl="9:0:0:0")
    assert kinds(map_events([mapping(path(0))], [mapping(new)], FOUR, 1.0)) == [K.PATH_REMOVED, K.PATH_ADDED]


def test_path_fails_and_returns() -> None:
    good, bad = mapping(path(0), path(1)), mapping(path(0, state=FAILED), path(1))
    assert kinds(map_events([good], [bad], FOUR, 1.0)) == [K.PATH_FAILED]
    assert kinds(map_events([bad], [good], FOUR, 1.0)) == [K.PATH_RESTORED]


def test_redundancy_is_about_ports_not_about_paths() -> None:
    whole = mapping(*(path(host) for host in range(4)))
    three = mapping(path(0, state=FAILED), path(1), path(2), path(3))
    one_port = mapping(path(0, state=FAILED), path(1, state=FAILED), path(2), path(3))
    one_target = mapping(path(0), path(1, state=FAILED), path(2), path(3, state=FAILED))
    assert K.REDUNDANCY_LOST not in kinds(map_events([whole], [three], FOUR, 1.0))
    lost = [e for e in map_events([three], [one_port], FOUR, 1.0) if e.kind is K.REDUNDANCY_LOST]
    assert [event.text for event in lost] == ["map mpatha hangs on local port mlx5_1/1: 2 of 4 paths healthy"]
    lost = [e for e in map_events([whole], [one_target], FOUR, 1.0) if e.kind is K.REDUNDANCY_LOST]
    assert [event.text for event in lost] == ["map mpatha hangs on target port 0000000000000101: 2 of 4 paths healthy"]
    assert K.REDUNDANCY_RESTORED in kinds(map_events([one_port], [three], FOUR, 1.0))


def test_no_path_left_and_recovered() -> None:
    good, dead = mapping(path(0)), mapping(path(0, state=FAILED), queued=3)
    lost = map_events([good], [dead], FOUR, 1.0)
    assert kinds(lost) == [K.PATH_FAILED, K.MAP_QUEUEING]
    assert lost[1].text == "map mpatha has no usable path: I/O waits (3 held)"
    assert lost[1].severity is Severity.ERROR
    assert kinds(map_events([dead], [good], FOUR, 1.0)) == [K.PATH_RESTORED, K.MAP_RECOVERED]
    failing = mapping(path(0, state=FAILED), queueing=False)
    assert map_events([], [failing], FOUR, 1.0)[1].text == "map mpatha has no usable path: I/O fails"


def test_rdma_cm_connections_have_no_target_port_to_show() -> None:
    item = connection(0, dgid=None, orig_dgid=None, service_id=None, pkey=None)
    assert connection_name(item) == "mlx5_0/1 -> 0000000000000001/0000000000000002"
