"""Data buffers of the initiator: their descriptors, and the RDMA operations that fetch and place data (SRP r16a 5.6).

Fetching and placing take callbacks, not awaits: they run for every command. RDMA operations of one channel keep their
order, so a response posted after a write arrives after it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

from srpha.embedded.target.transport import Channel
from srpha.wire.srp_io import BufferFormat, DataBuffer, MemoryDescriptor

MAX_TABLE: Final = 4096
"""Descriptors of one indirect table; more are refused (Linux sends at most 2048, facts: srp C.1)."""

_DESCRIPTOR: Final = struct.Struct(">QII")

Pieces = tuple[MemoryDescriptor, ...]


class BadBufferError(Exception):
    """A buffer that no command may have; the initiator gets REQUEST FIELDS INVALID."""


def check_buffer(buffer: DataBuffer, max_transfer: int, *, indirect: bool, immediate: bool) -> None:
    """Refuse what was not agreed on at login and what is too large: raises :class:`BadBufferError`."""
    if buffer.length > max_transfer:
        raise BadBufferError(f"a buffer of {buffer.length} bytes, the target takes {max_transfer}")
    if buffer.format is BufferFormat.INDIRECT and not indirect:
        raise BadBufferError("indirect descriptors were not agreed on")
    if buffer.format is BufferFormat.IMMEDIATE and not immediate:
        raise BadBufferError("immediate data was not agreed on")
    if buffer.table is not None and buffer.table.length > 16 * MAX_TABLE:
        raise BadBufferError(f"a descriptor table of {buffer.table.length} bytes")


def read_table(data: bytes, total: int) -> Pieces:
    """Descriptors of a fetched table that describe ``total`` bytes; raises :class:`BadBufferError` when they do not."""
    pieces = tuple(map(MemoryDescriptor._make, _DESCRIPTOR.iter_unpack(data)))
    described = sum(piece.length for piece in pieces)
    if described != total:
        raise BadBufferError(f"a table of {described} bytes for a buffer of {total}")
    return pieces


class Fetch:
    """Gathers the pieces of a data-out buffer; ``done`` gets them joined, at once when there is nothing to fetch."""

    __slots__ = ("_done", "_missing", "_parts")

    def __init__(self, channel: Channel, pieces: Pieces, done: Callable[[bytes], None]) -> None:
        wanted = [piece for piece in pieces if piece.length]
        self._done = done
        self._missing = len(wanted)
        self._parts: list[bytes] = [b""] * len(wanted)
        if not wanted:
            done(b"")
        elif len(wanted) == 1:
            channel.rdma_read(*wanted[0], done)
        else:
            for index, piece in enumerate(wanted):
                channel.rdma_read(*piece, self._part(index))

    def _part(self, index: int) -> Callable[[bytes], None]:
        def arrived(data: bytes) -> None:
            self._parts[index] = data
            self._missing -= 1
            if not self._missing:
                self._done(b"".join(self._parts))

        return arrived


def place(channel: Channel, pieces: Sequence[MemoryDescriptor], data: bytes) -> None:
    """Write ``data`` into the pieces, in order; what does not fit is left out (the response says so)."""
    if len(pieces) == 1:
        address, key, length = pieces[0]
        if length:
            channel.rdma_write(address, key, data if len(data) <= length else data[:length])
        return
    view = memoryview(data)
    for address, key, length in pieces:
        part = view[:length]
        if len(part):
            channel.rdma_write(address, key, part)
        view = view[length:]
