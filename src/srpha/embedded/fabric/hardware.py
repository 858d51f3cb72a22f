"""The fabric itself: holds nodes and cables and moves packets between ports (IBA volume 1, chapters 3, 7, 10.9, 14.2).

Everything that moves is bytes: LRH, perhaps GRH, BTH, extended header, payload; the CRCs are left to captures. A packet
is lost without a word wherever a real one would be. Packets from one port to one LID and queue pair arrive in the order
they were sent in. A cached route is used until anything in the fabric changes (``epoch``).

Delivery: a way that takes no longer than ``timer_floor`` costs no timer; its packets are handed over in one batch at
the next turn of the loop. Other packets wait in one time-ordered heap behind one timer. The fabric belongs to the event
loop on which the first packet is sent.

Reference frame of faults: ``tx_impairments`` of a port meet packets that leave it onto its cable, ``rx_impairments``
packets that enter it. A packet delayed there waits there: it still arrives when a link behind it breaks, as a late
write does whose initiator is long gone, and is lost with a link before it.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from srpha.core.seams import Unwatch
from srpha.embedded.fabric.forwarding import SMP_OFFSET, SMP_PACKET_LENGTH, is_directed, resolve, walk_directed
from srpha.embedded.fabric.ports import Flow, Impairment, Link, Node, Port, PortEvent, Route, Traffic
from srpha.embedded.fabric.topology import DEFAULT_LATENCY, NodeSpec, PortRef, TopologyError
from srpha.wire.identifiers import LID_PERMISSIVE
from srpha.wire.mad import Method

__all__ = ["Fabric", "Impairment", "Link", "Node", "PacketTap", "Port", "PortEvent", "Traffic"]

PacketTap = Callable[[float, Port, bytes], None]
"""Hears ``(loop time, port, packet)``."""

_HEAD: Final = struct.Struct(">xBH8xI")  # service level and LNH, DLID, destination QP
_GLOBAL_QP: Final = struct.Struct(">52xI")
_PKEY: Final = struct.Struct(">10xHI")
_GLOBAL_PKEY: Final = struct.Struct(">50xHI")
_QPN_MASK: Final = 0xFFFFFF
_INSTANT: Final = 1e-9
_MOST_FLOWS: Final = 1024
_FOR_THE_AGENT: Final = frozenset({Method.GET, Method.SET, Method.TRAP_REPRESS})


class Fabric:
    """Nodes, cables, and the packets between them.

    ``delivered`` and ``dropped`` count packets, ``epoch`` every change of links, tables and states.
    """

    def __init__(self, *, rng: random.Random, timer_floor: float = 0.0) -> None:
        self.nodes: dict[str, Node] = {}
        self.links: list[Link] = []
        self.timer_floor = timer_floor
        """Seconds of delay below which a packet is not worth a timer."""
        self.epoch = 0
        self.delivered = 0
        self.dropped = 0
        self._rng = rng
        self._taps: tuple[PacketTap, ...] = ()
        self._arrival_taps: tuple[PacketTap, ...] = ()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: deque[tuple[Route, bytes]] = deque()
        self._draining = False
        self._timeline: list[tuple[float, int, Flow, Route, bytes]] = []
        self._sequence = 0
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0.0

    # -- building -----------------------------------------------------------------------------------------------------

    def add_node(self, spec: NodeSpec) -> Node:
        """A node with its ports, powered, without an agent. :class:`TopologyError` for a name that is taken."""
        if spec.name in self.nodes:
            raise TopologyError(f"node {spec.name!r} is there already")
        node = self.nodes[spec.name] = Node(spec, self._transmit, self.changed)
        return node

    def connect(self, a: PortRef, b: PortRef, latency: float = DEFAULT_LATENCY) -> Link:
        """Plug a cable between two free ports; it trains at once when both nodes are powered."""
        ends = []
        for ref in (a, b):
            port = self.port(ref)
            if port.number == 0 or port.link is not None:
                raise TopologyError(f"{ref}: the port is internal or has a cable already")
            ends.append(port)
        if ends[0] is ends[1]:
            raise TopologyError(f"{a}: a cable needs two different ports")
        link = Link(ends[0], ends[1], latency)
        ends[0].link = ends[1].link = link
        self.links.append(link)
        self.retrain(link)
        return link

    def node(self, name: str) -> Node:
        """The node of this name; :class:`TopologyError` when there is none."""
        node = self.nodes.get(name)
        if node is None:
            raise TopologyError(f"there is no node {name!r}")
        return node

    def port(self, ref: PortRef | str) -> Port:
        """The port ``node/number``; :class:`TopologyError` when there is none."""
        if isinstance(ref, str):
            ref = PortRef.parse(ref)
        node = self.node(ref.node)
        try:
            return node.port(ref.port)
        except KeyError as missing:
            raise TopologyError(str(missing.args[0])) from None

    # -- changes ------------------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Something that routes depend on has changed: no cached route holds any more."""
        self.epoch += 1

    def retrain(self, link: Link) -> None:
        """Bring a link into the state that its cable, its ends' power and their physical states give it."""
        a, b = link.a, link.b
        trained = link.plugged and a.enabled and b.enabled and a.node.powered and b.node.powered
        if trained == link.trained:
            return
        link.trained = trained
        if not trained:
            link.generation += 1
        self.changed()
        for port in (a, b):
            if port.node.powered:
                port.link_changed(trained)

    def set_plugged(self, ref: PortRef | str, plugged: bool) -> None:
        """Pull or plug the cable at a port; :class:`TopologyError` when the port never had one."""
        link = self.port(ref).link
        if link is None:
            raise TopologyError(f"{ref}: the port has no cable")
        link.plugged = plugged
        self.retrain(link)

    def enable_port(self, port: Port, enabled: bool) -> None:
        """Disable a port physically, as the SM does with PortPhysicalState, or let it train again."""
        port.enabled = enabled
        if port.link is not None:
            self.retrain(port.link)

    def bounce(self, port: Port) -> None:
        """Take a port's link down and let it train again, as Set(PortInfo) to DOWN does."""
        if port.enabled:
            self.enable_port(port, enabled=False)
            self.enable_port(port, enabled=True)

    def set_power(self, node: Node, powered: bool) -> None:
        """Switch a node off (its links go down, its registers are lost) or on (links train, nothing is configured).

        Watchers of its ports hear PORT_ERROR and LINK_CHANGE when power goes, although the node itself is gone:
        its consumers live in this process and have to learn that they are dead.
        """
        if node.powered == powered:
            return
        node.powered = powered
        for port in node.ports:
            if port.link is not None:
                self.retrain(port.link)
        if not powered:
            for port in node.ports:
                port.link_changed(False)
            node.reset()
        self.changed()

    # -- taps ---------------------------------------------------------------------------------------------------------

    def tap(self, heard: PacketTap, *, arrivals: bool = False) -> Unwatch:
        """Hear every packet as its first port sends it or, with ``arrivals``, as its last port takes it in."""
        if arrivals:
            self._arrival_taps = (*self._arrival_taps, heard)
        else:
            self._taps = (*self._taps, heard)

        def untap() -> None:
            self._taps = tuple(tap for tap in self._taps if tap is not heard)
            self._arrival_taps = tuple(tap for tap in self._arrival_taps if tap is not heard)

        return untap

    # -- packets ------------------------------------------------------------------------------------------------------

    def _transmit(self, source: Port, packet: bytes) -> None:
        if self._taps:
            now = self._clock().time()
            for tap in self._taps:
                tap(now, source, packet)
        try:
            flags, lid, qpn = _HEAD.unpack_from(packet)
            if flags & 3 == 3:
                (qpn,) = _GLOBAL_QP.unpack_from(packet)
        except struct.error:
            self.dropped += 1
            return
        qpn &= _QPN_MASK
        if qpn == 0:
            self._transmit_smp(source, lid, packet)
            return
        flow = source.flows.get(qpn << 16 | lid)
        if flow is None or flow.route is None or flow.route.epoch != self.epoch:
            flow = self._flow(source, qpn << 16 | lid, lid, management=False)
        route = flow.route
        if route is None:
            self.dropped += 1
        elif flow.quick and not flow.waiting:
            self._ready.append((route, packet))
            if not self._draining:
                self._draining = True
                self._clock().call_soon(self._drain)
        else:
            self._delay(flow, route, packet, qpn == 1)

    def _flow(self, source: Port, key: int, lid: int, *, management: bool) -> Flow:
        """The flow of this key with a route of this epoch, if there is any."""
        flows = source.flows
        flow = flows.get(key)
        if flow is None:
            if len(flows) > _MOST_FLOWS:  # of connections long gone
                for idle in [old for old, state in flows.items() if not state.waiting]:
                    del flows[idle]
            flow = flows[key] = Flow()
        if flow.route is None or flow.route.epoch != self.epoch:
            route = flow.route = resolve(source, lid, self.epoch, management=management)
            flow.quick = route is not None and not route.impairments and route.latency <= self.timer_floor
        return flow

    def _transmit_smp(self, source: Port, lid: int, packet: bytes) -> None:
        if len(packet) != SMP_PACKET_LENGTH or packet[1] & 3 == 3:
            self.dropped += 1
        elif is_directed(packet):
            walked = walk_directed(source, packet, self.epoch)
            if walked is None:
                self.dropped += 1
                return
            flow = source.flows.get(LID_PERMISSIVE)
            if flow is None:
                flow = source.flows[LID_PERMISSIVE] = Flow()
            self._delay(flow, walked[0], walked[1], management=True)
        else:
            flow = self._flow(source, lid, lid, management=True)
            if flow.route is None:
                self.dropped += 1
            else:
                self._delay(flow, flow.route, packet, management=True)

    def _delay(self, flow: Flow, route: Route, packet: bytes, management: bool) -> None:
        """Let the faults on the way have their say, then queue the packet behind those of its flow."""
        delay = route.latency
        held_after = 0
        for behind, impairment in route.impairments:
            if impairment.concerns(management):
                if impairment.probability and self._rng.random() < impairment.probability:
                    self.dropped += 1
                    return
                if impairment.delay:
                    delay += impairment.delay
                    held_after = behind
        loop = self._clock()
        if delay <= self.timer_floor and not flow.waiting:
            self._ready.append((route, packet))
            if not self._draining:
                self._draining = True
                loop.call_soon(self._drain)
            return
        due = flow.last_due = max(loop.time() + delay, flow.last_due)
        flow.waiting += 1
        self._sequence += 1
        if held_after:
            route = route.rest(held_after)
        heapq.heappush(self._timeline, (due, self._sequence, flow, route, packet))
        if self._timer is None or due < self._armed_for:
            self._arm(loop)

    def _clock(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        return loop

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_for = self._timeline[0][0]
        self._timer = loop.call_at(self._armed_for, self._fall_due)

    def _fall_due(self) -> None:
        loop = self._clock()
        timeline = self._timeline
        until = loop.time() + _INSTANT
        self._timer = None
        try:
            while timeline and timeline[0][0] <= until:
                _, _, flow, route, packet = heapq.heappop(timeline)
                flow.waiting -= 1
                self._deliver(route, packet)
        finally:
            if timeline:
                self._arm(loop)

    def _drain(self) -> None:
        ready = self._ready
        try:
            for _ in range(len(ready)):
                route, packet = ready.popleft()
                self._deliver(route, packet)
        finally:
            self._draining = bool(ready)
            if ready:
                self._clock().call_soon(self._drain)

    def _deliver(self, route: Route, packet: bytes) -> None:
        if route.epoch != self.epoch and not route.intact():
            self.dropped += 1
            return
        port = route.destination
        if self._arrival_taps:
            now = self._clock().time()
            for tap in self._arrival_taps:
                tap(now, port, packet)
        if route.management:
            self._deliver_smp(port, packet)
            return
        pkey, qpn = (_PKEY if packet[1] & 3 != 3 else _GLOBAL_PKEY).unpack_from(packet)
        if not port.accepts_pkey(pkey):
            port.pkey_violations += 1
            self.dropped += 1
            return
        handler = port.handler(qpn & _QPN_MASK)
        if handler is None:
            port.unknown_qp += 1
            self.dropped += 1
            return
        self.delivered += 1
        handler(packet)

    def _deliver_smp(self, port: Port, packet: bytes) -> None:
        """Between the agent and a subnet manager on one QP0 (IBA 13.5.3.1): requests are for the agent."""
        if port.smp_taker is not None and port.smp_taker(packet):
            self.delivered += 1
            return
        agent = port.node.agent
        if packet[SMP_OFFSET + 3] in _FOR_THE_AGENT:
            if agent is not None:
                self.delivered += 1
                agent(port, packet)
                return
        else:
            handler = port.handler(0)
            if handler is not None:
                self.delivered += 1
                handler(packet)
                return
        self.dropped += 1
