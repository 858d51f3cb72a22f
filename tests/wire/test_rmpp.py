from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import pattern

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.rmpp import (
    Reassembler,
    RmppError,
    RmppHeader,
    RmppReceiver,
    RmppSender,
    RmppStatus,
    RmppType,
    TransferState,
    control,
    describe_rmpp_status,
    read_rmpp,
    segment,
)

COMMON = bytes.fromhex("01 03 02 92 0000 0000 0000000000000042 0011 0000 00000000")
SA_PART = bytes.fromhex("0000000000000000 000e 0000 0000000000000001")
HEADER = COMMON + bytes(12) + SA_PART


def first_header(rmpp: str) -> bytes:
    return COMMON + bytes.fromhex(rmpp) + SA_PART


def change(mad: bytes, at: int, value: int) -> bytes:
    broken = bytearray(mad)
    broken[at] = value
    return bytes(broken)


def body(message: bytes | None) -> bytes | None:
    return None if message is None else message[56:]


# --- segmentation -----------------------------------------------------------------------------------------------------


def test_header_both_ways() -> None:
    wire = bytes.fromhex("01 02 fd 76 00000003 00000043")
    value = RmppHeader(version=1, type=2, response_time=31, flags=5, status=118, segment=3, length_or_window=0x43)
    assert value.encode() == wire
    assert RmppHeader.decode(wire) == value


def test_one_segment() -> None:
    assert segment(HEADER, b"abc") == (
        first_header("01 01 ff 00 00000001 00000017") + b"abc" + bytes(197),
    )  # PayloadLength 20 + 3


def test_empty_payload() -> None:
    assert segment(HEADER, b"") == (first_header("01 01 ff 00 00000001 00000014") + bytes(200),)


def test_three_segments() -> None:
    payload = pattern(410)
    assert (
        segment(HEADER, payload)
        == (
            first_header("01 01 fb 00 00000001 000001d6") + payload[:200],  # 3 * 20 + 410
            first_header("01 01 f9 00 00000002 00000000") + payload[200:400],
            first_header("01 01 fd 00 00000003 0000001e") + payload[400:] + bytes(190),  # 20 + 10
        )
    )


def test_full_last_segment() -> None:
    assert read_rmpp(segment(HEADER, bytes(400))[-1]).length_or_window == 220


def test_wrong_header_length() -> None:
    with pytest.raises(EncodeError):
        segment(HEADER[:-1], b"")
    with pytest.raises(EncodeError):
        control(HEADER[:-1], RmppType.ACK)


def test_ack_both_ways() -> None:
    data = segment(HEADER, bytes(401))[1]
    ack = control(data, RmppType.ACK, acknowledged=2, window_last=66)
    assert ack == (
        bytes.fromhex("01 03 02 12 0000 0000 0000000000000042 0011 0000 00000000")
        + bytes.fromhex("01 02 f9 00 00000002 00000042")
        + SA_PART
        + bytes(200)
    )


# --- reassembly -------------------------------------------------------------------------------------------------------


def test_message_is_what_the_kernel_hands_over() -> None:
    payload = pattern(410)
    segments = segment(HEADER, payload)
    join = Reassembler()
    assert [join.feed(mad) for mad in segments[:2]] == [None, None]
    assert join.contiguous == 2
    assert join.feed(segments[2]) == segments[0][:56] + payload
    assert join.complete
    assert join.feed(segments[2]) is None


def test_mad_without_rmpp_is_a_message() -> None:
    mad = HEADER + pattern(200)
    assert Reassembler().feed(mad) == mad


@given(st.binary(max_size=2000), st.randoms(use_true_random=False), st.integers(0, 5))
def test_any_order_and_repeats(payload: bytes, random: Random, repeats: int) -> None:
    segments = list(segment(HEADER, payload))
    arrivals = segments + [random.choice(segments) for _ in range(repeats)]
    random.shuffle(arrivals)
    join = Reassembler()
    found = [message for mad in arrivals if (message := join.feed(mad)) is not None]
    assert found == [segments[0][:56] + payload]


