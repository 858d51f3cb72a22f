"""An embedded world that runs: fabric, subnet manager, targets and hosts out of one :class:`WorldSpec`.

A host offers the three seams and nothing else to what is above; the daemon that is given them cannot tell this world
from the kernel's. Faults of every kind go through :attr:`World.faults`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import dataclass, field

from srpha.embedded.fabric.build import build_fabric
from srpha.embedded.fabric.faults import (
    ChangeLid,
    Fault,
    FaultError,
    FaultInjector,
    PowerOff,
    PowerOn,
    SmLoss,
    SmStart,
    TargetCrash,
    TargetJoin,
    TargetLeave,
    TargetRestart,
)
from srpha.embedded.fabric.hardware import Fabric, Port
from srpha.embedded.fabric.topology import NodeKind
from srpha.embedded.initiator.initiator import EmbeddedInitiator
from srpha.embedded.initiator.settings import InitiatorPort, InitiatorSettings
from srpha.embedded.mads.gsi import GeneralServices
from srpha.embedded.mads.mad_port import EmbeddedMadPort
from srpha.embedded.multipath.engine import EmbeddedPathManager
from srpha.embedded.multipath.settings import MultipathSettings
from srpha.embedded.rdma.rdma_port import RdmaPort
from srpha.embedded.subnet.sm import SubnetManager, SubnetSettings
from srpha.embedded.subnet.smi import SubnetManagement
from srpha.embedded.target.spec import IocSpec, SpecError, TargetLimits, TargetSpec, UnitSpec
from srpha.embedded.target.srp_target import SrpTarget
from srpha.embedded.target.transport import Attachment
from srpha.embedded.worldspec import HostPlan, TargetPlan, WorldSpec
from srpha.wire.scsi.alua import AccessState

_ACCESS_STATES = {
    "optimized": AccessState.ACTIVE_OPTIMIZED,
    "non-optimized": AccessState.ACTIVE_NON_OPTIMIZED,
    "standby": AccessState.STANDBY,
    "unavailable": AccessState.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class WorldSettings:
    """How the parts of a world behave. ``timer_floor``: delays up to this many seconds cost no timer (0: none)."""

    timer_floor: float = 0.0
    subnet: SubnetSettings = field(default_factory=SubnetSettings)
    initiator: InitiatorSettings = field(default_factory=InitiatorSettings)
    multipath: MultipathSettings = field(default_factory=MultipathSettings)


class EmbeddedHost:
    """One initiator host: its ports, its initiator and its multipath engine, that is the three seams."""

    def __init__(self, world: World, plan: HostPlan) -> None:
        self.name = plan.name
        self.mad_ports: tuple[EmbeddedMadPort, ...] = tuple(
            EmbeddedMadPort(device.device, port, world.general_services(port))
            for device in plan.devices
            for port in world.fabric.node(device.hca).all_ports()
            if port.link is not None
        )
        ports = {mad.name: InitiatorPort(mad, world.rdma_port(mad.gsi.port)) for mad in self.mad_ports}
        self.initiator = EmbeddedInitiator(ports, world.settings.initiator)
        self.path_manager = EmbeddedPathManager(self.initiator, self.initiator, world.settings.multipath)


class World:
    """Everything below the seams. Make it inside a running loop, then :meth:`run` it."""

    def __init__(self, spec: WorldSpec, rng: random.Random, settings: WorldSettings | None = None) -> None:
        self.spec = spec
        self.settings = settings or WorldSettings()
        self.fabric: Fabric = build_fabric(spec.topology, rng=rng, timer_floor=self.settings.timer_floor)
        self.faults = FaultInjector(self.fabric)
        self._gsi: dict[str, GeneralServices] = {}
        self._rdma: dict[str, RdmaPort] = {}
        self._group: asyncio.TaskGroup | None = None
        self._sm_node = spec.sm
        self._sm_task: asyncio.Task[None] | None = None
        self._management: SubnetManagement | None = None
        self._begun = asyncio.Event()
        self.subnet_manager: SubnetManager | None = None
        self.targets = {plan.name: self._make_target(plan) for plan in spec.targets}
        self.hosts = {plan.name: EmbeddedHost(self, plan) for plan in spec.hosts}
        self._power_off_late_targets()
        for kind in ("sm-loss", "sm-start", "change-lid"):
            self.faults.register(kind, self._subnet_fault)
        for kind in ("target-crash", "target-restart", "target-join", "target-leave"):
            self.faults.register(kind, self._target_fault)
        self.faults.watch(self._power_fault)

    def general_services(self, port: Port) -> GeneralServices:
        """The GSI of a port; there is one, made when first asked for."""
        if port.name not in self._gsi:
            self._gsi[port.name] = GeneralServices(port)
        return self._gsi[port.name]

    def rdma_port(self, port: Port) -> RdmaPort:
        """The verbs of a port; there are one port's worth of them."""
        if port.name not in self._rdma:
            self._rdma[port.name] = RdmaPort(port, self.general_services(port))
        return self._rdma[port.name]

    async def run(self) -> None:
        """Run until cancelled: subnet manager, targets, hosts. Targets that are not late join at once."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._start_subnet_manager()
                self._begun.set()
                for plan in self.spec.targets:
                    if not plan.late:
                        self.targets[plan.name].join()
                for host in self.hosts.values():
                    self._spawn(host.initiator.run())
                    self._spawn(host.path_manager.run())
        finally:
            self._group = None
            for target in self.targets.values():
                target.close()

    async def ready(self) -> None:
        """Wait until the subnet manager has brought the subnet up for the first time."""
        await self._begun.wait()
        if self.subnet_manager is not None:
            await self.subnet_manager.ready()

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        if self._group is None:
            work.close()
            raise FaultError("the world does not run")
        return self._group.create_task(work)

    # Subnet management

    def _start_subnet_manager(self) -> None:
        port = self.fabric.node(self._sm_node).all_ports()[0]
        self._management = SubnetManagement(port)
        self.subnet_manager = SubnetManager(port, self._management, self.general_services(port), self.settings.subnet)
        self._sm_task = self._spawn(self.subnet_manager.run())

    def _stop_subnet_manager(self) -> None:
        if self._sm_task is not None and self._management is not None:
            self._sm_task.cancel()
            # At once, so that a manager may start on the same port within this turn of the loop.
            self._management.close()
        self._sm_task = self._management = self.subnet_manager = None

    def _subnet_fault(self, fault: Fault) -> None:
        match fault:
            case SmLoss():
                if self._sm_task is None:
                    raise FaultError("sm-loss: no subnet manager runs")
                self._stop_subnet_manager()
            case SmStart(node):
                if self._sm_task is not None:
                    raise FaultError(f"sm-start: the subnet manager runs on {self._sm_node} already; sm-loss first")
                if node is not None and self.fabric.node(node).kind is not NodeKind.HCA:
                    raise FaultError(f"sm-start: {node} is a switch; a subnet manager runs on an HCA here")
                self._sm_node = node or self._sm_node
                self._start_subnet_manager()
            case ChangeLid(ref):
                if self.subnet_manager is None:
                    raise FaultError("change-lid: no subnet manager runs")
                self.subnet_manager.reassign_lids([self.fabric.port(ref).guid])
            case _:
                raise AssertionError(fault)

    # Targets

    def _make_target(self, plan: TargetPlan) -> SrpTarget:
        ports = [port for hca in plan.hcas for port in self.fabric.node(hca).all_ports() if port.link is not None]
        attachments = [Attachment(self.rdma_port(port), self.general_services(port), port) for port in ports]
        return SrpTarget(_target_spec(plan), attachments)

    def _power_off_late_targets(self) -> None:
        """A late target's machine is off until it joins, unless its HCA serves another target too."""
        early = {hca for plan in self.spec.targets if not plan.late for hca in plan.hcas}
        for plan in self.spec.targets:
            for hca in plan.hcas:
                if plan.late and hca not in early:
                    self.fabric.set_power(self.fabric.node(hca), False)

    def _target_fault(self, fault: Fault) -> None:
        match fault:
            case TargetCrash(name):
                self._target(name).crash()
            case TargetRestart(name):
                self._target(name).restart()
            case TargetLeave(name):
                self._target(name).leave()
            case TargetJoin(name):
                target = self._target(name)
                for hca in next(plan for plan in self.spec.targets if plan.name == name).hcas:
                    node = self.fabric.node(hca)
                    if not node.powered:
                        self.fabric.set_power(node, True)
                try:
                    target.join()
                except SpecError as error:
                    raise FaultError(str(error)) from None
            case _:
                raise AssertionError(fault)

    def _power_fault(self, fault: Fault) -> None:
        """A machine without power runs no software: target and subnet manager on it die, and start with the power."""
        match fault:
            case PowerOff(node):
                for name in self._targets_on(node):
                    self.targets[name].crash()
                if node == self._sm_node:
                    self._stop_subnet_manager()
            case PowerOn(node):
                for name in self._targets_on(node):
                    self.targets[name].restart()
                if node == self._sm_node and self._sm_task is None:
                    self._start_subnet_manager()
            case _:
                pass

    def _targets_on(self, node: str) -> list[str]:
        return [plan.name for plan in self.spec.targets if node in plan.hcas]

    def _target(self, name: str) -> SrpTarget:
        if name not in self.targets:
            raise FaultError(f"there is no target {name!r}; there are {', '.join(self.targets) or 'none'}")
        return self.targets[name]


def _target_spec(plan: TargetPlan) -> TargetSpec:
    """The target's own words for its plan."""
    return TargetSpec(
        name=plan.name,
        iocs=tuple(
            IocSpec(
                guid=ioc.guid,
                id_ext=ioc.id_ext,
                service_id=ioc.service_id,
                id_string=ioc.id_string,
                io_class=ioc.io_class,
                services=ioc.services,
                access_state=_ACCESS_STATES[ioc.access],
            )
            for ioc in plan.iocs
        ),
        units=tuple(
            UnitSpec(
                lun=unit.lun,
                blocks=unit.size // unit.block_size,
                block_size=unit.block_size,
                serial=unit.serial,
                naa=unit.naa,
                path=unit.file,
                write_protected=unit.write_protected,
                service_time=unit.service_time,
                queue_depth=unit.queue_depth,
            )
            for unit in plan.units
        ),
        limits=TargetLimits(request_limit=plan.request_limit, max_iu=plan.max_iu),
        alua=plan.alua,
    )
