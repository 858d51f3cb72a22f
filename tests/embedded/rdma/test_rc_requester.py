from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rc_pair import Pair

from srpha.embedded.rdma.rc_outcome import CloseReason
from srpha.embedded.rdma.rc_requester import WINDOW
from srpha.wire.rc import NakCode, Opcode, RcAddress, nak_syndrome, pack_ack, pack_send, read_reth, unpack

SIZES = st.one_of(st.integers(0, 600), st.sampled_from([255, 256, 257, 511, 512, 513, 5000]))
WORK = st.lists(st.tuples(st.sampled_from(["send", "write", "read"]), SIZES), max_size=25)


def pattern(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def exercise(pair: Pair, work: list[tuple[str, int]], *, together: bool) -> None:
    """Both ends do all the work at once; every byte arrives, every completion comes once and in order."""
    expected: dict[int, list[bytes]] = {}
    completed: dict[int, list[int]] = {}
    memory = []
    ends = ((pair.a, pair.b), (pair.b, pair.a))
    for number, (end, peer) in enumerate(ends):
        expected[number], completed[number] = [], []
        for step, (kind, size) in enumerate(work):
            data = pattern(size, step * 2 + number)
            if kind == "send":
                end.requester.send(data)
                expected[number].append(data)
            elif kind == "write":
                region = peer.regions.register(bytearray(size))
                memory.append((region, data))
                end.requester.write(region.address, region.rkey, data, lambda n=number, s=step: completed[n].append(s))
            elif size:
                region = peer.regions.register(data)

                def done(got: bytes, n: int = number, s: int = step, data: bytes = data) -> None:
                    assert got == data
                    completed[n].append(s)

                end.requester.read(region.address, region.rkey, size, done)
            if not together:
                pair.run()
    pair.run()
    for number, (end, peer) in enumerate(ends):
        assert end.reasons == []
        assert peer.messages == expected[number]
        assert completed[number] == [
            s for s, (kind, size) in enumerate(work) if kind == "write" or (kind, size > 0) == ("read", True)
        ]
        assert end.requester.idle
    for region, data in memory:
        assert region.view == data


@given(WORK, st.booleans())
@settings(max_examples=60, deadline=None)
def test_everything_arrives_once_and_in_order(work: list[tuple[str, int]], together: bool) -> None:
    pair = Pair()
    exercise(pair, work, together=together)
    assert pair.a.requester.resent == pair.b.requester.resent == 0


@given(WORK, st.integers(0, 2**32), st.sampled_from([0.02, 0.1, 0.25]), st.sampled_from(["both", "a", "b"]))
@settings(max_examples=150, deadline=None)
def test_everything_arrives_despite_loss_and_duplication(
    work: list[tuple[str, int]], seed: int, share: float, direction: str
) -> None:
    pair = Pair()
    rng = random.Random(seed)

    def robbed(_packet: bytes) -> int:
        draw = rng.random()
        return 0 if draw < share else 2 if draw < share * 1.5 else 1

    if direction != "b":
        pair.a.fate = robbed
    if direction != "a":
        pair.b.fate = robbed
    for end in (pair.a, pair.b):
        end.requester._retries = end.requester._left = 1000
    exercise(pair, work, together=True)


@pytest.mark.parametrize("victim", range(12))
def test_a_single_loss_costs_one_repeat_and_no_timeout(victim: int) -> None:
    pair = Pair()
    count = 0

    def lose(_packet: bytes) -> int:
        nonlocal count
        count += 1
        return 0 if count == victim + 1 else 1

    pair.a.fate = lose
    sent = [bytes([i]) * (i * 50) for i in range(12)]
    for message in sent:
        pair.a.requester.send(message)
    pair.run()
    assert pair.b.messages == sent
    assert pair.now == 1.0  # the alarm finds nothing to do
    assert pair.a.requester.idle
    assert pair.a.requester.resent > 0


def test_the_last_packet_lost_costs_one_timeout() -> None:
    pair = Pair()
    pair.a.fate = lambda _packet: 0 if pair.now < 0.5 else 1
    pair.a.requester.send(b"late")
    pair.run()
    assert pair.b.messages == [b"late"]
    assert pair.a.requester.resent == 1


@pytest.mark.parametrize("deaf", ["a", "b"])
def test_retries_run_out_after_eight_timeouts(deaf: str) -> None:
    pair = Pair()
    (pair.b if deaf == "a" else pair.a).fate = lambda _packet: 0
    pair.a.requester.send(b"hello")
    pair.run()
    assert pair.a.reasons == [CloseReason.RETRY_EXCEEDED]
    assert pair.now == 8.0
    assert pair.a.requester.resent == 7
    assert pair.b.messages == ([b"hello"] if deaf == "a" else [])  # duplicates are not delivered


def test_progress_restores_the_retries() -> None:
    pair = Pair()
    for _ in range(5):
        start = pair.now
        pair.a.fate = lambda _packet, start=start: 1 if pair.now >= start + 5.5 else 0
        pair.a.requester.send(b"again")
        pair.run()
    assert pair.a.reasons == []
    assert pair.b.messages == [b"again"] * 5


def test_posts_wait_for_the_window_and_for_the_read_depth() -> None:
    pair = Pair()
    for _ in range(WINDOW + 10):
        pair.a.requester.send(b"x")
    assert len(pair.a.out) == WINDOW
    pair.run()
    assert len(pair.b.messages) == WINDOW + 10
    region = pair.b.regions.register(b"0123456789")
    got: list[bytes] = []
    for i in range(4):
        pair.a.requester.read(region.address + i, region.rkey, 2, got.append)
    pair.a.requester.send(b"after")
    assert len(pair.a.out) == 2
    pair.run()
    assert got == [b"01", b"12", b"23", b"34"]
    assert pair.b.messages[-1] == b"after"


def test_a_buffer_may_change_once_posted() -> None:
    pair = Pair()
    region = pair.b.regions.register(bytearray(WINDOW * 256 * 2))
    data = bytearray(pattern(WINDOW * 256 * 2, 3))
    before = bytes(data)
    message = bytearray(b"message")
    pair.a.requester.write(region.address, region.rkey, data, None)
    pair.a.requester.send(message)
    data[:] = bytes(len(data))
    message[:] = b"-------"
    pair.run()
    assert region.view == before
    assert pair.b.messages == [b"message"]


def test_a_held_requester_keeps_posts_and_a_stopped_one_forgets_them() -> None:
    pair = Pair()
    pair.a.requester._window = 0
    pair.a.requester.send(b"one")
    assert not pair.a.out
    pair.a.requester.release()
    assert len(pair.a.out) == 1
    pair.a.requester.stop()
    pair.a.requester.send(b"two")
    pair.a.requester.write(1, 2, b"three", None)
    pair.a.requester.read(1, 2, 3, lambda _data: pytest.fail("a stopped requester reads"))
    pair.a.requester.release()
    pair.run()
    assert pair.b.messages == [b"one"]


@pytest.mark.parametrize("length", [0, -1, 65536 * 256 + 1])
def test_a_read_has_a_sane_length(length: int) -> None:
    pair = Pair()
    with pytest.raises(ValueError, match="RDMA READ"):
        pair.a.requester.read(0, 0, length, lambda _data: None)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (NakCode.INVALID_REQUEST, CloseReason.REMOTE_INVALID_REQUEST),
        (NakCode.REMOTE_ACCESS_ERROR, CloseReason.REMOTE_ACCESS_ERROR),
        (NakCode.REMOTE_OPERATIONAL_ERROR, CloseReason.REMOTE_OPERATION_ERROR),
    ],
)
def test_a_nak_ends_the_connection_after_acknowledging_what_came_before(code: NakCode, reason: CloseReason) -> None:
    pair = Pair(psn=0)
    done: list[str] = []
    pair.a.requester.write(0, 0, b"first", lambda: done.append("first"))
    pair.a.requester.write(0, 0, b"second", lambda: done.append("second"))
    pair.a.requester.on_ack(1, nak_syndrome(code))
    assert done == ["first"]
    assert pair.a.reasons == [reason]


