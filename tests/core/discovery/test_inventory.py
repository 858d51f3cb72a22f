from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from scripted_subnet import PREFIX
from srpha.core.discovery.inventory import FORGET_AFTER, TRUSTED_SCANS, Inventory
from srpha.core.discovery.scan_result import DmAgent, IoUnit, Reach, ScanResult, ScanStatistics, SrpService, Standing
from srpha.core.events import EventKind
from srpha.wire.identifiers import Gid

SERVICE = SrpService(7, f"{7:016x}", 8, 9, 0x100, 2116, "")
UNIT = IoUnit(Gid(PREFIX, 5), 50, 4, "array A", Standing.FOUND, DmAgent(50), services=(SERVICE,), change_id=3)


def result(
    *units: IoUnit, members: tuple[str, ...] = ("a/1",), complete: bool = True, reach: tuple[Reach, ...] = ()
) -> ScanResult:
    return ScanResult(members[0], members, (), complete, "", units, reach, ScanStatistics())


def standing(unit: IoUnit, how: Standing, reason: str = "because") -> IoUnit:
    return replace(unit, standing=how, reason=reason)


def test_found_silent_found_left() -> None:
    inventory = Inventory(3, 60)
    kinds = [
        [change.kind for change in inventory.apply(result(unit), time)]
        for time, unit in [
            (0, UNIT),
            (1, UNIT),
            (2, standing(UNIT, Standing.SILENT)),
            (3, standing(UNIT, Standing.SILENT)),
            (4, UNIT),
            (5, standing(UNIT, Standing.UNKNOWN)),
            (6, standing(UNIT, Standing.GONE)),
            (7, standing(UNIT, Standing.GONE)),
        ]
    ]
    found, silent, left = [EventKind.TARGET_FOUND], [EventKind.TARGET_SILENT], [EventKind.TARGET_LEFT]
    assert kinds == [found, [], silent, [], found, [], left, []]


def test_silent_unit_keeps_its_services_and_is_probed_ever_less() -> None:
    inventory = Inventory(3, 60)
    inventory.apply(result(UNIT), 0)
    delays = []
    for _ in range(7):
        inventory.apply(result(replace(standing(UNIT, Standing.SILENT), services=())), 100)
        assert inventory.next_due is not None
        delays.append(inventory.next_due - 100)
    assert delays == [3, 6, 12, 24, 48, 60, 60]
    assert inventory.targets[0].unit.services == (SERVICE,)
    assert inventory.due(102.9) == ()
    assert inventory.due(160) == (5,)
    inventory.apply(result(UNIT), 200)
    assert inventory.next_due is None


def test_unknown_changes_nothing() -> None:
    inventory = Inventory(3, 60)
    inventory.apply(result(UNIT, reach=(Reach("a/1", True, "", {5: (0xFFFF,)}),)), 0)
    before = inventory.targets
    inventory.apply(
        result(standing(UNIT, Standing.UNKNOWN), complete=False, reach=(Reach("a/1", False, "no answer"),)), 9
    )
    assert [replace(t, trust=0) for t in inventory.targets] == [replace(t, trust=0) for t in before]
    assert inventory.pkeys("a/1", 5) == (0xFFFF,)


def test_unit_of_two_subnets_is_gone_when_both_say_so() -> None:
    inventory = Inventory(3, 60)
    inventory.apply(result(UNIT, members=("a/1",)), 0)
    inventory.apply(result(UNIT, members=("b/1",)), 0)
    assert inventory.apply(result(standing(UNIT, Standing.GONE), members=("a/1",)), 1) == []
    (change,) = inventory.apply(result(standing(UNIT, Standing.GONE), members=("b/1",)), 2)
    assert change.kind is EventKind.TARGET_LEFT


def test_silence_towards_one_partition_is_outvoted_for_a_while() -> None:
    inventory = Inventory(3, 60)
    inventory.apply(result(UNIT, members=("a/1",)), 0)
    inventory.apply(result(UNIT, members=("b/1",)), 0)
    assert inventory.apply(result(standing(UNIT, Standing.SILENT), members=("b/1",)), 30) == []
    (change,) = inventory.apply(result(standing(UNIT, Standing.SILENT), members=("b/1",)), 61)
    assert change.kind is EventKind.TARGET_SILENT


