"""Golden texts were printed by srptools 44 for the same units, over OpenSM on ibsim."""

from __future__ import annotations

from dataclasses import replace

import pytest

from srpha.core.compat.srp_daemon_listing import (
    LineStyle,
    Sighting,
    complaints,
    connection_line,
    is_connected,
    sightings,
    unit_listing,
)
from srpha.core.discovery.scan_result import Controller, DmAgent, IoUnit, Reach, ScanResult, ScanStatistics, Standing
from srpha.core.recovery.remote_port import RemotePortState, RemotePortTimers
from srpha.core.seams import Connection
from srpha.core.targets.rules import Verdict, parse_rules
from srpha.core.targets.target_port import InitiatorExt, InitiatorExtMode
from srpha.wire.dm import IoControllerProfile, IoUnitInfo, ServiceEntry
from srpha.wire.identifiers import Gid

PREFIX = 0xFE80000000000000
PORT = "ibsim0/1"
ALLOWED = Verdict(True, "")
PLAIN = LineStyle(InitiatorExt(InitiatorExtMode.NONE))
WITH_EXT = LineStyle(InitiatorExt())

HUMAN = """\
IO Unit Info:
    port LID:        0006
    port GID:        fe800000000000000000000000100006
    change ID:       12ab
    max controllers: 0x06

    controller[  1]
        GUID:      0002c90200402bec
        vendor ID: 00abcd
        device ID: 12345678
        IO class : 0100
        Maximum size of Send Messages in bytes: 4148
        ID:        ID 1 with spaces  \n\
        service entries: 5
            service[  0]: 200400a0b81146a1 / SRP.T10:200400A0B81146A1
            service[  3]: 0000000000000007 / SRP.T10:200400a0b81146a2:reserved
            service[  4]: 0000000000000008 / SRP.T10:short

    controller[  5]
        GUID:      0000000000001111
        vendor ID: ff1234
        device ID: ffffffff
        IO class : ff00
        Maximum size of Send Messages in bytes: -1
        ID:        xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
        service entries: 1
            service[  0]: 0000000000000100 / SRP.T10:000000abcdef0000

"""
SLOTS = """\
    max controllers: 0x06
    controller[  1]: present
    controller[  2]: not installed
    controller[  3]: no slot
    controller[  4]: <unknown>
    controller[  5]: present
    controller[  6]: not installed

"""
EMPTY = """\
IO Unit Info:
    port LID:        0007
    port GID:        fe800000000000000000000000100008
    change ID:       0001
    max controllers: 0x00

"""
FIRST = (
    "id_ext=200400A0B81146A1,ioc_guid=0002c90200402bec,dgid=fe800000000000000000000000100006,pkey=ffff,"
    "service_id=200400a0b81146a1"
)
SECOND = (
    "id_ext=200400a0b81146a2,ioc_guid=0002c90200402bec,dgid=fe800000000000000000000000100006,pkey=ffff,"
    "service_id=0000000000000007"
)
REV10 = (
    "id_ext=000000abcdef0000,ioc_guid=0000000000001111,dgid=fe800000000000000000000000100006,pkey=ffff,"
    "service_id=0000000000000100,io_class=ff00"
)


def entry(name: bytes, service_id: int) -> ServiceEntry:
    return ServiceEntry(name=name.ljust(40, b"\0"), service_id=service_id)


def profile(guid: int, io_class: int, size: int, id_string: bytes, services: int) -> IoControllerProfile:
    return IoControllerProfile(
        guid=guid,
        vendor_id=0x00ABCD,
        device_id=0x12345678,
        io_class=io_class,
        send_message_size=size,
        id_string=id_string.ljust(64, b"\0"),
        service_entries=services,
    )


