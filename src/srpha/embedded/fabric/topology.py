"""What a fabric is made of: nodes, ports, cables; and the reader of ibsim and ibnetdiscover files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, Self

DEFAULT_LATENCY: Final = 1e-6
"""Seconds a packet needs for one cable and the node behind it."""


class TopologyError(ValueError):
    """A fabric cannot be built from its description; one line, naming the place."""


class NodeKind(Enum):
    """IBA node types that the embedded fabric knows."""

    HCA = "hca"
    SWITCH = "switch"


@dataclass(frozen=True, slots=True, order=True)
class PortRef:
    """A port by names. Text form ``node/port``; the last slash counts."""

    node: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``node/port``; raises :class:`TopologyError`."""
        node, slash, port = text.rpartition("/")
        if not slash or not node or not (port.isascii() and port.isdigit()) or len(port) > 3 or int(port) > 254:
            raise TopologyError(f"{text!r} is no port: expected NODE/PORT with a port from 0 to 254")
        return cls(node, int(port))

    def __str__(self) -> str:
        return f"{self.node}/{self.port}"


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One switch or HCA. ``ports`` counts the outer ports; a switch's port 0 comes on top."""

    name: str
    kind: NodeKind
    ports: int
    node_guid: int
    port_guids: tuple[int, ...] = ()
    """Of ports 1, 2, ... of an HCA; missing ones are node GUID + port number. A switch uses its node GUID."""
    description: str = ""
    vendor_id: int = 0
    device_id: int = 0
    system_guid: int = 0

    def port_guid(self, number: int) -> int:
        if self.kind is NodeKind.SWITCH:
            return self.node_guid
        return self.port_guids[number - 1] if number <= len(self.port_guids) else self.node_guid + number


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """A cable between two ports."""

    a: PortRef
    b: PortRef
    latency: float = DEFAULT_LATENCY


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole fabric. Making one checks it: names, GUIDs and ports are unique, cables end in ports; TopologyError."""

    nodes: tuple[NodeSpec, ...]
    links: tuple[LinkSpec, ...]

    def __post_init__(self) -> None:
        names: dict[str, NodeSpec] = {}
        owners: dict[int, str] = {}
        for node in self.nodes:
            if node.name in names:
                raise TopologyError(f"two nodes are named {node.name!r}")
            names[node.name] = node
            mine = {node.node_guid, *(node.port_guid(number) for number in range(1, node.ports + 1))}
            for guid in sorted(mine):
                if owners.setdefault(guid, node.name) != node.name:
                    raise TopologyError(f"nodes {owners[guid]!r} and {node.name!r} share GUID {guid:#018x}")
        cabled: set[PortRef] = set()
        for link in self.links:
            for ref in (link.a, link.b):
                spec = names.get(ref.node)
                if spec is None or not 1 <= ref.port <= spec.ports:
                    raise TopologyError(f"{ref}: there is no such port")
                if ref in cabled:
                    raise TopologyError(f"{ref}: two cables in one port")
                cabled.add(ref)

    def node(self, name: str) -> NodeSpec:
        """The node of this name; :class:`TopologyError` when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise TopologyError(f"there is no node {name!r}")


def default_node_guid(position: int) -> int:
    """GUID of the node at a position of its file (from 0) when none is given: locally administered, 256 ports apart."""
    return 0x0200_5352_5000_0000 | position + 1 << 8


