"""Targets that the configuration names, on ports that no subnet manager looks after."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace

from fake_seams import FakeInitiator
from house import House, statuses

from srpha.core.connections.pairs import PairStatus
from srpha.core.events import EventKind
from srpha.core.recovery.remote_port import RemotePortTimers
from srpha.core.seams import AddTargetError, Connection, LinkLayer, LinkState
from srpha.core.targets.add_target import TargetLine, address_gid
from srpha.core.targets.static_targets import parse_static_target
from srpha.daemon.settings import Settings

ID = "0002c90300ff0010"
TARGETS = tuple(
    parse_static_target(f"id_ext={ID},ioc_guid={ID},dest=192.0.2.{number}:5555", name=f"port {number}")
    for number in (1, 2)
)


class RdmaInitiator(FakeInitiator):
    """Connections over RDMA/CM, whose target port the kernel hides."""

    def connect(self, port: str, line: TargetLine) -> Connection | None:
        if line.dest is None:
            return super().connect(port, line)
        gid = address_gid(line.dest.host)
        made = super().connect(port, replace(line, dgid=gid))
        if made is not None:
            self.edit(made.host, dgid=None, orig_dgid=None, service_id=None, pkey=None, destination=gid)
        return made


def roce(settings: Settings | None = None) -> House:
    house = House(targets=0, settings=settings or Settings(static_targets=TARGETS))
    house.initiator = RdmaInitiator(tuple(port.name for port in house.ports))
    house.paths.initiator = house.initiator
    for port in house.ports:
        port.change(link_layer=LinkLayer.ETHERNET, lid=0, sm_lid=0)
    house.supervisor = house.make()
    return house


async def test_every_port_is_connected_to_every_target() -> None:
    house = roce()
    async with house.running():
        assert await house.connected(4) < 5
        lines = sorted((port, line) for _, port, line in house.initiator.lines)
    name = house.ports[0].name
    assert lines[0] == (name, f"id_ext={ID},ioc_guid={ID},dest=192.0.2.1:5555,initiator_ext=0000ffffc0000201")
    assert len(lines) == 4
    assert len(house.log.of(EventKind.CONNECTED)) == 4


async def test_another_daemon_adopts_them_and_makes_none_again() -> None:
    house = roce()
    async with house.running():
        await house.connected(4)
    house.supervisor = house.make()
    async with house.running():
        await house.connected(4)
        await asyncio.sleep(100)
    assert len(house.initiator.lines) == 4
    assert len(house.log.of(EventKind.CONNECTION_ADOPTED)) == 4


async def test_one_that_is_lost_is_made_again() -> None:
    house = roce()
    async with house.running():
        await house.connected(4)
        house.initiator.lose(2)
        await house.until(lambda seen: PairStatus.REMOVING in statuses(seen))
        assert await house.connected(4) < 2


async def test_a_link_that_is_down_is_waited_for() -> None:
    house = roce()
    first = house.ports[0]
    first.change(state=LinkState.DOWN)
    async with house.running():
        await house.until(
            lambda seen: sorted(s.value for s in statuses(seen)) == [*["connected"] * 2, *["port-down"] * 2]
        )
        first.change(state=LinkState.ACTIVE)
        assert await house.connected(4) < 2


async def test_a_refusal_backs_off_and_a_link_that_returns_ends_the_wait() -> None:
    house = roce(Settings(static_targets=TARGETS[:1]))
    house.initiator.always = AddTargetError(errno.ECONNRESET, "refused")
    async with house.running():
        await house.until(lambda seen: statuses(seen) == [PairStatus.BACKING_OFF] * 2)
        await asyncio.sleep(200)
        house.initiator.always = None
        for port in house.ports:
            port.change(state=LinkState.DOWN)
        await asyncio.sleep(0.1)
        for port in house.ports:
            port.change(state=LinkState.ACTIVE)
        assert await house.connected(2) < 2


async def test_timers_are_theirs_too_and_departure_is_not() -> None:
    timers = RemotePortTimers(6, 5, 600)
    house = roce(Settings(static_targets=TARGETS, timers=timers, remove_departed=True))
    async with house.running():
        await house.connected(4)
        await house.until(lambda seen: all(item.timers == timers for item in seen.connections or ()))
        await asyncio.sleep(100)
    assert house.initiator.removed == []


async def test_paths_over_a_port_without_a_subnet_manager_are_not_suspect() -> None:
    house = beside_discovery()
    house.ports[0].change(link_layer=LinkLayer.ETHERNET, lid=0, sm_lid=0)
    async with house.running():
        await house.connected(6)
        await asyncio.sleep(20)
    assert house.paths.calls == []


def beside_discovery() -> House:
    house = House(settings=Settings(static_targets=TARGETS))
    house.initiator = RdmaInitiator(tuple(port.name for port in house.ports))
    house.paths.initiator = house.initiator
    house.supervisor = house.make()
    return house


async def test_beside_targets_that_discovery_finds() -> None:
    house = beside_discovery()
    async with house.running():
        await house.connected(8)
