from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace

import pytest

from scripted_subnet import PREFIX, Ioc, ScriptedSubnet, Unit, local_port, srp_unit
from srpha.core.discovery.scan import Scan, UnitCheck
from srpha.core.discovery.scan_result import IoUnit, ScanResult, Standing
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.wire.class_port_info import ClassPortInfo
from srpha.wire.dm import DmAttribute, ServiceEntry
from srpha.wire.identifiers import Gid
from srpha.wire.mad import MadStatus, ManagementClass
from srpha.wire.sa import SaAttribute, SaStatus

SETTINGS = ScanSettings()
LATENCY = 0.001


@dataclass
class Run:
    """What driving a scan showed."""

    result: ScanResult
    end: float
    most_flying: int
    finished: dict[int, float] = field(default_factory=dict)


def drive(scan: Scan, subnet: ScriptedSubnet) -> Run:
    """Run a scan in a clock of its own: answers come after 1 ms, silence after all tries."""
    now, flying, most = 0.0, [], 0
    order = 0
    while not scan.done:
        for question in scan.questions(now):
            ask = question.ask
            assert len(ask.mad) == 256
            reply = subnet.reply(ask.port, ask.address, ask.mad)
            wait = LATENCY if reply is not None else ask.timeout * (ask.retries + 1)
            order += 1
            heapq.heappush(flying, (now + wait, order, question.number, reply))
        if scan.done:
            break
        lapsed = set(scan.lapsed())
        flying = [item for item in flying if item[2] not in lapsed]
        heapq.heapify(flying)
        most = max(most, len(flying))
        if flying and (scan.wake is None or flying[0][0] <= scan.wake):
            now, _, number, reply = heapq.heappop(flying)
            scan.answer(number, reply, now)
        else:
            assert scan.wake is not None
            now = scan.wake
    return Run(scan.result(now), now, most)


def scan(
    subnet: ScriptedSubnet,
    *,
    known: dict[int, IoUnit] | None = None,
    settings: ScanSettings = SETTINGS,
) -> Run:
    return drive(Scan(subnet.ports, known or {}, settings, 0.0), subnet)


def found(run: Run) -> dict[int, IoUnit]:
    return {unit.guid: unit for unit in run.result.units if unit.standing is Standing.FOUND}


def known_of(run: Run) -> dict[int, IoUnit]:
    return {unit.guid: unit for unit in run.result.units}


def test_finds_services_with_everything_a_login_needs() -> None:
    unit = srp_unit(1)
    subnet = ScriptedSubnet(ports=[local_port()], units=[unit])
    run = scan(subnet)
    assert run.result.complete
    assert run.result.reason == ""
    (seen,) = run.result.units
    assert seen.standing is Standing.FOUND
    assert (seen.gid, seen.lid, seen.node_guid) == (unit.gid, unit.lid, unit.guid + 1)
    assert seen.description == f"node of {unit.lid}"
    (service,) = seen.services
    target = service.at(seen.gid, 0xFFFF)
    assert target.ioc_guid == unit.iocs[0].guid
    assert target.service_id == unit.guid
    assert target.id_ext_text == f"{target.id_ext:016X}"
    assert (target.io_class, target.send_message_size, target.description) == (0x0100, 2116, "scripted")
    (reach,) = run.result.reach
    assert reach.known
    assert reach.pkeys[unit.guid] == (0xFFFF,)


def test_128_targets_within_20_dependent_round_trips() -> None:
    subnet = ScriptedSubnet(ports=[local_port(1), local_port(2)], units=[srp_unit(n) for n in range(1, 129)])
    run = scan(subnet)
    assert len(found(run)) == 128
    assert run.result.statistics.round_trips <= 20
    assert run.result.statistics.round_trips == 5
    assert run.end < 0.1
    assert run.most_flying <= SETTINGS.window


def test_several_controllers_and_more_than_four_services() -> None:
    unit = srp_unit(1, iocs=3, services=9)
    run = scan(ScriptedSubnet(ports=[local_port()], units=[unit]))
    (seen,) = run.result.units
    expected = [(entry.id_ext, ioc.guid) for ioc in unit.iocs for entry in ioc.services]
    assert [(service.id_ext, service.ioc_guid) for service in seen.services] == expected


