from __future__ import annotations

from dataclasses import replace

from storage import mapping, path

from srpha.core.connections.path_guard import PathVerdict, is_healthy, paths_to_fail, paths_to_reinstate
from srpha.core.seams import CheckerState, DeviceState, PathState

FAILED = PathState.FAILED


def test_health_needs_every_layer() -> None:
    assert is_healthy(path(0))
    assert is_healthy(replace(path(0), checker=CheckerState.GHOST))
    assert not is_healthy(path(0, state=FAILED))
    assert not is_healthy(path(0, device=DeviceState.BLOCKED))
    assert not is_healthy(replace(path(0), checker=CheckerState.FAULTY))


def test_suspect_path_is_failed_when_another_is_healthy() -> None:
    maps = [mapping(path(0), path(1))]
    assert paths_to_fail(maps, {0: "the port is down"}) == (PathVerdict("mpatha", "sda", "the port is down"),)
    assert paths_to_fail(maps, {}) == ()


def test_last_path_is_left() -> None:
    assert paths_to_fail([mapping(path(0))], {0: "x"}) == ()
    assert paths_to_fail([mapping(path(0), path(1))], {0: "x", 1: "y"}) == ()
    assert paths_to_fail([mapping(path(0), path(1, state=FAILED))], {0: "x"}) == ()
    assert paths_to_fail([mapping(path(0), path(1, device=DeviceState.BLOCKED))], {0: "x"}) == ()


def test_each_map_is_judged_by_itself() -> None:
    maps = [mapping(path(0), path(1)), mapping(path(2), name="mpathb")]
    assert [verdict.device for verdict in paths_to_fail(maps, {0: "x", 2: "x"})] == ["sda"]


def test_failed_path_is_not_failed_again() -> None:
    assert paths_to_fail([mapping(path(0, state=FAILED), path(1))], {0: "x"}) == ()


def test_reinstated_only_when_ours_failed_and_healthy() -> None:
    maps = [mapping(path(0, state=FAILED), path(1, state=FAILED), path(2))]
    assert paths_to_reinstate(maps, {"sda", "sdc"}, {0, 1, 2}) == ("sda",)
    assert paths_to_reinstate(maps, {"sda"}, {1}) == ()
    blocked = [mapping(path(0, state=FAILED, device=DeviceState.BLOCKED))]
    assert paths_to_reinstate(blocked, {"sda"}, {0}) == ()
