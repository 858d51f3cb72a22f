"""Which ports a cable joins: the parts that a fabric falls into without it."""

from __future__ import annotations

from collections.abc import Mapping

from srpha.embedded.fabric.topology import NodeKind, PortRef, Topology


def parts_without(topology: Topology, cable: PortRef) -> Mapping[PortRef, int]:
    """The part of the fabric that each cabled port is in, by number, once the cable at the port ``cable`` is out.

    An HCA does not forward: each of its ports is in a part of its own right.
    """
    switches = {node.name for node in topology.nodes if node.kind is NodeKind.SWITCH}
    parent: dict[PortRef, PortRef] = {}

    def place(ref: PortRef) -> PortRef:
        return PortRef(ref.node, 0) if ref.node in switches else ref

    def root(ref: PortRef) -> PortRef:
        while parent.setdefault(ref, ref) != ref:
            ref = parent[ref]
        return ref

    for link in topology.links:
        if cable not in (link.a, link.b):
            parent[root(place(link.a))] = root(place(link.b))
    numbers: dict[PortRef, int] = {}
    return {
        ref: numbers.setdefault(root(place(ref)), len(numbers)) for link in topology.links for ref in (link.a, link.b)
    }
