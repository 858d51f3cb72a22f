"""Limits of the NBD server."""

from __future__ import annotations

from dataclasses import dataclass

from srpha.wire.nbd import PORTABLE_PAYLOAD


@dataclass(frozen=True, slots=True, kw_only=True)
class NbdLimits:
    """What clients may ask of the server. Bytes and seconds; a value out of range raises :class:`ValueError`."""

    max_payload: int = PORTABLE_PAYLOAD
    """Longest READ or WRITE; advertised. Clients that do not ask for it count on 32 MiB."""
    in_flight_bytes: int = PORTABLE_PAYLOAD
    """Per connection. A request that does not fit waits in the socket, but for one that is alone."""
    in_flight_requests: int = 256
    """Per connection."""
    connections: int = 64
    """At a time, together; one more is closed at once. A connection counts until its last I/O is complete."""
    handshake_time: float = 60.0
    """A client that has not chosen an export by then is disconnected."""
    grace: float = 0.5
    """How long a server that ends waits for I/O under way before it answers ESHUTDOWN in its place."""
    linger: float = 2.0
    """How long a client may take to read the last replies before they are thrown away."""

    def __post_init__(self) -> None:
        for name in ("in_flight_bytes", "in_flight_requests", "connections", "handshake_time"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("grace", "linger"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 1 << 16 <= self.max_payload <= PORTABLE_PAYLOAD:
            raise ValueError(f"max_payload is 65536 to {PORTABLE_PAYLOAD}, got {self.max_payload}")
