"""The server of ibsim's protocol over real sockets: slots, control answers, the dead, the hostile and the slow."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from managed import Subnet, managed, two_switches

from srpha.embedded.ibsim.server import IbsimServer, IbsimServerError
from srpha.embedded.mads.gsi import GeneralServices
from srpha.wire.ibsim import (
    ConnectData,
    ControlKind,
    ControlPacket,
    SimDatagram,
    client_data_name,
    control_name,
    server_data_name,
)
from srpha.wire.identifiers import PKEY_DEFAULT_FULL
from srpha.wire.mad import MadHeader, ManagementClass, Method, build_mad, read_header
from srpha.wire.smp import DirectedRouteSmp, NodeInfo, PortCapability, PortInfo, PortState, SmpAttribute, read_smp

pytestmark = [pytest.mark.realtime, pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")]

_numbers = itertools.count(1)


class Client:
    """A program as ibsim's preload makes it, but on this loop."""

    def __init__(self, base: str, identifier: int | None = None) -> None:
        self.base = base
        self.identifier = next(_numbers) if identifier is None else identifier
        self.number = 0
        self.control = self._socket(control_name(base, self.identifier), control_name(base))
        self.data = self._socket(client_data_name(base, self.identifier), None)

    @staticmethod
    def _socket(ours: bytes, theirs: bytes | None) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        made.setblocking(False)
        made.bind(ours)
        if theirs is not None:
            made.connect(theirs)
        return made

    async def ask(self, kind: int, data: bytes = b"", *, number: int | None = None) -> ControlPacket:
        self.control.send(ControlPacket(self.number if number is None else number, kind, data).encode())
        return await self.answer()

    async def answer(self, seconds: float = 5.0) -> ControlPacket:
        async with asyncio.timeout(seconds):
            return ControlPacket.decode(await asyncio.get_running_loop().sock_recv(self.control, 200))

    async def connect(self, node: str, *, requests: bool = False) -> ControlPacket:
        answer = await self.ask(ControlKind.CONNECT, ConnectData(self.identifier, node, requests).encode())
        if answer.kind:
            self.number = int.from_bytes(answer.data[:4], sys.byteorder)
            self.data.connect(server_data_name(self.base, self.number))
        return answer

    def send(self, lid: int, qpn: int, mad: bytes) -> None:
        self.data.send(SimDatagram(lid, 0, qpn, qpn, mad).encode())

    async def receive(self, seconds: float = 5.0) -> SimDatagram:
        async with asyncio.timeout(seconds):
            return SimDatagram.decode(await asyncio.get_running_loop().sock_recv(self.data, 400))

    def close(self) -> None:
        """As a crash: nobody is told."""
        self.control.close()
        self.data.close()


class Place:
    """A managed subnet, its server, and clients of it."""

    def __init__(self, subnet: Subnet, server: IbsimServer) -> None:
        self.subnet = subnet
        self.server = server
        self.clients: list[Client] = []

    def client(self, identifier: int | None = None) -> Client:
        made = Client(self.server.base, identifier)
        self.clients.append(made)
        return made

    async def attached(self, node: str, *, requests: bool = False) -> Client:
        client = self.client()
        answer = await client.connect(node, requests=requests)
        assert answer.kind == ControlKind.CONNECT
        return client


@asynccontextmanager
async def place(*, limit: int = 4) -> AsyncIterator[Place]:
    async with managed(two_switches(), "sm/1") as subnet:
        base = f"srphat{os.getpid()}n{next(_numbers)}"
        server = IbsimServer(subnet.fabric, lambda port: subnet.gsi[port.name], base, limit=limit)
        running = subnet.group.create_task(server.run())
        await asyncio.sleep(0)
        made = Place(subnet, server)
        try:
            yield made
        finally:
            for client in made.clients:
                client.close()
            running.cancel()


def routed(hops: tuple[int, ...], tid: int) -> bytes:
    return DirectedRouteSmp(
        method=Method.GET,
        hop_count=len(hops),
        transaction_id=tid,
        attribute_id=SmpAttribute.NODE_INFO,
        initial_path=bytes((0, *hops)).ljust(64, b"\0"),
    ).encode()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - sockets set no event
            await asyncio.sleep(0.01)


