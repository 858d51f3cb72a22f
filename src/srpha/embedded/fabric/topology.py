"""What a fabric is made of: nodes, ports, cables; and the reader of ibsim and ibnetdiscover files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Self

DEFAULT_LATENCY = 1e-6
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
    """A whole fabric."""

    nodes: tuple[NodeSpec, ...]
    links: tuple[LinkSpec, ...]
