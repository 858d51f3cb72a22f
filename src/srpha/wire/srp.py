"""SRP information units for login, task management, credits, events and logout (SRP rev. 16a chapter 6; SRP-2).

SRP_CMD and SRP_RSP are in :mod:`srpha.wire.srp_io`. :func:`decode_iu` reads any unit. The login units travel in CM
private data, which is padded; bytes after a unit are ignored.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, TypeAlias, TypeVar

from srpha.wire.errors import DecodeError
from srpha.wire.layout import Structure, raw, structure, uint
from srpha.wire.srp_io import IMMEDIATE_OFFSET, Command, Response, decode_cmd, decode_rsp

FORMAT_DIRECT: Final = 0x0002
"""Bit of the buffer format field of the login units: direct descriptors."""
FORMAT_INDIRECT: Final = 0x0004
IMMEDIATE_REQUESTED: Final = 0x80
"""Flag of LOGIN_REQ: immediate data wanted; of LOGIN_RSP: supported (SRP-2)."""

_U = TypeVar("_U", bound=Structure)


class Opcode(IntEnum):
    """First byte of every information unit."""

    LOGIN_REQ = 0x00
    TSK_MGMT = 0x01
    CMD = 0x02
    I_LOGOUT = 0x03
    CRED_RSP = 0x41
    AER_RSP = 0x42
    T_LOGOUT = 0x80
    CRED_REQ = 0x81
    AER_REQ = 0x82
    LOGIN_RSP = 0xC0
    RSP = 0xC1
    LOGIN_REJ = 0xC2


class MultichannelAction(IntEnum):
    """Low two bits of LOGIN_REQ flags: what becomes of the I_T nexus's other channels."""

    SINGLE = 0
    MULTI = 1


class MultichannelResult(IntEnum):
    """Low two bits of LOGIN_RSP flags."""

    NO_CHANNEL = 0
    TERMINATED = 1
    MAINTAINED = 2


class TaskFunction(IntEnum):
    """Task management functions (SRP 6.7)."""

    ABORT_TASK = 0x01
    ABORT_TASK_SET = 0x02
    CLEAR_TASK_SET = 0x04
    LUN_RESET = 0x08
    CLEAR_ACA = 0x40


