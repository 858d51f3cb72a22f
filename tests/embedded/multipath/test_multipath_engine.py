from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from srpha.core.multipath.policy import Failback, GroupingPolicy, NoPathRetry, SelectorKind
from srpha.core.multipath.table import parse_status, parse_table
from srpha.core.seams import CheckerState, DeviceState, GroupState, PathInfo, PathManagerError, PathState
from srpha.embedded.multipath.settings import MultipathSettings
from srpha.wire.scsi.alua import AccessState
from srpha.wire.scsi.sense import Asc, SenseKey
from srpha.wire.scsi.status import HostByte
from tests.embedded.multipath.fakes import Bench, bench, check_condition, host_error, identity, pattern

OTHER = "36001405" + "0" * 23 + "b2"


def paths(world: Bench) -> dict[str, PathInfo]:
    return {path.device: path for path in world.manager.snapshot()[0].paths}


async def test_maps_appear_with_the_first_path_and_keep_their_names() -> None:
    async with bench() as world:
        a = world.path(1)
        world.path(1, lun=1, who=identity(OTHER))
        world.path(2)
        assert [(m.name, m.dm_name, m.wwid, len(m.paths)) for m in await world.manager.maps()] == [
            ("mpatha", "dm-0", a.identity.wwid, 2),
            ("mpathb", "dm-1", OTHER, 1),
        ]
        for name in ("mpathb", "dm-1", OTHER):
            assert world.manager.device(name).wwid == OTHER
        with pytest.raises(KeyError, match="mpathz"):
            world.manager.device("mpathz")
        for device in world.fencer.known:
            world.source.remove(device)
        left = world.manager.snapshot()
        assert [(m.name, m.groups, m.queueing) for m in left] == [("mpatha", (), True), ("mpathb", (), True)]
        world.path(7, who=identity(OTHER))
        assert [len(m.paths) for m in world.manager.snapshot()] == [0, 1]


async def test_names_go_on_after_z() -> None:
    async with bench() as world:
        for number in range(28):
            world.path(1, lun=number, who=identity("36" + f"{number:030x}"))
        names = [device.name for device in world.manager.devices()]
        assert names[25:] == ["mpathz", "mpathaa", "mpathab"]
        assert [info.name for info in world.manager.snapshot()] == names


async def test_devices_that_were_there_before_are_taken_up() -> None:
    async with bench() as world:
        world.path(1)
    assert world.source.devices()
    assert world.manager.devices()[0].name == "mpatha"


async def test_table_and_status_lines() -> None:
    async with bench(no_path_retry=NoPathRetry.QUEUE) as world:
        world.unit.access = {1: AccessState.ACTIVE_OPTIMIZED, 2: AccessState.ACTIVE_NON_OPTIMIZED}
        world.path(1, who=identity(target_port_group=1))
        world.path(2, who=identity(target_port_group=2))
        c = world.path(3, who=identity(target_port_group=1))
        await asyncio.sleep(0.1)
        assert world.manager.table_line("mpatha") == (
            "0 4096 multipath 1 queue_if_no_path 1 alua 2 1 "
            "service-time 0 2 2 8:0 1 1 8:32 1 1 service-time 0 1 2 8:16 1 1"
        )
        assert world.manager.status_line("mpatha") == (
            "0 4096 multipath 2 0 0 0 2 1 A 0 2 2 8:0 A 0 0 1 8:32 A 0 0 1 E 0 1 2 8:16 A 0 0 1"
        )
        c.set_state(DeviceState.TRANSPORT_OFFLINE)
        line = world.manager.status_line("mpatha")
        assert "8:32 F 1 0 1" in line
        assert parse_status(line).format() == line
        assert parse_table(world.manager.table_line("dm-0")).handler == ("alua",)


async def test_table_lines_of_other_selectors() -> None:
    async with bench(
        path_selector=SelectorKind.QUEUE_LENGTH,
        path_grouping_policy=GroupingPolicy.FAILOVER,
        no_path_retry=NoPathRetry.FAIL,
    ) as world:
        world.path(1)
        world.path(2)
        assert world.manager.table_line("mpatha") == (
            "0 4096 multipath 0 0 2 1 queue-length 0 1 1 8:0 1 queue-length 0 1 1 8:16 1"
        )
        for device in world.fencer.known:
            world.source.remove(device)
        assert world.manager.table_line("mpatha") == "0 4096 multipath 0 0 0 0"
        assert world.manager.status_line("mpatha") == "0 4096 multipath 2 0 0 0 0 0"


