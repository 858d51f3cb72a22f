"""A multipath device: the block device that I/O is done on."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum


class IoKind(Enum):
    READ = "read"
    WRITE = "write"
    FLUSH = "flush"


class BlockIoError(OSError):
    """An I/O has failed: ``errno`` as the block layer gives it, and a sentence with device, address and sense."""


class BlockIo:
    """One I/O on a multipath device.

    ``done(io)`` is called exactly once, never from inside ``submit``; then ``error`` is None or a :class:`BlockIoError`
    and, for a read, ``data`` holds the bytes read. ``context`` is the submitter's own.
    """

    def __init__(
        self,
        kind: IoKind,
        done: Callable[[BlockIo], None],
        *,
        lba: int = 0,
        blocks: int = 0,
        data: bytes | bytearray | memoryview = b"",
        fua: bool = False,
        context: object = None,
    ) -> None:
        raise NotImplementedError


class MultipathDevice:
    """One map. Addresses are in blocks of :attr:`block_size` bytes."""

    name: str
    """``mpatha``."""
    dm_name: str
    """``dm-0``."""
    wwid: str
    block_size: int
    blocks: int

    def submit(self, io: BlockIo) -> None:
        """Take an I/O; ValueError, and nothing done, when it lies outside the device or is too long."""
        raise NotImplementedError

    async def read(self, lba: int, blocks: int) -> bytes:
        """Read any number of blocks. Raises :class:`BlockIoError`, ValueError."""
        raise NotImplementedError

    async def write(self, lba: int, data: bytes | bytearray | memoryview, *, fua: bool = False) -> None:
        """Write a whole number of blocks. Raises :class:`BlockIoError`, ValueError."""
        raise NotImplementedError

    async def flush(self) -> None:
        """SYNCHRONIZE CACHE of the whole unit. Raises :class:`BlockIoError`."""
        raise NotImplementedError
