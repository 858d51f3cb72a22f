"""The whole house in real time, with fio as judge: verified I/O over NBD while a cable is pulled and plugged again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from nbd_tools import TIMED_OUT, fio, run_tool

from srpha.core.original_state import StateRecord, differences
from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.core.seams import CheckerState, DeviceState, MapInfo, PathInfo, PathState
from srpha.embedded.fabric.faults import LinkDown, LinkUp
from srpha.embedded.fabric.topology import PortRef
from srpha.embedded.nbd.server import NbdServer
from srpha.embedded.target.backing import MemoryBacking
from srpha.embedded.worldspec import WorldSpec
from srpha.lab.keep import keep_lab
from srpha.lab.lab import Lab, LabHost, LabSettings
from srpha.operate.client import ControlClient

pytestmark = pytest.mark.realtime

MAPS = 3
PATHS = 4
"""Of each map: two ports of the host, each to two ports of the target."""


def _ready(path: PathInfo) -> bool:
    return (path.state, path.device_state, path.checker) == (PathState.ACTIVE, DeviceState.RUNNING, CheckerState.READY)


@dataclass
class KeptWorld:
    lab: Lab
    disks: NbdServer

    @property
    def host(self) -> LabHost:
        return self.lab.hosts["host1"]

    async def usable(self) -> list[int]:
        """How many paths of each map can carry I/O and have been checked."""
        maps: tuple[MapInfo, ...] = await self.host.below.path_manager.maps()
        return [sum(map(_ready, item.paths)) for item in maps]

    async def settle(self, paths: int) -> None:
        """Wait until every map has just so many usable paths."""
        async with asyncio.timeout(30):
            while await self.usable() != [paths] * MAPS:  # noqa: ASYNC110 - readings have no event
                await asyncio.sleep(0.02)

    async def busy_cable(self) -> PortRef:
        """A cable of the host with I/O of fio's device under way on it, at this very moment."""
        device = self.host.below.path_manager.device("mpatha")
        ports = {mad.name: mad.gsi.port for mad in self.host.below.mad_ports}
        local_port = {item.host: item.local_port for item in await self.host.below.initiator.connections()}
        async with asyncio.timeout(30):
            while not (busy := [path for path in device.state.paths if path.in_flight]):  # noqa: ASYNC110
                await asyncio.sleep(0)
        port = ports[local_port[int(busy[0].device.hctl.partition(":")[0])]]
        return PortRef(port.node.name, port.number)

    async def settled_state(self, before: StateRecord | None = None) -> StateRecord:
        """The state with all paths in use; with ``before``, once it is the same again or the time for it is over."""
        await self.settle(PATHS)
        state = await self.host.state()
        for _ in range(200):
            if before is None or not differences(before, state):
                break
            await asyncio.sleep(0.05)
            state = await self.host.state()
        return state


@asynccontextmanager
async def kept(place: Path, recovery: RecoveryMode) -> AsyncIterator[KeptWorld]:
    """A lab as ``srpha lab up --no-load`` keeps it."""
    there: asyncio.Future[KeptWorld] = asyncio.get_running_loop().create_future()
    settings = LabSettings(recovery=recovery, timer_floor=1e-3, load=None)
    async with asyncio.TaskGroup() as group:
        path = place / "control.sock"
        running = group.create_task(
            keep_lab(WorldSpec.demo(), settings, path, lambda lab, disks: there.set_result(KeptWorld(lab, disks[0])))
        )
        yield await there
        await asyncio.to_thread(ControlClient(path).post, "stop", {})
        await running


def judged(world: KeptWorld) -> list[str]:
    """8192 writes at a rate that makes them last for about five seconds, read back in between and at the end."""
    return fio(world.disks.uri("mpatha"), "--size=32m", "--rate_iops=1600", "--verify_backlog=256")


async def pull_and_plug(world: KeptWorld) -> None:
    await asyncio.sleep(1.0)
    cable = await world.busy_cable()
    world.lab.world.faults.apply(LinkDown(cable))
    await world.settle(PATHS // 2)
    await asyncio.sleep(1.5)
    world.lab.world.faults.apply(LinkUp(cable))
    await world.settle(PATHS)


def sockets(place: Path) -> list[str]:
    return [entry.name for entry in place.iterdir() if entry.is_socket()]


@pytest.mark.outside("fio")
@pytest.mark.parametrize("recovery", list(RecoveryMode))
async def test_fio_verifies_while_a_cable_is_out(tmp_path: Path, recovery: RecoveryMode) -> None:
    async with kept(tmp_path, recovery) as world:
        before = await world.settled_state()
        async with asyncio.TaskGroup() as group:
            judging = group.create_task(run_tool(*judged(world), cwd=tmp_path))
            group.create_task(pull_and_plug(world))
        code, said = judging.result()
        assert code == 0, said
        assert "err= 0" in said
        assert "issued rwts: total=8192,8192,0,0" in said
        after = await world.settled_state(before)
        assert [str(one) for one in differences(before, after)] == []
        counters = world.host.below.path_manager.device("mpatha").counters
        assert counters.errors == 0
        assert counters.reissued > 0
        assert sorted(sockets(tmp_path)) == ["control.sock", "host1.nbd"]
    assert sockets(tmp_path) == []


@pytest.mark.outside("fio")
async def test_fio_sees_a_write_that_is_lost_while_a_cable_is_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = MemoryBacking.write
    async with kept(tmp_path, RecoveryMode.KERNEL) as world:
        await world.settle(PATHS)
        device = world.host.below.path_manager.device("mpatha")
        left = 64  # more than fio has under way: the first may be second copies of what has been written

        def forgetful(backing: MemoryBacking, offset: int, data: bytes | bytearray | memoryview) -> None:
            nonlocal left
            if left and any(not path.usable for path in device.state.paths):
                left -= 1
            else:
                write(backing, offset, data)

        monkeypatch.setattr(MemoryBacking, "write", forgetful)
        async with asyncio.TaskGroup() as group:
            judging = group.create_task(run_tool(*judged(world), cwd=tmp_path))
            group.create_task(pull_and_plug(world))
        code, said = judging.result()
    assert left == 0
    assert code not in (0, TIMED_OUT)
    assert "verify" in said
