"""Faults of targets and logical units under verified I/O: what each one comes to."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from stage import LIGHT, staged

from srpha.core.connections.pairs import PairStatus
from srpha.core.events import EventKind
from srpha.core.original_state import differences
from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.core.recovery.remote_port import RemotePortState
from srpha.embedded.multipath.io import BlockIoError
from srpha.embedded.multipath.settings import MultipathSettings
from srpha.embedded.target.spec import UnitSpec
from srpha.embedded.worldspec import WorldSpec
from srpha.wire.cm_reject import RejectReason
from srpha.wire.srp import LoginRejectReason

MODES = pytest.mark.parametrize("mode", list(RecoveryMode), ids=lambda mode: mode.value)


def slow_units(seconds: float) -> WorldSpec:
    """The demo's world with units that take their time, so that commands are in progress at any moment."""
    spec = WorldSpec.demo()
    targets = tuple(
        replace(plan, units=tuple(replace(unit, service_time=seconds) for unit in plan.units)) for plan in spec.targets
    )
    return replace(spec, targets=targets)


# --- targets ---


@MODES
async def test_crash_and_restart(mode: RecoveryMode) -> None:
    """The target's ports stay up and nobody answers: I/O waits, and goes on when it is back. Acknowledged data stay."""
    async with staged(mode) as stage:
        stage.fault("target-crash array1")
        await stage.until(lambda: not stage.usable("mpatha") and not stage.usable("mpathb"))
        assert len(stage.usable("mpathc")) == 4
        await stage.quiet(5.0)
        stage.fault("target-restart array1")
        await stage.original()
        device = stage.multipath.device("mpatha")
        assert device.counters.errors == 0
        assert device.counters.queued > 0


@MODES
@pytest.mark.parametrize("down", [0.05, 1.0, 20.0])
async def test_crash_while_writes_are_in_flight(mode: RecoveryMode, down: float) -> None:
    """Writes that were in the target are lost with it, and repeated: neither lost for the user nor done twice."""
    load = replace(LIGHT, workers=4, read_share=0.1, mean_pause=0.0)
    async with staged(mode, spec=slow_units(0.02), load=load) as stage:
        assert sum(session.in_progress for session in stage.target("array1").sessions()) > 0
        await stage.outage(down, "target-crash array1", "target-restart array1")
        await stage.original(180)


@MODES
async def test_both_targets_crash(mode: RecoveryMode) -> None:
    async with staged(mode) as stage:
        stage.fault("target-crash array1", "target-crash array2")
        await stage.until(lambda: not stage.usable())
        await stage.quiet(3.0)
        stage.fault("target-restart array2")
        await stage.until(lambda: len(stage.usable("mpathc")) == 4)
        stage.fault("target-restart array1")
        await stage.original()


@MODES
async def test_target_leaves_and_joins(mode: RecoveryMode) -> None:
    async with staged(mode) as stage:
        stage.fault("target-leave array2")
        await stage.until(lambda: not stage.usable("mpathc"), 5)
        assert len(stage.usable("mpatha")) == 4
        await stage.quiet(3.0)
        stage.fault("target-join array2")
        await stage.original()


@MODES
async def test_late_target_is_connected_from_every_port(mode: RecoveryMode) -> None:
    async with staged(mode) as stage:
        stage.fault("target-join array3")
        assert await stage.complete(3) < 2.0
        assert len(stage.usable("mpathd")) == 4


@MODES
async def test_late_target_leaves_at_once_and_comes_again(mode: RecoveryMode) -> None:
    async with staged(mode) as stage:
        stage.fault("target-join array3")
        await asyncio.sleep(0.01)
        stage.fault("target-leave array3")
        await stage.quiet(1.0)
        stage.fault("target-join array3")
        await stage.complete(3)


# --- logins ---


