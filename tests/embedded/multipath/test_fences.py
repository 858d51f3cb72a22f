from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from srpha.core.multipath.fencing import Release
from srpha.core.scsi_io import Nexus
from srpha.core.seams import InitiatorError
from srpha.embedded.multipath.fences import FenceCoordinator
from tests.embedded.multipath.fakes import FakeDevice, FakeFencer, FakeSource, FakeUnit

TARGET, ELSEWHERE = b"target-port-id-1", b"target-port-id-2"
DEAD = Nexus(b"d" * 16, TARGET)


def device(host: int, target: bytes = TARGET) -> FakeDevice:
    return FakeDevice(FakeUnit(), f"sd{host}", f"8:{host}", f"{host}:0:0:0", nexus=Nexus(bytes([host]) * 16, target))


@asynccontextmanager
async def coordinator(fencer: FakeFencer, quiesce_time: float = 60.0):  # type: ignore[no-untyped-def]
    fences = FenceCoordinator(fencer, quiesce_time=quiesce_time, fence_timeout=5.0, retry_interval=10.0)
    running = asyncio.ensure_future(fences.run())
    try:
        yield fences
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_same_target_is_asked_before_another_one() -> None:
    fencer = FakeFencer(FakeSource())
    released: list[Release] = []
    async with coordinator(fencer) as fences:
        fences.hold(DEAD, lambda: [device(1, ELSEWHERE), device(2)], released.append)
        assert fences.waiting == 1
        await asyncio.sleep(1)
        assert [call[2] for call in fencer.calls] == ["sd2"]
        assert released == [Release.FENCED]
        assert fences.waiting == 0


async def test_an_initiator_error_is_no_confirmation_and_the_round_is_repeated() -> None:
    class Broken(FakeFencer):
        async def fence(self, nexus, via):  # type: ignore[no-untyped-def]
            if len(self.calls) < 2:
                self.calls.append((0.0, nexus, via.name))
                raise InitiatorError("no route")
            return await super().fence(nexus, via)

    fencer = Broken(FakeSource())
    released: list[float] = []
    loop = asyncio.get_running_loop()
    async with coordinator(fencer) as fences:
        fences.hold(DEAD, lambda: [device(1)], lambda _: released.append(loop.time()))
        await asyncio.sleep(50)
        assert released == [pytest.approx(20.01)]
        assert (fences.counters.failed, fences.counters.confirmed) == (2, 1)


async def test_nexuses_are_fenced_side_by_side() -> None:
    fencer = FakeFencer(FakeSource())
    fencer.latency = 1.0
    loop = asyncio.get_running_loop()
    released: list[float] = []
    async with coordinator(fencer) as fences:
        for number in range(5):
            nexus = Nexus(bytes([100 + number]) * 16, TARGET)
            fences.hold(nexus, lambda: [device(1)], lambda _: released.append(loop.time()))
        await asyncio.sleep(2)
        assert released == [1.0] * 5


async def test_what_is_released_by_its_holder_is_not_resumed() -> None:
    fencer = FakeFencer(FakeSource())
    released: list[Release] = []
    async with coordinator(fencer, quiesce_time=3.0) as fences:
        token = fences.hold(DEAD, list, released.append)
        fences.release(token)
        fences.hold(DEAD, list, released.append)
        await asyncio.sleep(2.9)
        assert released == []
        await asyncio.sleep(0.2)
        assert released == [Release.QUIESCED]
        assert fencer.calls == []