def test_nonsense_length_of_the_last_segment() -> None:
    (mad,) = segment(HEADER, pattern(200))
    assert body(Reassembler().feed(change(mad, 32, 0xFF))) == pattern(200)
    with pytest.raises(RmppError) as caught:
        Reassembler().feed(change(mad, 35, 19))
    assert caught.value.status == RmppStatus.BAD_LENGTH


@pytest.mark.parametrize(
    ("at", "value", "status"),
    [
        (24, 2, RmppStatus.BAD_VERSION),
        (25, 9, RmppStatus.BAD_TYPE),
        (25, 2, RmppStatus.BAD_TYPE),
        (27, 1, RmppStatus.BAD_STATUS),
        (26, 0xF9, RmppStatus.BAD_SEGMENT),  # number 1 without FIRST
        (31, 2, RmppStatus.BAD_SEGMENT),  # FIRST with number 2
        (31, 0, RmppStatus.BAD_SEGMENT),
        (25, 3, RmppStatus.NORMAL),
    ],
)
def test_broken_segments(at: int, value: int, status: RmppStatus) -> None:
    good = segment(HEADER, bytes(500))
    join = Reassembler()
    with pytest.raises(RmppError) as caught:
        join.feed(change(good[0], at, value))
    assert caught.value.status == status
    assert [body(join.feed(mad)) for mad in good] == [None, None, bytes(500)]


def test_segments_that_contradict_each_other() -> None:
    three, two = segment(HEADER, bytes(500)), segment(HEADER, bytes(300))
    join = Reassembler()
    join.feed(three[2])
    with pytest.raises(RmppError, match="bad length"):
        join.feed(two[1])
    join = Reassembler()
    join.feed(two[1])
    with pytest.raises(RmppError, match="segment too big"):
        join.feed(three[2])
    with pytest.raises(RmppError, match="bad type"):
        join.feed(HEADER + bytes(200))


def test_bound_on_segments() -> None:
    join = Reassembler(max_segments=2)
    with pytest.raises(RmppError) as caught:
        join.feed(segment(HEADER, bytes(500))[2])
    assert caught.value.status == RmppStatus.SEGMENT_TOO_BIG


@pytest.mark.parametrize("at", [1, 2, 3, 8, 15, 16, 17, 20])
def test_another_transfer_changes_nothing(at: int) -> None:
    good = segment(HEADER, bytes(300))
    join = Reassembler()
    join.feed(good[0])
    with pytest.raises(DecodeError):
        join.feed(change(good[1], at, good[1][at] ^ 0x40))
    assert body(join.feed(good[1])) == bytes(300)


@given(st.lists(st.binary(min_size=12, max_size=12), max_size=6))
def test_any_rmpp_header(parts: list[bytes]) -> None:
    join = Reassembler()
    for part in parts:
        try:
            join.feed(COMMON + part + SA_PART + bytes(200))
        except DecodeError:
            continue


def test_wrong_length() -> None:
    for bad in (b"", bytes(255), bytes(257)):
        with pytest.raises(DecodeError):
            Reassembler().feed(bad)


def test_status_text() -> None:
    assert describe_rmpp_status(126) == "too many retries (RMPP status 126)"
    assert describe_rmpp_status(60) == "RMPP status 60"


# --- sender and receiver ----------------------------------------------------------------------------------------------


def make_sender(payload: bytes, retries: int = 3) -> RmppSender:
    return RmppSender(HEADER + payload, timeout=1.0, retries=retries)


def test_window_and_acks_without_loss() -> None:
    payload = pattern(200 * 7)
    sender, receiver = make_sender(payload), RmppReceiver(window=3)
    trace: list[tuple[int, ...]] = []
    flight = sender.start(0.0).send
    message: bytes | None = None
    while flight:
        trace.append(tuple(read_rmpp(mad).segment for mad in flight))
        acks: list[bytes] = []
        for mad in flight:
            step = receiver.receive(mad, 0.0)
            acks += step.send
            message = step.message or message
        assert len(acks) == 1
        flight = sender.receive(acks[0], 0.0).send
    assert trace == [(1,), (2, 3, 4), (5, 6, 7)]
    assert body(message) == payload
    assert sender.state is receiver.state is TransferState.DONE
    assert sender.deadline is None
    assert receiver.deadline is None


