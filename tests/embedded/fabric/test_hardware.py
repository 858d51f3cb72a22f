from __future__ import annotations

import asyncio

import pytest

from srpha.embedded.fabric.hardware import Fabric, Impairment, Port, PortEvent, Traffic
from srpha.embedded.fabric.topology import PortRef, TopologyError
from srpha.wire import rc
from srpha.wire.smp import PortState
from tests.embedded.fabric.by_hand import configure, mad_packet, make_fabric, payload_of, rc_packet, route_to


def ready(*, timer_floor: float = 0.0) -> tuple[Fabric, Port, Port, list[bytes]]:
    """Fabric, port a/1, port b/1, and what arrives at b's queue pair 64."""
    fabric = make_fabric(timer_floor=timer_floor)
    configure(fabric)
    arrived: list[bytes] = []
    a, b = fabric.port("a/1"), fabric.port("b/1")
    b.bind(64, arrived.append)
    return fabric, a, b, arrived


async def test_packet_arrives_unchanged_after_the_latency_of_its_cables() -> None:
    fabric, a, b, arrived = ready()
    packet = rc_packet(a, b, 64)
    times: list[float] = []
    b.bind(65, lambda _: times.append(asyncio.get_running_loop().time()))
    a.send(packet)
    a.send(rc_packet(a, b, 65))
    await asyncio.sleep(1)
    assert arrived == [packet]
    assert times == pytest.approx([3e-6])
    assert fabric.delivered == 2


async def test_delays_under_the_timer_floor_cost_one_turn() -> None:
    _, a, b, arrived = ready(timer_floor=1e-3)
    packets = [rc_packet(a, b, 64, bytes([n])) for n in range(5)]
    for packet in packets:
        a.send(packet)
    assert arrived == []
    await asyncio.sleep(0)
    assert arrived == packets


async def test_a_handler_that_raises_does_not_hold_up_the_others() -> None:
    _, a, b, arrived = ready(timer_floor=1e-3)

    def broken(_packet: bytes) -> None:
        raise RuntimeError("a fault of the consumer")

    b.bind(65, broken)
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context["exception"]))
    a.send(rc_packet(a, b, 65))
    a.send(rc_packet(a, b, 64))
    await asyncio.sleep(0.1)
    assert len(arrived) == len(failures) == 1


async def test_loop_back_to_the_own_lid() -> None:
    _, a, _, _ = ready()
    got: list[bytes] = []
    a.bind(70, got.append)
    a.send(rc_packet(a, a, 70))
    await asyncio.sleep(0.1)
    assert len(got) == 1


async def test_global_packets_are_dispatched_by_their_transport_header() -> None:
    _, a, b, arrived = ready()
    plain = rc_packet(a, b, 64)
    grh = rc.GlobalRouteHeader(payload_length=len(plain) - 8 + 4, sgid=a.gid, dgid=b.gid).encode()
    words = (len(plain) + 40 + 4) // 4
    packet = bytes([plain[0], plain[1] | 1]) + plain[2:4] + words.to_bytes(2, "big") + plain[6:8] + grh + plain[8:]
    a.send(packet)
    await asyncio.sleep(0.1)
    assert arrived == [packet]
    assert rc.unpack(packet).dest_qp == 64


@pytest.mark.parametrize("length", [0, 1, 8, 15])
async def test_short_packets_are_dropped(length: int) -> None:
    fabric, a, b, arrived = ready()
    a.send(rc_packet(a, b, 64)[:length])
    await asyncio.sleep(0.1)
    assert (arrived, fabric.dropped) == ([], 1)


async def test_unknown_lid_and_queue_pair_are_dropped() -> None:
    fabric, a, b, _ = ready()
    a.send(rc_packet(a, b, 99))
    a.send(rc.pack_send(rc.RcAddress(a.lid, 77, 64, 0xFFFF), rc.Opcode.RC_SEND_ONLY, 0, b""))
    a.send(rc.pack_send(rc.RcAddress(a.lid, 0xC001, 64, 0xFFFF), rc.Opcode.RC_SEND_ONLY, 0, b""))
    await asyncio.sleep(0.1)
    assert (fabric.delivered, fabric.dropped, b.unknown_qp) == (0, 3, 1)