@MODES
async def test_target_port_disabled_and_enabled(mode: RecoveryMode) -> None:
    """Its channels end and logins are refused, with LIO's reason told; the other port carries all I/O meanwhile."""
    async with staged(mode) as stage:
        stage.target("array1").disable_port(0)
        await stage.until(lambda: len(stage.usable("mpatha")) == 2)
        await stage.quiet(8.0)
        if mode is RecoveryMode.OFED:
            assert any("insufficient resources" in text for text in stage.events(EventKind.CONNECT_FAILED))
        stage.target("array1").enable_port(0)
        await stage.original(180)


REJECTS = [
    *LoginRejectReason,
    RejectReason.NO_QP,
    RejectReason.NO_RESOURCES,
    RejectReason.TIMEOUT,
    RejectReason.INVALID_SERVICE_ID,
    RejectReason.STALE_CONNECTION,
    RejectReason.INVALID_MTU,
    RejectReason.CONSUMER_DEFINED,
]


@MODES
@pytest.mark.parametrize("reason", REJECTS, ids=lambda reason: reason.name)
async def test_rejected_login_is_tried_again(mode: RecoveryMode, reason: LoginRejectReason | RejectReason) -> None:
    """Every reason is told to the operator in words; the next attempts succeed."""
    async with staged(mode, load=None) as stage:
        stage.target("array1").refuse_logins(reason, 4)
        await stage.outage(0.3, "link-down array1/1", "link-up array1/1")
        # The far end of the cable notices nothing until it asks.
        await stage.until(lambda: bool(stage.events(EventKind.CONNECTION_STATE, EventKind.CONNECTION_REMOVED)))
        await stage.original()
        if mode is RecoveryMode.OFED and reason is not RejectReason.STALE_CONNECTION:
            told = stage.events(EventKind.CONNECT_FAILED)
            assert any(reason.text in text for text in told), told


# --- logical units ---


@MODES
async def test_path_that_leads_to_another_unit_is_kept_out(mode: RecoveryMode) -> None:
    """A cable swap: behind the path that returns there is another disk. Nothing is ever written to it.

    Kernel: the old device answers, and is kept out of its map. OFED: the new host's device becomes a map of its own
    (without load here: the test's "other disk" has the same blocks).
    """
    async with staged(mode, load=LIGHT if mode is RecoveryMode.KERNEL else None) as stage:
        target = stage.target("array1")
        unit = target.device.units[0]
        naa, serial = unit.naa, unit.serial
        stage.fault("link-down host1-a/1")
        await stage.until(lambda: len(stage.usable("mpatha")) == 2)
        foreign = stage.target("array2").device.units[0]
        # Not announced: the paths that are up keep their unit, as they lead through another place in the story.
        unit.naa, unit.serial = foreign.naa + 1, "SWAPPED"
        stage.fault("link-up host1-a/1")
        await stage.until(lambda: len(stage.usable("mpathc")) == 4)
        await stage.quiet(8.0)
        back = await stage.hosts_of(sgid=stage.guid("host1-a/1"))
        assert not back & {path.host for path in stage.usable("mpatha")}
        if mode is RecoveryMode.KERNEL:
            assert [item.map_name for item in stage.multipath.kept_out()] == ["mpatha"] * 2
        else:
            assert back >= {path.host for path in stage.usable("mpathd")} != set()
        unit.naa, unit.serial = naa, serial
        stage.fault("link-down host1-a/1")
        await stage.quiet(2.0)
        stage.fault("link-up host1-a/1")
        await stage.until(lambda: len(stage.usable("mpatha")) == 4)