def unit() -> IoUnit:
    gid = Gid(PREFIX, 0x100006)
    first = profile(0x0002C90200402BEC, 0x0100, 4148, b"ID 1 with spaces  ", 5)
    second = replace(profile(0x1111, 0xFF00, 0xFFFFFFFF, b"x" * 64, 1), vendor_id=0xFF1234, device_id=0xFFFFFFFF)
    return IoUnit(
        gid,
        6,
        0x100005,
        "tgt1",
        Standing.FOUND,
        DmAgent(6),
        info=IoUnitInfo.of_slots([1, 0, 15, 7, 1, 0], change_id=0x12AB),
        controllers=(
            Controller(
                1,
                first,
                (
                    (0, entry(b"SRP.T10:200400A0B81146A1", 0x200400A0B81146A1)),
                    (3, entry(b"SRP.T10:200400a0b81146a2:reserved", 7)),
                    (4, entry(b"SRP.T10:short", 8)),
                ),
            ),
            Controller(5, second, ((0, entry(b"SRP.T10:000000abcdef0000", 0x100)),)),
        ),
    )


def result(*units: IoUnit, pkeys: tuple[int, ...] = (0xFFFF,), complete: bool = True, known: bool = True) -> ScanResult:
    reach = Reach(PORT, known, "" if known else "it timed out", {item.guid: pkeys for item in units})
    reason = "" if complete else "no answer from the subnet administrator"
    return ScanResult(PORT, (PORT,), (), complete, reason, units, (reach,), ScanStatistics())


def connection(**changes: object) -> Connection:
    item = Connection(
        host=7,
        device="ibsim0",
        port=1,
        id_ext=0x200400A0B81146A1,
        ioc_guid=0x0002C90200402BEC,
        service_id=0x200400A0B81146A1,
        pkey=0xFFFF,
        sgid=Gid(PREFIX, 0x100001),
        dgid=Gid(PREFIX, 0x100006),
        orig_dgid=Gid(PREFIX, 0x100006),
        remote_port="port-7:1",
        state=RemotePortState.RUNNING,
        timers=RemotePortTimers(),
        failed_reconnects=0,
        req_lim=62,
        zero_req_lim=0,
        ch_count=1,
        devices=(),
    )
    return replace(item, **changes)  # type: ignore[arg-type]


class TestHumanListing:
    def test_is_what_ibsrpdm_prints(self) -> None:
        assert unit_listing(unit(), slots=False) == HUMAN

    def test_shows_slots_when_verbose(self) -> None:
        assert unit_listing(unit(), slots=True) == HUMAN.replace("    max controllers: 0x06\n\n", SLOTS)

    def test_of_a_unit_without_controllers(self) -> None:
        empty = IoUnit(
            Gid(PREFIX, 0x100008), 7, 0, "", Standing.FOUND, DmAgent(7), info=IoUnitInfo.of_slots([], change_id=1)
        )
        assert unit_listing(empty, slots=True) == EMPTY

    def test_of_a_unit_that_never_answered(self) -> None:
        silent = IoUnit(Gid(PREFIX, 9), 8, 0, "", Standing.SILENT, DmAgent(8), "no answer")
        assert unit_listing(silent, slots=False) == ""

    def test_leaves_no_control_character(self) -> None:
        nasty = profile(0x3333, 0x0100, 0, b"bad\x01\x1b[31m\xff\xe9end", 2)
        services = ((0, entry(b"SRP.T10:\x1b]0;x\x07", 1)), (1, entry(b"SRP.T10: ", 2)))
        text = unit_listing(replace(unit(), controllers=(Controller(1, nasty, services),)), slots=False)
        assert "        ID:        bad??[31m??end\n" in text
        assert "            service[  0]: 0000000000000001 / SRP.T10:?]0;x?\n" in text
        assert "service[  1]" not in text