@given(st.integers(0, 3000), st.integers(1, 9), st.integers(0, 2**32), st.integers(0, 40))
def test_loss_repeats_and_reordering(size: int, window: int, seed: int, loss: int) -> None:
    """Whatever the link does, the transfer ends, and it never delivers anything but the message, once."""
    random = Random(seed)
    payload = pattern(size)
    sender, receiver = make_sender(payload, retries=50), RmppReceiver(window=window, timeout=1000.0)
    now = 0.0
    to_receiver = list(sender.start(now).send)
    to_sender: list[bytes] = []
    delivered: list[bytes] = []
    for _ in range(20_000):
        if sender.state is not TransferState.ACTIVE:
            break
        queue = to_receiver if to_receiver and (not to_sender or random.random() < 0.5) else to_sender
        if not queue:
            assert sender.deadline is not None
            now = sender.deadline
            to_receiver += sender.expire(now).send
            continue
        mad = queue[random.randrange(len(queue))]
        if random.random() >= 0.1:  # otherwise it is taken and stays: a repeat
            queue.remove(mad)
        if random.randrange(100) < loss:
            continue
        if queue is to_receiver:
            step = receiver.receive(mad, now)
            to_sender += step.send
            if step.message is not None:
                delivered.append(step.message)
        else:
            to_receiver += sender.receive(mad, now).send
    assert sender.state is TransferState.DONE
    assert receiver.state is TransferState.DONE
    assert [message[56:] for message in delivered] == [payload]


def test_resends_from_the_first_unacknowledged() -> None:
    sender, receiver = make_sender(bytes(1000)), RmppReceiver(window=4)
    (first,) = sender.start(0.0).send
    (ack,) = receiver.receive(first, 0.0).send
    assert [read_rmpp(m).segment for m in sender.receive(ack, 0.5).send] == [2, 3, 4, 5]
    assert sender.deadline == 1.5
    assert sender.expire(1.4).send == ()
    assert [read_rmpp(m).segment for m in sender.expire(1.5).send] == [2, 3, 4, 5]
    assert sender.receive(ack, 1.6).send == ()  # a repeated ACK starts nothing
    assert sender.deadline == 2.5


def test_gives_up_after_the_last_retry() -> None:
    sender = make_sender(bytes(10), retries=2)
    sender.start(0.0)
    assert len(sender.expire(1.0).send) == len(sender.expire(2.0).send) == 1
    (abort,) = sender.expire(3.0).send
    assert abort[3] == 0x92
    assert (read_rmpp(abort).type, read_rmpp(abort).status) == (RmppType.ABORT, 126)
    assert sender.state is TransferState.FAILED
    assert sender.failure == RmppStatus.TOO_MANY_RETRIES
    assert sender.expire(99.0).send == ()
    receiver = RmppReceiver()
    receiver.receive(segment(HEADER, bytes(300))[0], 0.0)
    assert receiver.receive(abort, 0.0).send == ()
    assert receiver.failure == RmppStatus.TOO_MANY_RETRIES


@pytest.mark.parametrize(
    ("acknowledged", "window_last", "status"),
    [(1, 0, RmppStatus.WINDOW_TOO_SMALL), (2, 5, RmppStatus.SEGMENT_TOO_BIG)],
)
def test_impossible_acks(acknowledged: int, window_last: int, status: RmppStatus) -> None:
    sender = make_sender(bytes(1000))
    (mad,) = sender.start(0.0).send
    (abort,) = sender.receive(control(mad, RmppType.ACK, acknowledged=acknowledged, window_last=window_last), 0.0).send
    assert read_rmpp(abort).status == status
    assert sender.failure == status


@pytest.mark.parametrize(
    ("at", "value", "status"),
    [(24, 3, RmppStatus.BAD_VERSION), (25, 1, RmppStatus.BAD_TYPE), (27, 5, RmppStatus.BAD_STATUS)],
)
def test_broken_acks(at: int, value: int, status: RmppStatus) -> None:
    sender = make_sender(bytes(1000))
    (mad,) = sender.start(0.0).send
    sender.receive(change(control(mad, RmppType.ACK, acknowledged=1, window_last=9), at, value), 0.0)
    assert sender.failure == status


