from __future__ import annotations

import asyncio
import errno

import pytest

from srpha.core.multipath.fencing import FencePolicy
from srpha.core.multipath.policy import NoPathRetry, SelectorKind
from srpha.core.seams import DeviceState
from srpha.embedded.multipath.device import BlockIo, BlockIoError, IoKind
from srpha.wire.scsi.sense import Asc, SenseKey
from srpha.wire.scsi.status import HostByte, ScsiStatus
from tests.embedded.multipath.fakes import BLOCK, Result, bench, check_condition, host_error, identity, pattern


async def test_what_is_written_is_read_over_both_paths() -> None:
    async with bench(path_selector=SelectorKind.ROUND_ROBIN) as world:
        a, b = world.path(1), world.path(2)
        device = world.manager.device("mpatha")
        for number in range(4):
            await device.write(number, pattern(number))
        assert [await device.read(number, 1) for number in range(4)] == [pattern(number) for number in range(4)]
        await device.flush()
        assert len(a.sent) + len(b.sent) == 9
        assert len(a.sent) in (4, 5)
        assert (device.counters.reads, device.counters.writes, device.counters.flushes) == (4, 4, 1)


async def test_cdbs_are_the_ones_of_sbc() -> None:
    async with bench() as world:
        a = world.path(1, who=identity(blocks=1 << 40))
        device = world.manager.device("mpatha")
        await device.read(0x01020304, 8)
        await device.write(0x0102030405, pattern(1, 2), fua=True)
        await device.flush()
        assert [command.cdb.hex() for command in a.sent] == [
            "28000102030400000800",
            "8a080000000102030405" + "00000002" + "0000",
            "35000000000000000000",
        ]
        assert all(command.fail_fast for command in a.sent)