async def test_pkey_mismatch_is_counted_and_dropped() -> None:
    _, a, b, arrived = ready()
    b.set_pkeys(0, (0x7FFF, 0x8001))
    events: list[PortEvent] = []
    b.watch(events.append)
    for pkey in (0xFFFF, 0x7FFF, 0x8001, 0x0001, 0x8002, 0x8000, 0):
        a.send(rc_packet(a, b, 64, pkey.to_bytes(4, "big"), pkey))
    await asyncio.sleep(0.1)
    assert [int.from_bytes(payload_of(p), "big") for p in arrived] == [0xFFFF, 0x8001, 0x0001]
    assert b.pkey_violations == 4
    b.set_pkeys(1, (0x8002,))
    assert events == [PortEvent.PKEY_CHANGE]
    a.send(rc_packet(a, b, 64, b"", 0x8002))
    await asyncio.sleep(0.1)
    assert len(arrived) == 4


async def test_ports_below_active_carry_no_data() -> None:
    fabric, a, b, arrived = ready()
    b.set_state(PortState.ARMED)
    a.send(rc_packet(a, b, 64))  # ARMED receives
    b.send(rc_packet(b, a, 64))  # and does not send
    await asyncio.sleep(0.1)
    assert (len(arrived), fabric.dropped) == (1, 1)
    b.set_state(PortState.INIT)
    a.send(rc_packet(a, b, 64))
    await asyncio.sleep(0.1)
    assert (len(arrived), fabric.dropped) == (1, 2)


async def test_link_down_loses_what_is_under_way_and_tells_both_ends() -> None:
    fabric, a, b, arrived = ready()
    events: list[tuple[str, PortEvent]] = []
    for port in (a, fabric.port("left/1")):
        port.watch(lambda event, port=port: events.append((port.name, event)))
    a.send(rc_packet(a, b, 64))
    fabric.set_plugged("a/1", False)
    fabric.set_plugged("a/1", True)  # back before the packet would arrive: it is lost all the same
    await asyncio.sleep(0.1)
    assert arrived == []
    assert a.state is PortState.INIT
    both = [PortEvent.PORT_ERROR, PortEvent.LINK_CHANGE, PortEvent.LINK_CHANGE]
    assert [event for name, event in events if name == "a/1"] == both
    assert [event for name, event in events if name == "left/1"] == both


async def test_a_new_table_redirects_the_next_packet() -> None:
    fabric, a, b, arrived = ready()
    a.send(rc_packet(a, b, 64))
    fabric.node("left").lft[b.lid] = 0xFF
    fabric.changed()
    a.send(rc_packet(a, b, 64))
    await asyncio.sleep(0.1)
    assert (len(arrived), fabric.dropped) == (1, 1)
    route_to(fabric, b)
    a.send(rc_packet(a, b, 64))
    await asyncio.sleep(0.1)
    assert len(arrived) == 2


async def test_tables_that_run_in_a_circle_drop() -> None:
    fabric, a, b, arrived = ready()
    fabric.node("right").lft[b.lid] = 3
    fabric.changed()
    a.send(rc_packet(a, b, 64))
    await asyncio.sleep(0.1)
    assert (arrived, fabric.dropped) == ([], 1)


async def test_a_lid_change_leaves_packets_to_the_old_lid_undelivered() -> None:
    _, a, b, arrived = ready()
    a.send(rc_packet(a, b, 64))
    b.set_lid(40)
    await asyncio.sleep(0.1)
    assert arrived == []


async def test_lmc_gives_a_port_several_lids() -> None:
    fabric, a, b, arrived = ready()
    b.set_lid(40, 2)
    assert [lid for lid in range(36, 48) if b.owns(lid)] == [40, 41, 42, 43]
    for switch, out in (("left", 3), ("right", 1)):
        fabric.node(switch).lft[40:44] = bytes([out]) * 4
        fabric.node(switch).lft_top = 63
    fabric.changed()
    for lid in (39, 41, 43):
        a.send(rc.pack_send(rc.RcAddress(a.lid, lid, 64, 0xFFFF), rc.Opcode.RC_SEND_ONLY, 0, b""))
    await asyncio.sleep(0.1)
    assert [rc.unpack(packet).dlid for packet in arrived] == [41, 43]


async def test_delay_holds_packets_in_order_and_spares_other_queue_pairs() -> None:
    fabric, a, b, arrived = ready()
    other: list[float] = []
    loop = asyncio.get_running_loop()
    b.bind(65, lambda _: other.append(loop.time()))
    a.tx_impairments = (Impairment(Traffic.RC, delay=2.0),)
    fabric.changed()
    a.send(rc_packet(a, b, 64, b"1"))
    a.tx_impairments = ()
    fabric.changed()
    a.send(rc_packet(a, b, 64, b"2"))  # behind the delayed one, although its way is free
    a.send(rc_packet(a, b, 65))
    await asyncio.sleep(1.9)
    assert arrived == []
    assert other == pytest.approx([3e-6])
    await asyncio.sleep(0.2)
    assert [payload_of(p)[:1] for p in arrived] == [b"1", b"2"]


