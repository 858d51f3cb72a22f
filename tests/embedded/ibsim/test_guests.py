"""Guests of a port: whose answers go to whom, what stays with the port's owners, and RMPP on a guest's behalf."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from managed import Subnet, managed, two_switches

from srpha.core.seams import MadAddress, ReceivedMad
from srpha.embedded.fabric.faults import FaultInjector, Lose
from srpha.embedded.fabric.topology import PortRef
from srpha.embedded.ibsim.guests import Guest, GuestError, GuestMad, GuestPort
from srpha.wire.errors import DecodeError
from srpha.wire.mad import MadHeader, ManagementClass, Method, build_mad, read_header, status_response
from srpha.wire.rmpp import Reassembler, RmppType, control, segment
from srpha.wire.sa import SaAttribute, sa_request
from srpha.wire.smp import (
    DirectedRouteSmp,
    LidRoutedSmp,
    NodeInfo,
    PortCapability,
    SmpAttribute,
    directed_path,
    read_smp,
)

DM = ManagementClass.DEVICE_MGMT


class Program:
    """A guest and what it got."""

    def __init__(self, home: GuestPort, *, requests: bool = False) -> None:
        self.got: list[GuestMad] = []
        self.guest: Guest = home.join(self.got.append, requests=requests)

    def send(self, lid: int, qpn: int, mad: bytes) -> None:
        self.guest.send(GuestMad(lid, qpn, mad))

    @property
    def mads(self) -> list[bytes]:
        return [message.mad for message in self.got]


def home_of(subnet: Subnet, name: str) -> GuestPort:
    return GuestPort(subnet.port(name), subnet.gsi[name])


def request(tid: int = 0x1234_0000_0007, method: int = Method.GET) -> bytes:
    return build_mad(MadHeader(mgmt_class=DM, method=method, transaction_id=tid, attribute_id=0x10))


def routed(path: tuple[int, ...], tid: int = 7, attribute: int = SmpAttribute.NODE_INFO) -> bytes:
    return DirectedRouteSmp(
        method=Method.GET,
        hop_count=len(path),
        transaction_id=tid,
        attribute_id=attribute,
        initial_path=directed_path(path),
    ).encode()


async def settle(seconds: float = 0.1) -> None:
    """Let everything under way arrive."""
    await asyncio.sleep(seconds)


async def test_directed_route_to_itself_and_to_a_switch() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        program = Program(home_of(subnet, "a/1"))
        program.send(0xFFFF, 0, routed((), tid=0xAAAA_0000_0001))
        program.send(0xFFFF, 0, routed((1,), tid=0xAAAA_0000_0002))
        await settle()
        own, switch = (read_smp(mad) for mad in program.mads)
        assert (own.transaction_id, switch.transaction_id) == (0xAAAA_0000_0001, 0xAAAA_0000_0002)
        assert NodeInfo.decode(own.data).node_guid == subnet.port("a/1").node.node_guid
        assert NodeInfo.decode(switch.data).node_guid == subnet.port("left/1").node.node_guid
        assert [message.qpn for message in program.got] == [0, 0]


async def test_lid_routed_smp() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        program = Program(home_of(subnet, "a/1"))
        lid = subnet.port("b/1").lid
        smp = LidRoutedSmp(method=Method.GET, transaction_id=9, attribute_id=SmpAttribute.NODE_INFO)
        program.send(lid, 0, smp.encode())
        await settle()
        (message,) = program.got
        assert message.lid == lid
        assert NodeInfo.decode(read_smp(message.mad).data).node_guid == subnet.port("b/1").node.node_guid


async def test_guests_with_the_same_transaction_ids_get_their_own_answers() -> None:
    """Two programs and the port's own user ask different peers under one number."""
    async with managed(two_switches(), "sm/1") as subnet:
        for name in ("b/1", "sm/1"):

            def answer(received: ReceivedMad, name: str = name) -> None:
                mad = status_response(received.mad, 0)
                subnet.gsi[name].send(received.source, mad[:64] + name.encode().ljust(192, b"\0"))

            subnet.gsi[name].register(DM, answer)
        home = home_of(subnet, "a/1")
        first, second = Program(home), Program(home)
        first.send(subnet.port("b/1").lid, 1, request(tid=1))
        second.send(subnet.port("sm/1").lid, 1, request(tid=1))
        own = await subnet.gsi["a/1"].transact(
            MadAddress(subnet.port("sm/1").lid), request(tid=1), timeout=1.0, retries=0
        )
        await settle()
        assert own[64:68] == b"sm/1"
        assert [mad[64:68] for mad in first.mads] == [b"b/1\0"]
        assert [mad[64:68] for mad in second.mads] == [b"sm/1"]
        assert {read_header(mad).transaction_id for mad in first.mads + second.mads} == {1}