@pytest.mark.parametrize(
    ("psn", "syndrome"),
    [
        (99, 31),  # ghost
        (3, 31),  # not sent yet
        (0xFFFFFF, 31),  # long acknowledged
        (50, nak_syndrome(NakCode.REMOTE_ACCESS_ERROR)),
        (1, 0x2A),  # RNR NAK
        (1, 0x80),  # reserved
        (1, 0x60 | NakCode.INVALID_RD_REQUEST),
        (1, 0x7F),
    ],
)
def test_senseless_acknowledgements_change_nothing(psn: int, syndrome: int) -> None:
    pair = Pair(psn=0)
    for message in (b"one", b"two", b"three"):
        pair.a.requester.send(message)
    pair.a.requester.on_ack(psn, syndrome)
    assert pair.a.reasons == []
    pair.run()
    assert pair.b.messages == [b"one", b"two", b"three"]
    assert pair.a.reasons == []


def response(opcode: int, psn: int, payload: bytes) -> bytes:
    address = RcAddress(2, 1, 0x41, 0xFFFF)
    if opcode == Opcode.RC_READ_RESPONSE_MIDDLE:
        return pack_send(address, opcode, psn, payload)
    return pack_ack(address, opcode, psn, 31, 0, payload)


@pytest.mark.parametrize(
    ("opcode", "size"),
    [
        (Opcode.RC_READ_RESPONSE_ONLY, 256),  # of two
        (Opcode.RC_READ_RESPONSE_LAST, 44),
        (Opcode.RC_READ_RESPONSE_FIRST, 255),
        (Opcode.RC_READ_RESPONSE_MIDDLE, 0),
        (Opcode.RC_READ_RESPONSE_FIRST, 300),
    ],
)
def test_a_read_response_of_the_wrong_shape_is_the_peers_error(opcode: int, size: int) -> None:
    pair = Pair(psn=0)
    pair.a.requester.read(0, 0, 300, lambda _data: pytest.fail("read is not complete"))
    pair.a.take(response(opcode, 0, bytes(size)))
    assert pair.a.reasons == [CloseReason.PEER_ERROR]


