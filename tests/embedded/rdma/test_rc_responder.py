from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rc_pair import Pair

from srpha.embedded.rdma.memory import MemoryRegion
from srpha.embedded.rdma.rc_outcome import CloseReason
from srpha.wire.rc import NakCode, Opcode, RcAddress, nak_syndrome, pack_rdma, pack_send, unpack

TO_B = RcAddress(1, 2, 0x42, 0xFFFF)
CODES = {opcode for opcode in Opcode if opcode < Opcode.RC_READ_REQUEST}


def plain(opcode: int, psn: int, payload: bytes = b"", ask: bool = True) -> bytes:
    return pack_send(TO_B, opcode, psn, payload, ask)


def write(opcode: int, psn: int, address: int, rkey: int, length: int, payload: bytes) -> bytes:
    return pack_rdma(TO_B, opcode, psn, address, rkey, length, payload, True)


def read(psn: int, address: int, rkey: int, length: int) -> bytes:
    return pack_rdma(TO_B, Opcode.RC_READ_REQUEST, psn, address, rkey, length, b"", True)


def answers(pair: Pair) -> list[tuple[int, int, int]]:
    """(opcode, PSN, syndrome) of what b sent."""
    return [(p.opcode, p.psn, p.data[p.extension]) for p in map(unpack, pair.b.sent)]


def region_of(pair: Pair, data: bytes | bytearray) -> MemoryRegion:
    pair.b.regions.register(bytearray(64))
    region = pair.b.regions.register(data)
    pair.b.regions.register(bytearray(64))
    return region


def test_one_acknowledgement_answers_a_burst() -> None:
    pair = Pair(psn=0)
    for psn in range(10):
        pair.b.take(plain(Opcode.RC_SEND_ONLY, psn, bytes([psn])))
    pair.turn()
    assert answers(pair) == [(Opcode.RC_ACKNOWLEDGE, 9, 31)]
    assert unpack(pair.b.sent[0]).data[-3:] == b"\0\0\x0a"  # MSN
    assert pair.b.messages == [bytes([psn]) for psn in range(10)]


def test_acknowledgements_do_not_wait_for_a_long_burst_to_end() -> None:
    pair = Pair(psn=0)
    for psn in range(100):
        pair.b.take(plain(Opcode.RC_SEND_ONLY, psn))
    assert answers(pair) == [(Opcode.RC_ACKNOWLEDGE, 64, 31)]


def test_a_gap_is_reported_once_and_the_repeat_accepted() -> None:
    pair = Pair(psn=5)
    pair.b.take(plain(Opcode.RC_SEND_ONLY, 5, b"a"))
    for psn in (7, 8, 9):
        pair.b.take(plain(Opcode.RC_SEND_ONLY, psn, b"x"))
    assert answers(pair) == [(Opcode.RC_ACKNOWLEDGE, 6, nak_syndrome(NakCode.PSN_SEQUENCE_ERROR))]
    assert pair.b.messages == [b"a"]
    pair.b.take(plain(Opcode.RC_SEND_ONLY, 6, b"b"))
    pair.b.take(plain(Opcode.RC_SEND_ONLY, 8, b"y"))
    assert answers(pair)[-1] == (Opcode.RC_ACKNOWLEDGE, 7, nak_syndrome(NakCode.PSN_SEQUENCE_ERROR))
    assert pair.b.messages == [b"a", b"b"]


def test_a_duplicate_is_acknowledged_again_and_not_delivered() -> None:
    pair = Pair(psn=0xFFFFFF)
    pair.b.take(plain(Opcode.RC_SEND_ONLY, 0xFFFFFF, b"a"))
    pair.turn()
    pair.b.take(plain(Opcode.RC_SEND_ONLY, 0xFFFFFF, b"a"))
    pair.turn()
    assert answers(pair) == [(Opcode.RC_ACKNOWLEDGE, 0xFFFFFF, 31)] * 2
    assert pair.b.messages == [b"a"]


def test_a_duplicate_write_does_not_touch_memory() -> None:
    pair = Pair(psn=0)
    region = region_of(pair, bytearray(4))
    packet = write(Opcode.RC_WRITE_ONLY, 0, region.address, region.rkey, 4, b"data")
    pair.b.take(packet)
    region.view[:] = b"mine"
    pair.b.take(packet)
    assert region.view == b"mine"


