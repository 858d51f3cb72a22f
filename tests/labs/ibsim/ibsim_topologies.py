"""Topologies for the lab: what Debian ships, and generated ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from srpha.embedded.fabric.topology import (
    LinkSpec,
    NodeKind,
    NodeSpec,
    PortRef,
    Topology,
    default_node_guid,
    format_topology,
)

DEBIAN = ("net", "net.1", "net.2sw2path", "net.2sw2path4hca", "net.2sw2path4hca2port")


@dataclass(frozen=True)
class Net:
    """A topology as text, and its nodes by role."""

    text: str
    switches: tuple[str, ...]
    hcas: tuple[str, ...]
    """Those whose port 1 has a cable: ibsim attaches programs there."""
    hca_ports: int
    """Connected ports of HCAs."""


def describe(topology: Topology) -> Net:
    cabled = {end for link in topology.links for end in (link.a, link.b)}
    return Net(
        format_topology(topology),
        tuple(node.name for node in topology.nodes if node.kind is NodeKind.SWITCH),
        tuple(node.name for node in topology.nodes if node.kind is NodeKind.HCA and PortRef(node.name, 1) in cabled),
        sum(topology.node(end.node).kind is NodeKind.HCA for end in cabled),
    )


def wired(switches: Sequence[str], hcas: Sequence[tuple[str, int]], rng: Random, spare: int = 0) -> Net:
    """Switches in a random tree with ``spare`` links more, and HCAs (name, number of ports) on random ones of them."""
    free = dict.fromkeys(switches, 0)
    links: list[LinkSpec] = []

    def port(switch: str) -> PortRef:
        free[switch] += 1
        return PortRef(switch, free[switch])

    for number, switch in enumerate(switches[1:], 1):
        links.append(LinkSpec(port(switch), port(switches[rng.randrange(number)])))
    for _ in range(spare if len(switches) > 1 else 0):
        a, b = rng.sample(list(switches), 2)
        links.append(LinkSpec(port(a), port(b)))
    for name, ports in hcas:
        links += [LinkSpec(PortRef(name, number), port(rng.choice(switches))) for number in range(1, ports + 1)]
    nodes = [(name, NodeKind.SWITCH, max(free[name], 4)) for name in switches]
    nodes += [(name, NodeKind.HCA, ports) for name, ports in hcas]
    return describe(
        Topology(
            tuple(
                NodeSpec(name=name, kind=kind, ports=ports, node_guid=default_node_guid(position))
                for position, (name, kind, ports) in enumerate(nodes)
            ),
            tuple(links),
        )
    )


def random_net(seed: int) -> Net:
    """Up to six switches and up to twelve HCAs with one or two ports."""
    rng = Random(seed)
    switches = [f"leaf{n}" for n in range(rng.randint(1, 6))]
    hcas = [(f"host{n}", rng.randint(1, 2)) for n in range(rng.randint(3, 12))]
    return wired(switches, hcas, rng, spare=rng.randint(0, 3))
