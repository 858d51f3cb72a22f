"""The common management datagram header, its methods and its status (IBA 13.4.2 to 13.4.7).

A MAD is always 256 bytes on the wire. What the kernel hands over after RMPP reassembly may be longer; it starts with
the same header.
"""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum, IntFlag
from typing import Final

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.layout import Buffer, Structure, structure, uint

MAD_LENGTH: Final = 256
MAD_HEADER_LENGTH: Final = 24
BASE_VERSION: Final = 1

RESPONSE_BIT: Final = 0x80
"""Bit of the method that marks a response (IBA 13.4.5)."""

GSI_QPN: Final = 1
GSI_QKEY: Final = 0x80010000
"""Queue pair and Q_Key of the General Service Interface, where every class but the SMPs lives (IBA 13.5.1)."""


class ManagementClass(IntEnum):
    """Management classes (IBA 13.4.4, table 112)."""

    SUBN_LID_ROUTED = 0x01
    SUBN_ADM = 0x03
    PERFORMANCE = 0x04
    BASEBOARD = 0x05
    DEVICE_MGMT = 0x06
    COMM_MGMT = 0x07
    SUBN_DIRECTED_ROUTE = 0x81


class Method(IntEnum):
    """Methods of the common header and of subnet administration (IBA 13.4.5 and 15.2.2)."""

    GET = 0x01
    SET = 0x02
    SEND = 0x03
    TRAP = 0x05
    REPORT = 0x06
    TRAP_REPRESS = 0x07
    GET_TABLE = 0x12
    GET_TRACE_TABLE = 0x13
    GET_MULTI = 0x14
    DELETE = 0x15
    GET_RESP = 0x81
    REPORT_RESP = 0x86
    GET_TABLE_RESP = 0x92
    GET_MULTI_RESP = 0x94
    DELETE_RESP = 0x95


class CommonAttribute(IntEnum):
    """Attributes that every class may have (IBA 13.4.8)."""

    CLASS_PORT_INFO = 0x0001
    NOTICE = 0x0002
    INFORM_INFO = 0x0003


class MadStatus(IntFlag):
    """Class-independent status bits (IBA 13.4.7, table 115). The three ``INVALID_*`` bits hold a number, not flags."""

    OK = 0x0000
    BUSY = 0x0001
    REDIRECT = 0x0002
    BAD_VERSION = 0x0004
    UNSUPPORTED_METHOD = 0x0008
    UNSUPPORTED_METHOD_ATTRIBUTE = 0x000C
    INVALID_FIELD = 0x001C


STATUS_INVALID_MASK: Final = 0x001C
STATUS_CLASS_MASK: Final = 0xFF00


@structure(length=24)
class MadHeader(Structure):
    """The first 24 bytes of every MAD (IBA 13.4.2).

    ``class_specific`` is hop pointer and hop count in a directed-route SMP and reserved elsewhere.
    """

    base_version: int = uint(0, 8, default=BASE_VERSION)
    mgmt_class: int = uint(1, 8)
    class_version: int = uint(2, 8, default=1)
    method: int = uint(3, 8)
    status: int = uint(4, 16)
    class_specific: int = uint(6, 16)
    transaction_id: int = uint(8, 64)
    attribute_id: int = uint(16, 16)
    attribute_modifier: int = uint(20, 32)

    @property
    def is_response(self) -> bool:
        return is_response_method(self.method)

    def response(self, status: int = 0) -> MadHeader:
        """The header of the answer to this request; raises :class:`EncodeError` for a method without one."""
        return replace(self, method=response_method(self.method), status=status)


def is_response_method(method: int) -> bool:
    """Whether a method answers an earlier MAD: the response bit, or TrapRepress, which has none (IBA 13.4.5)."""
    return bool(method & RESPONSE_BIT) or method == Method.TRAP_REPRESS


def response_method(method: int) -> int:
    """The method that answers ``method``; raises :class:`EncodeError` where the specification has no answer."""
    if is_response_method(method) or method == Method.SEND:
        raise EncodeError(f"method {method:#04x} has no response")
    if method == Method.SET:
        return Method.GET_RESP
    if method == Method.TRAP:
        return Method.TRAP_REPRESS
    if method == Method.GET_TRACE_TABLE:
        return Method.GET_TABLE_RESP
    return method | RESPONSE_BIT


