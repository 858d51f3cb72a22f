"""The NBD server over real Unix sockets: bytes in, bytes out, and clients that behave badly."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbd_bench import MemoryDevice, RawClient, client_of, serving, until

from srpha.embedded.multipath.io import IoKind
from srpha.embedded.nbd.export import exports_of
from srpha.embedded.nbd.server import NbdServer, NbdServerError
from srpha.embedded.nbd.settings import NbdLimits

pytestmark = pytest.mark.realtime

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = (1 << bit for bit in range(5))
EPERM, EIO, EINVAL, ENOSPC, EOVERFLOW, ESHUTDOWN = 1, 5, 22, 28, 75, 108
SIZE = 2048 * 512


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "host.nbd"


def socket_mode(path: Path) -> int | None:
    """Permissions of what is at ``path``, None when nothing is."""
    return path.stat().st_mode & 0o777 if path.exists() else None


# --- what works ---


async def test_write_and_read_back_in_simple_replies(path: Path) -> None:
    device = MemoryDevice()
    async with serving(path, device) as server, client_of(server) as client:
        assert await client.call(WRITE, 512, 1024, b"ab" * 512) == 0
        assert await client.call(WRITE, SIZE - 512, 512, b"z" * 512, flags=FUA) == 0
        client.request(READ, 0, 2048)
        assert await client.simple(2048) == (0, 0x1122334455667788, bytes(512) + b"ab" * 512 + bytes(512))
        assert await client.call(FLUSH) == 0
        client.request(DISC)
        assert await client.ended()
    assert device.log == [
        (IoKind.WRITE, 512, 1024, False),
        (IoKind.WRITE, SIZE - 512, 512, True),
        (IoKind.READ, 0, 2048, False),
        (IoKind.FLUSH, 0, 0, False),
    ]


async def test_structured_replies(path: Path) -> None:
    device = MemoryDevice()
    device.data[512:1024] = b"q" * 512
    device.failing = lambda io: errno.EIO if io.lba == 100 else 0
    async with serving(path, device) as server, client_of(server, structured=True) as client:
        for flags in (0, DF):
            client.request(READ, 512, 512, flags=flags, cookie=5)
            assert await client.chunk() == (1, 1, 5, struct.pack(">Q", 512) + b"q" * 512)
        client.request(READ, 0, 0, cookie=6)
        assert await client.chunk() == (1, 0, 6, b"")
        assert await client.call(WRITE, 0, 512, bytes(512)) == 0
        client.request(READ, 100 * 512, 512, cookie=7)
        flags, kind, cookie, payload = await client.chunk()
        assert (flags, kind, cookie) == (1, 0x8001, 7)
        assert struct.unpack_from(">IH", payload) == (EIO, len(payload) - 6)
        assert payload[6:] == b"mpatha: read at 100: planted"
        client.request(READ, SIZE, 512, cookie=8)
        assert (await client.chunk())[3][6:] == b"mpatha: 512 bytes at 1048576 end beyond its 1048576 bytes"


async def test_export_name_and_padding(path: Path) -> None:
    async with serving(path, MemoryDevice("mpatha"), MemoryDevice("mpathb")) as server:
        for flags, length in ((1, 134), (3, 10)):
            async with client_of(server, None) as client:
                await client.greet(flags)
                client.send(b"IHAVEOPT" + struct.pack(">II", 1, 6) + b"mpathb")
                reply = await client.take(length)
                assert reply == struct.pack(">QH", SIZE, 0x14D) + bytes(length - 10)
                assert await client.call(WRITE, 0, 512, bytes(512)) == 0


async def test_long_requests_go_in_pieces_in_a_window(path: Path) -> None:
    device = MemoryDevice(blocks=4096, max_io_bytes=4096)
    data = bytes(n % 251 for n in range(1 << 20))
    async with serving(path, device) as server, client_of(server) as client:
        assert await client.call(WRITE, 512, len(data), data, flags=FUA) == 0
        assert {length for _, _, length, _ in device.log} == {4096}
        assert all(fua for *_, fua in device.log)
        assert device.most_bytes == 8 * 4096
        client.request(READ, 512, len(data))
        assert (await client.simple(len(data)))[2] == data
        client.request(READ, 1024, 4096 * 3 + 512)
        assert (await client.simple(4096 * 3 + 512))[2] == data[512 : 512 + 4096 * 3 + 512]


async def test_write_zeroes_reads_back_as_zeroes(path: Path) -> None:
    device = MemoryDevice(max_io_bytes=4096)
    device.data[:] = b"\xee" * SIZE
    async with serving(path, device) as server, client_of(server) as client:
        assert await client.call(WRITE_ZEROES, 512, SIZE - 1024, flags=NO_HOLE | FUA) == 0
        assert device.data == b"\xee" * 512 + bytes(SIZE - 1024) + b"\xee" * 512
        assert all(fua for *_, fua in device.log)


async def test_write_zeroes_may_be_longer_than_a_payload(path: Path) -> None:
    device = MemoryDevice(blocks=1024)
    device.data[:] = b"\xee" * len(device.data)
    limits = NbdLimits(max_payload=1 << 16, in_flight_bytes=1 << 16)
    async with serving(path, device, limits=limits) as server, client_of(server) as client:
        assert await client.call(WRITE_ZEROES, 0, 1024 * 512) == 0
    assert not any(device.data)


async def test_replies_overtake_each_other(path: Path) -> None:
    device = MemoryDevice()
    device.hold = True
    async with serving(path, device) as server, client_of(server) as client:
        for cookie in (1, 2, 3):
            client.request(WRITE, cookie * 512, 512, bytes([cookie]) * 512, cookie=cookie)
        client.request(READ, 0, 512, cookie=3)  # a cookie that is in use: the client's own fault, and served
        await until(lambda: len(device.held) == 4)
        device.release()
        assert await client.simple(512) == (0, 3, bytes(512))
        assert [(await client.simple())[1] for _ in range(3)] == [3, 2, 1]


async def test_a_flush_on_one_connection_reaches_the_unit_that_others_write(path: Path) -> None:
    device = MemoryDevice()
    async with serving(path, device) as server, client_of(server) as one, client_of(server) as other:
        assert await one.call(WRITE, 0, 512, b"1" * 512) == 0
        assert await other.call(FLUSH) == 0
        assert device.log == [(IoKind.WRITE, 0, 512, False), (IoKind.FLUSH, 0, 0, False)]
        other.request(READ, 0, 512)
        assert (await other.simple(512))[2] == b"1" * 512


async def test_exports_come_and_go(path: Path) -> None:
    devices: list[MemoryDevice] = []
    server = NbdServer(path, lambda: exports_of(devices))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        await server.listening.wait()
        async with client_of(server, None) as client:
            await client.greet()
            assert await client.option(3) == [(1, b"")]
            ((kind, text),) = await client.option(7, bytes(6))
            assert kind == 0x80000006
            assert text == b"there is no export ''; there are: none"
            devices.append(MemoryDevice("mpathc"))
            assert [kind for kind, _ in await client.option(3)] == [2, 1]
            assert (await client.option(7, bytes(6)))[-1] == (1, b"")
            assert await client.call(FLUSH) == 0
            devices.clear()
            # What is in transmission keeps its device; whether that still works is the device's word.
            assert await client.call(FLUSH) == 0
        task.cancel()


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
        pytest.param(b"IHAVEOPT" + struct.pack(">II", 7, 0xFFFFFFFF), id="four gigabytes of option data"),
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


# --- clients that go away, do not read, or are too many ---


async def test_disconnect_waits_for_what_is_under_way(path: Path) -> None:
    device = MemoryDevice()
    device.hold = True
    async with serving(path, device) as server, client_of(server) as client:
        client.request(WRITE, 0, 512, b"x" * 512, cookie=1)
        client.request(DISC)
        await until(lambda: len(device.held) == 1)
        device.release()
        assert await client.simple() == (0, 1, b"")
        assert await client.ended()
    assert device.data[:512] == b"x" * 512


@pytest.mark.parametrize("part", [5, 28, 28 + 100])
async def test_a_client_that_goes_in_the_middle_of_a_request(path: Path, part: int) -> None:
    device = MemoryDevice()
    async with serving(path, device) as server:
        async with client_of(server) as client:
            client.send((struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, 0, 512) + bytes(512))[:part])
        await until(lambda: server.connections == 0)
        async with client_of(server) as client:
            assert await client.call(FLUSH) == 0
    assert [kind for kind, *_ in device.log] == [IoKind.FLUSH]


async def test_a_client_that_goes_with_io_under_way_keeps_its_place_until_it_is_done(path: Path) -> None:
    device = MemoryDevice()
    device.hold = True
    async with serving(path, device, limits=NbdLimits(connections=1)) as server:
        async with client_of(server) as client:
            for number in range(8):
                client.request(READ, number * 512, 512)
            await until(lambda: len(device.held) == 8)
            client.writer.transport.abort()
        assert server.connections == 1
        async with client_of(server, None) as late:
            assert await late.ended()  # no room
        device.release()
        await until(lambda: server.connections == 0)
        async with client_of(server) as client:
            assert await client.call(FLUSH) == 0


async def test_what_is_under_way_is_bounded_in_bytes(path: Path) -> None:
    device = MemoryDevice()
    device.hold = True
    limits = NbdLimits(in_flight_bytes=1 << 16)
    async with serving(path, device, limits=limits) as server, client_of(server) as client:
        for cookie in range(40):
            client.request(WRITE, cookie * 4096, 4096, bytes([cookie]) * 4096, cookie=cookie)
        client.request(READ, 0, 1 << 17, cookie=99)  # longer than the bound: taken when it is alone
        await until(lambda: len(device.held) == 16)
        await asyncio.sleep(0.02)
        assert len(device.held) == 16
        device.release()
        answered = [(await client.simple())[1] for _ in range(40)]
        assert sorted(answered) == list(range(40))
        assert (await client.simple(1 << 17))[2] == b"".join(bytes([n]) * 4096 for n in range(32))
        assert device.most_bytes == 1 << 17


async def test_what_is_under_way_is_bounded_in_requests(path: Path) -> None:
    device = MemoryDevice()
    device.hold = True
    limits = NbdLimits(in_flight_requests=4)
    async with serving(path, device, limits=limits) as server, client_of(server) as client:
        for cookie in range(10):
            client.request(FLUSH, cookie=cookie)
        await until(lambda: len(device.held) == 4)
        await asyncio.sleep(0.02)
        assert len(device.held) == 4
        device.release()
        assert sorted([(await client.simple())[1] for _ in range(10)]) == list(range(10))


async def test_a_client_that_does_not_read_stops_only_itself(path: Path) -> None:
    device = MemoryDevice(blocks=1 << 15)
    limits = NbdLimits(in_flight_bytes=1 << 20, linger=0.05)
    async with serving(path, device, limits=limits) as server:
        async with client_of(server) as glutton:
            glutton.reader._transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(64):
                glutton.request(READ, 0, 1 << 20)
            async with client_of(server) as other:
                for number in range(50):
                    assert await other.call(WRITE, number * 512, 512, bytes(512)) == 0
            taken = sum(length for kind, _, length, _ in device.log if kind is IoKind.READ)
            assert taken <= 4 << 20  # of 64 MiB: the bound, and what sockets buffer
            glutton.writer.transport.abort()
        await until(lambda: server.connections == 0)


async def test_a_flood_of_nonsense_stops_only_itself(path: Path) -> None:
    device = MemoryDevice()
    async with serving(path, device) as server, client_of(server) as noisy, client_of(server) as other:
        noisy.send(struct.pack(">IHHQQI", 0x25609513, 0, 0xFFFF, 1, 0, 0) * 4096)
        for _ in range(20):
            assert await other.call(FLUSH) == 0
        for _ in range(4096):
            assert (await noisy.simple())[0] == EINVAL


# --- beginning and end of the server ---


async def test_shutdown_lets_io_finish_and_refuses_what_does_not(path: Path) -> None:
    device = MemoryDevice()
    device.hold = True
    async with serving(path, device, limits=NbdLimits(grace=0.05)) as server:
        client = await RawClient.connect(path)
        await client.go()
        client.request(WRITE, 0, 512, b"a" * 512, cookie=1)
        client.request(WRITE, 512, 512, b"b" * 512, cookie=2)
        await until(lambda: len(device.held) == 2)
        stuck = device.held.pop()
        device.release()
    assert await client.simple() == (0, 1, b"")
    assert await client.simple() == (ESHUTDOWN, 2, b"")
    assert await client.ended()
    assert server.connections == 0
    assert socket_mode(path) is None
    stuck.done(stuck)  # too late, and nobody minds
    await client.close()


async def test_the_socket_is_private_and_a_leftover_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(path, MemoryDevice()) as server:
        assert socket_mode(path) == 0o660
        with pytest.raises(NbdServerError, match="something serves"):
            await NbdServer(path, dict).run()
        async with client_of(server) as client:
            assert await client.call(FLUSH) == 0
    assert socket_mode(path) is None


@pytest.fixture
def in_the_way(path: Path) -> Iterator[Path]:
    path.write_text("mine")
    yield path
    assert path.read_text() == "mine"


async def test_a_file_in_the_way_is_not_touched(in_the_way: Path) -> None:
    with pytest.raises(NbdServerError, match="is no socket"):
        await NbdServer(in_the_way, dict).run()


async def test_a_place_that_cannot_hold_a_socket(path: Path) -> None:
    for place in (path / "nowhere" / "x.nbd", path.with_name("x" * 120)):
        with pytest.raises(NbdServerError, match="cannot be made"):
            await NbdServer(place, dict).run()


async def test_the_uri(tmp_path: Path) -> None:
    server = NbdServer(tmp_path / "my host.nbd", dict)
    assert server.uri("mpath a") == f"nbd+unix:///mpath%20a?socket={tmp_path}/my%20host.nbd"
