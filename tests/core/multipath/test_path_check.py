from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.core.multipath.checker import difference, judge_device, judge_tur, next_interval
from srpha.core.multipath.disposition import SideEffect
from srpha.core.multipath.path_check import PathCheck
from srpha.core.scsi_io import UnitIdentity
from srpha.core.seams import CheckerState, DeviceState
from srpha.wire.scsi.alua import AccessState, TargetPortGroup, TargetPortGroups, encode_rtpg
from srpha.wire.scsi.capacity import ReadCapacity16
from srpha.wire.scsi.mode import encode_mode_sense
from srpha.wire.scsi.sense import Asc, Sense, SenseKey, encode_fixed
from srpha.wire.scsi.status import HostByte, ScsiStatus
from srpha.wire.scsi.vpd import Designator, DesignatorType, encode_identification

C = CheckerState
WWID = "36001405" + "0" * 24 + "7"
KNOWN = UnitIdentity(WWID, "1", "V", "P", "R", 1000, 512, False, 3)
GOOD = (HostByte.OK, ScsiStatus.GOOD, b"")


def sense(key: SenseKey, code: Asc) -> tuple[HostByte, ScsiStatus, bytes]:
    return HostByte.OK, ScsiStatus.CHECK_CONDITION, encode_fixed(Sense.of(key, code))


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (GOOD, C.READY),
        ((HostByte.OK, ScsiStatus.RESERVATION_CONFLICT, b""), C.READY),
        ((HostByte.OK, ScsiStatus.BUSY, b""), C.FAULTY),
        ((HostByte.OK, ScsiStatus.CHECK_CONDITION, b""), C.FAULTY),
        ((HostByte.NO_CONNECT, ScsiStatus.GOOD, b""), C.FAULTY),
        ((HostByte.TRANSPORT_FAILFAST, ScsiStatus.GOOD, b""), C.FAULTY),
        ((HostByte.TRANSPORT_DISRUPTED, ScsiStatus.GOOD, b""), None),
        ((HostByte.TIME_OUT, ScsiStatus.GOOD, b""), None),
        (sense(SenseKey.UNIT_ATTENTION, Asc.POWER_ON), None),
        (sense(SenseKey.NOT_READY, Asc.ALUA_STANDBY), C.GHOST),
        (sense(SenseKey.NOT_READY, Asc.ALUA_TRANSITION), C.PENDING),
        (sense(SenseKey.NOT_READY, Asc.ALUA_UNAVAILABLE), C.FAULTY),
        (sense(SenseKey.ILLEGAL_REQUEST, Asc.LUN_NOT_SUPPORTED), C.FAULTY),
        (sense(SenseKey.RECOVERED_ERROR, Asc.WRITE_ERROR), C.READY),
    ],
)
def test_tur_answers(answer: tuple[HostByte, ScsiStatus, bytes], state: CheckerState | None) -> None:
    assert judge_tur(*answer, tries=1) is state
    assert judge_tur(*answer, tries=5) is state
    assert judge_tur(*answer, tries=6) is (state or C.FAULTY)


def test_device_states() -> None:
    assert judge_device(DeviceState.RUNNING) is None
    assert judge_device(DeviceState.BLOCKED) is C.PENDING
    assert judge_device(DeviceState.TRANSPORT_OFFLINE) is C.FAULTY


def test_intervals_back_off_while_all_is_well() -> None:
    interval = 5.0
    seen = []
    for _ in range(4):
        interval = next_interval(interval, changed=False, good=True, shortest=5.0, longest=20.0)
        seen.append(interval)
    assert seen == [10.0, 20.0, 20.0, 20.0]
    assert next_interval(20.0, changed=True, good=True, shortest=5.0, longest=20.0) == 5.0
    assert next_interval(20.0, changed=False, good=False, shortest=5.0, longest=20.0) == 5.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"wwid": "3600"}, "WWID is 3600"),
        ({"block_size": 4096}, "block size is 4096, not 512"),
        ({"blocks": 999}, "capacity is 999 blocks, not 1000"),
        ({"write_protected": True}, "it is write-protected"),
    ],
)
def test_differences_are_named(change: dict[str, object], words: str) -> None:
    assert difference(KNOWN, KNOWN) is None
    reason = difference(KNOWN, replace(KNOWN, **change))  # type: ignore[arg-type]
    assert reason is not None
    assert words in reason


