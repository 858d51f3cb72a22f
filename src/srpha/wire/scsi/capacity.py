"""Parameter data of READ CAPACITY (10) and (16) (SBC-3 5.15, 5.16) and REPORT LUNS (SPC-4 6.33)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.layout import Structure, structure, uint

CAPACITY_10_LIMIT: Final = 0xFFFFFFFF


@structure(length=8)
class ReadCapacity10(Structure):
    """READ CAPACITY (10) data: ``last_lba`` 0xffffffff means: ask READ CAPACITY (16)."""

    last_lba: int = uint(0, 32)
    block_length: int = uint(4, 32)


@structure(length=32)
class ReadCapacity16(Structure):
    """READ CAPACITY (16) data."""

    last_lba: int = uint(0, 64)
    block_length: int = uint(8, 32)
    protection_type: int = uint(12, 3, bit=4, default=0)
    protection_enabled: int = uint(12, 1, bit=7, default=0)
    protection_interval_exponent: int = uint(13, 4, default=0)
    physical_block_exponent: int = uint(13, 4, bit=4, default=0)
    unmap_supported: int = uint(14, 1, default=0)
    unmap_reads_zero: int = uint(14, 1, bit=1, default=0)
    lowest_aligned_lba: int = uint(14, 14, bit=2, default=0)


@dataclass(frozen=True, slots=True)
class Capacity:
    """Size of a logical unit: number of blocks and bytes per block."""

    blocks: int
    block_length: int

    @property
    def total_bytes(self) -> int:
        """Bytes in all."""
        return self.blocks * self.block_length

    def encode_10(self) -> bytes:
        """READ CAPACITY (10) data; the last LBA saturates."""
        return ReadCapacity10(last_lba=min(self.blocks - 1, CAPACITY_10_LIMIT), block_length=self.block_length).encode()


def encode_report_luns(fields: tuple[bytes, ...] | list[bytes]) -> bytes:
    """REPORT LUNS data of 8-byte LUN fields."""
    if any(len(field) != 8 for field in fields):
        raise EncodeError("every LUN field has 8 bytes")
    return (8 * len(fields)).to_bytes(4, "big") + bytes(4) + b"".join(fields)


def decode_report_luns(data: bytes) -> tuple[list[bytes], int]:
    """``(8-byte LUN fields present, number of LUNs in all)``; fewer present than in all means: ask for more bytes."""
    if len(data) < 8:
        raise DecodeError(f"REPORT LUNS data has at least 8 bytes, got {len(data)}")
    listed = int.from_bytes(data[:4], "big")
    if listed % 8:
        raise DecodeError(f"a LUN list of {listed} bytes is not a multiple of 8")
    end = min(len(data) - len(data) % 8, 8 + listed)
    return [bytes(data[at : at + 8]) for at in range(8, end, 8)], listed // 8
