import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.scsi import cdb
from srpha.wire.scsi.cdb import Cdb, Op, RwKind


@pytest.mark.parametrize(
    ("built", "text"),
    [
        (cdb.test_unit_ready(), "000000000000"),
        (cdb.request_sense(252, descriptor=True), "03010000fc00"),
        (cdb.inquiry(96), "120000006000"),
        (cdb.inquiry(255, 0x83), "12018300ff00"),
        (cdb.report_luns(4096), "a00000000000000010000000"),
        (cdb.read_capacity_10(), "25000000000000000000"),
        (cdb.read_capacity_16(), "9e10000000000000000000000020" "0000"),
        (cdb.mode_sense_6(0x08), "1a080800c000"),
        (cdb.mode_sense_10(0x3F), "5a083f00000000020000"),
        (cdb.report_target_port_groups(1024), "a32a00000000000004000000"),
        (cdb.report_target_port_groups(1024, extended=False), "a30a00000000000004000000"),
        (cdb.set_target_port_groups(8), "a40a00000000000000080000"),
        (cdb.read(0x100, 8), "28000000010000000800"),
        (cdb.write(0x100, 8, fua=True), "2a080000010000000800"),
        (cdb.read(1 << 32, 8), "88000000000100000000" "00000008" "0000"),
        (cdb.write(0, 0x10000), "8a000000000000000000" "00010000" "0000"),
        (cdb.read_12(1, 2), "a80000000001000000020000"),
        (cdb.write_12(1, 2, fua=True), "aa0800000001000000020000"),
        (cdb.verify(1, 2), "2f000000000100000200"),
        (cdb.synchronize_cache(), "35000000000000000000"),
        (cdb.write_same_16(1, 2, unmap=True), "93080000000000000001" "00000002" "0000"),
    ],
)  # fmt: skip
def test_golden(built: bytes, text: str) -> None:
    assert built.hex() == text


@pytest.mark.parametrize(
    ("built", "read"),
    [
        (cdb.test_unit_ready(), Cdb(Op.TEST_UNIT_READY)),
        (cdb.request_sense(18), Cdb(Op.REQUEST_SENSE, 18)),
        (cdb.inquiry(255, 0x83), Cdb(Op.INQUIRY, 255, page=0x83, evpd=True)),
        (cdb.report_luns(4096, 2), Cdb(Op.REPORT_LUNS, 4096, select_report=2)),
        (cdb.read_capacity_10(), Cdb(Op.READ_CAPACITY_10, 8)),
        (cdb.read_capacity_16(), Cdb(Op.SERVICE_ACTION_IN_16, 32, cdb.SA_READ_CAPACITY_16)),
        (cdb.mode_sense_6(8), Cdb(Op.MODE_SENSE_6, 192, page=8, disable_block_descriptors=True)),
        (cdb.mode_sense_10(10, 99, 1, False), Cdb(Op.MODE_SENSE_10, 99, page=10, subpage=1)),
        (
            cdb.report_target_port_groups(64),
            Cdb(Op.MAINTENANCE_IN, 64, cdb.SA_TARGET_PORT_GROUPS, extended_header=True),
        ),
        (cdb.set_target_port_groups(8), Cdb(Op.MAINTENANCE_OUT, 8, cdb.SA_TARGET_PORT_GROUPS)),
        (cdb.synchronize_cache(5, 6), Cdb(Op.SYNCHRONIZE_CACHE_10, lba=5, blocks=6)),
        (cdb.synchronize_cache(1 << 40, 6), Cdb(Op.SYNCHRONIZE_CACHE_16, lba=1 << 40, blocks=6)),
        (cdb.write_same_16(5, 6, True), Cdb(Op.WRITE_SAME_16, lba=5, blocks=6, unmap=True)),
        (bytes.fromhex("5e010000000000010000"), Cdb(Op.PERSISTENT_RESERVE_IN, 256, 1)),
        (bytes.fromhex("5f040500000000001800"), Cdb(Op.PERSISTENT_RESERVE_OUT, 24, 4, scope_and_type=5)),
        (bytes.fromhex("42000000000000001800"), Cdb(Op.UNMAP, 24)),
        (bytes.fromhex("8900000000000000000500000001" "0000"), Cdb(Op.COMPARE_AND_WRITE, lba=5, blocks=1)),
        (bytes.fromhex("1b0100000104"), Cdb(Op.START_STOP_UNIT, start=True, immediate=True, control=4)),
    ],
)  # fmt: skip
def test_parse(built: bytes, read: Cdb) -> None:
    assert cdb.parse(built) == read
    assert cdb.parse(built.ljust(16, b"\0")) == read
    assert cdb.parse_rw(built) is None
    with pytest.raises(DecodeError):
        cdb.parse(built[:-1])


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.booleans())
def test_read_write_round_trip(lba: int, blocks: int, fua: bool) -> None:
    assert cdb.parse_rw(cdb.read(lba, blocks, fua)) == (RwKind.READ, lba, blocks, fua)
    assert cdb.parse_rw(cdb.write(lba, blocks, fua)) == (RwKind.WRITE, lba, blocks, fua)
    assert cdb.parse_rw(cdb.verify(lba, blocks)) == (RwKind.VERIFY, lba, blocks, False)
    assert cdb.parse_rw(cdb.read_16(lba, blocks)) == (RwKind.READ, lba, blocks, False)
    assert cdb.parse_rw(cdb.write_16(lba, blocks)) == (RwKind.WRITE, lba, blocks, False)
    if lba < 1 << 32:
        assert cdb.parse_rw(cdb.read_12(lba, blocks)) == (RwKind.READ, lba, blocks, False)
        assert cdb.parse_rw(cdb.write_12(lba, blocks, True)) == (RwKind.WRITE, lba, blocks, True)


def test_six_byte_forms() -> None:
    assert cdb.parse_rw(bytes.fromhex("08e123450000")) == (RwKind.READ, 0x12345, 256, False)
    assert cdb.parse_rw(bytes.fromhex("0a0123450700")) == (RwKind.WRITE, 0x12345, 7, False)
    with pytest.raises(DecodeError):
        cdb.parse_rw(b"\x08\0\0")


def test_verify_with_data() -> None:
    assert cdb.parse_rw(bytes.fromhex("2f020000000100000200")) == (RwKind.VERIFY, 1, 2, True)


@given(st.binary(max_size=32))
def test_any_bytes(data: bytes) -> None:
    try:
        if cdb.parse_rw(data) is None:
            cdb.parse(data)
    except DecodeError:
        return


def test_refused() -> None:
    for bad in (b"", b"\xff" * 16, cdb.read(0, 1)):
        with pytest.raises(DecodeError):
            cdb.parse(bad)
    with pytest.raises(DecodeError):
        cdb.parse_rw(cdb.read(0, 1)[:9])
    assert cdb.parse_rw(b"") is None
    for build in (
        lambda: cdb.read(-1, 1),
        lambda: cdb.write(1 << 64, 1),
        lambda: cdb.read_12(1 << 32, 1),
        lambda: cdb.inquiry(1 << 16),
        lambda: cdb.inquiry(1, 256),
        lambda: cdb.request_sense(256),
    ):
        with pytest.raises(EncodeError):
            build()
