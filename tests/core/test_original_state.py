from __future__ import annotations

from dataclasses import replace

import pytest
from storage import connection, mapping, path

from srpha.core.original_state import Difference, differences, record_state
from srpha.core.recovery.remote_port import RemotePortState, RemotePortTimers
from srpha.core.seams import Connection, DeviceState, MapInfo, PathState

CONNECTIONS = (connection(0), connection(1, local=1))
MAPS = (mapping(path(0), path(1)),)
BEFORE = record_state(CONNECTIONS, MAPS)


def test_same_state_has_no_differences() -> None:
    assert differences(BEFORE, record_state(CONNECTIONS, MAPS)) == ()


def test_new_host_numbers_and_disk_names_are_no_difference() -> None:
    after = record_state((connection(7), connection(1, local=1)), (mapping(path(7), path(1)),))
    assert differences(BEFORE, after) == ()


def test_order_of_paths_is_no_difference() -> None:
    assert differences(BEFORE, record_state(CONNECTIONS, (mapping(path(1), path(0)),))) == ()


@pytest.mark.parametrize(
    ("connections", "maps", "count"),
    [
        ((CONNECTIONS[0],), MAPS, None),
        (CONNECTIONS, (), None),
        ((replace(CONNECTIONS[0], state=RemotePortState.BLOCKED), CONNECTIONS[1]), MAPS, 1),
        ((replace(CONNECTIONS[0], timers=RemotePortTimers(1, 2, 3)), CONNECTIONS[1]), MAPS, 1),
        ((replace(CONNECTIONS[0], pkey=1), CONNECTIONS[1]), MAPS, 1),
        ((replace(CONNECTIONS[0], devices=()), CONNECTIONS[1]), MAPS, 1),
        (CONNECTIONS, (mapping(path(0, state=PathState.FAILED), path(1)),), 1),
        (CONNECTIONS, (mapping(path(0, device=DeviceState.BLOCKED), path(1)),), 1),
        (CONNECTIONS, (mapping(path(0), path(1), queueing=False),), 1),
        (CONNECTIONS, (mapping(path(0), path(1), queued=1),), 1),
        ((*CONNECTIONS, connection(2, remote=2)), MAPS, 2),
        ((*CONNECTIONS, replace(connection(2), removing=True)), MAPS, 2),
    ],
)
def test_what_counts_as_a_difference(
    connections: tuple[Connection, ...], maps: tuple[MapInfo, ...], count: int | None
) -> None:
    found = differences(BEFORE, record_state(connections, maps))
    assert found
    assert count is None or len(found) == count


def test_difference_in_words() -> None:
    assert str(Difference("map mpatha", "there", None)) == "map mpatha: was there, is absent"
    assert str(Difference("map mpatha", None, "there")) == "map mpatha: was absent, is there"
    assert dict(BEFORE.facts) == BEFORE.as_dict()
