"""Subnet management interface: QP0 of the port that a subnet manager runs on (IBA volume 1, 14.2 and 13.5).

Requests leave as directed-route SMPs, many at a time within a window, each with its own timer and retries. Traps come
in LID-routed; they are answered by TrapRepress only while somebody listens, so that a node without a subnet manager
never silences a trap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from srpha.core.seams import Unwatch
from srpha.embedded.fabric.ports import Port
from srpha.wire import rc
from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import LID_PERMISSIVE, PKEY_DEFAULT_FULL
from srpha.wire.mad import Method
from srpha.wire.notice import Notice, read_notice
from srpha.wire.smp import SMP_DATA, DirectedRouteSmp, LidRoutedSmp, SmpAttribute, directed_path, read_smp

SMI_QPN: Final = 0
_ROUTE: Final = rc.RcAddress(LID_PERMISSIVE, LID_PERMISSIVE, SMI_QPN, PKEY_DEFAULT_FULL, 0, rc.MANAGEMENT_VL)

TrapHandler = Callable[[int, Notice], None]
"""Takes the LID that a trap came from and the notice in it."""


@dataclass(frozen=True, slots=True)
class SmpRequest:
    """Get or Set of one attribute of the node at the end of a directed route; ``path`` is the ports it leaves by."""

    path: tuple[int, ...]
    method: Method
    attribute: SmpAttribute
    modifier: int = 0
    data: bytes = b""
    patient: bool = True
    """Whether it is worth the retries; False for a peer known to be silent."""


@dataclass(frozen=True, slots=True)
class SmpSettings:
    """How SMPs are sent: ``timeout`` in seconds per try, ``retries`` further tries, ``window`` requests in flight."""

    timeout: float = 0.2
    retries: int = 3
    window: int = 64


class SubnetManagement:
    """QP0 of ``port``, bound at construction; :meth:`close` gives it back. ``dropped`` counts what made no sense."""

    def __init__(self, port: Port, settings: SmpSettings = SmpSettings()) -> None:
        self._port = port
        self._settings = settings
        self._waiting: dict[int, _Exchange] = {}
        self._listeners: list[TrapHandler] = []
        self._mourners: list[Callable[[], None]] = []
        self._next_tid = 0
        self._psn = 0
        self.sent = 0
        """SMPs sent as a manager, repeats included."""
        self.dropped = 0
        self._unbind = port.bind(SMI_QPN, self._receive)

    @property
    def port(self) -> Port:
        """The port whose QP0 this is."""
        return self._port

    async def exchange(self, requests: Sequence[SmpRequest]) -> list[DirectedRouteSmp | None]:
        """Answers in the order of ``requests``, None for each that stayed silent through all retries.

        An answer with an error status is an answer.
        """
        if not requests:
            return []
        exchange = _Exchange(self, requests, self._settings)
        try:
            exchange.fill()
            return await exchange.finished
        finally:
            exchange.stop()

    def watch_traps(self, handler: TrapHandler) -> Unwatch:
        """Hear traps. Each is answered with TrapRepress, repeats are delivered again."""
        self._listeners.append(handler)

        def unwatch() -> None:
            if handler in self._listeners:
                self._listeners.remove(handler)

        return unwatch

    def watch_close(self, closed: Callable[[], None]) -> Unwatch:
        """Hear, from within :meth:`close`, that QP0 is given back."""
        self._mourners.append(closed)

        def unwatch() -> None:
            if closed in self._mourners:
                self._mourners.remove(closed)

        return unwatch

    def close(self) -> None:
        """Release QP0. Exchanges in flight end as if nobody answered, and so does every later one."""
        self._unbind()
        self._listeners.clear()
        for mourner in tuple(self._mourners):
            mourner()
        for exchange in dict.fromkeys(self._waiting.values()):
            exchange.abandon()

    def _send(self, route: rc.RcAddress, smp: bytes) -> None:
        self._psn = (self._psn + 1) & rc.PSN_MASK
        self._port.send(rc.pack_datagram(route, self._psn, 0, SMI_QPN, smp))

    def _allocate_tid(self) -> int:
        self._next_tid = self._next_tid % 0xFFFFFFFF + 1
        return self._next_tid

    def _receive(self, packet: bytes) -> None:
        try:
            datagram = rc.unpack(packet)
            if datagram.opcode != rc.Opcode.UD_SEND_ONLY or datagram.dest_qp != SMI_QPN:
                raise DecodeError("no datagram to QP0")
            smp = read_smp(bytes(datagram.payload))
            if isinstance(smp, LidRoutedSmp):
                self._trap(datagram.slid, smp)
                return
        except DecodeError:
            self.dropped += 1
            return
        exchange = self._waiting.get(smp.transaction_id)
        if exchange is None or not exchange.feed(smp):
            self.dropped += 1

    def _trap(self, slid: int, smp: LidRoutedSmp) -> None:
        if smp.method != Method.TRAP or smp.attribute_id != SmpAttribute.NOTICE or not self._listeners:
            self.dropped += 1
            return
        if not 0 < slid < 0xC000:
            raise DecodeError(f"a trap from LID {slid:#06x}")
        notice = read_notice(smp.encode(), SMP_DATA)
        route = rc.RcAddress(self._port.lid, slid, SMI_QPN, PKEY_DEFAULT_FULL, 0, rc.MANAGEMENT_VL)
        self._send(route, smp.respond(smp.data).encode())
        for listener in tuple(self._listeners):
            listener(slid, notice)


class _Pending:
    """A request in flight."""

    __slots__ = ("index", "packet", "retries", "timer")

    def __init__(self, index: int, packet: bytes, retries: int) -> None:
        self.index = index
        self.packet = packet
        self.retries = retries
        self.timer: asyncio.TimerHandle | None = None


class _Exchange:
    """A batch of requests within the window."""

    def __init__(self, smi: SubnetManagement, requests: Sequence[SmpRequest], settings: SmpSettings) -> None:
        self._smi = smi
        self._requests = requests
        self._settings = settings
        self._answers: list[DirectedRouteSmp | None] = [None] * len(requests)
        self._pending: dict[int, _Pending] = {}
        self._next = 0
        self._loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[list[DirectedRouteSmp | None]] = self._loop.create_future()

    def fill(self) -> None:
        """Send as many more as the window allows; finish when nothing is left."""
        while self._next < len(self._requests) and len(self._pending) < self._settings.window:
            index = self._next
            self._next += 1
            request = self._requests[index]
            tid = self._smi._allocate_tid()
            smp = DirectedRouteSmp(
                method=request.method,
                hop_count=len(request.path),
                transaction_id=tid,
                attribute_id=request.attribute,
                attribute_modifier=request.modifier,
                data=request.data,
                initial_path=directed_path(request.path),
            )
            retries = self._settings.retries if request.patient else 0
            pending = self._pending[tid] = _Pending(index, smp.encode(), retries)
            self._smi._waiting[tid] = self
            self._send(tid, pending)
        if not self._pending and self._next == len(self._requests) and not self.finished.done():
            self.finished.set_result(self._answers)

    def feed(self, smp: DirectedRouteSmp) -> bool:
        """Take an answer; False when it is not one to the request of its transaction ID."""
        pending = self._pending[smp.transaction_id]
        request = self._requests[pending.index]
        if (
            smp.method != Method.GET_RESP
            or not smp.direction
            or smp.attribute_id != request.attribute
            or smp.attribute_modifier != request.modifier
            or smp.hop_count != len(request.path)
            or smp.route != request.path
        ):
            return False
        self._answers[pending.index] = smp
        self._drop(smp.transaction_id)
        self.fill()
        return True

    def abandon(self) -> None:
        """End now, with what has been answered."""
        self.stop()
        if not self.finished.done():
            self.finished.set_result(self._answers)

    def stop(self) -> None:
        """Forget everything in flight."""
        for tid in tuple(self._pending):
            self._drop(tid)

    def _send(self, tid: int, pending: _Pending) -> None:
        pending.timer = self._loop.call_later(self._settings.timeout, self._expire, tid)
        self._smi.sent += 1
        self._smi._send(_ROUTE, pending.packet)

    def _expire(self, tid: int) -> None:
        pending = self._pending[tid]
        if pending.retries > 0:
            pending.retries -= 1
            self._send(tid, pending)
            return
        self._drop(tid)
        self.fill()

    def _drop(self, tid: int) -> None:
        pending = self._pending.pop(tid)
        if pending.timer is not None:
            pending.timer.cancel()
        self._smi._waiting.pop(tid, None)
