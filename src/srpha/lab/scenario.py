"""The high-availability scenario: steps 1 to 6 of what srpha is for, run in a lab and judged step by step.

Every judgement compares what the layers themselves say (connections, maps, the targets' sessions, the verified load)
with what the world was built to be; the daemon's own opinion of itself counts for nothing here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from srpha.core.original_state import differences
from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.core.recovery.remote_port import RemotePortState
from srpha.core.seams import Connection, DeviceState, MapInfo, PathState
from srpha.core.targets.target_port import InitiatorExt
from srpha.embedded.fabric.faults import LinkDown, LinkUp, TargetJoin
from srpha.embedded.fabric.topology import PortRef
from srpha.embedded.worldspec import TargetPlan
from srpha.lab.cables import parts_without
from srpha.lab.lab import Lab, LabHost
from srpha.lab.workload import IoStatistics
from srpha.operate.client import Json
from srpha.operate.documents import Document, path_documents

_LOOK_INTERVAL = 0.25
"""Seconds between two looks at the host when nothing seems to change."""
_LOOK_GAP = 0.002
"""Least seconds between two looks, so that a burst of changes costs few."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step and its verdict."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class ScenarioSettings:
    """Times of the scenario in seconds. ``cable`` None: chosen by the lab's seed among the host's own cables."""

    cable: PortRef | None = None
    """Either end of any cable that joins local ports to target ports without another way between them."""
    settle_limit: float = 60.0
    """How long the fabric may take to come to rest after each change."""
    quiet: float = 2.0
    """Load before the cable is pulled, and again after everything has returned."""
    flaps: tuple[float, ...] = ()
    """Short outages before the long one: how long the cable is out each time, and in again before the next."""
    outage: float = 3.0
    """Load while the cable is out, counted from when the fail-over is complete."""


@dataclass(slots=True)
class Report:
    """Outcome of a run; :meth:`document` is what ``srpha demo --json`` prints."""

    recovery: RecoveryMode
    seed: int
    steps: list[Step] = field(default_factory=list)
    io: IoStatistics = field(default_factory=IoStatistics)
    paths_before: tuple[Document, ...] = ()
    paths_during: tuple[Document, ...] = ()
    paths_after: tuple[Document, ...] = ()
    cable: str = ""
    restored: bool = False
    duration: float = 0.0
    fail_over_stall: float = 0.0
    """Longest I/O stall while the cable was out, in seconds."""
    moved: int = 0
    """I/Os that met the fail-over: sent again over another path, or held for a fence until they may be."""

    @property
    def ok(self) -> bool:
        """Every step held."""
        return bool(self.steps) and all(step.ok for step in self.steps)

    def document(self) -> Document:
        """The report as JSON."""
        steps: list[Json] = [{"name": step.name, "ok": step.ok, "detail": step.detail} for step in self.steps]
        return {
            "ok": self.ok,
            "recovery": self.recovery.value,
            "seed": self.seed,
            "cable": self.cable,
            "steps": steps,
            "io": {
                "operations": self.io.operations,
                "reads": self.io.reads,
                "writes": self.io.writes,
                "bytes": self.io.bytes_moved,
                "errors": self.io.errors,
                "mismatches": self.io.mismatches,
                "max_stall_ms": round(self.io.max_stall * 1000, 3),
                "fail_over_stall_ms": round(self.fail_over_stall * 1000, 3),
                "problems": list(self.io.problems),
            },
            "paths_before": list(self.paths_before),
            "paths_during": list(self.paths_during),
            "paths_after": list(self.paths_after),
            "restored": self.restored,
            "duration_s": round(self.duration, 6),
        }