async def test_long_transfers_are_split_and_joined() -> None:
    async with bench(max_io_bytes=4 * BLOCK) as world:
        a = world.path(1)
        device = world.manager.device("mpatha")
        data = b"".join(pattern(number) for number in range(10))
        await device.write(100, data)
        assert await device.read(100, 10) == data
        assert [len(command.data_out) // BLOCK for command in a.sent[:3]] == [4, 4, 2]


@pytest.mark.parametrize(("lba", "blocks"), [(-1, 1), (0, 0), (4096, 1), (4095, 2), (0, -1), (0, 100_000)])
async def test_reads_outside_the_device_are_refused_and_nothing_is_sent(lba: int, blocks: int) -> None:
    async with bench() as world:
        a = world.path(1)
        device = world.manager.device("mpatha")
        with pytest.raises(ValueError, match="4096"):
            await device.read(lba, blocks)
        with pytest.raises(ValueError, match="whole number"):
            await device.write(0, b"123")
        assert a.sent == []


async def test_an_io_under_way_is_not_taken_twice() -> None:
    async with bench() as world:
        world.path(1)
        device = world.manager.device("mpatha")
        done: list[BlockIo] = []
        io = BlockIo(IoKind.READ, done.append, lba=0, blocks=1)
        device.submit(io)
        with pytest.raises(ValueError, match="under way"):
            device.submit(io)
        assert done == []
        await asyncio.sleep(0.01)
        device.submit(io)
        await asyncio.sleep(0.01)
        assert done == [io, io]


async def test_a_path_error_moves_the_read_to_the_other_path_with_a_fresh_buffer() -> None:
    async with bench() as world:
        a, b = world.path(1), world.path(2)
        world.unit.blocks[5] = pattern(5)
        a.script = b.script = [host_error(HostByte.TRANSPORT_FAILFAST)]
        device = world.manager.device("mpatha")
        assert await device.read(5, 1) == pattern(5)
        first, second = (a.sent + b.sent) if a.sent[0].host_byte else (b.sent + a.sent)
        assert first.data_in is not second.data_in
        assert len(world.paths_in_use()) == 1
        assert world.manager.snapshot()[0].paths[0].fail_count + world.manager.snapshot()[0].paths[1].fail_count == 1


@pytest.mark.parametrize(
    ("result", "number"),
    [
        (check_condition(SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR), errno.ENODATA),
        (check_condition(SenseKey.ILLEGAL_REQUEST, Asc.LBA_OUT_OF_RANGE), errno.EREMOTEIO),
        (Result(ScsiStatus.RESERVATION_CONFLICT), errno.EBADE),
        (check_condition(SenseKey.DATA_PROTECT, Asc.SPACE_ALLOCATION_FAILED), errno.ENOSPC),
    ],
)
async def test_the_targets_own_errors_go_straight_up_and_the_path_stays(result: Result, number: int) -> None:
    async with bench() as world:
        a, b = world.path(1), world.path(2)
        a.script, b.script = [result], [result]
        with pytest.raises(BlockIoError) as caught:
            await world.manager.device("mpatha").read(7, 1)
        assert caught.value.errno == number
        assert "mpatha: read of 1 blocks at 7" in str(caught.value)
        assert len(a.sent) + len(b.sent) == 1
        assert world.paths_in_use() == ["sda", "sdb"]


async def test_unit_attentions_are_retried_on_the_same_path_but_not_for_ever() -> None:
    async with bench() as world:
        a = world.path(1)
        a.script = [check_condition(SenseKey.UNIT_ATTENTION, Asc.POWER_ON_OR_RESET)] * 5
        device = world.manager.device("mpatha")
        await device.read(0, 1)
        assert len(a.sent) == 6
        assert device.counters.resets == 5
        b = world.path(2)
        for path in (a, b):
            path.script = [check_condition(SenseKey.UNIT_ATTENTION, Asc.POWER_ON_OR_RESET)] * 6
        a.sent.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(device.read(0, 1), 0.05)
        assert (len(a.sent), len(b.sent)) == (6, 6)
        assert world.paths_in_use() == []


async def test_busy_is_asked_again_after_growing_pauses_without_blaming_the_path() -> None:
    async with bench() as world:
        a = world.path(1, latency=0.0)
        a.script = [Result(ScsiStatus.TASK_SET_FULL), Result(ScsiStatus.BUSY), Result(ScsiStatus.BUSY)]
        loop = asyncio.get_running_loop()
        before = loop.time()
        await world.manager.device("mpatha").read(0, 1)
        assert loop.time() - before == pytest.approx(0.01 + 0.02 + 0.04)
        assert world.paths_in_use() == ["sda"]


async def test_a_unit_that_is_becoming_ready_is_asked_again_after_a_second() -> None:
    async with bench() as world:
        a = world.path(1, latency=0.0)
        a.script = [check_condition(SenseKey.NOT_READY, Asc.BECOMING_READY)] * 2
        before = asyncio.get_running_loop().time()
        await world.manager.device("mpatha").read(0, 1)
        assert asyncio.get_running_loop().time() - before == pytest.approx(2.0)


async def test_a_write_that_was_delivered_waits_for_its_fence() -> None:
    async with bench() as world:
        a = world.path(1)
        a.stalled = True
        device = world.manager.device("mpatha")
        write = asyncio.ensure_future(device.write(3, pattern(1)))
        await asyncio.sleep(0.01)
        b = world.path(2)
        world.fencer.latency = 0.5
        a.set_state(DeviceState.BLOCKED)
        await asyncio.sleep(0.2)
        assert not write.done()
        assert (device.held, b.sent) == (1, [])
        await write
        assert [call[1:] for call in world.fencer.calls] == [(a.nexus, "sdb")]
        assert world.manager.fence_counters.released_fenced == 1
        await device.write(3, pattern(2))
        assert a.execute_late() == 0
        assert await device.read(3, 1) == pattern(2)


async def test_without_a_fence_a_ghost_write_overwrites_newer_data() -> None:
    async with bench(fence_policy=FencePolicy.UNSAFE) as world:
        a = world.path(1)
        a.stalled = True
        device = world.manager.device("mpatha")
        write = asyncio.ensure_future(device.write(3, pattern(1)))
        await asyncio.sleep(0.01)
        world.path(2)
        a.set_state(DeviceState.BLOCKED)
        await write
        await device.write(3, pattern(2))
        assert world.fencer.calls == []
        assert a.execute_late() == 1
        assert await device.read(3, 1) == pattern(1)


async def test_a_write_that_was_never_sent_is_reissued_at_once() -> None:
    async with bench() as world:
        a, b = world.path(1), world.path(2)
        a.script = b.script = [host_error(HostByte.TRANSPORT_DISRUPTED, delivered=False)]
        await world.manager.device("mpatha").write(0, pattern(1))
        assert world.fencer.calls == []
        assert world.unit.blocks[0] == pattern(1)


async def test_many_writes_share_one_fence() -> None:
    async with bench() as world:
        a = world.path(1)
        a.stalled = True
        device = world.manager.device("mpatha")
        writes = [asyncio.ensure_future(device.write(lba, pattern(lba))) for lba in range(20)]
        await asyncio.sleep(0.01)
        world.path(2)
        a.set_state(DeviceState.BLOCKED)
        await asyncio.gather(*writes)
        assert len(world.fencer.calls) == 1
        assert device.counters.held == 20


async def test_a_refused_fence_is_tried_through_other_paths() -> None:
    async with bench(fence_timeout=2.0) as world:
        a = world.path(1)
        a.stalled = True
        device = world.manager.device("mpatha")
        write = asyncio.ensure_future(device.write(0, pattern(1)))
        await asyncio.sleep(0.01)
        for host in (2, 3, 4):
            world.path(host)
        world.fencer.refuse = {"sdb"}
        world.fencer.hang = {"sdc"}
        a.set_state(DeviceState.BLOCKED)
        await write
        assert [call[2] for call in world.fencer.calls] == ["sdb", "sdc", "sdd"]
        assert world.manager.fence_counters.failed == 2


async def test_without_any_confirmation_the_quiesce_time_counts_from_giving_up() -> None:
    async with bench(quiesce_time=20.0) as world:
        a = world.path(1)
        a.stalled = True
        device = world.manager.device("mpatha")
        write = asyncio.ensure_future(device.write(0, pattern(1)))
        await asyncio.sleep(0.01)
        b = world.path(2)
        world.fencer.refuse = {"sdb"}
        loop = asyncio.get_running_loop()
        a.set_state(DeviceState.BLOCKED)
        before = loop.time()
        await write
        assert loop.time() - before == pytest.approx(20.0, abs=0.01)
        assert world.manager.fence_counters.released_quiesced == 1
        assert len(b.sent) == 1
        assert len(world.fencer.calls) > 1  # asked again meanwhile


async def test_a_new_login_of_the_nexus_is_as_good_as_a_fence() -> None:
    async with bench(quiesce_time=1000.0) as world:
        a = world.path(1)
        a.stalled = True
        device = world.manager.device("mpatha")
        write = asyncio.ensure_future(device.write(0, pattern(1)))
        await asyncio.sleep(0.01)
        a.set_state(DeviceState.BLOCKED)
        await asyncio.sleep(3.0)
        assert device.held == 1
        a.at_target.clear()
        a.stalled = False
        a.set_state(DeviceState.RUNNING)
        await asyncio.wait_for(write, 1.0)
        assert world.manager.fence_counters.released_renewed == 1
        assert world.fencer.calls == []


async def test_another_unit_on_the_same_host_is_no_new_login() -> None:
    async with bench(quiesce_time=50.0) as world:
        a = world.path(1)
        a.stalled = True
        device = world.manager.device("mpatha")
        write = asyncio.ensure_future(device.write(0, pattern(1)))
        await asyncio.sleep(0.01)
        a.set_state(DeviceState.BLOCKED)
        world.path(1, lun=1, who=identity(wwid="3600140500000000000000000000000b2"))
        assert len(world.manager.devices()) == 2
        await asyncio.sleep(10.0)
        assert not write.done()
        renewed = world.path(9, nexus=a.nexus)
        await asyncio.wait_for(write, 1.0)
        assert len(renewed.sent) == 1


async def test_a_late_answer_frees_a_held_write() -> None:
    async with bench() as world:
        a = world.path(1)
        a.stalled = True
        device = world.manager.device("mpatha")
        write = asyncio.ensure_future(device.write(0, pattern(1)))
        await asyncio.sleep(0.01)
        await world.manager.fail_path("sda")
        assert device.held == 1
        a.answer_late(a.sent[0])
        await write
        assert (device.held, len(a.sent), device.counters.late) == (0, 1, 0)
        a.answer_late(a.sent[0])
        assert device.counters.late == 1


async def test_reads_on_a_failed_path_go_on_at_once_and_late_data_are_ignored() -> None:
    async with bench() as world:
        a = world.path(1)
        a.stalled = True
        world.unit.blocks[0] = pattern(1)
        device = world.manager.device("mpatha")
        read = asyncio.ensure_future(device.read(0, 1))
        await asyncio.sleep(0.01)
        world.path(2)
        await world.manager.fail_path("sda")
        assert await asyncio.wait_for(read, 0.1) == pattern(1)
        world.unit.blocks[0] = pattern(2)
        a.answer_late(a.sent[0])
        assert device.counters.late == 1
        assert read.result() == pattern(1)


async def test_a_command_answered_twice_counts_once() -> None:
    async with bench() as world:
        a = world.path(1)
        a.script = [Result(execute=True, twice=True)] * 3
        device = world.manager.device("mpatha")
        done: list[BlockIo] = []
        for lba in range(3):
            device.submit(BlockIo(IoKind.READ, done.append, lba=lba, blocks=1))
        await asyncio.sleep(0.1)
        assert len(done) == 3
        assert device.counters.late == 3
        assert [(path.in_flight, path.in_flight_bytes) for path in device.state.paths] == [(0, 0)]


async def test_io_queues_without_a_path_and_resumes_in_order() -> None:
    async with bench(no_path_retry=NoPathRetry.QUEUE) as world:
        a = world.path(1)
        device = world.manager.device("mpatha")
        await asyncio.sleep(1)
        a.set_state(DeviceState.TRANSPORT_OFFLINE)
        done: list[int] = []
        for lba in range(5):
            device.submit(BlockIo(IoKind.READ, lambda io: done.append(io.lba), lba=lba, blocks=1))
        await asyncio.sleep(1000)
        assert (device.queued, done) == (5, [])
        assert world.manager.snapshot()[0].queued == 5
        assert world.manager.snapshot()[0].queueing
        a.set_state(DeviceState.RUNNING)
        await asyncio.sleep(0.1)
        assert done == [0, 1, 2, 3, 4]
        assert [lba for _, what, lba in world.unit.log if what == "read"] == [0, 1, 2, 3, 4]


async def test_no_path_retry_fails_queued_io_after_its_checks_and_later_io_at_once() -> None:
    async with bench(no_path_retry=3, polling_interval=5.0) as world:
        a = world.path(1)
        device = world.manager.device("mpatha")
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        a.set_state(DeviceState.TRANSPORT_OFFLINE)
        before = loop.time()
        with pytest.raises(BlockIoError) as caught:
            await device.read(0, 1)
        assert loop.time() - before == pytest.approx(15.0)
        assert caught.value.errno == errno.EIO
        assert not world.manager.snapshot()[0].queueing
        with pytest.raises(BlockIoError):
            await asyncio.wait_for(device.read(0, 1), 0.01)
        a.set_state(DeviceState.RUNNING)
        await asyncio.sleep(0.1)
        await device.read(0, 1)
        assert world.manager.snapshot()[0].queueing


async def test_with_no_path_retry_fail_the_original_error_goes_up() -> None:
    async with bench(no_path_retry=NoPathRetry.FAIL) as world:
        a = world.path(1)
        a.script = [host_error(HostByte.TRANSPORT_FAILFAST, delivered=True)]
        device = world.manager.device("mpatha")
        with pytest.raises(BlockIoError) as caught:
            await device.write(0, pattern(0))
        assert caught.value.errno == errno.ENOLINK
        assert device.held == 0


async def test_a_blocked_last_path_gets_patience_even_when_io_is_not_to_queue() -> None:
    async with bench(no_path_retry=NoPathRetry.FAIL) as world:
        a = world.path(1)
        device = world.manager.device("mpatha")
        await asyncio.sleep(1)
        a.set_state(DeviceState.BLOCKED)
        read = asyncio.ensure_future(device.read(0, 1))
        await asyncio.sleep(10)
        assert not read.done()
        a.set_state(DeviceState.RUNNING)
        assert await read == bytes(BLOCK)
        a.set_state(DeviceState.BLOCKED)
        read = asyncio.ensure_future(device.read(0, 1))
        await asyncio.sleep(1)
        a.set_state(DeviceState.TRANSPORT_OFFLINE)
        with pytest.raises(BlockIoError):
            await read


async def test_a_short_read_is_no_success() -> None:
    async with bench() as world:
        a = world.path(1)
        world.unit.blocks[0] = pattern(1)
        a.script = [Result(residual=100)]
        device = world.manager.device("mpatha")
        assert await device.read(0, 1) == pattern(1)
        assert len(a.sent) == 2


async def test_commands_that_a_stopped_device_keeps_are_given_up() -> None:
    async with bench(give_up_delay=0.25) as world:
        a = world.path(1)
        a.stalled = True
        device = world.manager.device("mpatha")
        read = asyncio.ensure_future(device.read(0, 1))
        await asyncio.sleep(0.01)
        world.path(2)
        a.out.clear()  # the device forgets to complete it
        loop = asyncio.get_running_loop()
        before = loop.time()
        a.set_state(DeviceState.BLOCKED)
        await read
        assert loop.time() - before == pytest.approx(0.25, abs=0.01)
        assert device.counters.given_up == 1
