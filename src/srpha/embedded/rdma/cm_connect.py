"""What a consumer says to and hears from connection management: options and errors (IBA volume 1, chapter 12)."""

from __future__ import annotations

from dataclasses import dataclass

from srpha.wire.cm_reject import describe_reject


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
    """Exponent, 0..31; None derives it from the path: packet life time + 1. 0 switches retries off."""
    responder_resources: int = 4
    """RDMA READs of the peer that may be outstanding here, 0..16."""
    initiator_depth: int = 4
    """RDMA READs that this end may have outstanding, if the peer agrees, 0..16."""
    max_cm_retries: int = 15
    """0..15."""
    cm_response_timeout: int = 20
    """Exponent, 0..31; ib_srp takes subnet timeout + 2."""
    max_message: int = 65536
    """Bytes of the longest SEND that is received; a longer one is the peer's error."""
    close_on_port_error: bool = True
    """Close with PORT_DOWN when the local port goes down. A choice of the embedded world: real HCAs only report the
    event, and the connection dies when its retries run out."""

    def __post_init__(self) -> None:
        limits = {
            "retry_count": 7,
            "ack_timeout": 31,
            "responder_resources": 16,
            "initiator_depth": 16,
            "max_cm_retries": 15,
            "cm_response_timeout": 31,
        }
        for name, limit in limits.items():
            value = getattr(self, name)
            if value is not None and not 0 <= value <= limit:
                raise ValueError(f"{name} is 0..{limit}, got {value}")
        if self.max_message < 1:
            raise ValueError(f"max_message is at least 1 byte, got {self.max_message}")
