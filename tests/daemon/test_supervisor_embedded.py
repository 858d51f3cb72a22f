"""The daemon over the embedded world: real bytes end to end, from the subnet's SMPs to multipath."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from fake_seams import Log

from srpha.core.connections.pairs import PairStatus
from srpha.core.discovery.scan_result import Standing
from srpha.core.events import EventKind
from srpha.core.original_state import StateRecord, differences, record_state
from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.core.recovery.remote_port import RemotePortTimers
from srpha.core.seams import PathState
from srpha.daemon.discover import discover
from srpha.daemon.settings import Settings
from srpha.daemon.snapshot import Snapshot
from srpha.daemon.supervisor import Supervisor
from srpha.embedded.fabric.faults import parse_fault
from srpha.embedded.initiator.settings import InitiatorSettings
from srpha.embedded.world import World, WorldSettings
from srpha.embedded.worldspec import WorldSpec


class Stage:
    """The demo world and a daemon on its host."""

    def __init__(self, mode: RecoveryMode, seed: int, settings: Settings | None = None) -> None:
        initiator = InitiatorSettings(
            mode=mode, timers=RemotePortTimers(2, 1, 20), ack_timeout=14, cm_response_timeout=15, max_cm_retries=4
        )
        self.world = World(WorldSpec.demo(), random.Random(seed), WorldSettings(initiator=initiator))
        self.host = self.world.hosts["host1"]
        self.log = Log()
        self.settings = settings or Settings()
        self.supervisor = self.make()

    def make(self) -> Supervisor:
        return Supervisor(self.host.mad_ports, self.host.initiator, self.host.path_manager, self.settings, self.log)

    @asynccontextmanager
    async def world_running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.world.run())
            await self.world.ready()
            yield
            task.cancel()

    @asynccontextmanager
    async def daemon_running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.supervisor.run())
            yield
            task.cancel()

    def fault(self, text: str) -> None:
        self.world.faults.apply(parse_fault(text))

    async def until(self, what: Callable[[Snapshot], bool], limit: float = 60.0) -> float:
        loop = asyncio.get_running_loop()
        start = loop.time()
        while not what(self.supervisor.snapshot()):
            assert loop.time() - start < limit, [
                (pair.name, pair.status, pair.reason) for pair in self.supervisor.snapshot().pairs
            ]
            await asyncio.sleep(0.005)
        return loop.time() - start

    async def connected(self, count: int, paths: int, limit: float = 60.0) -> float:
        """Wait until ``count`` pairs are connected and multipath has ``paths`` healthy paths."""

        def ready(seen: Snapshot) -> bool:
            good = sum(1 for item in seen.maps or () for path in item.paths if path.state is PathState.ACTIVE)
            connected = sum(1 for pair in seen.pairs if pair.status is PairStatus.CONNECTED)
            return connected == count and good == paths and seen.settled

        return await self.until(ready, limit)

    async def state(self) -> StateRecord:
        return record_state(await self.host.initiator.connections(), await self.host.path_manager.maps())


MODES = pytest.mark.parametrize("mode", [RecoveryMode.KERNEL, RecoveryMode.OFED])


@MODES
async def test_a_port_lost_and_back_ends_in_the_original_state(mode: RecoveryMode, seed: int) -> None:
    stage = Stage(mode, seed)
    async with stage.world_running(), stage.daemon_running():
        assert await stage.connected(8, 12) < 3
        before = await stage.state()
        stage.fault("link-down host1-a/1")
        await stage.until(lambda seen: not seen.ports[0].usable)
        await asyncio.sleep(30)  # longer than dev_loss_tmo: the hosts are gone
        assert len(await stage.host.initiator.connections()) == 4
        assert {event.kind for event in stage.log.events} >= {EventKind.REDUNDANCY_LOST, EventKind.CONNECTION_REMOVED}
        assert not stage.log.of(EventKind.MAP_QUEUEING)
        stage.fault("link-up host1-a/1")
        assert await stage.connected(8, 12) < 3
        await asyncio.sleep(10)
        assert differences(before, await stage.state()) == ()


async def test_short_loss_is_the_drivers_to_mend(seed: int) -> None:
    stage = Stage(RecoveryMode.KERNEL, seed)
    async with stage.world_running(), stage.daemon_running():
        await stage.connected(8, 12)
        hosts = [item.host for item in await stage.host.initiator.connections()]
        stage.fault("link-down host1-a/1")
        await asyncio.sleep(5)
        stage.fault("link-up host1-a/1")
        await stage.connected(8, 12)
        assert [item.host for item in await stage.host.initiator.connections()] == hosts
        assert not stage.log.of(EventKind.CONNECT_FAILED)


async def test_late_target_is_connected_by_its_notice(seed: int) -> None:
    stage = Stage(RecoveryMode.KERNEL, seed)
    async with stage.world_running(), stage.daemon_running():
        await stage.connected(8, 12)
        await asyncio.sleep(5)
        stage.fault("target-join array3")
        assert await stage.connected(12, 16) < 2
        assert not stage.log.of(EventKind.SCAN_FAILED)


async def test_target_without_power_leaves_and_comes_back(seed: int) -> None:
    stage = Stage(RecoveryMode.KERNEL, seed)
    async with stage.world_running(), stage.daemon_running():
        await stage.connected(8, 12)
        before = await stage.state()
        stage.fault("power-off array1")
        await stage.until(lambda seen: sum(1 for t in seen.targets if t.standing is Standing.GONE) == 2, 5)
        await asyncio.sleep(40)
        assert len(await stage.host.initiator.connections()) == 4
        stage.fault("power-on array1")
        await stage.connected(8, 12, 10)
        await asyncio.sleep(10)
        assert differences(before, await stage.state()) == ()


async def test_new_subnet_manager_elsewhere(seed: int) -> None:
    stage = Stage(RecoveryMode.KERNEL, seed)
    async with stage.world_running(), stage.daemon_running():
        await stage.connected(8, 12)
        stage.fault("sm-loss")
        await asyncio.sleep(90)
        assert stage.log.of(EventKind.SCAN_FAILED)
        assert not stage.log.of(EventKind.TARGET_LEFT)
        stage.fault("sm-start array2")
        await asyncio.sleep(5)
        assert all(port.subscribed for port in stage.supervisor.snapshot().ports)
        stage.fault("target-join array3")
        assert await stage.connected(12, 16) < 20


async def test_daemon_restart_adopts_everything(seed: int) -> None:
    stage = Stage(RecoveryMode.KERNEL, seed)
    async with stage.world_running():
        async with stage.daemon_running():
            await stage.connected(8, 12)
            before = await stage.state()
        stage.supervisor = stage.make()
        async with stage.daemon_running():
            await stage.connected(8, 12)
            assert differences(before, await stage.state()) == ()
            assert len(stage.log.of(EventKind.CONNECTION_ADOPTED)) == 8
            assert len(stage.log.of(EventKind.CONNECTED)) == 8


async def test_wanted_timers_are_set_on_every_connection(seed: int) -> None:
    wanted = RemotePortTimers(3, 4, 30)
    stage = Stage(RecoveryMode.KERNEL, seed, Settings(timers=wanted))
    async with stage.world_running(), stage.daemon_running():
        await stage.connected(8, 12)
        await asyncio.sleep(3)
        assert {item.timers for item in await stage.host.initiator.connections()} == {wanted}


async def test_one_shot_discovery(seed: int) -> None:
    stage = Stage(RecoveryMode.KERNEL, seed)
    async with stage.world_running():
        result = await discover(stage.host.mad_ports, Settings())
        assert result.complete
        assert result.unusable == ()
        (scan,) = result.scans
        assert [unit.standing for unit in scan.units] == [Standing.FOUND] * 4
        assert scan.statistics.round_trips == 5
        assert [pair.status for pair in result.pairs] == [PairStatus.DUE] * 8
        assert all(pair.line.startswith("id_ext=") for pair in result.pairs)


async def test_two_runs_with_one_seed_tell_the_same(seed: int) -> None:
    stories = []
    for _ in range(2):
        stage = Stage(RecoveryMode.OFED, seed)
        start = asyncio.get_running_loop().time()
        async with stage.world_running(), stage.daemon_running():
            await stage.connected(8, 12)
            stage.fault("link-down host1-b/1")
            await asyncio.sleep(10)
            stage.fault("link-up host1-b/1")
            await stage.connected(8, 12)
        stories.append([(round(event.time - start, 6), event.kind, event.text) for event in stage.log.events])
    assert stories[0] == stories[1]
