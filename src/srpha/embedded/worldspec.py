"""What an embedded world consists of: fabric, hosts with their HCAs, targets with their logical units.

A :class:`WorldSpec` is complete and consistent: names resolve, every HCA has at most one owner, GUIDs are filled in. It
comes from a world's file (:meth:`WorldSpec.load`), from a bare topology (:mod:`.roles`), or with the package
(:meth:`WorldSpec.demo`).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, Self

from srpha.embedded.fabric.topology import (
    LinkSpec,
    NodeKind,
    NodeSpec,
    PortRef,
    Topology,
    TopologyError,
    default_node_guid,
    load_topology,
)
from srpha.embedded.worldfile import (
    HcaTable,
    IocTable,
    LinkTable,
    SwitchTable,
    TargetTable,
    WorldFile,
    WorldSpecError,
    read_world_file,
)

__all__ = ["DevicePlan", "HostPlan", "IocPlan", "TargetPlan", "UnitPlan", "WorldSpec", "WorldSpecError"]

AccessName = Literal["optimized", "non-optimized", "standby", "unavailable"]


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """An HCA of a host under the name its host knows it by (``mlx5_0``)."""

    device: str
    hca: str


@dataclass(frozen=True, slots=True)
class HostPlan:
    """An initiator host."""

    name: str
    devices: tuple[DevicePlan, ...]


@dataclass(frozen=True, slots=True)
class IocPlan:
    """One I/O controller: an SRP target port, seen through every port of its target's HCAs."""

    guid: int
    id_ext: int
    service_id: int
    id_string: str = "srpha embedded SRP target"
    io_class: int = 0x0100
    access: AccessName = "optimized"
    services: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class UnitPlan:
    """One logical unit of ``size`` bytes, a multiple of ``block_size``; ``file`` ``None`` keeps it in memory."""

    lun: int
    size: int
    block_size: int = 512
    file: Path | None = None
    serial: str | None = None
    naa: int | None = None
    write_protected: bool = False
    service_time: float = 0.0
    """Seconds per command."""
    queue_depth: int = 256


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """A storage system. ``late`` ones stay off until somebody lets them join."""

    name: str
    hcas: tuple[str, ...]
    iocs: tuple[IocPlan, ...]
    units: tuple[UnitPlan, ...]
    late: bool = False
    alua: bool = True
    request_limit: int = 64
    max_iu: int = 8260


@dataclass(frozen=True, slots=True)
class WorldSpec:
    """A whole embedded world. ``sm`` is the HCA whose port 1 runs the subnet manager and the SA."""

    source: str
    prefix: int
    sm: str
    topology: Topology
    hosts: tuple[HostPlan, ...]
    targets: tuple[TargetPlan, ...]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a world's file. Raises :class:`WorldSpecError` with one line per problem."""
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise WorldSpecError((f"{path}: {error.strerror}",)) from None
        except UnicodeDecodeError as error:
            raise WorldSpecError((f"{path}: not UTF-8 text at byte {error.start}",)) from None
        return cls.parse(text, str(path), path.parent)

    @classmethod
    def parse(cls, text: str, source: str = "<text>", directory: Path = Path()) -> Self:
        """As :meth:`load`, from text; files it names are relative to ``directory``."""
        resolver = _Resolver(read_world_file(text, source), source, directory)
        topology, sm, hosts, targets = resolver.resolve()
        return cls(source, resolver.file.subnet.prefix, sm, topology, hosts, targets)

    @classmethod
    def demo(cls) -> Self:
        """The world that comes with the package."""
        packaged = resources.files("srpha.embedded").joinpath("topologies", "demo.toml")
        return cls.parse(packaged.read_text(encoding="utf-8"), "demo.toml")


