"""Target ports that the configuration names: no discovery, no subnet manager, and RDMA/CM with IP addresses.

A target reached over RDMA/CM (``dest=``) has no port GID that sysfs would show. The GID that RoCE v2 makes of its IP
address stands for it, also in ``initiator_ext``, so that connections to several addresses of one target differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from srpha.core.connections.pairs import PairKey
from srpha.core.targets.add_target import InvalidLineError, TargetLine, address_gid, parse_target_line
from srpha.core.targets.target_port import InitiatorExt, TargetPort
from srpha.wire.identifiers import PKEY_DEFAULT_FULL, Gid
from srpha.wire.srp_ports import IO_CLASS_REV16A


@dataclass(frozen=True, slots=True)
class StaticTarget:
    """A target port to be connected from every local port, or from those named (``device/port``, exactly)."""

    line: TargetLine
    local_ports: tuple[str, ...] = ()
    name: str = ""
    """What the configuration calls it; for messages."""

    @property
    def dgid(self) -> Gid:
        """The target port's GID; for RDMA/CM the one that stands for its address."""
        if self.line.dest is not None:
            return address_gid(self.line.dest.host)
        if self.line.dgid is None:
            raise ValueError("a line has dest or dgid")
        return self.line.dgid

    @property
    def target(self) -> TargetPort:
        """The target port as discovery would have it; what RDMA/CM does not know is 0 or the default."""
        line = self.line
        return TargetPort(
            id_ext=line.id_ext,
            ioc_guid=line.ioc_guid,
            dgid=self.dgid,
            service_id=line.service_id or 0,
            pkey=PKEY_DEFAULT_FULL if line.pkey is None else line.pkey,
            io_class=line.io_class or IO_CLASS_REV16A,
            id_ext_text=line.id_ext_text,
            description=self.name,
        )

    def fits(self, local_port: str) -> bool:
        """Whether it is to be connected from this local port."""
        return not self.local_ports or local_port in self.local_ports

    def login(self, initiator_ext: InitiatorExt) -> TargetLine:
        """The line for ``add_target``; an ``initiator_ext`` of its own goes before the general rule."""
        if self.line.initiator_ext is not None:
            return self.line
        return replace(self.line, initiator_ext=initiator_ext.of(self.dgid))

    def key(self, local_port: str, initiator_ext: InitiatorExt) -> PairKey:
        """The identity of its connection from a local port."""
        line = self.login(initiator_ext)
        return PairKey(local_port, line.id_ext, line.ioc_guid, self.dgid, line.initiator_extension)


def parse_static_target(text: str, local_ports: Iterable[str] = (), name: str = "") -> StaticTarget:
    """Read a target as an ``add_target`` line; raises :class:`~srpha.core.targets.add_target.InvalidLineError`.

    Local ports are taken as they are: whether they exist is known only where the daemon runs.
    """
    ports = tuple(local_ports)
    for port in ports:
        device, slash, number = port.rpartition("/")
        if not slash or not device or not number.isascii() or not number.isdecimal() or int(number) == 0:
            raise InvalidLineError(f"local port {port!r}: a device and a port number such as mlx5_0/1")
    line = parse_target_line(text)
    if line.src is not None and line.dest is None:
        raise InvalidLineError(f"src={line.src} goes with dest only")
    if line.dest is not None and line.src is not None and (":" in line.dest.host) != (":" in line.src.host):
        raise InvalidLineError(f"src={line.src} and dest={line.dest} are not of one address family")
    return StaticTarget(line, ports, name)


def conflicts(targets: Iterable[StaticTarget], initiator_ext: InitiatorExt) -> tuple[str, ...]:
    """Targets that the driver would take for one another on some local port (EEXIST), a sentence each."""
    found: list[str] = []
    known: list[tuple[int, StaticTarget]] = []
    for number, target in enumerate(targets, start=1):
        own = target.key("", initiator_ext).driver_key
        for other_number, other in known:
            both = not target.local_ports or not other.local_ports or set(target.local_ports) & set(other.local_ports)
            if both and other.key("", initiator_ext).driver_key == own:
                found.append(
                    f"static target {target.name or number} has id_ext, ioc_guid and initiator_ext of static target "
                    f"{other.name or other_number}: the driver takes one of them per local port"
                )
        known.append((number, target))
    return tuple(found)
