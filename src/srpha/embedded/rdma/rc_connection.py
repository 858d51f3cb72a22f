"""One reliable connection of an embedded HCA port: queue pair, timer, end of life (IBA 9.7, 10.3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from srpha.core.seams import Unwatch
from srpha.embedded.fabric.hardware import Port
from srpha.embedded.rdma.memory import MemoryRegion
from srpha.embedded.rdma.rc_outcome import CloseReason
from srpha.embedded.rdma.rc_requester import Requester
from srpha.embedded.rdma.rc_responder import Responder
from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import Gid
from srpha.wire.layout import Buffer
from srpha.wire.rc import Opcode, RcAddress, unpack

_LAST_REQUEST: Final = int(Opcode.RC_READ_REQUEST)
_ACKNOWLEDGE: Final = int(Opcode.RC_ACKNOWLEDGE)
_PARTITION: Final = 0x7FFF


@dataclass(frozen=True, slots=True, kw_only=True)
class RcParameters:
    """What both ends agreed on by REQ and REP."""

    local_qpn: int
    remote_qpn: int
    local_gid: Gid
    remote_gid: Gid
    address: RcAddress
    """Of the packets that we send."""
    mtu: int
    """Bytes."""
    send_psn: int
    receive_psn: int
    depth: int
    """READs that we may have outstanding."""
    ack_timeout: float
    """Seconds; 0 for none."""
    retry_count: int
    max_message: int
    close_on_port_error: bool
    private_data: bytes


class AckBatch:
    """Acknowledgements of all connections of a port, sent together at the end of a turn of the loop."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Responder] = []

    def add(self, responder: Responder) -> None:
        """Flush ``responder`` when the present turn of the loop is over."""
        waiting = self._waiting
        if not waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        waiting.append(responder)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for responder in waiting:
            responder.flush()