class _Resolver:
    """Turns a well-shaped file into a consistent world, collecting every problem on the way."""

    def __init__(self, file: WorldFile, source: str, directory: Path) -> None:
        self.file = file
        self._source = source
        self._directory = directory
        self._problems: list[str] = []
        self._nodes: dict[str, NodeSpec] = {}

    def resolve(self) -> tuple[Topology, str, tuple[HostPlan, ...], tuple[TargetPlan, ...]]:
        links = self._imported()
        for place, switch in enumerate(self.file.switches):
            self._add(f"switch[{place}]", self._switch(switch))
        for place, hca in enumerate(self.file.hcas):
            self._hca(f"hca[{place}]", hca)
        for place, link in enumerate(self.file.links):
            links += self._link(f"link[{place}]", link)
        hosts = self._hosts()
        targets = self._targets()
        sm = self._sm()
        topology: Topology | None = None
        try:
            topology = Topology(tuple(self._nodes.values()), tuple(links))
        except TopologyError as error:
            self._problem("fabric", str(error))
        if self._problems or topology is None:
            raise WorldSpecError(tuple(self._problems))
        return topology, sm, hosts, targets

    def _problem(self, place: str, what: str) -> None:
        self._problems.append(f"{self._source}: {place}: {what}")

    def _imported(self) -> list[LinkSpec]:
        if self.file.topology is None:
            return []
        try:
            imported = load_topology(self._directory / self.file.topology)
        except TopologyError as error:
            self._problem("topology", str(error))
            return []
        self._nodes = {node.name: node for node in imported.nodes}
        return list(imported.links)

    def _add(self, place: str, node: NodeSpec) -> None:
        if node.name in self._nodes:
            self._problem(f"{place}.name", f"{node.name!r} is the name of another switch or HCA already")
        else:
            self._nodes[node.name] = node

    def _switch(self, table: SwitchTable) -> NodeSpec:
        guid = table.node_guid or default_node_guid(len(self._nodes))
        return NodeSpec(table.name, NodeKind.SWITCH, table.ports, guid, (), table.description or table.name)

    def _hca(self, place: str, table: HcaTable) -> None:
        if table.device is not None and table.host is None:
            self._problem(f"{place}.device", f"{table.device!r} needs a host: devices are named within one")
        known = self._nodes.get(table.name)
        if known is not None and self.file.topology is not None and known.kind is NodeKind.HCA:
            if table.ports not in (None, known.ports) or table.node_guid not in (None, known.node_guid):
                self._problem(place, f"{table.name!r} comes from {self.file.topology}: leave out ports and node_guid")
            return
        ports = table.ports or 1
        if len(table.port_guids) > ports:
            self._problem(f"{place}.port_guids", f"{len(table.port_guids)} GUIDs for {ports} ports")
        guid = table.node_guid or default_node_guid(len(self._nodes))
        description = table.description or (f"{table.host} {table.device or table.name}" if table.host else table.name)
        self._add(place, NodeSpec(table.name, NodeKind.HCA, ports, guid, tuple(table.port_guids), description))

    def _link(self, place: str, table: LinkTable) -> list[LinkSpec]:
        ends: list[PortRef] = []
        for key, text in (("a", table.a), ("b", table.b)):
            try:
                ref = PortRef.parse(text)
            except TopologyError as error:
                self._problem(f"{place}.{key}", str(error))
                continue
            node = self._nodes.get(ref.node)
            if node is None:
                self._problem(f"{place}.{key}", f"{text!r}: there is no switch or HCA {ref.node!r}")
            elif not 1 <= ref.port <= node.ports:
                self._problem(f"{place}.{key}", f"{text!r}: {ref.node!r} has ports 1 to {node.ports}")
            else:
                ends.append(ref)
        return [LinkSpec(ends[0], ends[1], table.latency_us * 1e-6)] if len(ends) == 2 else []

    def _hosts(self) -> tuple[HostPlan, ...]:
        devices: dict[str, list[DevicePlan]] = {}
        for place, host in enumerate(self.file.hosts):
            if host.name in devices:
                self._problem(f"host[{place}].name", f"{host.name!r} is there twice")
            devices[host.name] = []
        named = bool(devices)
        for place, hca in enumerate(self.file.hcas):
            if hca.host is None:
                continue
            if named and hca.host not in devices:
                self._problem(f"hca[{place}].host", f"there is no [[host]] {hca.host!r}; there are {_list(devices)}")
            mine = devices.setdefault(hca.host, [])
            taken = {plan.device for plan in mine}
            device = hca.device or next(f"mlx5_{n}" for n in range(len(mine) + 1) if f"mlx5_{n}" not in taken)
            if device in taken:
                self._problem(f"hca[{place}].device", f"host {hca.host!r} has two devices {device!r}")
            if not device.isascii() or "/" in device:
                self._problem(f"hca[{place}].device", f"{device!r} is no device name: ASCII characters without slash")
            mine.append(DevicePlan(device, hca.name))
        for name, mine in devices.items():
            if not mine:
                self._problem("host", f"{name!r} has no HCA: set host = {name!r} in an [[hca]]")
        return tuple(HostPlan(name, tuple(mine)) for name, mine in devices.items())

    def _targets(self) -> tuple[TargetPlan, ...]:
        owners = {hca.name: f"host {hca.host!r}" for hca in self.file.hcas if hca.host is not None}
        names: set[str] = set()
        plans: list[TargetPlan] = []
        for number, table in enumerate(self.file.targets):
            place = f"target[{number}]"
            if table.name in names:
                self._problem(f"{place}.name", f"{table.name!r} is there twice")
            names.add(table.name)
            for name in table.hcas:
                node = self._nodes.get(name)
                if node is None or node.kind is not NodeKind.HCA:
                    self._problem(f"{place}.hcas", f"there is no HCA {name!r}")
                elif name in owners:
                    self._problem(f"{place}.hcas", f"HCA {name!r} belongs to {owners[name]} already")
                owners.setdefault(name, f"target {table.name!r}")
            plans.append(
                TargetPlan(
                    name=table.name,
                    hcas=tuple(table.hcas),
                    iocs=self._iocs(place, table),
                    units=self._units(place, table),
                    late=table.late,
                    alua=table.alua,
                    request_limit=table.request_limit,
                    max_iu=table.max_iu,
                )
            )
        seen: dict[int, str] = {}
        for plan in plans:
            for ioc in plan.iocs:
                if seen.setdefault(ioc.guid, plan.name) != plan.name:
                    self._problem("target", f"{seen[ioc.guid]!r} and {plan.name!r} share IOC GUID {ioc.guid:016x}")
        return tuple(plans)

    def _iocs(self, place: str, table: TargetTable) -> tuple[IocPlan, ...]:
        plans: list[IocPlan] = []
        for number, ioc in enumerate(table.ioc or [IocTable()]):
            node = self._nodes.get(table.hcas[number]) if number < len(table.hcas) else None
            guid = ioc.guid or (node.node_guid if node is not None else None)
            if guid is None:
                if number >= len(table.hcas):
                    self._problem(f"{place}.ioc[{number}].guid", "missing: the target has fewer HCAs than IOCs")
                continue
            if any(guid == plan.guid for plan in plans):
                self._problem(f"{place}.ioc[{number}].guid", f"{guid:016x} is the GUID of another IOC of this target")
            plans.append(
                IocPlan(
                    guid=guid,
                    id_ext=ioc.id_ext or guid,
                    service_id=ioc.service_id or guid,
                    id_string=ioc.id_string,
                    io_class=0x0100 if ioc.io_class == "16a" else 0xFF00,
                    access=ioc.access,
                    services=tuple((service.name, service.id) for service in ioc.service),
                )
            )
        return tuple(plans)

    def _units(self, place: str, table: TargetTable) -> tuple[UnitPlan, ...]:
        plans: list[UnitPlan] = []
        for number, unit in enumerate(table.unit):
            here = f"{place}.unit[{number}]"
            if any(unit.lun == plan.lun for plan in plans):
                self._problem(f"{here}.lun", f"{unit.lun} is there twice in target {table.name!r}")
            if unit.size % unit.block_size:
                self._problem(f"{here}.size", f"{unit.size} bytes are no multiple of block_size {unit.block_size}")
            plans.append(
                UnitPlan(
                    lun=unit.lun,
                    size=unit.size,
                    block_size=unit.block_size,
                    file=self._directory / unit.file if unit.file is not None else None,
                    serial=unit.serial,
                    naa=unit.naa,
                    write_protected=unit.write_protected,
                    service_time=unit.service_time_ms / 1000,
                    queue_depth=unit.queue_depth,
                )
            )
        return tuple(plans)

    def _sm(self) -> str:
        hcas = [node.name for node in self._nodes.values() if node.kind is NodeKind.HCA]
        asked = self.file.subnet.sm
        if asked is None:
            if hcas:
                return hcas[0]
            self._problem("hca", "missing: a world needs an HCA at least, for its subnet manager")
            return ""
        if asked not in hcas:
            self._problem("subnet.sm", f"there is no HCA {asked!r}; there are {_list(hcas)}")
        return asked


def _list(names: list[str] | dict[str, list[DevicePlan]]) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "") if shown else "none"
