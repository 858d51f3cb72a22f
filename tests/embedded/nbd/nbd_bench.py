"""A block device in memory with the multipath device's interface, an NBD server over it, and a client made of bytes."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from srpha.embedded.multipath.io import BlockIo, BlockIoError, IoKind
from srpha.embedded.nbd.export import exports_of
from srpha.embedded.nbd.server import NbdServer
from srpha.embedded.nbd.settings import NbdLimits

# Numbers of doc/proto.md, written down a second time.
READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = (1 << bit for bit in range(5))
EPERM, EIO, EINVAL, ENOSPC, EOVERFLOW, ESHUTDOWN = 1, 5, 22, 28, 75, 108
SIZE = 2048 * 512
"""Bytes of a device as it comes."""


class MemoryDevice:
    """Completes every I/O in the next turn of the loop, unless held; remembers what it was asked for."""

    def __init__(
        self,
        name: str = "mpatha",
        *,
        blocks: int = 2048,
        block_size: int = 512,
        max_io_bytes: int = 1 << 20,
        write_protected: bool = False,
    ) -> None:
        self.name = name
        self.wwid = "3600000000000000000000000000000001"
        self.block_size = block_size
        self.blocks = blocks
        self.max_io_bytes = max_io_bytes
        self.write_protected = write_protected
        self.data = bytearray(blocks * block_size)
        self.log: list[tuple[IoKind, int, int, bool]] = []
        """Kind, bytes from, bytes, FUA of every I/O taken."""
        self.failing: Callable[[BlockIo], int] = lambda _io: 0
        """Gives the errno that an I/O is to fail with, 0 for none."""
        self.corrupt_reads = False
        self.hold = False
        self.held: list[BlockIo] = []
        self.most_bytes = 0
        self._bytes = 0

    def submit(self, io: BlockIo) -> None:
        if io.kind is IoKind.WRITE:
            length = len(io.data)
            assert length % self.block_size == 0
        else:
            length = io.blocks * self.block_size
        start = io.lba * self.block_size
        if start + length > len(self.data) or length > self.max_io_bytes:
            raise ValueError(f"{self.name}: {length} bytes at {start} do not fit")
        self.log.append((io.kind, start, length, io.fua))
        self._bytes += length
        self.most_bytes = max(self.most_bytes, self._bytes)
        if self.hold:
            self.held.append(io)
        else:
            asyncio.get_running_loop().call_soon(self._complete, io)

    def release(self) -> None:
        """Complete what is held, last first: replies need not come in order."""
        self.hold = False
        while self.held:
            self._complete(self.held.pop())

    def _complete(self, io: BlockIo) -> None:
        start = io.lba * self.block_size
        length = len(io.data) if io.kind is IoKind.WRITE else io.blocks * self.block_size
        self._bytes -= length
        code = self.failing(io)
        if code:
            io.error = BlockIoError(code, f"{self.name}: {io.kind.value} at {io.lba}: planted")
        elif io.kind is IoKind.WRITE:
            self.data[start : start + length] = io.data
        elif io.kind is IoKind.READ:
            io.data = self.data[start : start + length]
            if self.corrupt_reads and length:
                io.data[0] ^= 0x01
        io.done(io)


class RawClient:
    """Sends and expects bytes; no codec of ours is in it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, path: Path) -> RawClient:
        return cls(*await asyncio.open_unix_connection(path))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def take(self, length: int) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.readexactly(length)

    async def greet(self, flags: int = 3) -> None:
        assert await self.take(18) == b"NBDMAGICIHAVEOPT\x00\x03"
        self.send(struct.pack(">I", flags))

    async def option(self, number: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Replies (type, data) up to the final one."""
        self.send(b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data)
        replies: list[tuple[int, bytes]] = []
        while True:
            magic, option, kind, length = struct.unpack(">QIII", await self.take(20))
            assert (magic, option) == (0x3E889045565A9, number)
            replies.append((kind, await self.take(length)))
            if kind not in (2, 3):
                return replies

    async def go(self, name: str = "", *, structured: bool = False) -> list[tuple[int, bytes]]:
        """The whole way to transmission; gives the replies to NBD_OPT_GO."""
        await self.greet()
        if structured:
            assert await self.option(8) == [(1, b"")]
        data = name.encode()
        replies = await self.option(7, struct.pack(">I", len(data)) + data + struct.pack(">HH", 1, 3))
        assert replies[-1] == (1, b"")
        return replies

    def request(
        self,
        command: int,
        offset: int = 0,
        length: int = 0,
        data: bytes = b"",
        *,
        flags: int = 0,
        cookie: int = 0x1122334455667788,
    ) -> None:
        self.send(struct.pack(">IHHQQI", 0x25609513, flags, command, cookie, offset, length) + data)

    async def simple(self, length: int = 0) -> tuple[int, int, bytes]:
        """Error, cookie and, without an error, ``length`` bytes of data."""
        magic, error, cookie = struct.unpack(">IIQ", await self.take(16))
        assert magic == 0x67446698
        return error, cookie, b"" if error else await self.take(length)

    async def chunk(self) -> tuple[int, int, int, bytes]:
        """Flags, type, cookie, payload."""
        magic, flags, kind, cookie, length = struct.unpack(">IHHQI", await self.take(20))
        assert magic == 0x668E33EF
        return flags, kind, cookie, await self.take(length)

    async def call(self, command: int, offset: int = 0, length: int = 0, data: bytes = b"", *, flags: int = 0) -> int:
        """The error of one request that has no data in its simple reply."""
        self.request(command, offset, length, data, flags=flags)
        error, cookie, _ = await self.simple()
        assert cookie == 0x1122334455667788
        return error

    async def ended(self) -> bool:
        """The server has hung up, and had nothing more to say."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(path: Path, *devices: MemoryDevice, limits: NbdLimits | None = None) -> AsyncIterator[NbdServer]:
    """A server over ``devices``."""
    server = NbdServer(path, lambda: exports_of(devices, limits), limits)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        await server.listening.wait()
        try:
            yield server
        finally:
            task.cancel()


@contextlib.asynccontextmanager
async def client_of(server: NbdServer, name: str | None = "", *, structured: bool = False) -> AsyncIterator[RawClient]:
    """A client in transmission on an export; with ``name`` None one that has just connected."""
    client = await RawClient.connect(server.path)
    try:
        if name is not None:
            await client.go(name, structured=structured)
        yield client
    finally:
        await client.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait on the real clock for something that must come soon."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition has no event
            await asyncio.sleep(0.005)