def load_topology(path: Path) -> Topology:
    """Read an ibsim net file or the output of ibnetdiscover.

    Raises :class:`TopologyError` with ``file:line: what``. Comments count in one place only: a quoted text after a node
    line is the node's description. A cable may be told by either end or both.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TopologyError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise TopologyError(f"{path}: not UTF-8 text at byte {error.start}") from None
    return parse_topology(text, str(path))


def parse_topology(text: str, source: str = "<text>") -> Topology:
    """As :func:`load_topology`, from text; ``source`` names it in errors."""
    reader = _Reader(source)
    for number, line in enumerate(text.splitlines(), 1):
        reader.take(number, line.strip())
    return reader.finish()


_HEADER: Final = re.compile(r'(Switch|Hca|Ca|Rt)\s+(\d{1,5})\s+"([^"]+)"\s*(?:#\s*(?:"([^"]*)")?.*)?', re.IGNORECASE)
_GUID: Final = r"(?:\(([0-9a-fA-F]{1,16})\))?"
_EXT: Final = r"(?:\s*\[ext\s+\d+\])?"
_PORT: Final = re.compile(
    rf'\[(\d{{1,5}})\]{_EXT}{_GUID}\s*"([^"]+)"\s*\[(\d{{1,5}})\]{_EXT}{_GUID}\s*(?:[ws]=\w+\s*)*(?:#.*)?'
)
_KEY: Final = re.compile(r"(\w+)\s*=\s*(?:0x)?([0-9a-fA-F]{1,16})\b(?:\([0-9a-fA-F]*\))?\s*(?:#.*)?")
_KEYS: Final = frozenset({"vendid", "devid", "sysimgguid", "switchguid", "caguid", "nodeguid", "portguid"})
_MOST_PORTS: Final = 254


@dataclass(slots=True)
class _Draft:
    """A node while its file is read."""

    line: int
    name: str
    kind: NodeKind
    ports: int
    description: str
    keys: dict[str, int]
    guids: dict[int, int]


class _Reader:
    """Collects nodes and cables line by line; knows for each where it was told."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._line = 0
        self._keys: dict[str, int] = {}
        self._nodes: dict[str, _Draft] = {}
        self._current: _Draft | None = None
        self._told: dict[PortRef, tuple[PortRef, int]] = {}
        self._remote_guids: list[tuple[PortRef, int, int]] = []

    def take(self, number: int, line: str) -> None:
        self._line = number
        if not line or line.startswith("#"):
            if not line:
                self._current = None
        elif header := _HEADER.fullmatch(line):
            self._header(*header.groups())
        elif line.startswith("["):
            port = _PORT.fullmatch(line)
            if port is None:
                raise self._error(f'not a port line [PORT] "NODE"[PORT]: {line!r}')
            self._port(*port.groups())
        elif key := _KEY.fullmatch(line):
            name, value = key.groups()
            if name.lower() not in _KEYS:
                raise self._error(f"unknown key {name!r}; known are {', '.join(sorted(_KEYS))}")
            self._current = None
            self._keys[name.lower()] = int(value, 16)
        elif (command := line.split(maxsplit=1)[0]) in ("include", "do", "module"):
            raise self._error(f"{command!r} is a command for ibsim; only the fabric itself can be read")
        else:
            raise self._error(f"neither node, port, key=value nor comment: {line[:80]!r}")

    def _header(self, word: str, ports: str, name: str, description: str | None) -> None:
        if word.lower() == "rt":
            raise self._error(f"{name!r} is a router; this fabric is one subnet without routers")
        if name in self._nodes:
            raise self._error(f"node {name!r} is there already, since line {self._nodes[name].line}")
        if not name.isprintable():
            raise self._error(f"node name {name!r} has unprintable characters")
        if not 1 <= int(ports) <= _MOST_PORTS:
            raise self._error(f"node {name!r} has {ports} ports; 1 to {_MOST_PORTS} are possible")
        kind = NodeKind.SWITCH if word.lower() == "switch" else NodeKind.HCA
        draft = _Draft(self._line, name, kind, int(ports), description or "", self._keys, {})
        self._keys = {}
        self._nodes[name] = self._current = draft

    def _port(self, local: str, local_guid: str | None, node: str, remote: str, remote_guid: str | None) -> None:
        here = self._current
        if here is None:
            raise self._error("a port line outside a node")
        if not 1 <= int(local) <= here.ports:
            raise self._error(f"{here.name!r} has ports 1 to {here.ports}, not {local}")
        ref, peer = PortRef(here.name, int(local)), PortRef(node, int(remote))
        if ref in self._told:
            raise self._error(f"port {ref} is there already, in line {self._told[ref][1]}")
        self._told[ref] = (peer, self._line)
        if local_guid is not None:
            here.guids[int(local)] = int(local_guid, 16)
        if remote_guid is not None:
            self._remote_guids.append((peer, int(remote_guid, 16), self._line))

    def finish(self) -> Topology:
        if not self._nodes:
            raise TopologyError(f"{self._source}: no node in the file")
        links: dict[PortRef, LinkSpec] = {}
        for ref, (peer, line) in self._told.items():
            self._line = line
            other = self._nodes.get(peer.node)
            if other is None:
                raise self._error(f"{ref} is cabled to {peer.node!r}, which is not in the file")
            if not 1 <= peer.port <= other.ports:
                raise self._error(f"{ref} is cabled to {peer}, but {peer.node!r} has ports 1 to {other.ports}")
            if peer == ref:
                raise self._error(f"{ref} is cabled to itself")
            back = self._told.get(peer)
            if back is not None and back[0] != ref:
                raise self._error(f"{ref} is cabled to {peer}, but line {back[1]} has {peer} cabled to {back[0]}")
            if back is not None and peer in links:
                continue  # told by both ends
            if peer in links:
                raise self._error(f"{peer} has a second cable, from {ref}")
            links[ref] = links[peer] = LinkSpec(ref, peer)
        nodes = self._finished_nodes()
        try:
            return Topology(nodes, tuple(link for ref, link in links.items() if ref == link.a))
        except TopologyError as error:
            raise TopologyError(f"{self._source}: {error}") from None

    def _finished_nodes(self) -> tuple[NodeSpec, ...]:
        for peer, guid, line in self._remote_guids:
            self._line = line
            known = self._nodes[peer.node].guids.setdefault(peer.port, guid)
            if known != guid and self._nodes[peer.node].kind is NodeKind.HCA:
                raise self._error(f"{peer} has GUID {guid:#018x} here and {known:#018x} elsewhere")
        guids = [
            draft.keys.get("switchguid" if draft.kind is NodeKind.SWITCH else "caguid") or draft.keys.get("nodeguid")
            for draft in self._nodes.values()
        ]
        taken = {guid for guid in guids if guid is not None}
        for draft in self._nodes.values():
            taken.update(draft.guids.values())
        return tuple(
            self._finished_node(position, draft, guids[position], taken)
            for position, draft in enumerate(self._nodes.values())
        )

    def _finished_node(self, position: int, draft: _Draft, guid: int | None, taken: set[int]) -> NodeSpec:
        node_guid = guid or default_node_guid(position)
        port_guids: list[int] = []
        if draft.kind is NodeKind.HCA:
            for number in range(1, draft.ports + 1):
                own = draft.guids.get(number)
                if own is None:  # a port without cable: real files do not tell its GUID
                    own = (
                        node_guid + number if node_guid + number not in taken else default_node_guid(position) + number
                    )
                    taken.add(own)
                port_guids.append(own)
        return NodeSpec(
            name=draft.name,
            kind=draft.kind,
            ports=draft.ports,
            node_guid=node_guid,
            port_guids=tuple(port_guids),
            description=draft.description or draft.name,
            vendor_id=draft.keys.get("vendid", 0) & 0xFFFFFF,
            device_id=draft.keys.get("devid", 0) & 0xFFFF,
            system_guid=draft.keys.get("sysimgguid", 0),
        )

    def _error(self, what: str) -> TopologyError:
        return TopologyError(f"{self._source}:{self._line}: {what}")


