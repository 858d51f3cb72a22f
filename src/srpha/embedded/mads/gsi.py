"""General services interface: QP1 of one HCA port (IBA volume 1, 13.5 and 16).

Every datagram here is a UD packet of bytes on the port's link: LRH, GRH when asked for, BTH, DETH and a 256-byte MAD.
:class:`GeneralServices` matches responses to requests, carries long responses over RMPP (IBA 13.6), hands requests to
the agents registered for their class and answers for classes nobody serves, as the Linux MAD layer does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from srpha.core.seams import (
    GSI_QKEY,
    GSI_QPN,
    MadAddress,
    MadError,
    MadPortGoneError,
    MadTimeoutError,
    ReceivedMad,
    Unwatch,
)
from srpha.embedded.fabric.ports import Port
from srpha.embedded.mads.rmpp_transfer import RmppSender, SenderKey, sender_key
from srpha.wire import rc
from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import pkeys_match
from srpha.wire.mad import (
    MAD_LENGTH,
    MadHeader,
    MadStatus,
    ManagementClass,
    Method,
    read_header,
    status_response,
)
from srpha.wire.rmpp import Reassembler, RmppError, RmppHeader, RmppStatus, RmppType, control, read_rmpp
from srpha.wire.smp import PortState

MadHandler = Callable[[ReceivedMad], None]
"""Takes one unsolicited MAD of 256 bytes whose header is sane; must check everything after the header itself."""

StrangerHandler = Callable[[ReceivedMad], bool]
"""Takes one MAD that nobody here waits for or serves, and says whether it was for it; the header is sane."""

_RMPP_CLASSES: Final = frozenset({ManagementClass.SUBN_ADM})
_ANSWERED_UNSERVED: Final = frozenset({Method.GET, Method.SET})
_HOP_LIMIT: Final = 64
_WINDOW: Final = 64
"""Segments that a receiver lets the sender run ahead of its last acknowledgement."""
_LINGER_TIME: Final = 10.0


class GeneralServices:
    """QP1 of ``port``: binds it at construction; :meth:`close` gives it back.

    ``dropped`` counts datagrams that were not well-formed, or that nobody waits for.
    """

    def __init__(self, port: Port) -> None:
        self._port = port
        self._agents: dict[tuple[int, int | None], MadHandler] = {}
        self._waiting: dict[tuple[int, int], _Transaction] = {}
        self._senders: dict[SenderKey, RmppSender] = {}
        self._finished: dict[tuple[int, int], tuple[int, int]] = {}
        self._next_tid = 0
        self._psn = 0
        self._closed = False
        self._strangers: StrangerHandler | None = None
        self.dropped = 0
        self._unbind = port.bind(GSI_QPN, self._receive)

    @property
    def port(self) -> Port:
        """The port whose QP1 this is."""
        return self._port

    def register(self, mgmt_class: int, handler: MadHandler, methods: Iterable[int] | None = None) -> Unwatch:
        """Serve unsolicited MADs (no response bit) of a class, or only some methods of it.

        A registration with methods goes before one without. One owner per (class, method): ValueError for a second one,
        as the kernel refuses it. Of MADs nobody serves, Get and Set are answered with status 0x000c, others dropped.
        """
        keys = [(mgmt_class, None)] if methods is None else [(mgmt_class, method) for method in methods]
        for key in keys:
            if key in self._agents:
                raise ValueError(f"{self._port.name}: class {mgmt_class:#04x} method {key[1]} has an agent already")
        for key in keys:
            self._agents[key] = handler

        def unregister() -> None:
            for key in keys:
                if self._agents.get(key) is handler:
                    del self._agents[key]

        return unregister

    def adopt_strangers(self, handler: StrangerHandler) -> Unwatch:
        """Have responses that nobody waits for, and requests that no agent serves, offered to ``handler`` first.

        For one who shares QP1 with this process's own consumers: ValueError for a second one.
        """
        if self._strangers is not None:
            raise ValueError(f"{self._port.name}: somebody takes the strangers already")
        self._strangers = handler

        def leave() -> None:
            if self._strangers is handler:
                self._strangers = None

        return leave

    def send(self, address: MadAddress, mad: bytes) -> None:
        """Send 256 bytes as they are (transaction id included); never waits, may be lost.

        ValueError for another length; silently lost when the port has no LID or is down, as on a dead link.
        A response goes to ``ReceivedMad.source`` unchanged.
        """
        if len(mad) != MAD_LENGTH:
            raise ValueError(f"a MAD has {MAD_LENGTH} bytes, got {len(mad)}")
        port = self._port
        if self._closed or not self.usable or not 0 <= address.pkey_index < len(port.pkeys):
            return
        pkey = port.pkeys[address.pkey_index]
        if pkey == 0:
            return
        self._psn = (self._psn + 1) & rc.PSN_MASK
        port.send(_datagram(port, address, pkey, self._psn, mad))

    @property
    def usable(self) -> bool:
        """Whether the port can carry general services now: active, and with a LID."""
        return self._port.state is PortState.ACTIVE and self._port.lid != 0

    async def transact(self, address: MadAddress, mad: bytes, *, timeout: float, retries: int) -> bytes:
        """As :meth:`srpha.core.seams.MadPort.transact`; also for Reports, which are answered by ReportResp."""
        if len(mad) != MAD_LENGTH:
            raise ValueError(f"a MAD has {MAD_LENGTH} bytes, got {len(mad)}")
        if timeout <= 0 or retries < 0:
            raise ValueError(f"a transaction needs a timeout above 0 and no negative retries, got {timeout}, {retries}")
        self._need_usable(address)
        transaction = _Transaction(self, address, mad, timeout, retries)
        try:
            transaction.start()
            return await transaction.answer
        finally:
            transaction.stop()

    def send_rmpp(self, address: MadAddress, header: bytes, payload: bytes) -> None:
        """Send a long response: ``header`` is the first segment up to its data (56 bytes for SA), ``payload`` the data.

        The transfer goes on in the background (window, ACK, resend) until acknowledged, aborted or given up. A second
        transfer of one transaction to one peer (its request came again) replaces the first.
        """
        key = sender_key(address.lid, address.qpn, header)
        sender = RmppSender(key, header, payload, partial(self.send, address), self._transfer_over)
        previous = self._senders.pop(key, None)
        if previous is not None:
            previous.stop()
        self._senders[key] = sender
        sender.start()

    def close(self) -> None:
        """Release QP1; every transaction in flight ends with :class:`MadPortGoneError`, transfers are dropped."""
        self._closed = True
        self._unbind()
        for sender in tuple(self._senders.values()):
            sender.stop()
        self._senders.clear()
        for transaction in tuple(self._waiting.values()):
            transaction.fail(MadPortGoneError(f"{self._port.name}: QP1 was closed"))

    def _need_usable(self, address: MadAddress) -> None:
        port = self._port
        if self._closed or not self.usable:
            raise MadPortGoneError(f"{port.name}: not active or without a LID, cannot ask LID {address.lid}")
        if not 0 <= address.pkey_index < len(port.pkeys) or port.pkeys[address.pkey_index] == 0:
            raise MadPortGoneError(f"{port.name}: no P_Key at index {address.pkey_index}, cannot ask LID {address.lid}")

    def _transfer_over(self, sender: RmppSender) -> None:
        if self._senders.get(sender.key) is sender:
            del self._senders[sender.key]

    def _receive(self, packet: bytes) -> None:
        try:
            received = self._accept(packet)
            header = read_header(received.mad)
            rmpp = _active_rmpp(header, received.mad)
        except DecodeError:
            self.dropped += 1
            return
        if rmpp is not None and rmpp.type in (RmppType.ACK, RmppType.STOP, RmppType.ABORT):
            sender = self._senders.get(sender_key(received.source.lid, received.source.qpn, received.mad))
            if sender is not None:
                sender.feed(received.mad)
                return
        if header.is_response:
            self._respond_to_waiter(header, received)
        elif rmpp is not None:
            self.dropped += 1  # no class here takes a request of several packets
        else:
            self._dispatch(header, received)

    def _accept(self, packet: bytes) -> ReceivedMad:
        """Check the packet's headers; the MAD and where an answer to it goes."""
        datagram = rc.unpack(packet)
        if datagram.opcode != rc.Opcode.UD_SEND_ONLY or datagram.dest_qp != GSI_QPN:
            raise DecodeError(f"opcode {datagram.opcode:#04x} to QP {datagram.dest_qp} is no datagram to QP1")
        q_key, source_qp = rc.read_deth(datagram)
        if q_key != GSI_QKEY:
            raise DecodeError(f"Q_Key {q_key:#010x} is not the one of QP1")
        if not 0 < datagram.slid < 0xC000:
            raise DecodeError(f"source LID {datagram.slid:#06x} is not unicast")
        grh = rc.read_grh(datagram)
        if grh is not None and grh.dgid != self._port.gid:
            raise DecodeError(f"destination GID {grh.dgid} is not this port's")
        service_level = packet[1] >> 4
        source = MadAddress(
            lid=datagram.slid,
            qpn=source_qp,
            qkey=GSI_QKEY,
            sl=service_level,
            pkey_index=_pkey_index(self._port.pkeys, datagram.pkey),
            gid=None if grh is None else grh.sgid,
        )
        return ReceivedMad(source, bytes(datagram.payload))

    def _respond_to_waiter(self, header: MadHeader, received: ReceivedMad) -> None:
        key = (header.mgmt_class, header.transaction_id & 0xFFFFFFFF)
        transaction = self._waiting.get(key)
        if transaction is not None and transaction.address.lid == received.source.lid:
            transaction.feed(header, received)
            return
        if self._strangers is not None and self._strangers(received):
            return
        self.dropped += 1
        done = self._finished.get(key)
        if done is not None and done[0] == received.source.lid and _is_data(header, received.mad):
            self.send(received.source, _acknowledgement(received.mad, done[1], done[1] + _WINDOW))

    def _allocate_tid(self, mgmt_class: int) -> int:
        while True:
            self._next_tid = self._next_tid % 0xFFFFFFFF + 1  # 1..0xFFFFFFFF: OpenSM ignores 0
            if (mgmt_class, self._next_tid) not in self._waiting:
                return self._next_tid

    def _linger(self, key: tuple[int, int], lid: int, segments: int) -> None:
        """Acknowledge late repeats of a finished transfer for a while: the last acknowledgement may have been lost."""
        self._finished[key] = (lid, segments)
        asyncio.get_running_loop().call_later(_LINGER_TIME, self._finished.pop, key, None)

    def _dispatch(self, header: MadHeader, received: ReceivedMad) -> None:
        handler = self._agents.get((header.mgmt_class, header.method)) or self._agents.get((header.mgmt_class, None))
        if handler is not None:
            handler(received)
            return
        if self._strangers is not None and self._strangers(received):
            return
        self.dropped += 1
        if header.method in _ANSWERED_UNSERVED:
            self.send(received.source, status_response(received.mad, MadStatus.UNSUPPORTED_METHOD_ATTRIBUTE))


