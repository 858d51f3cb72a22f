"""InfiniBand communication management messages (IBA volume 1, chapter 12.6).

A CM message is the 232-byte data part of a 256-byte MAD of class 0x07, class version 2, method Send. The message
classes here are those 232 bytes; :func:`pack_mad` and :func:`unpack_mad` join them to the 24-byte MAD header.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, TypeAlias

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.identifiers import Gid
from srpha.wire.layout import Buffer, Structure, gid, raw, structure, uint

CM_CLASS: Final = 0x07
CM_CLASS_VERSION: Final = 2
METHOD_SEND: Final = 0x03
BODY_LENGTH: Final = 232
MAD_LENGTH: Final = 256

_HEADER: Final = struct.Struct(">BBBBHHQHHI")
_TIMEOUT_UNIT: Final = 4.096e-6


class CmAttribute(IntEnum):
    """Attribute ids of the CM class (IBA 16.7.3)."""

    REQ = 0x0010
    MRA = 0x0011
    REJ = 0x0012
    REP = 0x0013
    RTU = 0x0014
    DREQ = 0x0015
    DREP = 0x0016


class TransportService(IntEnum):
    """Transport service type of a REQ (IBA 12.7.6)."""

    RC = 0
    UC = 1
    RD = 2
    EXTENDED = 3


class MessageKind(IntEnum):
    """What an MRA or REJ answers (IBA 12.7.21, 12.7.22)."""

    REQ = 0
    REP = 1
    OTHER = 2
    """LAP in an MRA; neither REQ nor REP in a REJ."""


def timeout_seconds(exponent: int) -> float:
    """Seconds meant by a 5-bit timeout field: 4.096 us * 2**exponent (IBA 12.7.4); 0 means no timeout for ACKs."""
    if not 0 <= exponent <= 31:
        raise EncodeError(f"a timeout exponent is 0..31, got {exponent}")
    return _TIMEOUT_UNIT * (1 << exponent)


def timeout_exponent(seconds: float) -> int:
    """Smallest 5-bit exponent whose time is not below ``seconds``; 31 when none is."""
    for exponent in range(32):
        if _TIMEOUT_UNIT * (1 << exponent) >= seconds:
            return exponent
    return 31


@structure(length=44)
class ConnectionPath(Structure):
    """Primary or alternate path of a REQ (IBA 12.6.5): as seen by the sender, so *local* is the sender's port."""

    local_lid: int = uint(0, 16)
    remote_lid: int = uint(2, 16)
    local_gid: Gid = gid(4)
    remote_gid: Gid = gid(20)
    flow_label: int = uint(36, 20, default=0)
    packet_rate: int = uint(39, 6, bit=2, default=0)
    traffic_class: int = uint(40, 8, default=0)
    hop_limit: int = uint(41, 8, default=0)
    service_level: int = uint(42, 4, default=0)
    subnet_local: int = uint(42, 1, bit=4, default=0)
    local_ack_timeout: int = uint(43, 5, default=0)


@structure(length=BODY_LENGTH)
class ConnectionRequest(Structure):
    """REQ (IBA 12.6.5). ``primary`` and ``alternate`` are encoded :class:`ConnectionPath` structures."""

    local_comm_id: int = uint(0, 32)
    service_id: int = uint(8, 64)
    local_ca_guid: int = uint(16, 64)
    local_q_key: int = uint(28, 32, default=0)
    local_qpn: int = uint(32, 24)
    responder_resources: int = uint(35, 8, default=0)
    local_eecn: int = uint(36, 24, default=0)
    initiator_depth: int = uint(39, 8, default=0)
    remote_eecn: int = uint(40, 24, default=0)
    remote_cm_response_timeout: int = uint(43, 5, default=0)
    transport_service: int = uint(43, 2, bit=5, default=0)
    end_to_end_flow_control: int = uint(43, 1, bit=7, default=0)
    starting_psn: int = uint(44, 24)
    local_cm_response_timeout: int = uint(47, 5, default=0)
    retry_count: int = uint(47, 3, bit=5, default=0)
    pkey: int = uint(48, 16)
    path_mtu: int = uint(50, 4)
    rdc_exists: int = uint(50, 1, bit=4, default=0)
    rnr_retry_count: int = uint(50, 3, bit=5, default=0)
    max_cm_retries: int = uint(51, 4, default=0)
    srq: int = uint(51, 1, bit=4, default=0)
    extended_transport: int = uint(51, 3, bit=5, default=0)
    primary: bytes = raw(52, 44)
    alternate: bytes = raw(96, 44, default=bytes(44))
    private_data: bytes = raw(140, 92, default=bytes(92))

    @property
    def primary_path(self) -> ConnectionPath:
        """The primary path, decoded."""
        return ConnectionPath.decode(self.primary)

    @property
    def alternate_path(self) -> ConnectionPath | None:
        """The alternate path, decoded; ``None`` when all its fields are zero, which means there is none."""
        return ConnectionPath.decode(self.alternate) if any(self.alternate) else None


@structure(length=BODY_LENGTH)
class MessageReceiptAck(Structure):
    """MRA (IBA 12.6.6): the peer needs up to ``service_timeout`` (exponent) longer to answer."""

    local_comm_id: int = uint(0, 32)
    remote_comm_id: int = uint(4, 32)
    message: int = uint(8, 2)
    service_timeout: int = uint(9, 5, default=0)
    private_data: bytes = raw(10, 222, default=bytes(222))