@pytest.mark.parametrize(
    ("offset", "length", "right"),
    [
        (0, 100, True),
        (99, 1, True),
        (-1, 1, False),
        (100, 1, False),
        (0, 101, False),
        (2**63, 8, False),
        (-64, 64, False),
    ],
)
@pytest.mark.parametrize("kind", ["write", "read"])
def test_rdma_stays_inside_the_region(kind: str, offset: int, length: int, right: bool) -> None:
    pair = Pair(psn=0)
    region = region_of(pair, bytearray(b"." * 100))
    at = region.address + offset & 2**64 - 1
    data = b"#" * length
    pair.b.take(
        write(Opcode.RC_WRITE_ONLY, 0, at, region.rkey, length, data)
        if kind == "write"
        else read(0, at, region.rkey, length)
    )
    if right:
        assert pair.b.reasons == []
        if kind == "write":
            assert region.view[offset : offset + length] == data
        else:
            assert unpack(pair.b.sent[0]).payload == b"." * length
        return
    assert pair.b.reasons == [CloseReason.PEER_ERROR]
    assert answers(pair) == [(Opcode.RC_ACKNOWLEDGE, 0, nak_syndrome(NakCode.REMOTE_ACCESS_ERROR))]
    assert region.view == b"." * 100
    assert all(not any(other.view) for other in pair.b.regions.regions.values() if other is not region)


@pytest.mark.parametrize("kind", ["write", "long write", "read"])
@pytest.mark.parametrize("fault", ["unknown key", "deregistered", "read-only"])
def test_rdma_needs_a_valid_key(kind: str, fault: str) -> None:
    pair = Pair(psn=0)
    region = region_of(pair, bytes(600) if fault == "read-only" else bytearray(600))
    key = region.rkey
    if fault == "unknown key":
        key = (key + 1) & 0xFFFFFFFF
    elif fault == "deregistered":
        pair.b.regions.deregister(region)
        pair.b.regions.deregister(region)
    if kind == "write":
        pair.b.take(write(Opcode.RC_WRITE_ONLY, 0, region.address, key, 4, b"evil"))
    elif kind == "long write":
        pair.b.take(write(Opcode.RC_WRITE_FIRST, 0, region.address, key, 600, b"e" * 256))
    else:
        pair.b.take(read(0, region.address, key, 4))
    assert not any(region.view)
    if kind == "read" and fault == "read-only":
        assert pair.b.reasons == []
    else:
        assert pair.b.reasons == [CloseReason.PEER_ERROR]
        assert answers(pair) == [(Opcode.RC_ACKNOWLEDGE, 0, nak_syndrome(NakCode.REMOTE_ACCESS_ERROR))]


def test_a_region_deregistered_in_the_middle_of_a_write_is_left_alone() -> None:
    pair = Pair(psn=0)
    region = region_of(pair, bytearray(600))
    pair.b.take(write(Opcode.RC_WRITE_FIRST, 0, region.address, region.rkey, 600, b"1" * 256))
    pair.b.regions.deregister(region)
    pair.b.take(plain(Opcode.RC_WRITE_MIDDLE, 1, b"2" * 256))
    assert region.view == b"1" * 256 + bytes(344)
    assert pair.b.reasons == [CloseReason.PEER_ERROR]


F, M, L, O = Opcode.RC_SEND_FIRST, Opcode.RC_SEND_MIDDLE, Opcode.RC_SEND_LAST, Opcode.RC_SEND_ONLY  # noqa: E741
WM, WL = Opcode.RC_WRITE_MIDDLE, Opcode.RC_WRITE_LAST


@pytest.mark.parametrize(
    "packets",
    [
        [(M, 256)],
        [(L, 1)],
        [(F, 256), (F, 256)],
        [(F, 256), (O, 1)],
        [(F, 255)],
        [(F, 257)],
        [(O, 257)],
        [(F, 256), (L, 0)],
        [(F, 256), (L, 257)],
        [(F, 256), (M, 100)],
        [(WM, 256)],
        [(WL, 1)],
        [(F, 256), (WL, 1)],
        [(F, 256)] + [(M, 256)] * 400,  # longer than any message may be
    ],
)
def test_a_message_out_of_shape_is_the_peers_error(packets: list[tuple[int, int]]) -> None:
    pair = Pair(psn=0)
    for psn, (opcode, size) in enumerate(packets):
        pair.b.take(plain(opcode, psn, bytes(size), ask=False))
    assert pair.b.reasons == [CloseReason.PEER_ERROR]
    assert answers(pair)[-1][2] == nak_syndrome(NakCode.INVALID_REQUEST)
    assert pair.b.messages == []