class _Transaction:
    """One request on its way: tries, timer, and the reassembly of its response."""

    __slots__ = (
        "_gsi",
        "_key",
        "_mad",
        "_reassembler",
        "_retries",
        "_timeout",
        "_timer",
        "_window_last",
        "address",
        "answer",
    )

    def __init__(self, gsi: GeneralServices, address: MadAddress, mad: bytes, timeout: float, retries: int) -> None:
        self._gsi = gsi
        self.address = address
        self._mad = mad
        self._timeout = timeout
        self._retries = retries
        self._key = (mad[1], 0)
        self._window_last = 1
        self._timer: asyncio.TimerHandle | None = None
        self._reassembler: Reassembler | None = None
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        """First try, or another one from scratch, under a transaction ID of its own."""
        gsi = self._gsi
        self._forget()
        self._reassembler = None
        self._window_last = 1
        self._key = (self._mad[1], gsi._allocate_tid(self._mad[1]))
        gsi._waiting[self._key] = self
        self._mad = self._mad[:8] + self._key[1].to_bytes(8, "big") + self._mad[16:]
        self._send()

    def _send(self) -> None:
        self._arm()
        self._gsi.send(self.address, self._mad)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._timeout, self._expire)

    def _expire(self) -> None:
        if self.answer.done():
            return
        if self._retries == 0:
            self.fail(MadTimeoutError(f"{self._gsi.port.name}: no answer from LID {self.address.lid}"))
            return
        try:
            self._gsi._need_usable(self.address)
        except MadPortGoneError as gone:
            self.fail(gone)
            return
        self._retries -= 1
        if self._reassembler is None:
            self._send()  # under the same ID, so that a late answer to the last try counts
        else:
            self.start()  # segments of the broken transfer must not mix with those of the next

    def feed(self, header: MadHeader, received: ReceivedMad) -> None:
        """Take a response, or one segment of it."""
        if self.answer.done():
            return
        rmpp = _active_rmpp(header, received.mad)
        if rmpp is None:
            if self._reassembler is None:
                self.answer.set_result(received.mad)
            else:
                self._gsi.dropped += 1
            return
        if self._reassembler is None:
            self._reassembler = Reassembler()
        before = self._reassembler.contiguous
        try:
            message = self._reassembler.feed(received.mad)
        except RmppError as broken:
            self._gsi.dropped += 1
            if rmpp.type == RmppType.DATA:
                self._gsi.send(received.source, control(received.mad, RmppType.ABORT, status=RmppStatus(broken.status)))
            return
        except DecodeError:
            self._gsi.dropped += 1
            return
        contiguous = self._reassembler.contiguous
        if contiguous > before:
            self._arm()  # progress, and only that, buys time: repeats would for ever
        if message is not None:
            self._gsi._linger(self._key, received.source.lid, contiguous)
            self.answer.set_result(message)
        if message is not None or contiguous >= self._window_last or rmpp.segment <= before:
            self._window_last = contiguous + _WINDOW
            self._gsi.send(received.source, _acknowledgement(received.mad, contiguous, self._window_last))

    def fail(self, error: MadError) -> None:
        """End without an answer."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def stop(self) -> None:
        """Leave the table of transactions; nothing comes in or goes out for this one any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._forget()

    def _forget(self) -> None:
        if self._gsi._waiting.get(self._key) is self:
            del self._gsi._waiting[self._key]


