from __future__ import annotations

import asyncio
import errno
import itertools
from dataclasses import replace

import pytest
from house import House, pair_of, statuses

from scripted_subnet import Ioc, Unit, srp_unit
from srpha.core.connections.attempts import BackOff
from srpha.core.connections.pairs import PairStatus
from srpha.core.discovery.scan_result import Standing
from srpha.core.events import EventKind
from srpha.core.recovery.remote_port import RemotePortState, RemotePortTimers
from srpha.core.seams import AddTargetError
from srpha.core.targets.add_target import parse_target_line
from srpha.core.targets.rules import Rule, parse_rules
from srpha.daemon.settings import Settings, TimerClass
from srpha.wire.dm import DmAttribute, ServiceEntry
from srpha.wire.mad import ManagementClass
from srpha.wire.notice import GidTrap, TrapNumber
from srpha.wire.sa import SaAttribute

REJECTED = AddTargetError(errno.ECONNRESET, "the target port rejected the login")


async def test_every_port_is_connected_to_every_target() -> None:
    house = House()
    async with house.running():
        assert await house.connected(4) < 0.5
        seen = house.supervisor.snapshot()
        assert [len(scan.members) for scan in seen.scans] == [2]
        assert house.subnet.asked(ManagementClass.SUBN_ADM, SaAttribute.PORT_INFO_RECORD) == 1
        assert all(pair.ours for pair in seen.pairs)
        assert all(port.subscribed for port in seen.ports)
        assert seen.maps is not None
        assert len(seen.maps[0].paths) == 4
        assert len(house.initiator.lines) == 4
    assert {
        EventKind.PORT_UP,
        EventKind.SCAN_FINISHED,
        EventKind.TARGET_FOUND,
        EventKind.CONNECTED,
    } <= house.log.kinds()
    assert len(house.log.of(EventKind.CONNECTED)) == 4
    assert len(house.initiator.made) == 4


async def test_quiet_host_stays_as_it_is() -> None:
    house = House()
    async with house.running():
        await house.connected(4)
        before = len(house.log.events)
        house.subnet.log.clear()
        await asyncio.sleep(200)
        assert {event.kind for event in house.log.events[before:]} == {EventKind.SCAN_FINISHED}
        assert house.subnet.asked(ManagementClass.DEVICE_MGMT, DmAttribute.IO_CONTROLLER_PROFILE) == 0
        assert len(house.initiator.lines) == 4


async def test_silent_target_does_not_hold_up_the_others() -> None:
    house = House(targets=3)
    house.subnet.units[0].silent = True
    async with house.running():
        await house.until(lambda seen: statuses(seen).count(PairStatus.CONNECTED) == 4, 0.5)
        await house.until(lambda seen: any(t.standing is Standing.SILENT for t in seen.targets))
        house.subnet.units[0].silent = False
        assert await house.connected(6) < 10


async def test_hostile_names_are_told_and_never_used() -> None:
    house = House(ports=1, targets=0)
    bad = ServiceEntry(name=b"SRP.T10:1,ch_count=9999", service_id=1)
    house.subnet.units.append(Unit(guid=5, lid=50, iocs=[Ioc(guid=6, services=[bad])]))
    async with house.running():
        await house.until(lambda seen: seen.settled)
        await asyncio.sleep(100)
    assert house.initiator.lines == []
    (event,) = house.log.of(EventKind.TARGET_REFUSED)
    assert "does not hold 16 hex digits" in event.text


async def test_rules_decide_and_can_be_changed() -> None:
    house = House(ports=1, settings=Settings(rules=parse_rules(["d"], "rules")))
    async with house.running():
        await house.until(lambda seen: statuses(seen) == [PairStatus.DISALLOWED] * 2)
        assert len(house.log.of(EventKind.TARGET_REFUSED)) == 2
        house.supervisor.apply(Settings())
        await house.connected(2)


async def test_dry_run_connects_nothing() -> None:
    house = House(settings=Settings(connect=False))
    async with house.running():
        await house.until(lambda seen: seen.settled)
        assert statuses(house.supervisor.snapshot()) == [PairStatus.DUE] * 4
    assert house.initiator.lines == []


class TestRestart:
    async def test_connections_are_adopted_and_nothing_is_doubled(self) -> None:
        house = House()
        async with house.running():
            await house.connected(4)
        house.supervisor = house.make()
        async with house.running():
            await house.connected(4)
            assert all(pair.ours for pair in house.supervisor.snapshot().pairs)
        assert len(house.initiator.lines) == 4
        assert len(house.log.of(EventKind.CONNECTION_ADOPTED)) == 4

    async def test_foreign_connections_are_shown_and_left_alone(self) -> None:
        house = House(ports=1, targets=1)
        foreign = parse_target_line("id_ext=1,ioc_guid=2,dgid=" + "fe80" + "0" * 27 + "9,pkey=ffff,service_id=3")
        house.initiator.connect("mlx5_0/1", foreign)
        async with house.running():
            await house.connected(1)
            (other,) = house.supervisor.snapshot().others
            assert (other.host, other.reason) == (1, "discovery knows no such target port")
        assert [item.host for item in house.initiator.made] == [1, 2]

    async def test_connection_made_by_another_meanwhile(self) -> None:
        house = House(ports=1, targets=1)
        house.initiator.login_time = 0.5
        async with house.running():
            await house.until(lambda _: bool(house.initiator.lines))
            house.initiator.connect("mlx5_0/1", parse_target_line(house.initiator.lines[0][2]))
            await house.connected(1)
        assert len(house.initiator.made) == 1
        assert house.log.of(EventKind.CONNECT_FAILED) == []