@pytest.mark.parametrize(
    ("opcode", "length", "size"),
    [
        (Opcode.RC_WRITE_ONLY, 5, 4),
        (Opcode.RC_WRITE_ONLY, 257, 257),
        (Opcode.RC_WRITE_FIRST, 256, 256),
        (Opcode.RC_WRITE_FIRST, 300, 255),
        (Opcode.RC_READ_REQUEST, 4, 4),
    ],
)
def test_rdma_out_of_shape_is_the_peers_error(opcode: int, length: int, size: int) -> None:
    pair = Pair(psn=0)
    region = region_of(pair, bytearray(600))
    pair.b.take(write(opcode, 0, region.address, region.rkey, length, b"e" * size))
    assert pair.b.reasons == [CloseReason.PEER_ERROR]
    assert answers(pair) == [(Opcode.RC_ACKNOWLEDGE, 0, nak_syndrome(NakCode.INVALID_REQUEST))]
    assert not any(region.view)


@pytest.mark.parametrize("last", [43, 45, 0])
def test_a_long_write_ends_exactly(last: int) -> None:
    pair = Pair(psn=0)
    region = region_of(pair, bytearray(600))
    pair.b.take(write(Opcode.RC_WRITE_FIRST, 0, region.address, region.rkey, 300, b"1" * 256))
    pair.b.take(plain(WL, 1, b"2" * last))
    assert pair.b.reasons == [CloseReason.PEER_ERROR]
    assert region.view == b"1" * 256 + bytes(344)


def test_a_read_asked_again_is_answered_again_from_where_it_is_asked() -> None:
    pair = Pair(psn=0)
    region = region_of(pair, bytes(range(256)) + b"x" * 256 + b"y" * 10)
    pair.b.take(read(0, region.address, region.rkey, 522))
    pair.b.take(plain(O, 3, b"next"))
    pair.turn()
    pair.b.sent.clear()
    pair.b.take(read(1, region.address + 256, region.rkey, 266))
    assert [(p.opcode, p.psn, p.payload) for p in map(unpack, pair.b.sent)] == [
        (Opcode.RC_READ_RESPONSE_FIRST, 1, b"x" * 256),
        (Opcode.RC_READ_RESPONSE_LAST, 2, b"y" * 10),
    ]
    pair.b.sent.clear()
    pair.b.regions.deregister(region)
    pair.b.take(read(1, region.address + 256, region.rkey, 266))  # late, and its memory is gone
    pair.b.take(read(1, region.address, region.rkey, 2**31))  # reaches into what was not asked yet
    assert pair.b.sent == []
    assert pair.b.reasons == []


def test_a_duplicate_read_does_not_reach_beyond_what_was_asked() -> None:
    pair = Pair(psn=0)
    region = region_of(pair, bytes(600))
    pair.b.take(read(0, region.address, region.rkey, 256))
    pair.b.sent.clear()
    pair.b.take(read(0, region.address, region.rkey, 600))
    assert pair.b.sent == []


def test_rdma_of_no_bytes_needs_no_key() -> None:
    pair = Pair(psn=0)
    pair.b.take(write(Opcode.RC_WRITE_ONLY, 0, 0, 0, 0, b""))
    pair.b.take(read(1, 0, 0, 0))
    pair.turn()
    assert pair.b.reasons == []
    assert answers(pair) == [(Opcode.RC_READ_RESPONSE_ONLY, 1, 31)]


@given(st.lists(st.tuples(st.sampled_from(sorted(CODES)), st.integers(0, 8), st.integers(0, 300)), max_size=20))
def test_no_sequence_of_packets_breaks_the_responder(packets: list[tuple[int, int, int]]) -> None:
    pair = Pair(psn=0)
    region = region_of(pair, bytearray(512))
    outside = [other for other in pair.b.regions.regions.values() if other is not region]
    for opcode, psn, size in packets:
        if opcode in (Opcode.RC_WRITE_FIRST, Opcode.RC_WRITE_ONLY, Opcode.RC_READ_REQUEST):
            pair.b.take(write(opcode, psn, region.address + size, region.rkey, size, b"e" * size))
        else:
            pair.b.take(plain(opcode, psn, b"e" * size))
    assert pair.b.reasons in ([], [CloseReason.PEER_ERROR])
    assert not any(any(other.view) for other in outside)
