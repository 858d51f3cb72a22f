"""Discovery against nodes that lie, stammer or answer nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from managed import Subnet, managed, two_switches

from srpha.embedded.fabric.ports import Port
from srpha.embedded.subnet.smi import SubnetManagement
from srpha.embedded.subnet.sweep import discover
from srpha.wire.mad import Method
from srpha.wire.smp import DirectedRouteSmp, NodeInfo, SmpAttribute

Answer = Callable[[DirectedRouteSmp], DirectedRouteSmp | None]


def meddle(subnet: Subnet, name: str, change: Answer) -> None:
    """Let ``change`` alter or swallow what the node ``name`` answers."""
    node = subnet.fabric.node(name)
    agent = node.agent
    assert agent is not None

    def meddling(entry: Port, packet: bytes) -> None:
        real = entry.send

        def send(answer: bytes) -> None:
            smp = DirectedRouteSmp.decode(answer, 28)
            changed = change(smp)
            if changed is not None:
                real(answer[:28] + changed.encode())

        entry.send = send  # type: ignore[method-assign]
        try:
            agent(entry, packet)
        finally:
            del entry.send  # type: ignore[attr-defined]

    node.agent = meddling


def only(attribute: SmpAttribute, change: Answer) -> Answer:
    return lambda smp: change(smp) if smp.attribute_id == attribute else smp


def with_data(smp: DirectedRouteSmp, data: bytes) -> DirectedRouteSmp:
    return replace(smp, data=data)


BAD_ANSWERS: list[tuple[str, Answer]] = [
    ("status", lambda smp: replace(smp, status=0x1C)),
    ("nothing", lambda _: None),
    ("method", lambda smp: replace(smp, method=Method.SET)),
    ("direction", lambda smp: replace(smp, direction=0)),
    ("attribute", lambda smp: replace(smp, attribute_id=0x77)),
    ("modifier", lambda smp: replace(smp, attribute_modifier=smp.attribute_modifier + 1)),
    ("transaction", lambda smp: replace(smp, transaction_id=smp.transaction_id + 1000)),
    ("node type", only(SmpAttribute.NODE_INFO, lambda smp: _node(smp, node_type=9))),
    ("no GUID", only(SmpAttribute.NODE_INFO, lambda smp: _node(smp, node_guid=0))),
    ("no port GUID", only(SmpAttribute.NODE_INFO, lambda smp: _node(smp, port_guid=0))),
    ("no ports", only(SmpAttribute.NODE_INFO, lambda smp: _node(smp, port_count=0))),
    ("255 ports", only(SmpAttribute.NODE_INFO, lambda smp: _node(smp, port_count=255))),
    ("port beyond", only(SmpAttribute.NODE_INFO, lambda smp: _node(smp, local_port=200))),
    ("silent port", only(SmpAttribute.PORT_INFO, lambda _: None)),
    ("no description", only(SmpAttribute.NODE_DESCRIPTION, lambda _: None)),
]


def _node(smp: DirectedRouteSmp, **changes: int) -> DirectedRouteSmp:
    return with_data(smp, replace(NodeInfo.decode(smp.data), **changes).encode())


@pytest.mark.parametrize(("what", "change"), BAD_ANSWERS, ids=[what for what, _ in BAD_ANSWERS])
@pytest.mark.parametrize("name", ["b", "right"])
async def test_bad_node_is_left_out_and_the_rest_works(what: str, change: Answer, name: str) -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        meddle(subnet, name, change)
        await subnet.sm.sweep()
        left = {port.description.rstrip(b"\0").decode() for port in subnet.sm.view.end_ports}
        assert left == ({"sm", "left", "a", "right"} if name == "b" else {"sm", "left", "a"}), what
        assert subnet.sm.silent


@pytest.mark.parametrize("what", ["refuse", "silent"])
@pytest.mark.parametrize(
    "attribute", [SmpAttribute.PORT_INFO, SmpAttribute.LINEAR_FORWARDING_TABLE, SmpAttribute.SWITCH_INFO]
)
async def test_node_that_takes_no_set(what: str, attribute: SmpAttribute) -> None:
    async with asyncio.TaskGroup() as group:
        subnet = Subnet(two_switches(), group)
        sets: list[DirectedRouteSmp] = []

        def change(smp: DirectedRouteSmp) -> DirectedRouteSmp | None:
            # the answer does not tell Get from Set: refuse the second and further answers of one modifier
            key = (smp.attribute_id, smp.attribute_modifier)
            if smp.attribute_id != attribute or not any((s.attribute_id, s.attribute_modifier) == key for s in sets):
                sets.append(smp)
                if attribute != SmpAttribute.LINEAR_FORWARDING_TABLE or smp.attribute_id != attribute:
                    return smp
            return replace(smp, status=0x1C) if what == "refuse" else None

        meddle(subnet, "right", change)
        await subnet.start_sm("sm/1")
        names = {port.description.rstrip(b"\0").decode() for port in subnet.sm.view.end_ports}
        assert names == {"sm", "left", "a"}
        assert subnet.port("a/1").lid
        await subnet.stop_sm()


async def test_two_nodes_with_one_guid() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        left = subnet.fabric.node("left").node_guid
        meddle(subnet, "b", only(SmpAttribute.NODE_INFO, lambda smp: _node(smp, node_guid=left)))
        await subnet.sm.sweep()
        names = {port.description.rstrip(b"\0").decode() for port in subnet.sm.view.end_ports}
        assert names == {"sm", "left", "a", "right"}


async def test_stammering_node_does_no_harm() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        node = subnet.fabric.node("b")
        agent = node.agent
        assert agent is not None

        def twice(entry: Port, packet: bytes) -> None:
            agent(entry, packet)
            agent(entry, packet)

        node.agent = twice
        dropped = subnet.smi.dropped
        await subnet.sm.sweep()
        assert len(subnet.sm.view.end_ports) == 6
        assert subnet.smi.dropped > dropped


@given(data=st.binary(min_size=64, max_size=64), attribute=st.sampled_from(list(SmpAttribute)))
async def test_any_attribute_data_is_survived(data: bytes, attribute: SmpAttribute) -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        meddle(subnet, "b", only(attribute, lambda smp: with_data(smp, data)))
        meddle(subnet, "right", only(attribute, lambda smp: with_data(smp, data)))
        await subnet.sm.sweep()
        assert subnet.port("sm/1").guid in subnet.sm.view.by_guid
        assert subnet.fabric.node("left").node_guid in subnet.sm.view.by_guid


async def test_discovery_alone() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        await subnet.stop_sm()
        smi = SubnetManagement(subnet.port("sm/1"))
        found = await discover(smi)
        assert found is not None
        names = [node.description.rstrip(b"\0").decode() for node in found.nodes.values()]
        assert names == ["sm", "left", "a", "right", "b"]
        assert len(found.links) == 12
        a = found.nodes[subnet.fabric.node("a").node_guid]
        assert {number: port.path for number, port in a.ports.items()} == {1: (1, 2), 2: (1, 5, 2)}
        found.forget((a.guid, 1))
        assert sorted(a.ports) == [2]
        found.forget((a.guid, 2))
        found.forget((a.guid, 2))
        assert a.guid not in found.nodes
        found.forget((subnet.fabric.node("right").node_guid, 1))
        assert len(found.links) == 2
        subnet.fabric.set_power(subnet.fabric.node("sm"), powered=False)
        assert await discover(smi) is None
        smi.close()
