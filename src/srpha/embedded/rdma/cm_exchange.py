"""One end of one connection in connection management, and the messages it makes (IBA volume 1, 12.6, 12.9)."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Final

from srpha.core.seams import MadAddress
from srpha.embedded.fabric.hardware import Port
from srpha.embedded.rdma.cm_connect import ConnectOptions
from srpha.embedded.rdma.rc_connection import RcConnection, RcParameters
from srpha.wire.cm import (
    ConnectionPath,
    ConnectionReject,
    ConnectionReply,
    ConnectionRequest,
    MessageKind,
    TransportService,
    timeout_seconds,
)
from srpha.wire.cm_reject import RejectReason
from srpha.wire.rc import MTU_BYTES, RcAddress
from srpha.wire.sa import PathRecord

MAX_READS: Final = 16
"""Most outstanding READs per connection and direction."""
_LONGEST_WAIT: Final = 24
"""Largest timeout exponent (69 s) that a peer may impose on us."""
_RNR_RETRY_FOREVER: Final = 7


class CmState(Enum):
    """States of IBA 12.9.5 and 12.9.6, without those that only name a moment."""

    REQ_SENT = "REQ sent"
    REQ_RECEIVED = "REQ received"
    REP_SENT = "REP sent"
    ESTABLISHED = "established"
    DREQ_SENT = "DREQ sent"
    DEAD = "dead"


class Exchange:
    """One end of one connection, from REQ to DREP."""

    __slots__ = (
        "answer",
        "answered",
        "connection",
        "last",
        "local_id",
        "options",
        "path",
        "patience",
        "peer",
        "peer_guid",
        "peer_id",
        "peer_qpn",
        "psn",
        "qpn",
        "report",
        "request",
        "retries",
        "state",
        "tid",
        "timer",
    )

    def __init__(self, state: CmState, local_id: int, tid: int, peer: MadAddress, options: ConnectOptions) -> None:
        self.state = state
        self.local_id = local_id
        self.tid = tid
        self.peer = peer
        self.options = options
        self.peer_id = 0
        self.peer_guid = 0
        self.peer_qpn = 0
        self.qpn = 0
        self.psn = 0
        self.patience = 0.0
        """Seconds to wait for an answer before sending again."""
        self.retries = 0
        """Resends left."""
        self.last = b""
        """The MAD sent last, for sending it again."""
        self.timer: asyncio.TimerHandle | None = None
        self.connection: RcConnection | None = None
        self.answer: asyncio.Future[RcConnection] | None = None
        """The result of connect(), at the end that sent REQ."""
        self.path: PathRecord | None = None
        """Likewise."""
        self.request: ConnectionRequest | None = None
        """The REQ that was received, at the other end."""
        self.answered = False
        self.report = False
        """The consumer is to hear of the end of the disconnection."""


def wait_of(exponent: int) -> float:
    """Seconds that a peer may make us wait by a timeout field; what it asks beyond 69 s is cut."""
    return timeout_seconds(min(exponent, _LONGEST_WAIT))


def make_request(
    exchange: Exchange, port: Port, path: PathRecord, service_id: int, private_data: bytes
) -> ConnectionRequest:
    """The REQ of an exchange whose QPN and PSN are chosen."""
    options = exchange.options
    return ConnectionRequest(
        local_comm_id=exchange.local_id,
        service_id=service_id,
        local_ca_guid=port.node.node_guid,
        local_qpn=exchange.qpn,
        responder_resources=options.responder_resources,
        initiator_depth=options.initiator_depth,
        remote_cm_response_timeout=options.cm_response_timeout,
        transport_service=TransportService.RC,
        starting_psn=exchange.psn,
        local_cm_response_timeout=options.cm_response_timeout,
        retry_count=options.retry_count,
        pkey=path.pkey,
        path_mtu=path.mtu,
        rnr_retry_count=_RNR_RETRY_FOREVER,
        max_cm_retries=options.max_cm_retries,
        primary=ConnectionPath(
            local_lid=path.slid or port.lid,
            remote_lid=path.dlid,
            local_gid=port.gid,
            remote_gid=path.dgid,
            flow_label=path.flow_label,
            packet_rate=path.rate,
            traffic_class=path.traffic_class,
            hop_limit=path.hop_limit,
            service_level=path.sl,
            subnet_local=1,
            local_ack_timeout=_ack_timeout(options, path),
        ).encode(),
        private_data=private_data,
    )


def make_reply(exchange: Exchange, port: Port, request: ConnectionRequest, private_data: bytes) -> ConnectionReply:
    """The REP of an exchange whose QPN and PSN are chosen."""
    options = exchange.options
    return ConnectionReply(
        local_comm_id=exchange.local_id,
        remote_comm_id=exchange.peer_id,
        local_qpn=exchange.qpn,
        starting_psn=exchange.psn,
        responder_resources=min(options.responder_resources, request.initiator_depth),
        initiator_depth=min(options.initiator_depth, request.responder_resources, MAX_READS),
        rnr_retry_count=_RNR_RETRY_FOREVER,
        local_ca_guid=port.node.node_guid,
        private_data=private_data,
    )


def objection(port: Port, request: ConnectionRequest) -> RejectReason | None:
    """Why a REQ cannot be taken whatever service it asks for."""
    path = request.primary_path
    if request.transport_service != TransportService.RC:
        return RejectReason.INVALID_TRANSPORT
    if path.remote_gid != port.gid:
        return RejectReason.INVALID_GID
    if not port.owns(path.remote_lid) or not 0 < path.local_lid < 0xC000:
        return RejectReason.INVALID_LID
    if request.path_mtu not in MTU_BYTES or request.path_mtu > port.mtu:
        return RejectReason.INVALID_MTU
    if not port.accepts_pkey(request.pkey):
        return RejectReason.UNSUPPORTED
    return None


def initiator_parameters(exchange: Exchange, port: Port, path: PathRecord, reply: ConnectionReply) -> RcParameters:
    """The connection at the end that sent REQ."""
    options = exchange.options
    return RcParameters(
        local_qpn=exchange.qpn,
        remote_qpn=reply.local_qpn,
        local_gid=port.gid,
        remote_gid=path.dgid,
        address=RcAddress(path.slid or port.lid, path.dlid, reply.local_qpn, path.pkey, path.sl).checked(),
        mtu=MTU_BYTES[path.mtu],
        send_psn=exchange.psn,
        receive_psn=reply.starting_psn,
        depth=min(options.initiator_depth, reply.responder_resources),
        ack_timeout=_ack_seconds(_ack_timeout(options, path)),
        retry_count=options.retry_count,
        max_message=options.max_message,
        close_on_port_error=options.close_on_port_error,
        private_data=reply.private_data,
    )


def acceptor_parameters(exchange: Exchange, pkey: int, request: ConnectionRequest) -> RcParameters:
    """The connection at the end that received REQ; ``pkey`` is its own."""
    options, path = exchange.options, request.primary_path
    return RcParameters(
        local_qpn=exchange.qpn,
        remote_qpn=request.local_qpn,
        local_gid=path.remote_gid,
        remote_gid=path.local_gid,
        address=RcAddress(path.remote_lid, path.local_lid, request.local_qpn, pkey, path.service_level).checked(),
        mtu=MTU_BYTES[request.path_mtu],
        send_psn=exchange.psn,
        receive_psn=request.starting_psn,
        depth=min(options.initiator_depth, request.responder_resources, MAX_READS),
        ack_timeout=_ack_seconds(path.local_ack_timeout),
        retry_count=request.retry_count,
        max_message=options.max_message,
        close_on_port_error=options.close_on_port_error,
        private_data=request.private_data,
    )


def make_rejection(
    request: ConnectionRequest, local_id: int, reason: int, ari: bytes = b"", private_data: bytes = b""
) -> ConnectionReject:
    """The REJ of a REQ."""
    return ConnectionReject(
        local_comm_id=local_id,
        remote_comm_id=request.local_comm_id,
        message=MessageKind.REQ,
        info_length=len(ari),
        reason=reason,
        additional_info=ari,
        private_data=private_data,
    )


def instance_of(request: ConnectionRequest) -> tuple[int, int, int, int]:
    """What tells a REQ that comes again from another one under the same id."""
    return request.local_ca_guid, request.local_comm_id, request.local_qpn, request.starting_psn


def _ack_timeout(options: ConnectOptions, path: PathRecord) -> int:
    return min(path.packet_life + 1, 31) if options.ack_timeout is None else options.ack_timeout


def _ack_seconds(exponent: int) -> float:
    return timeout_seconds(exponent) if exponent else 0.0
