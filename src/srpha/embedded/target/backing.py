"""Where a logical unit keeps its blocks: memory of the process, or a mapped file.

Every access is a copy between two pieces of memory, done at once. That holds for the file too: it is mapped, and its
pages come from the page cache, so an access costs microseconds where a thread hand-over would cost tens of them, and a
virtual-time loop, which has no threads, can use it. A page that is not cached stalls the loop for one disk read; the
embedded world accepts that. What is written stands in the page cache: it survives this process, not the machine.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Protocol


class BackingError(OSError):
    """A backing cannot be made; the message names the file and what to do."""


class Backing(Protocol):
    """A range of ``size`` bytes. Callers keep ``offset + length`` within it."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """A copy of ``length`` bytes: later writes do not show in it."""
        ...

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None: ...

    def flush(self) -> None:
        """Hand what was written to the medium (see the module's docstring for what that means)."""
        ...

    def resize(self, size: int) -> None:
        """Grow with zeros or cut off at ``size`` bytes (at least 1)."""
        ...

    def close(self) -> None:
        """Release what is held; nothing may be read or written afterwards."""
        ...


class _MappedBacking:
    """A memory mapping and the view through which it is read and written."""

    __slots__ = ("_map", "_view")

    def __init__(self, mapped: mmap.mmap) -> None:
        self._map = mapped
        self._view = memoryview(mapped)

    @property
    def size(self) -> int:
        return len(self._view)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._view[offset : offset + length])

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        self._view[offset : offset + len(data)] = data

    def close(self) -> None:
        self._view.release()
        self._map.close()

    def _replace(self, mapped: mmap.mmap) -> None:
        """Go on with another mapping; the one before is released."""
        self.close()
        self._map, self._view = mapped, memoryview(mapped)


class MemoryBacking(_MappedBacking):
    """Blocks in memory, zero at first. The operating system gives pages only once they are written."""

    __slots__ = ()

    def __init__(self, size: int) -> None:
        """Hold ``size`` bytes, at least 1."""
        super().__init__(mmap.mmap(-1, _checked(size)))

    def flush(self) -> None:
        """Nothing lies between the caller and this medium."""

    def resize(self, size: int) -> None:
        resized = mmap.mmap(-1, _checked(size))
        kept = min(size, self.size)
        with memoryview(resized) as view:
            view[:kept] = self._view[:kept]
        self._replace(resized)


class FileBacking(_MappedBacking):
    """Blocks in a file of ``size`` bytes, made or grown as needed; a larger file is used in part."""

    __slots__ = ("_path",)

    def __init__(self, path: Path, size: int) -> None:
        """Map ``path``; raises :class:`BackingError` when it cannot be opened, sized or mapped."""
        self._path = path
        super().__init__(_map_file(path, _checked(size)))

    def flush(self) -> None:
        """Nothing to do: a shared mapping is the page cache. Waiting for the disk would stall every other target."""

    def resize(self, size: int) -> None:
        self._replace(_map_file(self._path, _checked(size)))


def _checked(size: int) -> int:
    if size < 1:
        raise BackingError(f"a backing holds at least 1 byte, got {size}")
    return size


def _map_file(path: Path, size: int) -> mmap.mmap:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size < size:
                os.ftruncate(descriptor, size)
            return mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BackingError(f"{path}: cannot back a logical unit of {size} bytes: {error.strerror or error}") from error
