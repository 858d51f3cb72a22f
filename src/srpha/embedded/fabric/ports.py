"""Ports, nodes and links of the embedded fabric: what stands there, before anything moves (IBA volume 1, 3.2, 14.2.5).

A port holds the registers that subnet management reads and writes, and the handlers of the queue pairs that somebody
serves on it. Registers change through methods only, because each change has to reach the fabric (routes may be stale)
and those who watch the port.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from srpha.core.seams import Unwatch
from srpha.embedded.fabric.topology import NodeKind, NodeSpec
from srpha.wire.identifiers import DEFAULT_SUBNET_PREFIX, PKEY_DEFAULT_FULL, Gid, pkeys_match
from srpha.wire.smp import PhysState, PortState, SmInfo

LFT_CAPACITY: Final = 49152
"""Entries of a switch's linear forwarding table: every unicast LID."""
LFT_UNREACHABLE: Final = 0xFF
PKEY_CAPACITY: Final = 128
_FIRST_QPN: Final = 0x40
_QPN_LIMIT: Final = 0xFFFFFF

PacketHandler = Callable[[bytes], None]


class PortEvent(Enum):
    """What a port's watchers hear (IBA 11.6.3 asynchronous events, by their verbs names)."""

    PORT_ACTIVE = "port-active"
    PORT_ERROR = "port-error"
    """The port left ACTIVE."""
    LID_CHANGE = "lid-change"
    PKEY_CHANGE = "pkey-change"
    SM_CHANGE = "sm-change"
    CLIENT_REREGISTER = "client-reregister"
    CAPABILITY_CHANGE = "capability-change"
    LINK_CHANGE = "link-change"
    """The link below trained or went down, whatever the logical state was: for agents, not for consumers."""


class Traffic(Enum):
    """Which packets a fault concerns: to QP0 and QP1, to other queue pairs, or both."""

    ALL = "all"
    MAD = "mad"
    RC = "rc"


@dataclass(frozen=True, slots=True)
class Impairment:
    """What a faulty cable does to packets passing one way: loses some, delays others."""

    kinds: Traffic = Traffic.ALL
    probability: float = 0.0
    """Share of packets lost, 0.0 to 1.0."""
    delay: float = 0.0
    """Seconds added."""

    def concerns(self, management: bool) -> bool:
        return self.kinds is Traffic.ALL or (self.kinds is Traffic.MAD) == management


class Route:
    """The way of a packet: where it ends, how long it takes, and what it must still find on arrival."""

    __slots__ = ("destination", "epoch", "hops", "impairments", "latency", "lid", "management")

    def __init__(
        self,
        destination: Port,
        lid: int | None,
        hops: tuple[tuple[Link, int], ...],
        impairments: tuple[tuple[int, Impairment], ...],
        epoch: int,
        management: bool,
    ) -> None:
        """``hops`` are links with their generations; an impairment comes with the number of hops that lie behind it."""
        self.destination = destination
        self.lid = lid
        self.hops = hops
        self.impairments = impairments
        self.latency = sum(link.latency for link, _ in hops)
        self.epoch = epoch
        self.management = management

    def rest(self, behind: int) -> Route:
        """What lies before a packet that is held up after ``behind`` hops: what breaks behind it does not matter."""
        return Route(self.destination, self.lid, self.hops[behind:], (), self.epoch, self.management)

    def intact(self) -> bool:
        """Whether a packet under way still arrives: no link was interrupted and the destination takes it."""
        if not all(link.trained and link.generation == generation for link, generation in self.hops):
            return False
        port = self.destination
        if self.lid is not None and not port.owns(self.lid):
            return False
        return self.management or port.receives


class Flow:
    """Packets from one port to one LID and queue pair: they arrive in order."""

    __slots__ = ("last_due", "quick", "route", "waiting")

    def __init__(self) -> None:
        self.route: Route | None = None
        self.quick = False
        """No impairment and less delay than a timer is worth."""
        self.last_due = 0.0
        self.waiting = 0
        """Packets that wait for a timer; none may overtake them."""


class Link:
    """A cable between two ports."""

    __slots__ = ("a", "b", "generation", "latency", "plugged", "trained")

    def __init__(self, a: Port, b: Port, latency: float) -> None:
        self.a = a
        self.b = b
        self.latency = latency
        """Seconds from one end to the other."""
        self.plugged = True
        self.trained = False
        self.generation = 0
        """Counts interruptions: what was on the cable when it broke is lost."""

    def peer(self, port: Port) -> Port:
        return self.b if port is self.a else self.a


