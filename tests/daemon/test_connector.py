from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fake_seams import FakeInitiator, FakeMadPort

from scripted_subnet import ScriptedSubnet, local_port, srp_unit
from srpha.core.connections.pairs import PairKey
from srpha.core.discovery.dm_walk import Way
from srpha.core.discovery.scan_result import DmAgent
from srpha.core.seams import AddTargetError, InitiatorError
from srpha.core.targets.add_target import format_target_line
from srpha.core.targets.target_port import InitiatorExt, TargetPort
from srpha.daemon.connector import Connector, Login, LoginOutcome
from srpha.daemon.settings import Settings

PORT = local_port(1)


class Desk:
    """A connector over fakes."""

    def __init__(self, targets: int = 3, settings: Settings | None = None) -> None:
        self.subnet = ScriptedSubnet(ports=[PORT], units=[srp_unit(n) for n in range(1, targets + 1)])
        self.initiator = FakeInitiator((PORT.name,))
        self.outcomes: list[tuple[float, LoginOutcome]] = []
        self.unwanted: set[PairKey] = set()
        chosen = settings or Settings()
        self.connector = Connector(
            FakeMadPort(PORT, self.subnet),
            self.initiator,
            lambda: chosen,
            lambda key: key not in self.unwanted,
            lambda outcome: self.outcomes.append((asyncio.get_running_loop().time(), outcome)),
        )

    def login(self, number: int) -> Login:
        unit = srp_unit(number)
        target = TargetPort(number, unit.iocs[0].guid, unit.gid, 1, 0xFFFF)
        key = PairKey(PORT.name, number, target.ioc_guid, unit.gid, unit.guid)
        return Login(key, format_target_line(target.line(InitiatorExt())), Way(PORT, 0xFFFF), DmAgent(unit.lid))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.connector.run())
            yield
            task.cancel()

    def result(self, number: int) -> LoginOutcome:
        return next(outcome for _, outcome in self.outcomes if outcome.login.key.id_ext == number)


async def test_logins_go_one_after_the_other() -> None:
    desk = Desk()
    async with desk.running():
        for number in (1, 2, 3):
            desk.connector.submit(desk.login(number))
        await asyncio.sleep(1)
    assert [outcome.errno for _, outcome in desk.outcomes] == [0, 0, 0]
    assert len(desk.initiator.made) == 3


async def test_silent_target_takes_nobodys_turn() -> None:
    desk = Desk()
    desk.subnet.units[0].silent = True
    async with desk.running():
        for number in (1, 2, 3):
            desk.connector.submit(desk.login(number))
        await asyncio.sleep(0.1)
        assert [outcome.login.key.id_ext for _, outcome in desk.outcomes] == [2, 3]
        await asyncio.sleep(2)
    silent = desk.result(1)
    assert silent.errno == errno.EHOSTUNREACH
    assert silent.message.startswith("not tried, the target port does not answer: ")
    assert len(desk.initiator.lines) == 2


async def test_nonsense_is_no_sign_of_life() -> None:
    desk = Desk()
    desk.subnet.units[0].garbage = True
    async with desk.running():
        desk.connector.submit(desk.login(1))
        await asyncio.sleep(1)
    assert desk.result(1).errno == errno.EHOSTUNREACH
    assert desk.initiator.lines == []


async def test_errors_keep_their_number_and_sentence() -> None:
    desk = Desk()
    desk.initiator.errors = [
        AddTargetError(errno.ECONNRESET, "rejected: no resources"),
        InitiatorError("no add_target"),
    ]
    async with desk.running():
        desk.connector.submit(desk.login(1))
        desk.connector.submit(desk.login(2))
        await asyncio.sleep(1)
    assert (desk.result(1).errno, desk.result(1).message) == (errno.ECONNRESET, "rejected: no resources")
    assert (desk.result(2).errno, desk.result(2).message) == (errno.EIO, "no add_target")


async def test_login_no_longer_wanted_is_not_made() -> None:
    desk = Desk()
    login = desk.login(1)
    desk.unwanted.add(login.key)
    async with desk.running():
        desk.connector.submit(login)
        await asyncio.sleep(1)
    assert desk.result(1).errno == errno.ECANCELED
    assert desk.initiator.lines == []


async def test_login_past_its_deadline_is_told_and_still_holds_the_port() -> None:
    desk = Desk(settings=Settings(login_deadline=2.0))
    desk.initiator.login_time = 10.0
    async with desk.running():
        desk.connector.submit(desk.login(1))
        desk.connector.submit(desk.login(2))
        await asyncio.sleep(30)
    assert [(round(time), outcome.errno) for time, outcome in desk.outcomes] == [
        (2, errno.ETIMEDOUT),
        (12, errno.ETIMEDOUT),
    ]
    assert [round(time) for time, _, _ in desk.initiator.lines] == [0, 10]
