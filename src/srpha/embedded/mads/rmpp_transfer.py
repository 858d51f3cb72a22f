"""The sending side of an RMPP transfer: window, acknowledgements, resending (IBA 13.6.6).

Segments go out as far as the receiver's window allows; what is not acknowledged in time goes out again from the first
missing one. Timers are the running loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from srpha.wire.mad import transaction_key
from srpha.wire.rmpp import RmppStatus, RmppType, control, make_segment, read_rmpp, segment_count

SenderKey = tuple[int, int, int, int]
"""LID and QP of the receiver, management class, low half of the transaction ID."""

RESEND_TIME: Final = 0.25
"""Seconds without an acknowledgement after which segments go out again."""
MAX_RESENDS: Final = 8
"""Resends without progress after which the transfer is given up."""


class RmppSender:
    """One message of ``header`` (56 bytes) and ``payload`` on its way to one receiver.

    ``send`` takes each 256-byte MAD; ``over`` is called once when the transfer ends by itself, well or not.
    """

    __slots__ = (
        "_acknowledged",
        "_count",
        "_header",
        "_next",
        "_over",
        "_payload",
        "_resends",
        "_send",
        "_timer",
        "_window",
        "key",
    )

    def __init__(
        self,
        key: SenderKey,
        header: bytes,
        payload: bytes,
        send: Callable[[bytes], None],
        over: Callable[[RmppSender], None],
    ) -> None:
        self.key = key
        self._header = header
        self._payload = payload
        self._count = segment_count(len(payload))
        self._send = send
        self._over = over
        self._acknowledged = 0
        self._next = 1
        self._window = 1
        self._resends = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Send the first segment."""
        self._advance()

    def stop(self) -> None:
        """End the transfer without a word."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def feed(self, mad: bytes) -> None:
        """Take an ACK, STOP or ABORT of this transfer; one that makes no sense ends the transfer with an ABORT."""
        rmpp = read_rmpp(mad)
        if rmpp.type != RmppType.ACK:
            self._end()
            return
        if rmpp.segment >= self._next or rmpp.length_or_window < rmpp.segment:
            wrong = RmppStatus.BAD_SEGMENT if rmpp.segment >= self._next else RmppStatus.WINDOW_TOO_SMALL
            self._send(control(self._header, RmppType.ABORT, status=wrong, to_sender=False))
            self._end()
            return
        if rmpp.segment < self._acknowledged:
            return  # an old one, overtaken
        if rmpp.segment > self._acknowledged:
            self._acknowledged = rmpp.segment
            self._resends = 0
        self._window = max(self._window, rmpp.length_or_window)
        if self._acknowledged == self._count:
            self._end()
        elif self._next <= min(self._window, self._count):
            self._advance()

    def _advance(self) -> None:
        for number in range(self._next, min(self._window, self._count) + 1):
            self._send(make_segment(self._header, self._payload, number, self._count))
            self._next = number + 1
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(RESEND_TIME, self._expire)

    def _expire(self) -> None:
        if self._resends == MAX_RESENDS:
            self._send(control(self._header, RmppType.ABORT, status=RmppStatus.TOO_MANY_RETRIES, to_sender=False))
            self._end()
            return
        self._resends += 1
        self._next = self._acknowledged + 1
        self._advance()

    def _end(self) -> None:
        self.stop()
        self._over(self)


def sender_key(lid: int, qpn: int, mad: bytes) -> SenderKey:
    """Key of the transfer that ``mad``, one of its segments or an answer to them, belongs to, seen from the sender."""
    return lid, qpn, mad[1], transaction_key(mad)