@pytest.mark.parametrize("kind", [RmppType.STOP, RmppType.ABORT])
def test_receiver_ends_the_transfer(kind: RmppType) -> None:
    sender = make_sender(bytes(1000))
    (mad,) = sender.start(0.0).send
    assert sender.receive(control(mad, kind, status=RmppStatus.RESOURCES), 0.0).send == ()
    assert sender.failure == RmppStatus.RESOURCES
    assert sender.deadline is None


def test_sender_refuses_what_is_not_its_own() -> None:
    sender = make_sender(bytes(1000))
    (mad,) = sender.start(0.0).send
    ack = control(mad, RmppType.ACK, acknowledged=1, window_last=9)
    for bad in (mad, change(ack, 15, 0x43), change(ack, 26, 0xF8), ack[:-1]):
        with pytest.raises(DecodeError):
            sender.receive(bad, 0.0)
    assert len(sender.receive(ack, 0.0).send) == 4


def test_misuse() -> None:
    sender = make_sender(b"")
    sender.start(0.0)
    with pytest.raises(EncodeError):
        sender.start(0.0)
    for timeout, retries in ((0.0, 1), (1.0, -1)):
        with pytest.raises(EncodeError):
            RmppSender(HEADER, timeout=timeout, retries=retries)
    with pytest.raises(EncodeError):
        RmppSender(HEADER[:-1], timeout=1.0, retries=1)
    for window, limit in ((0, 1.0), (1, 0.0)):
        with pytest.raises(EncodeError):
            RmppReceiver(window=window, timeout=limit)


def test_receiver_gives_up() -> None:
    receiver = RmppReceiver(timeout=5.0)
    segments = segment(HEADER, bytes(600))
    receiver.receive(segments[0], 0.0)
    receiver.receive(segments[1], 3.0)
    assert receiver.deadline == 8.0
    assert receiver.expire(7.9).send == ()
    (abort,) = receiver.expire(8.0).send
    assert abort[3] == 0x12
    assert (read_rmpp(abort).type, read_rmpp(abort).status) == (RmppType.ABORT, 118)
    assert receiver.receive(segments[2], 9.0).send == ()
    assert receiver.state is TransferState.FAILED


def test_receiver_drops_what_is_beyond_the_window() -> None:
    receiver = RmppReceiver(window=2)
    segments = segment(HEADER, bytes(1000))
    assert receiver.receive(segments[1], 0.0).send == ()
    (ack,) = receiver.receive(segments[0], 0.0).send
    assert (read_rmpp(ack).segment, read_rmpp(ack).length_or_window) == (1, 3)


def test_receiver_aborts_broken_segments() -> None:
    receiver = RmppReceiver()
    (abort,) = receiver.receive(change(segment(HEADER, bytes(600))[0], 26, 0xF9), 0.0).send
    assert read_rmpp(abort).status == RmppStatus.BAD_SEGMENT
    assert receiver.failure == RmppStatus.BAD_SEGMENT


def test_receiver_answers_repeats_when_done() -> None:
    receiver = RmppReceiver()
    (mad,) = segment(HEADER, b"x")
    step = receiver.receive(mad, 0.0)
    assert body(step.message) == b"x"
    again = receiver.receive(mad, 1.0)
    assert again.message is None
    assert [read_rmpp(m).segment for m in again.send] == [1]


def test_receiver_and_single_mads() -> None:
    receiver = RmppReceiver()
    mad = HEADER + pattern(200)
    step = receiver.receive(mad, 0.0)
    assert (step.send, step.message, receiver.state) == ((), mad, TransferState.DONE)
    assert receiver.receive(mad, 0.0) == type(step)()


def test_receiver_refuses_another_transfer() -> None:
    receiver = RmppReceiver()
    segments = segment(HEADER, bytes(300))
    receiver.receive(segments[0], 0.0)
    with pytest.raises(DecodeError):
        receiver.receive(change(segments[1], 15, 0x99), 0.0)
    assert body(receiver.receive(segments[1], 0.0).message) == bytes(300)
