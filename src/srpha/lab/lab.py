"""A lab: an embedded world, srpha's own daemon on each of its hosts, verified I/O, and one log of all events.

Every random choice comes from the seed. In virtual time a lab is a pure function of world, settings and seed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from srpha.core.events import Event, EventKind, Severity
from srpha.core.original_state import StateRecord, record_state
from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.core.recovery.remote_port import RemotePortTimers
from srpha.daemon.settings import Settings
from srpha.daemon.supervisor import Supervisor
from srpha.embedded.fabric.faults import Fault, fault_kind, format_fault
from srpha.embedded.initiator.settings import InitiatorSettings
from srpha.embedded.multipath.settings import MultipathSettings
from srpha.embedded.world import EmbeddedHost, World, WorldSettings
from srpha.embedded.worldspec import WorldSpec
from srpha.lab.load import HostLoad
from srpha.lab.workload import WorkloadSettings
from srpha.operate.event_log import EventLog


@dataclass(frozen=True, slots=True)
class LabSettings:
    """What a lab is made with. ``load`` None: no I/O but what the daemon and multipath do themselves."""

    recovery: RecoveryMode = RecoveryMode.KERNEL
    seed: int = 1
    daemon: Settings = field(default_factory=Settings)
    initiator: InitiatorSettings = field(
        # Times of a fabric in one room: a silent peer is given up after about half a second, not after a minute.
        default_factory=lambda: InitiatorSettings(ack_timeout=14, cm_response_timeout=15, max_cm_retries=4)
    )
    multipath: MultipathSettings = field(default_factory=MultipathSettings)
    timers: RemotePortTimers = field(default_factory=lambda: RemotePortTimers(2, 1, 60))
    timer_floor: float = 0.0
    load: WorkloadSettings | None = field(default_factory=WorkloadSettings)


class LabHost:
    """One host of a lab: the embedded host below the seams, the daemon above them, and its load."""

    def __init__(self, below: EmbeddedHost, settings: LabSettings, events: Callable[[Event], None], seed: int) -> None:
        self.below = below
        self.supervisor = Supervisor(below.mad_ports, below.initiator, below.path_manager, settings.daemon, events)
        self.load = (
            HostLoad(below.path_manager, random.Random(seed), settings.load) if settings.load is not None else None
        )

    @property
    def name(self) -> str:
        return self.below.name

    async def run(self) -> None:
        """The daemon, until cancelled."""
        await self.supervisor.run()

    async def state(self) -> StateRecord:
        """Connections and maps of now, re-read from below, under durable names."""
        connections = await self.below.initiator.connections()
        return record_state(connections, await self.below.path_manager.maps())


class Lab:
    """A world with everything in it. Make it inside a running loop."""

    def __init__(self, spec: WorldSpec, settings: LabSettings | None = None) -> None:
        self.spec = spec
        self.settings = settings or LabSettings()
        self.log = EventLog()
        self.rng = random.Random(self.settings.seed)
        initiator = replace(self.settings.initiator, mode=self.settings.recovery, timers=self.settings.timers)
        self.world = World(
            spec,
            random.Random(self.rng.getrandbits(64)),
            WorldSettings(
                timer_floor=self.settings.timer_floor, initiator=initiator, multipath=self.settings.multipath
            ),
        )
        self.hosts = {
            name: LabHost(host, self.settings, self.log, self.rng.getrandbits(64))
            for name, host in self.world.hosts.items()
        }
        self.world.faults.watch(self._fault_injected)

    async def run(self) -> None:
        """Run world, daemons and load until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.world.run())
            # The world's parts must have begun before a daemon calls on them.
            await asyncio.sleep(0)
            for host in self.hosts.values():
                group.create_task(host.run())
                if host.load is not None:
                    group.create_task(host.load.run())

    def _fault_injected(self, fault: Fault) -> None:
        now = asyncio.get_running_loop().time()
        text = format_fault(fault)
        subject = text.partition(" ")[2] or "subnet"
        self.log(Event(now, EventKind.FAULT_INJECTED, Severity.NOTICE, subject, text, {"fault": fault_kind(fault)}))
