"""Discovery of a subnet by directed-route SMPs (IBA volume 1, 14.4.3): who is there, and how they are joined.

Knows nothing but what SMPs answer. It goes out hop by hop, all nodes of one distance together; a node that stops
answering is left out with what lies behind it, and is named in the result.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, TypeVar

from srpha.embedded.subnet.smi import SmpRequest, SubnetManagement
from srpha.embedded.subnet.subnet_view import PortKey
from srpha.wire.layout import Structure
from srpha.wire.mad import Method
from srpha.wire.smp import (
    MAX_HOPS,
    DirectedRouteSmp,
    NodeInfo,
    NodeType,
    PhysState,
    PkeyTableBlock,
    PortInfo,
    SmpAttribute,
    SwitchInfo,
)

S = TypeVar("S", bound=Structure)
Path = tuple[int, ...]

_MOST_PORTS: Final = 254


@dataclass(slots=True)
class FoundPort:
    """A port: of a channel adapter with the route to it, or of a switch."""

    number: int
    guid: int
    path: Path
    info: PortInfo
    pkeys: tuple[int, ...] = ()
    """First block of the P_Key table, 32 entries; empty for the outer ports of a switch."""


@dataclass(slots=True)
class FoundNode:
    """A node. A channel adapter has the ports that were reached, a switch all of them, 0 included."""

    info: NodeInfo
    path: Path
    description: bytes = b""
    switch: SwitchInfo | None = None
    ports: dict[int, FoundPort] = field(default_factory=dict)

    @property
    def guid(self) -> int:
        return self.info.node_guid


@dataclass(slots=True)
class Found:
    """What discovery found: nodes by GUID and links both ways, in the order of discovery."""

    root: PortKey
    nodes: dict[int, FoundNode] = field(default_factory=dict)
    links: dict[PortKey, PortKey] = field(default_factory=dict)
    silent: list[PortKey] = field(default_factory=list)
    """Ports with a live link at whose other end nobody answered."""

    def forget(self, key: PortKey) -> None:
        """Leave out a port of a channel adapter, or with any of its ports a whole switch, and the links to it."""
        node = self.nodes.get(key[0])
        if node is None:
            return
        whole = node.info.node_type == NodeType.SWITCH
        if not whole:
            node.ports.pop(key[1], None)
        if whole or not node.ports:
            del self.nodes[node.guid]
        for end in [end for end in self.links if (end[0] == node.guid if whole else end == key)]:
            peer = self.links.pop(end)
            self.links.pop(peer, None)


@dataclass(frozen=True, slots=True)
class _Probe:
    """A route to try, and the port whose cable is its last hop."""

    path: Path
    via: PortKey | None


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A node, or a further port of a channel adapter, that a probe reached for the first time."""

    node: FoundNode
    probe: _Probe


async def discover(smi: SubnetManagement, impatient: AbstractSet[PortKey] = frozenset()) -> Found | None:
    """One walk through the subnet; None when not even the own port answers.

    ``impatient`` names ports at whose other end nobody answered the last time: one try is enough for them.
    """
    probes = [_Probe((), None)]
    found: Found | None = None
    while probes:
        answers = await smi.exchange(
            [SmpRequest(p.path, Method.GET, SmpAttribute.NODE_INFO, patient=p.via not in impatient) for p in probes]
        )
        arrivals: list[_Arrival] = []
        for probe, answer in zip(probes, answers, strict=True):
            info = _read(answer, NodeInfo)
            if info is None or not _sane(info):
                if found is not None and probe.via is not None:
                    found.silent.append(probe.via)
                continue
            if found is None:
                found = Found((info.node_guid, info.local_port))
            arrival = _arrive(found, probe, info)
            if arrival is not None:
                arrivals.append(arrival)
        if found is None:
            return None
        await _describe(smi, found, arrivals)
        probes = [probe for arrival in arrivals for probe in _onward(found, arrival)]
    return found if found is not None and found.root[0] in found.nodes else None


def _sane(info: NodeInfo) -> bool:
    switch = info.node_type == NodeType.SWITCH
    return (
        info.node_type in tuple(NodeType)
        and info.node_guid != 0
        and info.port_guid != 0
        and 0 < info.port_count <= _MOST_PORTS
        and (0 if switch else 1) <= info.local_port <= info.port_count
    )