@pytest.mark.parametrize(("broken", "arrives"), [("a/1", True), ("left/3", True), ("b/1", False)])
async def test_a_delayed_packet_waits_where_the_delay_is(broken: str, arrives: bool) -> None:
    fabric, a, b, arrived = ready()
    fabric.port("right/1").tx_impairments = (Impairment(delay=5.0),)
    fabric.changed()
    a.send(rc_packet(a, b, 64))
    await asyncio.sleep(1)
    fabric.set_plugged(broken, False)
    await asyncio.sleep(10)
    assert bool(arrived) is arrives


async def test_loss_by_kind_and_probability() -> None:
    fabric, a, b, arrived = ready()
    mads: list[bytes] = []
    b.bind(1, mads.append)
    b.rx_impairments = (Impairment(Traffic.MAD, probability=1.0), Impairment(Traffic.RC, probability=0.5))
    fabric.changed()
    for _ in range(200):
        a.send(rc_packet(a, b, 64))
        a.send(mad_packet(a, b))
    await asyncio.sleep(0.1)
    assert mads == []
    assert 60 < len(arrived) < 140


async def test_power_off_loses_registers_and_power_on_trains_again() -> None:
    fabric, a, b, arrived = ready()
    events: list[PortEvent] = []
    b.watch(events.append)
    fabric.set_power(b.node, False)
    assert (b.lid, b.state, fabric.port("right/1").state) == (0, PortState.DOWN, PortState.DOWN)
    assert events[0] is PortEvent.PORT_ERROR
    a.send(rc_packet(a, b, 64))
    b.send(rc_packet(b, a, 64))
    await asyncio.sleep(0.1)
    assert arrived == []
    fabric.set_power(b.node, True)
    assert (b.state, fabric.port("right/1").state) == (PortState.INIT, PortState.INIT)


async def test_disabled_port_trains_only_when_enabled_again() -> None:
    fabric, a, _, _ = ready()
    fabric.enable_port(fabric.port("left/1"), False)
    assert a.state is PortState.DOWN
    fabric.set_plugged("a/1", False)
    fabric.set_plugged("a/1", True)
    assert a.state is PortState.DOWN
    fabric.enable_port(fabric.port("left/1"), True)
    assert a.state is PortState.INIT


async def test_taps_hear_departures_and_arrivals() -> None:
    fabric, a, b, _ = ready()
    sent: list[tuple[float, str]] = []
    arrived: list[tuple[float, str]] = []
    stop = fabric.tap(lambda now, port, _: sent.append((now, port.name)))
    fabric.tap(lambda now, port, _: arrived.append((now, port.name)), arrivals=True)
    a.send(rc_packet(a, b, 64))
    await asyncio.sleep(0.5)
    stop()
    a.send(rc_packet(a, b, 64))
    await asyncio.sleep(0.5)
    assert sent == [(0.0, "a/1")]
    assert [name for _, name in arrived] == ["b/1", "b/1"]


async def test_many_dead_queue_pairs_do_not_pile_up() -> None:
    _, a, b, _ = ready()
    for qpn in range(100, 5000):
        a.send(rc_packet(a, b, qpn))
        if qpn % 100 == 0:
            await asyncio.sleep(0.1)
    assert len(a.flows) < 1500


def test_a_queue_pair_has_one_owner_and_numbers_are_not_reused() -> None:
    fabric, _, b, _ = ready()
    with pytest.raises(ValueError, match="taken"):
        b.bind(64, lambda _: None)
    unbind = b.bind(66, lambda _: None)
    unbind()
    unbind()
    b.bind(66, lambda _: None)
    assert b.node.allocate_qpn() + 1 == b.node.allocate_qpn()
    assert fabric.node("a").allocate_qpn() > 1


def test_unknown_names_are_told() -> None:
    fabric = make_fabric()
    for ref, what in (("x/1", "no node 'x'"), ("a/3", "no port 3"), ("a/0", "no port 0"), ("a", "NODE/PORT")):
        with pytest.raises(TopologyError, match=what):
            fabric.port(ref)
    with pytest.raises(TopologyError, match="cable already"):
        fabric.connect(PortRef("a", 1), PortRef("left", 2))
    with pytest.raises(TopologyError, match="no cable"):
        fabric.set_plugged("left/2", False)
