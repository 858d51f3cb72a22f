from __future__ import annotations

import pathlib

import pytest
from multipathd_server import frame, serving
from test_multipathd_json import MAPS

from srpha.core.seams import (
    CheckerState,
    DeviceState,
    GroupInfo,
    GroupState,
    MapInfo,
    PathInfo,
    PathManager,
    PathManagerError,
    PathState,
)
from srpha.kernel.dm_sysfs import DmSysfs, KernelMap, MapSize
from srpha.kernel.multipath_manager import MultipathManager
from srpha.kernel.multipathd import MultipathdClient
from srpha.kernel.multipathd_json import MAPS_COMMAND, PATHS_COMMAND
from srpha.kernel.sysfs import Sysfs

pytestmark = pytest.mark.realtime

PATHS = "sdb|8:16|4:0:0:0|2\nsdc|8:32|5:0:0:0|1\n"


def put(root: pathlib.Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text + "\n")


@pytest.fixture
def sysfs(tmp_path: pathlib.Path) -> pathlib.Path:
    """dm-1 is mpathb over sdb and sdc, dm-2 a partition on it, dm-0 a logical volume."""
    root = tmp_path / "sys"
    put(root, "block/dm-0/dm/name", "vg-root")
    put(root, "block/dm-0/dm/uuid", "LVM-abc")
    put(root, "block/dm-1/dm/name", "mpathb")
    put(root, "block/dm-1/dm/uuid", "mpath-360014050000000000000000000000002")
    put(root, "block/dm-1/dm/suspended", "0")
    put(root, "block/dm-1/size", "2097152")
    put(root, "block/dm-1/queue/logical_block_size", "4096")
    put(root, "block/dm-1/inflight", "       3        4")
    put(root, "block/dm-2/dm/name", "mpathb-part1")
    put(root, "block/dm-2/dm/uuid", "part1-mpath-360014050000000000000000000000002")
    put(root, "devices/4:0:0:0/state", "running")
    put(root, "devices/5:0:0:0/state", "transport-offline")
    for name, hctl in (("sdb", "4:0:0:0"), ("sdc", "5:0:0:0")):
        (root / "block" / name).mkdir(parents=True)
        (root / "block" / name / "device").symlink_to(root / "devices" / hctl)
        (root / "block/dm-1/slaves").mkdir(exist_ok=True)
        (root / "block/dm-1/slaves" / name).symlink_to(root / "block" / name)
    return root


def answers(maps: str = MAPS, paths: str = PATHS) -> dict[str, str]:
    return {MAPS_COMMAND: maps, PATHS_COMMAND: paths}


@pytest.fixture
def place(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "socket")


async def test_maps_are_joined_with_the_kernels_word(place: str, sysfs: pathlib.Path) -> None:
    expected = MapInfo(
        name="mpathb",
        wwid="360014050000000000000000000000002",
        dm_name="dm-1",
        blocks=262144,
        block_size=4096,
        vendor="LIO-ORG",
        product="disk1",
        queueing=True,
        queued=0,
        groups=(
            GroupInfo(
                1,
                "service-time 0",
                50,
                GroupState.ACTIVE,
                (PathInfo("sdb", "8:16", "4:0:0:0", PathState.ACTIVE, CheckerState.READY, DeviceState.RUNNING, 50, 2),),
            ),
            GroupInfo(
                2,
                "service-time 0",
                10,
                GroupState.ENABLED,
                (
                    PathInfo(
                        "sdc",
                        "8:32",
                        "5:0:0:0",
                        PathState.FAILED,
                        CheckerState.TIMEOUT,
                        DeviceState.TRANSPORT_OFFLINE,
                        10,
                        1,
                    ),
                ),
            ),
        ),
    )
    async with serving(place, lambda command: frame(answers()[command])):
        manager: PathManager = MultipathManager(MultipathdClient([place]), sysfs=sysfs)
        assert await manager.maps() == (expected,)
        assert [path.host for path in expected.paths] == [4, 5]
        assert isinstance(manager, MultipathManager)
        await manager.close()


async def test_without_a_usable_path_all_io_under_way_waits(place: str, sysfs: pathlib.Path) -> None:
    maps = MAPS.replace('"dm_st" : "active",\n            "dev_st"', '"dm_st" : "failed",\n            "dev_st"')
    async with serving(place, lambda command: frame(answers(maps)[command])):
        manager = MultipathManager(MultipathdClient([place]), sysfs=sysfs)
        (found,) = await manager.maps()
        assert (found.queued, found.queueing) == (7, True)
        await manager.close()


