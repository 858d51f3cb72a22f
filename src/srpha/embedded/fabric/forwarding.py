"""The way of a packet through the fabric (IBA volume 1, 14.2.2 for directed routes, 18.2.4 for forwarding tables).

Pure decisions over the nodes as they stand: nothing moves here. The result is a :class:`Route`, or ``None`` when a
switch or a port on the way would drop the packet.
"""

from __future__ import annotations

from typing import Final

from srpha.embedded.fabric.ports import LFT_UNREACHABLE, Impairment, Link, Port, Route
from srpha.embedded.fabric.topology import NodeKind
from srpha.wire.identifiers import LID_PERMISSIVE, LID_UNICAST_MAX
from srpha.wire.mad import MAD_LENGTH
from srpha.wire.rc import BTH_LENGTH, DETH_LENGTH, LRH_LENGTH
from srpha.wire.smp import MAX_HOPS, PortState

SMP_OFFSET: Final = LRH_LENGTH + BTH_LENGTH + DETH_LENGTH
"""Where the MAD of a packet without GRH begins; SMPs never have one (IBA 13.5.1)."""
SMP_PACKET_LENGTH: Final = SMP_OFFSET + MAD_LENGTH
_STATUS: Final = SMP_OFFSET + 4
_HOP_POINTER: Final = SMP_OFFSET + 6
_HOP_COUNT: Final = SMP_OFFSET + 7
_DR_LIDS: Final = slice(SMP_OFFSET + 32, SMP_OFFSET + 36)
_INITIAL_PATH: Final = SMP_OFFSET + 128
_RETURN_PATH: Final = SMP_OFFSET + 192
_LONGEST_WAY: Final = 64
"""Hops after which a packet is held to run in a circle; a real one is dropped by its switch lifetime limit."""
_CARRIES_SMP: Final = frozenset({PortState.INIT, PortState.ARMED, PortState.ACTIVE})


class _Way:
    """What a route collects hop by hop."""

    __slots__ = ("hops", "impairments")

    def __init__(self) -> None:
        self.hops: list[tuple[Link, int]] = []
        self.impairments: list[tuple[int, Impairment]] = []

    def cross(self, egress: Port) -> Port | None:
        """Leave by a port; the port at the other end of its cable, ``None`` when there is no live cable."""
        link = egress.link
        if link is None or not link.trained:
            return None
        entry = link.peer(egress)
        behind = len(self.hops)
        self.impairments += [(behind, impairment) for impairment in egress.tx_impairments]
        self.hops.append((link, link.generation))
        self.impairments += [(behind + 1, impairment) for impairment in entry.rx_impairments]
        return entry

    def end(self, destination: Port, lid: int | None, epoch: int, *, management: bool) -> Route:
        return Route(destination, lid, tuple(self.hops), tuple(self.impairments), epoch, management)


def resolve(source: Port, lid: int, epoch: int, *, management: bool) -> Route | None:
    """The way to a unicast LID by the switches' linear forwarding tables.

    ``management``: the packet is an SMP, which ports in INIT carry as well; others need ACTIVE to be sent and ARMED or
    ACTIVE to be received (IBA 7.2.7).
    """
    if not 0 < lid <= LID_UNICAST_MAX or not source.node.powered:
        return None
    way = _Way()
    if source.owns(lid):
        return way.end(source, lid, epoch, management=management) if _sends(source, management) else None
    egress: Port | None = source if source.number else _forward(source, lid)
    for _ in range(_LONGEST_WAY):
        if egress is None or not _sends(egress, management):
            return None
        entry = way.cross(egress)
        if entry is None or not _receives(entry, management):
            return None
        node = entry.node
        destination = entry if node.management is None else node.management
        if destination.owns(lid):
            return way.end(destination, lid, epoch, management=management)
        egress = _forward(entry, lid)
    return None


def _forward(entry: Port, lid: int) -> Port | None:
    node = entry.node
    if node.kind is not NodeKind.SWITCH or lid > node.lft_top:
        return None
    number = node.lft[lid]
    return node.ports[number - 1] if 0 < number <= len(node.ports) and number != LFT_UNREACHABLE else None


def _sends(port: Port, management: bool) -> bool:
    return port.state in _CARRIES_SMP if management else port.state is PortState.ACTIVE


def _receives(port: Port, management: bool) -> bool:
    return port.state in _CARRIES_SMP if management else port.receives


def walk_directed(source: Port, packet: bytes, epoch: int) -> tuple[Route, bytes] | None:
    """Carry a directed-route SMP along its own path (IBA 14.2.2.2 to 14.2.2.4).

    Returns the way and the packet as it arrives: hop pointer moved, return path filled. Routes with a LID-routed part
    (DrSLID or DrDLID other than permissive) are dropped: no part of this fabric makes them.
    """
    if packet[_DR_LIDS] != b"\xff\xff\xff\xff" or not source.node.powered:
        return None
    count = packet[_HOP_COUNT]
    if count > MAX_HOPS:
        return None
    if packet[_STATUS] & 0x80:
        return _walk_back(source, packet, count, epoch)
    return _walk_out(source, packet, count, epoch)


def _walk_out(source: Port, packet: bytes, count: int, epoch: int) -> tuple[Route, bytes] | None:
    if packet[_HOP_POINTER] != 0:
        return None
    way = _Way()
    carried = bytearray(packet)
    here = source
    for hop in range(1, count + 1):
        if hop > 1 and here.node.kind is not NodeKind.SWITCH:
            return None  # only switches pass an SMP on
        number = packet[_INITIAL_PATH + hop]
        if not 1 <= number <= len(here.node.ports) or (here.number and hop == 1 and number != here.number):
            return None
        entry = way.cross(here.node.ports[number - 1])
        if entry is None:
            return None
        carried[_RETURN_PATH + hop] = entry.number
        here = entry
    carried[_HOP_POINTER] = count + 1
    return way.end(here, None, epoch, management=True), bytes(carried)


def _walk_back(source: Port, packet: bytes, count: int, epoch: int) -> tuple[Route, bytes] | None:
    if packet[_HOP_POINTER] != count + 1:
        return None
    way = _Way()
    here = source
    for hop in range(count, 0, -1):
        if hop < count and here.node.kind is not NodeKind.SWITCH:
            return None
        number = packet[_RETURN_PATH + hop]
        if not 1 <= number <= len(here.node.ports):
            return None
        entry = way.cross(here.node.ports[number - 1])
        if entry is None:
            return None
        here = entry
    carried = bytearray(packet)
    carried[_HOP_POINTER] = 0
    return way.end(here, None, epoch, management=True), bytes(carried)


def is_directed(packet: bytes) -> bool:
    """Whether a packet to the permissive LID is a directed-route SMP of the right length."""
    return (
        len(packet) == SMP_PACKET_LENGTH
        and packet[SMP_OFFSET + 1] == 0x81
        and int.from_bytes(packet[2:4], "big") == LID_PERMISSIVE
    )
