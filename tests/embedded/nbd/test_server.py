"""The NBD server over real Unix sockets: bytes in, bytes out, and clients that behave badly."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbd_bench import (
    DF,
    DISC,
    EINVAL,
    EIO,
    ESHUTDOWN,
    FLUSH,
    FUA,
    NO_HOLE,
    READ,
    SIZE,
    WRITE,
    WRITE_ZEROES,
    MemoryDevice,
    RawClient,
    client_of,
    serving,
    until,
)

from srpha.embedded.multipath.io import IoKind
from srpha.embedded.nbd.export import exports_of
from srpha.embedded.nbd.server import NbdServer, NbdServerError
from srpha.embedded.nbd.settings import NbdLimits

pytestmark = pytest.mark.realtime


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
        device.hold = True
        for cookie in range(20):
            client.request(WRITE, cookie * 4096, 4096, bytes(4096), cookie=cookie)
        await until(lambda: len(device.held) == 16)  # as many as before: what is done is paid back
        device.release()
        assert sorted([(await client.simple())[1] for _ in range(20)]) == list(range(20))


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


async def test_a_client_that_leaves_without_reading_is_not_waited_for(path: Path) -> None:
    limits = NbdLimits(linger=0.05)
    async with serving(path, MemoryDevice(blocks=1 << 15), limits=limits) as server, client_of(server) as glutton:
        glutton.reader._transport.pause_reading()  # type: ignore[attr-defined]
        glutton.request(READ, 0, 16 << 20)
        glutton.request(DISC)
        await until(lambda: server.connections == 0)
        glutton.reader._transport.resume_reading()  # type: ignore[attr-defined]
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await glutton.simple(16 << 20)


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
