from __future__ import annotations

import asyncio
import errno

import pytest
from world import read, world, write

from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.core.recovery.remote_port import RemotePortState, RemotePortTimers
from srpha.core.seams import AddTargetError, DeviceState
from srpha.embedded.initiator.settings import InitiatorSettings
from srpha.wire.scsi.status import HostByte, ScsiStatus

FAST = InitiatorSettings(
    timers=RemotePortTimers(reconnect_delay=2, fast_io_fail_tmo=5, dev_loss_tmo=30), max_cm_retries=1
)


async def test_login_scan_read_and_write() -> None:
    async with world(units=2) as w:
        disk = await w.login()
        assert [d.name for d in w.initiator.devices()] == ["sda", "sdb"]
        assert [d.dev_t for d in w.initiator.devices()] == ["8:0", "8:16"]
        assert [d.hctl for d in w.initiator.devices()] == ["0:0:0:0", "0:0:0:1"]
        assert disk.identity.blocks == 2048
        assert disk.identity.block_size == 512
        assert disk.identity.wwid.startswith("36")
        (connection,) = await w.initiator.connections()
        assert connection.state is RemotePortState.RUNNING
        assert connection.local_port == "mlx5_0/1"
        assert connection.dgid == connection.orig_dgid == w.subnet.port("b/1").gid
        assert connection.remote_port == "port-0:1"
        for size in (512, 4096, 65536):
            data = bytes(range(256)) * (size // 256)
            done = await write(disk, data, 16).future
            assert (done.host_byte, done.status) == (HostByte.OK, ScsiStatus.GOOD)
            done = await read(disk, 16, size // 512).future
            assert bytes(done.data_in or b"") == data
        rdma = disk.host.port.rdma
        assert not rdma._regions.regions


async def test_bad_lines_and_logins_are_refused_with_their_errno() -> None:
    async with world(FAST) as w:
        add = w.initiator.add_target

        async def errno_of(port: str, line: str, text: str) -> int:
            with pytest.raises(AddTargetError, match=text) as caught:
                await add(port, line)
            assert not await w.initiator.connections()
            return caught.value.errno

        assert await errno_of("mlx5_0/1", "nonsense=1", "unknown parameter") == errno.EINVAL
        assert await errno_of("mlx5_9/1", w.line(), "no such port") == errno.ENODEV
        assert await errno_of("mlx5_0/1", w.line(pkey="8001"), "P_Key 8001") == errno.ENOENT
        assert await errno_of("mlx5_0/1", w.line().replace(w.subnet.port("b/1").gid.hex(), "fe" + "80" * 15), "SA") > 0
        assert await errno_of("mlx5_0/1", w.line(",id_ext=1"), "SRP_LOGIN_REJ") == errno.ECONNRESET
        assert await errno_of("mlx5_0/1", w.line(",service_id=1"), "nothing listens") == errno.ECONNRESET
        assert await errno_of("mlx5_0/1", "id_ext=1,ioc_guid=2,dest=192.0.2.1:1", "no IP addresses") == errno.ENXIO
        w.target.disable_port(0)
        assert await errno_of("mlx5_0/1", w.line(), "insufficient resources") == errno.ECONNRESET
        w.target.crash()
        assert await errno_of("mlx5_0/1", w.line(), "to fe80") == errno.ECONNRESET


async def test_same_line_twice_is_eexist_until_the_host_is_gone() -> None:
    async with world(FAST) as w:
        await w.login()
        with pytest.raises(AddTargetError, match="initiator_ext") as caught:
            await w.login()
        assert caught.value.errno == errno.EEXIST
        await w.login("mlx5_0/2")
        await w.login("mlx5_0/1", ",initiator_ext=0002c90200402bed")
        assert [d.name for d in w.initiator.devices()] == ["sda", "sdb", "sdc"]
        await w.initiator.remove(0)
        await w.initiator.remove(0)
        first = (await w.initiator.connections())[0]
        assert first.removing
        assert first.state is RemotePortState.LOST
        assert first.devices == ()
        with pytest.raises(AddTargetError, match="being removed"):
            await w.login()
        await asyncio.sleep(FAST.removal_time + 0.01)
        disk = await w.login()
        assert (disk.name, disk.hctl) == ("sda", "3:0:0:0")
        assert w.seen == [("sda", True), ("sdb", True), ("sdc", True), ("sda", False), ("sda", True)]


async def test_link_down_blocks_then_fails_fast_then_recovers_in_place() -> None:
    async with world(FAST, service_time=0.5) as w:
        disk = await w.login()
        states: list[DeviceState] = []
        disk.watch_state(lambda: states.append(disk.state))
        patient, hasty = read(disk), read(disk, fail_fast=True)
        await asyncio.sleep(0.1)
        w.pull("a/1")
        await asyncio.sleep(0.1)
        assert disk.state is DeviceState.BLOCKED
        assert hasty.command.host_byte is HostByte.TRANSPORT_DISRUPTED
        assert hasty.command.delivered
        waiting, refused = read(disk), read(disk, fail_fast=True)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert refused.command.host_byte is HostByte.TRANSPORT_DISRUPTED
        assert not refused.command.delivered
        assert not patient.completions
        await asyncio.sleep(6)
        assert disk.state is DeviceState.TRANSPORT_OFFLINE
        assert (await w.initiator.connections())[0].state is RemotePortState.FAIL_FAST
        assert patient.command.host_byte is HostByte.TRANSPORT_FAILFAST
        assert waiting.command.host_byte is HostByte.TRANSPORT_FAILFAST
        assert not waiting.command.delivered
        w.plug("a/1")
        await asyncio.sleep(10)
        assert disk.state is DeviceState.RUNNING
        assert (await read(disk).future).status is ScsiStatus.GOOD
        assert [io.completions for io in (patient, hasty, waiting, refused)] == [1, 1, 1, 1]
        assert states == [DeviceState.BLOCKED, DeviceState.TRANSPORT_OFFLINE, DeviceState.RUNNING]
        (connection,) = await w.initiator.connections()
        assert (connection.host, connection.failed_reconnects) == (0, 0)


async def test_dev_loss_removes_the_host() -> None:
    async with world(FAST) as w:
        disk = await w.login()
        w.pull("a/1")
        await asyncio.sleep(31)
        assert not await w.initiator.connections()
        assert w.seen[-1] == ("sda", False)
        io = read(disk)
        assert (await io.future).host_byte is HostByte.NO_CONNECT


async def test_ofed_mode_removes_the_host_when_the_reset_fails() -> None:
    async with world(InitiatorSettings(mode=RecoveryMode.OFED, max_cm_retries=0), service_time=0.5) as w:
        disk = await w.login()
        io = read(disk)
        await asyncio.sleep(0.1)
        w.pull("a/1")
        assert (await io.future).host_byte is HostByte.NO_CONNECT
        await asyncio.sleep(0.1)
        assert not await w.initiator.connections()
        assert io.completions == 1


async def test_target_that_disconnects_is_logged_in_again() -> None:
    async with world(FAST, service_time=0.1) as w:
        disk = await w.login()
        io = read(disk)
        await asyncio.sleep(0.01)
        w.target.leave()
        w.target.join()
        assert (await io.future).host_byte is HostByte.RESET
        assert disk.state is DeviceState.RUNNING
        assert (await read(disk).future).status is ScsiStatus.GOOD


async def test_silent_target_ends_by_retries_and_remove_wins_over_reconnect() -> None:
    async with world(FAST, service_time=0.5) as w:
        disk = await w.login()
        w.target.crash()
        io = read(disk, timeout=30)
        await asyncio.sleep(25)
        assert disk.state is not DeviceState.RUNNING
        await w.initiator.remove(0)
        await asyncio.sleep(1)
        assert io.completions == 1
        assert not await w.initiator.connections()
        await asyncio.sleep(60)


async def test_timed_out_command_is_aborted() -> None:
    async with world(FAST, units=2) as w:
        await w.login()
        disk = w.initiator.devices()[0]
        hold = w.target.hold()
        io = write(disk, bytes(512), timeout=1.0)  # type: ignore[arg-type]
        assert (await io.future).host_byte is HostByte.ABORT
        assert asyncio.get_running_loop().time() > 1
        hold.release()
        assert (await read(disk).future).status is ScsiStatus.GOOD  # type: ignore[arg-type]
        assert io.completions == 1
        assert (await w.initiator.connections())[0].state is RemotePortState.RUNNING


async def test_another_unit_after_a_reconnect_shows_in_the_identity() -> None:
    async with world(FAST) as w:
        disk = await w.login()
        before = disk.identity
        w.pull("a/1")
        await asyncio.sleep(1)
        w.target.device.identify_unit(0, 6 << 124 | 5, "stranger")
        w.plug("a/1")
        await asyncio.sleep(8)
        assert disk.state is DeviceState.RUNNING
        assert disk.identity != before
        assert disk.identity.serial == "stranger"


async def test_fence_ends_the_old_nexus() -> None:
    settings = InitiatorSettings(timers=RemotePortTimers(None, 5, 300), max_cm_retries=1)
    async with world(settings) as w:
        one = await w.login("mlx5_0/1")
        two = await w.login("mlx5_0/2")
        hold = w.target.hold()
        ghost = write(one, b"\xff" * 512, fail_fast=True)
        await asyncio.sleep(0.1)
        assert len(hold) == 1
        w.pull("a/1")
        assert (await ghost.future).host_byte is HostByte.TRANSPORT_DISRUPTED
        assert not await w.initiator.fence(two.nexus, two)
        assert await w.initiator.fence(one.nexus, two)
        assert len(hold) == 0
        assert [s.initiator_port_id for s in w.target.sessions()][:1] == [two.nexus.initiator_port_id]
        hold.release()
        done = await read(two, 0, 1).future
        assert bytes(done.data_in or b"") == bytes(512)


async def test_crash_of_the_host_completes_everything() -> None:
    async with world(FAST, service_time=1) as w:
        disk = await w.login("mlx5_0/1")
        io = read(disk)
        await asyncio.sleep(0.01)
        w.running.cancel()
        assert (await io.future).host_byte is HostByte.NO_CONNECT
        assert not await w.initiator.connections()
        with pytest.raises(AddTargetError, match="does not run"):
            await w.login("mlx5_0/2")
