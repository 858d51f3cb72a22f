"""A lab in real time for benchmarks: all paths up, nothing else running, and I/O at a fixed queue depth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter

from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.embedded.multipath.device import MultipathDevice
from srpha.embedded.multipath.io import BlockIo, IoKind
from srpha.embedded.multipath.settings import MultipathSettings
from srpha.embedded.worldspec import WorldSpec
from srpha.lab.lab import Lab, LabHost, LabSettings

_SETTLE_LIMIT = 30.0


@asynccontextmanager
async def quiet_lab(recovery: RecoveryMode = RecoveryMode.KERNEL) -> AsyncIterator[tuple[Lab, LabHost]]:
    """The demo world with every path up and no load. Path checkers rest: they would mend what a benchmark fails."""
    multipath = MultipathSettings(polling_interval=3600.0, max_polling_interval=3600.0)
    lab = Lab(WorldSpec.demo(), LabSettings(recovery=recovery, load=None, timer_floor=1e-3, multipath=multipath))
    host = next(iter(lab.hosts.values()))
    wanted = sum(len(plan.units) for plan in lab.spec.targets if not plan.late)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(lab.run())
        async with asyncio.timeout(_SETTLE_LIMIT):
            while True:
                maps = await host.below.path_manager.maps()
                if (
                    len(maps) == wanted
                    and all(len(item.paths) == 4 for item in maps)
                    and host.supervisor.snapshot().settled
                ):
                    break
                await asyncio.sleep(0.05)
        try:
            yield lab, host
        finally:
            running.cancel()


class QueuedIo:
    """I/O that keeps ``depth`` commands under way until ``count`` are done; runs in callbacks alone."""

    def __init__(self, device: MultipathDevice, *, write: bool, size: int, depth: int, count: int) -> None:
        self._device = device
        self._kind = IoKind.WRITE if write else IoKind.READ
        self._blocks = size // device.block_size
        self._slots = device.blocks // self._blocks
        self._data = bytes(size) if write else b""
        self._depth = depth
        self._count = count
        self._issued = 0
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done = 0
        self.errors = 0
        self.heard: Callable[[float, float], None] | None = None
        """Gets submission and completion time of each I/O, in seconds of ``perf_counter``."""

    async def run(self) -> float:
        """Do it all; returns the seconds it took."""
        started = perf_counter()
        for _ in range(min(self._depth, self._count)):
            self._submit()
        await self._over
        return perf_counter() - started

    def stop(self) -> None:
        """Let what is under way finish."""
        self._count = self._issued

    def _submit(self) -> None:
        lba = (self._issued * 7 % self._slots) * self._blocks
        self._issued += 1
        self._device.submit(
            BlockIo(self._kind, self._done, lba=lba, blocks=self._blocks, data=self._data, context=perf_counter())
        )

    def _done(self, io: BlockIo) -> None:
        self.done += 1
        if io.error is not None:
            self.errors += 1
        if self.heard is not None:
            self.heard(float(str(io.context)), perf_counter())
        if self._issued < self._count:
            self._submit()
        elif self.done == self._issued and not self._over.done():
            self._over.set_result(None)
