from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.embedded.fabric.forwarding import is_directed, resolve, walk_directed
from srpha.wire.mad import Method
from srpha.wire.smp import DirectedRouteSmp, PortState, directed_path
from tests.embedded.fabric.by_hand import configure, make_fabric, smp_packet


def outward(*path: int, **fields: int) -> bytes:
    smp = DirectedRouteSmp(method=Method.GET, hop_count=len(path), initial_path=directed_path(path), **fields)
    return smp_packet(smp)


def test_a_way_names_its_links_its_end_and_its_time() -> None:
    fabric = make_fabric()
    configure(fabric)
    b = fabric.port("b/1")
    route = resolve(fabric.port("a/1"), b.lid, 7, management=False)
    assert route is not None
    assert (route.destination, route.epoch, route.lid) == (b, 7, b.lid)
    assert route.latency == pytest.approx(3e-6)
    assert [link.b.name for link, _ in route.hops] == ["a/1", "right/3", "b/1"]
    assert route.intact()
    assert [link.b.name for link, _ in route.rest(2).hops] == ["b/1"]


def test_smps_pass_ports_that_carry_no_data() -> None:
    fabric = make_fabric()
    configure(fabric)
    a, b = fabric.port("a/1"), fabric.port("b/1")
    for ref in ("left/3", "right/3", "b/1"):
        fabric.port(ref).set_state(PortState.INIT)
    assert resolve(a, b.lid, 0, management=False) is None
    assert resolve(a, b.lid, 0, management=True) is not None


@pytest.mark.parametrize("lid", [0, 50, 0xC000, 0xFFFE, 0xFFFF])
def test_lids_that_lead_nowhere(lid: int) -> None:
    fabric = make_fabric()
    configure(fabric)
    assert resolve(fabric.port("a/1"), lid, 0, management=False) is None


def test_from_a_switch_of_its_own_accord() -> None:
    fabric = make_fabric()
    configure(fabric)
    route = resolve(fabric.port("left/0"), fabric.port("a/1").lid, 0, management=True)
    assert route is not None
    assert route.destination.name == "a/1"


async def test_a_port_without_power_or_cable_sends_nothing() -> None:
    fabric = make_fabric()
    configure(fabric)
    a = fabric.port("a/1")
    fabric.set_plugged("a/1", False)
    assert resolve(a, fabric.port("b/1").lid, 0, management=True) is None
    fabric.set_power(a.node, False)
    assert walk_directed(a, outward(), 0) is None


def test_there_and_back_by_the_path_that_was_filled() -> None:
    fabric = make_fabric()
    a = fabric.port("a/1")
    walked = walk_directed(a, outward(1, 3, 1), 0)
    assert walked is not None
    route, arrived = walked
    smp = DirectedRouteSmp.decode(arrived, 28)
    assert (route.destination.name, smp.hop_pointer, smp.return_path[:5]) == ("b/1", 4, bytes((0, 1, 3, 1, 0)))
    back = walk_directed(route.destination, smp_packet(smp.respond(b"")), 0)
    assert back is not None
    assert back[0].destination is a
    assert DirectedRouteSmp.decode(back[1], 28).hop_pointer == 0


@pytest.mark.parametrize("path", [(0, 1, 9, 1), (0, 1, 3, 0), (0, 1, 1, 1), (0, 9, 3, 1)])
def test_a_return_path_that_somebody_made_up(path: tuple[int, ...]) -> None:
    fabric = make_fabric()
    smp = DirectedRouteSmp(method=0x81, direction=1, hop_pointer=4, hop_count=3, return_path=bytes(path))
    walked = walk_directed(fabric.port("b/1"), smp_packet(smp), 0)
    assert walked is None or walked[0].destination.name != "a/1"


def test_what_a_directed_smp_is() -> None:
    packet = outward(1)
    assert is_directed(packet)
    assert not is_directed(packet[:-4])
    assert not is_directed(packet[:29] + b"\x01" + packet[30:])
    assert not is_directed(packet[:2] + b"\x00\x01" + packet[4:])


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=128))
def test_any_directed_smp_is_carried_or_dropped(status: int, pointer: int, count: int, paths: bytes) -> None:
    fabric = make_fabric()
    packet = bytearray(outward())
    packet[32], packet[34], packet[35] = status, pointer, count
    packet[156 : 156 + len(paths)] = paths
    walked = walk_directed(fabric.port("a/1"), bytes(packet), 0)
    assert walked is None or len(walked[1]) == len(packet)


@given(st.binary(max_size=80), st.sampled_from([0, 1, 2, 3]))
async def test_any_bytes_can_be_sent(packet: bytes, dlid: int) -> None:
    fabric = make_fabric()
    configure(fabric)
    fabric.port("a/1").send(packet)
    fabric.port("a/1").send(packet[:2] + dlid.to_bytes(2, "big") + packet[4:])
    await asyncio.sleep(0.1)
    assert fabric.dropped == 2