async def test_the_same_question_to_one_peer_by_two_guests() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        home = home_of(subnet, "a/1")
        programs = [Program(home) for _ in range(3)]
        mad = sa_request(Method.GET_TABLE, SaAttribute.NODE_RECORD, transaction_id=5)
        for program in programs:
            program.send(subnet.port("sm/1").lid, 1, mad)
        await settle(1.0)
        tables = []
        for program in programs:
            reassembler = Reassembler()
            tables.append([reassembler.feed(mad) for mad in program.mads][-1])
        assert tables[0] is not None
        assert len(tables[0]) > 256
        assert tables[1:] == tables[:1] * 2


@pytest.mark.parametrize("probability", [0.0, 0.2])
async def test_a_table_arrives_whole_although_packets_are_lost(probability: float) -> None:
    """The guest acknowledges nothing: the port does that for it."""
    async with managed(two_switches(), "sm/1") as subnet:
        FaultInjector(subnet.fabric).apply(Lose(PortRef("a", 1), probability=probability))
        program = Program(home_of(subnet, "a/1"))
        mad = sa_request(Method.GET_TABLE, SaAttribute.PORT_INFO_RECORD, transaction_id=5)
        for _ in range(6):  # a program repeats what is not answered
            program.send(subnet.port("sm/1").lid, 1, mad)
            await settle(2.0)
            if program.got:
                break
        reassembler = Reassembler()
        *early, whole = [reassembler.feed(mad) for mad in program.mads]
        assert not any(early)
        assert whole is not None
        assert len(program.mads) > 2


async def test_a_guest_answers_with_a_table() -> None:
    """It hands over all segments in a row; the port sends them at the pace of the receiver's acknowledgements."""
    async with managed(two_switches(), "sm/1") as subnet:
        await subnet.stop_sm()
        home = home_of(subnet, "sm/1")
        payload = bytes(range(256)) * 80

        def serve(message: GuestMad) -> None:
            header = status_response(message.mad, 0)[:56]
            for piece in segment(header, payload):
                guest.send(GuestMad(message.lid, message.qpn, piece))

        guest = home.join(serve, requests=True)
        mad = sa_request(Method.GET_TABLE, SaAttribute.NODE_RECORD, transaction_id=5)
        FaultInjector(subnet.fabric).apply(Lose(PortRef("b", 1), probability=0.1))
        answer = await subnet.gsi["b/1"].transact(MadAddress(subnet.port("sm/1").lid), mad, timeout=5.0, retries=5)
        assert answer[56:] == payload


async def test_requests_go_to_the_one_guest_that_takes_them_and_only_when_nobody_else_serves_them() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        home = home_of(subnet, "b/1")
        served: list[ReceivedMad] = []
        subnet.gsi["b/1"].register(ManagementClass.COMM_MGMT, served.append)
        quiet, taker = Program(home), Program(home, requests=True)
        with pytest.raises(GuestError, match="another program"):
            Program(home, requests=True)
        to = MadAddress(subnet.port("b/1").lid)
        subnet.gsi["a/1"].send(to, request())
        cm = build_mad(MadHeader(mgmt_class=ManagementClass.COMM_MGMT, method=Method.SEND, attribute_id=0x10))
        subnet.gsi["a/1"].send(to, cm)
        await settle()
        assert quiet.got == []
        assert taker.mads == [request()]
        assert [received.mad for received in served] == [cm]
        taker.send(subnet.port("a/1").lid, 1, status_response(request(), 0))
        taker.guest.leave()
        assert taker.guest not in home.guests
        refused = await subnet.gsi["a/1"].transact(to, request(), timeout=1.0, retries=0)
        assert read_header(refused).status == 0x000C


async def test_a_guest_that_is_a_subnet_manager_is_asked_for_sm_info_and_hears_traps() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        home = home_of(subnet, "sm/1")
        manager = Program(home)
        with pytest.raises(GuestError, match="subnet manager of this world"):
            home.set_sm(manager.guest, on=True)
        await subnet.stop_sm()
        asker = Program(home_of(subnet, "a/1"))
        question = LidRoutedSmp(method=Method.GET, transaction_id=3, attribute_id=SmpAttribute.SM_INFO).encode()
        lid = subnet.port("sm/1").lid
        asker.send(lid, 0, question)
        await settle()
        assert read_smp(asker.mads.pop()).status == 0x000C
        home.set_sm(manager.guest, on=True)
        assert subnet.port("sm/1").capability_mask & PortCapability.SM
        asker.send(lid, 0, question)
        await settle()
        (asked,) = [message for message in manager.got if message.mad[3] == Method.GET]
        manager.send(asked.lid, 0, read_smp(asked.mad).respond(b"\7" * 64).encode())
        await settle()
        assert read_smp(asker.got[-1].mad).data == b"\7" * 64
        manager.got.clear()
        subnet.fabric.set_plugged("b/1", plugged=False)
        await settle()
        (trap,) = [message for message in manager.got if message.mad[3] == Method.TRAP][:1]
        known = len(manager.got)
        manager.send(trap.lid, 0, read_smp(trap.mad).respond(bytes(64)).encode())
        await settle(30.0)
        tids = [read_header(mad).transaction_id for mad in manager.mads[known:]]
        assert read_header(trap.mad).transaction_id not in tids
        manager.guest.leave()
        assert not subnet.port("sm/1").capability_mask & PortCapability.SM


