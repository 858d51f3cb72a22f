"""Requests that the NBD server must refuse, and violations that end the connection: the illegal-request catalogue."""

from __future__ import annotations

import asyncio
import errno
import random
import struct
from pathlib import Path

import pytest
from nbd_bench import (
    BLOCK_STATUS,
    CACHE,
    DF,
    EINVAL,
    EIO,
    ENOSPC,
    EOVERFLOW,
    EPERM,
    FAST_ZERO,
    FLUSH,
    FUA,
    NO_HOLE,
    READ,
    REQ_ONE,
    SIZE,
    TRIM,
    WRITE,
    WRITE_ZEROES,
    MemoryDevice,
    RawClient,
    client_of,
    serving,
    until,
)

from srpha.embedded.multipath.io import IoKind
from srpha.embedded.nbd.settings import NbdLimits

pytestmark = pytest.mark.realtime


# --- what is refused, and the connection lives ---

ILLEGAL = [
    pytest.param(READ, 1, 512, b"", 0, EINVAL, id="read at an odd offset"),
    pytest.param(READ, 0, 511, b"", 0, EINVAL, id="read of half a block"),
    pytest.param(WRITE, 256, 512, bytes(512), 0, EINVAL, id="write at an odd offset"),
    pytest.param(WRITE, 0, 7, bytes(7), 0, EINVAL, id="write of seven bytes"),
    pytest.param(WRITE_ZEROES, 0, 513, b"", 0, EINVAL, id="zeroes over half a block"),
    pytest.param(READ, SIZE, 512, b"", 0, EINVAL, id="read from the end on"),
    pytest.param(READ, SIZE - 512, 1024, b"", 0, EINVAL, id="read across the end"),
    pytest.param(READ, 2**64 - 512, 512, b"", 0, EINVAL, id="read where offset plus length overflows"),
    pytest.param(WRITE, SIZE, 512, bytes(512), 0, ENOSPC, id="write from the end on"),
    pytest.param(WRITE, SIZE - 512, 1024, bytes(1024), 0, ENOSPC, id="write across the end"),
    pytest.param(WRITE, 2**64 - 512, 512, bytes(512), 0, ENOSPC, id="write where the sum overflows"),
    pytest.param(WRITE_ZEROES, SIZE - 512, 1024, b"", 0, ENOSPC, id="zeroes across the end"),
    pytest.param(WRITE_ZEROES, 0, 0xFFFFFE00, b"", 0, ENOSPC, id="zeroes over four gigabytes"),
    pytest.param(READ, 0, 0xFFFFFE00, b"", 0, EINVAL, id="read of four gigabytes"),
    pytest.param(FLUSH, 512, 0, b"", 0, EINVAL, id="flush with an offset"),
    pytest.param(FLUSH, 0, 512, b"", 0, EINVAL, id="flush with a length"),
    pytest.param(TRIM, 0, 512, b"", 0, EINVAL, id="trim, which is not offered"),
    pytest.param(CACHE, 0, 512, b"", 0, EINVAL, id="cache, which is not offered"),
    pytest.param(BLOCK_STATUS, 0, 512, b"", REQ_ONE, EINVAL, id="block status without a context"),
    pytest.param(8, 0, 512, b"", 0, EINVAL, id="resize"),
    pytest.param(0xFFFF, 0, 512, b"", 0, EINVAL, id="unknown command"),
    pytest.param(READ, 0, 512, b"", DF, EINVAL, id="don't fragment without structured replies"),
    pytest.param(READ, 0, 512, b"", NO_HOLE, EINVAL, id="no hole on a read"),
    pytest.param(WRITE, 0, 512, bytes(512), NO_HOLE, EINVAL, id="no hole on a write"),
    pytest.param(WRITE, 0, 512, bytes(512), 1 << 15, EINVAL, id="unknown flag"),
    pytest.param(WRITE, 0, 512, bytes(512), 1 << 5, EINVAL, id="payload length flag of extended headers"),
    pytest.param(WRITE_ZEROES, 0, 512, b"", FAST_ZERO, EINVAL, id="fast zero, which is not offered"),
    pytest.param(FLUSH, 0, 0, b"", REQ_ONE, EINVAL, id="flag of another command on a flush"),
]


