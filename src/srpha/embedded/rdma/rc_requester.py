"""Requester half of a reliable connection: segmentation, retransmission, READ reassembly (IBA 9.7.3, 9.7.5, 9.7.8).

No clock and no loop: packets leave through ``transmit``, the time comes from ``clock``, and ``arm`` asks for a later
:meth:`Requester.on_timer`. Every packet is kept until acknowledged; a NAK of the sequence, a hole in read responses or
silence sends all that is outstanding again (go-back-N).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias, final

from srpha.embedded.rdma.rc_outcome import CloseReason
from srpha.wire.layout import Buffer
from srpha.wire.rc import PSN_MASK, NakCode, Opcode, RcAddress, RcPacket, pack_rdma, pack_send

WINDOW: Final = 256
"""Packets outstanding per connection: 1 MiB of data at the largest MTU."""
READ_PACKETS: Final = 65536
"""Most response packets of one RDMA READ, so that all outstanding ones stay far below half of the PSN circle."""
_ACK_INTERVAL: Final = 63
"""Mask of PSNs that ask for an acknowledgement inside a long message."""
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
_READ_LAST: Final = int(Opcode.RC_READ_RESPONSE_LAST)

_NAK_REASONS: Final = {
    int(NakCode.INVALID_REQUEST): CloseReason.REMOTE_INVALID_REQUEST,
    int(NakCode.REMOTE_ACCESS_ERROR): CloseReason.REMOTE_ACCESS_ERROR,
    int(NakCode.REMOTE_OPERATIONAL_ERROR): CloseReason.REMOTE_OPERATION_ERROR,
}


@final
class _Message:
    """A SEND or WRITE that is longer than a packet or has to wait; ``rkey`` < 0 means SEND."""

    __slots__ = ("address", "data", "done", "offset", "rkey")

    def __init__(self, data: Buffer, address: int, rkey: int, done: Callable[[], None] | None) -> None:
        self.data = data
        self.address = address
        self.rkey = rkey
        self.done = done
        self.offset = 0


@final
class _Read:
    """An RDMA READ: waiting, or outstanding from ``psn`` (its next expected response)."""

    __slots__ = ("address", "done", "hole", "length", "parts", "psn", "received", "rkey")

    def __init__(self, address: int, rkey: int, length: int, done: Callable[[bytes], None]) -> None:
        self.address = address
        self.rkey = rkey
        self.length = length
        self.done = done
        self.psn = 0
        self.received = 0
        self.parts: list[bytes] = []
        self.hole = False
        """Lost responses were asked for again, and none has arrived since."""

    def request(self, address: RcAddress) -> bytes:
        """The READ request for what is still missing."""
        at, left = self.address + self.received, self.length - self.received
        return pack_rdma(address, _READ_REQUEST, self.psn, at, self.rkey, left, b"", True)


# Last PSN, packet, and what to do when it is acknowledged
_Entry: TypeAlias = tuple[int, bytes, Callable[[], None] | _Read | None]


class Requester:
    """What one end of a connection asks of the other.

    ``timeout`` is in seconds, 0 for none (IBA 9.7.6.1.3); after ``retries`` resends without progress ``fail`` is
    called. It starts held: what is posted waits for :meth:`release`.
    """

    __slots__ = (
        "_address",
        "_arm",
        "_armed",
        "_base",
        "_clock",
        "_depth",
        "_fail",
        "_left",
        "_mtu",
        "_next",
        "_oldest",
        "_queue",
        "_reads",
        "_retries",
        "_stopped",
        "_timeout",
        "_transmit",
        "_unacked",
        "_window",
        "resent",
    )

    def __init__(
        self,
        address: RcAddress,
        psn: int,
        mtu: int,
        *,
        depth: int,
        timeout: float,
        retries: int,
        transmit: Callable[[bytes], None],
        clock: Callable[[], float],
        arm: Callable[[float], None],
        fail: Callable[[CloseReason], None],
    ) -> None:
        self._address = address
        self._mtu = mtu
        self._depth = depth
        self._timeout = timeout
        self._retries = self._left = retries
        self._transmit = transmit
        self._clock = clock
        self._arm = arm
        self._fail = fail
        self._next = psn
        self._oldest = psn
        self._unacked: deque[_Entry] = deque()
        self._queue: deque[_Message | _Read] = deque()
        self._reads: deque[_Read] = deque()
        self._window = 0
        self._base = 0.0
        self._armed = False
        self._stopped = False
        self.resent = 0
        """Packets sent again so far."""

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is outstanding."""
        return not self._unacked and not self._queue

    def release(self) -> None:
        """Let posts out."""
        if not self._stopped:
            self._window = WINDOW
            self._pump()

    def stop(self) -> None:
        """Forget everything; later calls do nothing."""
        self._stopped = True
        self._window = 0
        self._unacked.clear()
        self._queue.clear()
        self._reads.clear()

    def send(self, message: Buffer) -> None:
        """Post a SEND."""
        unacked = self._unacked
        if len(message) > self._mtu or self._queue or len(unacked) >= self._window:
            self._enqueue(message, 0, -1, None)
            return
        psn = self._next
        self._next = psn + 1 & PSN_MASK
        packet = pack_send(self._address, _SEND_ONLY, psn, message, True)
        if not unacked:
            self._start_clock()
        unacked.append((psn, packet, None))
        self._transmit(packet)

    def write(self, address: int, rkey: int, data: Buffer, done: Callable[[], None] | None) -> None:
        """Post an RDMA WRITE."""
        unacked = self._unacked
        size = len(data)
        if size > self._mtu or self._queue or len(unacked) >= self._window:
            self._enqueue(data, address, rkey, done)
            return
        psn = self._next
        self._next = psn + 1 & PSN_MASK
        packet = pack_rdma(self._address, _WRITE_ONLY, psn, address, rkey, size, data, True)
        if not unacked:
            self._start_clock()
        unacked.append((psn, packet, done))
        self._transmit(packet)

    def read(self, address: int, rkey: int, length: int, done: Callable[[bytes], None]) -> None:
        """Post an RDMA READ; ValueError for no bytes or too many."""
        if not 0 < length <= READ_PACKETS * self._mtu:
            raise ValueError(f"an RDMA READ takes 1..{READ_PACKETS * self._mtu} bytes, got {length}")
        if not self._stopped:
            self._queue.append(_Read(address, rkey, length, done))
            self._pump()

    def on_ack(self, psn: int, syndrome: int) -> None:
        """Take an acknowledge packet (IBA 9.7.5.1.2); one outside of what is outstanding is ignored."""
        oldest = self._oldest
        if (psn - oldest) & PSN_MASK >= (self._next - oldest) & PSN_MASK:
            return
        if syndrome < 0x20:
            self._acknowledge(psn)
        elif 0x60 <= syndrome < 0x80:
            # A NAK acknowledges all before its PSN. An RNR NAK cannot come from a peer of ours; the timer covers it.
            if psn != oldest:
                self._acknowledge(psn - 1 & PSN_MASK)
            if syndrome == 0x60:
                self._retry()
            elif not self._stopped and (reason := _NAK_REASONS.get(syndrome & 0x1F)) is not None:
                self._fail(reason)

    def on_read_response(self, packet: RcPacket) -> None:
        """Take a READ response packet; one that nobody waits for is ignored."""
        reads = self._reads
        if not reads:
            return
        read = reads[0]
        psn = packet.psn
        if psn != read.psn:
            ahead = (psn - read.psn) & PSN_MASK < (self._next - read.psn) & PSN_MASK
            if ahead and not read.hole:
                read.hole = True
                self._retry()
            return
        if self._unacked[0][2] is not read:
            self._acknowledge(psn - 1 & PSN_MASK)
            if not reads or reads[0] is not read:  # a completion closed the connection
                return
        payload = packet.payload
        left = read.length - read.received
        last = left <= self._mtu
        if len(payload) != (left if last else self._mtu) or (packet.opcode >= _READ_LAST) is not last:
            self._fail(CloseReason.PEER_ERROR)
            return
        read.parts.append(payload)
        read.received += len(payload)
        read.psn = self._oldest = psn + 1 & PSN_MASK
        read.hole = False
        self._left = self._retries
        self._base = self._clock()
        if last:
            self._unacked.popleft()
            reads.popleft()
            read.done(payload if len(read.parts) == 1 else b"".join(read.parts))
            if self._queue:
                self._pump()

    def on_timer(self) -> None:
        """The time asked for by ``arm`` has come."""
        self._armed = False
        if not self._unacked:
            return
        deadline = self._base + self._timeout
        if self._clock() < deadline:
            self._armed = True
            self._arm(deadline)
            return
        for read in self._reads:
            read.hole = False
        self._retry()

    def _start_clock(self) -> None:
        self._base = self._clock()
        if not self._armed and self._timeout:
            self._armed = True
            self._arm(self._base + self._timeout)

    def _acknowledge(self, psn: int) -> None:
        """Everything up to ``psn`` has arrived, except READs whose responses are missing: those were lost."""
        self._oldest = psn + 1 & PSN_MASK
        unacked = self._unacked
        progress = False
        lost: _Read | None = None
        while unacked:
            last, _, completion = unacked[0]
            if (psn - last) & _BEHIND:
                if type(completion) is _Read:
                    self._oldest = completion.psn
                break
            if type(completion) is _Read:
                self._oldest = completion.psn
                lost = completion
                break
            progress = True
            unacked.popleft()
            if completion is not None:
                completion()
        if progress:
            self._left = self._retries
            self._base = self._clock()
        if lost is not None and not lost.hole and not self._stopped:
            lost.hole = True
            self._retry()
        if self._queue:
            self._pump()

    def _retry(self) -> None:
        """Send everything outstanding again, as long as retries are left."""
        if self._stopped or not self._unacked:
            return
        if self._left == 0:
            self._fail(CloseReason.RETRY_EXCEEDED)
            return
        self._left -= 1
        self.resent += len(self._unacked)
        self._start_clock()
        for _, packet, completion in self._unacked:
            self._transmit(completion.request(self._address) if type(completion) is _Read else packet)

    def _enqueue(self, data: Buffer, address: int, rkey: int, done: Callable[[], None] | None) -> None:
        if self._stopped:
            return
        message = _Message(memoryview(data), address, rkey, done)
        self._queue.append(message)
        self._pump()
        if self._queue and self._queue[-1] is message and type(data) is not bytes:
            message.data = memoryview(bytes(data))  # what waits must not change under the hands of its owner

    def _pump(self) -> None:
        """Put waiting work on the wire as far as the window and the READ depth allow."""
        queue = self._queue
        while queue and len(self._unacked) < self._window:
            work = queue[0]
            if type(work) is _Read:
                if len(self._reads) >= self._depth:
                    return
                queue.popleft()
                self._issue_read(work)
            elif self._issue(work):
                queue.popleft()

    def _issue_read(self, read: _Read) -> None:
        read.psn = psn = self._next
        after = psn + (read.length + self._mtu - 1) // self._mtu
        self._next = after & PSN_MASK
        packet = read.request(self._address)
        if not self._unacked:
            self._start_clock()
        self._unacked.append((after - 1 & PSN_MASK, packet, read))
        self._reads.append(read)
        self._transmit(packet)

    def _issue(self, message: _Message) -> bool:
        """Send packets of ``message`` until it ends (True) or the window is full."""
        data, offset, rkey = message.data, message.offset, message.rkey
        size, mtu, unacked, address = len(data), self._mtu, self._unacked, self._address
        if not unacked:
            self._start_clock()
        while True:
            room = self._window - len(unacked)
            if room <= 0:
                message.offset = offset
                return False
            first, last = offset == 0, offset + mtu >= size
            piece = data[offset : offset + mtu]
            psn = self._next
            self._next = psn + 1 & PSN_MASK
            ask = last or room == 1 or not psn & _ACK_INTERVAL
            if rkey < 0:
                opcode = (_SEND_ONLY if first else _SEND_LAST) if last else _SEND_FIRST if first else _SEND_MIDDLE
                packet = pack_send(address, opcode, psn, piece, ask)
            elif first:
                opcode = _WRITE_ONLY if last else _WRITE_FIRST
                packet = pack_rdma(address, opcode, psn, message.address, rkey, size, piece, ask)
            else:
                packet = pack_send(address, _WRITE_LAST if last else _WRITE_MIDDLE, psn, piece, ask)
            unacked.append((psn, packet, message.done if last else None))
            self._transmit(packet)
            if last:
                return True
            offset += mtu
