"""Invariant and variant CRC of an InfiniBand packet (IBA volume 1, 7.8), for captures of the embedded fabric.

Both are computed bit-reflected with all-ones start and final inversion, and stand in the packet least significant
byte first. The ICRC is Ethernet's CRC-32 over the packet with the fields a switch or router may change set to ones.
"""

from __future__ import annotations

import zlib
from functools import cache
from typing import Final

from srpha.wire.errors import DecodeError
from srpha.wire.layout import Buffer

_LRH: Final = 8
_GRH: Final = 40
_BTH: Final = 12
_VCRC_POLYNOMIAL: Final = 0xD008  # 0x100B reflected


@cache
def _vcrc_table() -> tuple[int, ...]:
    table: list[int] = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ _VCRC_POLYNOMIAL if value & 1 else value >> 1
        table.append(value)
    return tuple(table)


def icrc(packet: Buffer) -> int:
    """ICRC of a packet that starts with LRH and has no CRC yet (IBA 7.8.1)."""
    masked = bytearray(packet)
    if len(masked) < _LRH + _BTH:
        raise DecodeError(f"an IBA packet has at least {_LRH + _BTH} bytes, got {len(masked)}")
    bth = _LRH
    if masked[1] & 3 == 3:
        bth += _GRH
        if len(masked) < bth + _BTH:
            raise DecodeError(f"a global packet has at least {bth + _BTH} bytes, got {len(masked)}")
        masked[:_LRH] = b"\xff" * _LRH
        masked[_LRH] |= 0x0F  # traffic class, flow label
        masked[_LRH + 1 : _LRH + 4] = b"\xff\xff\xff"
        masked[_LRH + 7] = 0xFF  # hop limit
    else:
        masked[0] |= 0xF0  # virtual lane
    masked[bth + 4] = 0xFF  # resv8a, where congestion bits are set
    return zlib.crc32(masked)


def vcrc(packet: Buffer) -> int:
    """VCRC of a packet from LRH to ICRC inclusive (IBA 7.8.2)."""
    table = _vcrc_table()
    value = 0xFFFF
    for byte in bytes(packet):
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value ^ 0xFFFF


def with_crcs(packet: Buffer) -> bytes:
    """The packet as it stands on a real link: with ICRC (4 bytes) and VCRC (2 bytes) appended."""
    invariant = bytes(packet) + icrc(packet).to_bytes(4, "little")
    return invariant + vcrc(invariant).to_bytes(2, "little")