class TestLines:
    def test_are_what_srp_daemon_prints(self) -> None:
        (seen,) = sightings(result(unit()), PORT)
        assert [connection_line(target, ALLOWED, PLAIN) for target in seen.targets] == [FIRST, SECOND, REV10]

    def test_with_initiator_ext(self) -> None:
        target = Sighting(unit(), 0xFFFF).targets[2]
        assert connection_line(target, ALLOWED, WITH_EXT) == f"{REV10},initiator_ext=0000000000100006"

    def test_with_everything(self) -> None:
        rules = parse_rules(["a queue_size=5,tl_retry_count=6,max_sect=128"], "rules")
        style = LineStyle(InitiatorExt(), tl_retry_count=3, max_imm_data=8192)
        target = Sighting(unit(), 0xFFFF).targets[0]
        assert connection_line(target, rules.judge(target), style) == (
            f"{FIRST},initiator_ext=0000000000100006,tl_retry_count=3,queue_size=5,tl_retry_count=6,max_sect=128,"
            "max_it_iu_size=4148"
        )

    @pytest.mark.parametrize(
        ("size", "tail"), [(8191, ",max_it_iu_size=8191"), (8192, ""), (0, ",max_it_iu_size=0"), (0xFFFFFFFF, "")]
    )
    def test_max_it_iu_size_only_for_less_than_the_immediate_data(self, size: int, tail: str) -> None:
        target = replace(Sighting(unit(), 0xFFFF).targets[0], send_message_size=size)
        assert connection_line(target, ALLOWED, replace(PLAIN, max_imm_data=8192)) == FIRST + tail
        assert connection_line(target, ALLOWED, PLAIN) == FIRST

    def test_name_without_16_digits_gives_no_target(self) -> None:
        services = tuple(
            (number, entry(name, number))
            for number, name in enumerate(
                [b"SRP.T10:1,ch_count=9999", b"SRP.T10:000000000000000g", b"SRP.T10:00000000000000aa11", b"SRP.T10:"]
            )
        )
        bad = Controller(1, profile(0x3333, 0x0100, 0, b"", 4), services)
        assert Sighting(replace(unit(), controllers=(bad,)), 0xFFFF).targets == ()

    def test_foreign_class_gives_no_target(self) -> None:
        foreign = Controller(1, profile(0x3333, 0x0200, 0, b"", 1), ((0, entry(b"SRP.T10:000000abcdef0000", 1)),))
        assert Sighting(replace(unit(), controllers=(foreign,)), 0xFFFF).targets == ()


class TestSightings:
    def test_one_per_partition_in_the_order_of_the_table(self) -> None:
        seen = list(sightings(result(unit(), pkeys=(0xFFFF, 0x8001)), PORT))
        assert [item.pkey for item in seen] == [0xFFFF, 0x8001]
        assert {target.pkey for target in seen[1].targets} == {0x8001}

    def test_only_units_that_answered_and_are_reached(self) -> None:
        silent = replace(unit(), standing=Standing.SILENT)
        assert list(sightings(result(silent), PORT)) == []
        assert list(sightings(result(unit(), pkeys=()), PORT)) == []
        assert list(sightings(result(unit()), "other/1")) == []


class TestConnected:
    target = Sighting(unit(), 0xFFFF).targets[0]

    def test_same_everything(self) -> None:
        assert is_connected(self.target, [connection()], PORT)

    @pytest.mark.parametrize(
        "changes",
        [
            {"id_ext": 1},
            {"ioc_guid": 1},
            {"service_id": 1},
            {"service_id": None},
            {"orig_dgid": Gid(PREFIX, 1)},
            {"port": 2},
            {"device": "ibsim01"},
            {"pkey": 0x8001},
            {"removing": True},
        ],
    )
    def test_not_when_something_differs(self, changes: dict[str, object]) -> None:
        assert not is_connected(self.target, [connection(**changes)], PORT)

    def test_the_redirected_gid_does_not_count(self) -> None:
        assert is_connected(self.target, [connection(dgid=Gid(PREFIX, 1))], PORT)

    def test_another_partition_counts_when_executing(self) -> None:
        assert is_connected(self.target, [connection(pkey=0x8001)], PORT, any_pkey=True)


class TestComplaints:
    def test_none_when_all_is_well(self) -> None:
        assert complaints(result(unit()), PORT) == ()

    def test_silent_and_refused(self) -> None:
        silent = replace(unit(), standing=Standing.SILENT, reason="no answer", refused=("a bad name",))
        where = "I/O unit 0000000000100006 with LID 6"
        assert complaints(result(silent), PORT) == (f"{where}: no answer", f"{where}: a bad name")

    def test_units_out_of_reach_are_nobodys_fault(self) -> None:
        silent = replace(unit(), standing=Standing.SILENT, reason="no local port has a path to it")
        assert complaints(result(silent, pkeys=()), PORT) == ()

    def test_what_did_not_come(self) -> None:
        assert complaints(result(complete=False, known=False), PORT) == (
            "the list of targets is not complete: no answer from the subnet administrator",
            "the paths of ibsim0/1 are not known: it timed out",
        )
