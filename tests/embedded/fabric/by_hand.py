"""A fabric configured without a subnet manager: LIDs by order, shortest ways, every cabled port active."""

from __future__ import annotations

import random
from collections import deque

from srpha.embedded.fabric.build import build_fabric
from srpha.embedded.fabric.hardware import Fabric, Node, Port
from srpha.embedded.fabric.topology import Topology, parse_topology
from srpha.wire import rc
from srpha.wire.smp import DirectedRouteSmp, LidRoutedSmp, PortState

TWO_SWITCHES = """\
Switch 4 "left"
[1] "a"[1]
[3] "right"[3]

Switch 4 "right"
[1] "b"[1]
[2] "a"[2]

Hca 2 "a"
Hca 1 "b"
"""
"""HCA a on both switches, HCA b on the right one; a/1 reaches b through both switches."""


def make_fabric(text: str = TWO_SWITCHES, *, seed: int = 1, timer_floor: float = 0.0) -> Fabric:
    topology: Topology = parse_topology(text)
    return build_fabric(topology, rng=random.Random(seed), timer_floor=timer_floor)


def configure(fabric: Fabric, *, sm_lid: int = 1) -> None:
    """LIDs 1, 2, ... in the order of the HCA ports, then the switches."""
    ends = [port for node in fabric.nodes.values() if node.management is None for port in node.ports if port.trained]
    ends += [node.management for node in fabric.nodes.values() if node.management is not None]
    for lid, port in enumerate(ends, 1):
        port.set_lid(lid)
        port.set_sm(sm_lid, 0)
    for node in fabric.nodes.values():
        for port in node.ports:
            if port.trained:
                port.set_state(PortState.ARMED)
                port.set_state(PortState.ACTIVE)
    for port in ends:
        route_to(fabric, port)


def route_to(fabric: Fabric, target: Port) -> None:
    """Write the target's LID into every switch's table, shortest way, lowest port first."""
    known: set[str] = {target.node.name}
    queue: deque[tuple[Node, Port | None]] = deque()
    if target.node.management is None:
        assert target.link is not None
        queue.append((target.node, target))
    else:
        target.node.lft[target.lid] = 0
        target.node.lft_top = max(target.node.lft_top, target.lid)
        queue.append((target.node, None))
    while queue:
        node, only = queue.popleft()
        for port in (only,) if only is not None else node.ports:
            if port.link is None or not port.link.trained:
                continue
            peer = port.link.peer(port)
            if peer.node.management is None or peer.node.name in known:
                continue
            known.add(peer.node.name)
            peer.node.lft[target.lid] = peer.number
            peer.node.lft_top = max(peer.node.lft_top, target.lid)
            queue.append((peer.node, None))
    fabric.changed()


def rc_packet(source: Port, dest: Port, qpn: int, payload: bytes = b"data", pkey: int = 0xFFFF) -> bytes:
    return rc.pack_send(rc.RcAddress(source.lid, dest.lid, qpn, pkey), rc.Opcode.RC_SEND_ONLY, 0, payload)


def mad_packet(source: Port, dest: Port, mad: bytes = bytes(256), pkey: int = 0xFFFF) -> bytes:
    return rc.pack_datagram(rc.RcAddress(source.lid, dest.lid, 1, pkey), 0, rc.GSI_Q_KEY, 1, mad)


def smp_packet(smp: LidRoutedSmp | DirectedRouteSmp, slid: int = 0xFFFF, dlid: int = 0xFFFF) -> bytes:
    address = rc.RcAddress(slid, dlid, 0, 0xFFFF, 0, rc.MANAGEMENT_VL)
    return rc.pack_datagram(address, 0, 0, 0, smp.encode())


def payload_of(packet: bytes) -> bytes:
    return bytes(rc.unpack(packet).payload)