def format_topology(topology: Topology) -> str:
    """The topology as ibnetdiscover prints it, LIDs 0; :func:`parse_topology` reads it back, except for latencies."""
    peers: dict[PortRef, PortRef] = {}
    for link in topology.links:
        peers[link.a], peers[link.b] = link.b, link.a
    nodes = {node.name: node for node in topology.nodes}
    lines: list[str] = []
    for node in topology.nodes:
        switch = node.kind is NodeKind.SWITCH
        lines += [f"vendid={node.vendor_id:#x}", f"devid={node.device_id:#x}", f"sysimgguid={node.system_guid:#x}"]
        lines.append(f"{'switchguid' if switch else 'caguid'}={node.node_guid:#x}")
        base = " base port 0 lid 0 lmc 0" if switch else ""
        lines.append(f'{"Switch" if switch else "Ca"}\t{node.ports} "{node.name}"\t\t# {_quoted(node)}{base}')
        for number in range(1, node.ports + 1):
            peer = peers.get(PortRef(node.name, number))
            if peer is None:
                continue
            own = "" if switch else f"({node.port_guid(number):x})"
            other = nodes[peer.node]
            far = "" if other.kind is NodeKind.SWITCH else f"({other.port_guid(peer.port):x})"
            told = "" if switch else "lid 0 lmc 0 "
            lines.append(f'[{number}]{own}\t"{peer.node}"[{peer.port}]{far}\t\t# {told}{_quoted(other)} lid 0 4xQDR')
        lines.append("")
    return "\n".join(lines)


def _quoted(node: NodeSpec) -> str:
    description = node.description.replace('"', "'")
    return f'"{description}"'