class Scenario:
    """One run in ``lab``, on its first host. ``told`` hears every step's verdict as it falls."""

    def __init__(
        self,
        lab: Lab,
        settings: ScenarioSettings | None = None,
        told: Callable[[Step], None] = lambda _step: None,
    ) -> None:
        self._lab = lab
        self._settings = settings or ScenarioSettings()
        self._told = told
        self._host: LabHost = next(iter(lab.hosts.values()))
        self._present: list[TargetPlan] = [plan for plan in lab.spec.targets if not plan.late]
        self._late: list[TargetPlan] = [plan for plan in lab.spec.targets if plan.late]
        self._connections: dict[int, Connection] = {}
        self._maps: tuple[MapInfo, ...] = ()
        self.report = Report(lab.settings.recovery, lab.settings.seed)

    async def run(self) -> Report:
        """Go through all steps; a step that fails does not keep later ones from being judged."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        await self._start()
        await self._join_late()
        await self._identities()
        await self._multipath()
        await asyncio.sleep(self._settings.quiet)
        before = await self._host.state()
        self.report.paths_before = self._paths()
        cable = self._choose_cable()
        self.report.cable = str(cable)
        if self._settings.flaps:
            await self._flap(cable)
        hosts_before = set(self._connections)
        await self._pull(cable)
        await self._plug(cable, hosts_before)
        await asyncio.sleep(self._settings.quiet)
        await self._finish_load()
        await self._read()
        self.report.paths_after = self._paths()
        changed = differences(before, await self._host.state())
        self.report.restored = not changed
        self._judge(
            "original state",
            not changed,
            f"{len(before.facts)} facts compared, all as before"
            if not changed
            else f"{len(changed)} differ: " + "; ".join(str(one) for one in changed[:4]),
        )
        self._judge_load()
        self.report.duration = loop.time() - started
        return self.report

    # Steps

    async def _start(self) -> None:
        held = await self._until(lambda: self._all_connected(self._present))
        self._judge(
            "start",
            held,
            f"{len(self._ports())} ports found {len(self._present)} targets and logged in: "
            f"{len(self._connections)} connections of {self._expected(self._present)}",
        )

    async def _join_late(self) -> None:
        if not self._late:
            self._judge("late target", ok=False, detail="this world has no late target; set late = true on one")
            return
        loop = asyncio.get_running_loop()
        joined = loop.time()
        for plan in self._late:
            self._lab.world.faults.apply(TargetJoin(plan.name))
        everybody = [*self._present, *self._late]
        held = await self._until(lambda: self._all_connected(everybody))
        names = ", ".join(plan.name for plan in self._late)
        self._judge(
            "late target",
            held,
            f"{names} joined and was connected from every port after {loop.time() - joined:.3f} s: "
            f"{len(self._connections)} connections of {self._expected(everybody)}",
        )
        self._present = everybody

    async def _identities(self) -> None:
        """Each path must be a nexus of its own, with the initiator extension that its target port's GUID asks for."""
        rule: InitiatorExt = self._lab.settings.daemon.initiator_ext
        wanted = {
            (connection.sgid.guid, rule.of(connection.dgid) or 0, connection.ioc_guid)
            for connection in self._connections.values()
            if connection.dgid is not None
        }
        seen = {
            (
                int.from_bytes(session.initiator_port_id[8:], "big"),
                int.from_bytes(session.initiator_port_id[:8], "big"),
                session.ioc_guid,
            )
            for plan in self._present
            for session in self._lab.world.targets[plan.name].sessions()
        }
        self._judge(
            "initiator identities",
            bool(wanted) and wanted == seen and len(wanted) == len(self._connections),
            f"{len(seen)} I_T nexuses at the targets for {len(self._connections)} connections, "
            f"initiator_ext {rule.mode.value}",
        )

    async def _multipath(self) -> None:
        held = await self._until(self._maps_complete)
        paths = sum(len(item.paths) for item in self._maps)
        units = sum(len(plan.units) for plan in self._present)
        self._judge(
            "multipath",
            held,
            f"{paths} paths of {self._expected_paths()} joined into {len(self._maps)} devices, {units} logical units",
        )

    async def _flap(self, cable: PortRef) -> None:
        """The cable returns in the midst of detection, recovery or removal: still everything comes back."""
        loop = asyncio.get_running_loop()
        for seconds in self._settings.flaps:
            self._lab.world.faults.apply(LinkDown(cable))
            await asyncio.sleep(seconds)
            self._lab.world.faults.apply(LinkUp(cable))
            await asyncio.sleep(seconds)
        mended = loop.time()
        back = await self._until(self._all_back)
        self._judge(
            "short outages",
            back,
            f"{cable} out {len(self._settings.flaps)} times for up to {max(self._settings.flaps) * 1000:.0f} ms, "
            f"all paths back after {loop.time() - mended:.3f} s",
        )

    async def _pull(self, cable: PortRef) -> None:
        """The cable is out: I/O goes on over other paths, and recovery does what the mode says."""
        affected = self._behind(cable)
        met = await self._io_under_way(affected)
        before = self._operations()
        moved_before = self._moved()
        stall_before = self._reset_stall()
        self._lab.world.faults.apply(LinkDown(cable))
        over = await self._until(lambda: self._failed_over(affected))
        self.report.paths_during = self._paths()
        await asyncio.sleep(self._settings.outage)
        await self._read()
        during = self._operations()
        idle = sorted(name for name, count in during.items() if count <= before.get(name, 0))
        self.report.moved = self._moved() - moved_before
        unmoved = met and not self.report.moved
        self.report.fail_over_stall = self._host.load.total().max_stall if self._host.load else 0.0
        self._restore_stall(stall_before)
        self._judge(
            "fail-over",
            over and bool(affected) and not idle and not unmoved,
            f"{cable} pulled under {len(affected)} connections; "
            + ("the I/O under way was not moved; " if unmoved else "")
            + (f"no I/O on {', '.join(idle)}" if idle else f"I/O went on on all {len(during)} devices")
            + f", longest stall {self.report.fail_over_stall * 1000:.1f} ms",
        )
        kept = [number for number in affected if number in self._connections]
        if self._lab.settings.recovery is RecoveryMode.OFED:
            self._judge(
                "scsi_hosts removed",
                not kept,
                f"{len(affected) - len(kept)} of {len(affected)} hosts without a path to their target are gone",
            )
        else:
            states = sorted({self._connections[number].state.value for number in kept})
            self._judge(
                "remote ports recovering",
                len(kept) == len(affected) and RemotePortState.RUNNING.value not in states,
                f"{len(kept)} of {len(affected)} hosts stay, remote ports {', '.join(states) or 'gone'}",
            )

    async def _plug(self, cable: PortRef, hosts_before: set[int]) -> None:
        """The cable is back: every port is logged in to every target again, and multipath uses all paths."""
        loop = asyncio.get_running_loop()
        plugged = loop.time()
        self._lab.world.faults.apply(LinkUp(cable))
        back = await self._until(self._all_back)
        took = loop.time() - plugged
        new = sorted(set(self._connections) - hosts_before)
        gone = sorted(hosts_before - set(self._connections))
        if self._lab.settings.recovery is RecoveryMode.OFED:
            self._judge(
                "new scsi_hosts",
                back and bool(new) and len(new) == len(gone),
                f"logged in again after {took:.3f} s: {_numbers(gone)} replaced by {_numbers(new)}",
            )
        else:
            self._judge(
                "reconnected in place",
                back and not new and not gone,
                f"all remote ports running after {took:.3f} s, {len(self._connections)} hosts kept"
                + (f"; replaced: {_numbers(gone)} by {_numbers(new)}" if new or gone else ""),
            )

    async def _finish_load(self) -> None:
        load = self._host.load
        if load is not None:
            load.stop()
            await load.finished.wait()
            self.report.io = load.total()

    def _judge_load(self) -> None:
        io = self.report.io
        devices = len(self._host.load.by_map) if self._host.load else 0
        self._judge(
            "verified I/O",
            io.operations > 0 and io.errors == 0 and io.mismatches == 0 and devices == len(self._maps),
            f"{io.operations} operations on {devices} devices, {io.errors} errors, {io.mismatches} mismatches"
            + "".join(f"; {text}" for text in io.problems[:3]),
        )

    # What is looked at

    async def _read(self) -> None:
        connections = await self._host.below.initiator.connections()
        self._connections = {item.host: item for item in connections if not item.removing}
        self._maps = await self._host.below.path_manager.maps()

    async def _until(self, condition: Callable[[], bool]) -> bool:
        """Look again at every hint that something changed, and now and then without one."""
        below = self._host.below
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.settle_limit
        changed = asyncio.Event()
        unwatches = (below.initiator.watch(changed.set), below.path_manager.watch(changed.set))
        try:
            while True:
                changed.clear()
                await self._read()
                if condition():
                    return True
                if loop.time() >= deadline:
                    return False
                try:
                    async with asyncio.timeout_at(min(deadline, loop.time() + _LOOK_INTERVAL)):
                        await changed.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(_LOOK_GAP)
        finally:
            for unwatch in unwatches:
                unwatch()

    def _ports(self) -> tuple[str, ...]:
        return tuple(port.name for port in self._host.below.mad_ports)

    def _expected(self, plans: list[TargetPlan]) -> int:
        return sum(len(self._target_guids(plan)) * len(plan.iocs) for plan in plans) * len(self._ports())

    def _expected_paths(self) -> int:
        return sum(len(plan.units) * self._expected([plan]) for plan in self._present)

    def _target_guids(self, plan: TargetPlan) -> list[int]:
        fabric = self._lab.world.fabric
        return [port.guid for hca in plan.hcas for port in fabric.node(hca).all_ports() if port.link is not None]

    def _all_connected(self, plans: list[TargetPlan]) -> bool:
        running = [
            (item.local_port, item.ioc_guid, item.dgid.guid if item.dgid else 0)
            for item in self._connections.values()
            if item.state is RemotePortState.RUNNING
        ]
        wanted = {
            (port, ioc.guid, guid)
            for port in self._ports()
            for plan in plans
            for ioc in plan.iocs
            for guid in self._target_guids(plan)
        }
        return len(running) == len(self._connections) and sorted(running) == sorted(wanted)

    def _all_back(self) -> bool:
        return self._all_connected(self._present) and self._maps_complete()

    def _maps_complete(self) -> bool:
        """Every unit is a device with a usable path over every connection to it, and nothing else is."""
        disks = sorted(device.name for item in self._connections.values() for device in item.devices)
        paths = [path for item in self._maps for path in item.paths]
        usable = all(path.state is PathState.ACTIVE and path.device_state is DeviceState.RUNNING for path in paths)
        units = sum(len(plan.units) for plan in self._present)
        complete = len(self._maps) == units and len(paths) == self._expected_paths()
        return usable and complete and sorted(path.device for path in paths) == disks

    def _behind(self, cable: PortRef) -> list[int]:
        """Connections between ports that nothing joins once this cable is out."""
        parts = parts_without(self._lab.spec.topology, cable)
        place = {
            port.guid: parts[PortRef(node.name, port.number)]
            for node in self._lab.world.fabric.nodes.values()
            for port in node.all_ports()
            if port.link is not None
        }
        return sorted(
            number
            for number, item in self._connections.items()
            if item.dgid is not None and place[item.sgid.guid] != place[item.dgid.guid]
        )

    def _failed_over(self, affected: list[int]) -> bool:
        """No usable path is left over the affected connections, each device has one elsewhere, recovery has begun."""
        gone = set(affected)
        usable = [
            [path for path in item.paths if path.state is PathState.ACTIVE and path.device_state is DeviceState.RUNNING]
            for item in self._maps
        ]
        if self._lab.settings.recovery is RecoveryMode.OFED:
            finished = not gone & set(self._connections)
        else:
            # Who lost the far end of a path hears of it only when a command or a path check gets no answer.
            finished = not any(
                number in gone and item.state is RemotePortState.RUNNING for number, item in self._connections.items()
            )
        return finished and all(paths and not any(path.host in gone for path in paths) for paths in usable)

    def _choose_cable(self) -> PortRef:
        if self._settings.cable is not None:
            return self._settings.cable
        ports = [mad.gsi.port for mad in self._host.below.mad_ports]
        port = self._lab.rng.choice(ports)
        return PortRef(port.node.name, port.number)

    def _paths(self) -> tuple[Document, ...]:
        return path_documents(self._maps, self._connections.values())

    def _operations(self) -> dict[str, int]:
        load = self._host.load
        return {name: one.operations for name, one in load.by_map.items()} if load is not None else {}

    def _moved(self) -> int:
        return sum(device.counters.reissued + device.held for device in self._host.below.path_manager.devices())

    async def _io_under_way(self, affected: list[int]) -> bool:
        """Wait until one of the load's I/Os is out on the affected connections, or the limit; whether one is.

        Quick I/O is out for so small a part of the time that a cable pulled at any moment would meet none.
        """
        if self._host.load is None:
            return False
        hosts = {f"{number}" for number in affected}
        devices = self._host.below.path_manager.devices()
        paths = [path for device in devices for path in device.state.paths if path.device.hctl.split(":")[0] in hosts]
        sent = asyncio.Event()
        untap = self._lab.world.fabric.tap(
            lambda _now, _port, _packet: sent.set() if any(path.in_flight for path in paths) else None
        )
        try:
            async with asyncio.timeout(self._settings.settle_limit):
                while True:
                    await sent.wait()
                    if any(path.in_flight for path in paths):
                        return True
                    sent.clear()
        except TimeoutError:
            return False
        finally:
            untap()

    def _reset_stall(self) -> dict[str, float]:
        """Start the stall count anew; :meth:`_restore_stall` merges the earlier maxima back."""
        load = self._host.load
        if load is None:
            return {}
        earlier = {name: one.max_stall for name, one in load.by_map.items()}
        for one in load.by_map.values():
            one.max_stall = 0.0
        return earlier

    def _restore_stall(self, earlier: dict[str, float]) -> None:
        load = self._host.load
        for name, stall in earlier.items():
            if load is not None:
                load.by_map[name].max_stall = max(load.by_map[name].max_stall, stall)

    def _judge(self, name: str, ok: bool, detail: str) -> None:
        step = Step(name, ok, detail)
        self.report.steps.append(step)
        self._told(step)


def _numbers(numbers: list[int]) -> str:
    return ", ".join(f"host{number}" for number in numbers) or "none"