@MODES
async def test_unit_that_says_it_is_another_is_left_by_all_paths(mode: RecoveryMode) -> None:
    """The identity changes under the map: I/O waits rather than go to a disk that is not the map's."""
    async with staged(mode) as stage:
        device = stage.target("array1").device
        naa, serial = device.units[0].naa, device.units[0].serial
        device.identify_unit(0, naa + 4096, "OTHER")
        await stage.until(lambda: not stage.usable("mpatha"))
        assert len(stage.usable("mpathb")) == 4
        await stage.until(lambda: len(stage.multipath.kept_out()) == 4)
        for item in stage.multipath.kept_out():
            assert item.map_name == "mpatha"
            assert "WWID" in item.reason
        device.identify_unit(0, naa, serial)
        await stage.original()


@MODES
async def test_unit_grows(mode: RecoveryMode) -> None:
    """The map takes the new size when every path agrees; nothing else changes."""
    async with staged(mode) as stage:
        before = stage.multipath.device("mpatha").blocks
        stage.target("array1").device.resize_unit(0, 2 * before)
        await stage.until(lambda: stage.multipath.device("mpatha").blocks == 2 * before)
        await stage.until(lambda: len(stage.usable("mpatha")) == 4)
        data = b"last block".ljust(512, b".")
        await stage.multipath.device("mpatha").write(2 * before - 1, data)
        assert await stage.multipath.device("mpatha").read(2 * before - 1, 1) == data
        stage.multipath.device("mpatha").counters.reads -= 1  # these two were not the load's
        stage.multipath.device("mpatha").counters.writes -= 1
        changed = differences(stage.before, await stage.host.state())
        assert [change.name for change in changed] == ["map mpatha"]


@MODES
async def test_unit_removed_and_added(mode: RecoveryMode) -> None:
    """Commands fail over to the last path, then wait; the unit is back when it answers again at the same LUN."""
    async with staged(mode, load=None) as stage:
        device = stage.target("array1").device
        unit = device.units[1]
        spec = UnitSpec(lun=1, blocks=unit.blocks, naa=unit.naa, serial=unit.serial)
        device.remove_unit(1)
        await stage.until(lambda: not stage.usable("mpathb"))
        assert len(stage.usable("mpatha")) == 4
        device.add_unit(spec)
        await stage.original()


@MODES
async def test_unit_added_is_found_by_the_next_login(mode: RecoveryMode) -> None:
    """As with ib_srp no running connection scans again; the target's notice is passed on for whoever can."""
    async with staged(mode, load=None) as stage:
        rung: list[float] = []
        stage.multipath.watch_luns(lambda: rung.append(stage.now))
        stage.target("array1").device.add_unit(UnitSpec(lun=7, blocks=2048))
        await stage.until(lambda: bool(rung))
        assert len(stage.maps()) == 3
        for item in await stage.connections():
            await stage.initiator.remove(item.host)
        await stage.until(lambda: len(stage.maps()) == 4 and len(stage.usable("mpathd")) == 4)


async def test_last_path_gone_for_good_ends_in_errors_not_in_silence() -> None:
    """dev_loss_tmo removes the hosts (kernel mode), ``no_path_retry`` ends the wait, and every I/O is answered."""
    settings = MultipathSettings(no_path_retry=2)
    async with staged(RecoveryMode.KERNEL, multipath=settings) as stage:
        stage.errors_allowed = True
        stage.fault("target-crash array2")
        await stage.until(lambda: not stage.usable("mpathc"))

        async def lost() -> bool:
            seen = [item for item in await stage.connections() if item.state is not RemotePortState.RUNNING]
            return not seen

        await stage.until(lost, 200)

        def left() -> list[PairStatus]:
            statuses = [pair.status for pair in stage.host.supervisor.snapshot().pairs]
            return [status for status in statuses if status is not PairStatus.CONNECTED]

        await stage.until(lambda: left() == [PairStatus.TARGET_SILENT] * 4)
        with pytest.raises(BlockIoError, match="no path"):
            await stage.multipath.device("mpathc").read(0, 1)
        stage.multipath.device("mpathc").counters.errors -= 1
        stage.fault("target-restart array2")
        await stage.until(lambda: len(stage.usable("mpathc")) == 4, 200)
