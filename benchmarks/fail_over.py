"""How long I/O stalls when a host's cable is pulled under load, and until all paths are back, in both modes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from benchmarks.embedded_lab import QueuedIo, quiet_lab
from benchmarks.measure import Results
from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.core.recovery.remote_port import RemotePortState
from srpha.embedded.fabric.faults import LinkDown, LinkUp
from srpha.embedded.fabric.topology import PortRef
from srpha.lab.lab import Lab, LabHost

_DEPTH = 8
_LOAD_BEFORE = 0.5
_LOAD_AFTER = 1.0
_RETURN_LIMIT = 30.0


@dataclass(frozen=True, slots=True)
class _FailOver:
    first_io: float
    """Seconds from the cable's end to the first I/O submitted later that was completed over another path."""
    stall: float
    """Longest time any I/O took, those in flight when the cable went included."""
    back: float
    """Seconds from the cable's return until every connection runs again."""


def measure(results: Results, told: Callable[[str], None], *, quick: bool) -> None:
    """Pull and plug the cable of one local port several times under mixed load."""
    runs = 3 if quick else 9
    for mode in RecoveryMode:
        outcomes = asyncio.run(_measure(mode, runs))
        results.add(
            f"{mode.value}: link down to first I/O elsewhere", "ms", [o.first_io * 1000 for o in outcomes], told
        )
        results.add(f"{mode.value}: longest stall of any I/O", "ms", [o.stall * 1000 for o in outcomes], told)
        results.add(f"{mode.value}: link up to all paths back", "ms", [o.back * 1000 for o in outcomes], told)


async def _measure(mode: RecoveryMode, runs: int) -> list[_FailOver]:
    async with quiet_lab(mode) as (lab, host):
        return [await _pull(lab, host) for _ in range(runs)]


async def _pull(lab: Lab, host: LabHost) -> _FailOver:
    cable = PortRef("host1-a", 1)
    before = len(await host.below.initiator.connections())
    loads = [
        QueuedIo(host.below.path_manager.device("mpatha"), write=write, size=4096, depth=_DEPTH, count=1 << 30)
        for write in (False, True)
    ]
    times: list[tuple[float, float]] = []
    for load in loads:
        load.heard = lambda submitted, completed: times.append((submitted, completed))
    async with asyncio.TaskGroup() as group:
        for load in loads:
            group.create_task(load.run())
        await asyncio.sleep(_LOAD_BEFORE)
        pulled = perf_counter()
        lab.world.faults.apply(LinkDown(cable))
        await asyncio.sleep(_LOAD_AFTER)
        for load in loads:
            load.stop()
    errors = sum(load.errors for load in loads)
    if errors:
        raise RuntimeError(f"{errors} I/Os failed during a fail-over")
    plugged = perf_counter()
    lab.world.faults.apply(LinkUp(cable))
    async with asyncio.timeout(_RETURN_LIMIT):
        while True:
            connections = await host.below.initiator.connections()
            running = [item for item in connections if item.state is RemotePortState.RUNNING and not item.removing]
            if len(running) == before == len(connections):
                break
            await asyncio.sleep(0.01)
    back = perf_counter() - plugged
    return _FailOver(
        first_io=min(completed for submitted, completed in times if submitted >= pulled) - pulled,
        stall=max(completed - submitted for submitted, completed in times),
        back=back,
    )
