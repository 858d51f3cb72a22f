"""The load of a lab: one verified workload on every multipath device, from the device's appearance to the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

from srpha.embedded.multipath.engine import EmbeddedPathManager
from srpha.lab.workload import IoStatistics, VerifiedWorkload, WorkloadSettings


class HostLoad:
    """Verified I/O on all multipath devices of one host. :meth:`run` ends after :meth:`stop`, when all is read back."""

    def __init__(self, paths: EmbeddedPathManager, rng: random.Random, settings: WorkloadSettings) -> None:
        self._paths = paths
        self._rng = rng
        self._settings = settings
        self._running: dict[str, VerifiedWorkload] = {}
        self._by_map: dict[str, IoStatistics] = {}
        self._wake = asyncio.Event()
        self._stopping = False
        self.finished = asyncio.Event()
        """Set when :meth:`run` has read everything back."""

    @property
    def by_map(self) -> Mapping[str, IoStatistics]:
        """Statistics of each device under load, by its name."""
        return self._by_map

    def total(self) -> IoStatistics:
        """All devices together; ``max_stall`` is the longest of any."""
        total = IoStatistics()
        for one in self._by_map.values():
            total.reads += one.reads
            total.writes += one.writes
            total.bytes_moved += one.bytes_moved
            total.errors += one.errors
            total.mismatches += one.mismatches
            total.max_stall = max(total.max_stall, one.max_stall)
            for text in one.problems:
                total.problem(text)
        return total

    def stop(self) -> None:
        """Let every workload finish and read back what it wrote."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Put a workload on every device as it appears."""
        unwatch = self._paths.watch(self._wake.set)
        try:
            async with asyncio.TaskGroup() as group:
                while not self._stopping:
                    self._wake.clear()
                    for info in await self._paths.maps():
                        if info.name not in self._running:
                            group.create_task(self._start(info.name).run())
                    await self._wake.wait()
                for workload in self._running.values():
                    workload.stop()
        finally:
            unwatch()
        self.finished.set()

    def _start(self, name: str) -> VerifiedWorkload:
        statistics = self._by_map[name] = IoStatistics()
        rng = random.Random(self._rng.getrandbits(64))
        workload = VerifiedWorkload(self._paths.device(name), rng, self._settings, statistics)
        self._running[name] = workload
        return workload