def _active_rmpp(header: MadHeader, mad: bytes) -> RmppHeader | None:
    """The RMPP header of a MAD whose class uses it and which is part of a transfer, else None."""
    if header.mgmt_class not in _RMPP_CLASSES:
        return None
    rmpp = read_rmpp(mad)
    return rmpp if rmpp.is_active else None


def _is_data(header: MadHeader, mad: bytes) -> bool:
    rmpp = _active_rmpp(header, mad)
    return rmpp is not None and rmpp.type == RmppType.DATA


def _acknowledgement(segment: bytes, contiguous: int, window_last: int) -> bytes:
    """The RMPP ACK that answers a received ``segment``."""
    return control(segment, RmppType.ACK, acknowledged=contiguous, window_last=window_last)


def _pkey_index(table: Sequence[int], pkey: int) -> int:
    """Index of the P_Key by which this port may hear ``pkey``; :class:`DecodeError` when there is none."""
    for index, own in enumerate(table):
        if pkeys_match(own, pkey):
            return index
    raise DecodeError(f"P_Key {pkey:#06x} is not in the port's table")


def _datagram(port: Port, address: MadAddress, pkey: int, psn: int, mad: bytes) -> bytes:
    """The whole packet that carries ``mad``: with a GRH when the address has a GID."""
    route = rc.RcAddress(port.lid, address.lid, address.qpn, pkey, address.sl)
    packet = rc.pack_datagram(route.checked(), psn, address.qkey, GSI_QPN, mad)
    if address.gid is None:
        return packet
    grh = rc.GlobalRouteHeader(
        payload_length=len(packet) - rc.LRH_LENGTH + rc.ICRC_LENGTH,
        hop_limit=_HOP_LIMIT,
        sgid=port.gid,
        dgid=address.gid,
    )
    lrh = replace(
        rc.LocalRouteHeader.decode(packet),
        next_header=rc.LNH_GLOBAL,
        packet_length=(len(packet) + rc.GRH_LENGTH + rc.ICRC_LENGTH) // 4,
    )
    return lrh.encode() + grh.encode() + packet[rc.LRH_LENGTH :]
