"""A target on a real embedded fabric, and an initiator that says exactly the bytes a test wants it to say.

Host ``a`` and target ``b`` have two HCA ports each on one switch; LIDs and routes are set by hand.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from srpha.embedded.mads.gsi import GeneralServices
from srpha.embedded.rdma.cm_connect import CmRejectedError, ConnectOptions
from srpha.embedded.rdma.rc_connection import RcConnection
from srpha.embedded.rdma.rc_outcome import CloseReason
from srpha.embedded.rdma.rdma_port import RdmaPort
from srpha.embedded.target.hold import Hold
from srpha.embedded.target.spec import TargetSpec
from srpha.embedded.target.srp_target import SrpTarget
from srpha.embedded.target.transport import Attachment
from srpha.wire.sa import PathRecord
from srpha.wire.srp import (
    LoginReject,
    LoginRequest,
    TaskManagement,
    decode_login_reject,
    decode_login_response,
)
from srpha.wire.srp_io import (
    Command,
    DataBuffer,
    MemoryDescriptor,
    Response,
    decode_rsp,
    direct_buffer,
    encode_cmd,
    indirect_buffer,
)
from tests.embedded.fabric.by_hand import configure, make_fabric
from tests.embedded.target.conftest import INITIATOR, make_spec

FABRIC = """\
Switch 8 "switch"
[1] "a"[1]
[2] "a"[2]
[3] "b"[1]
[4] "b"[2]

