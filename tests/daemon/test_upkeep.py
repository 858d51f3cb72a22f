from __future__ import annotations

import asyncio

from fake_seams import FakeInitiator, Log
from storage import connection

from srpha.core.connections.pairs import Pair, PairKey, PairStatus
from srpha.core.recovery.remote_port import RemotePortTimers
from srpha.core.seams import Connection, InitiatorError
from srpha.core.targets.target_port import TargetPort
from srpha.daemon.settings import Settings
from srpha.daemon.upkeep import Upkeep

WANTED = Settings(timers=RemotePortTimers(5, 5, 60))


def pair(item: Connection, *, ours: bool = True, status: PairStatus = PairStatus.CONNECTED) -> Pair:
    assert item.dgid is not None
    target = TargetPort(item.id_ext, item.ioc_guid, item.dgid, 3, 0xFFFF)
    key = PairKey(item.local_port, item.id_ext, item.ioc_guid, item.dgid, 0)
    return Pair(key, status, "", target, "", host=item.host, ours=ours)


def make() -> tuple[Upkeep, FakeInitiator, Connection, Log]:
    item = connection(1)
    initiator, log = FakeInitiator(("mlx5_0/1",), made=[item]), Log()
    return Upkeep(initiator, log), initiator, item, log


async def test_timers_only_where_ours_and_different() -> None:
    upkeep, initiator, item, _ = make()
    assert not await upkeep.set_timers([pair(item, ours=False)], [item], WANTED)
    assert not await upkeep.set_timers([pair(item, status=PairStatus.REMOVING)], [item], WANTED)
    assert not await upkeep.set_timers([pair(item)], [item], Settings())
    assert not await upkeep.set_timers([pair(item)], [], WANTED)
    assert await upkeep.set_timers([pair(item)], [item], WANTED)
    assert initiator.timer_sets == [(1, WANTED.timers)]
    assert not await upkeep.set_timers([pair(item)], initiator.made, WANTED)


async def test_refused_timers_rest_for_a_minute() -> None:
    upkeep, initiator, item, log = make()
    initiator.timers_refused = True
    for _ in range(3):
        assert not await upkeep.set_timers([pair(item)], [item], WANTED)
        await asyncio.sleep(10)
    assert len(log.events) == 1
    initiator.timers_refused = False
    await asyncio.sleep(60)
    assert await upkeep.set_timers([pair(item)], [item], WANTED)


async def test_removal_only_of_ours_and_of_the_departed() -> None:
    upkeep, initiator, item, log = make()
    gone = {pair(item).key.dgid.guid}
    assert not await upkeep.remove_departed([pair(item, ours=False)], gone)
    assert not await upkeep.remove_departed([pair(item)], {5})
    assert not await upkeep.remove_departed([pair(item, status=PairStatus.REMOVING)], gone)
    assert await upkeep.remove_departed([pair(item)], gone)
    assert initiator.removed == [1]

    async def refuse(_host: int) -> None:
        raise InitiatorError("busy")

    initiator.remove = refuse  # type: ignore[method-assign]
    for _ in range(2):
        assert not await upkeep.remove_departed([pair(item)], gone)
    assert [event.text.endswith("host1 could not be removed: busy") for event in log.events] == [True]