async def test_a_blocked_device_is_left_at_once_and_comes_back_when_it_runs() -> None:
    async with bench() as world:
        a, b = world.path(1), world.path(2)
        await asyncio.sleep(0.1)
        a.set_state(DeviceState.BLOCKED)
        assert world.paths_in_use() == ["sdb"]
        assert paths(world)["sda"].checker is CheckerState.PENDING
        device = world.manager.device("mpatha")
        await asyncio.gather(*(device.read(lba, 1) for lba in range(10)))
        assert (len(a.sent), len(b.sent)) == (0, 10)
        a.set_state(DeviceState.TRANSPORT_OFFLINE)
        assert paths(world)["sda"].checker is CheckerState.FAULTY
        a.set_state(DeviceState.RUNNING)
        assert world.paths_in_use() == ["sdb"]  # not before it has said who it is
        await asyncio.sleep(0.01)
        assert world.paths_in_use() == ["sda", "sdb"]
        info = paths(world)["sda"]
        assert (info.state, info.checker, info.fail_count) == (PathState.ACTIVE, CheckerState.READY, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"wwid": OTHER}, f"WWID is {OTHER}"),
        ({"blocks": 100}, "capacity is 100 blocks, not 4096"),
        ({"block_size": 4096}, "block size is 4096, not 512"),
        ({"write_protected": True}, "it is write-protected"),
    ],
)
async def test_a_path_that_returns_as_something_else_is_kept_out(change: dict[str, object], words: str) -> None:
    async with bench() as world:
        a = world.path(1)
        world.path(2)
        await asyncio.sleep(0.1)
        good = a.identity
        a.set_state(DeviceState.BLOCKED)
        a.truth = replace(good, **change)  # type: ignore[arg-type]
        a.set_state(DeviceState.RUNNING)
        await asyncio.sleep(60)
        assert world.paths_in_use() == ["sdb"]
        (kept,) = world.manager.kept_out()
        assert (kept.device, kept.map_name) == ("sda", "mpatha")
        assert words in kept.reason
        with pytest.raises(PathManagerError, match="sda of mpatha cannot be reinstated") as caught:
            await world.manager.reinstate_path("sda")
        assert words in str(caught.value)
        a.truth = good
        await asyncio.sleep(60)
        assert world.paths_in_use() == ["sda", "sdb"]
        assert world.manager.kept_out() == ()


async def test_a_new_path_of_another_size_is_kept_out_and_one_without_a_name_joins_nothing() -> None:
    async with bench() as world:
        world.path(1)
        world.path(2, who=identity(blocks=10))
        world.path(3, who=identity(wwid=""))
        await asyncio.sleep(1)
        assert world.paths_in_use() == ["sda"]
        assert [(kept.device, kept.map_name) for kept in world.manager.kept_out()] == [("sdb", "mpatha"), ("sdc", "")]


async def test_a_map_grows_when_all_paths_agree() -> None:
    async with bench() as world:
        a, b = world.path(1), world.path(2)
        await asyncio.sleep(1)
        device = world.manager.device("mpatha")
        larger = identity(blocks=8192)
        a.truth = larger
        a.script = b.script = [check_condition(SenseKey.UNIT_ATTENTION, Asc.CAPACITY_CHANGED)]
        await device.read(0, 1)
        await asyncio.sleep(1)
        assert device.blocks == 4096
        assert world.paths_in_use() == ["sda", "sdb"]
        b.truth = larger
        a.script = b.script = [check_condition(SenseKey.UNIT_ATTENTION, Asc.CAPACITY_CHANGED)]
        await device.read(0, 1)
        await asyncio.sleep(1)
        assert device.blocks == 8192
        await device.write(8191, pattern(1))
        assert world.manager.snapshot()[0].blocks == 8192
        assert " 8192 multipath" in f" {world.manager.table_line('mpatha')}"[2:]


async def test_a_path_that_returns_larger_waits_for_the_others() -> None:
    async with bench() as world:
        a, b = world.path(1), world.path(2)
        await asyncio.sleep(1)
        device = world.manager.device("mpatha")
        a.set_state(DeviceState.BLOCKED)
        a.truth = identity(blocks=8192)
        a.set_state(DeviceState.RUNNING)
        await asyncio.sleep(1)
        assert (world.paths_in_use(), device.blocks) == (["sdb"], 4096)
        b.truth = identity(blocks=8192)
        await asyncio.sleep(60)
        b.set_state(DeviceState.BLOCKED)
        await asyncio.sleep(30)
        assert (world.paths_in_use(), device.blocks) == (["sda"], 8192)


