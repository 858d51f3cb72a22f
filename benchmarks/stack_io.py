"""I/O through the whole embedded stack: multipath, initiator, RC transport, fabric, target, logical unit, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from benchmarks.embedded_lab import QueuedIo, quiet_lab
from benchmarks.measure import Results
from srpha.lab.lab import LabHost

_DEPTH = 32


def measure(results: Results, told: Callable[[str], None], *, quick: bool) -> None:
    """4 KiB I/Os per second and 256 KiB bytes per second, with one and with two paths, in turn within each run."""
    asyncio.run(_measure(results, told, runs=2 if quick else 5, count=4000 if quick else 20000))


async def _measure(results: Results, told: Callable[[str], None], *, runs: int, count: int) -> None:
    rates: dict[tuple[str, int], list[float]] = {}
    async with quiet_lab() as (_lab, host):
        for _ in range(runs):
            for paths in (1, 2):
                await _use_paths(host, paths)
                for write in (False, True):
                    word = "write" if write else "read"
                    small = await _rate(host, write=write, size=4096, count=count)
                    large = await _rate(host, write=write, size=262144, count=max(count // 40, 50))
                    rates.setdefault((f"4 KiB {word}", paths), []).append(small)
                    rates.setdefault((f"256 KiB {word}", paths), []).append(large * 262144 / 1e6)
    for (what, paths), values in rates.items():
        unit = "MB/s" if what.startswith("256") else "I/O/s"
        results.add(f"{what}, depth {_DEPTH}, {paths} path{'s' if paths > 1 else ''}", unit, values, told)


async def _rate(host: LabHost, *, write: bool, size: int, count: int) -> float:
    device = host.below.path_manager.device("mpatha")
    load = QueuedIo(device, write=write, size=size, depth=_DEPTH, count=count)
    seconds = await load.run()
    if load.errors:
        raise RuntimeError(f"{load.errors} of {load.done} I/Os failed: the figure would be of errors")
    return load.done / seconds


async def _use_paths(host: LabHost, wanted: int) -> None:
    """Leave ``wanted`` paths of the first map in use, from different local ports."""
    manager = host.below.path_manager
    connections = {item.host: item for item in await host.below.initiator.connections()}
    (first, *_rest) = [item for item in await manager.maps() if item.name == "mpatha"]
    chosen: list[str] = []
    ports: set[str] = set()
    for path in first.paths:
        port = connections[path.host].local_port
        if len(chosen) < wanted and port not in ports:
            chosen.append(path.device)
            ports.add(port)
    for path in first.paths:
        if path.device in chosen:
            await manager.reinstate_path(path.device)
        else:
            await manager.fail_path(path.device)