@structure(length=BODY_LENGTH)
class ConnectionReject(Structure):
    """REJ (IBA 12.6.7). ``additional_info`` (ARI) is valid for ``info_length`` bytes."""

    local_comm_id: int = uint(0, 32)
    remote_comm_id: int = uint(4, 32)
    message: int = uint(8, 2)
    info_length: int = uint(9, 7, default=0)
    reason: int = uint(10, 16)
    additional_info: bytes = raw(12, 72, default=bytes(72))
    private_data: bytes = raw(84, 148, default=bytes(148))


@structure(length=BODY_LENGTH)
class ConnectionReply(Structure):
    """REP (IBA 12.6.8)."""

    local_comm_id: int = uint(0, 32)
    remote_comm_id: int = uint(4, 32)
    local_q_key: int = uint(8, 32, default=0)
    local_qpn: int = uint(12, 24)
    local_eecn: int = uint(16, 24, default=0)
    starting_psn: int = uint(20, 24)
    responder_resources: int = uint(24, 8, default=0)
    initiator_depth: int = uint(25, 8, default=0)
    target_ack_delay: int = uint(26, 5, default=0)
    failover_accepted: int = uint(26, 2, bit=5, default=0)
    end_to_end_flow_control: int = uint(26, 1, bit=7, default=0)
    rnr_retry_count: int = uint(27, 3, default=0)
    srq: int = uint(27, 1, bit=3, default=0)
    local_ca_guid: int = uint(28, 64)
    private_data: bytes = raw(36, 196, default=bytes(196))


@structure(length=BODY_LENGTH)
class ReadyToUse(Structure):
    """RTU (IBA 12.6.9)."""

    local_comm_id: int = uint(0, 32)
    remote_comm_id: int = uint(4, 32)
    private_data: bytes = raw(8, 224, default=bytes(224))


@structure(length=BODY_LENGTH)
class DisconnectRequest(Structure):
    """DREQ (IBA 12.6.10)."""

    local_comm_id: int = uint(0, 32)
    remote_comm_id: int = uint(4, 32)
    remote_qpn: int = uint(8, 24)
    private_data: bytes = raw(12, 220, default=bytes(220))


@structure(length=BODY_LENGTH)
class DisconnectReply(Structure):
    """DREP (IBA 12.6.11)."""

    local_comm_id: int = uint(0, 32)
    remote_comm_id: int = uint(4, 32)
    private_data: bytes = raw(8, 224, default=bytes(224))


CmMessage: TypeAlias = (
    ConnectionRequest
    | MessageReceiptAck
    | ConnectionReject
    | ConnectionReply
    | ReadyToUse
    | DisconnectRequest
    | DisconnectReply
)


def attribute_of(message: CmMessage) -> CmAttribute:
    """Attribute id under which ``message`` travels."""
    match message:
        case ConnectionRequest():
            return CmAttribute.REQ
        case MessageReceiptAck():
            return CmAttribute.MRA
        case ConnectionReject():
            return CmAttribute.REJ
        case ConnectionReply():
            return CmAttribute.REP
        case ReadyToUse():
            return CmAttribute.RTU
        case DisconnectRequest():
            return CmAttribute.DREQ
        case DisconnectReply():
            return CmAttribute.DREP


def decode_message(attribute: int, data: Buffer, offset: int = 0) -> CmMessage:
    """Decode the 232 bytes at ``offset`` as the message of ``attribute``; :class:`DecodeError` if unknown or short."""
    match attribute:
        case CmAttribute.REQ:
            return ConnectionRequest.decode(data, offset)
        case CmAttribute.MRA:
            return MessageReceiptAck.decode(data, offset)
        case CmAttribute.REJ:
            reject = ConnectionReject.decode(data, offset)
            if reject.info_length > 72:
                raise DecodeError(f"a REJ has at most 72 bytes of additional information, got {reject.info_length}")
            return reject
        case CmAttribute.REP:
            return ConnectionReply.decode(data, offset)
        case CmAttribute.RTU:
            return ReadyToUse.decode(data, offset)
        case CmAttribute.DREQ:
            return DisconnectRequest.decode(data, offset)
        case CmAttribute.DREP:
            return DisconnectReply.decode(data, offset)
        case _:
            raise DecodeError(f"not a CM attribute: {attribute:#06x}")


def pack_mad(message: CmMessage, transaction_id: int) -> bytes:
    """The 256-byte MAD (class 7, version 2, method Send) that carries ``message``."""
    if not 0 <= transaction_id < 1 << 64:
        raise EncodeError(f"a transaction id has 64 bits, got {transaction_id:#x}")
    head = _HEADER.pack(1, CM_CLASS, CM_CLASS_VERSION, METHOD_SEND, 0, 0, transaction_id, attribute_of(message), 0, 0)
    return head + message.encode()


def unpack_mad(data: Buffer) -> tuple[int, CmMessage]:
    """``(transaction id, message)`` of a CM MAD; :class:`DecodeError` when it is not one."""
    if len(data) != MAD_LENGTH:
        raise DecodeError(f"a MAD has {MAD_LENGTH} bytes, got {len(data)}")
    base, mad_class, version, method, _, _, transaction_id, attribute, _, _ = _HEADER.unpack_from(data)
    if (base, mad_class, version) != (1, CM_CLASS, CM_CLASS_VERSION):
        raise DecodeError(f"not a CM MAD: base version {base}, class {mad_class:#04x} version {version}")
    if method != METHOD_SEND:
        raise DecodeError(f"a CM MAD has method Send (0x03), got {method:#04x}")
    return transaction_id, decode_message(attribute, data, _HEADER.size)