def test_silent_unit_costs_only_its_own_time() -> None:
    units = [srp_unit(n) for n in range(1, 20)]
    units[3].silent = True
    run = scan(ScriptedSubnet(ports=[local_port()], units=units))
    assert len(found(run)) == 18
    silent = next(unit for unit in run.result.units if unit.standing is Standing.SILENT)
    assert silent.guid == units[3].guid
    assert silent.reason == "no answer from its Device Management agent, asked from mlx5_0/1"
    assert run.result.complete
    assert run.result.statistics.timeouts == 1
    assert run.result.statistics.queries == 4 + 18 * 3 + 3
    assert run.end == pytest.approx(0.5, abs=0.05)


def test_silent_unit_gets_all_its_time_where_nobody_shows_what_is_prompt() -> None:
    units = [srp_unit(1), srp_unit(2)]
    units[0].silent = True
    for ports in (1, 2):
        run = scan(ScriptedSubnet(ports=[local_port(n + 1) for n in range(ports)], units=units))
        assert run.end == pytest.approx(3.0, abs=0.1)


def test_silent_unit_that_was_found_before_gets_all_its_time() -> None:
    units = [srp_unit(n) for n in range(1, 20)]
    subnet = ScriptedSubnet(ports=[local_port(1), local_port(2)], units=units)
    before = scan(subnet)
    units[3].silent = True
    run = scan(subnet, known=known_of(before))
    assert run.end == pytest.approx(3.0, abs=0.1)
    silent = next(unit for unit in run.result.units if unit.standing is Standing.SILENT)
    assert silent.reason == "no answer from its Device Management agent, asked from mlx5_0/1 and mlx5_1/1"


def test_haste_is_a_setting() -> None:
    units = [srp_unit(n) for n in range(1, 20)]
    units[3].silent = True
    subnet = ScriptedSubnet(ports=[local_port()], units=units)
    assert scan(subnet, settings=ScanSettings(haste=None)).end == pytest.approx(3.0, abs=0.1)
    assert scan(subnet, settings=ScanSettings(timeout=2.0)).end == pytest.approx(1.0, abs=0.1)


def test_unit_silent_to_one_port_is_asked_from_another() -> None:
    unit = srp_unit(1)
    unit.silent_to.add("mlx5_0/1")
    run = scan(ScriptedSubnet(ports=[local_port(1), local_port(2)], units=[unit]))
    assert list(found(run)) == [unit.guid]


def test_silent_subnet_administrator_is_unknown_not_empty() -> None:
    subnet = ScriptedSubnet(ports=[local_port()], units=[srp_unit(1)])
    known = known_of(scan(subnet))
    subnet.sa_silent = True
    run = scan(subnet, known=known)
    assert not run.result.complete
    assert run.result.reason == "no answer from the subnet administrator"
    (unit,) = run.result.units
    assert unit.standing is Standing.UNKNOWN
    assert unit.services == known[unit.guid].services
    assert not run.result.reach[0].known


@pytest.mark.parametrize("attribute", [SaAttribute.PORT_INFO_RECORD, SaAttribute.NODE_RECORD])
def test_table_that_fails_removes_nothing(attribute: int) -> None:
    subnet = ScriptedSubnet(ports=[local_port()], units=[srp_unit(1)])
    known = known_of(scan(subnet))
    gone = srp_unit(2)
    known[gone.guid] = replace(known[subnet.units[0].guid], gid=gone.gid, lid=gone.lid)
    subnet.failing.add(attribute)
    run = scan(subnet, known=known)
    assert not run.result.complete
    assert all(unit.standing is not Standing.GONE for unit in run.result.units)


def test_unit_no_longer_listed_is_gone_when_the_answer_is_whole() -> None:
    subnet = ScriptedSubnet(ports=[local_port()], units=[srp_unit(1), srp_unit(2)])
    known = known_of(scan(subnet))
    left = subnet.units.pop()
    run = scan(subnet, known=known)
    standing = {unit.guid: unit.standing for unit in run.result.units}
    assert standing == {subnet.units[0].guid: Standing.FOUND, left.guid: Standing.GONE}


def test_unit_that_stops_being_one_is_gone() -> None:
    subnet = ScriptedSubnet(ports=[local_port()], units=[srp_unit(1)])
    known = known_of(scan(subnet))
    subnet.units[0].dm = False
    assert scan(subnet, known=known).result.units[0].standing is Standing.GONE


def test_unchanged_change_id_spares_the_controllers() -> None:
    subnet = ScriptedSubnet(ports=[local_port()], units=[srp_unit(n) for n in range(1, 5)])
    known = known_of(scan(subnet))
    subnet.log.clear()
    subnet.units[2].change_id += 1
    run = scan(subnet, known=known)
    assert subnet.asked(ManagementClass.DEVICE_MGMT, DmAttribute.IO_UNIT_INFO) == 4
    assert subnet.asked(ManagementClass.DEVICE_MGMT, DmAttribute.IO_CONTROLLER_PROFILE) == 1
    assert {guid: unit.services for guid, unit in found(run).items()} == {
        guid: unit.services for guid, unit in known.items()
    }


