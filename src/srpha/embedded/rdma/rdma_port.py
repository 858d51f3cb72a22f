"""RDMA verbs of one embedded HCA port: memory registration, reliable connections, connection management.

:class:`RdmaPort` is what the embedded SRP initiator and target hold. The protocols are in
:mod:`srpha.embedded.rdma.rc_requester` and :mod:`srpha.embedded.rdma.rc_responder` (IBA 9.7) and in
:mod:`srpha.embedded.rdma.cm` (IBA 12).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from srpha.core.seams import Unwatch
from srpha.embedded.fabric.hardware import Port
from srpha.embedded.mads.gsi import GeneralServices
from srpha.embedded.rdma.cm import ConnectionManager
from srpha.embedded.rdma.cm_connect import (
    CmRejectedError,
    CmTimeoutError,
    ConnectError,
    ConnectOptions,
    PortDownError,
)
from srpha.embedded.rdma.cm_request import ConnectRequest
from srpha.embedded.rdma.memory import MemoryRegion, RegionTable
from srpha.embedded.rdma.rc_connection import RcConnection
from srpha.embedded.rdma.rc_outcome import CloseReason
from srpha.wire.layout import Buffer
from srpha.wire.sa import PathRecord

__all__ = [
    "CloseReason",
    "CmRejectedError",
    "CmTimeoutError",
    "ConnectError",
    "ConnectOptions",
    "ConnectRequest",
    "MemoryRegion",
    "PortDownError",
    "RcConnection",
    "RdmaPort",
]


class RdmaPort:
    """One HCA port as a consumer of reliable connections sees it.

    All regions of a port are one protection domain: any connection of this port can reach them.
    """

    def __init__(self, port: Port, gsi: GeneralServices, rng: Random | None = None) -> None:
        """``rng`` draws starting PSNs, communication ids and R_Keys; without one they follow from the port's GUID."""
        rng = Random(port.guid) if rng is None else rng
        self.port = port
        self._regions = RegionTable(rng.getrandbits(32))
        self._manager = ConnectionManager(port, gsi, self._regions, rng)
        # Once per command: no method of ours in between
        self.register: Callable[[Buffer], MemoryRegion] = self._regions.register
        """Let peers reach a buffer (contiguous bytes; ``bytes`` are read-only for the peer). No copy is made."""
        self.deregister: Callable[[MemoryRegion], None] = self._regions.deregister
        """End the peers' access to a region at once; doing so twice is harmless."""

    @property
    def connections(self) -> tuple[RcConnection, ...]:
        """The connections that are open, oldest first."""
        return self._manager.connections

    def listen(self, service_id: int, on_request: Callable[[ConnectRequest], None]) -> Unwatch:
        """Take connection requests for ``service_id``; others are rejected with reason 8 (invalid service id).

        Raises ValueError when somebody listens there already.
        """
        return self._manager.listen(service_id, on_request)

    async def connect(
        self,
        path: PathRecord,
        service_id: int,
        private_data: bytes = b"",
        options: ConnectOptions | None = None,
    ) -> RcConnection:
        """Connect to a service over ``path`` (SLID, DLID, DGID, P_Key, SL, MTU, packet life time are used).

        ``private_data`` has at most 92 bytes. Set ``on_receive`` and ``on_closed`` on the result before awaiting
        anything else. Raises :class:`CmRejectedError`, :class:`CmTimeoutError`, :class:`PortDownError`, or
        :class:`ConnectError` for a path that this port cannot use, EncodeError for too much private
        data; when cancelled, the peer is told and nothing is left.
        """
        return await self._manager.connect(path, service_id, private_data, options or ConnectOptions())

    def close(self) -> None:
        """Stop at once and silently, as a crashed host does: no packet, no callback, no listener is left."""
        self._manager.close()