def test_read_responses_that_nobody_waits_for_change_nothing() -> None:
    pair = Pair(psn=0)
    pair.a.take(response(Opcode.RC_READ_RESPONSE_ONLY, 0, b"data"))
    got: list[bytes] = []
    region = pair.b.regions.register(b"abcd")
    pair.a.requester.read(region.address, region.rkey, 4, got.append)
    pair.a.take(response(Opcode.RC_READ_RESPONSE_ONLY, 70, b"evil"))
    pair.a.take(response(Opcode.RC_READ_RESPONSE_ONLY, 0xFFFFFF, b"evil"))
    pair.run()
    assert got == [b"abcd"]
    assert pair.a.reasons == []


def test_a_completion_may_end_the_connection() -> None:
    pair = Pair()
    region = pair.b.regions.register(bytearray(4096))
    done: list[str] = []

    def end() -> None:
        done.append("first")
        pair.a.fail(CloseReason.LOCAL)

    pair.a.requester.write(region.address, region.rkey, b"first", end)
    pair.a.requester.write(region.address, region.rkey, b"second", lambda: done.append("second"))
    pair.a.requester.read(region.address, region.rkey, 10, lambda _data: done.append("third"))
    pair.run()
    assert done == ["first"]


def test_messages_are_cut_into_packets_of_the_mtu() -> None:
    pair = Pair(psn=0)
    region = pair.b.regions.register(bytearray(700))
    pair.a.requester.send(bytes(256))
    pair.a.requester.send(bytes(600))
    pair.a.requester.write(region.address, region.rkey, bytes(700), None)
    assert pair.a.opcodes() == [
        Opcode.RC_SEND_ONLY,
        *(Opcode.RC_SEND_FIRST, Opcode.RC_SEND_MIDDLE, Opcode.RC_SEND_LAST),
        *(Opcode.RC_WRITE_FIRST, Opcode.RC_WRITE_MIDDLE, Opcode.RC_WRITE_LAST),
    ]
    assert [unpack(packet).psn for packet in pair.a.sent] == list(range(7))
    assert [unpack(packet).ack_request for packet in pair.a.sent] == [True, False, False, True, False, False, True]


def lose_response(pair: Pair, *psns: int) -> None:
    """Each mention of a PSN costs one of b's packets with it."""
    left = list(psns)

    def fate(packet: bytes) -> int:
        psn = unpack(packet).psn
        if psn not in left:
            return 1
        left.remove(psn)
        return 0

    pair.b.fate = fate


def test_a_lost_response_is_missed_at_the_next_one_and_only_the_rest_is_asked_again() -> None:
    pair = Pair(psn=0)
    data = pattern(1000, 1)
    region = pair.b.regions.register(data)
    got: list[bytes] = []
    lose_response(pair, 1)
    pair.a.requester.read(region.address, region.rkey, 1000, got.append)
    while not got:
        assert pair.turn()
    assert got == [data]
    assert [read_reth(unpack(packet)) for packet in pair.a.sent] == [
        (region.address, region.rkey, 1000),
        (region.address + 256, region.rkey, 744),
    ]


def test_a_lost_response_is_missed_at_an_acknowledgement_beyond_it() -> None:
    pair = Pair(psn=0)
    region = pair.b.regions.register(b"data")
    got: list[bytes] = []
    lose_response(pair, 0)
    pair.a.requester.read(region.address, region.rkey, 4, got.append)
    pair.a.requester.send(b"after")
    while not got:
        assert pair.turn()
    assert pair.now == 0.0
    pair.run()
    assert got == [b"data"]
    assert pair.b.messages == [b"after"]


def test_a_response_lost_again_is_missed_again_after_the_timeout_only() -> None:
    pair = Pair(psn=0)
    region = pair.b.regions.register(pattern(1000, 1))
    got: list[float] = []
    lose_response(pair, 1, 1, 1)  # missed at PSN 2; silence; missed at PSN 2 again
    pair.a.requester.read(region.address, region.rkey, 1000, lambda _data: got.append(pair.now))
    pair.run()
    assert got == [1.0]
