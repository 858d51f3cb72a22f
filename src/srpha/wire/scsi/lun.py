"""The 8-byte LUN field (SAM-4 4.6): peripheral device, flat space and extended flat addressing of one level."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from srpha.wire.errors import DecodeError, EncodeError

LUN_LENGTH: Final = 8
REPORT_LUNS_WELL_KNOWN: Final = 0xC101000000000000


class LunAddressing(IntEnum):
    """Addressing methods: the top two bits of the first byte."""

    PERIPHERAL = 0
    FLAT = 1
    LOGICAL_UNIT = 2
    EXTENDED = 3


def encode_lun(number: int, method: LunAddressing | None = None) -> bytes:
    """8 bytes for a logical unit number; by default peripheral up to 255, then flat up to 16383, then extended flat."""
    if method is None:
        method = (
            LunAddressing.PERIPHERAL
            if number < 0x100
            else LunAddressing.FLAT
            if number < 0x4000
            else LunAddressing.EXTENDED
        )
    if method is LunAddressing.PERIPHERAL and 0 <= number < 0x100:
        return bytes([0, number]) + bytes(6)
    if method is LunAddressing.FLAT and 0 <= number < 0x4000:
        return (0x4000 | number).to_bytes(2, "big") + bytes(6)
    if method is LunAddressing.EXTENDED and 0 <= number < 1 << 24:
        return bytes([0xD2]) + number.to_bytes(3, "big") + bytes(4)
    raise EncodeError(f"LUN {number} cannot be addressed by method {method!r}")


def decode_lun(field: bytes | int) -> int:
    """Logical unit number in an 8-byte field (or the same as an integer); :class:`DecodeError` for multi-level LUNs."""
    if isinstance(field, int):
        if not 0 <= field < 1 << 64:
            raise DecodeError(f"a LUN field has 64 bits, got {field:#x}")
        value = field
    else:
        if len(field) != LUN_LENGTH:
            raise DecodeError(f"a LUN field has 8 bytes, got {len(field)}")
        value = int.from_bytes(field, "big")
    method = value >> 62
    if method == LunAddressing.PERIPHERAL and not value & 0x3F00FFFFFFFFFFFF:
        return value >> 48 & 0xFF
    if method == LunAddressing.FLAT and not value & 0xFFFFFFFFFFFF:
        return value >> 48 & 0x3FFF
    if value >> 56 == 0xD2 and not value & 0xFFFFFFFF:
        return value >> 32 & 0xFFFFFF
    raise DecodeError(f"unsupported LUN {value:016x}: neither peripheral, flat nor extended flat of one level")