def run(check: PathCheck, *answers: tuple[HostByte, ScsiStatus, bytes, bytes]) -> list[int]:
    asked = []
    for answer in answers:
        assert check.request is not None
        asked.append(check.request[0][0])
        check.answer(*answer)
    return asked


NAME = encode_identification([Designator(DesignatorType.NAA, bytes.fromhex(WWID[1:]))])
SIZE = ReadCapacity16(last_lba=1999, block_length=512).encode()
MODE = encode_mode_sense(b"", 0x80)
GROUPS = encode_rtpg(
    TargetPortGroups(
        (TargetPortGroup(2, AccessState.ACTIVE_OPTIMIZED), TargetPortGroup(3, AccessState.ACTIVE_NON_OPTIMIZED))
    )
)


def test_a_verifying_check_asks_who_and_how_large_and_what_priority() -> None:
    check = PathCheck(KNOWN, verify=True, priority=True)
    asked = run(check, (*GOOD, b""), (*GOOD, NAME), (*GOOD, SIZE), (*GOOD, MODE), (*GOOD, GROUPS))
    assert asked == [0x00, 0x12, 0x9E, 0x1A, 0xA3]
    assert (check.state, check.verified, check.priority) == (C.READY, True, 10)
    assert check.identity == replace(KNOWN, blocks=2000, write_protected=True)
    with pytest.raises(ValueError, match="over"):
        check.answer(*GOOD, b"")


def test_a_plain_check_is_one_command() -> None:
    check = PathCheck(KNOWN, verify=False, priority=False)
    assert run(check, (*GOOD, b"")) == [0]
    assert (check.state, check.verified, check.identity) == (C.READY, False, KNOWN)


def test_unit_attentions_are_passed_over_and_told() -> None:
    check = PathCheck(KNOWN, verify=False, priority=False)
    attention = (*sense(SenseKey.UNIT_ATTENTION, Asc.CAPACITY_CHANGED), b"")
    run(check, attention, attention, (*GOOD, b""))
    assert check.state is C.READY
    assert check.effects == SideEffect.CAPACITY_CHANGED


def test_commands_that_the_unit_does_not_know_are_left_out() -> None:
    check = PathCheck(KNOWN, verify=True, priority=True)
    unknown = (*sense(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_OPCODE), b"")
    run(check, (*GOOD, b""), (*GOOD, NAME), unknown, unknown, unknown)
    assert (check.state, check.verified, check.identity, check.priority) == (C.READY, True, KNOWN, None)


def test_a_standby_path_is_a_ghost() -> None:
    check = PathCheck(KNOWN, verify=True, priority=False)
    run(check, (*sense(SenseKey.NOT_READY, Asc.ALUA_STANDBY), b""), (*GOOD, NAME), (*GOOD, SIZE), (*GOOD, MODE))
    assert check.state is C.GHOST


@pytest.mark.parametrize(
    "answer",
    [
        (*GOOD, b"\x00\x83"),
        (HostByte.TRANSPORT_DISRUPTED, ScsiStatus.GOOD, b"", b""),
        (*sense(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB), b""),
    ],
)
def test_a_unit_that_does_not_say_who_it_is_is_faulty(answer: tuple[HostByte, ScsiStatus, bytes, bytes]) -> None:
    check = PathCheck(KNOWN, verify=True, priority=False)
    run(check, (*GOOD, b""), answer)
    assert check.state is C.FAULTY
    assert check.reason
    assert not check.verified


@given(
    st.lists(st.tuples(st.sampled_from(HostByte), st.integers(0, 255), st.binary(max_size=20), st.binary(max_size=64)))
)
def test_every_check_ends_whatever_is_answered(answers: list[tuple[HostByte, int, bytes, bytes]]) -> None:
    check = PathCheck(KNOWN, verify=True, priority=True)
    for answer in answers[:50]:
        if check.request is None:
            break
        check.answer(*answer)
    for _ in range(40):
        if check.request is None:
            break
        check.answer(HostByte.OK, ScsiStatus.BUSY, b"", b"")
    assert check.state is not None
