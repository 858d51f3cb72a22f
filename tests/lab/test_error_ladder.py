"""The error ladder in a lab: commands that a target keeps without an answer time out, and are followed to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from srpha.core.events import EventKind
from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.core.recovery.remote_port import RemotePortState
from srpha.embedded.target.hold import HoldScope
from srpha.embedded.target.srp_channel import SrpChannel
from srpha.wire.srp import TaskFunction, TaskManagement
from tests.lab.stage import Stage, staged

MODES = pytest.mark.parametrize("mode", list(RecoveryMode), ids=lambda mode: mode.value)
STALLED = HoldScope(port=0)
"""Everything that comes in by array1/1; the target's other port answers."""


def overheard(
    monkeypatch: pytest.MonkeyPatch, swallowed: Callable[[SrpChannel, TaskManagement], bool]
) -> list[TaskFunction]:
    """Task management requests of the whole world as they come in; those that ``swallowed`` picks get no answer."""
    heard: list[TaskFunction] = []
    manage = SrpChannel._manage

    def listen(channel: SrpChannel, request: TaskManagement) -> None:
        heard.append(TaskFunction(request.function))
        if not swallowed(channel, request):
            manage(channel, request)

    monkeypatch.setattr(SrpChannel, "_manage", listen)
    return heard


async def stall(stage: Stage, seconds: float) -> None:
    hold = stage.target("array1").hold(STALLED)
    await asyncio.sleep(seconds)
    hold.release()


@MODES
async def test_commands_without_an_answer_are_aborted(mode: RecoveryMode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target forgets them, I/O goes on over its other port, and nobody is logged out."""
    heard = overheard(monkeypatch, lambda _channel, _request: False)
    async with staged(mode) as stage:
        hosts = {item.host for item in await stage.connections()}
        await stall(stage, 40.0)
        await stage.original()
        assert {item.host for item in await stage.connections()} == hosts
        assert set(heard) == {TaskFunction.ABORT_TASK}
        assert not stage.events(EventKind.CONNECTION_REMOVED)


@MODES
async def test_aborts_without_an_answer_end_in_a_lun_reset(mode: RecoveryMode, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = overheard(
        monkeypatch, lambda channel, request: channel.port == 0 and request.function == TaskFunction.ABORT_TASK
    )
    async with staged(mode) as stage:
        hosts = {item.host for item in await stage.connections()}
        await stall(stage, 50.0)
        await stage.original()
        assert {item.host for item in await stage.connections()} == hosts
        assert set(heard) == {TaskFunction.ABORT_TASK, TaskFunction.LUN_RESET}


@MODES
async def test_a_target_port_deaf_to_resets_is_logged_in_to_anew(
    mode: RecoveryMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ladder's end is the host reset: in place, or by a new scsi_host once the old one is gone."""
    deaf = [True]
    heard = overheard(monkeypatch, lambda channel, _request: deaf[0] and channel.port == 0)
    async with staged(mode) as stage:
        victims = await stage.hosts_of(dgid=stage.guid("array1/1"))
        await stall(stage, 60.0)
        deaf[0] = False
        await stage.original()
        assert heard.index(TaskFunction.ABORT_TASK) < heard.index(TaskFunction.LUN_RESET)
        now = await stage.hosts_of(dgid=stage.guid("array1/1"))
        assert all(item.state is RemotePortState.RUNNING for item in await stage.connections())
        if mode is RecoveryMode.OFED:
            assert now.isdisjoint(victims)
        else:
            assert now == victims
            assert stage.events(EventKind.CONNECTION_STATE)
