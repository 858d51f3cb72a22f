"""A connection request that waits for its consumer's answer (IBA volume 1, 12.9.7)."""

from __future__ import annotations

from typing import Protocol

from srpha.embedded.rdma.cm_connect import ConnectOptions
from srpha.embedded.rdma.cm_exchange import CmState, Exchange
from srpha.embedded.rdma.rc_connection import RcConnection
from srpha.wire.cm import ConnectionRequest
from srpha.wire.identifiers import Gid


class RequestAnswerer(Protocol):
    """What a request needs of connection management."""

    def accept(self, exchange: Exchange, private_data: bytes, options: ConnectOptions) -> RcConnection:
        """Answer with REP."""
        ...

    def reject(self, exchange: Exchange, reason: int, ari: bytes, private_data: bytes) -> None:
        """Answer with REJ."""
        ...


class ConnectRequest:
    """A REQ that waits for its answer: exactly one of :meth:`accept` and :meth:`reject`, now or later."""

    __slots__ = (
        "_exchange",
        "_manager",
        "local_gid",
        "pkey",
        "private_data",
        "remote_gid",
        "remote_lid",
        "remote_qpn",
        "service_id",
    )

    def __init__(self, manager: RequestAnswerer, exchange: Exchange, request: ConnectionRequest) -> None:
        path = request.primary_path
        self._manager = manager
        self._exchange = exchange
        self.service_id = request.service_id
        self.private_data = request.private_data
        """92 bytes."""
        self.local_gid: Gid = path.remote_gid
        self.remote_gid: Gid = path.local_gid
        self.remote_lid = path.local_lid
        self.remote_qpn = request.local_qpn
        self.pkey = request.pkey

    @property
    def waiting(self) -> bool:
        """Whether the peer waits for our answer: False once answered, given up by the peer, or the port went down."""
        return self._exchange.state is CmState.REQ_RECEIVED

    def accept(self, private_data: bytes = b"", options: ConnectOptions | None = None) -> RcConnection:
        """Answer REP with at most 196 bytes of private data. What is posted before RTU arrives waits for it.

        ``options``: only ``responder_resources``, ``initiator_depth``, ``max_message`` and ``close_on_port_error``
        count here, the rest is the peer's choice. Set the callbacks on the result at once.
        Raises :class:`ConnectError` when the peer gave up or the port went down, RuntimeError when already answered.
        """
        return self._manager.accept(self._exchange, private_data, options or ConnectOptions())

    def reject(self, reason: int, ari: bytes = b"", private_data: bytes = b"") -> None:
        """Answer REJ with at most 72 bytes of additional information and 148 bytes of private data.

        Does nothing when the peer gave up or the port went down; RuntimeError when already answered.
        """
        self._manager.reject(self._exchange, reason, ari, private_data)
