"""A lab under faults, for tests: breaks it, waits for it, and judges it at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from srpha.core.connections.pairs import PairStatus
from srpha.core.events import EventKind
from srpha.core.original_state import StateRecord, differences
from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.core.recovery.remote_port import RemotePortState
from srpha.core.seams import Connection, DeviceState, MapInfo, PathInfo, PathState
from srpha.embedded.fabric.faults import parse_fault
from srpha.embedded.multipath.settings import MultipathSettings
from srpha.embedded.target.srp_target import SrpTarget
from srpha.embedded.worldspec import WorldSpec
from srpha.lab.lab import Lab, LabSettings
from srpha.lab.workload import IoStatistics, WorkloadSettings

LIGHT = WorkloadSettings(workers=2, slots_per_worker=8, mean_pause=0.06)
"""Enough I/O that a fault meets some, little enough that a minute costs little."""


class Stage:
    """The first host of a lab. Made by :func:`staged`, which judges the I/O when its block ends."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.world = lab.world
        self.host = next(iter(lab.hosts.values()))
        self.initiator = self.host.below.initiator
        self.multipath = self.host.below.path_manager
        self.before = StateRecord(())
        self.errors_allowed = False
        """Set by tests whose outcome is that I/O fails."""

    # What is done to it

    def fault(self, *texts: str) -> None:
        for text in texts:
            self.world.faults.apply(parse_fault(text))

    async def outage(self, seconds: float, down: str, up: str) -> None:
        """Break, wait, mend."""
        self.fault(down)
        await asyncio.sleep(seconds)
        self.fault(up)

    def target(self, name: str) -> SrpTarget:
        return self.world.targets[name]

    # What is seen

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def io(self) -> IoStatistics:
        assert self.host.load is not None
        return self.host.load.total()

    async def connections(self) -> tuple[Connection, ...]:
        return await self.initiator.connections()

    def maps(self) -> tuple[MapInfo, ...]:
        return self.multipath.snapshot()

    def usable(self, name: str | None = None) -> list[PathInfo]:
        """Usable paths of a map, or of all."""
        return [
            path
            for item in self.maps()
            if name in (None, item.name)
            for path in item.paths
            if path.state is PathState.ACTIVE and path.device_state is DeviceState.RUNNING
        ]

    def events(self, *kinds: EventKind) -> list[str]:
        return [logged.event.text for logged in self.lab.log if logged.event.kind in kinds]

    async def hosts_of(self, *, sgid: int | None = None, dgid: int | None = None) -> set[int]:
        """Host numbers by GUID of the local or target port."""
        return {
            item.host
            for item in await self.connections()
            if (sgid is None or item.sgid.guid == sgid) and (dgid is None or (item.dgid and item.dgid.guid == dgid))
        }

    def guid(self, port: str) -> int:
        return self.world.fabric.port(port).guid

    # Waiting

    async def until(
        self, condition: Callable[[], bool] | Callable[[], Awaitable[bool]], limit: float = 120.0, step: float = 0.02
    ) -> float:
        """Wait; how long it took. Fails after ``limit`` seconds with what the daemon thinks."""
        start = self.now
        while True:
            held = condition()
            if not isinstance(held, bool):
                held = await held
            if held:
                return self.now - start
            assert self.now - start < limit, self.picture()
            await asyncio.sleep(step)

    async def quiet(self, seconds: float = 0.3) -> None:
        """Let the load run."""
        await asyncio.sleep(seconds)

    async def original(self, limit: float = 120.0) -> float:
        """Wait until the state is what it was when the stage was set, and the daemon has come to rest; how long."""

        async def same() -> bool:
            return not differences(self.before, await self.host.state()) and self.host.supervisor.snapshot().settled

        start = self.now
        while not await same():
            assert self.now - start < limit, [
                *map(str, differences(self.before, await self.host.state())),
                self.picture(),
            ]
            await asyncio.sleep(0.05)
        return self.now - start

    async def complete(self, targets: int, limit: float = 120.0) -> float:
        """Wait until every local port is logged in to both ports of so many targets, and multipath has all units."""
        ports = len(self.host.below.mad_ports)

        async def all_there() -> bool:
            connections = await self.connections()
            seen = self.host.supervisor.snapshot()
            disks = [device.name for item in connections for device in item.devices]
            return (
                len(connections) == 2 * ports * targets
                and all(item.state is RemotePortState.RUNNING for item in connections)
                and all(pair.status is PairStatus.CONNECTED for pair in seen.pairs)
                and seen.settled
                and sorted(path.device for path in self.usable()) == sorted(disks)
            )

        return await self.until(all_there, limit)

    def picture(self) -> str:
        seen = self.host.supervisor.snapshot()
        pairs = "; ".join(f"{pair.name}: {pair.status.value} ({pair.reason})" for pair in seen.pairs)
        last = "\n".join(f"{logged.event.time:.3f} {logged.event.text}" for logged in list(self.lab.log)[-25:])
        return f"at {self.now:.3f} s, settled {seen.settled}: {pairs}\n{last}"

    # The end

    async def judge(self) -> None:
        """Every block is what was last written to it, and every I/O has completed exactly once."""
        load = self.host.load
        if load is None:
            return
        load.stop()
        async with asyncio.timeout(600):
            await load.finished.wait()
        total = load.total()
        assert total.mismatches == 0, total.problems
        assert total.operations > 0
        if not self.errors_allowed:
            assert total.errors == 0, total.problems
        for name, one in load.by_map.items():
            counters = self.multipath.device(name).counters
            # Each write and read of the load is one I/O of the device, and there is one flush at the end.
            assert counters.reads == one.reads, name
            assert counters.writes == one.writes, name
            assert counters.reads + counters.writes + counters.flushes + counters.errors == (
                one.reads + one.writes + one.errors + (1 if counters.flushes else 0)
            ), name
            device = self.multipath.device(name)
            assert (device.queued, device.held) == (0, 0), name


@asynccontextmanager
async def staged(
    mode: RecoveryMode = RecoveryMode.KERNEL,
    *,
    seed: int = 1,
    load: WorkloadSettings | None = LIGHT,
    multipath: MultipathSettings | None = None,
    settings: LabSettings | None = None,
    spec: WorldSpec | None = None,
) -> AsyncIterator[Stage]:
    """The demo's world without its late target's arrival, connected and under load; judged when the block is left."""
    settings = settings or LabSettings()
    settings = replace(settings, recovery=mode, seed=seed, load=load, multipath=multipath or settings.multipath)
    spec = spec or WorldSpec.demo()
    stage = Stage(Lab(spec, settings))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(stage.lab.run())
        await stage.complete(sum(not plan.late for plan in spec.targets))
        await stage.quiet()
        stage.before = await stage.host.state()
        yield stage
        await stage.judge()
        running.cancel()
