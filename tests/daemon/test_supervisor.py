from __future__ import annotations

import asyncio
import errno
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from fake_seams import FakeInitiator, FakeMadPort, FakePathManager, Log, is_report_response

from scripted_subnet import Ioc, ScriptedSubnet, Unit, local_port, srp_unit
from srpha.core.add_target import parse_target_line
from srpha.core.attempts import BackOff
from srpha.core.events import EventKind
from srpha.core.pairs import Pair, PairStatus
from srpha.core.remote_port import RemotePortState, RemotePortTimers
from srpha.core.rules import Rule, parse_rules
from srpha.core.scan_result import Standing
from srpha.core.seams import AddTargetError, LinkState
from srpha.daemon.settings import Settings, TimerClass
from srpha.daemon.snapshot import Snapshot
from srpha.daemon.supervisor import Supervisor
from srpha.wire.dm import DmAttribute, ServiceEntry
from srpha.wire.identifiers import Gid
from srpha.wire.mad import ManagementClass
from srpha.wire.notice import CapabilityTrap144, GidTrap, TrapNumber
from srpha.wire.sa import SaAttribute
from srpha.wire.smp import PortCapability

REJECTED = AddTargetError(errno.ECONNRESET, "the target port rejected the login")


class House:
    """A host with its seams, and a supervisor over them."""

    def __init__(self, ports: int = 2, targets: int = 2, settings: Settings | None = None) -> None:
        identities = [local_port(number) for number in range(1, ports + 1)]
        self.subnet = ScriptedSubnet(ports=identities, units=[srp_unit(n) for n in range(1, targets + 1)])
        self.ports = [FakeMadPort(identity, self.subnet) for identity in identities]
        self.initiator = FakeInitiator(tuple(port.name for port in self.ports))
        self.paths = FakePathManager(self.initiator)
        self.settings = settings or Settings()
        self.log = Log()
        self.supervisor = self.make()

    def make(self) -> Supervisor:
        return Supervisor(self.ports, self.initiator, self.paths, self.settings, self.log)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Supervisor]:
        task = asyncio.ensure_future(self.supervisor.run())
        try:
            yield self.supervisor
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is not None:
                raise task.exception()  # type: ignore[misc]

    async def until(self, what: Callable[[Snapshot], bool], limit: float = 30.0) -> float:
        """Wait until the snapshot is as wished; how long it took."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        while not what(self.supervisor.snapshot()):
            assert loop.time() - start < limit, self.supervisor.snapshot()
            await asyncio.sleep(0.005)
        return loop.time() - start

    async def connected(self, count: int, limit: float = 30.0) -> float:
        return await self.until(
            lambda seen: statuses(seen).count(PairStatus.CONNECTED) == count and seen.settled, limit
        )


def statuses(seen: Snapshot) -> list[PairStatus]:
    return [pair.status for pair in seen.pairs]


def pair_of(seen: Snapshot, port: str, number: int) -> Pair:
    unit = srp_unit(number)
    return next(p for p in seen.pairs if p.key.local_port == port and p.key.dgid == unit.gid)


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


class TestLocalPort:
    async def test_down_fails_paths_at_once_and_up_restores_them(self) -> None:
        house = House(ports=2, targets=1)
        async with house.running():
            await house.connected(2)
            now = asyncio.get_running_loop().time()
            house.ports[0].change(state=LinkState.DOWN)
            await house.until(lambda _: bool(house.paths.calls))
            ((when, what, device),) = house.paths.calls
            host = pair_of(house.supervisor.snapshot(), "mlx5_0/1", 1).host
            assert when - now < 0.1
            assert (what, device) == ("fail", "sd" + chr(ord("a") + (host or 0) - 1))
            await asyncio.sleep(30)
            assert len(house.paths.calls) == 1
            assert len(house.initiator.made) == 2
            house.ports[0].change(state=LinkState.ACTIVE)
            await house.until(lambda _: len(house.paths.calls) == 2)
            assert house.paths.calls[1][1:] == ("reinstate", device)
            await asyncio.sleep(0.1)
        assert {
            EventKind.PORT_DOWN,
            EventKind.PORT_UP,
            EventKind.PATH_FAILED,
            EventKind.PATH_RESTORED,
        } <= house.log.kinds()

    async def test_last_path_is_left_alone(self) -> None:
        house = House(ports=1, targets=1)
        async with house.running():
            await house.connected(1)
            house.ports[0].change(state=LinkState.DOWN)
            await asyncio.sleep(10)
            assert house.paths.calls == []

    async def test_path_manager_that_takes_a_path_back_is_not_fought(self) -> None:
        house = House(ports=2, targets=1)
        async with house.running():
            await house.connected(2)
            house.ports[0].change(state=LinkState.DOWN)
            await house.until(lambda _: bool(house.paths.calls))
            house.paths.failed.clear()
            await asyncio.sleep(30)
            assert len(house.paths.calls) == 1

    async def test_port_that_is_down_at_first_joins_when_it_comes_up(self) -> None:
        house = House(ports=2, targets=1)
        house.ports[1].change(state=LinkState.INIT)
        async with house.running():
            await house.connected(1)
            assert house.supervisor.snapshot().ports[1].reason == "the port is init"
            house.ports[1].change(state=LinkState.ACTIVE)
            assert await house.connected(2) < 3

    @pytest.mark.parametrize("change", [{"lid": 77}, {"pkeys": (0xFFFF, 0x8001)}])
    async def test_moved_port_is_scanned_and_subscribed_again(self, change: dict[str, object]) -> None:
        house = House(ports=1, targets=1)
        async with house.running():
            await house.connected(1)
            await asyncio.sleep(5)
            before, subscribed = len(house.log.of(EventKind.SCAN_FINISHED)), house.ports[0].subscriptions()
            house.ports[0].change(**change)
            await asyncio.sleep(1)
            assert len(house.log.of(EventKind.SCAN_FINISHED)) == before + 1
            assert house.ports[0].subscriptions() == subscribed + 3
            assert len(house.log.of(EventKind.PORT_CHANGED)) == 1

    async def test_hint_without_a_change_renews_subscriptions(self) -> None:
        house = House(ports=1, targets=1)
        async with house.running():
            await house.connected(1)
            house.ports[0].hint()
            await asyncio.sleep(0.1)
            assert house.ports[0].subscriptions() == 6

    async def test_what_came_before_a_late_subscription_is_found_by_the_scan_that_follows_it(self) -> None:
        house = House(ports=1, targets=2)
        joining = house.subnet.units.pop()
        house.subnet.failing.add(SaAttribute.INFORM_INFO)  # not yet: the SA is still busy with its first sweep
        async with house.running():
            await house.connected(1)
            assert not house.supervisor.snapshot().ports[0].subscribed
            house.subnet.units.append(joining)  # no notice: nobody has subscribed
            house.subnet.failing.clear()
            assert await house.connected(2) < house.settings.scan_interval / 2
            assert house.supervisor.snapshot().ports[0].subscribed

    async def test_start_costs_one_scan_after_the_subscriptions(self) -> None:
        house = House()
        async with house.running():
            await house.connected(4)
            await asyncio.sleep(30)
            assert len(house.log.of(EventKind.SCAN_FINISHED)) == 1

    async def test_lost_hint_is_made_good_by_the_poll(self) -> None:
        house = House(ports=2, targets=1)
        async with house.running():
            await house.connected(2)
            house.ports[0].hints.clear()
            house.ports[0].change(state=LinkState.DOWN)
            assert await house.until(lambda seen: not seen.ports[0].usable) < 2.1

    async def test_device_that_goes_away_and_comes_back(self) -> None:
        house = House(ports=2, targets=1)
        async with house.running():
            await house.connected(2)
            identity, house.ports[0].current = house.ports[0].current, None
            house.ports[0].hint()
            await house.until(lambda seen: seen.ports[0].identity is None)
            house.ports[0].current = identity
            house.ports[0].hint()
            await house.connected(2)


class TestSubnetManager:
    async def test_gone_and_back(self) -> None:
        house = House(ports=2, targets=2)
        async with house.running():
            await house.connected(4)
            house.subnet.sa_silent = True
            await asyncio.sleep(150)
            seen = house.supervisor.snapshot()
            assert statuses(seen) == [PairStatus.CONNECTED] * 4
            assert all(target.standing is Standing.FOUND for target in seen.targets)
            assert len(house.log.of(EventKind.SCAN_FAILED)) >= 2
            assert house.log.of(EventKind.TARGET_LEFT) == []
            house.subnet.sa_silent = False
            house.subnet.units.append(srp_unit(3))
            await house.connected(6, 70)

    async def test_another_port_takes_over_the_asking(self) -> None:
        house = House(ports=2, targets=2)
        house.subnet.sa_silent_to.add("mlx5_0/1")
        async with house.running():
            await house.until(lambda seen: statuses(seen).count(PairStatus.CONNECTED) == 2)
            await house.until(lambda seen: bool(seen.scans))
            assert house.supervisor.snapshot().scans[0].asker == "mlx5_1/1"
            house.subnet.log.clear()
            await asyncio.sleep(60)
            asked = [port for port, _, _, what, _ in house.subnet.log if what == SaAttribute.CLASS_PORT_INFO]
            assert asked == ["mlx5_1/1"]

    async def test_two_subnets_with_the_same_numbers(self) -> None:
        house = House(ports=2, targets=1)
        other = ScriptedSubnet(ports=[house.subnet.ports.pop()], units=[srp_unit(9)])
        house.ports[1].subnet = other
        async with house.running():
            await house.connected(2)
            seen = house.supervisor.snapshot()
            assert sorted(scan.members for scan in seen.scans) == [("mlx5_0/1",), ("mlx5_1/1",)]
            assert [(p.key.local_port, p.key.dgid) for p in seen.pairs] == [
                ("mlx5_0/1", srp_unit(1).gid),
                ("mlx5_1/1", srp_unit(9).gid),
            ]


class TestNotices:
    async def test_newcomer_costs_a_check_not_a_scan(self) -> None:
        house = House(ports=2, targets=1)
        async with house.running():
            await house.connected(2)
            await asyncio.sleep(5)
            house.subnet.log.clear()
            house.subnet.units.append(srp_unit(2))
            for port in house.ports:
                port.notice(GidTrap(TrapNumber.GID_IN_SERVICE, srp_unit(2).gid))
            assert await house.connected(4) < 0.5
            assert house.subnet.asked(ManagementClass.SUBN_ADM, SaAttribute.CLASS_PORT_INFO) == 0
            assert house.subnet.asked(ManagementClass.SUBN_ADM, SaAttribute.NODE_RECORD) <= 2
            assert all(is_report_response(mad) for port in house.ports for _, mad in port.replies)
            assert [len(port.replies) for port in house.ports] == [1, 1]

    async def test_capability_change_of_an_unknown_port(self) -> None:
        house = House(ports=1, targets=2)
        late = house.subnet.units[1]
        late.dm = False
        async with house.running():
            await house.connected(1)
            late.dm = True
            house.ports[0].notice(CapabilityTrap144(late.lid, int(PortCapability.DEVICE_MANAGEMENT)))
            assert await house.connected(2) < 0.5

    async def test_lost_notice_is_made_good_by_the_timer(self) -> None:
        house = House(ports=1, targets=1)
        async with house.running():
            await house.connected(1)
            house.subnet.units.append(srp_unit(2))
            assert 50 < await house.connected(2, 61) < 61

    async def test_departure_is_verified_and_left_to_the_timers(self) -> None:
        house = House(ports=1, targets=2)
        async with house.running():
            await house.connected(2)
            left = house.subnet.units.pop()
            house.ports[0].notice(GidTrap(TrapNumber.GID_OUT_OF_SERVICE, left.gid))
            await house.until(lambda seen: any(t.standing is Standing.GONE for t in seen.targets), 0.5)
            await house.until(lambda _: bool(house.paths.calls), 0.5)
            await asyncio.sleep(10)
            assert house.paths.calls[0][1] == "fail"
            assert house.initiator.removed == []
            assert pair_of(house.supervisor.snapshot(), "mlx5_0/1", 2).status is PairStatus.CONNECTED
            house.subnet.units.append(left)
            house.ports[0].notice(GidTrap(TrapNumber.GID_IN_SERVICE, left.gid))
            await house.until(lambda _: len(house.paths.calls) == 2, 0.5)
            assert house.paths.calls[1][1] == "reinstate"
        assert len(house.log.of(EventKind.TARGET_LEFT)) == 1

    async def test_false_departure_changes_nothing(self) -> None:
        house = House(ports=1, targets=2)
        async with house.running():
            await house.connected(2)
            house.ports[0].notice(GidTrap(TrapNumber.GID_OUT_OF_SERVICE, house.subnet.units[0].gid))
            await asyncio.sleep(5)
            assert house.paths.calls == []
            assert all(t.standing is Standing.FOUND for t in house.supervisor.snapshot().targets)

    async def test_departed_target_is_removed_only_when_asked(self) -> None:
        house = House(ports=1, targets=2, settings=Settings(remove_departed=True))
        async with house.running():
            await house.connected(2)
            left = house.subnet.units.pop()
            house.ports[0].notice(GidTrap(TrapNumber.GID_OUT_OF_SERVICE, left.gid))
            await house.until(lambda seen: PairStatus.TARGET_LEFT in statuses(seen), 1)
            assert len(house.initiator.removed) == 1

    async def test_flood_becomes_one_scan(self) -> None:
        house = House(ports=1, targets=1)
        async with house.running():
            await house.connected(1)
            await asyncio.sleep(5)
            before = house.supervisor.snapshot().totals
            for number in range(1000):
                house.ports[0].notice(GidTrap(TrapNumber.GID_IN_SERVICE, Gid(0xFE80 << 48, 5000 + number)))
            await asyncio.sleep(10)
            after = house.supervisor.snapshot().totals
            assert after.scans - before.scans <= 2
            assert after.probes - before.probes <= 16

    async def test_stream_of_notices_is_held_down(self) -> None:
        house = House(ports=1, targets=1)
        async with house.running():
            await house.connected(1)
            before = house.supervisor.snapshot().totals
            for _ in range(1000):
                house.ports[0].notice(GidTrap(TrapNumber.GID_IN_SERVICE, house.subnet.units[0].gid))
                await asyncio.sleep(0.01)
            after = house.supervisor.snapshot().totals
            assert after.probes - before.probes <= 60
            assert after.scans - before.scans <= 6

    @pytest.mark.parametrize("mad", [b"", b"\0" * 256, b"\x01\x03\x02\x06" + b"\0" * 252, b"\xff" * 300])
    async def test_malformed_reports_are_dropped(self, mad: bytes) -> None:
        house = House(ports=1, targets=1)
        async with house.running():
            await house.connected(1)
            house.ports[0].deliver(mad)
            await asyncio.sleep(1)
            assert house.log.of(EventKind.NOTICE) == []

    async def test_restarted_target_with_a_new_service_is_asked_in_full(self) -> None:
        house = House(ports=1, targets=1)
        async with house.running():
            await house.connected(1)
            unit = house.subnet.units[0]
            unit.iocs[0].services.append(ServiceEntry.of_srp(0x77, 0x77))  # same change ID
            house.ports[0].notice(GidTrap(TrapNumber.GID_IN_SERVICE, unit.gid))
            await house.connected(2, 1)


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
    from srpha.core.target_port import TargetPort

    port = TargetPort(service.id_ext or 0, 1, target.gid, 1, 0xFFFF)
    assert settings.timers_for(port) == a
    assert Settings().timers_for(port) is None
