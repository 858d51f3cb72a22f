"""Communication management of one embedded HCA port: REQ, REP, RTU, REJ, DREQ, DREP, MRA (IBA volume 1, chapter 12).

A message that asks for an answer is sent again after the peer's response timeout; one that comes again is answered as
before. A QP number is not used twice on a node, so no end lingers in a time-wait state: a late DREQ finds nobody and is
answered all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Final

from srpha.core.seams import MadAddress, ReceivedMad, Unwatch
from srpha.embedded.fabric.hardware import Port, PortEvent
from srpha.embedded.mads.gsi import GeneralServices
from srpha.embedded.rdma.cm_connect import (
    CmRejectedError,
    CmTimeoutError,
    ConnectError,
    ConnectOptions,
    PortDownError,
)
from srpha.embedded.rdma.cm_exchange import (
    CmState,
    Exchange,
    acceptor_parameters,
    initiator_parameters,
    instance_of,
    make_rejection,
    make_reply,
    make_request,
    objection,
    wait_of,
)
from srpha.embedded.rdma.cm_request import ConnectRequest
from srpha.embedded.rdma.memory import RegionTable
from srpha.embedded.rdma.rc_connection import AckBatch, RcConnection, RcParameters
from srpha.embedded.rdma.rc_outcome import CloseReason
from srpha.wire.cm import (
    CM_CLASS,
    CmMessage,
    ConnectionReject,
    ConnectionReply,
    ConnectionRequest,
    DisconnectReply,
    DisconnectRequest,
    MessageKind,
    MessageReceiptAck,
    ReadyToUse,
    pack_mad,
    unpack_mad,
)
from srpha.wire.cm_reject import RejectReason
from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import pkeys_match
from srpha.wire.rc import MTU_BYTES
from srpha.wire.sa import PathRecord
from srpha.wire.smp import PortState

_REMEMBERED: Final = 256
"""Rejected REQs whose answer is kept for when they come again."""
_NO_DREQ: Final = frozenset({CloseReason.DISCONNECTED, CloseReason.PORT_DOWN, CloseReason.STALE})
"""Ends of which the peer knows, or cannot be told."""


class ConnectionManager:
    """All connections of one port. Use it through :class:`srpha.embedded.rdma.rdma_port.RdmaPort`."""

    def __init__(self, port: Port, gsi: GeneralServices, regions: RegionTable, rng: Random) -> None:
        self._port = port
        self._gsi = gsi
        self._regions = regions
        self._rng = rng
        self._acks = AckBatch()
        self._next_id = rng.getrandbits(32)
        self._listeners: dict[int, Callable[[ConnectRequest], None]] = {}
        self._exchanges: dict[int, Exchange] = {}
        """By our communication id."""
        self._by_peer: dict[tuple[int, int], Exchange] = {}
        """By the peer's CA GUID and communication id: those that the peer opened."""
        self._by_qp: dict[tuple[int, int], Exchange] = {}
        """By the peer's CA GUID and QP number: those with a connection."""
        self._rejected: dict[tuple[int, int, int, int], bytes] = {}
        """Answers to REQs by CA GUID, communication id, QP number and PSN; oldest first."""
        self.dropped = 0
        """Messages that were malformed or fitted no connection."""
        self._unregister = gsi.register(CM_CLASS, self._receive)
        self._unwatch = port.watch(self._port_event)

    @property
    def connections(self) -> tuple[RcConnection, ...]:
        """The connections that are open, oldest first."""
        found = (exchange.connection for exchange in self._exchanges.values())
        return tuple(connection for connection in found if connection is not None and connection.is_open)

    def listen(self, service_id: int, on_request: Callable[[ConnectRequest], None]) -> Unwatch:
        """See :meth:`srpha.embedded.rdma.rdma_port.RdmaPort.listen`."""
        if service_id in self._listeners:
            raise ValueError(f"{self._port.name}: service {service_id:#x} has a listener")
        self._listeners[service_id] = on_request

        def unlisten() -> None:
            if self._listeners.get(service_id) is on_request:
                del self._listeners[service_id]

        return unlisten

    async def connect(
        self, path: PathRecord, service_id: int, private_data: bytes, options: ConnectOptions
    ) -> RcConnection:
        """See :meth:`srpha.embedded.rdma.rdma_port.RdmaPort.connect`."""
        port = self._port
        if port.state is not PortState.ACTIVE or not port.lid:
            raise PortDownError(f"{port.name} is not active")
        if path.mtu not in MTU_BYTES:
            raise ConnectError(f"{port.name}: the path to LID {path.dlid} has the unknown MTU code {path.mtu}")
        index = next((i for i, own in enumerate(port.pkeys) if own == path.pkey), None)
        if index is None:
            raise ConnectError(f"{port.name}: P_Key {path.pkey:#06x} is not in the port's table")
        address = MadAddress(lid=path.dlid, sl=path.sl, pkey_index=index)
        exchange = Exchange(CmState.REQ_SENT, self._allocate_id(), self._rng.getrandbits(64), address, options)
        exchange.path = path
        exchange.qpn = port.node.allocate_qpn()
        exchange.psn = self._rng.getrandbits(24)
        exchange.patience = wait_of(options.cm_response_timeout)
        exchange.retries = options.max_cm_retries
        request = pack_mad(make_request(exchange, port, path, service_id, private_data), exchange.tid)
        answer: asyncio.Future[RcConnection] = asyncio.get_running_loop().create_future()
        exchange.answer = answer
        self._exchanges[exchange.local_id] = exchange
        self._ask(exchange, request)
        try:
            return await answer
        except asyncio.CancelledError:
            if exchange.state is CmState.REQ_SENT:
                self._give_up(exchange)
            elif exchange.connection is not None:
                exchange.connection.disconnect()
            raise

    def accept(self, exchange: Exchange, private_data: bytes, options: ConnectOptions) -> RcConnection:
        """Answer a REQ with REP."""
        request = self._take(exchange)
        if exchange.state is not CmState.REQ_RECEIVED:
            raise ConnectError(f"{self._port.name}: the peer at LID {exchange.peer.lid} gave up, or the port went down")
        port = self._port
        pkey = next((own for own in port.pkeys if pkeys_match(own, request.pkey)), None)
        if pkey is None:
            raise ConnectError(f"{port.name}: P_Key {request.pkey:#06x} has left the port's table")
        exchange.options = options
        exchange.qpn = port.node.allocate_qpn()
        exchange.psn = self._rng.getrandbits(24)
        exchange.patience = wait_of(request.local_cm_response_timeout)
        exchange.retries = request.max_cm_retries
        reply = pack_mad(make_reply(exchange, port, request, private_data), exchange.tid)
        exchange.answered = True
        exchange.state = CmState.REP_SENT
        connection = self._open(exchange, acceptor_parameters(exchange, pkey, request))
        connection.on_first_message = lambda: self._established(exchange)
        self._ask(exchange, reply)
        return connection

    def reject(self, exchange: Exchange, reason: int, ari: bytes, private_data: bytes) -> None:
        """Answer a REQ with REJ."""
        request = self._take(exchange)
        if exchange.state is CmState.REQ_RECEIVED:
            message = make_rejection(request, exchange.local_id, reason, ari, private_data)
            mad = pack_mad(message, exchange.tid)
            exchange.answered = True
            self._forget(exchange)
            self._turn_away(exchange.peer, request, mad)

    def close(self) -> None:
        """Stop silently and for good."""
        self._unregister()
        self._unwatch()
        self._listeners.clear()
        for exchange in tuple(self._exchanges.values()):
            connection = exchange.connection
            self._forget(exchange)
            if connection is not None:
                connection.destroy()
            if exchange.answer is not None and not exchange.answer.done():
                exchange.answer.set_exception(PortDownError(f"{self._port.name} was closed"))

    # Sending

    def _allocate_id(self) -> int:
        while True:
            self._next_id = self._next_id % 0xFFFFFFFF + 1
            if self._next_id not in self._exchanges:
                return self._next_id

    def _tell(self, peer: MadAddress, tid: int, message: CmMessage) -> None:
        self._gsi.send(peer, pack_mad(message, tid))

    def _ask(self, exchange: Exchange, mad: bytes) -> None:
        """Send what needs an answer, and again when none comes."""
        exchange.last = mad
        self._wait(exchange, exchange.patience)
        self._gsi.send(exchange.peer, mad)

    def _wait(self, exchange: Exchange, seconds: float) -> None:
        if exchange.timer is not None:
            exchange.timer.cancel()
        exchange.timer = asyncio.get_running_loop().call_later(seconds, self._no_answer, exchange)

    def _no_answer(self, exchange: Exchange) -> None:
        exchange.timer = None
        if exchange.retries > 0:
            exchange.retries -= 1
            self._ask(exchange, exchange.last)
        elif exchange.state is CmState.REQ_SENT:
            self._give_up(exchange)
            self._fail_connect(exchange, CmTimeoutError(f"{self._port.name}: no answer from LID {exchange.peer.lid}"))
        elif exchange.state is CmState.REP_SENT:
            self._break(exchange, RejectReason.TIMEOUT)
        else:
            self._disconnected(exchange)

    def _give_up(self, exchange: Exchange) -> None:
        """Tell the peer that its REP would come too late; it knows us by our GUID and id only (IBA 12.6.7.2)."""
        guid = self._port.node.node_guid.to_bytes(8, "big")
        reject = ConnectionReject(
            local_comm_id=exchange.local_id,
            message=MessageKind.REQ,
            info_length=len(guid),
            reason=RejectReason.TIMEOUT,
            additional_info=guid,
        )
        self._forget(exchange)
        self._tell(exchange.peer, exchange.tid, reject)

    def _break(self, exchange: Exchange, reason: int) -> None:
        """The handshake of a connection that we accepted has failed."""
        reject = ConnectionReject(
            local_comm_id=exchange.local_id, remote_comm_id=exchange.peer_id, message=MessageKind.REP, reason=reason
        )
        self._tell(exchange.peer, exchange.tid, reject)
        self._end(exchange, CloseReason.HANDSHAKE)

    def _turn_away(self, peer: MadAddress, request: ConnectionRequest, mad: bytes) -> None:
        """Answer a REQ with a REJ, and with the same one when it comes again."""
        self._rejected[instance_of(request)] = mad
        if len(self._rejected) > _REMEMBERED:
            del self._rejected[next(iter(self._rejected))]
        self._gsi.send(peer, mad)

    # Connections

    def _open(self, exchange: Exchange, parameters: RcParameters) -> RcConnection:
        connection = RcConnection(
            self._port,
            parameters,
            self._regions.regions,
            self._acks,
            lambda _connection, reason: self._ended(exchange, reason),
        )
        exchange.connection = connection
        self._by_qp[exchange.peer_guid, exchange.peer_qpn] = exchange
        return connection

    def _ended(self, exchange: Exchange, reason: CloseReason | None) -> None:
        """The connection ended by itself, or its consumer ended it (LOCAL, or None for silently)."""
        if exchange.state is CmState.DEAD:
            return
        if reason is None or reason in _NO_DREQ or exchange.state not in (CmState.ESTABLISHED, CmState.REP_SENT):
            self._forget(exchange)
            return
        exchange.report = reason is CloseReason.LOCAL
        exchange.state = CmState.DREQ_SENT
        exchange.retries = exchange.options.max_cm_retries
        request = DisconnectRequest(
            local_comm_id=exchange.local_id, remote_comm_id=exchange.peer_id, remote_qpn=exchange.peer_qpn
        )
        exchange.tid = self._rng.getrandbits(64)
        self._ask(exchange, pack_mad(request, exchange.tid))

    def _disconnected(self, exchange: Exchange) -> None:
        """Our DREQ was answered, or never will be."""
        connection = exchange.connection
        self._forget(exchange)
        if exchange.report and connection is not None:
            connection.report(CloseReason.LOCAL)

    def _established(self, exchange: Exchange) -> None:
        if exchange.state is CmState.REP_SENT and exchange.connection is not None:
            exchange.state = CmState.ESTABLISHED
            self._stop_timer(exchange)
            exchange.connection.establish()

    def _end(self, exchange: Exchange, reason: CloseReason) -> None:
        """End a connection without telling the peer (any more)."""
        connection = exchange.connection
        disconnecting = exchange.state is CmState.DREQ_SENT
        if disconnecting:
            self._disconnected(exchange)
            return
        self._forget(exchange)
        if connection is not None:
            connection.close(reason)

    def _fail_connect(self, exchange: Exchange, error: ConnectError) -> None:
        if exchange.answer is not None and not exchange.answer.done():
            exchange.answer.set_exception(error)

    def _stop_timer(self, exchange: Exchange) -> None:
        if exchange.timer is not None:
            exchange.timer.cancel()
            exchange.timer = None

    def _forget(self, exchange: Exchange) -> None:
        self._stop_timer(exchange)
        exchange.state = CmState.DEAD
        self._exchanges.pop(exchange.local_id, None)
        for index, key in ((self._by_peer, exchange.peer_id), (self._by_qp, exchange.peer_qpn)):
            if index.get((exchange.peer_guid, key)) is exchange:
                del index[exchange.peer_guid, key]

    def _take(self, exchange: Exchange) -> ConnectionRequest:
        if exchange.answered or exchange.request is None:
            raise RuntimeError(f"{self._port.name}: the connection request was answered already")
        return exchange.request

    def _port_event(self, event: PortEvent) -> None:
        if event is not PortEvent.PORT_ERROR:
            return
        for exchange in tuple(self._exchanges.values()):
            connection = exchange.connection
            if exchange.state in (CmState.REQ_SENT, CmState.REQ_RECEIVED):
                self._forget(exchange)
                self._fail_connect(exchange, PortDownError(f"{self._port.name} went down"))
            elif connection is not None and connection.is_open and connection.close_on_port_error:
                self._end(exchange, CloseReason.PORT_DOWN)

    # Receiving

    def _receive(self, received: ReceivedMad) -> None:
        try:
            tid, message = unpack_mad(received.mad)
        except DecodeError:
            self.dropped += 1
            return
        match message:
            case ConnectionRequest():
                self._on_request(received.source, tid, message)
            case DisconnectRequest():
                self._on_disconnect(received.source, tid, message)
            case ConnectionReply():
                self._on_reply(received.source, tid, message)
            case ConnectionReject():
                self._on_reject(message)
            case ReadyToUse() | DisconnectReply() | MessageReceiptAck():
                self._on_notice(message)

    def _find(self, local_id: int, peer_id: int) -> Exchange | None:
        """The exchange of a pair of communication ids; any ``peer_id`` fits when we do not know the peer's yet."""
        exchange = self._exchanges.get(local_id)
        if exchange is None or exchange.peer_id not in (0, peer_id):
            return None
        return exchange

    def _on_request(self, source: MadAddress, tid: int, request: ConnectionRequest) -> None:
        known = self._by_peer.get((request.local_ca_guid, request.local_comm_id))
        if known is not None and known.request is not None and instance_of(known.request) == instance_of(request):
            if known.state is CmState.REQ_RECEIVED:
                mra = MessageReceiptAck(
                    local_comm_id=known.local_id,
                    remote_comm_id=known.peer_id,
                    message=MessageKind.REQ,
                    service_timeout=request.remote_cm_response_timeout,
                )
                self._tell(source, tid, mra)
            elif known.state is CmState.REP_SENT:
                self._gsi.send(source, known.last)
            return
        rejected = self._rejected.get(instance_of(request))
        if rejected is not None:
            self._gsi.send(source, rejected)
            return
        stale = known or self._by_qp.get((request.local_ca_guid, request.local_qpn))
        refusal: RejectReason | None
        if stale is not None:
            # The peer started anew and has lost what it had (IBA 12.9.8.3.1)
            refusal = RejectReason.STALE_CONNECTION
        elif request.service_id not in self._listeners:
            refusal = RejectReason.INVALID_SERVICE_ID
        else:
            refusal = objection(self._port, request)
        if refusal is not None:
            self._turn_away(source, request, pack_mad(make_rejection(request, 0, refusal), tid))
            if stale is not None:
                self._end(stale, CloseReason.STALE)
            return
        exchange = Exchange(CmState.REQ_RECEIVED, self._allocate_id(), tid, source, ConnectOptions())
        exchange.request = request
        exchange.peer_guid = request.local_ca_guid
        exchange.peer_id = request.local_comm_id
        exchange.peer_qpn = request.local_qpn
        self._exchanges[exchange.local_id] = exchange
        self._by_peer[exchange.peer_guid, exchange.peer_id] = exchange
        self._listeners[request.service_id](ConnectRequest(self, exchange, request))

    def _on_reply(self, source: MadAddress, tid: int, reply: ConnectionReply) -> None:
        exchange = self._find(reply.remote_comm_id, reply.local_comm_id)
        if exchange is None:
            reject = ConnectionReject(
                local_comm_id=reply.remote_comm_id,
                remote_comm_id=reply.local_comm_id,
                message=MessageKind.REP,
                reason=RejectReason.INVALID_COMM_ID,
            )
            self.dropped += 1
            self._tell(source, tid, reject)
            return
        if exchange.path is None:
            self.dropped += 1
            return
        ready = ReadyToUse(local_comm_id=exchange.local_id, remote_comm_id=reply.local_comm_id)
        if exchange.state is CmState.REQ_SENT:
            self._stop_timer(exchange)
            exchange.peer_guid = reply.local_ca_guid
            exchange.peer_id = reply.local_comm_id
            exchange.peer_qpn = reply.local_qpn
            exchange.state = CmState.ESTABLISHED
            connection = self._open(exchange, initiator_parameters(exchange, self._port, exchange.path, reply))
            self._tell(exchange.peer, exchange.tid, ready)
            connection.establish()
            if exchange.answer is not None and not exchange.answer.done():
                exchange.answer.set_result(connection)
        elif exchange.state is CmState.ESTABLISHED:
            self._tell(exchange.peer, exchange.tid, ready)

    def _on_reject(self, reject: ConnectionReject) -> None:
        exchange = self._find(reject.remote_comm_id, reject.local_comm_id)
        if exchange is None and reject.reason == RejectReason.TIMEOUT and reject.info_length >= 8:
            # The peer gave up before it knew our id
            guid = int.from_bytes(reject.additional_info[:8], "big")
            exchange = self._by_peer.get((guid, reject.local_comm_id))
        if exchange is None:
            self.dropped += 1
        elif exchange.state is CmState.REQ_SENT:
            self._forget(exchange)
            info = reject.additional_info[: reject.info_length]
            self._fail_connect(exchange, CmRejectedError(reject.reason, info, reject.private_data))
        else:
            self._end(exchange, CloseReason.HANDSHAKE)

    def _on_notice(self, message: ReadyToUse | DisconnectReply | MessageReceiptAck) -> None:
        exchange = self._find(message.remote_comm_id, message.local_comm_id)
        if exchange is None:
            self.dropped += 1
        elif isinstance(message, ReadyToUse):
            self._established(exchange)
        elif isinstance(message, DisconnectReply):
            if exchange.state is CmState.DREQ_SENT:
                self._disconnected(exchange)
        elif exchange.state in (CmState.REQ_SENT, CmState.REP_SENT):
            self._wait(exchange, exchange.patience + wait_of(message.service_timeout))

    def _on_disconnect(self, source: MadAddress, tid: int, request: DisconnectRequest) -> None:
        reply = DisconnectReply(local_comm_id=request.remote_comm_id, remote_comm_id=request.local_comm_id)
        exchange = self._find(request.remote_comm_id, request.local_comm_id)
        self._tell(source, tid, reply)
        if exchange is None or exchange.connection is None or request.remote_qpn != exchange.qpn:
            self.dropped += 1
        else:
            self._end(exchange, CloseReason.DISCONNECTED)
