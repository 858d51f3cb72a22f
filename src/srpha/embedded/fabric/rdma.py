"""RDMA verbs of one embedded HCA port: memory registration, reliable connections, connection management.

:class:`RdmaPort` is what the embedded SRP initiator and target hold. The protocol itself is in :mod:`.rc_requester`,
:mod:`.rc_responder` (IBA 9.7) and :mod:`.cm` (IBA 12).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from srpha.core.seams import Unwatch
from srpha.embedded.fabric.rc_connection import CloseReason, RcConnection
from srpha.embedded.fabric.rdma_memory import MemoryRegion, RegionTable
from srpha.embedded.fabric.cm import (
    CmRejectedError,
    CmTimeoutError,
    ConnectError,
    ConnectOptions,
    ConnectRequest,
    PortDownError,
)
from srpha.wire.layout import Buffer

if TYPE_CHECKING:
    from srpha.embedded.fabric.gsi import GeneralServices
    from srpha.embedded.fabric.hardware import Port
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
        """``rng`` draws starting PSNs and R_Keys; without one they follow from the port's GUID."""

    def register(self, buffer: Buffer) -> MemoryRegion:
        """Let peers reach ``buffer`` (contiguous bytes; bytes are read-only for the peer). Cheap; no copy."""

    def deregister(self, region: MemoryRegion) -> None:
        """End the peers' access to a region at once; doing so twice is harmless."""

    def listen(self, service_id: int, on_request: Callable[[ConnectRequest], None]) -> Unwatch:
        """Take connection requests for ``service_id``; others are rejected with reason 8 (invalid service id).

        Raises ValueError when somebody listens there already.
        """

    async def connect(
        self,
        path: PathRecord,
        service_id: int,
        private_data: bytes = b"",
        options: ConnectOptions | None = None,
    ) -> RcConnection:
        """Connect to a service over ``path`` (SLID, DLID, SGID, DGID, P_Key, SL, MTU, packet life time are used).

        ``private_data`` has at most 92 bytes. Set ``on_receive`` and ``on_closed`` on the result before the next turn
        of the loop. Raises :class:`CmRejectedError`, :class:`CmTimeoutError` or :class:`PortDownError`; when cancelled,
        the peer is told and nothing is left.
        """

    def close(self) -> None:
        """Stop at once and silently, as a crashed host does: no callback, no packet, no listener is left."""