def test_reach_known_unknown_and_none() -> None:
    inventory = Inventory(3, 60)
    assert inventory.pkeys("a/1", 5) is None
    inventory.apply(result(UNIT, reach=(Reach("a/1", True, "", {5: (0xFFFF, 0x8001)}),)), 0)
    assert inventory.pkeys("a/1", 5) == (0xFFFF, 0x8001)
    assert inventory.pkeys("a/1", 6) == ()
    inventory.apply(result(UNIT, reach=(Reach("a/1", True, "", {}),)), 1)
    assert inventory.pkeys("a/1", 5) == ()
    inventory.forget_port("a/1")
    assert inventory.pkeys("a/1", 5) is None


def test_check_of_one_unit_leaves_paths_to_others() -> None:
    inventory = Inventory(3, 60)
    inventory.apply(result(UNIT, reach=(Reach("a/1", True, "", {5: (0xFFFF,), 6: (0xFFFF,)}),)), 0)
    inventory.apply(result(UNIT, reach=(Reach("a/1", True, "", {}),)), 1, single=True)
    assert inventory.pkeys("a/1", 5) == ()
    assert inventory.pkeys("a/1", 6) == (0xFFFF,)


def test_change_id_is_trusted_for_some_scans_only() -> None:
    inventory = Inventory(3, 60)
    trusted = 0
    inventory.apply(result(UNIT), 0)
    for time in range(1, 2 * TRUSTED_SCANS):
        known = inventory.known_to(["a/1"])
        if known[5].change_id is None:
            break
        trusted += 1
        inventory.apply(result(UNIT), time)
    assert trusted == TRUSTED_SCANS
    inventory.apply(result(UNIT), 99)
    assert inventory.known_to(["a/1"])[5].change_id == 3
    inventory.doubt(5)
    assert inventory.known_to(["a/1"])[5].change_id is None
    assert inventory.known_to(["b/1"]) == {}


def test_refusals_are_told_once() -> None:
    inventory = Inventory(3, 60)
    hostile = replace(UNIT, refused=("controller 1: service name '1,ch_count=9' does not hold 16 hex digits",))
    kinds = [change.kind for change in inventory.apply(result(hostile), 0)]
    assert kinds == [EventKind.TARGET_FOUND, EventKind.TARGET_REFUSED]
    assert inventory.apply(result(hostile), 1) == []


def test_other_services_are_a_change() -> None:
    inventory = Inventory(3, 60)
    inventory.apply(result(UNIT), 0)
    (change,) = inventory.apply(result(replace(UNIT, services=(SERVICE, replace(SERVICE, id_ext=8)))), 1)
    assert (change.kind, change.text) == (
        EventKind.TARGET_CHANGED,
        "array A (0000000000000005) offers other services",
    )


def test_units_that_left_are_forgotten_in_the_end() -> None:
    inventory = Inventory(3, 60)
    inventory.apply(result(UNIT), 0)
    inventory.apply(result(standing(UNIT, Standing.GONE)), 1)
    inventory.apply(result(), 1 + FORGET_AFTER)
    assert len(inventory.targets) == 1
    inventory.apply(result(), 2 + FORGET_AFTER)
    assert inventory.targets == ()


def test_lid_lookup() -> None:
    inventory = Inventory(3, 60)
    inventory.apply(result(UNIT), 0)
    assert inventory.guid_at(50) == 5
    assert inventory.guid_at(51) is None


def test_version_moves_only_with_what_is_decided_by() -> None:
    inventory = Inventory(3, 60)
    versions = [inventory.version]
    reach = Reach("a/1", True, "", {5: (0xFFFF,)})
    for time, news in [
        (0, result(reach=(Reach("a/1", True),))),  # nobody is reached, which was unknown
        (1, result(UNIT)),
        (2, result(UNIT, reach=(reach,))),
        (3, result(UNIT, reach=(reach,))),
        (4, result(standing(UNIT, Standing.UNKNOWN), reach=(reach,))),
        (5, result(standing(UNIT, Standing.SILENT), reach=(reach,))),
        (6, result(UNIT, reach=(reach,), members=("b/1",))),
    ]:
        inventory.apply(news, time)
        versions.append(inventory.version)
    moved = [after != before for before, after in pairwise(versions)]
    assert moved == [True, True, True, False, False, True, True]
