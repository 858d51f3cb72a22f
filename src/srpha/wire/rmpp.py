"""The Reliable Multi-Packet Transaction Protocol: segments, reassembly, sender and receiver (IBA 13.6).

Only subnet administration uses RMPP here: 56 bytes of header (common 24, RMPP 12, SA 20) in front of 200 bytes of
payload in every segment. A *message* is the header of the first segment followed by the payload of all segments, as the
kernel's umad hands it over. Sender and receiver do no I/O: MADs and ``now`` (seconds) go in, MADs to send come out, and
``deadline`` says when to call ``expire``. Double-sided transfers (GetMulti) are not covered; nothing
here asks for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag, auto
from typing import Final

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.layout import Buffer, Structure, structure, uint
from srpha.wire.mad import MAD_LENGTH, RESPONSE_BIT, read_header

RMPP_VERSION: Final = 1
RMPP_OFFSET: Final = 24
RMPP_DATA: Final = 220
"""Bytes of a segment that PayloadLength counts: everything behind the RMPP header."""
SA_HEADER_LENGTH: Final = 56
SA_PAYLOAD: Final = 200
SA_CLASS_HEADER: Final = 20
NO_RESPONSE_TIME: Final = 0x1F
MAX_SEGMENTS: Final = 1 << 16
"""Bound on a message that a peer may make us keep: 65536 segments, 13 MB, more than a full subnet's NodeRecords."""


class RmppType(IntEnum):
    """RMPPType (IBA 13.6.2.1)."""

    NONE = 0
    DATA = 1
    ACK = 2
    STOP = 3
    ABORT = 4


class RmppFlag(IntFlag):
    """RMPPFlags (IBA 13.6.2.1)."""

    ACTIVE = 1
    FIRST = 2
    LAST = 4


class RmppStatus(IntEnum):
    """RMPPStatus (IBA 13.6.2.1, table 175). ``RESOURCES`` goes with STOP, the others with ABORT."""

    NORMAL = 0
    RESOURCES = 1
    TOTAL_TIME_TOO_LONG = 118
    BAD_LENGTH = 119
    BAD_SEGMENT = 120
    BAD_TYPE = 121
    WINDOW_TOO_SMALL = 122
    SEGMENT_TOO_BIG = 123
    BAD_STATUS = 124
    BAD_VERSION = 125
    TOO_MANY_RETRIES = 126
    UNSPECIFIED = 127


def describe_rmpp_status(status: int) -> str:
    """One line for an operator on an RMPP status."""
    try:
        return f"{RmppStatus(status).name.lower().replace('_', ' ')} (RMPP status {status})"
    except ValueError:
        return f"RMPP status {status}"


