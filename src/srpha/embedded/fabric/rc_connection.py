"""One reliable connection of an embedded HCA port: queue pair, timers, end of life (IBA 9.7, 10.3)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from srpha.wire.identifiers import Gid
from srpha.wire.layout import Buffer


class CloseReason(Enum):
    """Why a connection ended."""

    LOCAL = "disconnected by us"
    DISCONNECTED = "disconnected by the peer"
    RETRY_EXCEEDED = "the peer did not acknowledge in time"
    REMOTE_ACCESS_ERROR = "the peer refused our RDMA access"
    REMOTE_INVALID_REQUEST = "the peer found our request invalid"
    REMOTE_OPERATION_ERROR = "the peer could not complete our request"
    PEER_ERROR = "the peer broke the protocol or our memory's bounds"
    STALE = "the peer has forgotten the connection"
    HANDSHAKE = "the peer did not complete the connection's handshake"
    PORT_DOWN = "our port went down"


class RcConnection:
    """One end of a reliable connection. All methods are for the event loop's thread and never wait.

    ``on_receive`` gets one SEND message, whole; ``on_closed`` is called exactly once unless :meth:`destroy` came first,
    and when it is called the queue pair is gone: no region is touched any more, further posts are ignored.
    Messages posted keep their order, RDMA and SEND alike. Receives are always posted: RNR does not occur.
    """

    on_receive: Callable[[bytes], None]
    on_closed: Callable[[CloseReason], None]

    @property
    def private_data(self) -> bytes:
        """The peer's private data: 196 bytes of its REP, or 92 bytes of its REQ at the accepting end."""
        raise NotImplementedError

    @property
    def local_gid(self) -> Gid:
        raise NotImplementedError

    @property
    def remote_gid(self) -> Gid:
        raise NotImplementedError

    @property
    def local_qpn(self) -> int:
        raise NotImplementedError

    @property
    def remote_qpn(self) -> int:
        raise NotImplementedError

    @property
    def is_open(self) -> bool:
        """Whether posts are still carried."""
        raise NotImplementedError

    def send(self, message: Buffer) -> None:
        """Send one message. The buffer may be reused as soon as this returns only when it is immutable bytes."""

    def rdma_write(self, address: int, rkey: int, data: Buffer, done: Callable[[], None] | None = None) -> None:
        """Write ``data`` into the peer's memory; ``done`` when the peer acknowledged. A later SEND arrives after it."""

    def rdma_read(self, address: int, rkey: int, length: int, done: Callable[[bytes], None]) -> None:
        """Read ``length`` bytes (> 0) of the peer's memory; ``done`` gets them."""

    def disconnect(self) -> None:
        """Disconnect: memory is left alone at once, DREQ goes out with retries, then ``on_closed(LOCAL)``."""

    def destroy(self) -> None:
        """Be gone at once and silently: no packet, no callback. For a crash, or when nobody is interested any more."""