@pytest.mark.parametrize(("command", "offset", "length", "data", "flags", "error"), ILLEGAL)
@pytest.mark.parametrize("structured", [False, True])
async def test_illegal_requests_change_nothing(
    path: Path, command: int, offset: int, length: int, data: bytes, flags: int, error: int, structured: bool
) -> None:
    device = MemoryDevice()
    device.data[:] = b"\xee" * SIZE
    async with serving(path, device) as server, client_of(server, structured=structured) as client:
        client.request(command, offset, length, data, flags=flags)
        if structured and not (command == READ and flags == DF):
            kind, payload = (await client.chunk())[1::2]
            assert kind == 0x8001
            assert struct.unpack_from(">I", payload) == (error,)
        elif structured:
            assert (await client.chunk())[1] == 1  # negotiated, so legal
        else:
            assert await client.simple() == (error, 0x1122334455667788, b"")
        assert await client.call(FLUSH) == 0  # the stream is still in step
    assert [kind for kind, *_ in device.log if kind is IoKind.WRITE] == []
    assert device.data == b"\xee" * SIZE


@pytest.mark.parametrize(("command", "data"), [(READ, b""), (WRITE, b""), (WRITE_ZEROES, b"")])
async def test_requests_of_no_length_do_nothing(path: Path, command: int, data: bytes) -> None:
    device = MemoryDevice()
    async with serving(path, device) as server, client_of(server) as client:
        assert await client.call(command, 512, 0, data, flags=FUA) == 0
        assert await client.call(command, SIZE, 0, data) == 0
    assert device.log == []


@pytest.mark.parametrize(("structured", "error"), [(False, EINVAL), (True, EOVERFLOW)])
async def test_payloads_beyond_the_advertised_limit(path: Path, structured: bool, error: int) -> None:
    device = MemoryDevice()
    limits = NbdLimits(max_payload=1 << 16)
    async with serving(path, device, limits=limits) as server, client_of(server, None) as client:
        replies = await client.go(structured=structured)
        assert struct.pack(">HIII", 3, 512, 4096, 1 << 16) in [data for _, data in replies]
        client.request(READ, 0, (1 << 16) + 512)
        if structured:
            assert struct.unpack_from(">I", (await client.chunk())[3]) == (error,)
        else:
            assert (await client.simple())[0] == error
        client.request(WRITE, 0, (1 << 16) + 512, b"w" * ((1 << 16) + 512))
        if structured:
            assert struct.unpack_from(">I", (await client.chunk())[3]) == (EINVAL,)
        else:
            assert (await client.simple())[0] == EINVAL
        assert await client.call(FLUSH) == 0
    assert not any(device.data)


async def test_a_write_protected_unit(path: Path) -> None:
    device = MemoryDevice(write_protected=True)
    async with serving(path, device) as server, client_of(server) as client:
        assert await client.call(WRITE, 0, 512, bytes(512)) == EPERM
        assert await client.call(WRITE_ZEROES, 0, 512) == EPERM
        assert await client.call(FLUSH) == 0
        client.request(READ, 0, 512)
        assert (await client.simple(512))[0] == 0
    assert {kind for kind, *_ in device.log} == {IoKind.READ, IoKind.FLUSH}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.EIO, EIO),
        (errno.ENOLINK, EIO),
        (errno.ETIMEDOUT, EIO),
        (errno.EROFS, EPERM),
        (errno.ENOSPC, ENOSPC),
        (errno.EDQUOT, ENOSPC),
        (errno.EINVAL, EINVAL),
    ],
)
async def test_errors_of_the_device(path: Path, code: int, error: int) -> None:
    device = MemoryDevice()
    device.failing = lambda _io: code
    async with serving(path, device) as server, client_of(server) as client:
        for command, length, data in ((READ, 512, b""), (WRITE, 512, bytes(512)), (FLUSH, 0, b"")):
            assert await client.call(command, 0, length, data) == error
        device.failing = lambda _io: 0
        assert await client.call(FLUSH) == 0


async def test_one_failed_piece_fails_the_request_and_begins_no_other(path: Path) -> None:
    device = MemoryDevice(max_io_bytes=4096)
    device.failing = lambda io: errno.EIO if io.lba == 16 else 0
    async with serving(path, device) as server, client_of(server) as client:
        assert await client.call(READ, 0, SIZE) == EIO
        # The window's later pieces were under way with the third; the two before it had each brought one more.
        assert len(device.log) == 10
        assert await client.call(WRITE, 0, 8192, bytes(8192)) == 0


async def test_a_device_that_has_shrunk_refuses_by_itself(path: Path) -> None:
    device = MemoryDevice()
    async with serving(path, device) as server, client_of(server) as client:
        del device.data[512:]
        assert await client.call(WRITE, 512, 512, bytes(512)) == EINVAL
        assert await client.call(WRITE, 0, 512, bytes(512)) == 0


# --- what ends the connection ---


