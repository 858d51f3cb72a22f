"""The verifier must see every kind of wrong data: each test plants one fault in a device that is otherwise sound."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from srpha.embedded.virtual_time import run_virtual
from srpha.lab.workload import IoStatistics, VerifiedWorkload, WorkloadSettings, check_block, make_block

SETTINGS = WorkloadSettings(workers=2, slots_per_worker=4, mean_pause=0.01)


class Disk:
    """A sound disk in memory, with hooks to break it."""

    name = "mpatha"
    block_size = 512
    blocks = 2048

    def __init__(self) -> None:
        self.data = bytearray(self.block_size * self.blocks)
        self.on_read: Callable[[int, bytes], bytes] = lambda _lba, data: data
        self.on_write: Callable[[int, bytes], bytes | None] = lambda _lba, data: data

    async def read(self, lba: int, blocks: int) -> bytes:
        await asyncio.sleep(0.001)
        start = lba * self.block_size
        return self.on_read(lba, bytes(self.data[start : start + blocks * self.block_size]))

    async def write(self, lba: int, data: bytes) -> None:
        await asyncio.sleep(0.001)
        kept = self.on_write(lba, data)
        if kept is not None:
            self.data[lba * self.block_size : lba * self.block_size + len(kept)] = kept

    async def flush(self) -> None:
        await asyncio.sleep(0.001)


def run(disk: Disk, seconds: float = 2.0) -> IoStatistics:
    statistics = IoStatistics()

    async def main() -> None:
        load = VerifiedWorkload(disk, random.Random(1), SETTINGS, statistics)
        asyncio.get_running_loop().call_later(seconds, load.stop)
        await load.run()

    run_virtual(main(), limit=60)
    return statistics


def test_sound_disk_has_no_problem() -> None:
    statistics = run(Disk())
    assert statistics.reads > 50
    assert statistics.writes > 50
    assert (statistics.errors, statistics.mismatches, statistics.problems) == (0, 0, [])
    assert statistics.max_stall == pytest.approx(0.001)


def test_lost_write_is_seen() -> None:
    disk = Disk()
    count = 0

    def lose_every_tenth(_lba: int, data: bytes) -> bytes | None:
        nonlocal count
        count += 1
        return None if count % 10 == 0 else data

    disk.on_write = lose_every_tenth
    assert run(disk).mismatches >= 1


def test_misplaced_write_is_seen() -> None:
    disk = Disk()
    disk.on_read = lambda lba, data: data if lba else make_block(1, 1, 1, len(data))
    statistics = run(disk)
    assert any("misplaced or foreign" in problem for problem in statistics.problems)


def test_stale_data_is_called_stale() -> None:
    block = make_block(7, 3, 4, 4096)
    assert check_block(block, 7, 3, [4], 4096) is None
    assert "stale generation 4" in str(check_block(block, 7, 3, [5], 4096))
    assert "unexpected generation 4" in str(check_block(block, 7, 3, [3], 4096))


def test_torn_block_is_called_torn() -> None:
    new, old = make_block(7, 3, 5, 4096), make_block(7, 3, 4, 4096)
    assert "torn" in str(check_block(new[:512] + old[512:], 7, 3, [5], 4096))
    assert "no header" in str(check_block(bytes(4096), 7, 3, [5], 4096))
    assert "bytes instead of" in str(check_block(new[:512], 7, 3, [5], 4096))


def test_an_error_is_counted_and_leaves_both_generations_allowed() -> None:
    disk = Disk()
    failures = iter([False, False, False, True])

    def fail_once(_lba: int, data: bytes) -> bytes | None:
        if next(failures, False):
            raise OSError(5, "Input/output error")
        return data

    disk.on_write = fail_once
    statistics = run(disk)
    assert statistics.errors == 1
    assert statistics.mismatches == 0


def test_a_load_that_does_not_fit_is_refused() -> None:
    disk = Disk()
    disk.blocks = 8
    with pytest.raises(ValueError, match="the load needs"):
        VerifiedWorkload(disk, random.Random(1), SETTINGS, IoStatistics())
