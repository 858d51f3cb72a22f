"""The daemon ends and starts again in the midst of a failure: connections outlive it, and the next one adopts them."""

from __future__ import annotations

import asyncio

import pytest
from stage import Stage, staged

from srpha.core.events import EventKind
from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.daemon.supervisor import Supervisor

MODES = pytest.mark.parametrize("mode", list(RecoveryMode), ids=lambda mode: mode.value)


def kill(stage: Stage) -> None:
    """End the daemon without a word, as SIGKILL does."""
    found = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") == "LabHost.run"]
    assert len(found) == 1
    found[0].cancel()


def restart(stage: Stage) -> asyncio.Task[None]:
    """A new process over the same seams, which knows nothing."""
    below = stage.host.below
    stage.host.supervisor = Supervisor(
        below.mad_ports, below.initiator, below.path_manager, stage.lab.settings.daemon, stage.lab.log
    )
    return asyncio.ensure_future(stage.host.supervisor.run())


@MODES
@pytest.mark.parametrize("when", ["before", "during", "after"])
async def test_daemon_restarts_around_a_failure(mode: RecoveryMode, when: str) -> None:
    async with staged(mode) as stage:
        hosts = {item.host for item in await stage.connections()}
        if when != "before":
            stage.fault("link-down host1-a/1")
            await stage.quiet(0.01 if when == "during" else 4.0)
        kill(stage)
        await stage.quiet(1.0)
        if when == "before":
            stage.fault("link-down host1-a/1")
            await stage.quiet(1.0)
        logins = len(stage.events(EventKind.CONNECTED))
        running = restart(stage)
        await stage.quiet(3.0)
        still = {item.host for item in await stage.connections()}
        assert still == (hosts if mode is RecoveryMode.KERNEL else hosts & still)
        assert len(stage.events(EventKind.CONNECTED)) == logins, "a second login for what was there already"
        stage.fault("link-up host1-a/1")
        await stage.original()
        connections = await stage.connections()
        assert len({(item.local_port, item.dgid) for item in connections}) == len(connections) == 8
        adopted = len(stage.events(EventKind.CONNECTION_ADOPTED))
        assert adopted == (8 if mode is RecoveryMode.KERNEL else 4)
        await stage.judge()
        running.cancel()


@MODES
async def test_daemon_is_away_while_everything_happens(mode: RecoveryMode) -> None:
    """Kernel mode needs no daemon to come back. OFED mode does, and the next one finds what is missing."""
    async with staged(mode) as stage:
        kill(stage)
        await stage.outage(3.0, "link-down host1-b/1", "link-up host1-b/1")
        stage.fault("target-join array3")
        await stage.quiet(5.0)
        assert len(stage.usable()) == (12 if mode is RecoveryMode.KERNEL else 6)
        running = restart(stage)
        await stage.complete(3, 10)
        await stage.judge()
        running.cancel()


@MODES
async def test_restarts_in_a_row(mode: RecoveryMode) -> None:
    async with staged(mode) as stage:
        hosts = {item.host for item in await stage.connections()}
        kill(stage)
        for number in range(10):
            running = restart(stage)
            await stage.quiet(0.05 * number)
            running.cancel()
            await asyncio.wait([running])
        running = restart(stage)
        await stage.original()
        assert {item.host for item in await stage.connections()} == hosts
        assert len(stage.events(EventKind.CONNECTED)) == 8
        await stage.judge()
        running.cancel()