class Port:
    """One port of an HCA or a switch; port 0 of a switch is its management port."""

    def __init__(
        self, node: Node, number: int, guid: int, transmit: Callable[[Port, bytes], None], changed: Callable[[], None]
    ) -> None:
        self.node = node
        self.number = number
        self.guid = guid
        self.link: Link | None = None
        self.flows: dict[int, Flow] = {}
        """By destination QP << 16 | DLID; the fabric's own."""
        self.tx_impairments: tuple[Impairment, ...] = ()
        self.rx_impairments: tuple[Impairment, ...] = ()
        self.pkey_violations = 0
        """Packets dropped because their P_Key is not in the table (IBA 10.9.4)."""
        self.unknown_qp = 0
        """Packets dropped because nobody serves their queue pair."""
        self.enabled = True
        """False after the SM or an operator set the physical state to Disabled."""
        self.sm_info: SmInfo | None = None
        """What the agent answers to Get(SMInfo); set by the subnet manager that runs here."""
        self.base_capability = 0
        """Capability mask after power on."""
        self._transmit = transmit
        self._changed = changed
        self.smp_taker: Callable[[bytes], bool] | None = None
        """Sees each SMP that arrives before agent and manager do, and says whether it was for it."""
        self._handlers: dict[int, PacketHandler] = {}
        self._watchers: list[Callable[[PortEvent], None]] = []
        self.reset()

    def reset(self) -> None:
        """Registers as after power on; handlers and watchers stay."""
        self.gid_prefix = DEFAULT_SUBNET_PREFIX
        self.lid = 0
        self.lmc = 0
        self.sm_lid = 0
        self.sm_sl = 0
        self.subnet_timeout = 18
        self.mtu = 5
        self.state = PortState.DOWN
        self.phys_state = PhysState.POLLING
        self.capability_mask = self.base_capability
        self.pkeys: list[int] = [PKEY_DEFAULT_FULL] + [0] * (PKEY_CAPACITY - 1)
        self._accepted: dict[int, bool] = {}

    @property
    def name(self) -> str:
        """``node/port``, the text form of :class:`~srpha.embedded.fabric.topology.PortRef`."""
        return f"{self.node.name}/{self.number}"

    def __str__(self) -> str:
        return self.name

    @property
    def gid(self) -> Gid:
        """GID index 0."""
        return Gid(self.gid_prefix, self.guid)

    @property
    def receives(self) -> bool:
        """Whether packets other than SMPs are taken in: ARMED or ACTIVE (IBA 7.2.7)."""
        return self.state is PortState.ACTIVE or self.state is PortState.ARMED

    @property
    def trained(self) -> bool:
        """Whether the physical link is up. A switch's port 0 and a loop back need none."""
        return self.link is not None and self.link.trained

    def owns(self, lid: int) -> bool:
        """Whether ``lid`` is one of the 2**lmc LIDs of this port."""
        return self.lid != 0 and lid >> self.lmc == self.lid >> self.lmc

    def send(self, packet: bytes) -> None:
        """Put a packet (LRH to payload, no CRC) on the wire; silently lost when it cannot go, as on a real one.

        A directed-route SMP leaves with the hop pointer its maker set (0 for a request, unchanged in a response); the
        port's SMI does the rest (IBA 14.2.2.2).
        """
        self._transmit(self, packet)

    def bind(self, qpn: int, handler: PacketHandler) -> Unwatch:
        """Serve a queue pair: ``handler`` gets each whole packet sent to it. A bound number raises ``ValueError``.

        QP0 gets what is meant for a subnet manager (responses, traps); Get, Set and TrapRepress go to the node's agent.
        """
        if qpn in self._handlers:
            raise ValueError(f"{self.name}: queue pair {qpn:#x} is taken")
        self._handlers[qpn] = handler

        def unbind() -> None:
            if self._handlers.get(qpn) is handler:
                del self._handlers[qpn]

        return unbind

    def handler(self, qpn: int) -> PacketHandler | None:
        return self._handlers.get(qpn)

    def divert_smps(self, taker: Callable[[bytes], bool]) -> Unwatch:
        """Offer each SMP that arrives to ``taker`` first, for one who shares QP0. ``ValueError`` for a second one."""
        if self.smp_taker is not None:
            raise ValueError(f"{self.name}: somebody takes SMPs already")
        self.smp_taker = taker

        def leave() -> None:
            if self.smp_taker is taker:
                self.smp_taker = None

        return leave

    def accepts_pkey(self, pkey: int) -> bool:
        """Whether a packet with this P_Key may enter (IBA 10.9.3)."""
        accepted = self._accepted.get(pkey)
        if accepted is None:
            accepted = self._accepted[pkey] = any(pkeys_match(own, pkey) for own in self.pkeys)
        return accepted

    def watch(self, callback: Callable[[PortEvent], None]) -> Unwatch:
        """Hear every :class:`PortEvent`, called at once, after the register has its new value."""
        self._watchers.append(callback)

        def unwatch() -> None:
            if callback in self._watchers:
                self._watchers.remove(callback)

        return unwatch

    def set_state(self, state: PortState) -> None:
        """Change the logical state; the caller has checked that the move is legal."""
        before, self.state = self.state, state
        if before is state:
            return
        self._changed()
        if state is PortState.ACTIVE:
            self._tell(PortEvent.PORT_ACTIVE)
        elif before is PortState.ACTIVE:
            self._tell(PortEvent.PORT_ERROR)

    def set_lid(self, lid: int, lmc: int = 0) -> None:
        if (self.lid, self.lmc) != (lid, lmc):
            self.lid, self.lmc = lid, lmc
            self._changed()
            self._tell(PortEvent.LID_CHANGE)

    def set_sm(self, sm_lid: int, sm_sl: int) -> None:
        if (self.sm_lid, self.sm_sl) != (sm_lid, sm_sl):
            self.sm_lid, self.sm_sl = sm_lid, sm_sl
            self._tell(PortEvent.SM_CHANGE)

    def set_pkeys(self, first: int, values: tuple[int, ...]) -> None:
        """Overwrite table entries from index ``first``; entries beyond the table are ignored."""
        values = values[: max(0, len(self.pkeys) - first)]
        if tuple(self.pkeys[first : first + len(values)]) != values:
            self.pkeys[first : first + len(values)] = values
            self._accepted.clear()
            self._tell(PortEvent.PKEY_CHANGE)

    def set_capability(self, bits: int, on: bool) -> None:
        """Set or clear bits of the capability mask, for example IsDeviceManagementSupported."""
        mask = self.capability_mask | bits if on else self.capability_mask & ~bits
        if mask != self.capability_mask:
            self.capability_mask = mask
            self._tell(PortEvent.CAPABILITY_CHANGE)

    def reregister(self) -> None:
        """The SM asked the port's consumers to subscribe anew (ClientReregister, IBA 14.4.11)."""
        self._tell(PortEvent.CLIENT_REREGISTER)

    def link_changed(self, trained: bool) -> None:
        """The link below trained (DOWN to INIT) or went down (anything to DOWN)."""
        self.phys_state = PhysState.LINK_UP if trained else PhysState.POLLING if self.enabled else PhysState.DISABLED
        self.set_state(PortState.INIT if trained else PortState.DOWN)
        self._tell(PortEvent.LINK_CHANGE)

    def _tell(self, event: PortEvent) -> None:
        for callback in tuple(self._watchers):
            callback(event)


