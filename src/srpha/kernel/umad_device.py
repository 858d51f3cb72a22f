"""One open user MAD device: the system calls, and the agents registered on it (facts: srp E)."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from srpha.kernel.umad_abi import (
    ENABLE_PKEY,
    HEADER_LENGTH,
    REGISTER_AGENT,
    REGISTER_AGENT2,
    Agent,
    registered_id,
    registration,
    registration2,
    wanted_length,
)

FIRST_BUFFER: Final = HEADER_LENGTH + 4096
"""Takes any single MAD and small tables. The kernel needs room for one segment at least, else EINVAL."""
LARGEST_BUFFER: Final = 1 << 28
"""256 MiB: two million node records. More is no table but a fault, or an attack."""

_NOT_KNOWN: Final = (errno.ENOTTY, errno.ENOSYS)
"""What kernels answer to an ioctl that they do not have; REGISTER_AGENT2 came with 3.18."""


class Descriptor(Protocol):
    """A character device's system calls; every failure is an :class:`OSError` with the kernel's errno."""

    def ioctl(self, request: int, argument: bytearray | None) -> None:
        """Call; ``argument`` is changed in place."""
        ...

    def read_into(self, buffer: bytearray) -> int:
        """Read one packet; BlockingIOError when there is none."""
        ...

    def write(self, data: bytes) -> int: ...
    def watch(self, ready: Callable[[], None]) -> None:
        """Call ``ready`` whenever there is something to read, an error included."""
        ...

    def close(self) -> None:
        """Stop watching and let go; twice is harmless."""
        ...


class CharacterDevice:
    """The real thing, on the running event loop; :meth:`write` may be called in any thread."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._writers = 0
        self._closed = False

    def ioctl(self, request: int, argument: bytearray | None) -> None:
        if argument is None:
            fcntl.ioctl(self._descriptor, request)
        else:
            fcntl.ioctl(self._descriptor, request, argument, True)

    def read_into(self, buffer: bytearray) -> int:
        # readv, not read: after ENOSPC the buffer holds the header, which tells the length that is needed
        return os.readv(self._descriptor, [buffer])

    def write(self, data: bytes) -> int:
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._writers += 1
        try:
            return os.write(self._descriptor, data)
        finally:
            with self._lock:
                self._writers -= 1
                self._release()

    def watch(self, ready: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, ready)

    def close(self) -> None:
        if self._closed:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._descriptor)
        with self._lock:
            self._closed = True
            self._release()

    def _release(self) -> None:
        """Close the descriptor once nobody writes: its number may then belong to another file."""
        if self._closed and not self._writers:
            os.close(self._descriptor)


class TableTooLongError(OSError):
    """A peer sent more than any table can be; the packet cannot be skipped."""


class UmadDevice:
    """Packets and agents on a descriptor."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray(FIRST_BUFFER)

    def enable_pkeys(self) -> None:
        """Switch to the header with a P_Key index; must come before any registration."""
        self._descriptor.ioctl(ENABLE_PKEY, None)

    def register(self, agent: Agent) -> int:
        """Register an agent; its ID. Raises OSError: EINVAL also when another program has the methods asked for."""
        request = registration2(agent)
        try:
            self._descriptor.ioctl(REGISTER_AGENT2, request)
        except OSError as error:
            if error.errno not in _NOT_KNOWN:
                raise
            request = registration(agent)
            self._descriptor.ioctl(REGISTER_AGENT, request)
        return registered_id(request)

    def watch(self, ready: Callable[[], None]) -> None:
        self._descriptor.watch(ready)

    def write(self, data: bytes) -> None:
        """Send one packet whole."""
        written = self._descriptor.write(data)
        if written != len(data):
            raise OSError(errno.EIO, f"the kernel took {written} of {len(data)} bytes")

    def read(self) -> memoryview:
        """One packet, valid until the next call; BlockingIOError when there is none.

        The buffer grows to what a reassembled table needs and is given back with the next short packet.
        """
        while True:
            try:
                length = self._descriptor.read_into(self._buffer)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                self._buffer = bytearray(self._grown())
                continue
            data = memoryview(self._buffer)[:length]
            if length <= FIRST_BUFFER < len(self._buffer):
                self._buffer = bytearray(FIRST_BUFFER)
            return data

    def close(self) -> None:
        self._descriptor.close()

    def _grown(self) -> int:
        """The size that the packet at the head of the queue needs."""
        wanted = max(wanted_length(self._buffer), 2 * len(self._buffer))
        if wanted > LARGEST_BUFFER:
            raise TableTooLongError(errno.EMSGSIZE, f"a table of {wanted} bytes")
        return wanted
