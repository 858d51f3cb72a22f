"""Vital product data pages (SPC-4 7.8, SBC-3 6.6): supported pages, serial number, device identification, block limits.

The world-wide identification (WWID) of a logical unit is chosen from page 0x83 in the order that multipath-tools use,
so that a map made by either side carries the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.layout import Structure, structure, uint

PAGE_SUPPORTED: Final = 0x00
PAGE_SERIAL: Final = 0x80
PAGE_IDENTIFICATION: Final = 0x83
PAGE_BLOCK_LIMITS: Final = 0xB0

NAA_BYTES: Final = {2: 8, 3: 8, 5: 8, 6: 16}
"""Length of an NAA designator by its first four bits (SPC-4 7.8.6.6)."""
EUI_BYTES: Final = (8, 12, 16)


class CodeSet(IntEnum):
    """Code set of a designator."""

    BINARY = 1
    ASCII = 2
    UTF8 = 3


class Association(IntEnum):
    """What a designator names."""

    LOGICAL_UNIT = 0
    TARGET_PORT = 1
    TARGET_DEVICE = 2


class DesignatorType(IntEnum):
    """Designator types (SPC-4 7.8.6.2)."""

    VENDOR_SPECIFIC = 0
    T10_VENDOR = 1
    EUI64 = 2
    NAA = 3
    RELATIVE_TARGET_PORT = 4
    TARGET_PORT_GROUP = 5
    LOGICAL_UNIT_GROUP = 6
    MD5 = 7
    SCSI_NAME = 8


@dataclass(frozen=True, slots=True)
class Designator:
    """One designation descriptor of page 0x83. ``protocol`` is the transport's identifier, 4 for SRP, or ``None``."""

    kind: int
    value: bytes
    association: int = Association.LOGICAL_UNIT
    code_set: int = CodeSet.BINARY
    protocol: int | None = None

    def encode(self) -> bytes:
        """4 bytes and the value; :class:`EncodeError` for a value that its type does not allow."""
        _check_designator(self, EncodeError)
        limits = ((self.kind, 15), (self.association, 3), (self.code_set, 15), (self.protocol or 0, 15))
        if not all(0 <= value <= limit for value, limit in limits):
            raise EncodeError(f"{self!r} does not fit its fields")
        head = (self.protocol or 0) << 4 | self.code_set
        flags = (self.protocol is not None) << 7 | self.association << 4 | self.kind
        return bytes([head, flags, 0, len(self.value)]) + self.value

    @property
    def number(self) -> int:
        """Relative target port or target port group number."""
        return int.from_bytes(self.value[2:4], "big")


SRP_PROTOCOL: Final = 4
"""Protocol identifier of SRP (SPC-4 7.6.1)."""


def naa_designator(value: bytes) -> Designator:
    """Logical unit name in NAA format: 16 bytes when the first digit is 6, else 8."""
    return Designator(DesignatorType.NAA, value)


def relative_port_designator(number: int) -> Designator:
    """Which relative target port answered."""
    return _port_designator(DesignatorType.RELATIVE_TARGET_PORT, number)


def port_group_designator(number: int) -> Designator:
    """Which target port group holds the port that answered."""
    return _port_designator(DesignatorType.TARGET_PORT_GROUP, number)


def _port_designator(kind: DesignatorType, number: int) -> Designator:
    if not 0 <= number <= 0xFFFF:
        raise EncodeError(f"ports and port groups have 16-bit numbers, got {number}")
    return Designator(kind, number.to_bytes(4, "big"), Association.TARGET_PORT, protocol=SRP_PROTOCOL)


def t10_designator(vendor: str, identifier: str) -> Designator:
    """T10 vendor identification: 8 characters of vendor, then the vendor's own text."""
    text = vendor.ljust(8) + identifier
    if not text.isascii() or not text.isprintable() or len(vendor) > 8:
        raise EncodeError(f"not a T10 vendor designator: {vendor!r}, {identifier!r}")
    return Designator(DesignatorType.T10_VENDOR, text.encode("ascii"), code_set=CodeSet.ASCII)


