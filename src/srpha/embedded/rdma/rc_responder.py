"""Responder half of a reliable connection: order, memory access, acknowledgements (IBA 9.7.4, 9.7.5, 9.7.7).

No clock and no loop: packets leave through ``transmit``; ``schedule`` asks for :meth:`Responder.flush` at the end of
the present turn, so that one acknowledgement answers all packets of a burst. Receive buffers are always posted, so
there is no RNR NAK.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from srpha.embedded.rdma.memory import MemoryRegion
from srpha.embedded.rdma.rc_outcome import CloseReason
from srpha.wire.rc import (
    CREDITS_INVALID,
    PSN_MASK,
    NakCode,
    Opcode,
    RcAddress,
    RcPacket,
    nak_syndrome,
    pack_ack,
    pack_send,
    read_reth,
)

_ACK_EVERY: Final = 64
"""Packets after which an acknowledgement no longer waits for the end of the turn."""
_BEHIND: Final = 0x800000

_SEND_FIRST: Final = int(Opcode.RC_SEND_FIRST)
_SEND_MIDDLE: Final = int(Opcode.RC_SEND_MIDDLE)
_SEND_LAST: Final = int(Opcode.RC_SEND_LAST)
_SEND_ONLY: Final = int(Opcode.RC_SEND_ONLY)
_WRITE_FIRST: Final = int(Opcode.RC_WRITE_FIRST)
_WRITE_MIDDLE: Final = int(Opcode.RC_WRITE_MIDDLE)
_WRITE_LAST: Final = int(Opcode.RC_WRITE_LAST)
_WRITE_ONLY: Final = int(Opcode.RC_WRITE_ONLY)
_READ_REQUEST: Final = int(Opcode.RC_READ_REQUEST)
_READ_FIRST: Final = int(Opcode.RC_READ_RESPONSE_FIRST)
_READ_MIDDLE: Final = int(Opcode.RC_READ_RESPONSE_MIDDLE)
_READ_LAST: Final = int(Opcode.RC_READ_RESPONSE_LAST)
_READ_ONLY: Final = int(Opcode.RC_READ_RESPONSE_ONLY)
_ACKNOWLEDGE: Final = int(Opcode.RC_ACKNOWLEDGE)


class Responder:
    """What one end of a connection does for the other.

    ``deliver`` gets each whole SEND message. A request that breaks the protocol or reaches outside ``regions`` is
    answered with a NAK and ends the connection through ``fail``; one out of sequence changes nothing.
    """

    __slots__ = (
        "_address",
        "_due",
        "_expected",
        "_fail",
        "_hole",
        "_limit",
        "_message",
        "_mtu",
        "_received",
        "_regions",
        "_remaining",
        "_schedule",
        "_sequence",
        "_target",
        "_transmit",
        "_write_at",
        "deliver",
    )

    def __init__(
        self,
        address: RcAddress,
        psn: int,
        mtu: int,
        *,
        regions: Mapping[int, MemoryRegion],
        max_message: int,
        transmit: Callable[[bytes], None],
        schedule: Callable[[Responder], None],
        deliver: Callable[[bytes], None],
        fail: Callable[[CloseReason], None],
    ) -> None:
        self._address = address
        self._expected = psn
        self._mtu = mtu
        self._regions = regions
        self._limit = max_message
        self._transmit = transmit
        self._schedule = schedule
        self.deliver = deliver
        self._fail = fail
        self._sequence = 0
        """Messages completed (MSN)."""
        self._due = 0
        """Packets whose acknowledgement is owed."""
        self._hole = False
        """A sequence NAK is out and what it asked for has not come."""
        self._message: list[bytes] | None = None
        """Packets of a SEND that is not complete."""
        self._received = 0
        self._target: MemoryRegion | None = None
        """Region of a WRITE that is not complete."""
        self._write_at = 0
        self._remaining = 0

    def stop(self) -> None:
        """Owe nothing any more, touch nothing any more."""
        self._due = 0
        self._regions = {}
        self._message = None
        self._target = None
        self.deliver = _ignore

    def flush(self) -> None:
        """Send the acknowledgement that is owed, if any."""
        if self._due:
            self._due = 0
            self._transmit(
                pack_ack(self._address, _ACKNOWLEDGE, self._expected - 1 & PSN_MASK, CREDITS_INVALID, self._sequence)
            )

    def on_request(self, packet: RcPacket) -> None:
        """Take a SEND, WRITE or READ request packet."""
        opcode, psn, _, _, _, _, ask, _, _, payload, _ = packet
        if psn != self._expected:
            self._out_of_sequence(packet)
            return
        if self._hole:
            self._hole = False
        if opcode == _SEND_ONLY:
            if self._message is not None or self._target is not None or len(payload) > self._mtu:
                self._refuse(NakCode.INVALID_REQUEST)
                return
            self._expected = psn + 1 & PSN_MASK
            self._sequence = self._sequence + 1 & PSN_MASK
            if ask:
                self._owe()
            self.deliver(payload)
            return
        if opcode == _WRITE_ONLY:
            address, rkey, length = read_reth(packet)
            size = len(payload)
            if self._message is not None or self._target is not None or size > self._mtu or size != length:
                self._refuse(NakCode.INVALID_REQUEST)
                return
            if size:
                region = self._regions.get(rkey)
                if region is None:
                    self._refuse(NakCode.REMOTE_ACCESS_ERROR)
                    return
                start = address - region.address
                if start < 0 or start + size > region.length or region.view.readonly:
                    self._refuse(NakCode.REMOTE_ACCESS_ERROR)
                    return
                region.view[start : start + size] = payload
            self._expected = psn + 1 & PSN_MASK
            self._sequence = self._sequence + 1 & PSN_MASK
            if ask:
                self._owe()
            return
        if opcode == _READ_REQUEST:
            self._begin_read(packet)
        elif opcode <= _SEND_LAST:
            self._continue_send(opcode, payload, ask)
        else:
            self._continue_write(packet)

    def _owe(self) -> None:
        due = self._due
        self._due = due + 1
        if not due:
            self._schedule(self)
        elif due >= _ACK_EVERY:
            self.flush()

    def _out_of_sequence(self, packet: RcPacket) -> None:
        ahead = (packet.psn - self._expected) & PSN_MASK
        if ahead < _BEHIND:
            if not self._hole:
                self._hole = True
                self._due = 0  # the NAK acknowledges what came before
                self._nak(NakCode.PSN_SEQUENCE_ERROR)
        elif packet.opcode != _READ_REQUEST:
            self._owe()
        elif not packet.payload:
            # A READ asked for again is executed again (IBA 9.7.4.4). Its memory may be gone by now when the duplicate
            # was only late; then nobody waits for an answer.
            address, rkey, length = read_reth(packet)
            data = self._readable(address, rkey, length)
            if data is not None and max(1, -(-length // self._mtu)) <= PSN_MASK + 1 - ahead:
                self._respond(packet.psn, data)

    def _continue_send(self, opcode: int, payload: bytes, ask: bool) -> None:
        """SEND first, middle, last."""
        last = opcode == _SEND_LAST
        size = len(payload)
        if (
            self._target is not None
            or (self._message is None) is not (opcode == _SEND_FIRST)
            or (not 0 < size <= self._mtu if last else size != self._mtu)
        ):
            self._refuse(NakCode.INVALID_REQUEST)
            return
        parts = self._message
        if parts is None:
            parts = self._message = []
            self._received = 0
        self._received += size
        if self._received > self._limit:
            self._refuse(NakCode.INVALID_REQUEST)
            return
        parts.append(payload)
        self._expected = self._expected + 1 & PSN_MASK
        if ask:
            self._owe()
        if last:
            self._message = None
            self._sequence = self._sequence + 1 & PSN_MASK
            self.deliver(b"".join(parts))

    def _continue_write(self, packet: RcPacket) -> None:
        """WRITE first, middle, last. The whole range was checked at the first packet."""
        opcode, payload = packet.opcode, packet.payload
        size = len(payload)
        last = opcode == _WRITE_LAST
        region = self._target
        if self._message is not None or (region is None) is not (opcode == _WRITE_FIRST):
            self._refuse(NakCode.INVALID_REQUEST)
            return
        if region is None:
            address, rkey, length = read_reth(packet)
            if length <= self._mtu:
                self._refuse(NakCode.INVALID_REQUEST)
                return
            region = self._regions.get(rkey)
            if region is None or region.view.readonly or not _within(region, address, length):
                self._refuse(NakCode.REMOTE_ACCESS_ERROR)
                return
            self._write_at = address - region.address
            self._remaining = length
        elif self._regions.get(region.rkey) is not region:
            self._refuse(NakCode.REMOTE_ACCESS_ERROR)
            return
        if (
            size != (self._remaining if last else self._mtu)
            or size > self._mtu
            or (size == self._remaining) is not last
        ):
            self._refuse(NakCode.INVALID_REQUEST)
            return
        start = self._write_at
        region.view[start : start + size] = payload
        self._write_at = start + size
        self._remaining -= size
        self._expected = self._expected + 1 & PSN_MASK
        if last:
            self._target = None
            self._sequence = self._sequence + 1 & PSN_MASK
        else:
            self._target = region
        if packet.ack_request:
            self._owe()

    def _begin_read(self, packet: RcPacket) -> None:
        address, rkey, length = read_reth(packet)
        if self._message is not None or self._target is not None or packet.payload:
            self._refuse(NakCode.INVALID_REQUEST)
            return
        data = self._readable(address, rkey, length)
        if data is None:
            self._refuse(NakCode.REMOTE_ACCESS_ERROR)
            return
        psn = self._expected
        self._expected = psn + max(1, -(-length // self._mtu)) & PSN_MASK
        self._sequence = self._sequence + 1 & PSN_MASK
        self._due = 0  # the response acknowledges what came before
        self._respond(psn, data)

    def _readable(self, address: int, rkey: int, length: int) -> memoryview | None:
        """The bytes that a READ asks for; None when it may not have them."""
        if not length:
            return memoryview(b"")
        region = self._regions.get(rkey)
        if region is None or not _within(region, address, length):
            return None
        start = address - region.address
        return region.view[start : start + length]

    def _respond(self, psn: int, data: memoryview) -> None:
        """READ response packets from ``psn`` on."""
        mtu, route, count = self._mtu, self._address, self._sequence
        size = len(data)
        if size <= mtu:
            self._transmit(pack_ack(route, _READ_ONLY, psn, CREDITS_INVALID, count, data))
            return
        self._transmit(pack_ack(route, _READ_FIRST, psn, CREDITS_INVALID, count, data[:mtu]))
        offset = mtu
        while offset + mtu < size:
            psn = psn + 1 & PSN_MASK
            self._transmit(pack_send(route, _READ_MIDDLE, psn, data[offset : offset + mtu]))
            offset += mtu
        self._transmit(pack_ack(route, _READ_LAST, psn + 1 & PSN_MASK, CREDITS_INVALID, count, data[offset:]))

    def _nak(self, code: NakCode) -> None:
        self._transmit(pack_ack(self._address, _ACKNOWLEDGE, self._expected, nak_syndrome(code), self._sequence))

    def _refuse(self, code: NakCode) -> None:
        self._nak(code)
        self._fail(CloseReason.PEER_ERROR)


def _within(region: MemoryRegion, address: int, length: int) -> bool:
    return region.address <= address and address + length <= region.address + region.length


def _ignore(_message: bytes) -> None:
    """A message after the end."""
