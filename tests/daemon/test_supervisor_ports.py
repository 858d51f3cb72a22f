"""Local ports that come and go while the supervisor works."""

from __future__ import annotations

import asyncio

from fake_seams import FakeMadPort
from house import House

from scripted_subnet import local_port
from srpha.core.connections.pairs import PairStatus
from srpha.core.events import EventKind
from srpha.core.seams import MadPort


def names(house: House) -> list[str]:
    return [port.name for port in house.supervisor.snapshot().ports]


async def test_port_that_comes_later_is_connected_too() -> None:
    house = House()
    late = house.ports.pop()
    house.supervisor = house.make()
    async with house.running():
        await house.connected(2)
        house.supervisor.set_ports([*house.ports, late])
        assert await house.connected(4) < 3
        assert names(house) == [house.ports[0].name, late.name]
        assert late.subscriptions() > 0
    assert len(house.log.of(EventKind.PORT_UP)) == 2


async def test_no_port_at_first() -> None:
    house = House()
    ports: list[MadPort] = list(house.ports)
    house.ports = []
    house.supervisor = house.make()
    async with house.running():
        await asyncio.sleep(100)
        assert house.supervisor.snapshot().pairs == ()
        house.supervisor.set_ports(ports)
        await house.connected(4, limit=5)


async def test_ports_set_before_it_runs_count() -> None:
    house = House()
    house.supervisor.set_ports(house.ports[:1])
    async with house.running():
        await house.connected(2)


async def test_port_that_goes_is_looked_after_no_longer_and_its_connections_stay() -> None:
    house = House()
    async with house.running():
        await house.connected(4)
        gone, stays = house.ports
        house.supervisor.set_ports([stays])
        seen = house.supervisor.snapshot()
        assert [port.name for port in seen.ports] == [stays.name]
        await asyncio.sleep(5)
        seen = house.supervisor.snapshot()
        assert {pair.key.local_port for pair in seen.pairs} == {stays.name}
        assert seen.connections is not None
        assert len(seen.connections) == 4
        assert len(seen.others) == 2
        assert not gone.hints
        assert not gone.receivers
        assert house.initiator.removed == []
        (event,) = house.log.of(EventKind.PORT_DOWN)
        assert event.text == f"{gone.name} is down: it is not there any more"


async def test_same_ports_again_change_nothing() -> None:
    house = House()
    async with house.running():
        await house.connected(4)
        before = len(house.log.events)
        house.supervisor.set_ports(house.ports)
        await asyncio.sleep(5)
        assert house.log.events[before:] == []


async def test_port_goes_during_its_login_and_comes_back_as_another_object() -> None:
    house = House(targets=1)
    here, there = house.ports
    house.initiator.hangs.add(here.name)
    async with house.running():
        await house.until(lambda seen: any(pair.status is PairStatus.CONNECTING for pair in seen.pairs))
        house.supervisor.set_ports([there])
        await asyncio.sleep(1)
        assert here.name not in house.initiator.busy
        house.initiator.hangs.clear()
        again = FakeMadPort(local_port(1), house.subnet)
        assert again.name == here.name
        house.supervisor.set_ports([again, there])
        await house.connected(2, limit=5)
        assert len(house.initiator.made) == 2
        assert not here.hints
        assert len(again.hints) == 1
