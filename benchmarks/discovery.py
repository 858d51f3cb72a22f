"""Discovery of an embedded subnet by number of targets: time, queries, dependent round trips; one silent target."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from benchmarks.measure import Results
from srpha.core.scan_result import ScanStatistics
from srpha.core.scan_settings import ScanSettings
from srpha.daemon.discover import discover
from srpha.daemon.settings import Settings
from srpha.embedded.fabric.faults import TargetCrash
from srpha.embedded.fabric.worldspec import WorldSpec
from srpha.embedded.world import World, WorldSettings
from srpha.lab.generate import WorldShape, generate_world

_TIMEOUT = 0.5


@dataclass(frozen=True, slots=True)
class _Run:
    seconds: float
    found: int
    statistics: ScanStatistics


def measure(results: Results, told: Callable[[str], None], *, quick: bool) -> None:
    """Scan worlds of 4 to 512 targets, whole and with one silent target; both in turn in the same world."""
    runs = 3 if quick else 5
    for targets in (4, 32) if quick else (4, 32, 128, 512):
        whole, silent = asyncio.run(_scan_world(targets, runs))
        results.add(f"{targets} targets: scan", "ms", [run.seconds * 1000 for run in whole], told)
        results.add(
            f"{targets} targets: scan per target port", "us", [run.seconds * 1e6 / run.found for run in whole], told
        )
        results.add(f"{targets} targets: queries", "", [run.statistics.queries for run in whole], told)
        results.add(
            f"{targets} targets: dependent round trips", "", [run.statistics.round_trips for run in whole], told
        )
        results.add(
            f"{targets} targets, one silent: scan less {_TIMEOUT} s x tries",
            "ms",
            [(run.seconds - _TIMEOUT * (_settings().scan.retries + 1)) * 1000 for run in silent],
            told,
        )


def _settings() -> Settings:
    return Settings(scan=ScanSettings(timeout=_TIMEOUT))


async def _scan_world(targets: int, runs: int) -> tuple[list[_Run], list[_Run]]:
    spec = WorldSpec.parse(generate_world(WorldShape(targets, unit_mib=1)))
    world = World(spec, random.Random(1), WorldSettings(timer_floor=1e-3))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.run())
        await world.ready()
        await asyncio.sleep(1.0)
        whole = [await _scan(world, 2 * targets) for _ in range(runs)]
        world.faults.apply(TargetCrash(spec.targets[0].name))
        silent = [await _scan(world, 2 * targets - 2) for _ in range(runs)]
        running.cancel()
    return whole, silent


async def _scan(world: World, expected: int) -> _Run:
    host = next(iter(world.hosts.values()))
    started = perf_counter()
    result = await discover(host.mad_ports, _settings())
    seconds = perf_counter() - started
    found = sum(bool(unit.services) for scan in result.scans for unit in scan.units)
    if found != expected:
        raise RuntimeError(f"the scan found {found} target ports, {expected} answer")
    return _Run(seconds, found, result.scans[0].statistics)