def test_controller_that_does_not_answer_keeps_its_known_services() -> None:
    subnet = ScriptedSubnet(ports=[local_port()], units=[srp_unit(1, iocs=2)])
    known = known_of(scan(subnet))
    subnet.units[0].change_id += 1
    subnet.units[0].iocs[1].silent = True
    (unit,) = scan(subnet, known=known).result.units
    assert set(unit.services) == set(known[unit.guid].services)
    assert unit.change_id is None
    assert unit.reason == "controller 2 did not answer"


def test_busy_subnet_administrator_is_asked_again() -> None:
    subnet = ScriptedSubnet(ports=[local_port()], units=[srp_unit(1)], sa_busy=5)
    run = scan(subnet)
    assert run.result.complete
    assert len(found(run)) == 1
    assert run.result.statistics.busy == 5


def test_subnet_administrator_busy_for_ever_is_a_failure() -> None:
    subnet = ScriptedSubnet(ports=[local_port()], units=[srp_unit(1)], sa_busy=10_000)
    run = scan(subnet)
    assert not run.result.complete
    assert "busy" in run.result.reason
    assert run.end < 30


def test_busy_agent_is_asked_again() -> None:
    unit = srp_unit(1)
    unit.busy = 3
    run = scan(ScriptedSubnet(ports=[local_port()], units=[unit]))
    assert len(found(run)) == 1


def test_old_subnet_administrator_without_capability_matching() -> None:
    subnet = ScriptedSubnet(ports=[local_port()], units=[srp_unit(1)], capability_matching=False)
    run = scan(subnet)
    assert run.result.complete
    assert list(found(run)) == [subnet.units[0].guid]


def test_subnet_administrator_that_refuses_class_port_info() -> None:
    subnet = ScriptedSubnet(ports=[local_port()], units=[srp_unit(1)])
    subnet.refusing[SaAttribute.CLASS_PORT_INFO] = MadStatus.UNSUPPORTED_METHOD_ATTRIBUTE
    assert len(found(scan(subnet))) == 1


def test_subnet_administrator_without_wildcard_paths() -> None:
    subnet = ScriptedSubnet(ports=[local_port(1), local_port(2)], units=[srp_unit(n) for n in (1, 2, 3)])
    subnet.wildcard_paths = False
    run = scan(subnet)
    assert len(found(run)) == 3
    assert all(reach.known and len(reach.pkeys) == 3 for reach in run.result.reach)


def test_paths_unknown_still_finds_units() -> None:
    subnet = ScriptedSubnet(ports=[local_port()], units=[srp_unit(1)])
    subnet.failing.add(SaAttribute.PATH_RECORD)
    run = scan(subnet)
    assert len(found(run)) == 1
    assert not run.result.reach[0].known
    assert "no answer" in run.result.reach[0].reason


def test_slow_member_does_not_delay_the_others() -> None:
    subnet = ScriptedSubnet(ports=[local_port(1), local_port(2)], units=[srp_unit(1)])
    subnet.sa_silent_to.add("mlx5_1/1")
    scanner = Scan(subnet.ports, {}, SETTINGS, 0.0)
    run = drive(scanner, subnet)
    assert len(found(run)) == 1
    assert [reach.known for reach in run.result.reach] == [True, False]
    dm = [index for index, entry in enumerate(subnet.log) if entry[1] == ManagementClass.DEVICE_MGMT]
    assert len(dm) == 3  # walked at once over the asker


def test_partitions_shared_in_the_order_of_the_local_table() -> None:
    port = local_port(1, pkeys=(0x7FFF, 0x8002, 0x0000, 0x8001))
    both = srp_unit(1, pkeys=(0xFFFF, 0x8001, 0x8002))
    limited = srp_unit(2, pkeys=(0x7FFF,))
    one = srp_unit(3, pkeys=(0x8001,))
    run = scan(ScriptedSubnet(ports=[port], units=[both, limited, one]))
    (reach,) = run.result.reach
    assert reach.pkeys[both.guid] == (0x7FFF, 0x8002, 0x8001)
    assert limited.guid not in reach.pkeys
    assert reach.pkeys[one.guid] == (0x8001,)
    assert set(found(run)) == {both.guid, one.guid}
    unreached = next(unit for unit in run.result.units if unit.guid == limited.guid)
    assert unreached.reason == "no local port has a path to it"