def _arrive(found: Found, probe: _Probe, info: NodeInfo) -> _Arrival | None:
    """Enter the link, and the node when it is new."""
    key = (info.node_guid, info.local_port)
    node = found.nodes.get(info.node_guid)
    if node is not None and (node.info.node_type, node.info.port_count) != (info.node_type, info.port_count):
        return None  # two nodes with one GUID: the first keeps it
    if probe.via is not None:
        if key in found.links or probe.via in found.links:
            return None
        found.links[probe.via] = key
        found.links[key] = probe.via
    if node is None:
        node = found.nodes[info.node_guid] = FoundNode(info, probe.path)
    elif info.node_type == NodeType.SWITCH or info.local_port in node.ports:
        return None
    node.ports[info.local_port] = FoundPort(info.local_port, info.port_guid, probe.path, PortInfo())
    return _Arrival(node, _Probe(probe.path, key))


async def _describe(smi: SubnetManagement, found: Found, arrivals: list[_Arrival]) -> None:
    """Read what is to be known of new nodes; who leaves a question open is silent."""
    requests: list[SmpRequest] = []
    for arrival in arrivals:
        requests += _questions(arrival)
    answers = iter(await smi.exchange(requests))
    for arrival in arrivals:
        mine = [next(answers) for _ in _questions(arrival)]
        if not _enter(arrival, mine):
            key = arrival.probe.via
            if key is not None:
                via = found.links.get(key)
                found.forget(key)
                if via is not None:
                    found.silent.append(via)


def _questions(arrival: _Arrival) -> list[SmpRequest]:
    node, path = arrival.node, arrival.probe.path
    asked: list[tuple[SmpAttribute, int]] = [(SmpAttribute.NODE_DESCRIPTION, 0), (SmpAttribute.PKEY_TABLE, 0)]
    if node.info.node_type == NodeType.SWITCH:
        asked.append((SmpAttribute.SWITCH_INFO, 0))
        asked += [(SmpAttribute.PORT_INFO, number) for number in range(node.info.port_count + 1)]
    else:
        asked.append((SmpAttribute.PORT_INFO, _local_port(arrival)))
    return [SmpRequest(path, Method.GET, attribute, modifier) for attribute, modifier in asked]


def _enter(arrival: _Arrival, answers: list[DirectedRouteSmp | None]) -> bool:
    """Put the answers into the node; False when one is missing."""
    node, path = arrival.node, arrival.probe.path
    description, pkeys = answers[0], _read(answers[1], PkeyTableBlock)
    if description is None or pkeys is None:
        return False
    node.description = bytes(description.data)
    if node.info.node_type != NodeType.SWITCH:
        info = _read(answers[2], PortInfo)
        if info is None:
            return False
        port = node.ports[_local_port(arrival)]
        port.info, port.pkeys = info, pkeys.pkeys
        return True
    node.switch = _read(answers[2], SwitchInfo)
    infos = [_read(answer, PortInfo) for answer in answers[3:]]
    if node.switch is None:
        return False
    for number, info in enumerate(infos):
        if info is None:
            return False
        node.ports[number] = FoundPort(number, node.guid, path, info, pkeys.pkeys if number == 0 else ())
    return True


def _local_port(arrival: _Arrival) -> int:
    key = arrival.probe.via
    return 0 if key is None else key[1]


def _onward(found: Found, arrival: _Arrival) -> list[_Probe]:
    """Where to go from a new node: a switch's live ports, and from the very first node its own cable."""
    node, path = arrival.node, arrival.probe.path
    if node.guid not in found.nodes or len(path) == MAX_HOPS:
        return []
    if node.switch is None and path:
        return []
    return [
        _Probe((*path, number), (node.guid, number))
        for number, port in sorted(node.ports.items())
        if number != 0 and (node.guid, number) not in found.links and port.info.phys_state == PhysState.LINK_UP
    ]


def _read(answer: DirectedRouteSmp | None, kind: type[S]) -> S | None:
    """The attribute in an answer without error, None otherwise."""
    return None if answer is None or answer.status else kind.decode(answer.data)