async def test_hctl_comes_from_sysfs_when_the_list_does_not_have_it(place: str, sysfs: pathlib.Path) -> None:
    async with serving(place, lambda command: frame(answers(paths="ok\n")[command])):
        manager = MultipathManager(MultipathdClient([place]), sysfs=sysfs)
        (found,) = await manager.maps()
        assert [path.hctl for path in found.paths] == ["4:0:0:0", "5:0:0:0"]
        await manager.close()


async def test_path_that_is_no_scsi_device_has_no_host(place: str, tmp_path: pathlib.Path) -> None:
    async with serving(place, lambda command: frame(answers(paths="ok\n")[command])):
        manager = MultipathManager(MultipathdClient([place]), sysfs=tmp_path)
        (found,) = await manager.maps()
        assert [path.host for path in found.paths] == [-1, -1]
        assert (found.blocks, found.block_size) == (0, 0)
        await manager.close()


async def test_multipathd_away_is_not_empty(place: str, sysfs: pathlib.Path) -> None:
    manager = MultipathManager(MultipathdClient([place]), sysfs=sysfs)
    with pytest.raises(PathManagerError, match=r"cannot be reached.*the kernel still serves mpathb, but nobody checks"):
        await manager.maps()
    assert await manager.kernel_maps() == (
        KernelMap("mpathb", "360014050000000000000000000000002", "dm-1", ("sdb", "sdc"), False),
    )
    with pytest.raises(PathManagerError, match="cannot be reached"):
        await manager.fail_path("sdb")


async def test_multipathd_and_sysfs_away(place: str, tmp_path: pathlib.Path) -> None:
    manager = MultipathManager(MultipathdClient([place]), sysfs=tmp_path / "none")
    with pytest.raises(PathManagerError, match="what multipath devices the kernel has is unknown"):
        await manager.maps()
    with pytest.raises(PathManagerError, match="cannot be read"):
        await manager.kernel_maps()


@pytest.mark.parametrize("reply", ["fail\ntimeout\n", "ok\n", '{"major_version": 9}', "nonsense: not found\n"])
async def test_no_answer_about_maps_is_an_error(place: str, sysfs: pathlib.Path, reply: str) -> None:
    async with serving(place, lambda _: frame(reply)):
        manager = MultipathManager(MultipathdClient([place]), sysfs=sysfs)
        with pytest.raises(PathManagerError):
            await manager.maps()
        await manager.close()


async def test_fail_and_reinstate(place: str) -> None:
    async with serving(place, lambda _: frame("ok\n")) as server:
        manager = MultipathManager(MultipathdClient([place]))
        rung: list[str] = []
        unwatch = manager.watch(lambda: rung.append("hint"))
        await manager.fail_path("sdb")
        await manager.reinstate_path("sdb")
        await manager.hold_path("sdb")
        assert server.commands == ["fail path sdb", "reinstate path sdb", "fail path sdb"]
        assert rung == ["hint"] * 3
        unwatch()
        manager.hint()
        assert len(rung) == 3
        server.answer = lambda _: frame("fail\ndevice not found\n")
        with pytest.raises(PathManagerError, match="refused 'fail path sdz': device not found"):
            await manager.fail_path("sdz")
        for name in ("", "sd a", "sdb\nshutdown", "../sda", "sdb; reconfigure"):
            with pytest.raises(PathManagerError, match="no name of a device"):
                await manager.fail_path(name)
        assert len(server.commands) == 4
        await manager.close()


def test_odd_sysfs_counts_as_unknown(sysfs: pathlib.Path) -> None:
    kernel = DmSysfs(Sysfs(sysfs))
    put(sysfs, "block/dm-1/size", "many")
    put(sysfs, "block/dm-1/inflight", "1 2 3")
    put(sysfs, "devices/4:0:0:0/state", "dancing")
    assert kernel.size("dm-1") == MapSize(0, 4096, 0)
    assert kernel.size("dm-9") == MapSize(0, 0, 0)
    assert kernel.device_state("sdb") is None
    assert kernel.hctl("sdz") == ""