@pytest.mark.parametrize("flags", [4, 0x80000003, 0xFFFFFFFF])
async def test_unknown_client_flags_end_it(path: Path, flags: int) -> None:
    async with serving(path, MemoryDevice()) as server, client_of(server, None) as client:
        await client.greet(flags)
        assert await client.ended()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"IHAVEOPS" + bytes(8), id="wrong magic"),
        pytest.param(b"IHAVEOPT" + struct.pack(">II", 1, 5) + b"other", id="unknown export by name"),
        pytest.param(b"IHAVEOPT" + struct.pack(">II", 2, 0)[:7], id="half an option"),
    ],
)
async def test_bad_options_end_it(path: Path, data: bytes) -> None:
    async with serving(path, MemoryDevice()) as server, client_of(server, None) as client:
        await client.greet()
        client.send(data)
        client.writer.write_eof()
        assert await client.ended()
        await until(lambda: server.connections == 0)


@pytest.mark.parametrize("length", [(1 << 20) + 1, 0xFFFFFFFF])
async def test_far_too_long_option_data_end_it_before_they_come(path: Path, length: int) -> None:
    async with serving(path, MemoryDevice()) as server, client_of(server, None) as client:
        await client.greet()
        client.send(b"IHAVEOPT" + struct.pack(">II", 7, length))
        assert await client.ended()


async def test_long_option_data_are_skipped(path: Path) -> None:
    async with serving(path, MemoryDevice()) as server, client_of(server, None) as client:
        await client.greet()
        ((kind, _),) = await client.option(99, bytes(1 << 20))
        assert kind == 0x80000009
        assert await client.option(2) == [(1, b"")]
        assert await client.ended()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(struct.pack(">IHHQQI", 0x25609514, 0, 0, 1, 0, 512), id="wrong magic"),
        pytest.param(struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, 0, (1 << 25) + 512), id="write beyond 32 MiB"),
        pytest.param(struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, 0, 0xFFFFFE00), id="write of four gigabytes"),
        pytest.param(struct.pack(">IHHQQI", 0x25609513, 0, 2, 1, 5, 5), id="disconnect with junk in it"),
    ],
)
async def test_violations_end_it(path: Path, data: bytes) -> None:
    device = MemoryDevice()
    async with serving(path, device) as server, client_of(server) as client:
        client.send(data)
        assert await client.ended()
        await until(lambda: server.connections == 0)
    assert device.log == []


async def test_a_client_that_says_nothing_is_sent_away(path: Path) -> None:
    async with serving(path, MemoryDevice(), limits=NbdLimits(handshake_time=0.05)) as server:
        async with client_of(server, None) as client:
            await client.take(18)
            assert await client.ended()
        async with client_of(server) as client:
            await asyncio.sleep(0.1)
            assert await client.call(FLUSH) == 0  # in transmission a client may be idle


async def test_noise_never_reaches_past_its_own_connection(path: Path, seed: int) -> None:
    """Requests and options of random fields, cut off anywhere: the server lives, and every client's slot comes free."""
    rng = random.Random(seed)
    device = MemoryDevice(blocks=64, max_io_bytes=4096)

    def number(bits: int) -> int:
        return rng.choice(
            (0, 1, 512, 4096, 1 << (bits - 1), (1 << bits) - 1, rng.getrandbits(bits), rng.getrandbits(4))
        )

    def option() -> bytes:
        data = rng.randbytes(rng.choice((0, 4, 6, 40)))
        length = rng.choice((len(data), len(data), len(data), number(32)))
        return b"IHAVEOPT" + struct.pack(">II", rng.choice((3, 5, 6, 8, 9, 10, number(32))), length) + data

    def request() -> bytes:
        command = rng.choice((0, 1, 3, 4, 6, number(16)))
        length = rng.choice((0, 512, 4096, number(32)))
        head = struct.pack(">IHHQQI", 0x25609513, rng.choice((0, 1, number(16))), command, 1, number(64), length)
        return head + (rng.randbytes(length) if command == 1 and length <= 4096 else b"")

    async with serving(path, device, limits=NbdLimits(linger=0.05)) as server:
        for _ in range(60):
            client = await RawClient.connect(path)
            structured = rng.random() < 0.5
            if rng.random() < 0.3:
                await client.greet()
                noise = b"".join(option() for _ in range(8))
            else:
                await client.go(structured=structured)
                noise = b"".join(request() for _ in range(30))
            client.send(noise[: rng.randrange(len(noise))])
            await asyncio.sleep(0)
            client.writer.transport.abort()
        async with client_of(server) as client:
            assert await client.call(FLUSH) == 0
        await until(lambda: server.connections == 0)
