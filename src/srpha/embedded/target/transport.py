"""What a target needs of the transport below it: the seams to RDMA connections, CM requests and the HCA port.

:mod:`srpha.embedded.fabric` provides them; the protocols name the part a target uses, so that tests can stand in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from srpha.core.seams import MadAddress, ReceivedMad, Unwatch
from srpha.embedded.rdma.rc_outcome import CloseReason
from srpha.wire.identifiers import Gid


class Channel(Protocol):
    """An RC connection that a login made: an RDMA channel in SRP's words (SRP r16a 4.3)."""

    on_receive: Callable[[bytes], None]
    """Takes each SEND message of the initiator, whole."""
    on_closed: Callable[[CloseReason], None]
    """Called exactly once when the channel has ended, unless :meth:`destroy` came first."""

    @property
    def remote_gid(self) -> Gid: ...
    def send(self, message: bytes) -> None: ...
    def rdma_write(
        self, address: int, rkey: int, data: bytes | bytearray | memoryview, done: Callable[[], None] | None = None
    ) -> None: ...
    def rdma_read(self, address: int, rkey: int, length: int, done: Callable[[bytes], None]) -> None:
        """Read ``length`` bytes, at least 1."""
        ...

    def disconnect(self) -> None:
        """End with a DREQ. Initiator memory is left alone at once; ``on_closed`` follows."""
        ...

    def destroy(self) -> None:
        """End without a word, as a crash does; ``on_closed`` is not called."""
        ...


class ConnectRequest(Protocol):
    """A CM REQ that waits for its answer."""

    @property
    def private_data(self) -> bytes: ...
    @property
    def waiting(self) -> bool:
        """Whether the initiator still waits: not answered yet, not given up."""
        ...

    def accept(self, private_data: bytes = b"") -> Channel:
        """Answer REP; raises :class:`~srpha.embedded.rdma.cm.PortDownError`."""
        ...

    def reject(self, reason: int, ari: bytes = b"", private_data: bytes = b"") -> None: ...


class Listener(Protocol):
    """Where CM requests come in: the RDMA side of one HCA port."""

    def listen(self, service_id: int, on_request: Callable[[ConnectRequest], None]) -> Unwatch: ...


class HcaPort(Protocol):
    """The registers of one HCA port that a target touches."""

    @property
    def name(self) -> str: ...
    def set_capability(self, bits: int, on: bool) -> None: ...


class Datagrams(Protocol):
    """The general services of one HCA port."""

    def register(
        self, mgmt_class: int, handler: Callable[[ReceivedMad], None], methods: Iterable[int] | None = None
    ) -> Unwatch: ...
    def send(self, address: MadAddress, mad: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Attachment:
    """One HCA port of a target: connections, datagrams, registers."""

    rdma: Listener
    gsi: Datagrams
    port: HcaPort
