"""A target in a few lines that does what the test says, good or bad: connections without a fabric, real SRP units."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from srpha.core.seams import LinkState, MadAddress, MadPortGoneError, MadTimeoutError, PortIdentity
from srpha.embedded.rdma.memory import RegionTable
from srpha.embedded.rdma.rdma_port import CloseReason, CmRejectedError, ConnectOptions
from srpha.wire.identifiers import Gid
from srpha.wire.sa import PathRecord, decode_record, sa_error, sa_response
from srpha.wire.scsi import vpd
from srpha.wire.scsi.capacity import ReadCapacity16, encode_report_luns
from srpha.wire.scsi.cdb import Op
from srpha.wire.scsi.inquiry import StandardInquiry
from srpha.wire.scsi.mode import encode_mode_sense
from srpha.wire.srp import (
    IMMEDIATE_REQUESTED,
    LoginReject,
    LoginResponse,
    Opcode,
    TaskManagement,
    decode_login_request,
)
from srpha.wire.srp_io import Command, Response, decode_cmd, encode_rsp

TARGET_GID = Gid(0xFE80 << 48, 0xBED)


class Connection:
    """One end of a connection as the initiator sees it; ``units`` has what it sent."""

    def __init__(self, target: Target, private_data: bytes) -> None:
        self.target = target
        self.private_data = private_data
        self.units: list[bytes] = []
        self.open = True
        self.on_receive: Callable[[bytes], None] = lambda message: None
        self.on_closed: Callable[[CloseReason], None] = lambda reason: None

    def send(self, message: bytes) -> None:
        if self.open:
            self.units.append(message)
            asyncio.get_running_loop().call_soon(self.target.received, self, message)

    def disconnect(self) -> None:
        self.open = False
        self.target.farewells += 1

    def destroy(self) -> None:
        self.open = False

    def deliver(self, message: bytes) -> None:
        if self.open:
            self.on_receive(message)

    def break_off(self, reason: CloseReason = CloseReason.DISCONNECTED) -> None:
        if self.open:
            self.open = False
            self.on_closed(reason)


class Target:
    """Mad port, verbs and target in one. By default it logs in, has one LUN and answers everything GOOD."""

    name = "mlx5_0/1"

    def __init__(self, luns: tuple[int, ...] = (0,)) -> None:
        self.luns = luns
        self.regions = RegionTable()
        self.register = self.regions.register
        self.deregister = self.regions.deregister
        self.connections: list[Connection] = []
        self.farewells = 0
        self.pkeys = (0xFFFF, 0)
        self.silent_sa = False
        self.sa_status = 0
        self.present = True
        self.login = LoginResponse(
            limit_delta=64, max_it_iu_length=8260, max_ti_iu_length=300, buffer_formats=6, flags=IMMEDIATE_REQUESTED
        )
        self.refuse: list[CmRejectedError] = []
        self.silence = False
        self.login_takes = 0.0
        self.mute: set[int] = set()
        """CDB operation codes that get no answer."""
        self.tmf_code: int | None = 0
        self.commands: list[tuple[Connection, Command]] = []
        self.tmfs: list[TaskManagement] = []
        self.io: Callable[[Connection, Command], None] | None = None

    # MadPort

    def identity(self) -> PortIdentity:
        if not self.present:
            raise MadPortGoneError("gone")
        return PortIdentity("mlx5_0", 1, 1, 2, Gid(0xFE80 << 48, 2), 3, 1, 0, LinkState.ACTIVE, self.pkeys)

    async def transact(self, _address: MadAddress, mad: bytes, *, timeout: float, retries: int) -> bytes:
        if self.silent_sa:
            await asyncio.sleep(timeout * (retries + 1))
            raise MadTimeoutError("silent")
        if self.sa_status:
            return sa_error(mad, self.sa_status)
        asked = decode_record(mad, PathRecord)
        return sa_response(mad, PathRecord(dgid=asked.dgid, sgid=asked.sgid, dlid=9, slid=3, pkey=asked.pkey))

    # RdmaPort

    async def connect(
        self, _path: PathRecord, _service_id: int, private_data: bytes, _options: ConnectOptions
    ) -> Connection:
        request = decode_login_request(private_data)
        if self.login_takes:
            await asyncio.sleep(self.login_takes)
        if self.refuse:
            raise self.refuse.pop(0)
        answer = LoginResponse(
            tag=request.tag,
            limit_delta=self.login.limit_delta,
            max_it_iu_length=self.login.max_it_iu_length,
            max_ti_iu_length=self.login.max_ti_iu_length,
            buffer_formats=self.login.buffer_formats,
            flags=self.login.flags,
        )
        connection = Connection(self, answer.encode().ljust(196, b"\0"))
        self.connections.append(connection)
        return connection

    # SRP

    def received(self, connection: Connection, message: bytes) -> None:
        if not connection.open or self.silence:
            return
        if message[0] == Opcode.TSK_MGMT:
            tmf = TaskManagement.decode(message)
            self.tmfs.append(tmf)
            if self.tmf_code is not None:
                data = bytes([0, 0, 0, self.tmf_code])
                connection.deliver(encode_rsp(Response(tmf.tag, limit_delta=1, response_data=data)))
        elif message[0] == Opcode.CMD:
            command = decode_cmd(message)
            if command.cdb[0] in self.mute:
                return
            answer = self._scan_answer(command)
            if answer is not None:
                self.answer(connection, command, answer)
            elif self.io is not None:
                self.io(connection, command)
            else:
                self.commands.append((connection, command))

    def answer(self, connection: Connection, command: Command, data: bytes = b"", **fields: object) -> None:
        if not connection.open:
            return
        short = 0
        if command.data_in is not None:
            (piece,) = command.data_in.descriptors
            region = self.regions.regions.get(piece.key)
            count = min(len(data), piece.length)
            short = piece.length - count if data else 0
            if region is not None:  # a real queue pair would refuse, so the script leaves the memory alone
                region.view[:count] = data[:count]
        response = Response(command.tag, **{"limit_delta": 1, "in_residual": short, **fields})  # type: ignore[arg-type]
        connection.deliver(encode_rsp(response))

    def _scan_answer(self, command: Command) -> bytes | None:
        block = command.cdb
        match block[0]:
            case Op.REPORT_LUNS:
                return encode_report_luns([lun.to_bytes(2, "big") + bytes(6) for lun in self.luns])
            case Op.INQUIRY if not block[1]:
                return StandardInquiry("V", "P", "1").encode()
            case Op.INQUIRY:
                pages = {
                    0x00: vpd.encode_supported_pages([0, 0x80, 0x83]),
                    0x80: vpd.encode_serial("serial"),
                    0x83: vpd.encode_identification(
                        [vpd.naa_designator(bytes([0x60]) + bytes(14) + bytes([command.lun >> 48 & 0xFF]))]
                    ),
                }
                return pages[block[2]]
            case Op.SERVICE_ACTION_IN_16:
                return ReadCapacity16(last_lba=99, block_length=512).encode()
            case Op.MODE_SENSE_6:
                return encode_mode_sense(b"")
        return None


LINE = f"id_ext=1,ioc_guid=2,dgid={TARGET_GID.hex()},pkey=ffff,service_id=3"
REJECTED = CmRejectedError(28, b"", LoginReject(reason=0x00010002).encode().ljust(148, b"\0"))