async def test_a_program_attaches_asks_and_leaves() -> None:
    async with place() as here:
        client = await here.attached("a")
        port = here.subnet.port("a/1")
        assert here.server.attached == ("a/1",)
        told = await client.ask(ControlKind.GET_NODE_INFO, bytes(64))
        assert NodeInfo.decode(told.data).port_guid == port.guid
        told = await client.ask(ControlKind.GET_PORT_INFO, bytes(64))
        assert (PortInfo.decode(told.data).lid, PortInfo.decode(told.data).local_port) == (port.lid, 1)
        told = await client.ask(ControlKind.GET_PORT_INFO, b"\2" + bytes(63))
        assert PortInfo.decode(told.data).lid == here.subnet.port("a/2").lid
        told = await client.ask(ControlKind.GET_PKEYS, bytes(64))
        assert told.data == PKEY_DEFAULT_FULL.to_bytes(2, "big") + bytes(62)
        told = await client.ask(ControlKind.GET_GID, bytes(16))
        assert told.data == port.gid.packed
        told = await client.ask(ControlKind.GET_GUID, bytes(8))
        assert told.data == port.guid.to_bytes(8, "big")
        told = await client.ask(ControlKind.GET_PORT, bytes(4))
        assert told.data == port.lid.to_bytes(2, sys.byteorder) + bytes((PortState.ACTIVE, 0))
        assert len((await client.ask(ControlKind.GET_VENDOR, bytes(24))).data) == 24
        client.send(0xFFFF, 0, routed((1,), 0x77))
        answer = await client.receive()
        assert (answer.slid, answer.dest_qp, answer.source_qp, answer.status) == (0xFFFF, 0, 0, 0)
        assert read_smp(answer.mad).transaction_id == 0x77
        assert (await client.ask(ControlKind.DISCONNECT)).kind == ControlKind.DISCONNECT
        assert here.server.attached == ()
        assert (await client.ask(ControlKind.GET_GUID)).kind == ControlKind.ERROR


@pytest.mark.parametrize(
    ("node", "port"), [("a", "a/1"), ("a/2", "a/2"), ("left", "left/0"), ("left/0", "left/0"), ("b", "b/1"), ("", None)]
)
async def test_where_a_program_is_attached(node: str, port: str | None) -> None:
    async with place() as here:
        gsi = here.subnet.gsi
        for switch in ("left", "right"):
            gsi[f"{switch}/0"] = GeneralServices(here.subnet.port(f"{switch}/0"))
        client = await here.attached(node)
        if port is not None:
            assert here.server.attached == (port,)
        client.send(0xFFFF, 0, routed((), 5))
        assert read_smp((await client.receive()).mad).transaction_id == 5


@pytest.mark.parametrize("node", ["nobody", "a/3", "a/x", "/", "left/99"])
async def test_a_node_that_is_not_there(node: str) -> None:
    async with place() as here:
        assert (await here.client().connect(node)).kind == ControlKind.ERROR
        assert here.server.attached == ()


async def test_no_more_programs_than_there_are_places() -> None:
    async with place(limit=2) as here:
        first, second = await here.attached("a"), await here.attached("b")
        assert {first.number, second.number} == {0, 1}
        assert (await here.client().connect("a")).kind == ControlKind.ERROR
        await first.ask(ControlKind.DISCONNECT)
        third = await here.attached("a")
        assert third.number == first.number
        assert here.server.attached == ("a/1", "b/1")


async def test_the_place_of_a_crashed_program_is_taken_back() -> None:
    async with place(limit=1) as here:
        dead = await here.attached("sm", requests=True)
        dead.close()
        client = await here.attached("sm", requests=True)  # at once, because the place is needed
        client.close()
        await until(lambda: not here.server.attached)  # by itself, within a second or so


async def test_a_living_program_keeps_its_place() -> None:
    async with place(limit=1) as here:
        client = await here.attached("a")
        await asyncio.sleep(2.2)
        assert here.server.attached == ("a/1",)
        client.send(0xFFFF, 0, routed((1,), 1))
        assert read_smp((await client.receive()).mad).transaction_id == 1


async def test_a_process_that_got_the_number_of_a_dead_one() -> None:
    async with place() as here:
        dead = await here.attached("a")
        dead.close()
        again = here.client(dead.identifier)
        assert (await again.connect("b")).kind == ControlKind.CONNECT
        assert here.server.attached == ("b/1",)


async def test_requests_to_a_node_have_one_taker() -> None:
    async with place() as here:
        taker = await here.attached("b", requests=True)
        asker = await here.attached("a")
        assert (await here.client().connect("b", requests=True)).kind == ControlKind.ERROR
        mad = build_mad(MadHeader(mgmt_class=ManagementClass.DEVICE_MGMT, method=Method.GET, transaction_id=3))
        asker.send(here.subnet.port("b/1").lid, 1, mad)
        asked = await taker.receive()
        assert asked.slid == here.subnet.port("a/1").lid
        taker.send(asked.slid, asked.source_qp, asked.mad[:3] + b"\x81" + asked.mad[4:])
        assert (await asker.receive()).mad == mad[:3] + b"\x81" + mad[4:]


