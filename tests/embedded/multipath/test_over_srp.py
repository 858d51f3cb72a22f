"""Multipath over the embedded initiator, fabric and target: real logins, real fences, real ghost writes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from srpha.core.multipath.fencing import FencePolicy
from srpha.core.multipath.policy import NoPathRetry
from srpha.core.seams import PathState
from srpha.embedded.multipath.engine import EmbeddedPathManager
from srpha.embedded.multipath.settings import MultipathSettings
from srpha.embedded.target.hold import HoldScope
from srpha.lab.workload import IoStatistics, VerifiedWorkload, WorkloadSettings
from tests.embedded.initiator.world import World, world
from tests.embedded.multipath.fakes import pattern


@asynccontextmanager
async def two_paths(service_time: float = 0.0, **settings: object) -> AsyncIterator[tuple[World, EmbeddedPathManager]]:
    async with world(service_time=service_time) as made:
        manager = EmbeddedPathManager(
            made.initiator,
            made.initiator,
            MultipathSettings(**settings),  # type: ignore[arg-type]
        )
        running = asyncio.ensure_future(manager.run())
        await made.login("mlx5_0/1")
        await made.login("mlx5_0/2", ",initiator_ext=0000000000000001")
        await asyncio.sleep(0.1)
        try:
            yield made, manager
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def in_use(manager: EmbeddedPathManager) -> list[str]:
    return [path.device for path in manager.snapshot()[0].paths if path.state is PathState.ACTIVE]


async def test_a_pulled_cable_costs_milliseconds_and_everything_returns(seed: int) -> None:
    async with two_paths(service_time=0.02) as (made, manager):
        statistics = IoStatistics()
        load = WorkloadSettings(workers=6, slots_per_worker=8, mean_pause=0.02, read_share=0.2)
        workload = VerifiedWorkload(manager.device("mpatha"), random.Random(seed), load, statistics)
        running = asyncio.ensure_future(workload.run())
        await asyncio.sleep(1)
        for port, left in (("a/1", "sdb"), ("a/2", "sda")):
            statistics.max_stall = 0.0
            made.pull(port)
            await asyncio.sleep(1)
            assert in_use(manager) == [left]
            assert statistics.max_stall < 0.1
            made.plug(port)
            await asyncio.sleep(15)
            assert in_use(manager) == ["sda", "sdb"]
        workload.stop()
        await running
        assert (statistics.errors, statistics.mismatches) == (0, 0), statistics.problems
        counters = manager.fence_counters
        assert counters.confirmed > 0
        assert counters.released_quiesced == 0


async def test_without_both_cables_io_waits_and_resumes() -> None:
    async with two_paths(no_path_retry=NoPathRetry.QUEUE) as (made, manager):
        device = manager.device("mpatha")
        await device.write(0, pattern(1))
        made.pull("a/1")
        made.pull("a/2")
        reads = [asyncio.ensure_future(device.read(0, 1)) for _ in range(5)]
        await asyncio.sleep(5)
        assert device.queued == 5
        made.plug("a/2")
        assert await asyncio.gather(*reads) == [pattern(1)] * 5


@pytest.mark.parametrize(("policy", "survives"), [(FencePolicy.SAFE, 2), (FencePolicy.UNSAFE, 1)])
async def test_a_write_that_the_target_executes_late(policy: FencePolicy, survives: int) -> None:
    """The old path's copy lies in the target while its cable is pulled; newer data must outlive it."""
    async with two_paths(fence_policy=policy) as (made, manager):
        device = manager.device("mpatha")
        nexus = made.initiator.devices()[0].nexus
        await manager.fail_path("sdb")
        hold = made.target.hold(HoldScope(initiator_port_id=nexus.initiator_port_id, writes_only=True))
        write = asyncio.ensure_future(device.write(0, pattern(1)))
        await asyncio.sleep(0.01)
        assert len(hold) == 1
        await manager.reinstate_path("sdb")
        made.pull("a/1")
        await asyncio.wait_for(write, 1.0)
        await device.write(0, pattern(2))
        hold.release()
        await asyncio.sleep(0.1)
        assert await device.read(0, 1) == pattern(survives)
