from __future__ import annotations

import random

from srpha.embedded.fabric.build import build_fabric
from srpha.embedded.worldspec import WorldSpec
from srpha.wire.smp import PhysState, PortCapability, PortState
from tests.embedded.fabric.by_hand import make_fabric


def test_everything_trained_and_nothing_configured() -> None:
    fabric = build_fabric(WorldSpec.demo().topology, rng=random.Random(0))
    for node in fabric.nodes.values():
        assert node.agent is not None
        for port in node.ports:
            cabled = port.link is not None
            assert port.state is (PortState.INIT if cabled else PortState.DOWN)
            assert port.phys_state is (PhysState.LINK_UP if cabled else PhysState.POLLING)
            assert (port.lid, port.sm_lid, port.pkeys[0]) == (0, 0, 0xFFFF)


def test_capabilities_survive_a_power_cycle_and_additions_do_not() -> None:
    fabric = make_fabric()
    port = fabric.port("b/1")
    before = port.capability_mask
    assert before & PortCapability.CLIENT_REREGISTRATION
    assert not before & PortCapability.DEVICE_MANAGEMENT
    port.set_capability(PortCapability.DEVICE_MANAGEMENT, True)
    fabric.set_power(port.node, False)
    fabric.set_power(port.node, True)
    assert port.capability_mask == before
