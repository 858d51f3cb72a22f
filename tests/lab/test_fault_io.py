"""All paths lost, and ghost writes: what I/O itself may and may not see."""

from __future__ import annotations

import asyncio

import pytest
from stage import Stage, staged

from srpha.core.multipath.fencing import FencePolicy
from srpha.core.multipath.policy import NoPathRetry
from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.embedded.multipath.io import BlockIoError
from srpha.embedded.multipath.settings import MultipathSettings
from srpha.embedded.target.hold import HoldScope

MODES = pytest.mark.parametrize("mode", list(RecoveryMode), ids=lambda mode: mode.value)
CABLES = ("host1-a/1", "host1-b/1")


async def pull_all(stage: Stage) -> float:
    """Pull both cables of the host; the time when the last path was gone."""
    for cable in CABLES:
        stage.fault(f"link-down {cable}")
    await stage.until(lambda: not stage.usable(), step=0.0001)
    return stage.now


# --- no path ---


@MODES
@pytest.mark.parametrize("seconds", [0.02, 2.0, 40.0])
async def test_all_paths_lost_and_returned(mode: RecoveryMode, seconds: float) -> None:
    """I/O waits, and every I/O that waited completes once."""
    async with staged(mode) as stage:
        await pull_all(stage)
        await stage.quiet(seconds)
        for cable in CABLES:
            stage.fault(f"link-up {cable}")
        await stage.original(200)
        assert stage.io.max_stall > seconds * 0.9


@MODES
@pytest.mark.parametrize("intervals", [1, 3])
async def test_wait_without_a_path_ends_when_told_and_not_earlier(mode: RecoveryMode, intervals: int) -> None:
    settings = MultipathSettings(no_path_retry=intervals, polling_interval=4.0)
    async with staged(mode, load=None, multipath=settings) as stage:
        device = stage.multipath.device("mpatha")
        await device.write(0, b"kept".ljust(512, b"."))
        # A blocked remote port is still waited for: the count begins with the last path's fast_io_fail_tmo of 1 s.
        gone = await pull_all(stage) + (1.0 if mode is RecoveryMode.KERNEL else 0.0)
        early = asyncio.ensure_future(device.read(0, 1))
        await asyncio.sleep(intervals * 4.0 - 0.01 - (stage.now - gone))
        late = asyncio.ensure_future(device.write(8, bytes(512)))
        assert not early.done()
        assert next(item for item in stage.maps() if item.name == "mpatha").queueing
        ends: list[float] = []
        for task in (early, late):
            task.add_done_callback(lambda _: ends.append(stage.now))
        await asyncio.wait([early, late])
        assert [round(end - gone, 3) for end in ends] == [intervals * 4.0] * 2
        for task in (early, late):
            assert isinstance(task.exception(), BlockIoError)
        # From now on errors come at once; a path that returns ends that.
        start = stage.now
        with pytest.raises(BlockIoError, match="no path"):
            await device.read(0, 1)
        assert stage.now == start
        for cable in CABLES:
            stage.fault(f"link-up {cable}")
        await stage.original(200)
        assert (await device.read(0, 1)).startswith(b"kept")


@MODES
async def test_wait_without_end(mode: RecoveryMode) -> None:
    settings = MultipathSettings(no_path_retry=NoPathRetry.QUEUE)
    async with staged(mode, load=None, multipath=settings) as stage:
        await pull_all(stage)
        read = asyncio.ensure_future(stage.multipath.device("mpatha").read(0, 1))
        await asyncio.sleep(900)
        assert not read.done()
        for cable in CABLES:
            stage.fault(f"link-up {cable}")
        assert await read == bytes(512)
        await stage.original(200)


@MODES
async def test_no_wait_at_all(mode: RecoveryMode) -> None:
    settings = MultipathSettings(no_path_retry=NoPathRetry.FAIL)
    async with staged(mode, load=None, multipath=settings) as stage:
        await pull_all(stage)
        with pytest.raises(BlockIoError, match="no path"):
            await stage.multipath.device("mpatha").read(0, 1)
        for cable in CABLES:
            stage.fault(f"link-up {cable}")
        await stage.original()


@MODES
async def test_one_of_two_waits_is_enough(mode: RecoveryMode) -> None:
    """With one cable in, nothing ever waits for the one that is out."""
    async with staged(mode) as stage:
        stage.fault(f"link-down {CABLES[0]}")
        await stage.quiet(3.0)
        stage.fault(f"link-down {CABLES[1]}")
        await stage.quiet(1.0)
        stage.fault(f"link-up {CABLES[0]}")
        await stage.until(lambda: len(stage.usable()) == 6)
        stage.fault(f"link-up {CABLES[1]}")
        await stage.original()


# --- ghost writes ---

OLD, NEW = b"first".ljust(512, b"1"), b"second".ljust(512, b"2")


async def ghost(stage: Stage, kind: str) -> tuple[bytes, bytes]:
    """Write OLD over a path that dies silently with the command under way, then NEW to the same block.

    The first copy of OLD comes to life at the very end. Gives what is read before and after that.
    """
    device = stage.multipath.device("mpatha")
    target = stage.target("array1")
    path = stage.usable("mpatha")[0]
    port = "host1-a/1" if path.host in await stage.hosts_of(sgid=stage.guid("host1-a/1")) else "host1-b/1"
    behind = await stage.hosts_of(sgid=stage.guid(port))
    slots = {slot.device.hctl: slot.device for slot in device.state.paths}
    nexus = slots[path.hctl].nexus
    hold = target.hold(HoldScope(lun=0, initiator_port_id=nexus.initiator_port_id, writes_only=True))
    for other in stage.usable("mpatha")[1:]:
        await stage.multipath.fail_path(other.device)
    if kind == "late delivery":
        hold.release()
        stage.fault(f"delay {port} 20.0 tx rc")
    first = asyncio.ensure_future(device.write(0, OLD))
    await asyncio.sleep(0.01)
    sent = stage.now
    if kind == "held in the target":
        assert len(hold) == 1
    stage.fault(f"lose {port}")
    for hctl, one in slots.items():
        if int(hctl.partition(":")[0]) not in behind:
            await stage.multipath.reinstate_path(one.name)
    await first
    assert stage.now - sent > 0.1
    await device.write(0, NEW)
    before = await device.read(0, 1)
    if kind == "held in the target":
        hold.release()
    else:
        await asyncio.sleep(25.0)
    after = await device.read(0, 1)
    stage.fault(f"mend {port}")
    await stage.original(200)
    return before, after


@MODES
@pytest.mark.parametrize("kind", ["held in the target", "late delivery"])
async def test_ghost_write_is_fenced(mode: RecoveryMode, kind: str) -> None:
    async with staged(mode, load=None) as stage:
        assert await ghost(stage, kind) == (NEW, NEW)
        counters = stage.multipath.fence_counters
        assert counters.released_fenced + counters.released_renewed >= 1
        assert counters.released_quiesced == 0


@MODES
@pytest.mark.parametrize("kind", ["held in the target", "late delivery"])
async def test_ghost_write_without_a_fence_loses_data(mode: RecoveryMode, kind: str) -> None:
    """The planted fault: dm-multipath's way of resending at once lets the dead path overwrite newer data."""
    settings = MultipathSettings(fence_policy=FencePolicy.UNSAFE)
    async with staged(mode, load=None, multipath=settings) as stage:
        assert await ghost(stage, kind) == (NEW, OLD)