def test_redirect_is_followed_once() -> None:
    real, front = srp_unit(1), srp_unit(2)
    front.redirect = ClassPortInfo(
        redirect_lid=real.lid, redirect_qpn=1, redirect_qkey=0x80010000, redirect_pkey=0xFFFF
    )
    run = scan(ScriptedSubnet(ports=[local_port()], units=[real, front]))
    units = found(run)
    assert units[front.guid].services == units[real.guid].services
    assert units[front.guid].agent.lid == real.lid


def test_redirect_to_a_redirect_is_reported() -> None:
    front = srp_unit(2)
    front.redirect = ClassPortInfo(redirect_lid=front.lid)
    (unit,) = scan(ScriptedSubnet(ports=[local_port()], units=[front])).result.units
    assert unit.standing is Standing.SILENT
    assert unit.reason == "refuses: redirected to another port"


@pytest.mark.parametrize(
    "name",
    [
        b"SRP.T10:1,ch_count=9999",
        b"SRP.T10:",
        b"SRP.T10:200500A0B81146",
        b"SRP.T10:200500A0B81146A1X",
        b"SRP.T10:200500A0B81146G1",
        b"SRP.T10:200500A0B81146A1\0,dgid=0",
        b"SRP.T10:\x1b[31m",
    ],
)
def test_hostile_service_names_are_refused_with_a_sentence(name: bytes) -> None:
    unit = Unit(guid=5, lid=5, iocs=[Ioc(guid=6, services=[ServiceEntry(name=name, service_id=1)])])
    (seen,) = scan(ScriptedSubnet(ports=[local_port()], units=[unit])).result.units
    assert seen.services == ()
    (sentence,) = seen.refused
    assert sentence.startswith("controller 1: service name")
    assert sentence.isprintable()


def test_other_protocols_are_passed_over() -> None:
    entries = [ServiceEntry(name=b"NVMe.something", service_id=1), ServiceEntry.of_srp(7, 7)]
    unit = Unit(guid=5, lid=5, iocs=[Ioc(guid=6, services=entries)])
    (seen,) = scan(ScriptedSubnet(ports=[local_port()], units=[unit])).result.units
    assert [service.id_ext for service in seen.services] == [7]
    assert seen.refused == ()


def test_controller_of_another_io_class_or_without_guid_is_refused() -> None:
    entry = ServiceEntry.of_srp(7, 7)
    unit = Unit(
        guid=5, lid=5, iocs=[Ioc(6, [entry], io_class=0x0200), Ioc(0, [entry]), Ioc(8, [entry], io_class=0xFF00)]
    )
    (seen,) = scan(ScriptedSubnet(ports=[local_port()], units=[unit])).result.units
    assert [(service.ioc_guid, service.io_class) for service in seen.services] == [(8, 0xFF00)]
    assert seen.refused == (
        "controller 1: I/O class 0200 is not one of SRP (0100, ff00)",
        "controller 2: the I/O controller has GUID 0",
    )


def test_garbage_and_refusals_make_a_silent_unit() -> None:
    mad, sad = srp_unit(1), srp_unit(2)
    mad.garbage = True
    sad.status = MadStatus.UNSUPPORTED_METHOD_ATTRIBUTE
    run = scan(ScriptedSubnet(ports=[local_port()], units=[mad, sad]))
    reasons = [unit.reason for unit in run.result.units]
    assert [unit.standing for unit in run.result.units] == [Standing.SILENT, Standing.SILENT]
    assert reasons[1] == "refuses: attribute not supported with this method"


def test_unit_with_endless_silent_controllers_is_cut_off() -> None:
    hostile = Unit(guid=5, lid=5, iocs=[Ioc(6, [ServiceEntry.of_srp(7, 7)]) for _ in range(255)])
    for number, ioc in enumerate(hostile.iocs):
        ioc.guid = 100 + number
        ioc.silent = number % 2 == 1
    run = scan(ScriptedSubnet(ports=[local_port()], units=[hostile, srp_unit(1)]))
    assert run.end < SETTINGS.unit_time + 10
    assert len(found(run)) == 2


def test_subnets_with_the_same_prefix_and_sm_lid_are_told_apart() -> None:
    here = ScriptedSubnet(ports=[local_port(1), local_port(2)], units=[srp_unit(1)])
    here.unlisted.add(local_port(2).port_guid)
    run = scan(here)
    assert run.result.strangers == ("mlx5_1/1",)
    assert run.result.members == ("mlx5_0/1",)
    assert [reach.local_port for reach in run.result.reach] == ["mlx5_0/1"]


