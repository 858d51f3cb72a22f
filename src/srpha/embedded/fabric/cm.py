"""Communication management of one embedded HCA port: REQ, REP, RTU, REJ, DREQ, DREP, MRA (IBA volume 1, chapter 12)."""

from __future__ import annotations

from dataclasses import dataclass

from srpha.embedded.fabric.rc_connection import RcConnection
from srpha.wire.cm_reject import describe_reject
from srpha.wire.identifiers import Gid


class ConnectError(Exception):
    """A connection was not made; the message is one sentence."""


class CmRejectedError(ConnectError):
    """The peer sent REJ. ``private_data`` has 148 bytes (an SRP_LOGIN_REJ stands there for reason 28)."""

    def __init__(self, reason: int, ari: bytes, private_data: bytes) -> None:
        super().__init__(describe_reject(reason))
        self.reason = reason
        self.ari = ari
        self.private_data = private_data


class CmTimeoutError(ConnectError):
    """No answer to REQ within the response timeout x (retries + 1)."""


class PortDownError(ConnectError):
    """The local port is not active, or went down before the connection was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectOptions:
    """Parameters of a connection (IBA 12.7); times are exponents n of 4.096 us x 2**n."""

    retry_count: int = 7
    """Transport retries, 0..7 (``tl_retry_count``)."""
    ack_timeout: int | None = None
    """Exponent; None derives it from the path: packet life time + 1."""
    responder_resources: int = 4
    """RDMA READs of the peer that may be outstanding here."""
    initiator_depth: int = 4
    """RDMA READs that this end may have outstanding, if the peer agrees."""
    max_cm_retries: int = 15
    cm_response_timeout: int = 20
    """Exponent; ib_srp takes subnet timeout + 2."""
    max_message: int = 65536
    """Bytes of the longest SEND that is received; a longer one is the peer's error."""
    close_on_port_error: bool = True
    """Close with PORT_DOWN when the local port goes down. A choice of the embedded world: real HCAs only report the
    event, and the connection dies when its retries run out."""


class ConnectRequest:
    """A REQ that waits for its answer: exactly one of :meth:`accept` and :meth:`reject`, now or later."""

    service_id: int
    private_data: bytes
    """92 bytes."""
    remote_gid: Gid
    remote_lid: int
    remote_qpn: int
    pkey: int

    def accept(self, private_data: bytes = b"", options: ConnectOptions | None = None) -> RcConnection:
        """Answer REP with at most 196 bytes of private data. What is posted before RTU arrives waits for it.

        ``options``: only ``responder_resources``, ``initiator_depth``, ``max_message`` and ``close_on_port_error``
        count here, the rest is the peer's choice. Set the callbacks before the next turn of the loop.
        Raises :class:`PortDownError` when the port is down and RuntimeError when already answered.
        """
        raise NotImplementedError

    def reject(self, reason: int, ari: bytes = b"", private_data: bytes = b"") -> None:
        """Answer REJ with at most 72 bytes of additional information and 148 bytes of private data."""