def encode_page(page: int, body: bytes, peripheral: int = 0) -> bytes:
    """A VPD page: 4-byte header and ``body``."""
    if len(body) > 0xFFFF:
        raise EncodeError(f"a VPD page has at most 65535 bytes, got {len(body)}")
    return bytes([peripheral, page]) + len(body).to_bytes(2, "big") + body


def decode_page(data: bytes, page: int) -> bytes:
    """Body of the VPD page ``page``; :class:`DecodeError` for another page or one that is cut."""
    if len(data) < 4:
        raise DecodeError(f"a VPD page has at least 4 bytes, got {len(data)}")
    if data[1] != page:
        raise DecodeError(f"asked for VPD page {page:#04x}, got {data[1]:#04x}")
    end = int.from_bytes(data[2:4], "big") + 4
    if end > len(data):
        raise DecodeError(f"VPD page {page:#04x} says {end} bytes, got {len(data)}")
    return bytes(data[4:end])


def encode_supported_pages(pages: Sequence[int]) -> bytes:
    """Page 0x00: the list of supported pages, sorted."""
    if not all(0 <= page <= 0xFF for page in pages):
        raise EncodeError(f"page codes are one byte, got {pages}")
    return encode_page(PAGE_SUPPORTED, bytes(sorted(pages)))


def decode_supported_pages(data: bytes) -> tuple[int, ...]:
    """Page codes listed in page 0x00."""
    return tuple(decode_page(data, PAGE_SUPPORTED))


def encode_serial(serial: str) -> bytes:
    """Page 0x80: unit serial number."""
    if not serial.isascii() or not serial.isprintable():
        raise EncodeError(f"a serial number is printable ASCII, got {serial!r}")
    return encode_page(PAGE_SERIAL, serial.encode("ascii"))


def decode_serial(data: bytes) -> str:
    """Unit serial number without surrounding blanks; :class:`DecodeError` when it is not printable ASCII."""
    body = decode_page(data, PAGE_SERIAL).rstrip(b"\0")
    if not all(0x20 <= byte < 0x7F for byte in body):
        raise DecodeError(f"serial number is not printable ASCII: {body.hex()}")
    return body.decode("ascii").strip()


def encode_identification(designators: Sequence[Designator]) -> bytes:
    """Page 0x83: device identification."""
    return encode_page(PAGE_IDENTIFICATION, b"".join([item.encode() for item in designators]))


def decode_identification(data: bytes) -> tuple[Designator, ...]:
    """Designators of page 0x83; :class:`DecodeError` for one whose length contradicts its type."""
    body = decode_page(data, PAGE_IDENTIFICATION)
    found: list[Designator] = []
    at = 0
    while at < len(body):
        if at + 4 > len(body):
            raise DecodeError(f"designator header at {at} reaches past the end of page 0x83 ({len(body)} bytes)")
        end = at + 4 + body[at + 3]
        if end > len(body):
            raise DecodeError(f"designator at {at} reaches past the end of page 0x83 ({len(body)} bytes)")
        head, flags = body[at], body[at + 1]
        item = Designator(
            flags & 0x0F,
            body[at + 4 : end],
            flags >> 4 & 3,
            head & 0x0F,
            head >> 4 if flags & 0x80 else None,
        )
        _check_designator(item, DecodeError)
        found.append(item)
        at = end
    return tuple(found)


def wwid(designators: Sequence[Designator]) -> str | None:
    """WWID text as multipath-tools make it, or ``None`` when no designator of the logical unit serves.

    Order: NAA 6, 5, 2, EUI-64, SCSI name string, T10 vendor, NAA 3; the first of its kind wins. The text is the
    designator type's digit and the value: hex for NAA and EUI-64, the characters for the others.
    """
    best: tuple[int, str] | None = None
    for item in designators:
        if item.association != Association.LOGICAL_UNIT:
            continue
        candidate = _wwid_candidate(item)
        if candidate is not None and (best is None or candidate[0] < best[0]):
            best = candidate
    return None if best is None else best[1]


