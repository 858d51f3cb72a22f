"""The host against a scripted target: what a good fabric never does, and exactly one completion in all of it."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from scripted import LINE, REJECTED, TARGET_GID, Target
from world import Io, read, submit, write

from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.core.recovery.remote_port import RemotePortState, RemotePortTimers
from srpha.core.seams import AddTargetError, DeviceState, InitiatorError
from srpha.embedded.initiator.device import ScsiDisk
from srpha.embedded.initiator.initiator import EmbeddedInitiator
from srpha.embedded.initiator.settings import InitiatorPort, InitiatorSettings
from srpha.embedded.rdma.rdma_port import CloseReason, CmRejectedError, CmTimeoutError, ConnectError, PortDownError
from srpha.wire.class_port_info import ClassPortInfo
from srpha.wire.identifiers import Gid
from srpha.wire.scsi.cdb import Op
from srpha.wire.scsi.status import HostByte, ScsiStatus
from srpha.wire.srp import CreditRequest, LoginReject, LoginResponse, Opcode, TargetLogout, TaskFunction, encode_event
from srpha.wire.srp_io import Response, encode_rsp

FAST = InitiatorSettings(timers=RemotePortTimers(2, 5, 30), queue_size=4)


@asynccontextmanager
async def host(
    target: Target, settings: InitiatorSettings = FAST, line: str = LINE
) -> AsyncIterator[tuple[EmbeddedInitiator, ScsiDisk]]:
    async with initiator(target, settings) as made:
        await made.add_target("mlx5_0/1", line)
        disk = made.devices()[0]
        assert isinstance(disk, ScsiDisk)
        yield made, disk


@asynccontextmanager
async def initiator(target: Target, settings: InitiatorSettings = FAST) -> AsyncIterator[EmbeddedInitiator]:
    made = EmbeddedInitiator({"mlx5_0/1": InitiatorPort(target, target)}, settings)  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made.run())
        await asyncio.sleep(0)
        yield made
        running.cancel()


def reject(reason: int, ari: bytes = b"", private_data: bytes = b"") -> CmRejectedError:
    return CmRejectedError(reason, ari, private_data.ljust(148, b"\0"))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (REJECTED, "max_it_iu_size"),
        (reject(28, b"", LoginReject(reason=0x00010006).encode()), "ACL"),
        (reject(28, b"", LoginReject(reason=0x00019999).encode()), "unknown reason"),
        (reject(28, b"", b"\xff" * 40), "not an SRP LOGIN_REJ"),
        (reject(10), "stale connection"),
        (reject(3), "ch_count"),
        (reject(99), "unknown reason"),
        (reject(24, b"short"), "redirect"),
        (CmTimeoutError("no answer to REQ"), "no answer"),
        (PortDownError("port is down"), "down"),
    ],
)
async def test_refused_logins_are_explained(error: ConnectError, text: str) -> None:
    target = Target()
    target.refuse = [error]  # type: ignore[list-item]
    async with initiator(target) as made:
        with pytest.raises(AddTargetError, match=text) as caught:
            await made.add_target("mlx5_0/1", LINE)
        assert caught.value.errno == errno.ECONNRESET
        assert not await made.connections()
        await made.add_target("mlx5_0/1", LINE)
        assert len(await made.connections()) == 1


@pytest.mark.parametrize(
    ("login", "text"),
    [
        (LoginResponse(limit_delta=0, max_it_iu_length=8260), "0 requests"),
        (LoginResponse(limit_delta=1, max_it_iu_length=8260), "1 requests"),
        (LoginResponse(limit_delta=0xFFFFFFFF, max_it_iu_length=8260), "requests"),
        (LoginResponse(limit_delta=9, max_it_iu_length=63), "63 bytes"),
        (LoginResponse(limit_delta=9, max_it_iu_length=64, buffer_formats=4), "direct"),
    ],
)
async def test_useless_login_responses_are_refused(login: LoginResponse, text: str) -> None:
    target = Target()
    target.login = login
    async with initiator(target) as made:
        with pytest.raises(AddTargetError, match=text):
            await made.add_target("mlx5_0/1", LINE)
        assert target.farewells == 1


async def test_sa_troubles_have_their_errno() -> None:
    target = Target()
    async with initiator(target) as made:
        for change, code in (
            ({"silent_sa": True}, errno.ETIMEDOUT),
            ({"silent_sa": False, "sa_status": 0x300}, errno.EINVAL),
            ({"sa_status": 0, "pkeys": (0x8001,)}, errno.ENOENT),
            ({"present": False}, errno.ENODEV),
        ):
            for name, value in change.items():
                setattr(target, name, value)
            with pytest.raises(AddTargetError) as caught:
                await made.add_target("mlx5_0/1", LINE)
            assert caught.value.errno == code
        assert made.ports() == ()


async def test_port_redirection_is_followed_and_shown() -> None:
    other = Gid(0xFE80 << 48, 0x77)
    target = Target()
    target.refuse = [reject(24, ClassPortInfo(redirect_gid=other).encode())]
    async with host(target) as (made, _):
        (connection,) = await made.connections()
        assert (connection.dgid, connection.orig_dgid) == (other, TARGET_GID)
    target = Target()
    target.refuse = [reject(25, other.packed)] * 9
    async with initiator(target) as made:
        with pytest.raises(AddTargetError, match="redirected"):
            await made.add_target("mlx5_0/1", LINE)


async def test_later_channels_that_fail_only_shrink_ch_count() -> None:
    target = Target()
    async with host(target, line=LINE + ",ch_count=3") as (made, _):
        assert (await made.connections())[0].ch_count == 3
    target = Target()

    async def connect(*args: object) -> object:
        if len(target.connections) == 2:
            raise reject(3)
        return await Target.connect(target, *args)  # type: ignore[arg-type]

    target.connect = connect  # type: ignore[assignment,method-assign]
    async with host(target, line=LINE + ",ch_count=3") as (made, _):
        assert (await made.connections())[0].ch_count == 2


async def test_unit_that_refuses_is_left_out_and_a_lost_transport_removes_the_host() -> None:
    target = Target((0, 1, 2))
    answers = Target._scan_answer

    def scan(command: object) -> bytes | None:
        lun = command.lun >> 48  # type: ignore[attr-defined]
        return b"nonsense" if lun == 1 and command.cdb[0] == Op.INQUIRY else answers(target, command)  # type: ignore

    target._scan_answer = scan  # type: ignore[method-assign]
    async with host(target) as (made, _):
        assert [d.hctl for d in made.devices()] == ["0:0:0:0", "0:0:0:2"]
    target = Target((0, 1))
    target.mute = {Op.SERVICE_ACTION_IN_16}
    async with initiator(target) as made:
        adding = asyncio.create_task(made.add_target("mlx5_0/1", LINE))
        await asyncio.sleep(1)
        target.connections[0].break_off()
        await adding
        assert [c.removing for c in await made.connections()] == [True]
        await asyncio.sleep(1)
        assert not await made.connections()


async def test_silent_unit_in_the_scan_is_aborted_and_left_out() -> None:
    target = Target()
    target.mute = {Op.SERVICE_ACTION_IN_16, Op.READ_CAPACITY_10}
    async with initiator(target) as made:
        await made.add_target("mlx5_0/1", LINE)
        assert made.devices() == ()
        assert len(await made.connections()) == 1
        assert {tmf.function for tmf in target.tmfs} == {TaskFunction.ABORT_TASK}


async def test_cancelled_login_leaves_nothing() -> None:
    target = Target()
    target.mute = {Op.INQUIRY}
    async with initiator(target) as made:
        adding = asyncio.create_task(made.add_target("mlx5_0/1", LINE))
        await asyncio.sleep(1)
        adding.cancel()
        await asyncio.sleep(1)
        assert adding.cancelled()
        assert not await made.connections()
        assert not target.connections[0].open


async def test_unknown_and_doubled_responses_complete_nothing() -> None:
    target = Target()
    async with host(target) as (_, disk):
        io = read(disk)
        await asyncio.sleep(0)
        connection, command = target.commands.pop()
        connection.deliver(encode_rsp(Response(0xDEAD)))
        connection.deliver(encode_rsp(Response(1 << 31 | 7)))
        assert not io.completions
        target.answer(connection, command)
        target.answer(connection, command)
        assert io.completions == 1
        assert disk.host.channels[0].unknown_tags == 2
        assert disk.state is DeviceState.RUNNING


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"\xc1",
        b"\xc1" + bytes(34),
        encode_rsp(Response(1, sense=b"x" * 18))[:-1],
        b"\xc1" + bytes(17) + b"\x02\x02" + bytes(8) + b"\xff" * 8,
        b"\xc1" + bytes(17) + b"\x0c" + bytes(17),
        b"\x42" + bytes(15),
        b"\x81",
        encode_event(1, 0, b"sense")[:-1],
        b"\xff" * 100,
    ],
    ids=range(10),
)
async def test_hostile_units_break_the_channel_and_nothing_else(hostile: bytes) -> None:
    target = Target()
    async with host(target) as (made, disk):
        io = read(disk)
        await asyncio.sleep(0)
        connection, _ = target.commands.pop()
        connection.deliver(hostile)
        assert disk.state is DeviceState.BLOCKED
        assert not target.regions.regions
        assert (await io.future).host_byte is HostByte.RESET
        assert (await made.connections())[0].state is RemotePortState.RUNNING
        assert io.completions == 1


async def test_responses_that_cannot_be_are_errors() -> None:
    target = Target()
    async with host(target) as (_, disk):
        for fields, host_byte in (
            ({"status": 0x77}, HostByte.ERROR),
            ({"in_residual": 99999}, HostByte.ERROR),
            ({"response_data": b"\0\0\0\2"}, HostByte.ERROR),
            ({"response_data": b"\0\0\0\0"}, HostByte.OK),
            ({"status": 8}, HostByte.OK),
        ):
            io = read(disk)
            await asyncio.sleep(0)
            target.answer(*target.commands.pop(), **fields)
            assert (await io.future).host_byte is host_byte
        assert io.command.status is ScsiStatus.BUSY


async def test_requests_of_the_target_are_answered_without_credit() -> None:
    target = Target()
    async with host(target) as (made, disk):
        before = (await made.connections())[0].req_lim
        (connection,) = target.connections
        connection.deliver(CreditRequest(tag=5, limit_delta=3).encode())
        connection.deliver(encode_event(6, 0, b"sense", 1))
        connection.deliver(TargetLogout(tag=7, reason=1).encode())
        assert [unit[0] for unit in connection.units[-2:]] == [Opcode.CRED_RSP, Opcode.AER_RSP]
        assert (await made.connections())[0].req_lim == before + 4
        assert disk.state is DeviceState.RUNNING


async def test_credits_run_out_and_one_is_kept_for_task_management() -> None:
    target = Target()
    target.login = LoginResponse(limit_delta=3, max_it_iu_length=8260, buffer_formats=6)
    async with host(target) as (made, disk):
        ios = [read(disk, timeout=600) for _ in range(5)]
        await asyncio.sleep(0)
        assert len(target.commands) == 2
        assert (await made.connections())[0].req_lim == 1
        for _ in ios:
            target.answer(*target.commands.pop(0))
            await asyncio.sleep(0)
        assert [io.completions for io in ios] == [1] * 5
        assert [io.command.host_byte for io in ios] == [HostByte.OK] * 5


async def test_target_that_gives_no_credits_back_is_reset() -> None:
    target = Target()
    target.login = LoginResponse(limit_delta=50, max_it_iu_length=8260, buffer_formats=6)
    async with host(target) as (made, disk):
        first = read(disk)
        await asyncio.sleep(0)
        target.answer(*target.commands.pop(), limit_delta=-60)
        assert (await first.future).status is ScsiStatus.GOOD
        stuck = read(disk, timeout=3)
        assert (await stuck.future).host_byte is HostByte.TIME_OUT
        assert not stuck.command.delivered
        assert (await made.connections())[0].zero_req_lim
        await asyncio.sleep(1)
        assert len(target.connections) == 2
        assert disk.state is DeviceState.RUNNING


async def test_commands_wait_their_turn_per_unit() -> None:
    target = Target((0, 1))
    async with host(target, line=LINE + ",max_cmd_per_lun=1") as (made, _):
        one, two = made.devices()
        ios = [read(one) for _ in range(3)] + [read(two)]  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert [command.lun >> 48 for _, command in target.commands] == [0, 1]
        while target.commands:
            target.answer(*target.commands.pop(0))
            await asyncio.sleep(0)
        assert [io.completions for io in ios] == [1] * 4


@pytest.mark.parametrize("write_size", [512, 16384])
async def test_data_out_is_immediate_when_short_and_memory_is_returned(write_size: int) -> None:
    target = Target()
    async with host(target) as (_, disk):
        io = write(disk, bytes(write_size))
        await asyncio.sleep(0)
        connection, command = target.commands.pop()
        assert bool(target.regions.regions) == (write_size > 8192)
        assert len(connection.units[-1]) == (68 + write_size if write_size <= 8192 else 64)
        target.answer(connection, command)
        assert io.completions == 1
        assert not target.regions.regions


async def test_long_cdb_goes_out_or_is_refused_by_the_units_length() -> None:
    target = Target()
    async with host(target, line=LINE + ",max_it_iu_size=64") as (_, disk):
        io = submit(disk, bytes(32))
        assert (await io.future).host_byte is HostByte.ERROR
    target = Target()
    async with host(target) as (_, disk):
        io = submit(disk, b"\x7f" + bytes(31), data_in=bytearray(8))
        await asyncio.sleep(0)
        connection, command = target.commands.pop()
        assert command.cdb == b"\x7f" + bytes(31)
        target.answer(connection, command)
        assert (await io.future).host_byte is HostByte.OK


async def test_lun_reset_holds_the_unit_and_finishes_its_commands() -> None:
    target = Target((0, 1))
    target.tmf_code = 5
    async with host(target) as (made, disk):
        ios = [read(disk, timeout=1), read(disk, timeout=50)]
        other = read(made.devices()[1], timeout=50)  # type: ignore[arg-type]

        def task_management(connection: object, message: bytes) -> None:
            if message[0] == Opcode.TSK_MGMT and message[30] == TaskFunction.LUN_RESET:
                target.tmf_code = None
            Target.received(target, connection, message)  # type: ignore[arg-type]

        target.received = task_management  # type: ignore[method-assign]
        await asyncio.sleep(2)
        held = read(disk, timeout=50)
        await asyncio.sleep(0.1)
        assert [tmf.function for tmf in target.tmfs] == [TaskFunction.ABORT_TASK, TaskFunction.LUN_RESET]
        assert len(target.commands) == 3
        target.connections[0].deliver(encode_rsp(Response(target.tmfs[-1].tag, limit_delta=3, response_data=bytes(4))))
        for io in ios:
            assert (await io.future).host_byte is HostByte.RESET
        await asyncio.sleep(0)
        assert len(target.commands) == 4
        for pending in target.commands:
            target.answer(*pending)
        assert [io.completions for io in (*ios, other, held)] == [1, 1, 1, 1]
        assert disk.host.channels[0].unknown_tags == 2


async def test_silent_target_is_reset_after_two_rungs() -> None:
    target = Target()
    target.tmf_code = None
    async with host(target) as (_, disk):
        io = read(disk, timeout=1)
        assert (await io.future).host_byte is HostByte.RESET
        assert 11 <= asyncio.get_running_loop().time() < 12
        assert len(target.connections) == 2


async def test_a_reconnect_whose_look_at_the_units_is_not_answered_fails() -> None:
    target = Target()
    async with host(target) as (made, disk):
        target.silence = True
        target.connections[0].break_off()
        await asyncio.sleep(6)
        assert disk.state is DeviceState.TRANSPORT_OFFLINE
        assert (await made.connections())[0].failed_reconnects == 0
        await asyncio.sleep(8)
        assert (await made.connections())[0].failed_reconnects == 1
        target.silence = False
        await asyncio.sleep(10)
        assert disk.state is DeviceState.RUNNING


async def test_unit_that_does_not_identify_itself_after_a_reconnect_is_offline() -> None:
    target = Target()
    async with host(target) as (_, disk):
        answers = target._scan_answer
        target._scan_answer = lambda command: b"bad" if command.cdb[0] == Op.INQUIRY else answers(command)  # type: ignore
        target.connections[0].break_off()
        await asyncio.sleep(3)
        assert disk.state is DeviceState.OFFLINE
        assert (await read(disk).future).host_byte is HostByte.NO_CONNECT
        target._scan_answer = answers  # type: ignore[method-assign]
        target.connections[-1].break_off()
        await asyncio.sleep(3)
        assert disk.state is DeviceState.RUNNING


async def test_pkey_that_goes_keeps_the_port_down_until_it_is_back() -> None:
    target = Target()
    async with host(target) as (made, disk):
        target.pkeys = (0, 0x8001)
        target.connections[0].break_off(CloseReason.RETRY_EXCEEDED)
        await asyncio.sleep(7)
        assert (await made.connections())[0].failed_reconnects == 3
        assert "P_Key ffff" in disk.host.last_error
        target.pkeys = (0x7FFF,)
        await asyncio.sleep(3)
        assert disk.state is DeviceState.RUNNING


async def test_flaps_during_removal_change_nothing() -> None:
    target = Target()
    async with host(target) as (made, disk):
        io = read(disk)
        await asyncio.sleep(0)
        await made.remove(0)
        for reason in CloseReason:
            target.connections[0].on_closed(reason)
        late = read(disk)
        await asyncio.sleep(0.01)
        assert [c.removing for c in await made.connections()] == [True]
        await asyncio.sleep(100)
        assert (io.completions, late.completions, target.farewells) == (1, 1, 1)
        assert io.command.host_byte is late.command.host_byte is HostByte.NO_CONNECT
        assert not await made.connections()
        assert len(target.connections) == 1


async def test_remove_while_reconnecting_and_timers_in_every_state() -> None:
    target = Target()
    async with host(target) as (made, disk):
        with pytest.raises(InitiatorError, match="host7"):
            await made.remove(7)
        for state in RemotePortState:
            connection = (await made.connections())[0]
            assert connection.state is state
            await made.set_timers(0, RemotePortTimers(1, 3, 20))
            assert (await made.connections())[0].timers == RemotePortTimers(1, 3, 20)
            if state is RemotePortState.RUNNING:
                target.login_takes = 100
                target.connections[0].break_off(CloseReason.PORT_DOWN)
            elif state is RemotePortState.BLOCKED:
                await asyncio.sleep(4)
            elif state is RemotePortState.FAIL_FAST:
                await made.remove(0)
        assert disk.state is DeviceState.DELETED
        await asyncio.sleep(200)
        assert len(target.connections) == 1, "the reconnect was cancelled"


@pytest.mark.parametrize("mode", RecoveryMode)
@pytest.mark.parametrize("chance", range(12))
async def test_exactly_one_completion_whatever_happens(mode: RecoveryMode, chance: int) -> None:
    rng = random.Random(f"{mode.value} {chance}")
    target = Target((0, 1))
    ios: list[Io] = []

    def sometimes(connection: object, command: object) -> None:
        fate = rng.random()
        loop = asyncio.get_running_loop()
        if fate < 0.1:
            return
        delay = rng.choice([0.0, 0.001, 0.5, 3.0])
        loop.call_later(delay, target.answer, connection, command)
        if fate < 0.2:
            loop.call_later(delay + rng.random(), target.answer, connection, command)

    target.io = sometimes  # type: ignore[assignment]
    settings = InitiatorSettings(mode=mode, timers=RemotePortTimers(2, 4, 20), queue_size=4, ch_count=2)
    async with initiator(target, settings) as made:
        known: list[ScsiDisk] = []
        made.watch_devices(lambda device, *, present: known.append(device) if present else None)  # type: ignore
        for _ in range(150):
            if not await made.connections():
                target.refuse.clear()
                target.silence = False
                try:
                    await made.add_target("mlx5_0/1", LINE)
                except AddTargetError:
                    await asyncio.sleep(1)
            for _ in range(rng.randrange(6)):
                disk = rng.choice(known)
                options = {"timeout": rng.choice([0.5, 2.0, 30.0]), "fail_fast": rng.random() < 0.5}
                ios.append(
                    read(disk, **options) if rng.random() < 0.5 else write(disk, bytes(512 * rng.choice([1, 32])))
                )
            match rng.randrange(14):
                case 0:
                    rng.choice(target.connections).break_off()
                case 1:
                    target.silence = not target.silence
                case 2:
                    target.refuse = [reject(10)] * rng.randrange(4)
                case 3:
                    rng.choice(target.connections).deliver(b"\xff")
                case 4:
                    target.tmf_code = rng.choice([0, 5, None])
                case 5:
                    target.login_takes = rng.choice([0.0, 0.5, 30.0])
                case 6 if rng.random() < 0.3:
                    for connection in await made.connections():
                        await made.remove(connection.host)
                case 7:
                    for connection in await made.connections():
                        await made.set_timers(
                            connection.host, RemotePortTimers(rng.choice([None, 1, 5]), rng.choice([0, 3]), 20)
                        )
            await asyncio.sleep(rng.choice([0, 0, 0.001, 0.3, 2.0, 7.0]))
            assert all(io.completions <= 1 for io in ios)
        target.silence = False
        for connection in await made.connections():
            await made.remove(connection.host)
        await asyncio.sleep(60)
        assert len(ios) > 100
        assert [io.completions for io in ios] == [1] * len(ios)
        assert not target.regions.regions
        assert made.devices() == ()
        assert not await made.connections()
        assert {unit.active for unit in known} == {0}