Hca 2 "a"
Hca 2 "b"
"""
TUR = bytes(16)


class Session:
    """One channel of the initiator: what came in, and ways to say something."""

    def __init__(self, rdma: RdmaPort, connection: RcConnection) -> None:
        self.rdma = rdma
        self.connection = connection
        self.login = decode_login_response(connection.private_data)
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.closed: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()
        self._tag = 100
        connection.on_receive = self.inbox.put_nowait
        connection.on_closed = self._on_closed

    def _on_closed(self, reason: CloseReason) -> None:
        self.closed.set_result(reason)

    def send(self, iu: bytes) -> None:
        self.connection.send(iu)

    async def receive(self) -> bytes:
        return bytes(await self.inbox.get())

    async def response(self) -> Response:
        return decode_rsp(await self.receive())

    def tag(self) -> int:
        self._tag += 1
        return self._tag

    def buffer(self, data: bytes | bytearray) -> DataBuffer:
        """Memory of ours as a direct data buffer."""
        region = self.rdma.register(data)
        return direct_buffer(region.address, region.rkey, region.length)

    def pieces(self, parts: list[bytearray]) -> tuple[MemoryDescriptor, ...]:
        regions = [self.rdma.register(part) for part in parts]
        return tuple(MemoryDescriptor(region.address, region.rkey, region.length) for region in regions)

    def table(self, parts: list[bytearray], listed: int) -> DataBuffer:
        """An indirect data buffer of which ``listed`` descriptors are in the IU and all in a table of ours."""
        pieces = self.pieces(parts)
        table = self.rdma.register(
            b"".join(
                piece.address.to_bytes(8, "big") + piece.key.to_bytes(4, "big") + piece.length.to_bytes(4, "big")
                for piece in pieces
            )
        )
        whole = indirect_buffer(pieces, table.address, table.rkey)
        return replace(whole, descriptors=pieces[:listed])

    def start(
        self,
        cdb: bytes | str,
        *,
        data_out: DataBuffer | None = None,
        data_in: DataBuffer | None = None,
        lun: int = 0,
        tag: int | None = None,
    ) -> int:
        """Send a command and give its tag."""
        used = self.tag() if tag is None else tag
        command = bytes.fromhex(cdb) if isinstance(cdb, str) else cdb
        self.send(encode_cmd(Command(used, lun << 48, command.ljust(16, b"\0"), data_out, data_in)))
        return used

    async def run(self, cdb: bytes | str, **parts: Any) -> Response:
        """Run one command with nothing else in flight."""
        tag = self.start(cdb, **parts)
        response = await self.response()
        assert response.tag == tag
        return response

    async def read(self, cdb: bytes | str, length: int, lun: int = 0) -> tuple[Response, bytes]:
        memory = bytearray(length)
        response = await self.run(cdb, data_in=self.buffer(memory), lun=lun)
        return response, bytes(memory)

    async def clear_attentions(self) -> None:
        """Hear of the power on, so that commands of the test come first."""
        for lun in (0, 3):
            assert (await self.run(TUR, lun=lun)).status == 2

    def manage(self, function: int, *, lun: int = 0, task_tag: int = 0) -> int:
        tag = self.tag()
        self.send(TaskManagement(tag=tag, lun=lun << 48, function=function, task_tag=task_tag).encode())
        return tag


class Bench:
    """The fabric, both hosts' ports, and a target that has joined."""

    def __init__(self, spec: TargetSpec | None = None) -> None:
        self.fabric = make_fabric(FABRIC)
        configure(self.fabric)
        self.ports = {name: self.fabric.nodes[name].ports for name in ("a", "b")}
        self.gsi = {name: [GeneralServices(port) for port in ports] for name, ports in self.ports.items()}
        self.rdma = {
            name: [RdmaPort(port, gsi) for port, gsi in zip(ports, self.gsi[name], strict=True)]
            for name, ports in self.ports.items()
        }
        self.spec = spec or make_spec()
        self.target = SrpTarget(
            self.spec,
            [
                Attachment(rdma, gsi, port)
                for rdma, gsi, port in zip(self.rdma["b"], self.gsi["b"], self.ports["b"], strict=True)
            ],
        )
        self.target.join()

    def request(self, *, controller: int = 0, initiator: bytes = INITIATOR, **changes: Any) -> LoginRequest:
        values: dict[str, Any] = {
            "tag": 0x1122334455667788,
            "requested_it_iu_length": 2116,
            "initiator_port_id": initiator,
            "target_port_id": self.spec.iocs[controller].target_port_id,
        }
        return LoginRequest(**{**values, **changes})

    async def connect(
        self, private_data: bytes, *, host_port: int = 0, target_port: int = 0, controller: int = 0, retries: int = 1
    ) -> RcConnection:
        source, dest = self.ports["a"][host_port], self.ports["b"][target_port]
        path = PathRecord(
            slid=source.lid, dlid=dest.lid, sgid=source.gid, dgid=dest.gid, pkey=0xFFFF, mtu=5, packet_life=10
        )
        options = ConnectOptions(max_cm_retries=retries, cm_response_timeout=14)
        service = self.spec.iocs[controller].service_id
        return await self.rdma["a"][host_port].connect(path, service, private_data, options)

    async def login(
        self, *, host_port: int = 0, target_port: int = 0, controller: int = 0, ready: bool = False, **changes: Any
    ) -> Session:
        """Log in; with ``ready`` the attentions of the first login are out of the way."""
        login = self.request(controller=controller, **changes)
        connection = await self.connect(
            login.encode(), host_port=host_port, target_port=target_port, controller=controller
        )
        session = Session(self.rdma["a"][host_port], connection)
        if ready:
            await session.clear_attentions()
        return session

    async def refused(self, private_data: bytes | None = None, **changes: Any) -> LoginReject:
        """The LOGIN_REJ of a login that must fail."""
        places = {key: changes.pop(key) for key in ("host_port", "target_port", "controller") if key in changes}
        if private_data is None:
            private_data = self.request(controller=places.get("controller", 0), **changes).encode()
        with pytest.raises(CmRejectedError) as caught:
            await self.connect(private_data, **places)
        assert caught.value.reason == 28
        return decode_login_reject(caught.value.private_data)


async def held(hold: Hold, count: int) -> None:
    """Wait until ``hold`` keeps ``count`` commands."""
    while len(hold) < count:  # noqa: ASYNC110 - a hold tells nobody, and time is virtual
        await asyncio.sleep(0.001)