def transaction_key(mad: Buffer) -> int:
    """The low 32 bits of the transaction ID, the half that is ours: the kernel owns the upper half of requests."""
    if len(mad) < MAD_HEADER_LENGTH:
        raise DecodeError(f"a MAD header needs {MAD_HEADER_LENGTH} bytes, got {len(mad)}")
    return int.from_bytes(mad[12:16], "big")


def read_header(mad: Buffer) -> MadHeader:
    """Header of a received single MAD; raises :class:`DecodeError` unless it has 256 bytes and base version 1."""
    if len(mad) != MAD_LENGTH:
        raise DecodeError(f"a MAD has {MAD_LENGTH} bytes, got {len(mad)}")
    header = MadHeader.decode(mad)
    if header.base_version != BASE_VERSION:
        raise DecodeError(f"MAD base version {header.base_version} is not {BASE_VERSION}")
    return header


def build_mad(header: MadHeader, body: Buffer = b"", *, at: int = MAD_HEADER_LENGTH) -> bytes:
    """A 256-byte MAD: ``header``, zeros up to byte ``at``, ``body``, zeros to the end.

    Raises :class:`EncodeError` when the body does not fit.
    """
    if at < MAD_HEADER_LENGTH or at + len(body) > MAD_LENGTH:
        raise EncodeError(f"{len(body)} bytes at offset {at} do not fit a MAD")
    return (header.encode().ljust(at, b"\0") + bytes(body)).ljust(MAD_LENGTH, b"\0")


def status_response(request: Buffer, status: int) -> bytes:
    """``request`` sent back whole as a response with ``status``: how an agent refuses (IBA 13.4.7)."""
    header = read_header(request).response(status)
    return header.encode() + bytes(request[MAD_HEADER_LENGTH:])


def time_value(code: int) -> float:
    """Seconds of a 5-bit InfiniBand time code, 4.096 us * 2**code (IBA 13.4.6.2 and 14.2.5.6)."""
    if not 0 <= code <= 31:
        raise EncodeError(f"a time code has 5 bits, got {code}")
    return float(4.096e-6 * (1 << code))


def describe_status(mgmt_class: int, status: int) -> str:
    """One line for an operator on a MAD status, e.g. ``"no records match (SA status 3)"``; ``"ok"`` for success.

    The common bits are the same in every class; the high byte is read by class (IBA 13.4.7, 15.2.3 and 16.3.1.1).
    """
    if mgmt_class == ManagementClass.SUBN_DIRECTED_ROUTE:
        status &= 0x7FFF  # the direction bit is not part of the status
    parts: list[str] = []
    if status & MadStatus.BUSY:
        parts.append("busy, try again later")
    if status & MadStatus.REDIRECT:
        parts.append("redirected to another port")
    invalid = (status & STATUS_INVALID_MASK) >> 2
    if invalid:
        parts.append(_invalid_text(invalid))
    particular = (status & STATUS_CLASS_MASK) >> 8
    if particular:
        parts.append(_class_text(mgmt_class, particular))
    rest = status & ~(MadStatus.BUSY | MadStatus.REDIRECT | STATUS_INVALID_MASK | STATUS_CLASS_MASK)
    if rest:
        parts.append(f"reserved bits {rest:#06x}")
    return ", ".join(parts) or "ok"


def _invalid_text(code: int) -> str:
    match code:
        case 1:
            return "class or base version not supported"
        case 2:
            return "method not supported"
        case 3:
            return "attribute not supported with this method"
        case 7:
            return "invalid value in the attribute or its modifier"
        case _:
            return f"invalid request (reserved code {code})"


def _class_text(mgmt_class: int, code: int) -> str:
    if mgmt_class == ManagementClass.SUBN_ADM:
        known = {
            1: "no resources",
            2: "invalid request",
            3: "no records match",
            4: "too many records match",
            5: "invalid GID",
            6: "insufficient components",
            7: "denied",
            8: "another service priority suggested",
        }.get(code, "class error")
        return f"{known} (SA status {code})"
    if mgmt_class == ManagementClass.DEVICE_MGMT:
        known = {1: "no such I/O controller", 2: "no service entries", 0x80: "I/O controller failure"}.get(
            code, "class error"
        )
        return f"{known} (DM status {code:#04x})"
    return f"class status {code:#04x}"
