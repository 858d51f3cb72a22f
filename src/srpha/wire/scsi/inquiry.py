"""Standard INQUIRY data (SPC-4 6.6.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from srpha.wire.errors import DecodeError, EncodeError

STANDARD_LENGTH: Final = 96
TPGS_IMPLICIT: Final = 1
TPGS_EXPLICIT: Final = 2
PERIPHERAL_DISK: Final = 0x00
PERIPHERAL_NONE: Final = 0x7F
"""Qualifier 3, type 0x1f: no logical unit at this LUN."""
VERSION_SPC4: Final = 0x06
VERSION_DESCRIPTORS: Final = (0x0080, 0x0460, 0x04C0)
"""SAM-4, SPC-4 and SBC-3, no version claimed."""


@dataclass(frozen=True, slots=True)
class StandardInquiry:
    """Standard INQUIRY data. ``peripheral`` is byte 0: qualifier and device type."""

    vendor: str
    product: str
    revision: str
    peripheral: int = PERIPHERAL_DISK
    removable: bool = False
    version: int = VERSION_SPC4
    target_port_groups: int = 0
    """TPGS field: 0 none, :data:`TPGS_IMPLICIT`, :data:`TPGS_EXPLICIT` or both."""
    third_party_copy: bool = False
    protect: bool = False
    multi_port: bool = False
    command_queuing: bool = True
    version_descriptors: tuple[int, ...] = VERSION_DESCRIPTORS

    def encode(self) -> bytes:
        """96 bytes: the 36 of every device and the version descriptors."""
        if len(self.version_descriptors) > 8:
            raise EncodeError(f"at most 8 version descriptors, got {len(self.version_descriptors)}")
        if (
            not all(0 <= value <= 0xFF for value in (self.peripheral, self.version))
            or not 0 <= self.target_port_groups <= 3
        ):
            raise EncodeError(f"{self!r} does not fit its fields")
        if not all(0 < number <= 0xFFFF for number in self.version_descriptors):
            raise EncodeError(f"version descriptors are 1..65535, got {self.version_descriptors}")
        head = bytes(
            [
                self.peripheral,
                self.removable << 7,
                self.version,
                0x12,  # HiSup, response data format 2
                STANDARD_LENGTH - 5,
                self.target_port_groups << 4 | self.third_party_copy << 3 | self.protect,
                self.multi_port << 4,
                self.command_queuing << 1,
            ]
        )
        names = _padded(self.vendor, 8) + _padded(self.product, 16) + _padded(self.revision, 4)
        versions = b"".join([number.to_bytes(2, "big") for number in self.version_descriptors])
        return (head + names + bytes(22) + versions).ljust(STANDARD_LENGTH, b"\0")


def decode_standard_inquiry(data: bytes) -> StandardInquiry:
    """Read standard INQUIRY data of at least 36 bytes."""
    if len(data) < 36:
        raise DecodeError(f"standard INQUIRY data has at least 36 bytes, got {len(data)}")
    if data[3] & 0x0F != 2:
        raise DecodeError(f"INQUIRY response data format {data[3] & 0x0F}, expected 2")
    end = min(len(data), data[4] + 5, 74)
    versions = [int.from_bytes(data[at : at + 2], "big") for at in range(58, end - 1, 2)]
    return StandardInquiry(
        _text(data[8:16]),
        _text(data[16:32]),
        _text(data[32:36]),
        data[0],
        bool(data[1] & 0x80),
        data[2],
        data[5] >> 4 & 3,
        bool(data[5] & 0x08),
        bool(data[5] & 0x01),
        bool(data[6] & 0x10),
        bool(data[7] & 0x02),
        tuple(number for number in versions if number),
    )


def _padded(text: str, length: int) -> bytes:
    """Left-aligned ASCII padded with blanks (SPC-4 4.3.1)."""
    if not text.isascii() or not text.isprintable() or len(text) > length:
        raise EncodeError(f"{text!r} is not at most {length} printable ASCII characters")
    return text.encode("ascii").ljust(length)


def _text(data: bytes) -> str:
    """Printable ASCII without trailing blanks; a peer's other bytes are shown as '?'."""
    return "".join([chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in data]).rstrip()
