"""Subnet administration: header, attributes, records, queries and answers (IBA 15.2).

An SA *reply* here is what the kernel's umad hands over: 56 bytes of header and the attribute data, 256 bytes in all for
a single record and any length for a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import ClassVar, Final, Self, TypeVar

from srpha.wire.dm import display_text
from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.identifiers import Gid
from srpha.wire.layout import Buffer, Structure, gid, raw, structure, uint
from srpha.wire.mad import MAD_LENGTH, CommonAttribute, MadHeader, ManagementClass, Method, read_header
from srpha.wire.rmpp import RMPP_VERSION, SA_HEADER_LENGTH, SA_PAYLOAD, RmppHeader, RmppType
from srpha.wire.smp import NodeInfo, PortInfo

SA_CLASS_VERSION: Final = 2
MATCH_CAPABILITY_BITS: Final = 1 << 31
"""Attribute modifier of a PortInfoRecord query: the given CapabilityMask bits must be set, others do not matter."""

R = TypeVar("R", bound="SaRecord")
S = TypeVar("S", bound=Structure)

NO_RMPP: Final = RmppHeader()


class SaAttribute(IntEnum):
    """Attributes of subnet administration (IBA 15.2.5, table 204)."""

    CLASS_PORT_INFO = CommonAttribute.CLASS_PORT_INFO
    NOTICE = CommonAttribute.NOTICE
    INFORM_INFO = CommonAttribute.INFORM_INFO
    NODE_RECORD = 0x0011
    PORT_INFO_RECORD = 0x0012
    SWITCH_INFO_RECORD = 0x0014
    LINEAR_FORWARDING_TABLE_RECORD = 0x0015
    SM_INFO_RECORD = 0x0018
    LINK_RECORD = 0x0020
    GUID_INFO_RECORD = 0x0030
    SERVICE_RECORD = 0x0031
    PKEY_TABLE_RECORD = 0x0033
    PATH_RECORD = 0x0035
    MC_MEMBER_RECORD = 0x0038
    INFORM_INFO_RECORD = 0x00F3


class SaStatus(IntEnum):
    """Class-specific status values, as they stand in the MAD status (IBA 15.2.3)."""

    NO_RESOURCES = 0x0100
    REQUEST_INVALID = 0x0200
    NO_RECORDS = 0x0300
    TOO_MANY_RECORDS = 0x0400
    INVALID_GID = 0x0500
    INSUFFICIENT_COMPONENTS = 0x0600
    DENIED = 0x0700
    PRIORITY_SUGGESTED = 0x0800


class NodeRecordMask(IntFlag):
    """Component mask of NodeRecord (IBA 15.2.5.2)."""

    LID = 1 << 0
    BASE_VERSION = 1 << 2
    CLASS_VERSION = 1 << 3
    NODE_TYPE = 1 << 4
    PORT_COUNT = 1 << 5
    SYSTEM_IMAGE_GUID = 1 << 6
    NODE_GUID = 1 << 7
    PORT_GUID = 1 << 8
    PARTITION_CAPACITY = 1 << 9
    DEVICE_ID = 1 << 10
    REVISION = 1 << 11
    LOCAL_PORT = 1 << 12
    VENDOR_ID = 1 << 13
    NODE_DESCRIPTION = 1 << 14


class PortInfoRecordMask(IntFlag):
    """Component mask of PortInfoRecord, as far as queries here go (IBA 15.2.5.3)."""

    ENDPORT_LID = 1 << 0
    PORT_NUMBER = 1 << 1
    OPTIONS = 1 << 2
    M_KEY = 1 << 3
    GID_PREFIX = 1 << 4
    BASE_LID = 1 << 5
    SM_LID = 1 << 6
    CAPABILITY_MASK = 1 << 7
    DIAG_CODE = 1 << 8
    M_KEY_LEASE_PERIOD = 1 << 9
    LOCAL_PORT = 1 << 10
    LINK_WIDTH_ENABLED = 1 << 11
    LINK_WIDTH_SUPPORTED = 1 << 12
    LINK_WIDTH_ACTIVE = 1 << 13
    LINK_SPEED_SUPPORTED = 1 << 14
    PORT_STATE = 1 << 15
    PHYS_STATE = 1 << 16


class PathRecordMask(IntFlag):
    """Component mask of PathRecord (IBA 15.2.5.16)."""

    SERVICE_ID = 1 << 0 | 1 << 1
    DGID = 1 << 2
    SGID = 1 << 3
    DLID = 1 << 4
    SLID = 1 << 5
    RAW_TRAFFIC = 1 << 6
    FLOW_LABEL = 1 << 8
    HOP_LIMIT = 1 << 9
    TRAFFIC_CLASS = 1 << 10
    REVERSIBLE = 1 << 11
    NUMB_PATH = 1 << 12
    PKEY = 1 << 13
    QOS_CLASS = 1 << 14
    SL = 1 << 15
    MTU_SELECTOR = 1 << 16
    MTU = 1 << 17
    RATE_SELECTOR = 1 << 18
    RATE = 1 << 19
    PACKET_LIFE_SELECTOR = 1 << 20
    PACKET_LIFE = 1 << 21
    PREFERENCE = 1 << 22


@dataclass(frozen=True, slots=True)
class SaHeader:
    """The 56 bytes in front of SA data: common header, RMPP header, SA header (IBA 15.2.1).

    ``attribute_offset`` is the distance of records in a table in units of 8 bytes.
    """

    LENGTH: ClassVar[int] = SA_HEADER_LENGTH

    mad: MadHeader
    rmpp: RmppHeader = NO_RMPP
    sm_key: int = 0
    attribute_offset: int = 0
    component_mask: int = 0

    @classmethod
    def decode(cls, data: Buffer) -> Self:
        """The header of an SA MAD or reply; raises :class:`DecodeError` when it is too short or of another class."""
        if len(data) < SA_HEADER_LENGTH:
            raise DecodeError(f"an SA header has {SA_HEADER_LENGTH} bytes, got {len(data)}")
        mad = MadHeader.decode(data)
        if (mad.base_version, mad.mgmt_class, mad.class_version) != (1, ManagementClass.SUBN_ADM, SA_CLASS_VERSION):
            raise DecodeError(
                f"base version {mad.base_version}, class {mad.mgmt_class:#04x}, class version {mad.class_version} "
                "is not subnet administration"
            )
        part = _SaPart.decode(data, 36)
        return cls(mad, RmppHeader.decode(data, 24), part.sm_key, part.attribute_offset, part.component_mask)

    def encode(self) -> bytes:
        part = _SaPart(sm_key=self.sm_key, attribute_offset=self.attribute_offset, component_mask=self.component_mask)
        return self.mad.encode() + self.rmpp.encode() + part.encode()


@structure(length=20)
class _SaPart(Structure):
    sm_key: int = uint(0, 64)
    attribute_offset: int = uint(8, 16)
    component_mask: int = uint(12, 64)


class SaRecord(Structure):
    """A record of an SA table. ``MINIMUM`` is the shortest form that any version of the specification sends."""

    __slots__ = ()
    ATTRIBUTE: ClassVar[SaAttribute]
    MINIMUM: ClassVar[int]


@structure(length=108)
class NodeRecord(SaRecord):
    """NodeRecord, 108 bytes (IBA 15.2.5.2): a port by its LID, and its node."""

    ATTRIBUTE: ClassVar[SaAttribute] = SaAttribute.NODE_RECORD
    MINIMUM: ClassVar[int] = 108

    lid: int = uint(0, 16)
    node_info: bytes = raw(4, 40)
    description: bytes = raw(44, 64)

    @classmethod
    def of(cls, lid: int, info: NodeInfo, description: bytes) -> NodeRecord:
        return cls(lid=lid, node_info=info.encode(), description=description)

    @property
    def info(self) -> NodeInfo:
        """The NodeInfo part, decoded at each call."""
        return NodeInfo.decode(self.node_info)

    @property
    def description_text(self) -> str:
        return display_text(self.description)


@structure(length=68)
class PortInfoRecord(SaRecord):
    """PortInfoRecord, 68 bytes with the 64-byte PortInfo, 58 in the form of IBA 1.1 (IBA 15.2.5.3)."""

    ATTRIBUTE: ClassVar[SaAttribute] = SaAttribute.PORT_INFO_RECORD
    MINIMUM: ClassVar[int] = 58

    endport_lid: int = uint(0, 16)
    port_number: int = uint(2, 8)
    options: int = uint(3, 8)
    port_info: bytes = raw(4, 64)

    @classmethod
    def of(cls, endport_lid: int, port_number: int, info: PortInfo) -> PortInfoRecord:
        return cls(endport_lid=endport_lid, port_number=port_number, port_info=info.encode())

    @property
    def info(self) -> PortInfo:
        """The PortInfo part, decoded at each call."""
        return PortInfo.decode(self.port_info)


@structure(length=64)
class PathRecord(SaRecord):
    """PathRecord, 64 bytes (IBA 15.2.5.16). ``packet_life`` is a 5-bit time code in 6 bits."""

    ATTRIBUTE: ClassVar[SaAttribute] = SaAttribute.PATH_RECORD
    MINIMUM: ClassVar[int] = 64

    service_id: int = uint(0, 64)
    dgid: Gid = gid(8)
    sgid: Gid = gid(24)
    dlid: int = uint(40, 16)
    slid: int = uint(42, 16)
    raw_traffic: int = uint(44, 1)
    flow_label: int = uint(44, 20, bit=4)
    hop_limit: int = uint(47, 8)
    traffic_class: int = uint(48, 8)
    reversible: int = uint(49, 1)
    numb_path: int = uint(49, 7, bit=1)
    pkey: int = uint(50, 16)
    qos_class: int = uint(52, 12)
    sl: int = uint(53, 4, bit=4)
    mtu_selector: int = uint(54, 2)
    mtu: int = uint(54, 6, bit=2)
    rate_selector: int = uint(55, 2)
    rate: int = uint(55, 6, bit=2)
    packet_life_selector: int = uint(56, 2)
    packet_life: int = uint(56, 6, bit=2)
    preference: int = uint(57, 8)


def sa_request(
    method: int,
    attribute: int,
    *,
    transaction_id: int,
    mask: int = 0,
    record: Structure | None = None,
    modifier: int = 0,
    sm_key: int = 0,
) -> bytes:
    """An SA request, 256 bytes. ``mask`` says which components of ``record`` the SA is to match."""
    table = method in (Method.GET_TABLE, Method.GET_TRACE_TABLE)
    header = SaHeader(
        mad=MadHeader(
            mgmt_class=ManagementClass.SUBN_ADM,
            class_version=SA_CLASS_VERSION,
            method=method,
            transaction_id=transaction_id,
            attribute_id=attribute,
            attribute_modifier=modifier,
        ),
        # a request for a table names the RMPP version the requester can receive; itself it is a single packet
        rmpp=RmppHeader(version=RMPP_VERSION, type=RmppType.DATA) if table else NO_RMPP,
        sm_key=sm_key,
        component_mask=mask,
    )
    return _whole(header, b"" if record is None else record.encode())


def sa_response(request: Buffer, record: Structure) -> bytes:
    """The successful answer with one ``record``, 256 bytes, to a request that is not for a table."""
    return _whole(_answer(request, 0, 0), record.encode())


def sa_error(request: Buffer, status: int) -> bytes:
    """The refusal of a request, 256 bytes: its own bytes with ``status``, no SM_Key and attribute offset 0."""
    header = _answer(request, status, 0)
    return header.encode() + bytes(request[SA_HEADER_LENGTH:MAD_LENGTH])


def sa_table(request: Buffer, records: Sequence[Structure], *, stride: int | None = None) -> bytes:
    """The successful answer with a table: 56 bytes of header and payload, ready for :func:`srpha.wire.rmpp.segment`.

    ``stride`` is the distance of records in bytes, a multiple of 8, by default the record's length rounded up. A table
    without records has attribute offset 0. Raises :class:`EncodeError` for records of different or too great length.
    """
    if not records:
        return _answer(request, 0, 0).encode()
    length = records[0].LENGTH
    step = -(-length // 8) * 8 if stride is None else stride
    if step % 8 or step < length or any(length != record.LENGTH for record in records):
        raise EncodeError(f"records of {length} bytes do not stand {step} bytes apart")
    return _answer(request, 0, step // 8).encode() + b"".join(record.encode().ljust(step, b"\0") for record in records)


def decode_record(reply: Buffer, record_type: type[S]) -> S:
    """The one record of a single reply, whose attribute offset does not matter."""
    SaHeader.decode(reply)
    return record_type.decode(reply, SA_HEADER_LENGTH)


def decode_table(reply: Buffer, record_type: type[R]) -> tuple[R, ...]:
    """All records of a reassembled table, each ``attribute_offset`` * 8 bytes after the one before.

    Offset 0 is how an SA says that there are none. Records may be longer than we know, and shorter down to their
    ``MINIMUM``; what is missing reads as zero. Bytes behind the last whole record are padding. Raises
    :class:`DecodeError` for another attribute, an error status, or an offset that cannot hold a record.
    """
    header = SaHeader.decode(reply)
    if header.mad.attribute_id != record_type.ATTRIBUTE:
        raise DecodeError(f"attribute {header.mad.attribute_id:#06x} where {record_type.ATTRIBUTE.name} belongs")
    if header.mad.status:
        raise DecodeError(f"a table with status {header.mad.status:#06x}")
    stride = 8 * header.attribute_offset
    if stride == 0:
        return ()
    if stride < record_type.MINIMUM:
        raise DecodeError(f"attribute offset {header.attribute_offset} is too small for {record_type.__name__}")
    body = memoryview(reply)[SA_HEADER_LENGTH:]
    count = len(body) // stride
    if stride >= record_type.LENGTH:
        return tuple(record_type.decode(body, index * stride) for index in range(count))
    return tuple(
        record_type.decode(bytes(body[index * stride : (index + 1) * stride]).ljust(record_type.LENGTH, b"\0"))
        for index in range(count)
    )


def _answer(request: Buffer, status: int, attribute_offset: int) -> SaHeader:
    """Header of the answer to a 256-byte request."""
    read_header(request)
    asked = SaHeader.decode(request)
    return SaHeader(
        mad=asked.mad.response(status),
        rmpp=asked.rmpp,
        attribute_offset=attribute_offset,
        component_mask=asked.component_mask,
    )


def _whole(header: SaHeader, data: bytes) -> bytes:
    if len(data) > SA_PAYLOAD:
        raise EncodeError(f"{len(data)} bytes do not fit an SA MAD")
    return (header.encode() + data).ljust(MAD_LENGTH, b"\0")