def test_refused_node_table_takes_guids_from_paths() -> None:
    subnet = ScriptedSubnet(ports=[local_port()], units=[srp_unit(1)])
    subnet.refusing[SaAttribute.NODE_RECORD] = SaStatus.DENIED
    run = scan(subnet)
    assert not run.result.complete
    assert list(found(run)) == [subnet.units[0].guid]


def test_late_and_doubled_answers_change_nothing() -> None:
    subnet = ScriptedSubnet(ports=[local_port()], units=[srp_unit(1)])
    scanner = Scan(subnet.ports, {}, SETTINGS, 0.0)
    (first, *_) = scanner.questions(0.0)
    reply = subnet.reply(first.ask.port, first.ask.address, first.ask.mad)
    scanner.answer(first.number, reply, 0.1)
    scanner.answer(first.number, None, 0.2)
    scanner.answer(999, b"", 0.2)
    assert not scanner.done


class TestUnitCheck:
    def test_new_unit_by_gid(self) -> None:
        subnet = ScriptedSubnet(ports=[local_port(1), local_port(2)], units=[srp_unit(1), srp_unit(2)])
        run = drive(UnitCheck(subnet.ports, {}, SETTINGS, 0.0, guid=subnet.units[1].guid), subnet)
        (unit,) = run.result.units
        assert (unit.guid, unit.standing) == (subnet.units[1].guid, Standing.FOUND)
        assert [reach.pkeys for reach in run.result.reach] == [{unit.guid: (0xFFFF,)}] * 2
        assert subnet.asked(ManagementClass.SUBN_ADM, SaAttribute.NODE_RECORD) == 1
        assert subnet.asked(ManagementClass.DEVICE_MGMT, DmAttribute.IO_UNIT_INFO) == 1

    def test_by_lid(self) -> None:
        subnet = ScriptedSubnet(ports=[local_port()], units=[srp_unit(1)])
        run = drive(UnitCheck(subnet.ports, {}, SETTINGS, 0.0, lid=101), subnet)
        assert run.result.units[0].standing is Standing.FOUND

    def test_departed_unit_is_gone(self) -> None:
        subnet = ScriptedSubnet(ports=[local_port()], units=[srp_unit(1)])
        known = known_of(scan(subnet))
        left = subnet.units.pop()
        run = drive(UnitCheck(subnet.ports, known, SETTINGS, 0.0, guid=left.guid), subnet)
        assert run.result.units[0].standing is Standing.GONE

    def test_silent_administrator_leaves_it_unknown(self) -> None:
        subnet = ScriptedSubnet(ports=[local_port()], units=[srp_unit(1)])
        known = known_of(scan(subnet))
        subnet.sa_silent = True
        run = drive(UnitCheck(subnet.ports, known, SETTINGS, 0.0, guid=subnet.units[0].guid), subnet)
        assert run.result.units[0].standing is Standing.UNKNOWN

    def test_stranger_without_device_management_is_nothing(self) -> None:
        subnet = ScriptedSubnet(ports=[local_port()], units=[])
        run = drive(UnitCheck(subnet.ports, {}, SETTINGS, 0.0, guid=local_port().port_guid), subnet)
        assert run.result.complete
        assert run.result.units == ()


def test_gid_prefix_comes_from_the_port() -> None:
    run = scan(ScriptedSubnet(ports=[local_port()], units=[srp_unit(1)]))
    assert run.result.units[0].gid == Gid(PREFIX, 0x0002C90300000001)


def test_keeps_what_controllers_say_for_listings() -> None:
    unit = srp_unit(1, iocs=2, services=5)
    unit.iocs[1].io_class = 0x0200
    unit.iocs[0].services[1] = ServiceEntry(name=b"SRP.T10:short".ljust(40, b"\0"), service_id=7)
    unit.iocs[0].services[2] = ServiceEntry(name=b"another protocol".ljust(40, b"\0"), service_id=8)
    first = scan(ScriptedSubnet(ports=[local_port()], units=[unit]))
    (seen,) = first.result.units
    assert seen.info is not None
    assert seen.info.max_controllers == 2
    assert [(item.slot, item.profile.io_class) for item in seen.controllers] == [(1, 0x0100), (2, 0x0200)]
    assert [number for number, _ in seen.controllers[0].services] == [0, 1, 3, 4]
    assert seen.controllers[1].services == ()
    again = scan(ScriptedSubnet(ports=[local_port()], units=[unit]), known=known_of(first))
    assert again.result.statistics.queries < first.result.statistics.queries
    assert again.result.units[0].controllers == seen.controllers
