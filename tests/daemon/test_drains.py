from __future__ import annotations

import asyncio

import pytest
from house import House, statuses

from srpha.core.connections.pairs import PairStatus
from srpha.core.events import EventKind
from srpha.core.recovery.remote_port import RemotePortState
from srpha.core.seams import PathManagerError
from srpha.daemon.drains import DrainRefusedError
from srpha.operate.documents import status_document

A, B = "mlx5_0/1", "mlx5_1/1"


def devices(house: House, port: str) -> list[str]:
    return [device.name for item in house.initiator.made if item.local_port == port for device in item.devices]


async def test_paths_are_held_and_given_back() -> None:
    house = House()
    async with house.running() as supervisor:
        await house.connected(4)
        report = await supervisor.drain(A)
        assert (report.port, report.maps, report.refused) == (A, ("mpatha",), ())
        assert sorted(report.paths) == sorted(devices(house, A)) == sorted(house.paths.failed)
        assert [port.drained for port in supervisor.snapshot().ports] == [True, False]
        await asyncio.sleep(100)
        assert sorted(house.paths.failed) == sorted(devices(house, A))
        assert not status_document(supervisor.snapshot(), "h")["healthy"]

        report = await supervisor.resume(A)
        assert sorted(report.paths) == sorted(devices(house, A))
        assert house.paths.failed == set()
        assert supervisor.drained == {}
    kinds = [event.kind for event in house.log.events]
    assert [kind for kind in kinds if kind in (EventKind.PORT_DRAINED, EventKind.PORT_RESUMED)] == [
        EventKind.PORT_DRAINED,
        EventKind.PORT_RESUMED,
    ]


async def test_a_drained_port_logs_in_no_more() -> None:
    house = House()
    async with house.running() as supervisor:
        await house.connected(4)
        await supervisor.drain(A)
        gone = next(item.host for item in house.initiator.made if item.local_port == A)
        house.initiator.drop(gone)
        await house.until(lambda seen: PairStatus.DRAINED in statuses(seen))
        pair = next(pair for pair in supervisor.snapshot().pairs if pair.status is PairStatus.DRAINED)
        assert pair.reason == f"{A} is drained; 'srpha resume {A}' ends that"
        await asyncio.sleep(200)
        assert len(house.initiator.made) == 3
        await supervisor.resume(A)
        assert await house.connected(4) < 3


async def test_the_last_path_of_a_map_is_not_taken_unless_the_map_is_named() -> None:
    house = House()
    async with house.running() as supervisor:
        await house.connected(4)
        await supervisor.drain(A)
        with pytest.raises(DrainRefusedError, match=r"mpatha would be left without a healthy path .* --force mpatha"):
            await supervisor.drain(B)
        assert list(supervisor.drained) == [A]
        with pytest.raises(DrainRefusedError, match="there is no map mpathz"):
            await supervisor.drain(B, ["mpathz"])
        await supervisor.drain(B, ["mpatha"])
        assert supervisor.drained == {A: (), B: ("mpatha",)}
        assert len(house.paths.failed) == 4


async def test_two_drains_at_once_do_not_count_on_each_other() -> None:
    house = House()
    async with house.running() as supervisor:
        await house.connected(4)
        results = await asyncio.gather(supervisor.drain(A), supervisor.drain(B), return_exceptions=True)
        assert [type(result) for result in results].count(DrainRefusedError) == 1


async def test_a_dead_other_path_does_not_count() -> None:
    house = House()
    async with house.running() as supervisor:
        await house.connected(4)
        house.paths.failed.update(devices(house, B))
        with pytest.raises(DrainRefusedError, match="without a healthy path"):
            await supervisor.drain(A)
        assert house.paths.calls == []


async def test_a_path_that_comes_back_into_use_is_held_again() -> None:
    house = House()
    async with house.running() as supervisor:
        await house.connected(4)
        await supervisor.drain(A)
        one = devices(house, A)[0]
        house.paths.failed.discard(one)
        house.paths.hint()
        await asyncio.sleep(0.1)
        assert one in house.paths.failed


async def test_drains_outlive_the_daemon() -> None:
    house = House()
    async with house.running() as supervisor:
        await house.connected(4)
        await supervisor.drain(A)
        drained = supervisor.drained
    house.supervisor = house.make()
    house.supervisor.restore_drains(drained)
    async with house.running() as supervisor:
        await house.until(lambda seen: seen.settled)
        await asyncio.sleep(10)
        assert sorted(house.paths.failed) == sorted(devices(house, A))
        await supervisor.resume(A)
        assert house.paths.failed == set()


async def test_what_cannot_be_reinstated_yet_is_when_it_runs() -> None:
    house = House()
    async with house.running() as supervisor:
        await house.connected(4)
        await supervisor.drain(A)
        blocked = next(item.host for item in house.initiator.made if item.local_port == A)
        house.initiator.edit(blocked, state=RemotePortState.BLOCKED)
        report = await supervisor.resume(A)
        assert len(report.paths) == 1
        await asyncio.sleep(10)
        assert len(house.paths.failed) == 1
        house.initiator.edit(blocked, state=RemotePortState.RUNNING)
        await asyncio.sleep(1)
        assert house.paths.failed == set()


async def test_refusals() -> None:
    house = House()
    async with house.running() as supervisor:
        await house.connected(4)
        with pytest.raises(DrainRefusedError, match="there is no local port 'mlx5_9/1'; there are mlx5_0/1, mlx5_1/1"):
            await supervisor.drain("mlx5_9/1")
        with pytest.raises(DrainRefusedError, match=r"mlx5_0/1 is not drained$"):
            await supervisor.resume(A)
        house.paths.unreadable = True
        with pytest.raises(DrainRefusedError, match="nothing is changed: multipathd does not answer"):
            await supervisor.drain(A)
        house.paths.unreadable = False
        house.initiator.unreadable = True
        with pytest.raises(DrainRefusedError, match="nothing is changed: sysfs is not to be read"):
            await supervisor.drain(A)
        assert supervisor.drained == {}


async def test_paths_that_multipath_will_not_give_up_are_told() -> None:
    house = House()

    async def refuse(device: str) -> None:
        raise PathManagerError(f"multipathd refused {device}")

    async with house.running() as supervisor:
        await house.connected(4)
        house.paths.hold_path = refuse  # type: ignore[method-assign]
        report = await supervisor.drain(A)
        assert report.paths == ()
        assert len(report.refused) == 2