async def test_the_mark_of_a_subnet_manager() -> None:
    async with place() as here:
        port = here.subnet.port("b/1")
        client = await here.attached("b")
        yes = (1).to_bytes(4, sys.byteorder)
        assert (await client.ask(ControlKind.SET_ISSM, yes)).kind == ControlKind.SET_ISSM
        assert port.capability_mask & PortCapability.SM
        client.close()
        await until(lambda: not port.capability_mask & PortCapability.SM)
        manager = await here.attached("sm")
        assert (await manager.ask(ControlKind.SET_ISSM, yes)).kind == ControlKind.ERROR  # ours runs there
        assert here.subnet.port("sm/1").capability_mask & PortCapability.SM


async def test_hostile_packets_change_nothing() -> None:
    async with place() as here:
        client = await here.attached("a")
        other = here.client()
        good = ControlPacket(client.number, ControlKind.GET_GUID, bytes(8)).encode()
        hostile = [b"", good[:79], good + b"\0", bytes(80), good[:12] + b"\xff" * 68]
        hostile.append(ControlPacket(0, ControlKind.CONNECT, ConnectData(client.identifier, "a").encode()).encode())
        for packet in hostile:
            other.control.send(packet)
        assert (await other.ask(ControlKind.DISCONNECT, number=client.number)).kind == ControlKind.ERROR
        assert (await other.ask(99, number=client.number)).kind == ControlKind.ERROR
        assert (await client.ask(99)).kind == ControlKind.ERROR
        assert here.server.refused == len(hostile)
        mads = [bytes(256), build_mad(MadHeader(mgmt_class=0x81, method=Method.GET)), routed((1,), 1)]
        for mad in mads:
            client.send(3, 1, mad)
        client.data.send(b"short")
        client.data.send(bytes(288))
        client.send(0xFFFF, 0, routed((1,), 9))
        assert read_smp((await client.receive()).mad).transaction_id == 9
        assert here.server.refused == len(hostile) + len(mads) + 2
        assert here.server.attached == ("a/1",)


async def test_nobody_else_can_write_to_a_program_s_socket() -> None:
    async with place() as here:
        client, other = await here.attached("a"), here.client()
        other.data.connect(control_name(here.server.base))
        with pytest.raises(PermissionError):
            other.data.connect(server_data_name(here.server.base, client.number))


async def test_a_program_that_reads_slowly_gets_everything_in_order() -> None:
    """More than a socket holds; others are not held up meanwhile."""
    count = 3000
    async with place() as here:
        slow, quick = await here.attached("a"), await here.attached("b")
        for tid in range(1, count + 1):
            while True:
                try:
                    slow.send(0xFFFF, 0, routed((1,), tid))
                    break
                except BlockingIOError:
                    await asyncio.sleep(0.001)
        quick.send(0xFFFF, 0, routed((1,), 1))
        await quick.receive()
        tids = [read_header((await slow.receive()).mad).transaction_id for _ in range(count)]
        assert tids == list(range(1, count + 1))


async def test_a_name_is_served_once() -> None:
    async with place() as here:
        second = IbsimServer(here.subnet.fabric, lambda port: here.subnet.gsi[port.name], here.server.base)
        with pytest.raises(IbsimServerError, match="runs already"):
            second.open()
        with pytest.raises(IbsimServerError, match="name space"):
            IbsimServer(here.subnet.fabric, lambda port: here.subnet.gsi[port.name], "no/name")
    second.open()
    second.close()


async def test_when_the_server_ends_the_programs_are_cut_off_and_the_ports_are_as_before() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        base = f"srphat{os.getpid()}n{next(_numbers)}"
        server = IbsimServer(subnet.fabric, lambda port: subnet.gsi[port.name], base)
        running = asyncio.ensure_future(server.run())
        await asyncio.sleep(0)
        client = Client(base)
        await client.connect("b", requests=True)
        running.cancel()
        await asyncio.wait([running])
        with pytest.raises(OSError):  # noqa: PT011 - refused or reset
            client.send(0xFFFF, 0, routed((1,), 1))
        client.close()
        assert subnet.port("b/1").smp_taker is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
async def test_another_user_is_not_heard() -> None:
    async with place() as here:
        program = (
            "import os, socket, sys\n"
            "control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            "control.bind(bytes.fromhex(sys.argv[1])); control.connect(bytes.fromhex(sys.argv[2]))\n"
            "os.setuid(int(sys.argv[4])); control.settimeout(1); control.send(bytes.fromhex(sys.argv[3]))\n"
            "print(len(control.recv(200)))\n"
        )
        base = here.server.base

        async def connect_as(uid: int, identifier: int) -> bytes:
            asked = ControlPacket(0, ControlKind.CONNECT, ConnectData(identifier, "a").encode()).encode()
            data = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            data.bind(client_data_name(base, identifier))
            words = [control_name(base, identifier).hex(), control_name(base).hex(), asked.hex(), str(uid)]
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
            )
            output, _ = await process.communicate()
            data.close()
            return output

        assert await connect_as(0, 7001) == b"80\n"
        assert await connect_as(65534, 7002) == b""
        assert here.server.refused == 1