class Node:
    """An HCA or a switch."""

    def __init__(self, spec: NodeSpec, transmit: Callable[[Port, bytes], None], changed: Callable[[], None]) -> None:
        self.spec = spec
        self.name = spec.name
        self.kind = spec.kind
        self.node_guid = spec.node_guid
        self.description = spec.description
        self.powered = True
        self.agent: Callable[[Port, bytes], None] | None = None
        """The subnet management agent: gets the port of entry and the SMP packet."""
        self.ports: tuple[Port, ...] = tuple(
            Port(self, number, spec.port_guid(number), transmit, changed) for number in range(1, spec.ports + 1)
        )
        """Ports 1, 2, ... in order."""
        self.management: Port | None = None
        if self.kind is NodeKind.SWITCH:
            self.management = Port(self, 0, spec.node_guid, transmit, changed)
        self._next_qpn = _FIRST_QPN
        self.reset()

    def reset(self) -> None:
        """Registers as after power on."""
        self.lft = bytearray(b"\xff" * LFT_CAPACITY if self.kind is NodeKind.SWITCH else b"")
        self.lft_top = 0
        for port in self.all_ports():
            port.reset()
        if self.management is not None:
            self.management.state = PortState.ACTIVE
            self.management.phys_state = PhysState.LINK_UP

    def all_ports(self) -> tuple[Port, ...]:
        """Every port, a switch's management port first."""
        return self.ports if self.management is None else (self.management, *self.ports)

    def port(self, number: int) -> Port:
        """Port ``number``; raises ``KeyError`` when the node has none such."""
        if 1 <= number <= len(self.ports):
            return self.ports[number - 1]
        if number == 0 and self.management is not None:
            return self.management
        raise KeyError(f"{self.name} has no port {number}")

    def allocate_qpn(self) -> int:
        """A queue pair number never used on this node while it lives, so that stale packets find nobody."""
        qpn = self._next_qpn
        self._next_qpn = qpn + 1 if qpn < _QPN_LIMIT - 1 else _FIRST_QPN
        return qpn