def _wwid_candidate(item: Designator) -> tuple[int, str] | None:
    """``(rank, text)`` of a designator, lower rank is better."""
    if item.kind == DesignatorType.NAA:
        rank = {6: 0, 5: 1, 2: 2, 3: 6}.get(item.value[0] >> 4) if item.value else None
        return None if rank is None else (rank, "3" + item.value.hex())
    if item.kind == DesignatorType.EUI64:
        return 3, "2" + item.value.hex()
    text = item.value.rstrip(b"\0").decode("utf-8", "replace")
    if item.kind == DesignatorType.SCSI_NAME:
        if text.startswith("eui."):
            return 4, "2" + text[4:].lower()
        if text.startswith("naa."):
            return 4, "3" + text[4:].lower()
        return 4, "8" + text
    if item.kind == DesignatorType.T10_VENDOR:
        # runs of blanks become one underscore, trailing blanks go
        return 5, "1" + "_".join(text.split())
    return None


def relative_port(designators: Sequence[Designator]) -> int | None:
    """Relative target port that answered, ``None`` when the page does not tell."""
    return _port_number(designators, DesignatorType.RELATIVE_TARGET_PORT)


def port_group(designators: Sequence[Designator]) -> int | None:
    """Target port group of the port that answered, ``None`` when the page does not tell."""
    return _port_number(designators, DesignatorType.TARGET_PORT_GROUP)


def _port_number(designators: Sequence[Designator], kind: DesignatorType) -> int | None:
    return next(
        (item.number for item in designators if item.kind == kind and item.association == Association.TARGET_PORT),
        None,
    )


def _check_designator(item: Designator, error: type[DecodeError] | type[EncodeError]) -> None:
    size = len(item.value)
    if size > 0xFF:
        raise error(f"a designator has at most 255 bytes, got {size}")
    if item.kind == DesignatorType.NAA:
        wanted = NAA_BYTES.get(item.value[0] >> 4) if item.value else None
        if size != wanted:
            raise error(f"NAA designator {item.value.hex() or 'without value'} has {size} bytes, expected {wanted}")
    elif item.kind == DesignatorType.EUI64 and size not in EUI_BYTES:
        raise error(f"an EUI-64 designator has 8, 12 or 16 bytes, got {size}")
    elif item.kind in {DesignatorType.RELATIVE_TARGET_PORT, DesignatorType.TARGET_PORT_GROUP} and size != 4:
        raise error(f"a port or port group designator has 4 bytes, got {size}")
    elif item.kind == DesignatorType.T10_VENDOR and size < 8:
        raise error(f"a T10 vendor designator has at least 8 bytes, got {size}")


@structure(length=64)
class BlockLimits(Structure):
    """Page 0xB0, header included (SBC-3 6.6.4). Lengths in blocks; 0 means not reported."""

    peripheral: int = uint(0, 8, default=0)
    page: int = uint(1, 8, default=PAGE_BLOCK_LIMITS)
    page_length: int = uint(2, 16, default=60)
    write_same_no_zero: int = uint(4, 1, bit=7, default=0)
    max_compare_and_write: int = uint(5, 8, default=0)
    optimal_granularity: int = uint(6, 16, default=0)
    max_transfer: int = uint(8, 32, default=0)
    optimal_transfer: int = uint(12, 32, default=0)
    max_prefetch: int = uint(16, 32, default=0)
    max_unmap_blocks: int = uint(20, 32, default=0)
    max_unmap_descriptors: int = uint(24, 32, default=0)
    optimal_unmap_granularity: int = uint(28, 32, default=0)
    unmap_alignment_valid: int = uint(32, 1, default=0)
    unmap_alignment: int = uint(32, 31, bit=1, default=0)
    max_write_same: int = uint(36, 64, default=0)


def decode_block_limits(data: bytes) -> BlockLimits:
    """Read page 0xB0; the short page of SBC-2 (16 bytes) is taken as if the rest were zero."""
    body = decode_page(data, PAGE_BLOCK_LIMITS)
    if len(body) < 12:
        raise DecodeError(f"page 0xb0 has at least 12 bytes, got {len(body)}")
    return BlockLimits.decode(bytes(data[:4]) + body[:60].ljust(60, b"\0"))
