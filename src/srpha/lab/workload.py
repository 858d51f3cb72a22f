"""Continuous verified I/O on a multipath device: every block read must be what was last written, or the run has failed.

Each worker owns its own blocks, so that a block's expected content is always known: the generation of the last write
that was acknowledged. While a write is unacknowledged the old and the new generation are both allowed, never anything
else. A block holds a header (magic, device, block address, generation, checksum) and a filler drawn from the header,
so that a stale, torn, misplaced or foreign block is told apart and reported as what it is.
"""

from __future__ import annotations

import asyncio
import random
import struct
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

_HEADER: Final = struct.Struct(">8sIQQI")
_MAGIC: Final = b"srpha-io"


class BlockDevice(Protocol):
    """The part of a multipath device that a workload needs."""

    @property
    def name(self) -> str: ...
    @property
    def block_size(self) -> int: ...
    @property
    def blocks(self) -> int: ...

    async def read(self, lba: int, blocks: int) -> bytes: ...
    async def write(self, lba: int, data: bytes) -> None: ...
    async def flush(self) -> None: ...


@dataclass(slots=True)
class IoStatistics:
    """What a workload has done and seen. Times are seconds of the loop's clock."""

    reads: int = 0
    writes: int = 0
    bytes_moved: int = 0
    errors: int = 0
    mismatches: int = 0
    max_stall: float = 0.0
    """Longest time from the submission of one I/O to its completion."""
    problems: list[str] = field(default_factory=list)
    """The first few errors and mismatches, as sentences."""

    @property
    def operations(self) -> int:
        return self.reads + self.writes

    def problem(self, text: str) -> None:
        if len(self.problems) < 20:
            self.problems.append(text)


@dataclass(frozen=True, slots=True)
class WorkloadSettings:
    """Shape of the load: ``workers`` per device, I/Os of ``io_blocks`` blocks, mean pause between a worker's I/Os."""

    workers: int = 2
    slots_per_worker: int = 16
    io_bytes: int = 4096
    read_share: float = 0.5
    mean_pause: float = 0.01


class VerifiedWorkload:
    """Reads and writes one device until told to stop, then reads everything back once more."""

    def __init__(
        self, device: BlockDevice, rng: random.Random, settings: WorkloadSettings, statistics: IoStatistics
    ) -> None:
        if settings.io_bytes % device.block_size:
            raise ValueError(f"I/O size {settings.io_bytes} is no multiple of the block size {device.block_size}")
        self._device = device
        self._rng = rng
        self._settings = settings
        self._io_blocks = settings.io_bytes // device.block_size
        needed = settings.workers * settings.slots_per_worker * self._io_blocks
        if needed > device.blocks:
            raise ValueError(f"{device.name} has {device.blocks} blocks, the load needs {needed}")
        self._tag = zlib.crc32(device.name.encode())
        self._acknowledged: dict[int, int] = {}
        self._in_doubt: dict[int, int] = {}
        """Blocks whose last write failed: that generation may or may not be on the device."""
        self._stopping = False
        self.statistics = statistics

    def stop(self) -> None:
        """Let the workers finish their current I/O and verify."""
        self._stopping = True

    async def run(self) -> None:
        """Run all workers until :meth:`stop`; then flush and read back every block written."""
        async with asyncio.TaskGroup() as group:
            for worker in range(self._settings.workers):
                seed = self._rng.getrandbits(64)
                group.create_task(self._worker(worker, random.Random(seed)))
        await self._guard("flush", self._device.flush)
        for slot in sorted(self._acknowledged):
            await self._read(slot)

    async def _worker(self, worker: int, rng: random.Random) -> None:
        first = worker * self._settings.slots_per_worker
        while not self._stopping:
            slot = first + rng.randrange(self._settings.slots_per_worker)
            if slot in self._acknowledged and rng.random() < self._settings.read_share:
                await self._read(slot)
            else:
                await self._write(slot)
            if self._settings.mean_pause:
                await asyncio.sleep(rng.expovariate(1.0 / self._settings.mean_pause))

    async def _write(self, slot: int) -> None:
        generation = max(self._acknowledged.get(slot, 0), self._in_doubt.get(slot, 0)) + 1
        data = make_block(self._tag, slot, generation, self._settings.io_bytes)

        async def write() -> None:
            await self._device.write(slot * self._io_blocks, data)

        if await self._guard(f"write of slot {slot}", write):
            self._acknowledged[slot] = generation
            self._in_doubt.pop(slot, None)
            self.statistics.writes += 1
            self.statistics.bytes_moved += len(data)
        else:
            self._in_doubt[slot] = generation

    async def _read(self, slot: int) -> None:
        data = b""

        async def read() -> None:
            nonlocal data
            data = await self._device.read(slot * self._io_blocks, self._io_blocks)

        if not await self._guard(f"read of slot {slot}", read):
            return
        self.statistics.reads += 1
        self.statistics.bytes_moved += len(data)
        allowed = [self._acknowledged[slot]]
        if slot in self._in_doubt:
            allowed.append(self._in_doubt[slot])
        fault = check_block(data, self._tag, slot, allowed, self._settings.io_bytes)
        if fault is not None:
            self.statistics.mismatches += 1
            self.statistics.problem(f"{self._device.name}, slot {slot}: {fault}")

    async def _guard(self, what: str, operation: Callable[[], Awaitable[object]]) -> bool:
        """Run one I/O, time it, and count an error instead of raising it."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            await operation()
        except OSError as error:
            self.statistics.errors += 1
            self.statistics.problem(f"{self._device.name}, {what}: {error}")
            return False
        finally:
            self.statistics.max_stall = max(self.statistics.max_stall, loop.time() - started)
        return True


def make_block(tag: int, slot: int, generation: int, length: int) -> bytes:
    """The content of one I/O: header, then a filler that follows from the header."""
    head = _HEADER.pack(_MAGIC, tag, slot, generation, 0)
    checksum = zlib.crc32(head)
    unit = checksum.to_bytes(4, "big")
    filler = (unit * (length // 4 + 1))[: length - _HEADER.size]
    return _HEADER.pack(_MAGIC, tag, slot, generation, checksum) + filler


def check_block(data: bytes, tag: int, slot: int, allowed: list[int], length: int) -> str | None:
    """What is wrong with a block read back, or None. ``allowed`` are the generations it may have."""
    if len(data) != length:
        return f"{len(data)} bytes instead of {length}"
    magic, got_tag, got_slot, generation, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        return f"no header: starts with {data[:8].hex()}"
    if got_tag != tag or got_slot != slot:
        return f"holds slot {got_slot} of device tag {got_tag:#x}: misplaced or foreign block"
    if data != make_block(tag, slot, generation, length):
        return f"torn or corrupted block of generation {generation}"
    if generation not in allowed:
        kind = "stale" if generation < max(allowed) else "unexpected"
        return f"{kind} generation {generation}, expected {' or '.join(map(str, allowed))}"
    return None
