"""InfiniBand identifiers shared by every layer.

A GUID is an ``int`` of 64 bits, a LID an ``int`` of 16 bits, a P_Key an ``int`` of 16 bits (bit 15 = full member).
A GID (IBA 4.1.1) is a subnet prefix and an interface identifier, here :class:`Gid`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from srpha.wire.errors import DecodeError

DEFAULT_SUBNET_PREFIX: Final = 0xFE80000000000000
"""Link-local prefix that every port has before an SM gives another (IBA 4.1.1)."""

LID_PERMISSIVE: Final = 0xFFFF
LID_UNICAST_MAX: Final = 0xBFFF
PKEY_DEFAULT_FULL: Final = 0xFFFF
PKEY_MEMBERSHIP: Final = 0x8000


@dataclass(frozen=True, slots=True, order=True)
class Gid:
    """A 128-bit global identifier: 64-bit subnet prefix, 64-bit interface identifier (port GUID)."""

    prefix: int
    guid: int

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Self:
        """Decode 16 bytes in network order; raises :class:`DecodeError` for another length."""
        if len(data) != 16:
            raise DecodeError(f"a GID has 16 bytes, got {len(data)}")
        return cls(int.from_bytes(data[:8], "big"), int.from_bytes(data[8:], "big"))

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Decode 32 hex digits, with or without colons between groups (sysfs form)."""
        digits = text.replace(":", "")
        if len(digits) != 32 or not all(c in "0123456789abcdefABCDEF" for c in digits):
            raise DecodeError(f"a GID has 32 hex digits, got {text!r}")
        return cls.from_bytes(bytes.fromhex(digits))

    @property
    def packed(self) -> bytes:
        """16 bytes in network order."""
        return self.prefix.to_bytes(8, "big") + self.guid.to_bytes(8, "big")

    def hex(self) -> str:
        """32 hex digits, as in an ``add_target`` line."""
        return f"{self.prefix:016x}{self.guid:016x}"

    def __str__(self) -> str:
        digits = self.hex()
        return ":".join(digits[i : i + 4] for i in range(0, 32, 4))


def pkeys_match(left: int, right: int) -> bool:
    """Whether two P_Keys let their ports talk: same partition and at least one full member (IBA 10.9.3)."""
    same_partition = (left ^ right) & 0x7FFF == 0 and left & 0x7FFF != 0
    return same_partition and bool((left | right) & PKEY_MEMBERSHIP)
