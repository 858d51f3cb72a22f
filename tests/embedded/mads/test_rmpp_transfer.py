"""The sender of RMPP transfers by itself: what goes out when."""

from __future__ import annotations

import asyncio

from srpha.embedded.mads.rmpp_transfer import MAX_RESENDS, RESEND_TIME, RmppSender, sender_key
from srpha.wire.mad import status_response
from srpha.wire.rmpp import RmppStatus, RmppType, control, read_rmpp
from srpha.wire.sa import sa_request

HEADER = status_response(sa_request(0x12, 0x11, transaction_id=0x1_0000_0007), 0)[:56]


class Bench:
    """A sender whose segments are kept."""

    def __init__(self, size: int) -> None:
        self.out: list[bytes] = []
        self.over: list[RmppSender] = []
        key = sender_key(5, 1, HEADER)
        self.sender = RmppSender(key, HEADER, bytes(size), self.out.append, self.over.append)
        self.sender.start()

    def sent(self) -> list[int]:
        """Numbers of the DATA segments since the last call."""
        numbers = [read_rmpp(mad).segment for mad in self.out if read_rmpp(mad).type == RmppType.DATA]
        self.out.clear()
        return numbers

    def ack(self, segment: int, window: int) -> None:
        self.sender.feed(control(HEADER, RmppType.ACK, acknowledged=segment, window_last=window))


async def test_window() -> None:
    bench = Bench(1900)  # ten segments
    assert bench.sent() == [1]
    bench.ack(1, 4)
    assert bench.sent() == [2, 3, 4]
    bench.ack(2, 4)
    assert bench.sent() == []
    bench.ack(4, 99)
    assert bench.sent() == [5, 6, 7, 8, 9, 10]
    bench.ack(3, 5)  # overtaken by a later one: says nothing new
    assert bench.over == []
    bench.ack(10, 99)
    assert bench.over == [bench.sender]


async def test_goes_back_to_the_first_missing_one() -> None:
    bench = Bench(1000)
    bench.ack(1, 5)
    bench.ack(3, 5)
    bench.sent()
    await asyncio.sleep(RESEND_TIME * 1.5)
    assert bench.sent() == [4, 5]
    bench.ack(5, 9)
    await asyncio.sleep(60)
    assert bench.sent() == []


async def test_gives_up() -> None:
    bench = Bench(10)
    await asyncio.sleep(RESEND_TIME * (MAX_RESENDS + 2))
    last = read_rmpp(bench.out[-1])
    assert (last.type, last.status) == (RmppType.ABORT, RmppStatus.TOO_MANY_RETRIES)
    assert bench.sent() == [1] * (MAX_RESENDS + 1)
    assert bench.over == [bench.sender]


async def test_progress_renews_patience() -> None:
    bench = Bench(1000)
    for segment in range(1, 5):
        await asyncio.sleep(RESEND_TIME * (MAX_RESENDS - 1))
        bench.ack(segment, segment + 1)
    assert bench.over == []
    bench.ack(5, 5)
    assert bench.over == [bench.sender]


async def test_nonsense_is_aborted() -> None:
    for segment, window, status in ((2, 9, RmppStatus.BAD_SEGMENT), (1, 0, RmppStatus.WINDOW_TOO_SMALL)):
        bench = Bench(1000)
        bench.ack(segment, window)
        last = read_rmpp(bench.out[-1])
        assert (last.type, last.status) == (RmppType.ABORT, status)
        assert bench.over == [bench.sender]


async def test_stop_says_nothing() -> None:
    bench = Bench(1000)
    bench.sender.stop()
    await asyncio.sleep(60)
    assert bench.sent() == [1]
    assert bench.over == []


def test_key_uses_the_half_of_the_transaction_id_that_is_the_requesters() -> None:
    assert sender_key(5, 1, HEADER) == (5, 1, 3, 7)
