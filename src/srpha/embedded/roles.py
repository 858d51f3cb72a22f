"""Roles for the HCAs of a bare topology, and for a world in which nobody would join late or no path would be left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from srpha.embedded.fabric.topology import (
    LinkSpec,
    NodeKind,
    NodeSpec,
    PortRef,
    Topology,
    TopologyError,
    default_node_guid,
    load_topology,
)
from srpha.embedded.worldspec import (
    DevicePlan,
    HostPlan,
    IocPlan,
    TargetPlan,
    UnitPlan,
    WorldSpec,
    WorldSpecError,
)
from srpha.wire.identifiers import DEFAULT_SUBNET_PREFIX

_UNIT_SIZE: Final = 16 << 20


def world_of_topology(path: Path, *, most_targets: int = 16) -> WorldSpec:
    """Give the HCAs of an ibsim or ibnetdiscover file roles, in the order of the file.

    HCAs with one cabled port pair up, on two switches where possible; one with several stands alone. The first such
    group is ``host1``, the next are targets with one logical unit of 16 MiB each, the rest stand by. The subnet
    manager runs on the first HCA that stands by, else on one plugged into a free switch port, else on the host's first.
    Raises :class:`WorldSpecError`.
    """
    try:
        topology = load_topology(path)
    except TopologyError as error:
        raise WorldSpecError((str(error),)) from None
    groups = _groups(topology)
    if len(groups) < 2:
        raise WorldSpecError((f"{path}: a world needs at least two HCAs with a cable, for a host and a target",))
    host = HostPlan("host1", tuple(DevicePlan(f"mlx5_{n}", hca) for n, hca in enumerate(groups[0])))
    targets = tuple(
        _target(f"target{n}", group, topology.node(group[0]).node_guid)
        for n, group in enumerate(groups[1 : most_targets + 1], 1)
    )
    idle = [hca for group in groups[most_targets + 1 :] for hca in group]
    manager = idle[0] if idle else groups[0][0]
    plugged = None if idle else _plug_in(topology, "sm", "subnet manager", 1)
    if plugged is not None:
        node, topology = plugged
        manager = node.name
    return WorldSpec(str(path), DEFAULT_SUBNET_PREFIX, manager, topology, (host,), targets)


def with_late_target(spec: WorldSpec) -> WorldSpec:
    """``spec`` with a target that joins late, if none does.

    That is the last of several; a single target gets company by one that is plugged into free switch ports, with two
    ports on two switches where there are such. Unchanged when no switch port is free.
    """
    if any(plan.late for plan in spec.targets):
        return spec
    if len(spec.targets) > 1:
        return replace(spec, targets=(*spec.targets[:-1], replace(spec.targets[-1], late=True)))
    plugged = _plug_in(spec.topology, "late-target", "target that joins late", 2)
    if plugged is None:
        return spec
    node, topology = plugged
    late = replace(_target(node.name, (node.name,), node.node_guid), late=True)
    return replace(spec, topology=topology, targets=(*spec.targets, late))


def with_second_cable(spec: WorldSpec) -> WorldSpec:
    """``spec`` with a second cable for each host that has one only, so that one pulled does not cut the host off.

    It joins the free port of the host's HCA to a free switch port, on another switch where possible. A host without a
    free port stays as it is.
    """
    topology = spec.topology
    for host in spec.hosts:
        cables = {ref: link for link in topology.links for ref in (link.a, link.b)}
        ports = [PortRef(one.hca, n + 1) for one in host.devices for n in range(topology.node(one.hca).ports)]
        used = [ref for ref in ports if ref in cables]
        free = next((ref for ref in ports if ref not in cables), None)
        if len(used) != 1 or free is None:
            continue
        near = {cables[used[0]].a.node, cables[used[0]].b.node}
        sockets = sorted(_sockets(topology), key=lambda ref: ref.node in near)
        if sockets:
            topology = Topology(topology.nodes, (*topology.links, LinkSpec(sockets[0], free)))
    return spec if topology is spec.topology else replace(spec, topology=topology)


def _target(name: str, hcas: tuple[str, ...], guid: int) -> TargetPlan:
    return TargetPlan(name, hcas, (IocPlan(guid=guid, id_ext=guid, service_id=guid),), (UnitPlan(0, _UNIT_SIZE),))


def _groups(topology: Topology) -> list[tuple[str, ...]]:
    """HCAs that share a role; no group is paired when that leaves fewer than two."""
    leaves: dict[str, list[str]] = {node.name: [] for node in topology.nodes if node.kind is NodeKind.HCA}
    for link in topology.links:
        for here, there in ((link.a, link.b), (link.b, link.a)):
            if here.node in leaves:
                leaves[here.node].append(there.node)
    waiting = [name for name, cabled in leaves.items() if cabled]
    alone: list[tuple[str, ...]] = [(name,) for name in waiting]
    groups: list[tuple[str, ...]] = []
    while waiting:
        name = waiting.pop(0)
        mates = [other for other in waiting if len(leaves[other]) == 1] if len(leaves[name]) == 1 else []
        mate = next((other for other in mates if leaves[other] != leaves[name]), mates[0] if mates else None)
        if mate is None:
            groups.append((name,))
        else:
            waiting.remove(mate)
            groups.append((name, mate))
    return groups if len(groups) > 1 else alone


def _plug_in(topology: Topology, wanted: str, description: str, ports: int) -> tuple[NodeSpec, Topology] | None:
    """The topology with one HCA more, on free ports of up to ``ports`` switches; None when no port is free."""
    sockets = _sockets(topology)[:ports]
    if not sockets:
        return None
    names = {node.name for node in topology.nodes}
    name = next(f"{wanted}{suffix}" for suffix in ("", *range(len(names) + 1)) if f"{wanted}{suffix}" not in names)
    guids = {guid for node in topology.nodes for guid in (node.node_guid, *node.port_guids)}
    position = next(
        position
        for position in range(len(names), 1 << 20)
        if not {default_node_guid(position) + n for n in range(ports + 1)} & guids
    )
    node = NodeSpec(name, NodeKind.HCA, len(sockets), default_node_guid(position), (), description)
    links = tuple(LinkSpec(ref, PortRef(name, number)) for number, ref in enumerate(sockets, 1))
    return node, Topology((*topology.nodes, node), (*topology.links, *links))


def _sockets(topology: Topology) -> list[PortRef]:
    """The first free port of each switch that has one, in the order of the topology."""
    cabled = {ref for link in topology.links for ref in (link.a, link.b)}
    free = [
        next((ref for ref in (PortRef(node.name, n + 1) for n in range(node.ports)) if ref not in cabled), None)
        for node in topology.nodes
        if node.kind is NodeKind.SWITCH
    ]
    return [ref for ref in free if ref is not None]