class TestFailedLogins:
    @pytest.mark.parametrize(
        "code", [errno.ECONNRESET, errno.ETIMEDOUT, errno.ENOENT, errno.ENODEV, errno.EHOSTUNREACH]
    )
    async def test_other_targets_go_on_and_the_reason_is_kept(self, code: int) -> None:
        house = House(ports=1, targets=2)
        house.initiator.errors = [AddTargetError(code, "no luck")]
        async with house.running():
            await house.until(lambda seen: sorted(s.value for s in statuses(seen)) == ["backing-off", "connected"])
            pair = next(p for p in house.supervisor.snapshot().pairs if p.status is PairStatus.BACKING_OFF)
            assert pair.reason == "no luck"
            assert pair.failures == 1
            assert 2.5 < await house.connected(2) < 3.5
        (event,) = house.log.of(EventKind.CONNECT_FAILED)
        assert event.fields["errno"] == errno.errorcode[code]

    async def test_back_off_grows_and_a_notice_ends_it(self) -> None:
        house = House(ports=1, targets=1)
        house.initiator.always = REJECTED
        async with house.running():
            await asyncio.sleep(100)
            times = [time for time, _, _ in house.initiator.lines]
            assert [round(b - a) for a, b in itertools.pairwise(times)] == [3, 6, 12, 24, 48]
            house.initiator.always = None
            house.ports[0].notice(GidTrap(TrapNumber.GID_IN_SERVICE, house.subnet.units[0].gid))
            assert await house.connected(1) < 1

    async def test_invalid_line_waits_long(self) -> None:
        house = House(ports=1, targets=1)
        house.initiator.always = AddTargetError(errno.EINVAL, "unknown parameter")
        async with house.running():
            await asyncio.sleep(100)
        assert len(house.initiator.lines) == 2

    async def test_login_whose_connection_is_gone_at_once_has_failed(self) -> None:
        house = House(ports=1, targets=1)
        house.initiator.loses = 1
        async with house.running():
            await house.until(lambda seen: PairStatus.BACKING_OFF in statuses(seen))
            assert "gone when it was looked for" in house.supervisor.snapshot().pairs[0].reason
            await house.connected(1)

    async def test_host_that_is_not_to_be_seen_but_blocks(self) -> None:
        house = House(ports=1, targets=1)
        house.initiator.hidden_until = 5.0
        async with house.running():
            await house.connected(1)
            assert asyncio.get_running_loop().time() < 5.7
        assert house.log.of(EventKind.CONNECT_FAILED) == []

    async def test_hanging_login_blocks_its_port_only(self) -> None:
        house = House(settings=Settings(login_deadline=5.0))
        house.initiator.hangs.add("mlx5_0/1")
        async with house.running():
            await house.until(lambda seen: statuses(seen).count(PairStatus.CONNECTED) == 2, 1)
            await house.until(lambda seen: PairStatus.BACKING_OFF in statuses(seen))
            assert "still hangs after 5 s" in house.log.of(EventKind.CONNECT_FAILED)[0].text
            await asyncio.sleep(30)
        assert sum(1 for _, port, _ in house.initiator.lines if port == "mlx5_0/1") == 1

    async def test_dead_target_never_gets_into_the_line(self) -> None:
        house = House(ports=1, targets=2)
        async with house.running():
            await house.connected(2)
            house.subnet.units[0].silent = True
            house.initiator.login_time = 60.0
            house.initiator.lose(1)
            house.initiator.lose(2)
            await asyncio.sleep(1.0)
            house.initiator.login_time = 0.01
            targets = [line for _, _, line in house.initiator.lines[2:]]
            assert len(targets) == 1
            assert house.subnet.units[1].gid.hex() in targets[0]

    async def test_unreadable_connections_are_not_none(self) -> None:
        house = House(ports=1, targets=1)
        async with house.running():
            await house.connected(1)
            house.initiator.unreadable = True
            await asyncio.sleep(100)
            seen = house.supervisor.snapshot()
            assert statuses(seen) == [PairStatus.CONNECTED]
            assert seen.troubles == ("the connections could not be read: sysfs is not to be read",)
        assert len(house.initiator.lines) == 1

    async def test_connections_never_readable_start_nothing(self) -> None:
        house = House(ports=1, targets=1)
        house.initiator.unreadable = True
        async with house.running():
            await asyncio.sleep(10)
            assert house.initiator.lines == []
            house.initiator.unreadable = False
            await house.connected(1)