async def test_changed_inquiry_data_stop_a_path_until_it_has_said_who_it_is() -> None:
    async with bench() as world:
        a, b = world.path(1), world.path(2)
        await asyncio.sleep(1)
        device = world.manager.device("mpatha")
        a.truth = b.truth = None
        for path in (a, b):
            path.script = [check_condition(SenseKey.UNIT_ATTENTION, Asc.INQUIRY_CHANGED)]
        a.truth = identity(OTHER)
        for number in range(4):
            await device.write(number, pattern(number))
        await asyncio.sleep(1)
        assert world.paths_in_use() == ["sdb"]
        assert [entry for entry in world.unit.log if entry[0] == "sda"] == []


async def test_changed_luns_are_told() -> None:
    async with bench() as world:
        a = world.path(1)
        await asyncio.sleep(1)
        told: list[str] = []
        world.manager.watch_luns(lambda: told.append("luns"))
        a.script = [check_condition(SenseKey.UNIT_ATTENTION, Asc.REPORTED_LUNS_CHANGED)]
        await world.manager.device("mpatha").read(0, 1)
        assert told == ["luns"]


async def test_changed_access_states_change_groups_at_once() -> None:
    async with bench() as world:
        world.unit.access = {1: AccessState.ACTIVE_OPTIMIZED, 2: AccessState.ACTIVE_NON_OPTIMIZED}
        a = world.path(1, who=identity(target_port_group=1))
        b = world.path(2, who=identity(target_port_group=2))
        await asyncio.sleep(1)
        device = world.manager.device("mpatha")
        await device.read(0, 1)
        assert (len(a.sent), len(b.sent)) == (1, 0)
        world.unit.access = {1: AccessState.ACTIVE_NON_OPTIMIZED, 2: AccessState.ACTIVE_OPTIMIZED}
        a.script = [check_condition(SenseKey.UNIT_ATTENTION, Asc.ALUA_STATE_CHANGED)]
        await device.read(0, 1)
        await asyncio.sleep(0.1)
        (info,) = world.manager.snapshot()
        assert [(g.priority, g.state, g.paths[0].device) for g in info.groups] == [
            (50, GroupState.ACTIVE, "sdb"),
            (10, GroupState.ENABLED, "sda"),
        ]


async def test_checks_back_off_and_failed_paths_are_checked_at_the_shortest_interval() -> None:
    async with bench(polling_interval=5.0, max_polling_interval=20.0) as world:
        a = world.path(1)
        b = world.path(2)
        await asyncio.sleep(100)
        gaps = [round(later - earlier) for earlier, later in zip(a.checks, a.checks[1:], strict=False)]
        assert gaps == [5, 10, 20, 20, 20, 20]
        a.check_script = [host_error(HostByte.NO_CONNECT)] * 4
        start = len(a.checks)
        await asyncio.sleep(60)
        gaps = [round(later - earlier) for earlier, later in zip(a.checks[start:], a.checks[start + 1 :], strict=False)]
        assert gaps[:4] == [5, 5, 5, 5]
        assert len(b.checks) < len(a.checks)


async def test_a_silent_path_is_failed_after_the_checkers_time_and_delays_nobody() -> None:
    async with bench(checker_timeout=3.0, polling_interval=5.0, max_polling_interval=5.0) as world:
        a, b = world.path(1), world.path(2)
        await asyncio.sleep(1)
        a.dead = True
        device = world.manager.device("mpatha")
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.gather(*(device.read(lba, 1) for lba in range(4)))
        assert loop.time() - before < 8.0
        assert paths(world)["sda"].checker is CheckerState.TIMEOUT
        assert world.paths_in_use() == ["sdb"]
        gaps = [later - earlier for earlier, later in zip(b.checks, b.checks[1:], strict=False)]
        await asyncio.sleep(30)
        assert all(gap == pytest.approx(5.0, abs=0.1) for gap in gaps)
        a.dead = False
        await asyncio.sleep(10)
        assert world.paths_in_use() == ["sda", "sdb"]


async def test_fail_and_reinstate_by_name() -> None:
    async with bench(polling_interval=100.0, max_polling_interval=100.0) as world:
        a = world.path(1)
        world.path(2)
        await asyncio.sleep(1)
        await world.manager.fail_path("sda")
        assert world.paths_in_use() == ["sdb"]
        await world.manager.reinstate_path("sda")
        assert world.paths_in_use() == ["sda", "sdb"]
        await world.manager.reinstate_path("sda")
        await world.manager.fail_path("sda")
        await asyncio.sleep(101)
        assert world.paths_in_use() == ["sda", "sdb"]  # its checker found it good
        a.set_state(DeviceState.BLOCKED)
        with pytest.raises(PathManagerError, match="i/o pending"):
            await world.manager.reinstate_path("sda")
        for call in (world.manager.fail_path, world.manager.reinstate_path):
            with pytest.raises(PathManagerError, match="sdz"):
                await call("sdz")


