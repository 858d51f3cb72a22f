"""General services interface: QP1 of one HCA port (IBA volume 1, 13.5 and 16).

Every datagram here is a UD packet of bytes on the port's link: LRH, GRH when asked for, BTH, DETH and a 256-byte MAD.
:class:`GeneralServices` matches responses to requests, carries long responses over RMPP (IBA 13.6), hands requests to
the agents registered for their class and answers for classes nobody serves, as the Linux MAD layer does.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable
from typing import Final

from srpha.core.seams import (
    GSI_QKEY,
    GSI_QPN,
    LinkState,
    MadAddress,
    MadPortGoneError,
    MadTimeoutError,
    ReceivedMad,
    Unwatch,
)
from srpha.embedded.fabric.hardware import Port
from srpha.wire import rc
from srpha.wire.errors import DecodeError

MadHandler = Callable[[ReceivedMad], None]
"""Takes one unsolicited MAD of 256 bytes whose header is sane; must check everything after the header itself."""

MAD_LENGTH: Final = 256


class GeneralServices:
    """QP1 of ``port``: binds it at construction; :meth:`close` gives it back."""

    def __init__(self, port: Port) -> None: ...

    @property
    def port(self) -> Port:
        """The port whose QP1 this is."""
        ...

    def register(self, mgmt_class: int, handler: MadHandler, methods: Iterable[int] | None = None) -> Unwatch:
        """Serve unsolicited MADs (no response bit) of a class, or only some methods of it.

        A registration with methods goes before one without. One owner per (class, method): ValueError for a second one,
        as the kernel refuses it. MADs of unregistered classes: Get and Set are answered with status 0x000c, others dropped.
        """
        ...

    def send(self, address: MadAddress, mad: bytes) -> None:
        """Send 256 bytes as they are (transaction id included); never waits, may be lost.

        ValueError for another length; silently lost when the port has no LID or is down, like a datagram on a dead link.
        A response goes to ``ReceivedMad.source`` unchanged.
        """
        ...

    async def transact(self, address: MadAddress, mad: bytes, *, timeout: float, retries: int) -> bytes:
        """As :meth:`srpha.core.seams.MadPort.transact`; also for Reports, which are answered by ReportResp."""
        ...

    def send_rmpp(self, address: MadAddress, header: bytes, payload: bytes) -> None:
        """Send a long response: ``header`` is the first segment up to its data (56 bytes for SA), ``payload`` the data.

        The transfer goes on in the background (window, ACK, resend) until acknowledged, aborted or given up.
        """
        ...

    def close(self) -> None:
        """Release QP1; every transaction in flight ends with :class:`MadPortGoneError`, transfers are dropped."""
        ...