class LoginRejectReason(IntEnum):
    """LOGIN_REJ reasons; :attr:`text` says what happened and :attr:`remedy` what to do about it."""

    text: str
    remedy: str

    def __new__(cls, value: int, text: str, remedy: str) -> LoginRejectReason:
        """Make a member that carries its text and its advice."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.text = text
        member.remedy = remedy
        return member

    UNABLE_TO_ESTABLISH = 0x00010000, "unable to establish a channel", "see the target's log"
    INSUFFICIENT_RESOURCES = (
        0x00010001,
        "insufficient resources",
        "the target port is disabled or has no room; enable it, or lower ch_count and queue_size",
    )
    IU_TOO_LARGE = (
        0x00010002,
        "requested IU length too large",
        "set max_it_iu_size to the target's value or turn use_imm_data off",
    )
    CANNOT_ASSOCIATE = (
        0x00010003,
        "target port identifier unknown",
        "id_ext, ioc_guid or io_class are not the target's; discover it again",
    )
    UNSUPPORTED_FORMAT = (
        0x00010004,
        "buffer descriptor format unsupported",
        "the target lacks direct or indirect buffers",
    )
    NO_MULTICHANNEL = 0x00010005, "multichannel unsupported", "set ch_count to 1"
    CHANNEL_LIMIT = (
        0x00010006,
        "channel limit reached",
        "lower ch_count; on Linux targets this also means that the ACL does not list this initiator port",
    )


def describe_login_reject(reason: int) -> str:
    """One line for an operator: number, meaning and advice; an unknown number is shown as such."""
    known = LoginRejectReason._value2member_map_.get(reason)
    if not isinstance(known, LoginRejectReason):
        return f"SRP_LOGIN_REJ reason {reason:#010x}: unknown reason"
    return f"SRP_LOGIN_REJ reason {reason:#010x}: {known.text} ({known.remedy})"


@structure(length=64)
class LoginRequest(Structure):
    """LOGIN_REQ (SRP 6.2): ``requested_it_iu_length`` is the longest unit the initiator will send."""

    opcode: int = uint(0, 8, default=Opcode.LOGIN_REQ)
    tag: int = uint(8, 64)
    requested_it_iu_length: int = uint(16, 32)
    buffer_formats: int = uint(24, 16, default=FORMAT_DIRECT | FORMAT_INDIRECT)
    flags: int = uint(26, 8, default=0)
    immediate_offset: int = uint(28, 16, default=0)
    initiator_port_id: bytes = raw(32, 16)
    target_port_id: bytes = raw(48, 16)

    @property
    def multichannel_action(self) -> int:
        """See :class:`MultichannelAction`."""
        return self.flags & 3


@structure(length=56)
class LoginRequestRdmaCm(Structure):
    """LOGIN_REQ as it travels in RDMA/CM private data, squeezed into 56 bytes."""

    tag: int = uint(0, 64)
    buffer_formats: int = uint(8, 16, default=FORMAT_DIRECT | FORMAT_INDIRECT)
    flags: int = uint(10, 8, default=0)
    opcode: int = uint(11, 8, default=Opcode.LOGIN_REQ)
    requested_it_iu_length: int = uint(12, 32)
    initiator_port_id: bytes = raw(16, 16)
    target_port_id: bytes = raw(32, 16)
    immediate_offset: int = uint(48, 16, default=0)


@structure(length=52)
class LoginResponse(Structure):
    """LOGIN_RSP (SRP 6.3): ``limit_delta`` is the first request limit."""

    opcode: int = uint(0, 8, default=Opcode.LOGIN_RSP)
    limit_delta: int = uint(4, 32)
    tag: int = uint(8, 64)
    max_it_iu_length: int = uint(16, 32)
    max_ti_iu_length: int = uint(20, 32)
    buffer_formats: int = uint(24, 16, default=FORMAT_DIRECT | FORMAT_INDIRECT)
    flags: int = uint(26, 8, default=0)

    @property
    def multichannel_result(self) -> int:
        """See :class:`MultichannelResult`."""
        return self.flags & 3


@structure(length=32)
class LoginReject(Structure):
    """LOGIN_REJ (SRP 6.4)."""

    opcode: int = uint(0, 8, default=Opcode.LOGIN_REJ)
    reason: int = uint(4, 32)
    tag: int = uint(8, 64)
    buffer_formats: int = uint(24, 16, default=FORMAT_DIRECT | FORMAT_INDIRECT)


@structure(length=48)
class TaskManagement(Structure):
    """TSK_MGMT (SRP 6.7): ``lun`` is the 8-byte LUN field as an integer, ``task_tag`` the tag to abort."""

    opcode: int = uint(0, 8, default=Opcode.TSK_MGMT)
    notify: int = uint(1, 8, default=0)
    tag: int = uint(8, 64)
    lun: int = uint(20, 64)
    function: int = uint(30, 8)
    task_tag: int = uint(32, 64, default=0)


@structure(length=16)
class InitiatorLogout(Structure):
    """I_LOGOUT (SRP 6.5)."""

    opcode: int = uint(0, 8, default=Opcode.I_LOGOUT)
    tag: int = uint(8, 64)


@structure(length=16)
class TargetLogout(Structure):
    """T_LOGOUT (SRP 6.6)."""

    opcode: int = uint(0, 8, default=Opcode.T_LOGOUT)
    notify: int = uint(1, 8, default=0)
    reason: int = uint(4, 32)
    tag: int = uint(8, 64)


@structure(length=16)
class CreditRequest(Structure):
    """CRED_REQ (SRP 6.10): the target adds ``limit_delta`` (two's complement) to the request limit."""

    opcode: int = uint(0, 8, default=Opcode.CRED_REQ)
    notify: int = uint(1, 8, default=0)
    limit_delta: int = uint(4, 32)
    tag: int = uint(8, 64)


@structure(length=16)
class CreditResponse(Structure):
    """CRED_RSP (SRP 6.11)."""

    opcode: int = uint(0, 8, default=Opcode.CRED_RSP)
    tag: int = uint(8, 64)


@structure(length=36)
class EventRequestHeader(Structure):
    """AER_REQ (SRP 6.12) without its sense data, see :func:`encode_event`."""

    opcode: int = uint(0, 8, default=Opcode.AER_REQ)
    notify: int = uint(1, 8, default=0)
    limit_delta: int = uint(4, 32)
    tag: int = uint(8, 64)
    lun: int = uint(20, 64)
    sense_length: int = uint(28, 32)


@structure(length=16)
class EventResponse(Structure):
    """AER_RSP (SRP 6.13)."""

    opcode: int = uint(0, 8, default=Opcode.AER_RSP)
    tag: int = uint(8, 64)


InformationUnit: TypeAlias = (
    LoginRequest
    | LoginResponse
    | LoginReject
    | Command
    | Response
    | TaskManagement
    | InitiatorLogout
    | TargetLogout
    | CreditRequest
    | CreditResponse
    | tuple[EventRequestHeader, bytes]
    | EventResponse
)


def encode_event(tag: int, lun: int, sense: bytes, limit_delta: int = 0) -> bytes:
    """An AER_REQ with its sense data."""
    return EventRequestHeader(tag=tag, lun=lun, sense_length=len(sense), limit_delta=limit_delta).encode() + sense


def decode_event(data: bytes) -> tuple[EventRequestHeader, bytes]:
    """``(header, sense)`` of an AER_REQ."""
    header = _checked(EventRequestHeader, data, Opcode.AER_REQ)
    end = EventRequestHeader.LENGTH + header.sense_length
    if end > len(data):
        raise DecodeError(f"AER_REQ: sense of {header.sense_length} bytes reaches past its end of {len(data)} bytes")
    return header, bytes(data[EventRequestHeader.LENGTH : end])


def decode_iu(data: bytes, immediate_offset: int = IMMEDIATE_OFFSET) -> InformationUnit:
    """Read any information unit by its opcode; :class:`DecodeError` for an unknown one or a bad length."""
    if not data:
        raise DecodeError("empty SRP information unit")
    match data[0]:
        case Opcode.CMD:
            return decode_cmd(data, immediate_offset)
        case Opcode.RSP:
            return decode_rsp(data)
        case Opcode.TSK_MGMT:
            return TaskManagement.decode(data)
        case Opcode.LOGIN_REQ:
            return LoginRequest.decode(data)
        case Opcode.LOGIN_RSP:
            return LoginResponse.decode(data)
        case Opcode.LOGIN_REJ:
            return LoginReject.decode(data)
        case Opcode.I_LOGOUT:
            return InitiatorLogout.decode(data)
        case Opcode.T_LOGOUT:
            return TargetLogout.decode(data)
        case Opcode.CRED_REQ:
            return CreditRequest.decode(data)
        case Opcode.CRED_RSP:
            return CreditResponse.decode(data)
        case Opcode.AER_REQ:
            return decode_event(data)
        case Opcode.AER_RSP:
            return EventResponse.decode(data)
        case unknown:
            raise DecodeError(f"unknown SRP opcode {unknown:#04x}")


def decode_login_request(data: bytes) -> LoginRequest:
    """LOGIN_REQ in the private data of a CM REQ."""
    return _checked(LoginRequest, data, Opcode.LOGIN_REQ)


def decode_login_response(data: bytes) -> LoginResponse:
    """LOGIN_RSP in the private data of a CM REP."""
    return _checked(LoginResponse, data, Opcode.LOGIN_RSP)


def decode_login_reject(data: bytes) -> LoginReject:
    """LOGIN_REJ in the private data of a CM REJ with reason 28."""
    return _checked(LoginReject, data, Opcode.LOGIN_REJ)


def signed_delta(limit_delta: int) -> int:
    """A request limit delta field as a signed number."""
    return limit_delta - (1 << 32) if limit_delta & 1 << 31 else limit_delta


def _checked(kind: type[_U], data: bytes, opcode: Opcode) -> _U:
    if data[:1] != bytes([opcode]):
        raise DecodeError(f"not an SRP {opcode.name}: starts with {bytes(data[:4]).hex() or 'nothing'}")
    return kind.decode(data)
