"""Commands of a unit against literal CDBs, data and sense bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.embedded.target.outcome import BUSY, GOOD, Outcome
from srpha.embedded.target.target_device import TargetDevice
from srpha.embedded.target.unit_attention import Attention, ScsiNexus
from srpha.wire.scsi import alua, cdb, vpd
from srpha.wire.scsi.alua import AccessState
from srpha.wire.scsi.capacity import decode_report_luns
from srpha.wire.scsi.inquiry import decode_standard_inquiry
from srpha.wire.scsi.mode import decode_mode_sense
from srpha.wire.scsi.sense import Asc, Sense, SenseKey, decode_sense
from srpha.wire.scsi.status import ScsiStatus
from tests.embedded.target.conftest import INITIATOR, make_spec

INVALID_OPCODE = "700005000000000a00000000200000000000"
OUT_OF_RANGE = "700005000000000a00000000210000000000"


def run(device: TargetDevice, nexus: ScsiNexus, text: str | bytes, data: bytes = b"", lun: int = 0) -> Outcome:
    command = bytes.fromhex(text) if isinstance(text, str) else text
    return device.units[lun].execute(nexus, command.ljust(16, b"\0"), data)


def sense_of(outcome: Outcome) -> Sense:
    assert outcome.status == ScsiStatus.CHECK_CONDITION
    assert outcome.data == b""
    return decode_sense(outcome.sense)


def assert_invalid_field(outcome: Outcome, byte: int) -> None:
    sense = sense_of(outcome)
    assert (sense.key, sense.matches(Asc.INVALID_FIELD_IN_CDB)) == (SenseKey.ILLEGAL_REQUEST, True)
    assert sense.field_pointer == byte


# --- READ, WRITE, VERIFY ---


@pytest.mark.parametrize(
    ("write", "read"),
    [
        ("0a 00 0005 02 00", "08 00 0005 02 00"),
        ("2a 00 00000005 00 0002 00", "28 00 00000005 00 0002 00"),
        ("aa 00 00000005 00000002 00 00", "a8 00 00000005 00000002 00 00"),
        ("8a 00 0000000000000005 00000002 00 00", "88 00 0000000000000005 00000002 00 00"),
        ("2a 08 00000005 00 0002 00", "28 18 00000005 00 0002 00"),
    ],
)
def test_reads_what_was_written(device: TargetDevice, nexus: ScsiNexus, write: str, read: str) -> None:
    data = bytes(range(256)) * 4
    assert run(device, nexus, write, data) == Outcome(0, b"", b"", 1024)
    assert run(device, nexus, read) == Outcome(0, b"", data, 0)
    assert device.units[0].backing.read(4 * 512, 512) == bytes(512)
    assert device.units[0].backing.read(7 * 512, 512) == bytes(512)


def test_zero_blocks_in_a_6_byte_cdb_are_256(device: TargetDevice, nexus: ScsiNexus) -> None:
    assert len(run(device, nexus, "08 00 0000 00 00").data) == 256 * 512


def test_zero_blocks_elsewhere_are_none(device: TargetDevice, nexus: ScsiNexus) -> None:
    assert run(device, nexus, "28 00 00000000 00 0000 00") == GOOD
    assert run(device, nexus, "2a 00 00000800 00 0000 00") == GOOD


@pytest.mark.parametrize(
    "text",
    [
        "28 00 000007ff 00 0002 00",
        "28 00 00000801 00 0000 00",
        "2a 00 00000800 00 0001 00",
        "88 00 ffffffffffffffff 00000001 00 00",
        "8a 00 0000000000000000 ffffffff 00 00",
        "2f 00 000007ff 00 0002 00",
        "35 00 00000800 00 0001 00",
        "91 00 0000000000000801 00000000 00 00",
    ],
)
def test_blocks_beyond_the_end(device: TargetDevice, nexus: ScsiNexus, text: str) -> None:
    outcome = run(device, nexus, text, bytes(512))
    assert outcome.sense.hex() == OUT_OF_RANGE


@pytest.mark.parametrize(
    "text", ["28 20 00000000 00 0001 00", "2a 60 00000000 00 0001 00", "2f 20 00000000 00 0001 00"]
)
def test_protection_information_is_refused(device: TargetDevice, nexus: ScsiNexus, text: str) -> None:
    assert_invalid_field(run(device, nexus, text, bytes(512)), 1)


@pytest.mark.parametrize(
    ("text", "byte"),
    [
        ("28 00 00000000 00 0021 00", 7),
        ("88 00 0000000000000000 00000021 00 00", 10),
        ("a8 00 00000000 00000021 00 00", 6),
        ("0a 00 0000 21 00", 4),
        ("2f 02 00000000 00 0021 00", 7),
    ],
)
def test_more_than_the_maximum_transfer(device: TargetDevice, nexus: ScsiNexus, text: str, byte: int) -> None:
    device.units[0].max_transfer = 32 * 512
    assert_invalid_field(run(device, nexus, text), byte)


def test_too_little_data_writes_nothing(device: TargetDevice, nexus: ScsiNexus) -> None:
    outcome = run(device, nexus, "2a 00 00000000 00 0002 00", b"\xff" * 512)
    assert sense_of(outcome).matches(Asc.INVALID_FIELD_IN_CDB)
    assert outcome.taken == 1024
    assert device.units[0].backing.read(0, 512) == bytes(512)


def test_too_much_data_writes_what_the_cdb_says(device: TargetDevice, nexus: ScsiNexus) -> None:
    outcome = run(device, nexus, "2a 00 00000000 00 0001 00", b"\xff" * 1024)
    assert outcome == Outcome(0, b"", b"", 512)
    assert device.units[0].backing.read(0, 1024) == b"\xff" * 512 + bytes(512)


def test_write_protection(device: TargetDevice, nexus: ScsiNexus) -> None:
    device.protect_unit(0, True)
    assert sense_of(run(device, nexus, "000000000000")).matches(Asc.MODE_PARAMETERS_CHANGED)
    sense = sense_of(run(device, nexus, "2a 00 00000000 00 0001 00", bytes(512)))
    assert (sense.key, sense.matches(Asc.WRITE_PROTECTED)) == (SenseKey.DATA_PROTECT, True)
    assert decode_mode_sense(run(device, nexus, "1a 08 3f 00 ff 00").data).write_protected


def test_verify(device: TargetDevice, nexus: ScsiNexus) -> None:
    device.units[0].backing.write(0, b"\x11" * 1024)
    assert run(device, nexus, "2f 00 00000000 00 0002 00") == GOOD
    assert run(device, nexus, "2f 02 00000000 00 0002 00", b"\x11" * 1024).status == 0
    assert run(device, nexus, "8f 06 0000000000000000 00000002 00 00", b"\x11" * 512) == Outcome(0, b"", b"", 512)
    assert_invalid_field(run(device, nexus, "2f 04 00000000 00 0002 00", b"\x11" * 1024), 1)


def test_verify_tells_where_it_differs(device: TargetDevice, nexus: ScsiNexus) -> None:
    sense = sense_of(run(device, nexus, "2f 02 00000000 00 0001 00", bytes(300) + b"\x01" + bytes(211)))
    assert (sense.key, sense.matches(Asc.MISCOMPARE), sense.information) == (SenseKey.MISCOMPARE, True, 300)


def test_verify_needs_its_data(device: TargetDevice, nexus: ScsiNexus) -> None:
    outcome = run(device, nexus, "2f 02 00000000 00 0002 00", bytes(512))
    assert sense_of(outcome).matches(Asc.INVALID_FIELD_IN_CDB)


def test_synchronize_cache(device: TargetDevice, nexus: ScsiNexus) -> None:
    assert run(device, nexus, "35 00 00000000 00 0000 00") == GOOD
    assert run(device, nexus, "91 00 00000000000007ff 00000001 00 00") == GOOD


@given(st.integers(0, 2047), st.integers(1, 40), st.integers(0, 255))
def test_any_range_reads_back(lba: int, blocks: int, fill: int) -> None:
    device = TargetDevice(make_spec())
    nexus = device.open_nexus(INITIATOR, 0)
    nexus.pending.clear()
    data = bytes([fill]) * (blocks * 512)
    written = run(device, nexus, cdb.write(lba, blocks), data)
    if lba + blocks > 2048:
        assert written.sense.hex() == OUT_OF_RANGE
    else:
        assert written.status == 0
        assert run(device, nexus, cdb.read(lba, blocks)).data == data
    device.close()


# --- capacity ---


def test_read_capacity(device: TargetDevice, nexus: ScsiNexus) -> None:
    assert run(device, nexus, "25" + "00" * 9).data.hex() == "000007ff00000200"
    assert run(device, nexus, "25" + "00" * 9, lun=3).data.hex() == "000000ff00001000"
    whole = run(device, nexus, "9e 10 0000000000000000 00000020 00 00").data
    assert whole.hex() == "00000000000007ff00000200" + "00" * 20
    assert run(device, nexus, "9e 10 0000000000000000 0000000c 00 00").data == whole[:12]


def test_read_capacity_of_one_address_needs_pmi(device: TargetDevice, nexus: ScsiNexus) -> None:
    assert_invalid_field(run(device, nexus, "25 00 00000001 0000 00 00"), 2)
    assert run(device, nexus, "25 00 00000001 0000 01 00").status == 0
    assert_invalid_field(run(device, nexus, "9e 10 0000000000000001 00000020 00 00"), 2)


def test_unknown_service_actions(device: TargetDevice, nexus: ScsiNexus) -> None:
    assert_invalid_field(run(device, nexus, "9e 12 0000000000000000 00000020 00 00"), 1)
    assert_invalid_field(run(device, nexus, "a3 0c 00000000 00000020 00 00"), 1)


# --- INQUIRY ---


def test_standard_inquiry(device: TargetDevice, nexus: ScsiNexus) -> None:
    data = run(device, nexus, "12 00 00 0060 00").data
    assert data[:36].hex() == "000006125b101002" + b"SRPHA   EMBEDDED DISK   0001".hex()
    assert decode_standard_inquiry(data).target_port_groups == 1
    assert run(device, nexus, "12 00 00 0024 00").data == data[:36]
    assert run(device, nexus, "12 00 00 0000 00") == GOOD


def test_inquiry_fields_that_do_not_fit(device: TargetDevice, nexus: ScsiNexus) -> None:
    assert_invalid_field(run(device, nexus, "12 00 83 00ff 00"), 2)
    assert_invalid_field(run(device, nexus, "12 01 c9 00ff 00"), 2)


def test_vpd_pages(device: TargetDevice, nexus: ScsiNexus) -> None:
    assert run(device, nexus, "12 01 00 00ff 00").data.hex() == "00000004008083b0"
    assert run(device, nexus, "12 01 80 00ff 00").data == b"\0\x80\0\x140002c90300a1b2c30000"
    assert vpd.decode_serial(run(device, nexus, "12 01 80 00ff 00", lun=3).data) == "THREE"
    limits = vpd.decode_block_limits(run(device, nexus, "12 01 b0 00ff 00", lun=3).data)
    assert limits.max_transfer == (1 << 22) // 4096


def test_identification_page_golden(device: TargetDevice, nexus: ScsiNexus) -> None:
    data = run(device, nexus, "12 01 83 00ff 00", lun=3).data
    assert data.hex() == (
        "0083" + "0035"
        "01030010" + "60002c9300a1b2c30000000000000003"
        "0201000d" + b"SRPHA   THREE".hex() + "4194000400000001"
        "4195000400000001"
    )


def test_identification_names_the_port_that_answers(device: TargetDevice) -> None:
    other = device.open_nexus(INITIATOR, 1)
    other.pending.clear()
    found = vpd.decode_identification(run(device, other, "12 01 83 00ff 00").data)
    assert vpd.relative_port(found) == 2
    assert vpd.port_group(found) == 2
    assert vpd.wwid(found) == "360002c9300a1b2c30000000000000000"


def test_a_target_without_alua_has_no_port_groups() -> None:
    device = TargetDevice(make_spec(alua=False))
    nexus = device.open_nexus(INITIATOR, 0)
    nexus.pending.clear()
    assert decode_standard_inquiry(run(device, nexus, "12 00 00 0060 00").data).target_port_groups == 0
    assert vpd.port_group(vpd.decode_identification(run(device, nexus, "12 01 83 00ff 00").data)) is None
    assert_invalid_field(run(device, nexus, "a3 0a 00000000 00000020 00 00"), 1)


# --- REPORT LUNS, REQUEST SENSE, MODE SENSE ---


def test_report_luns(device: TargetDevice, nexus: ScsiNexus) -> None:
    data = run(device, nexus, "a0 00 00 000000 00000100 00 00").data
    assert data.hex() == "00000010000000000000000000000000" + "0003000000000000"
    assert run(device, nexus, "a0 00 01 000000 00000100 00 00").data.hex() == "0000000000000000"
    assert len(run(device, nexus, "a0 00 02 000000 00000010 00 00").data) == 16
    assert_invalid_field(run(device, nexus, "a0 00 00 000000 0000000f 00 00"), 6)
    assert_invalid_field(run(device, nexus, "a0 00 03 000000 00000010 00 00"), 2)


def test_request_sense_tells_a_pending_attention_once(device: TargetDevice, nexus: ScsiNexus) -> None:
    device.announce(0, Attention.CAPACITY_CHANGED)
    assert run(device, nexus, "03 00 0000 fc 00").data.hex() == "700006000000000a000000002a0900000000"
    assert run(device, nexus, "03 00 0000 fc 00").data.hex() == "700000000000000a00000000000000000000"
    assert run(device, nexus, "03 01 0000 fc 00").data.hex() == "7200000000000000"
    assert len(run(device, nexus, "03 00 0000 08 00").data) == 8


def test_mode_sense(device: TargetDevice, nexus: ScsiNexus) -> None:
    caching = "0812" + "00" * 18
    control = "0a0a" + "0010" + "00" * 8
    assert run(device, nexus, "1a 08 08 00 ff 00").data.hex() == "17001000" + caching
    assert run(device, nexus, "1a 00 0a 00 ff 00").data.hex() == "17001008" + "0000080000000200" + control
    assert run(device, nexus, "5a 08 3f 00 000000 0200 00").data.hex() == "0026001000000000" + caching + control
    assert run(device, nexus, "1a 08 4a 00 ff 00").data.hex() == "0f001000" + "0a0a" + "00" * 10
    assert run(device, nexus, "1a 08 3f 00 04 00").data.hex() == "23001000"


def test_mode_sense_refusals(device: TargetDevice, nexus: ScsiNexus) -> None:
    sense = sense_of(run(device, nexus, "1a 08 c8 00 ff 00"))
    assert (sense.key, sense.asc, sense.ascq) == (SenseKey.ILLEGAL_REQUEST, 0x39, 0x00)
    assert_invalid_field(run(device, nexus, "1a 08 1c 00 ff 00"), 2)
    assert_invalid_field(run(device, nexus, "1a 08 0a 01 ff 00"), 3)


# --- access states ---


def test_report_target_port_groups(device: TargetDevice, nexus: ScsiNexus) -> None:
    device.set_access_state(1, AccessState.ACTIVE_NON_OPTIMIZED)
    nexus.pending.clear()
    short = run(device, nexus, "a3 0a 00000000 00000040 00 00").data
    assert short.hex() == "00000018" + "00df000100000001" + "00000001" + "01df000200000001" + "00000002"
    extended = alua.decode_rtpg(run(device, nexus, "a3 2a 00000000 00000040 00 00").data)
    assert extended.transition_seconds == 0
    assert [group.state for group in extended.groups] == [0, 1]


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (AccessState.STANDBY, Asc.ALUA_STANDBY),
        (AccessState.UNAVAILABLE, Asc.ALUA_UNAVAILABLE),
        (AccessState.TRANSITIONING, Asc.ALUA_TRANSITION),
        (AccessState.OFFLINE, Asc.OFFLINE),
    ],
)
def test_access_states_that_stop_io(device: TargetDevice, nexus: ScsiNexus, state: AccessState, code: Asc) -> None:
    device.set_access_state(0, state)
    assert sense_of(run(device, nexus, "000000000000")).matches(Asc.ALUA_STATE_CHANGED)
    for text in ("000000000000", "28 00 00000000 00 0001 00"):
        sense = sense_of(run(device, nexus, text))
        assert (sense.key, sense.matches(code)) == (SenseKey.NOT_READY, True)
    for text in ("12 00 00 0060 00", "a3 0a 00000000 00000040 00 00", "1a 08 08 00 ff 00", "03 00 0000 fc 00"):
        assert run(device, nexus, text).status == 0
    other = device.open_nexus(INITIATOR, 1)
    other.pending.clear()
    assert run(device, other, "28 00 00000000 00 0001 00").status == 0


def test_non_optimized_serves(device: TargetDevice, nexus: ScsiNexus) -> None:
    device.set_access_state(0, AccessState.ACTIVE_NON_OPTIMIZED)
    nexus.pending.clear()
    assert run(device, nexus, "28 00 00000000 00 0001 00").status == 0


# --- what precedes a command ---


def test_attention_goes_first_but_not_for_everything(device: TargetDevice, nexus: ScsiNexus) -> None:
    device.announce(0, Attention.UNIT_RESET)
    assert run(device, nexus, "12 00 00 0060 00").status == 0
    assert run(device, nexus, "a0 00 00 000000 00000100 00 00").status == 0
    assert run(device, nexus, "000000000000").sense.hex() == "700006000000000a00000000290300000000"
    assert run(device, nexus, "000000000000") == GOOD
    device.announce(0, Attention.UNIT_RESET)
    assert sense_of(run(device, nexus, "ff" * 16)).key == SenseKey.UNIT_ATTENTION


def test_report_luns_answers_the_attention_about_luns(device: TargetDevice, nexus: ScsiNexus) -> None:
    device.announce(0, Attention.LUNS_CHANGED)
    run(device, nexus, "a0 00 00 000000 00000100 00 00")
    assert run(device, nexus, "000000000000") == GOOD


def test_injected_answers(device: TargetDevice, nexus: ScsiNexus) -> None:
    device.units[0].inject(BUSY, 2)
    assert run(device, nexus, "12 00 00 0060 00").status == 0
    assert run(device, nexus, "000000000000") == BUSY
    assert run(device, nexus, "28 00 00000000 00 0001 00") == BUSY
    assert run(device, nexus, "000000000000") == GOOD


def test_unknown_opcodes(device: TargetDevice, nexus: ScsiNexus) -> None:
    known = {0x00, 0x03, 0x08, 0x0A, 0x12, 0x1A, 0x25, 0x28, 0x2A, 0x2F, 0x35, 0x5A}
    known |= {0x88, 0x8A, 0x8F, 0x91, 0x9E, 0xA0, 0xA3, 0xA8, 0xAA}
    for opcode in range(256):
        outcome = run(device, nexus, bytes([opcode]))
        assert (outcome.sense.hex() == INVALID_OPCODE) == (opcode not in known)


@pytest.mark.parametrize(
    ("text", "byte"),
    [("000000000004", 5), ("28 00 00000000 00 0001 04", 9), ("88 00 0000000000000000 00000001 00 04", 15)],
)
def test_naca_is_refused(device: TargetDevice, nexus: ScsiNexus, text: str, byte: int) -> None:
    assert_invalid_field(run(device, nexus, text), byte)


@given(st.binary(max_size=40), st.binary(max_size=1100))
def test_no_cdb_breaks_a_unit(command: bytes, data: bytes) -> None:
    device = TargetDevice(make_spec())
    nexus = device.open_nexus(INITIATOR, 0)
    nexus.pending.clear()
    for unit in (device.units[0], device.absent):
        outcome = unit.execute(nexus, command, data)
        assert (outcome.status == ScsiStatus.CHECK_CONDITION) == bool(outcome.sense)
        if outcome.sense:
            decode_sense(outcome.sense)
    device.close()


# --- no unit ---


def test_a_lun_without_a_unit(device: TargetDevice, nexus: ScsiNexus) -> None:
    absent = device.absent
    assert absent.execute(nexus, bytes.fromhex("120000006000")).data[0] == 0x7F
    assert sense_of(absent.execute(nexus, bytes(6))).matches(Asc.LUN_NOT_SUPPORTED)
    assert absent.execute(nexus, bytes.fromhex("030000002000")).data.hex() == "700005000000000a00000000250000000000"
    assert decode_report_luns(absent.execute(nexus, cdb.report_luns(512)).data)[1] == 2
    assert_invalid_field(absent.execute(nexus, bytes.fromhex("12018300ff00")), 1)
    assert_invalid_field(absent.execute(nexus, b"\x12\x00"), 0)
    assert_invalid_field(device.units[0].execute(nexus, b"\x12\x00"), 2)