class TestRemovalRace:
    async def test_login_follows_at_once_when_the_host_is_gone(self) -> None:
        house = House(ports=1, targets=1)
        house.initiator.removal_time = 7.0
        async with house.running():
            await house.connected(1)
            start = asyncio.get_running_loop().time()
            house.initiator.lose(1)
            await house.until(lambda seen: PairStatus.REMOVING in statuses(seen), 0.1)
            await house.connected(1)
            assert asyncio.get_running_loop().time() - start < 7.2
        assert len(house.initiator.lines) == 2

    async def test_without_hints_a_short_poll_sees_it(self) -> None:
        house = House(ports=1, targets=1)
        house.initiator.removal_time = 7.0
        async with house.running():
            await house.connected(1)
            house.initiator.hints.clear()
            house.initiator.edit(1, state=RemotePortState.LOST)
            house.initiator.lose(1)
            start = asyncio.get_running_loop().time()
            await asyncio.sleep(6.9)
            await house.connected(1)
            assert asyncio.get_running_loop().time() - start < 7.5

    async def test_blocked_and_fail_fast_are_left_to_the_driver(self) -> None:
        house = House(ports=1, targets=1)
        async with house.running():
            await house.connected(1)
            for state in (RemotePortState.BLOCKED, RemotePortState.FAIL_FAST):
                house.initiator.edit(1, state=state)
                await house.until(lambda seen: statuses(seen) == [PairStatus.RECOVERING])
                await asyncio.sleep(70)
            house.initiator.edit(1, state=RemotePortState.RUNNING)
            await house.connected(1)
        assert len(house.initiator.lines) == 1


class TestTimers:
    SHORT = RemotePortTimers(5, 5, 60)

    async def test_timers_of_the_class_are_set_and_kept(self) -> None:
        unit = srp_unit(1)
        fits = Rule(True, {"ioc_guid": unit.iocs[0].guid})
        house = House(ports=1, targets=2, settings=Settings(timer_classes=(TimerClass("array", fits, self.SHORT),)))
        async with house.running():
            await house.connected(2)
            await asyncio.sleep(1)
            ((host, timers),) = house.initiator.timer_sets
            assert timers == self.SHORT
            house.initiator.edit(host, timers=RemotePortTimers())
            await asyncio.sleep(3)
            assert len(house.initiator.timer_sets) == 2

    async def test_refused_timers_are_told_and_not_hammered(self) -> None:
        house = House(ports=1, targets=1, settings=Settings(timers=self.SHORT))
        house.initiator.timers_refused = True
        async with house.running():
            await house.connected(1)
            await asyncio.sleep(30)
        told = [event for event in house.log.of(EventKind.CONNECTION_STATE) if "timers" in event.text]
        assert len(told) == 1

    async def test_timers_of_foreign_connections_are_not_touched(self) -> None:
        house = House(ports=1, targets=0, settings=Settings(timers=self.SHORT))
        line = parse_target_line("id_ext=1,ioc_guid=2,dgid=" + "fe80" + "0" * 27 + "9,pkey=ffff,service_id=3")
        house.initiator.connect("mlx5_0/1", line)
        async with house.running():
            await asyncio.sleep(10)
        assert house.initiator.timer_sets == []


async def test_multipath_that_cannot_be_read_is_told() -> None:
    house = House(ports=1, targets=1)
    house.paths.unreadable = True
    async with house.running():
        await house.connected(1)
        seen = house.supervisor.snapshot()
        assert seen.maps is None
        assert seen.troubles == ("the multipath maps could not be read: multipathd does not answer",)


async def test_port_without_initiator_waits() -> None:
    house = House(ports=2, targets=1)
    house.initiator.names = ("mlx5_0/1",)
    async with house.running():
        await house.connected(1)
        assert pair_of(house.supervisor.snapshot(), "mlx5_1/1", 1).reason == "mlx5_1/1: no SRP initiator serves it"


async def test_two_runs_are_the_same() -> None:
    logs = []
    for _ in range(2):
        house = House(ports=2, targets=3, settings=Settings(back_off=BackOff(first=1.0)))
        house.initiator.errors = [REJECTED, replace_error(REJECTED)]
        start = asyncio.get_running_loop().time()
        async with house.running():
            await house.connected(6)
            house.initiator.lose(2)
            await asyncio.sleep(70)
        logs.append([(round(e.time - start, 6), e.kind, e.text) for e in house.log.events])
    assert logs[0] == logs[1]


def replace_error(error: AddTargetError) -> AddTargetError:
    return AddTargetError(error.errno, str(error))


def test_settings_pick_the_first_class() -> None:
    target = srp_unit(1)
    service = target.iocs[0].services[0]
    a, b = RemotePortTimers(1, 2, 3), RemotePortTimers(4, 5, 6)
    any_rule = Rule(True)
    settings = replace(Settings(), timer_classes=(TimerClass("a", any_rule, a), TimerClass("b", any_rule, b)))
    from srpha.core.targets.target_port import TargetPort

    port = TargetPort(service.id_ext or 0, 1, target.gid, 1, 0xFFFF)
    assert settings.timers_for(port) == a
    assert Settings().timers_for(port) is None
