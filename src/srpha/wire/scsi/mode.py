"""Mode parameter data: headers, block descriptor, control and caching pages (SPC-4 7.5, SBC-3 6.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.layout import Structure, structure, uint

PAGE_CACHING: Final = 0x08
PAGE_CONTROL: Final = 0x0A
PAGE_ALL: Final = 0x3F
DEVICE_WRITE_PROTECT: Final = 0x80
DEVICE_DPOFUA: Final = 0x10


@structure(length=20)
class CachingPage(Structure):
    """Caching mode page (SBC-3 6.5.5): whether there is a volatile write cache, and whether reads are cached."""

    page_code: int = uint(0, 6, bit=2, default=PAGE_CACHING)
    page_length: int = uint(1, 8, default=18)
    write_cache_enable: int = uint(2, 1, bit=5, default=0)
    read_cache_disable: int = uint(2, 1, bit=7, default=0)


@structure(length=12)
class ControlPage(Structure):
    """Control mode page (SPC-4 7.5.8)."""

    page_code: int = uint(0, 6, bit=2, default=PAGE_CONTROL)
    page_length: int = uint(1, 8, default=10)
    task_set_type: int = uint(2, 3, default=0)
    descriptor_sense: int = uint(2, 1, bit=5, default=0)
    queue_algorithm: int = uint(3, 4, default=0)
    queue_error_management: int = uint(3, 2, bit=5, default=0)
    unit_attention_interlock: int = uint(4, 2, bit=2, default=0)
    software_write_protect: int = uint(4, 1, bit=4, default=0)
    task_aborted_status: int = uint(5, 1, bit=1, default=0)
    busy_timeout: int = uint(8, 16, default=0)


@dataclass(frozen=True, slots=True)
class ModeParameters:
    """Decoded MODE SENSE data: ``device_specific`` byte, block descriptors, and pages by (page code, subpage)."""

    device_specific: int
    block_descriptors: bytes
    pages: dict[tuple[int, int], bytes]

    @property
    def write_protected(self) -> bool:
        """WP bit of the device-specific parameter."""
        return bool(self.device_specific & DEVICE_WRITE_PROTECT)


def encode_mode_sense(
    pages: bytes, device_specific: int = 0, block_descriptors: bytes = b"", ten: bool = False
) -> bytes:
    """MODE SENSE (6) or, with ``ten``, (10) data: header, block descriptors, pages."""
    total = len(pages) + len(block_descriptors)
    if not 0 <= device_specific <= 0xFF:
        raise EncodeError(f"the device-specific parameter is one byte, got {device_specific}")
    if ten:
        if total + 6 > 0xFFFF:
            raise EncodeError(f"MODE SENSE (10) data of {total} bytes is too long")
        head = (total + 6).to_bytes(2, "big") + bytes([0, device_specific, 0, 0])
        return head + len(block_descriptors).to_bytes(2, "big") + block_descriptors + pages
    if total + 3 > 0xFF:
        raise EncodeError(f"MODE SENSE (6) data of {total} bytes is too long")
    return bytes([total + 3, 0, device_specific, len(block_descriptors)]) + block_descriptors + pages


def decode_mode_sense(data: bytes, ten: bool = False) -> ModeParameters:
    """Read MODE SENSE data; pages are whole, header included. :class:`DecodeError` for lengths that do not agree."""
    header = 8 if ten else 4
    if len(data) < header:
        raise DecodeError(f"MODE SENSE data has at least {header} bytes, got {len(data)}")
    if ten:
        end = int.from_bytes(data[:2], "big") + 2
        device, descriptors = data[3], int.from_bytes(data[6:8], "big")
    else:
        end = data[0] + 1
        device, descriptors = data[2], data[3]
    if end > len(data) or header + descriptors > end:
        raise DecodeError(f"MODE SENSE data says {end} bytes with {descriptors} of descriptors, got {len(data)}")
    pages: dict[tuple[int, int], bytes] = {}
    at = header + descriptors
    while at < end:
        subpage_format = data[at] & 0x40
        start = 4 if subpage_format else 2
        if at + start > end:
            raise DecodeError(f"mode page header at {at} reaches past the end {end}")
        length = int.from_bytes(data[at + 2 : at + 4], "big") if subpage_format else data[at + 1]
        stop = at + start + length
        if stop > end:
            raise DecodeError(f"mode page {data[at] & 0x3F:#04x} at {at} reaches past the end {end}")
        pages[data[at] & 0x3F, data[at + 1] if subpage_format else 0] = bytes(data[at:stop])
        at = stop
    return ModeParameters(device, bytes(data[header : header + descriptors]), pages)
