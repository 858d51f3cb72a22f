"""Registered memory: what a peer may read and write by RDMA (IBA 10.6).

One :class:`RegionTable` is one protection domain. Virtual addresses are made up: regions never overlap and are never
next to each other, so that an address out of bounds cannot hit another region. R_Keys and addresses are not reused.
"""

from __future__ import annotations

from typing import Final

from srpha.wire.layout import Buffer

_PAGE: Final = 4096
_KEY_STEP: Final = 0x9E3779B1  # odd, so that all 2**32 keys are used before one comes again


class MemoryRegion:
    """A buffer that peers may reach under ``rkey`` at ``address`` .. ``address + length``.

    ``view`` is the buffer itself as unsigned bytes. A read-only buffer can be read but not written by the peer.
    """

    __slots__ = ("address", "length", "rkey", "view")

    def __init__(self, rkey: int, address: int, view: memoryview) -> None:
        self.rkey = rkey
        self.address = address
        self.length = view.nbytes
        self.view = view


class RegionTable:
    """The regions of one protection domain by R_Key."""

    __slots__ = ("_address", "_key", "regions")

    def __init__(self, first_key: int = 0) -> None:
        self.regions: dict[int, MemoryRegion] = {}
        self._key = first_key
        self._address = 0x7F00_0000_0000

    def register(self, buffer: Buffer) -> MemoryRegion:
        """Let peers reach ``buffer``; no copy is made. TypeError for a view that is not contiguous."""
        view = buffer.cast("B") if type(buffer) is memoryview else memoryview(buffer)
        key = self._key = (self._key + _KEY_STEP) & 0xFFFFFFFF
        address = self._address
        region = MemoryRegion(key, address, view)
        self._address = address + (region.length + 2 * _PAGE - 1 & -_PAGE)
        self.regions[key] = region
        return region

    def deregister(self, region: MemoryRegion) -> None:
        """End the peers' access; doing so twice is harmless."""
        self.regions.pop(region.rkey, None)
