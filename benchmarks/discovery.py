"""Discovery of an embedded subnet by number of targets: time, queries, dependent round trips; one silent target."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from benchmarks.measure import Results
from srpha.core.discovery.scan_result import ScanResult, ScanStatistics, Standing
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.daemon.scanner import Member, scan_subnet
from srpha.embedded.fabric.faults import TargetCrash
from srpha.embedded.world import World, WorldSettings
from srpha.embedded.worldspec import WorldSpec
from srpha.lab.generate import WorldShape, generate_world

_SETTINGS = ScanSettings(timeout=0.5)


@dataclass(frozen=True, slots=True)
class ScanRun:
    seconds: float
    last_found: float
    """Seconds until the last target port that answers was found; what is found is connected at once."""
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
            f"{targets} targets, one silent: until all others are found",
            "ms",
            [run.last_found * 1000 for run in silent],
            told,
        )
        results.add(
            f"{targets} targets, one silent: until it is given up", "ms", [r.seconds * 1000 for r in silent], told
        )


async def _scan_world(targets: int, runs: int) -> tuple[list[ScanRun], list[ScanRun]]:
    spec = WorldSpec.parse(generate_world(WorldShape(targets, unit_mib=1)))
    world = World(spec, random.Random(1), WorldSettings(timer_floor=1e-3))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.run())
        await world.ready()
        await asyncio.sleep(1.0)
        whole = [await time_scan(world, 2 * targets, _SETTINGS) for _ in range(runs)]
        world.faults.apply(TargetCrash(spec.targets[0].name))
        silent = [await time_scan(world, 2 * targets - 2, _SETTINGS) for _ in range(runs)]
        running.cancel()
    return whole, silent


async def time_scan(world: World, expected: int, settings: ScanSettings) -> ScanRun:
    """One scan from all ports of the first host, everything asked anew; RuntimeError unless it finds ``expected``."""
    host = next(iter(world.hosts.values()))
    found = 0
    last = 0.0

    def progress(result: ScanResult) -> None:
        nonlocal found, last
        fresh = sum(unit.standing is Standing.FOUND for unit in result.units)
        if fresh:
            found += fresh
            last = perf_counter() - started

    started = perf_counter()
    members = [Member(port, port.identity()) for port in host.mad_ports]
    (result,) = await scan_subnet(members, lambda _names: {}, settings, progress)
    seconds = perf_counter() - started
    if found != expected:
        raise RuntimeError(f"the scan found {found} target ports, {expected} answer")
    return ScanRun(seconds, last, found, result.statistics)