class RcConnection:
    """One end of a reliable connection. All methods are for the event loop's thread and never wait.

    ``on_receive`` gets one SEND message, whole; messages that come before it is set are kept for it. ``on_closed`` is
    called exactly once unless :meth:`destroy` came first; the queue pair is gone by then: no region is touched any
    more, and posts are ignored. What is posted keeps its order, RDMA and SEND alike, and buffers are taken when posted:
    their owner may change them at once. Receives are always posted: RNR does not occur.
    """

    __slots__ = (
        "_early",
        "_ended",
        "_loop",
        "_on_closed",
        "_on_receive",
        "_parameters",
        "_partition",
        "_port",
        "_reason",
        "_remote_lid",
        "_requester",
        "_responder",
        "_timer",
        "_unbind",
        "dropped",
        "is_open",
        "on_first_message",
    )

    def __init__(
        self,
        port: Port,
        parameters: RcParameters,
        regions: Mapping[int, MemoryRegion],
        acks: AckBatch,
        ended: Callable[[RcConnection, CloseReason | None], None],
    ) -> None:
        """Bind the queue pair. Posts wait until :meth:`establish`.

        ``ended`` hears the reason when the connection ends, before ``on_closed``; None means :meth:`destroy`.
        """
        self._port = port
        self._parameters = parameters
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._reason: CloseReason | None = None
        self._on_closed: Callable[[CloseReason], None] | None = None
        self._on_receive: Callable[[bytes], None] | None = None
        self._early: list[bytes] = []
        self.on_first_message: Callable[[], None] | None = None
        """Hears that the peer sends, so that RTU is not needed any more. For the connection manager."""
        self.is_open = True
        """Whether posts are still carried."""
        self.dropped = 0
        """Packets that were malformed or not from the peer."""
        address = parameters.address
        self._remote_lid = address.dlid
        self._partition = address.pkey & _PARTITION
        self._requester = Requester(
            address,
            parameters.send_psn,
            parameters.mtu,
            depth=parameters.depth,
            timeout=parameters.ack_timeout,
            retries=parameters.retry_count,
            transmit=port.send,
            clock=self._loop.time,
            arm=self._arm,
            fail=self.close,
        )
        self._responder = Responder(
            address,
            parameters.receive_psn,
            parameters.mtu,
            regions=regions,
            max_message=parameters.max_message,
            transmit=port.send,
            schedule=acks.add,
            deliver=self._receive_early,
            fail=self.close,
        )
        self._unbind: Unwatch = port.bind(parameters.local_qpn, self._receive)

    @property
    def private_data(self) -> bytes:
        """The peer's private data: 196 bytes of its REP, or 92 bytes of its REQ at the accepting end."""
        return self._parameters.private_data

    @property
    def local_gid(self) -> Gid:
        return self._parameters.local_gid

    @property
    def remote_gid(self) -> Gid:
        return self._parameters.remote_gid

    @property
    def local_qpn(self) -> int:
        return self._parameters.local_qpn

    @property
    def remote_qpn(self) -> int:
        return self._parameters.remote_qpn

    @property
    def close_on_port_error(self) -> bool:
        return self._parameters.close_on_port_error

    @property
    def resent(self) -> int:
        """Request packets sent again so far."""
        return self._requester.resent

    @property
    def on_receive(self) -> Callable[[bytes], None]:
        """Gets each SEND message."""
        return self._on_receive or self._receive_early

    @on_receive.setter
    def on_receive(self, callback: Callable[[bytes], None]) -> None:
        first = self._on_receive is None
        self._on_receive = callback
        if first and self._early:
            self._loop.call_soon(self._release_early)
        elif self._responder.deliver != self._receive_early and self.is_open:
            self._responder.deliver = callback

    @property
    def on_closed(self) -> Callable[[CloseReason], None]:
        """Hears why the connection ended."""
        return self._on_closed or _ignore

    @on_closed.setter
    def on_closed(self, callback: Callable[[CloseReason], None]) -> None:
        if self._on_closed is None and self._reason is not None:
            self._loop.call_soon(callback, self._reason)
        self._on_closed = callback

    def send(self, message: Buffer) -> None:
        """Send one message."""
        self._requester.send(message)

    def rdma_write(self, address: int, rkey: int, data: Buffer, done: Callable[[], None] | None = None) -> None:
        """Write ``data`` into the peer's memory; ``done`` when the peer acknowledged. A later SEND arrives after it."""
        self._requester.write(address, rkey, data, done)

    def rdma_read(self, address: int, rkey: int, length: int, done: Callable[[bytes], None]) -> None:
        """Read ``length`` bytes (> 0, at most 65536 packets) of the peer's memory; ``done`` gets them."""
        self._requester.read(address, rkey, length, done)

    def disconnect(self) -> None:
        """Disconnect: memory is left alone at once, DREQ goes out with retries, then ``on_closed(LOCAL)``."""
        if self.is_open:
            self.shut()
            self._ended(self, CloseReason.LOCAL)

    def destroy(self) -> None:
        """Be gone at once and silently: no packet, no callback. For a crash, or when nobody is interested any more."""
        self.shut()
        self._on_closed = _ignore
        self._ended(self, None)

    def establish(self) -> None:
        """The handshake is complete: let posts out. For the connection manager."""
        self._requester.release()

    def close(self, reason: CloseReason) -> None:
        """End with ``reason``. For the connection manager and the protocol's halves."""
        if self.is_open:
            self.shut()
            self._ended(self, reason)
            self.report(reason)

    def report(self, reason: CloseReason) -> None:
        """Tell ``on_closed``. For the connection manager, when a disconnection is over."""
        if self._reason is None:
            self._reason = reason
            if self._on_closed is not None:
                self._on_closed(reason)

    def shut(self) -> None:
        """Give up the queue pair; no packet comes or goes any more. For the connection manager."""
        self.is_open = False
        self._unbind()
        self._requester.stop()
        self._responder.stop()
        self._early.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _receive(self, data: bytes) -> None:
        try:
            packet = unpack(data)
        except DecodeError:
            self.dropped += 1
            return
        opcode = packet[0]
        if packet[3] != self._remote_lid or packet[5] & _PARTITION != self._partition or not self.is_open:
            self.dropped += 1
        elif opcode <= _LAST_REQUEST:
            self._responder.on_request(packet)
        elif opcode == _ACKNOWLEDGE:
            self._requester.on_ack(packet[1], data[packet[8]])
        elif opcode < _ACKNOWLEDGE:
            self._requester.on_read_response(packet)
        else:
            self.dropped += 1

    def _receive_early(self, message: bytes) -> None:
        """Take the first message, and those that come before there is somebody to hand them to."""
        if self.on_first_message is not None:
            hook, self.on_first_message = self.on_first_message, None
            hook()
        self._early.append(message)
        if self._on_receive is not None and len(self._early) == 1:
            self._release_early()

    def _release_early(self) -> None:
        """Hand over what came before ``on_receive`` was set, in order."""
        early = self._early
        while early and self._on_receive is not None:
            self._on_receive(early.pop(0))
        if self.is_open and self._on_receive is not None:
            self._responder.deliver = self._on_receive

    def _arm(self, deadline: float) -> None:
        self._timer = self._loop.call_at(deadline, self._requester.on_timer)


def _ignore(_reason: CloseReason) -> None:
    """Nobody listens."""
