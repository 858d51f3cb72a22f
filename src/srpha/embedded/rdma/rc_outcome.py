"""How a reliable connection of the embedded fabric ends."""

from __future__ import annotations

from enum import Enum


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
