"""A running fabric out of a topology: nodes, cables, and an agent on every node."""

from __future__ import annotations

import random

from srpha.embedded.fabric.hardware import Fabric
from srpha.embedded.fabric.sma import SubnetManagementAgent
from srpha.embedded.fabric.topology import NodeKind, Topology
from srpha.wire.smp import PortCapability

_HCA_CAPABILITY = (
    PortCapability.TRAP
    | PortCapability.SYSTEM_IMAGE_GUID
    | PortCapability.COMMUNICATION_MANAGEMENT
    | PortCapability.CAPABILITY_MASK_NOTICE
    | PortCapability.CLIENT_REREGISTRATION
)
_SWITCH_CAPABILITY = PortCapability.TRAP | PortCapability.SYSTEM_IMAGE_GUID


def build_fabric(topology: Topology, *, rng: random.Random, timer_floor: float = 0.0) -> Fabric:
    """The fabric with all links trained (ports in INIT) and nothing configured: the subnet manager's work is to come.

    ``rng`` decides what lossy cables lose; ``timer_floor`` as in :class:`Fabric`. Raises :class:`TopologyError`.
    """
    fabric = Fabric(rng=rng, timer_floor=timer_floor)
    for spec in topology.nodes:
        node = fabric.add_node(spec)
        capability = _SWITCH_CAPABILITY if node.kind is NodeKind.SWITCH else _HCA_CAPABILITY
        for port in node.all_ports():
            if node.kind is NodeKind.HCA or port.number == 0:
                port.base_capability = port.capability_mask = int(capability)
        SubnetManagementAgent(fabric, node)
    for link in topology.links:
        fabric.connect(link.a, link.b, link.latency)
    return fabric