async def test_our_manager_on_the_same_port_goes_on() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        program = Program(home_of(subnet, "sm/1"), requests=True)
        for tid in range(1, 40):  # the numbers of the manager's own SMPs
            program.send(0xFFFF, 0, routed((1,), tid=tid))
        await subnet.sm.sweep()
        await settle()
        assert subnet.sm.failed_sweeps == 0
        assert [read_header(mad).transaction_id for mad in program.mads] == list(range(1, 40))
        subnet.fabric.set_plugged("b/1", plugged=False)
        await settle(1.0)
        assert all(mad[3] != Method.TRAP for mad in program.mads)
        assert subnet.port("b/1").guid not in subnet.sm.view.by_guid


async def test_one_port_has_one_house() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        home = home_of(subnet, "a/1")
        with pytest.raises(ValueError, match="takes the strangers"):
            home_of(subnet, "a/1")
        home.close()
        home_of(subnet, "a/1").close()


@pytest.mark.parametrize(
    ("lid", "qpn", "mad"),
    [
        (1, 1, b""),
        (1, 1, request()[:255]),
        (1, 1, b"\2" + request()[1:]),  # base version
        (0, 1, request()),
        (0xC001, 1, request()),
        (0xFFFF, 1, request()),
        (1, 0, request()),
        (1, 1, routed((1,))),
        (0xFFFF, 0, routed(tuple([1] * 63))[:7] + b"\xff" + routed((1,))[8:]),  # 255 hops
        (0, 0, LidRoutedSmp(method=Method.GET, attribute_id=SmpAttribute.NODE_INFO).encode()),
        (1, 1, control(sa_request(0x12, 0x11, transaction_id=5), RmppType.ACK, acknowledged=1, window_last=9)),
        (1, 1, segment(sa_request(0x14, 0x11, transaction_id=5)[:56], bytes(900))[0]),
    ],
)
async def test_what_no_kernel_would_send_is_refused(lid: int, qpn: int, mad: bytes) -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        program = Program(home_of(subnet, "a/1"))
        sent = 0

        def tap(_now: float, _port: object, _packet: bytes) -> None:
            nonlocal sent
            sent += 1

        subnet.fabric.tap(tap)
        with pytest.raises(DecodeError):
            program.send(lid, qpn, mad)
        assert sent == 0


async def test_a_broken_run_of_segments_is_forgotten() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        program = Program(home_of(subnet, "a/1"))
        pieces = segment(status_response(sa_request(0x12, 0x11, transaction_id=5), 0)[:56], bytes(900))
        program.send(1, 1, pieces[0])
        with pytest.raises(DecodeError):
            program.send(1, 1, pieces[1][:27] + b"\1" + pieces[1][28:])  # an RMPP status in data
        assert not program.guest._outgoing


async def test_memory_for_unanswered_questions_is_bounded() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        home = home_of(subnet, "a/1")
        program = Program(home)
        for tid in range(5000):
            program.send(0x99, 1, request(tid=tid))
        assert len(home._requests) == len(home._known) == 4096
        program.guest.leave()
        assert not home._requests
        assert not home._known


@given(lid=st.integers(0, 0xFFFF), qpn=st.integers(0, 2), mad=st.binary(min_size=250, max_size=257))
async def test_any_bytes_from_a_guest_are_survived(lid: int, qpn: int, mad: bytes) -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        home = home_of(subnet, "a/1")
        program = Program(home, requests=True)
        heads = (b"\1\1\1\1", b"\1\x81\1\1", b"\1\x81\1\x81", b"\1\3\2\x92", b"\1\6\1\2", b"\1\7\1\3")
        bodies = [mad, *(head + mad[4:] for head in heads)]
        for body in bodies:
            try:
                program.send(lid, qpn, body)
            except DecodeError:
                continue
        await subnet.sm.sweep()
        assert len(subnet.sm.view.end_ports) == 6
