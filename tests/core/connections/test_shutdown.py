from __future__ import annotations

from dataclasses import replace

from storage import connection, mapping, path

from srpha.core.connections.shutdown import BlockUse, ShutdownPlan, UseKind, devices_to_ask_for, plan_shutdown
from srpha.core.seams import PathState

MOUNT = BlockUse(UseKind.MOUNT, "/data")
OWN_MAP = BlockUse(UseKind.HOLDER, "dm-0 (mpatha)")
ONE, TWO = connection(0), connection(1)
FREE = {"dm-0": (), "sda": (OWN_MAP,), "sdb": (OWN_MAP,)}


def test_maps_first_then_connections() -> None:
    maps = [mapping(path(0), path(1))]
    assert devices_to_ask_for(maps, [ONE, TWO], {0, 1}) == ["dm-0", "sda", "sdb"]
    assert plan_shutdown(maps, [ONE, TWO], {0, 1}, FREE) == ShutdownPlan(("mpatha",), (), (0, 1), ())


def test_a_map_in_use_is_refused() -> None:
    plan = plan_shutdown([mapping(path(0))], [ONE], {0}, {**FREE, "dm-0": (MOUNT, BlockUse(UseKind.OPEN))})
    assert plan.refused == ("mpatha (dm-0) is in use: mounted on /data, opened by a process",)


def test_a_disk_that_is_used_without_multipath_is_refused() -> None:
    plan = plan_shutdown([], [ONE], {0}, {"sda": (BlockUse(UseKind.HOLDER, "md0"),)})
    assert plan.refused == ("sda on host0 is in use: held by md0",)
    another = plan_shutdown([mapping(path(0))], [ONE], {0}, {**FREE, "sda": (OWN_MAP, BlockUse(UseKind.SWAP))})
    assert another.refused == ("sda on host0 is in use: swap space",)


def test_what_is_not_ours_is_left_alone() -> None:
    other = replace(mapping(path(1), name="mpathb"), dm_name="dm-1")
    maps = [mapping(path(0)), other]
    assert devices_to_ask_for(maps, [ONE, TWO], {0}) == ["dm-0", "sda"]
    assert plan_shutdown(maps, [ONE, TWO], {0}, FREE) == ShutdownPlan(("mpatha",), (), (0,), ())


def test_a_map_with_paths_of_others_lives_on_when_one_of_those_is_healthy() -> None:
    used = {**FREE, "dm-0": (MOUNT,)}
    plan = plan_shutdown([mapping(path(0), path(1))], [ONE, TWO], {0}, used)
    assert plan == ShutdownPlan((), ("mpatha",), (0,), ())
    dead = plan_shutdown([mapping(path(0), path(1, state=PathState.FAILED))], [ONE, TWO], {0}, used)
    assert dead.refused == ("mpatha (dm-0) would lose its last healthy path, and is in use: mounted on /data",)


def test_what_is_going_already_is_not_removed_again() -> None:
    assert plan_shutdown([], [connection(0, removing=True, devices=())], {0}, {}).remove == ()
