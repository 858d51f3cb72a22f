"""Sense data in fixed and descriptor format (SPC-4 4.5), and the additional sense codes that path decisions use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from srpha.wire.errors import DecodeError, EncodeError


class SenseKey(IntEnum):
    """Sense keys (SPC-4 4.5.6)."""

    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    BLANK_CHECK = 0x8
    VENDOR_SPECIFIC = 0x9
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    VOLUME_OVERFLOW = 0xD
    MISCOMPARE = 0xE
    COMPLETED = 0xF


class Asc(Enum):
    """Additional sense code and qualifier pairs (SPC-4 annex D) with their texts."""

    def __init__(self, asc: int, ascq: int, text: str) -> None:
        self.asc = asc
        self.ascq = ascq
        self.text = text

    NO_INFORMATION = 0x00, 0x00, "no additional sense information"
    NOT_READY_CAUSE_UNKNOWN = 0x04, 0x00, "logical unit not ready, cause not reportable"
    BECOMING_READY = 0x04, 0x01, "logical unit is in process of becoming ready"
    INITIALIZING_COMMAND_REQUIRED = 0x04, 0x02, "logical unit not ready, initializing command required"
    MANUAL_INTERVENTION = 0x04, 0x03, "logical unit not ready, manual intervention required"
    FORMAT_IN_PROGRESS = 0x04, 0x04, "logical unit not ready, format in progress"
    REBUILD_IN_PROGRESS = 0x04, 0x05, "logical unit not ready, rebuild in progress"
    RECALCULATION_IN_PROGRESS = 0x04, 0x06, "logical unit not ready, recalculation in progress"
    OPERATION_IN_PROGRESS = 0x04, 0x07, "logical unit not ready, operation in progress"
    LONG_WRITE_IN_PROGRESS = 0x04, 0x08, "logical unit not ready, long write in progress"
    SELF_TEST_IN_PROGRESS = 0x04, 0x09, "logical unit not ready, self-test in progress"
    ALUA_TRANSITION = 0x04, 0x0A, "logical unit not accessible, asymmetric access state transition"
    ALUA_STANDBY = 0x04, 0x0B, "logical unit not accessible, target port in standby state"
    ALUA_UNAVAILABLE = 0x04, 0x0C, "logical unit not accessible, target port in unavailable state"
    NOTIFY_REQUIRED = 0x04, 0x11, "logical unit not ready, notify (enable spinup) required"
    OFFLINE = 0x04, 0x12, "logical unit not ready, offline"
    SPACE_ALLOCATION_IN_PROGRESS = 0x04, 0x14, "logical unit not ready, space allocation in progress"
    START_STOP_IN_PROGRESS = 0x04, 0x1A, "logical unit not ready, start stop unit command in progress"
    SANITIZE_IN_PROGRESS = 0x04, 0x1B, "logical unit not ready, sanitize in progress"
    CONFIGURATION_IN_PROGRESS = 0x04, 0x1D, "logical unit not ready, configuration in progress"
    DEPOPULATION_IN_PROGRESS = 0x04, 0x24, "depopulation in progress"
    WRITE_ERROR = 0x0C, 0x00, "write error"
    GUARD_CHECK_FAILED = 0x10, 0x01, "logical block guard check failed"
    UNRECOVERED_READ_ERROR = 0x11, 0x00, "unrecovered read error"
    ADDRESS_MARK_NOT_FOUND = 0x13, 0x00, "address mark not found for data field"
    RECORDED_ENTITY_NOT_FOUND = 0x14, 0x00, "recorded entity not found"
    PARAMETER_LIST_LENGTH_ERROR = 0x1A, 0x00, "parameter list length error"
    MISCOMPARE = 0x1D, 0x00, "miscompare during verify operation"
    INVALID_OPCODE = 0x20, 0x00, "invalid command operation code"
    LBA_OUT_OF_RANGE = 0x21, 0x00, "logical block address out of range"
    ILLEGAL_FUNCTION = 0x22, 0x00, "illegal function"
    INVALID_FIELD_IN_CDB = 0x24, 0x00, "invalid field in CDB"
    LUN_NOT_SUPPORTED = 0x25, 0x00, "logical unit not supported"
    INVALID_FIELD_IN_LIST = 0x26, 0x00, "invalid field in parameter list"
    WRITE_PROTECTED = 0x27, 0x00, "write protected"
    SPACE_ALLOCATION_FAILED = 0x27, 0x07, "space allocation failed write protect"
    MEDIUM_MAY_HAVE_CHANGED = 0x28, 0x00, "not ready to ready change, medium may have changed"
    POWER_ON_OR_RESET = 0x29, 0x00, "power on, reset, or bus device reset occurred"
    POWER_ON = 0x29, 0x01, "power on occurred"
    BUS_RESET = 0x29, 0x02, "SCSI bus reset occurred"
    DEVICE_RESET = 0x29, 0x03, "bus device reset function occurred"
    INTERNAL_RESET = 0x29, 0x04, "device internal reset"
    NEXUS_LOSS = 0x29, 0x07, "I_T nexus loss occurred"
    PARAMETERS_CHANGED = 0x2A, 0x00, "parameters changed"
    MODE_PARAMETERS_CHANGED = 0x2A, 0x01, "mode parameters changed"
    RESERVATIONS_PREEMPTED = 0x2A, 0x03, "reservations preempted"
    RESERVATIONS_RELEASED = 0x2A, 0x04, "reservations released"
    REGISTRATIONS_PREEMPTED = 0x2A, 0x05, "registrations preempted"
    ALUA_STATE_CHANGED = 0x2A, 0x06, "asymmetric access state changed"
    IMPLICIT_TRANSITION_FAILED = 0x2A, 0x07, "implicit asymmetric access state transition failed"
    CAPACITY_CHANGED = 0x2A, 0x09, "capacity data has changed"
    COMMANDS_CLEARED = 0x2F, 0x00, "commands cleared by another initiator"
    THIN_SPACE_THRESHOLD = 0x38, 0x07, "thin provisioning soft threshold reached"
    TARGET_CONDITIONS_CHANGED = 0x3F, 0x00, "target operating conditions have changed"
    INQUIRY_CHANGED = 0x3F, 0x03, "inquiry data has changed"
    REPORTED_LUNS_CHANGED = 0x3F, 0x0E, "reported LUNs data has changed"
    INTERNAL_TARGET_FAILURE = 0x44, 0x00, "internal target failure"
    NAK_RECEIVED = 0x4B, 0x04, "NAK received"
    DATA_PHASE_ERROR = 0x4B, 0x00, "data phase error"
    OVERLAPPED_COMMANDS = 0x4E, 0x00, "overlapped commands attempted"
    SET_GROUPS_FAILED = 0x67, 0x0A, "set target port groups command failed"


def describe_asc(asc: int, ascq: int) -> str:
    """Text of an ASC/ASCQ pair, or its numbers when it is not in :class:`Asc`."""
    for known in Asc:
        if (known.asc, known.ascq) == (asc, ascq):
            return known.text
    return f"ASC/ASCQ {asc:02x}/{ascq:02x}"


@dataclass(frozen=True, slots=True)
class Sense:
    """Sense data. ``information`` is ``None`` when not valid; ``deferred`` tells of an earlier command."""

    key: int
    asc: int = 0
    ascq: int = 0
    deferred: bool = False
    information: int | None = None
    field_pointer: int | None = None
    """Byte of the CDB that an ILLEGAL REQUEST complains about, when told."""

    @classmethod
    def of(cls, key: SenseKey, code: Asc) -> Sense:
        """Sense data of a key and a known additional sense code."""
        return cls(key, code.asc, code.ascq)

    def matches(self, code: Asc) -> bool:
        """Whether ASC and ASCQ are those of ``code``."""
        return self.asc == code.asc and self.ascq == code.ascq

    def __str__(self) -> str:
        name = SenseKey(self.key).name if self.key in SenseKey._value2member_map_ else f"KEY {self.key:#x}"
        deferred = "deferred " if self.deferred else ""
        return f"{deferred}{name.replace('_', ' ')} {self.asc:02x}/{self.ascq:02x}: {describe_asc(self.asc, self.ascq)}"


def encode_fixed(sense: Sense) -> bytes:
    """18 bytes of fixed format (response code 0x70, deferred 0x71)."""
    _check(sense)
    information = sense.information
    if information is not None and information > 0xFFFFFFFF:
        raise EncodeError(f"fixed format sense has a 32-bit information field, got {information:#x}")
    head = bytes([0x70 | sense.deferred | (0x80 if information is not None else 0), 0, sense.key])
    return (
        head
        + (information or 0).to_bytes(4, "big")
        + bytes([10, 0, 0, 0, 0, sense.asc, sense.ascq, 0])
        + _key_specific(sense)
    )


def encode_descriptor(sense: Sense) -> bytes:
    """Descriptor format (response code 0x72, deferred 0x73) with information and sense-key specific descriptors."""
    _check(sense)
    body = b""
    if sense.information is not None:
        body += bytes([0x00, 0x0A, 0x80, 0]) + sense.information.to_bytes(8, "big")
    if sense.field_pointer is not None:
        body += bytes([0x02, 0x06, 0, 0]) + _key_specific(sense) + b"\0"
    return bytes([0x72 | sense.deferred, sense.key, sense.asc, sense.ascq, 0, 0, 0, len(body)]) + body


def decode_sense(data: bytes) -> Sense:
    """Read sense data of either format. Fixed format may be cut after byte 2, as SPC-4 allows; ASC is then 0."""
    if not data:
        raise DecodeError("empty sense data")
    code = data[0] & 0x7F
    if code in {0x70, 0x71}:
        return _decode_fixed(data)
    if code in {0x72, 0x73}:
        return _decode_descriptor(data)
    raise DecodeError(f"unknown sense response code {code:#04x}")


def _decode_fixed(data: bytes) -> Sense:
    if len(data) < 3:
        raise DecodeError(f"fixed format sense has at least 3 bytes, got {len(data)}")
    end = min(len(data), data[7] + 8) if len(data) > 7 else len(data)
    information = int.from_bytes(data[3:7], "big") if data[0] & 0x80 and end >= 7 else None
    pointer = None
    if end >= 18 and data[15] & 0xC0 == 0xC0:
        pointer = int.from_bytes(data[16:18], "big")
    return Sense(
        data[2] & 0x0F,
        data[12] if end > 12 else 0,
        data[13] if end > 13 else 0,
        data[0] & 1 == 1,
        information,
        pointer,
    )


def _decode_descriptor(data: bytes) -> Sense:
    if len(data) < 8:
        raise DecodeError(f"descriptor format sense has at least 8 bytes, got {len(data)}")
    end = 8 + data[7]
    if end > len(data):
        raise DecodeError(f"descriptor format sense says {end} bytes, got {len(data)}")
    information: int | None = None
    pointer: int | None = None
    at = 8
    while at < end:
        if at + 2 > end or at + 2 + data[at + 1] > end:
            raise DecodeError(f"sense descriptor at {at} reaches past the end {end}")
        kind, length = data[at], data[at + 1]
        if kind == 0x00 and length == 0x0A and data[at + 2] & 0x80:
            information = int.from_bytes(data[at + 4 : at + 12], "big")
        elif kind == 0x02 and length == 0x06 and data[at + 4] & 0xC0 == 0xC0:
            pointer = int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + length
    return Sense(data[1] & 0x0F, data[2], data[3], data[0] & 1 == 1, information, pointer)


def _key_specific(sense: Sense) -> bytes:
    """Sense-key specific field that points at a CDB byte: SKSV and C/D set."""
    if sense.field_pointer is None:
        return bytes(3)
    return b"\xc0" + sense.field_pointer.to_bytes(2, "big")


def _check(sense: Sense) -> None:
    """:class:`EncodeError` unless all fields fit."""
    pointer, information = sense.field_pointer, sense.information
    if not (0 <= sense.key <= 15 and 0 <= sense.asc <= 255 and 0 <= sense.ascq <= 255):
        raise EncodeError(f"{sense!r} does not fit its fields")
    if pointer is not None and not 0 <= pointer <= 0xFFFF:
        raise EncodeError(f"a field pointer has 16 bits, got {pointer}")
    if information is not None and not 0 <= information < 1 << 64:
        raise EncodeError(f"an information field has 64 bits, got {information}")
