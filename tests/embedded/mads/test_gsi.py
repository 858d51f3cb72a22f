"""QP1: transactions, agents, RMPP, and what must be dropped."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from managed import Subnet, managed, two_switches

from srpha.core.seams import MadAddress, MadPortGoneError, MadTimeoutError, ReceivedMad
from srpha.embedded.fabric.ports import Impairment, Traffic
from srpha.embedded.mads.gsi import GeneralServices
from srpha.wire import rc
from srpha.wire.identifiers import Gid
from srpha.wire.mad import MadHeader, Method, build_mad, read_header, status_response
from srpha.wire.rmpp import RmppFlag, RmppHeader, RmppType, control, make_segment
from srpha.wire.sa import sa_request

VENDOR = 0x0A
DM = 0x06


def request(mgmt_class: int = DM, method: int = Method.GET, body: bytes = b"") -> bytes:
    return build_mad(MadHeader(mgmt_class=mgmt_class, method=method, attribute_id=0x10), body)


def address(subnet: Subnet, name: str) -> MadAddress:
    return MadAddress(lid=subnet.port(name).lid)


def echo(gsi: GeneralServices, body: bytes) -> list[ReceivedMad]:
    """An agent of class 6 that answers with ``body``; the requests it saw."""
    seen: list[ReceivedMad] = []

    def handler(received: ReceivedMad) -> None:
        seen.append(received)
        gsi.send(received.source, build_mad(read_header(received.mad).response(), body))

    gsi.register(DM, handler)
    return seen


def datagram(
    subnet: Subnet, mad: bytes, *, q_key: int = 0x80010000, slid: int | None = None, pkey: int = 0xFFFF
) -> bytes:
    a, b = subnet.port("a/1"), subnet.port("b/1")
    return rc.pack_datagram(rc.RcAddress(a.lid if slid is None else slid, b.lid, 1, pkey), 1, q_key, 1, mad)


async def test_request_and_response() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        seen = echo(subnet.gsi["b/1"], b"answer")
        answer = await subnet.gsi["a/1"].transact(address(subnet, "b/1"), request(body=b"ask"), timeout=1, retries=0)
        assert len(answer) == 256
        assert answer[3] == Method.GET_RESP
        assert answer[24:30] == b"answer"
        assert seen[0].mad[24:27] == b"ask"
        assert seen[0].source == MadAddress(lid=subnet.port("a/1").lid)


async def test_transaction_ids_differ_and_are_not_zero() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        seen = echo(subnet.gsi["b/1"], b"")
        gsi, there = subnet.gsi["a/1"], address(subnet, "b/1")
        await asyncio.gather(*(gsi.transact(there, request(body=bytes([n])), timeout=1, retries=0) for n in range(20)))
        tids = [read_header(received.mad).transaction_id for received in seen]
        assert len(set(tids)) == 20
        assert 0 not in tids


async def test_global_route_header_goes_both_ways() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        seen = echo(subnet.gsi["b/1"], b"")
        b = subnet.port("b/1")
        await subnet.gsi["a/1"].transact(MadAddress(lid=b.lid, gid=b.gid), request(), timeout=1, retries=0)
        assert seen[0].source.gid == subnet.port("a/1").gid


async def test_foreign_destination_gid_is_dropped() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        seen = echo(subnet.gsi["b/1"], b"")
        with pytest.raises(MadTimeoutError, match="a/1"):
            await subnet.gsi["a/1"].transact(
                MadAddress(lid=subnet.port("b/1").lid, gid=Gid(1, 2)), request(), timeout=1, retries=0
            )
        assert seen == []


async def test_own_port_is_reachable() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        echo(subnet.gsi["a/1"], b"me")
        answer = await subnet.gsi["a/1"].transact(address(subnet, "a/1"), request(), timeout=1, retries=0)
        assert answer[24:26] == b"me"


async def test_class_without_agent() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        gsi, there = subnet.gsi["a/1"], address(subnet, "b/1")
        answer = await gsi.transact(there, request(VENDOR), timeout=1, retries=0)
        assert read_header(answer).status == 0x000C
        with pytest.raises(MadTimeoutError):
            await gsi.transact(there, request(VENDOR, Method.REPORT), timeout=1, retries=0)


async def test_one_owner_per_method() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        gsi = subnet.gsi["b/1"]
        seen: list[str] = []
        end = gsi.register(DM, lambda _: seen.append("get"), [Method.GET])
        gsi.register(DM, lambda _: seen.append("rest"))
        with pytest.raises(ValueError, match="agent already"):
            gsi.register(DM, lambda _: None, [Method.SET, Method.GET])
        gsi.register(DM, lambda _: seen.append("set"), [Method.SET])
        for method in (Method.GET, Method.SET, Method.REPORT):
            subnet.gsi["a/1"].send(address(subnet, "b/1"), request(method=method))
        await asyncio.sleep(0.01)
        end()
        end()
        subnet.gsi["a/1"].send(address(subnet, "b/1"), request())
        await asyncio.sleep(0.01)
        assert seen == ["get", "set", "rest", "rest"]


async def test_tries_and_timeout() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        seen: list[ReceivedMad] = []
        subnet.gsi["b/1"].register(DM, seen.append)
        loop = asyncio.get_running_loop()
        before = loop.time()
        with pytest.raises(MadTimeoutError):
            await subnet.gsi["a/1"].transact(address(subnet, "b/1"), request(), timeout=0.5, retries=2)
        assert loop.time() - before == pytest.approx(1.5)
        assert len(seen) == 3
        assert len({received.mad for received in seen}) == 1  # the same transaction each time


async def test_late_answer_to_an_earlier_try_counts() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        gsi = subnet.gsi["b/1"]
        loop = asyncio.get_running_loop()

        def slow(received: ReceivedMad) -> None:
            loop.call_later(0.7, gsi.send, received.source, build_mad(read_header(received.mad).response()))

        gsi.register(DM, slow)
        before = loop.time()
        await subnet.gsi["a/1"].transact(address(subnet, "b/1"), request(), timeout=0.5, retries=2)
        assert loop.time() - before == pytest.approx(0.7, abs=1e-3)
        dropped = subnet.gsi["a/1"].dropped
        await asyncio.sleep(1)
        assert subnet.gsi["a/1"].dropped == dropped + 1  # the duplicate


async def test_answer_from_a_stranger_is_ignored() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        seen: list[ReceivedMad] = []
        subnet.gsi["b/1"].register(DM, seen.append)
        asking = asyncio.ensure_future(
            subnet.gsi["a/1"].transact(address(subnet, "b/1"), request(), timeout=1, retries=0)
        )
        await asyncio.sleep(0.1)
        subnet.gsi["sm/1"].send(address(subnet, "a/1"), build_mad(read_header(seen[0].mad).response()))
        with pytest.raises(MadTimeoutError):
            await asking


async def test_port_without_lid_or_link() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        there = address(subnet, "b/1")
        subnet.fabric.set_plugged("a/1", plugged=False)
        with pytest.raises(MadPortGoneError, match="a/1"):
            await subnet.gsi["a/1"].transact(there, request(), timeout=1, retries=0)
        subnet.gsi["a/1"].send(there, request())
        with pytest.raises(MadPortGoneError, match="P_Key at index 3"):
            await subnet.gsi["sm/1"].transact(MadAddress(lid=2, pkey_index=3), request(), timeout=1, retries=0)


async def test_port_that_goes_down_ends_a_transaction_at_the_next_try() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        subnet.gsi["b/1"].register(DM, lambda _: None)
        asking = asyncio.ensure_future(
            subnet.gsi["a/1"].transact(address(subnet, "b/1"), request(), timeout=1, retries=9)
        )
        await asyncio.sleep(0.1)
        subnet.fabric.set_plugged("a/1", plugged=False)
        with pytest.raises(MadPortGoneError):
            await asking


async def test_close_ends_everything() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        subnet.gsi["b/1"].register(DM, lambda _: None)
        gsi = subnet.gsi["a/1"]
        asking = asyncio.ensure_future(gsi.transact(address(subnet, "b/1"), request(), timeout=1, retries=9))
        gsi.send_rmpp(address(subnet, "b/1"), bytes(56), bytes(1000))
        await asyncio.sleep(0.1)
        gsi.close()
        with pytest.raises(MadPortGoneError, match="closed"):
            await asking
        GeneralServices(subnet.port("a/1")).close()  # the queue pair is free again


@pytest.mark.parametrize(("mad", "timeout", "retries"), [(bytes(255), 1, 0), (bytes(256), 0, 0), (bytes(256), 1, -1)])
async def test_misuse(mad: bytes, timeout: float, retries: int) -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        with pytest.raises(ValueError, match=r"MAD|transaction"):
            await subnet.gsi["a/1"].transact(address(subnet, "b/1"), mad, timeout=timeout, retries=retries)


async def test_packets_that_are_dropped() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        seen = echo(subnet.gsi["b/1"], b"")
        a, gsi = subnet.port("a/1"), subnet.gsi["b/1"]
        good = request()
        bad = [
            datagram(subnet, good, q_key=0x80010001),
            datagram(subnet, good[:200]),
            datagram(subnet, good + bytes(4)),
            datagram(subnet, b"\x02" + good[1:]),
            datagram(subnet, good, slid=0),
            datagram(subnet, good, slid=0xFFFF),
            datagram(subnet, good)[:40],
            rc.pack_send(rc.RcAddress(a.lid, subnet.port("b/1").lid, 1, 0xFFFF), rc.Opcode.RC_SEND_ONLY, 1, good),
        ]
        before = gsi.dropped
        for packet in bad:
            a.send(packet)
        await asyncio.sleep(0.01)
        assert seen == []
        assert gsi.dropped == before + len(bad)
        a.send(datagram(subnet, good))
        await asyncio.sleep(0.01)
        assert len(seen) == 1


@given(
    body=st.binary(min_size=256, max_size=256), start=st.sampled_from([b"", b"\x01", b"\x01\x03\x02", b"\x01\x06\x01"])
)
async def test_any_256_bytes_do_no_harm(body: bytes, start: bytes) -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        echo(subnet.gsi["b/1"], b"ok")
        for there in ("b/1", "sm/1"):
            subnet.gsi["a/1"].send(address(subnet, there), (start + body)[:256])
        await asyncio.sleep(0.01)
        answer = await subnet.gsi["a/1"].transact(address(subnet, "b/1"), request(), timeout=1, retries=0)
        assert answer[24:26] == b"ok"


# --- RMPP ---


def table_agent(gsi: GeneralServices, payload: bytes) -> list[ReceivedMad]:
    seen: list[ReceivedMad] = []

    def handler(received: ReceivedMad) -> None:
        seen.append(received)
        header = status_response(received.mad, 0)[:56]
        gsi.send_rmpp(received.source, header, payload)

    gsi.register(0x03, handler, [Method.GET_TABLE])
    return seen


def ask_table() -> bytes:
    return sa_request(Method.GET_TABLE, 0x11, transaction_id=0)


@pytest.mark.parametrize("size", [0, 1, 199, 200, 201, 4000, 100_003])
async def test_long_response(size: int) -> None:
    payload = bytes(n * 7 & 0xFF for n in range(size))
    async with managed(two_switches(), "sm/1") as subnet:
        table_agent(subnet.gsi["b/1"], payload)
        reply = await subnet.gsi["a/1"].transact(address(subnet, "b/1"), ask_table(), timeout=1, retries=0)
        assert reply[56:] == payload
        assert reply[3] == Method.GET_TABLE_RESP
        await asyncio.sleep(0.01)
        assert subnet.gsi["b/1"]._senders == {}


@pytest.mark.parametrize("probability", [0.05, 0.3])
async def test_long_response_over_a_lossy_link(probability: float, seed: int) -> None:
    payload = bytes(n * 7 & 0xFF for n in range(50_000))
    async with managed(two_switches(), "sm/1") as subnet:
        subnet.fabric._rng.seed(seed)
        table_agent(subnet.gsi["b/1"], payload)
        loss = (Impairment(kinds=Traffic.MAD, probability=probability),)
        subnet.port("b/1").tx_impairments = subnet.port("b/1").rx_impairments = loss
        subnet.fabric.changed()
        reply = await subnet.gsi["a/1"].transact(address(subnet, "b/1"), ask_table(), timeout=5, retries=5)
        assert reply[56:] == payload
        await asyncio.sleep(30)
        assert subnet.gsi["b/1"]._senders == {}
        assert subnet.gsi["a/1"]._finished == {}


async def test_peer_that_repeats_a_segment_for_ever_buys_no_time() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        gsi = subnet.gsi["b/1"]
        loop = asyncio.get_running_loop()

        def handler(received: ReceivedMad) -> None:
            first = make_segment(status_response(received.mad, 0)[:56], b"x" * 300, 1, 2)

            def again() -> None:
                gsi.send(received.source, first)
                loop.call_later(0.1, again)

            again()

        gsi.register(0x03, handler, [Method.GET_TABLE])
        before = loop.time()
        with pytest.raises(MadTimeoutError):
            await subnet.gsi["a/1"].transact(address(subnet, "b/1"), ask_table(), timeout=1, retries=0)
        assert loop.time() - before == pytest.approx(1, abs=0.01)


async def test_request_that_comes_again_starts_its_transfer_anew() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        gsi, there = subnet.gsi["b/1"], address(subnet, "a/1")
        header = status_response(sa_request(Method.GET_TABLE, 0x11, transaction_id=5), 0)[:56]
        for _ in range(3):
            gsi.send_rmpp(there, header, bytes(1000))
        assert len(gsi._senders) == 1
        await asyncio.sleep(10)
        assert gsi._senders == {}


async def test_last_acknowledgement_is_given_again_when_it_was_lost() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        gsi = subnet.gsi["b/1"]
        table_agent(gsi, bytes(1000))
        a = subnet.port("a/1")
        asking = asyncio.ensure_future(
            subnet.gsi["a/1"].transact(address(subnet, "b/1"), ask_table(), timeout=1, retries=0)
        )
        lost: list[bytes] = []
        send, a.send = (
            a.send,
            lambda packet: (
                send(packet)
                if packet[28 + 25] != RmppType.ACK
                or packet[28 + 1] != 3
                or (  # type: ignore[method-assign]
                    int.from_bytes(packet[28 + 28 : 28 + 32]) < 5 or len(lost) == 2
                )
                else lost.append(packet)
            ),
        )
        assert len(await asking) == 1056
        assert len(gsi._senders) == 1
        await asyncio.sleep(2)
        assert len(lost) == 2
        assert gsi._senders == {}


async def test_pkey_that_was_taken_away() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        a, there = subnet.port("a/1"), address(subnet, "b/1")
        seen = echo(subnet.gsi["b/1"], b"")
        a.set_pkeys(0, (0,))
        subnet.gsi["a/1"].send(there, request())
        await asyncio.sleep(0.01)
        assert seen == []
        with pytest.raises(MadPortGoneError, match="P_Key"):
            await subnet.gsi["a/1"].transact(there, request(), timeout=1, retries=0)
        a.set_pkeys(0, (0x8012,))
        with pytest.raises(MadTimeoutError):
            await subnet.gsi["a/1"].transact(there, request(), timeout=1, retries=0)
        assert seen == []
        assert subnet.port("b/1").pkey_violations == 1


@pytest.mark.realtime
async def test_on_a_real_loop() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        echo(subnet.gsi["b/1"], b"real")
        answer = await subnet.gsi["a/1"].transact(address(subnet, "b/1"), request(), timeout=5, retries=0)
        assert answer[24:28] == b"real"


async def test_transfer_to_nobody_is_given_up() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        gsi = subnet.gsi["b/1"]
        gsi.send_rmpp(address(subnet, "a/1"), sa_request(Method.GET_TABLE, 0x11, transaction_id=5)[:56], bytes(1000))
        await asyncio.sleep(10)
        assert gsi._senders == {}


@pytest.mark.parametrize(
    "answer",
    [
        lambda mad: control(mad, RmppType.STOP),
        lambda mad: control(mad, RmppType.ABORT),
        lambda mad: control(mad, RmppType.ACK, acknowledged=99, window_last=200),
        lambda mad: control(mad, RmppType.ACK, acknowledged=1, window_last=0),
    ],
)
async def test_peer_ends_a_transfer(answer: object) -> None:
    assert callable(answer)
    async with managed(two_switches(), "sm/1") as subnet:
        gsi, there = subnet.gsi["b/1"], address(subnet, "a/1")
        header = status_response(sa_request(Method.GET_TABLE, 0x11, transaction_id=5), 0)[:56]
        gsi.send_rmpp(there, header, bytes(1000))
        await asyncio.sleep(0.01)
        assert len(gsi._senders) == 1
        subnet.gsi["a/1"].send(address(subnet, "b/1"), answer(header))
        await asyncio.sleep(0.01)
        assert gsi._senders == {}


async def test_segments_that_break_the_protocol_abort_and_are_asked_again() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        gsi, aborts, tries = subnet.gsi["b/1"], [], []

        def handler(received: ReceivedMad) -> None:
            tries.append(received)
            header = status_response(received.mad, 0)[:56]
            good = make_segment(header, b"x" * 300, 1, 2)
            if len(tries) == 1:
                wrong = RmppHeader(version=9, type=RmppType.DATA, flags=RmppFlag.ACTIVE, segment=2)
                gsi.send(received.source, good)
                gsi.send(received.source, good[:24] + wrong.encode() + good[36:])
            else:
                gsi.send_rmpp(received.source, header, b"x" * 300)

        gsi.register(0x03, handler, [Method.GET_TABLE])
        subnet.fabric.tap(
            lambda _t, port, packet: (
                aborts.append(packet)
                if port.name == "a/1" and packet[28 + 25] == RmppType.ABORT and packet[28 + 1] == 3
                else None
            )
        )
        reply = await subnet.gsi["a/1"].transact(address(subnet, "b/1"), ask_table(), timeout=1, retries=1)
        assert reply[56:] == b"x" * 300
        assert len(aborts) == 1
        assert read_header(tries[0].mad).transaction_id != read_header(tries[1].mad).transaction_id