class RmppError(DecodeError):
    """A segment broke the protocol, or the peer ended the transfer; ``status`` says why (IBA table 175)."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{text}: {describe_rmpp_status(status)}")
        self.status = status


@structure(length=12)
class RmppHeader(Structure):
    """The RMPP header, 12 bytes at offset 24 of a MAD (IBA 13.6.2.1).

    ``length_or_window`` is PayloadLength in DATA, NewWindowLast in ACK and reserved in STOP and ABORT.
    """

    version: int = uint(0, 8)
    type: int = uint(1, 8)
    response_time: int = uint(2, 5)
    flags: int = uint(2, 3, bit=5)
    status: int = uint(3, 8)
    segment: int = uint(4, 32)
    length_or_window: int = uint(8, 32)

    @property
    def is_active(self) -> bool:
        return bool(self.flags & RmppFlag.ACTIVE)


def read_rmpp(mad: Buffer) -> RmppHeader:
    """The RMPP header of a MAD."""
    return RmppHeader.decode(mad, RMPP_OFFSET)


def segment_count(payload_length: int) -> int:
    """Segments that a payload of so many bytes needs; an empty one needs one."""
    return max(1, -(-payload_length // SA_PAYLOAD))


def segment(header: Buffer, payload: Buffer) -> tuple[bytes, ...]:
    """A message as DATA segments of 256 bytes.

    ``header`` is the 56 bytes that every segment repeats; its RMPP part is replaced. PayloadLength counts the 20 bytes
    of SA header of each segment: the first gives the sum over all, the last its own, the others 0 (IBA 13.6.2.2).
    """
    if len(header) != SA_HEADER_LENGTH:
        raise EncodeError(f"a segment's header has {SA_HEADER_LENGTH} bytes, got {len(header)}")
    count = segment_count(len(payload))
    return tuple(make_segment(header, payload, number, count) for number in range(1, count + 1))


def make_segment(header: Buffer, payload: Buffer, number: int, count: int) -> bytes:
    """Segment ``number`` of ``count``, see :func:`segment`."""
    piece = bytes(payload[(number - 1) * SA_PAYLOAD : number * SA_PAYLOAD])
    flags = RmppFlag.ACTIVE
    length = 0
    if number == count:
        flags |= RmppFlag.LAST
        length = SA_CLASS_HEADER + len(piece)
    if number == 1:
        flags |= RmppFlag.FIRST
        length = SA_CLASS_HEADER * count + len(payload)
    rmpp = RmppHeader(
        version=RMPP_VERSION,
        type=RmppType.DATA,
        response_time=NO_RESPONSE_TIME,
        flags=flags,
        segment=number,
        length_or_window=length,
    )
    mad = bytes(header[:RMPP_OFFSET]) + rmpp.encode() + bytes(header[36:SA_HEADER_LENGTH]) + piece
    return mad.ljust(MAD_LENGTH, b"\0")


def control(
    data: Buffer,
    kind: RmppType,
    *,
    status: RmppStatus = RmppStatus.NORMAL,
    acknowledged: int = 0,
    window_last: int = 0,
    to_sender: bool = True,
) -> bytes:
    """An ACK, STOP or ABORT, 256 bytes, for the transfer that ``data`` (56 bytes at least) belongs to.

    ``acknowledged`` and ``window_last`` are the fields of an ACK. A packet to the sender of the data has the method's
    response bit inverted (IBA 13.6.2.3); the sender's own ABORT keeps the method.
    """
    if len(data) < SA_HEADER_LENGTH:
        raise EncodeError(f"a control packet repeats {SA_HEADER_LENGTH} bytes of header, got {len(data)}")
    head = bytearray(data[:SA_HEADER_LENGTH])
    if to_sender:
        head[3] ^= RESPONSE_BIT
    head[RMPP_OFFSET:36] = RmppHeader(
        version=RMPP_VERSION,
        type=kind,
        response_time=NO_RESPONSE_TIME,
        flags=RmppFlag.ACTIVE,
        status=status,
        segment=acknowledged,
        length_or_window=window_last,
    ).encode()
    return bytes(head).ljust(MAD_LENGTH, b"\0")


class Reassembler:
    """Joins the DATA segments of one message, in any order, with any repeats.

    The first segment fixes class, method, transaction and attribute; segments of another transfer raise
    :class:`DecodeError`. What breaks the protocol raises :class:`RmppError` with the status to ABORT with. In both
    cases nothing is changed.
    """

    def __init__(self, *, max_segments: int = MAX_SEGMENTS) -> None:
        self._max = max_segments
        self._key: bytes | None = None
        self._pieces: dict[int, bytes] = {}
        self._header = b""
        self._last: int | None = None
        self._contiguous = 0
        self._highest = 0

    @property
    def contiguous(self) -> int:
        """Number of the last segment before the first gap; 0 when the first is missing. This is what an ACK tells."""
        return self._contiguous

    @property
    def complete(self) -> bool:
        return self._last is not None and self._contiguous == self._last

    def feed(self, mad: Buffer) -> bytes | None:
        """Take one 256-byte MAD. Returns the message when this segment completed it, otherwise None.

        A MAD without an active RMPP header is a message by itself and comes back whole, as from the kernel.
        The kernel takes the length from the last segment's PayloadLength alone, and so does this.
        """
        read_header(mad)
        rmpp = read_rmpp(mad)
        if not rmpp.is_active:
            if self._key is not None:
                raise RmppError(RmppStatus.BAD_TYPE, "a MAD without RMPP amid a transfer")
            return bytes(mad)
        self._check(mad, rmpp)
        number = rmpp.segment
        if number in self._pieces:
            return None
        piece = bytes(mad[SA_HEADER_LENGTH:MAD_LENGTH])
        if rmpp.flags & RmppFlag.LAST:
            piece = piece[: _last_length(rmpp.length_or_window)]
            self._last = number
        if self._key is None:
            self._key = _transfer_key(mad)
        if number == 1:
            self._header = bytes(mad[:SA_HEADER_LENGTH])
        self._pieces[number] = piece
        self._highest = max(self._highest, number)
        while self._contiguous + 1 in self._pieces:
            self._contiguous += 1
        if not self.complete:
            return None
        return self._header + b"".join(self._pieces[n] for n in range(1, self._contiguous + 1))

    def _check(self, mad: Buffer, rmpp: RmppHeader) -> None:
        if self._key is not None and _transfer_key(mad) != self._key:
            raise DecodeError("a segment of another transfer")
        if rmpp.version != RMPP_VERSION:
            raise RmppError(RmppStatus.BAD_VERSION, f"RMPP version {rmpp.version}")
        if rmpp.type in (RmppType.STOP, RmppType.ABORT):
            raise RmppError(rmpp.status, f"the peer sent {RmppType(rmpp.type).name}")
        if rmpp.type != RmppType.DATA:
            raise RmppError(RmppStatus.BAD_TYPE, f"RMPP type {rmpp.type} where DATA belongs")
        if rmpp.status != RmppStatus.NORMAL:
            raise RmppError(RmppStatus.BAD_STATUS, f"DATA with status {rmpp.status}")
        number, last = rmpp.segment, bool(rmpp.flags & RmppFlag.LAST)
        if number == 0 or bool(rmpp.flags & RmppFlag.FIRST) != (number == 1):
            raise RmppError(RmppStatus.BAD_SEGMENT, f"segment {number} with flags {rmpp.flags}")
        if number > self._max or (self._last is not None and number > self._last):
            raise RmppError(RmppStatus.SEGMENT_TOO_BIG, f"segment {number}")
        if last and (number < self._highest or self._last not in (None, number)):
            raise RmppError(RmppStatus.BAD_LENGTH, f"segment {number} is last, {self._highest} came before")
        if last:
            _last_length(rmpp.length_or_window)


def _last_length(payload_length: int) -> int:
    """Payload bytes of the last segment. Too much means all of it, as in the kernel; less than a SA header is wrong."""
    if payload_length < SA_CLASS_HEADER:
        raise RmppError(RmppStatus.BAD_LENGTH, f"PayloadLength {payload_length} of the last segment")
    return min(payload_length - SA_CLASS_HEADER, SA_PAYLOAD)


def _transfer_key(mad: Buffer) -> bytes:
    """What all segments of a transfer share: class, class version, method, transaction, attribute and its modifier."""
    return bytes(mad[1:4]) + bytes(mad[8:18]) + bytes(mad[20:24])


class TransferState(Enum):
    """State of a sender or receiver. Only ``ACTIVE`` has a deadline."""

    IDLE = auto()
    ACTIVE = auto()
    DONE = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class RmppStep:
    """What came of one event: MADs to send in this order, and the message when it is complete."""

    send: tuple[bytes, ...] = ()
    message: bytes | None = None


class RmppSender:
    """Sends one message (IBA 13.6.6.2): as far as the window goes, again from the last acknowledged on time-out.

    ``message`` is 56 bytes of header and the payload. ``timeout`` is seconds without a useful ACK before segments are
    repeated; after ``retries`` repeats in a row the transfer is aborted with status 126.
    """

    def __init__(self, message: Buffer, *, timeout: float, retries: int) -> None:
        if len(message) < SA_HEADER_LENGTH:
            raise EncodeError(f"a message has at least {SA_HEADER_LENGTH} bytes, got {len(message)}")
        if timeout <= 0 or retries < 0:
            raise EncodeError(f"RMPP time-out {timeout} s with {retries} retries")
        self._header = bytes(message[:SA_HEADER_LENGTH])
        self._payload = bytes(message[SA_HEADER_LENGTH:])
        self._count = segment_count(len(self._payload))
        self._timeout = timeout
        self._retries = retries
        self._retries_left = retries
        self._acknowledged = 0
        self._sent = 0
        self._window_last = 1  # a sender may send one segment before it is told of a window
        self.state = TransferState.IDLE
        self.failure: int | None = None
        self.deadline: float | None = None

    def start(self, now: float) -> RmppStep:
        """Send the first segment."""
        if self.state is not TransferState.IDLE:
            raise EncodeError(f"the transfer is already {self.state.name}")
        self.state = TransferState.ACTIVE
        return self._fill(now)

    def receive(self, mad: Buffer, now: float) -> RmppStep:
        """Take an ACK, STOP or ABORT of this transfer; a late or repeated one changes nothing.

        Raises :class:`DecodeError` for a MAD of another transfer or without RMPP, and then changes nothing.
        """
        read_header(mad)
        rmpp = read_rmpp(mad)
        inverted = bytearray(mad)
        inverted[3] ^= RESPONSE_BIT
        if not rmpp.is_active or _transfer_key(inverted) != _transfer_key(self._header):
            raise DecodeError("not a control packet of this transfer")
        if self.state is not TransferState.ACTIVE:
            return RmppStep()
        if rmpp.version != RMPP_VERSION:
            return self._abort(RmppStatus.BAD_VERSION)
        match rmpp.type:
            case RmppType.ACK:
                return self._acknowledge(rmpp, now)
            case RmppType.STOP | RmppType.ABORT:
                self._end(TransferState.FAILED, rmpp.status)
                return RmppStep()
            case _:
                return self._abort(RmppStatus.BAD_TYPE)

    def expire(self, now: float) -> RmppStep:
        """The deadline passed: repeat what is not acknowledged, or abort after the last retry."""
        if self.deadline is None or now < self.deadline:
            return RmppStep()
        if self._retries_left == 0:
            return self._abort(RmppStatus.TOO_MANY_RETRIES)
        self._retries_left -= 1
        self._sent = self._acknowledged
        return self._fill(now)

    def _acknowledge(self, rmpp: RmppHeader, now: float) -> RmppStep:
        acknowledged, window_last = rmpp.segment, rmpp.length_or_window
        if rmpp.status != RmppStatus.NORMAL:
            return self._abort(RmppStatus.BAD_STATUS)
        if window_last < acknowledged:
            return self._abort(RmppStatus.WINDOW_TOO_SMALL)
        if acknowledged > min(self._count, self._window_last):
            return self._abort(RmppStatus.SEGMENT_TOO_BIG)
        if acknowledged < self._acknowledged or window_last < self._window_last:
            return RmppStep()
        if acknowledged == self._count:
            self._end(TransferState.DONE, None)
            return RmppStep()
        useful = acknowledged > self._acknowledged or window_last > self._window_last
        if not useful:
            return RmppStep()
        self._acknowledged = acknowledged
        self._sent = max(self._sent, acknowledged)
        self._window_last = window_last
        self._retries_left = self._retries
        return self._fill(now)

    def _fill(self, now: float) -> RmppStep:
        first, last = self._sent + 1, min(self._window_last, self._count)
        self._sent = max(self._sent, last)
        self.deadline = now + self._timeout
        return RmppStep(
            tuple(make_segment(self._header, self._payload, number, self._count) for number in range(first, last + 1))
        )

    def _abort(self, status: RmppStatus) -> RmppStep:
        self._end(TransferState.FAILED, status)
        return RmppStep((control(self._header, RmppType.ABORT, status=status, to_sender=False),))

    def _end(self, state: TransferState, failure: int | None) -> None:
        self.state = state
        self.failure = failure
        self.deadline = None


class RmppReceiver:
    """Receives one message (IBA 13.6.6.3): acknowledges each full window, the end, and every repeat.

    ``window`` is how many segments the sender may run ahead; ``timeout`` is seconds without a new segment before the
    transfer is aborted with status 118. A receiver that is done still answers repeats, since its last ACK may be lost.
    """

    def __init__(self, *, window: int = 64, timeout: float = 40.0, max_segments: int = MAX_SEGMENTS) -> None:
        if window < 1 or timeout <= 0:
            raise EncodeError(f"RMPP window {window}, time-out {timeout} s")
        self._reassembler = Reassembler(max_segments=max_segments)
        self._window = window
        self._window_last = 1
        self._timeout = timeout
        self._header = b""
        self.state = TransferState.IDLE
        self.failure: int | None = None
        self.deadline: float | None = None

    def receive(self, mad: Buffer, now: float) -> RmppStep:
        """Take a DATA, STOP or ABORT of this transfer, or a MAD without RMPP, which is a message by itself.

        Raises :class:`DecodeError` for a MAD of another transfer, and then changes nothing.
        """
        header = read_header(mad)
        rmpp = read_rmpp(mad)
        if self._header and _transfer_key(mad) != _transfer_key(self._header):
            raise DecodeError(f"a segment of another transfer, transaction {header.transaction_id:#x}")
        if self.state is TransferState.FAILED:
            return RmppStep()
        if not rmpp.is_active and self.state is TransferState.IDLE:
            self._end(TransferState.DONE, None)
            return RmppStep(message=bytes(mad))
        if not self._header:
            self._header = bytes(mad[:SA_HEADER_LENGTH])
        if rmpp.is_active and rmpp.type in (RmppType.STOP, RmppType.ABORT):
            if self.state is not TransferState.DONE:
                self._end(TransferState.FAILED, rmpp.status)
            return RmppStep()
        if self.state is TransferState.DONE:
            return self._repeat(rmpp)
        if rmpp.is_active and rmpp.type == RmppType.DATA and rmpp.segment > self._window_last:
            return RmppStep()  # beyond the window: dropped, as if it had been lost
        before = self._reassembler.contiguous
        try:
            message = self._reassembler.feed(mad)
        except RmppError as error:
            self._end(TransferState.FAILED, error.status)
            return RmppStep((control(mad, RmppType.ABORT, status=RmppStatus(error.status)),))
        return self._advance(mad, rmpp, before, message, now)

    def expire(self, now: float) -> RmppStep:
        """The deadline passed: give up and tell the sender."""
        if self.deadline is None or now < self.deadline:
            return RmppStep()
        self._end(TransferState.FAILED, RmppStatus.TOTAL_TIME_TOO_LONG)
        return RmppStep((control(self._header, RmppType.ABORT, status=RmppStatus.TOTAL_TIME_TOO_LONG),))

    def _advance(self, mad: Buffer, rmpp: RmppHeader, before: int, message: bytes | None, now: float) -> RmppStep:
        contiguous = self._reassembler.contiguous
        if message is not None:
            self._header = bytes(mad[:SA_HEADER_LENGTH])
            self._end(TransferState.DONE, None)
            return RmppStep((self._ack(),), message)
        if self.state is TransferState.IDLE or contiguous > before:
            self.deadline = now + self._timeout
        self.state = TransferState.ACTIVE
        if contiguous >= self._window_last:
            self._window_last = contiguous + self._window
            return RmppStep((self._ack(),))
        if rmpp.segment <= before:
            return RmppStep((self._ack(),))
        return RmppStep()

    def _repeat(self, rmpp: RmppHeader) -> RmppStep:
        if rmpp.is_active and rmpp.type == RmppType.DATA and self._reassembler.complete:
            return RmppStep((self._ack(),))
        return RmppStep()

    def _ack(self) -> bytes:
        contiguous = self._reassembler.contiguous
        return control(
            self._header,
            RmppType.ACK,
            acknowledged=contiguous,
            window_last=max(self._window_last, contiguous),
        )

    def _end(self, state: TransferState, failure: int | None) -> None:
        self.state = state
        self.failure = failure
        self.deadline = None
