"""What the supervisor makes of ports that change, subnet managers that go, and notices."""

from __future__ import annotations

import asyncio

import pytest
from fake_seams import is_report_response
from house import House, pair_of, statuses

from scripted_subnet import ScriptedSubnet, srp_unit
from srpha.core.connections.pairs import PairStatus
from srpha.core.discovery.scan_result import Standing
from srpha.core.events import EventKind
from srpha.core.seams import LinkState
from srpha.daemon.settings import Settings
from srpha.wire.dm import ServiceEntry
from srpha.wire.identifiers import Gid
from srpha.wire.mad import ManagementClass
from srpha.wire.notice import CapabilityTrap144, GidTrap, TrapNumber
from srpha.wire.sa import SaAttribute
from srpha.wire.smp import PortCapability


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