async def test_a_held_path_stays_out_until_it_is_reinstated() -> None:
    async with bench(polling_interval=5.0, max_polling_interval=5.0) as world:
        a = world.path(1)
        world.path(2)
        await asyncio.sleep(1)
        await world.manager.hold_path("sda")
        await asyncio.sleep(30)
        assert world.paths_in_use() == ["sdb"]
        a.set_state(DeviceState.BLOCKED)
        await asyncio.sleep(1)
        a.set_state(DeviceState.RUNNING)
        await asyncio.sleep(30)
        assert world.paths_in_use() == ["sdb"]
        await world.manager.reinstate_path("sda")
        assert world.paths_in_use() == ["sda", "sdb"]
        with pytest.raises(PathManagerError, match="sdz"):
            await world.manager.hold_path("sdz")


async def test_a_removed_device_ends_waiting_for_it() -> None:
    async with bench() as world:
        a = world.path(1)
        a.dead = True
        await world.manager.fail_path("sda")
        waiting = asyncio.ensure_future(world.manager.reinstate_path("sda"))
        await asyncio.sleep(0.1)
        world.source.remove(a)
        with pytest.raises(PathManagerError, match="cannot be reinstated"):
            await waiting


async def test_hints_come_after_the_change_and_once_for_a_moment() -> None:
    async with bench() as world:
        a = world.path(1)
        await asyncio.sleep(1)
        seen: list[list[str]] = []
        unwatch = world.manager.watch(lambda: seen.append(world.paths_in_use()))
        world.path(2)
        assert seen == []
        await asyncio.sleep(0.5)
        a.set_state(DeviceState.BLOCKED)
        await asyncio.sleep(0)
        assert seen[-1] == ["sdb"]
        unwatch()
        count = len(seen)
        a.set_state(DeviceState.RUNNING)
        await asyncio.sleep(1)
        assert len(seen) == count


async def test_messages_for_groups() -> None:
    async with bench(path_grouping_policy=GroupingPolicy.FAILOVER, failback=Failback.MANUAL) as world:
        a, b = world.path(1), world.path(2)
        device = world.manager.device("mpatha")
        world.manager.switch_group("mpatha", 2)
        await device.read(0, 1)
        assert len(b.sent) == 1
        world.manager.disable_group("mpatha", 2)
        await device.read(0, 1)
        assert len(a.sent) == 1
        assert world.manager.snapshot()[0].groups[1].state is GroupState.DISABLED
        world.manager.enable_group("mpatha", 2)
        with pytest.raises(ValueError, match="no path group 5"):
            world.manager.switch_group("mpatha", 5)


async def test_delayed_failback_happens_on_time() -> None:
    async with bench(path_grouping_policy=GroupingPolicy.FAILOVER, failback=30.0) as world:
        a = world.path(1)
        world.path(2)
        await asyncio.sleep(1)
        a.set_state(DeviceState.BLOCKED)
        a.set_state(DeviceState.RUNNING)
        await asyncio.sleep(29)
        assert world.manager.snapshot()[0].groups[1].state is GroupState.ACTIVE
        await asyncio.sleep(2)
        assert world.manager.snapshot()[0].groups[0].state is GroupState.ACTIVE


async def test_a_standby_path_is_a_ghost_of_the_last_group() -> None:
    async with bench() as world:
        world.unit.access = {1: AccessState.ACTIVE_OPTIMIZED, 2: AccessState.STANDBY}
        world.path(1, who=identity(target_port_group=1))
        b = world.path(2, who=identity(target_port_group=2))
        await asyncio.sleep(1)
        b.check_script = [check_condition(SenseKey.NOT_READY, Asc.ALUA_STANDBY)]
        await asyncio.sleep(6)
        info = paths(world)["sdb"]
        assert (info.checker, info.priority, info.state) == (CheckerState.GHOST, 1, PathState.ACTIVE)
        assert [group.priority for group in world.manager.snapshot()[0].groups] == [50, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"polling_interval": 0.0},
        {"checker_timeout": -1.0},
        {"retries": -1},
        {"quiesce_time": -0.1},
        {"max_polling_interval": 1.0},
        {"busy_delay_max": 0.001},
        {"failback": -5.0},
        {"no_path_retry": 0},
    ],
)
def test_settings_out_of_range_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).replace("_", ".")):
        MultipathSettings(**wrong)  # type: ignore[arg-type]
