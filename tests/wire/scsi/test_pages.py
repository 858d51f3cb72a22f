import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.scsi import alua, capacity, inquiry, lun, mode, vpd
from srpha.wire.scsi.alua import AccessState, TargetPortGroup, TargetPortGroups
from srpha.wire.scsi.vpd import Association, CodeSet, Designator, DesignatorType

NAA6 = bytes.fromhex("6001405a1b2c3d4e5f60718293a4b5c6")
NAA5 = bytes.fromhex("5001405a1b2c3d4e")
PAGE_83 = (
    vpd.naa_designator(NAA6),
    vpd.t10_designator("SRPHA", "disk 0"),
    vpd.relative_port_designator(2),
    vpd.port_group_designator(257),
)
PAGE_83_HEX = (
    "0083" "0036"
    "01030010" + NAA6.hex() + "0201000e" + b"SRPHA   disk 0".hex() + "4194000400000002" "4195000400000101"
)  # fmt: skip


def test_identification_golden() -> None:
    assert vpd.encode_identification(PAGE_83).hex() == PAGE_83_HEX
    assert vpd.decode_identification(bytes.fromhex(PAGE_83_HEX)) == PAGE_83
    assert vpd.relative_port(PAGE_83) == 2
    assert vpd.port_group(PAGE_83) == 257
    assert vpd.port_group(()) is None


def test_wwid_order() -> None:
    eui = Designator(DesignatorType.EUI64, bytes.fromhex("0002c90200402bec"))
    name = Designator(DesignatorType.SCSI_NAME, b"iqn.2026-11.example:x\0\0\0", code_set=CodeSet.UTF8)
    t10 = vpd.t10_designator("SRPHA", "disk  0 ")
    naa3 = vpd.naa_designator(b"\x30" + bytes(7))
    naa2 = vpd.naa_designator(b"\x20" + bytes(7))
    naa5 = vpd.naa_designator(NAA5)
    naa6 = vpd.naa_designator(NAA6)
    order = [naa6, naa5, naa2, eui, name, t10, naa3]
    texts = ["3" + NAA6.hex(), "3" + NAA5.hex(), "32" + "0" * 15, "20002c90200402bec", "8iqn.2026-11.example:x"]
    texts += ["1SRPHA_disk_0", "33" + "0" * 15]
    for first in range(len(order)):
        assert vpd.wwid(order[first:][::-1]) == texts[first]
    port = Designator(DesignatorType.NAA, NAA5, Association.TARGET_PORT)
    assert vpd.wwid([port]) is None
    assert vpd.wwid([port, t10]) == "1SRPHA_disk_0"
    other = vpd.naa_designator(b"\x60" + bytes(15))
    assert vpd.wwid([naa6, other]) == "3" + NAA6.hex()


@pytest.mark.parametrize(
    ("name", "text"), [(b"naa.6001405A1B2C3D4E", "36001405a1b2c3d4e"), (b"eui.0002C90200402BEC", "20002c90200402bec")]
)
def test_wwid_of_scsi_names(name: bytes, text: str) -> None:
    assert vpd.wwid([Designator(DesignatorType.SCSI_NAME, name, code_set=CodeSet.UTF8)]) == text


@pytest.mark.parametrize(
    "body",
    [
        "01030008" + NAA6[:8].hex(),
        "01030010" + NAA5.hex() + "00" * 8,
        "01030000",
        "0102000400000000",
        "010300",
        "01030010ff",
    ],
)
def test_bad_designators(body: str) -> None:
    with pytest.raises(DecodeError):
        vpd.decode_identification(vpd.encode_page(0x83, bytes.fromhex(body)))


@given(st.binary(max_size=60))
def test_any_identification(body: bytes) -> None:
    try:
        items = vpd.decode_identification(vpd.encode_page(0x83, body))
    except DecodeError:
        return
    assert vpd.decode_identification(vpd.encode_identification(items)) == items
    vpd.wwid(items)


def test_our_designators() -> None:
    for bad in (vpd.naa_designator(NAA6[:8]), Designator(0, bytes(256)), Designator(16, b"")):
        with pytest.raises(EncodeError):
            bad.encode()
    with pytest.raises(EncodeError):
        vpd.t10_designator("TOO LONG NAME", "x")
    with pytest.raises(EncodeError):
        vpd.relative_port_designator(1 << 16)


def test_small_pages() -> None:
    assert vpd.encode_supported_pages([0x83, 0, 0x80]).hex() == "00000003" "008083"  # fmt: skip
    assert vpd.decode_supported_pages(bytes.fromhex("00000003008083")) == (0, 0x80, 0x83)
    assert vpd.encode_serial("SRPHA1").hex() == "00800006" + b"SRPHA1".hex()
    assert vpd.decode_serial(b"\0\x80\0\x08 SRPHA1\0") == "SRPHA1"
    for bad in (b"\0\x80\0\x01\xff", b"\0\x83\0\0", b"\0\x80\0\x02a", b"\0\x80\0"):
        with pytest.raises(DecodeError):
            vpd.decode_serial(bad)
    with pytest.raises(EncodeError):
        vpd.encode_serial("\n")
    with pytest.raises(EncodeError):
        vpd.encode_supported_pages([256])


def test_block_limits() -> None:
    limits = vpd.BlockLimits(max_compare_and_write=1, max_transfer=0x8000, optimal_transfer=0x80, max_write_same=5)
    text = "00b0003c000100000000800000000080" + "00" * 20 + "0000000000000005" + "00" * 20
    assert limits.encode().hex() == text
    assert vpd.decode_block_limits(bytes.fromhex(text)) == limits
    short = bytes.fromhex("00b0000c" "00010000" "00008000" "00000080")  # fmt: skip
    assert vpd.decode_block_limits(short).max_transfer == 0x8000
    with pytest.raises(DecodeError):
        vpd.decode_block_limits(bytes.fromhex("00b0000400010000"))


def test_inquiry_golden() -> None:
    told = inquiry.StandardInquiry("SRPHA", "embedded disk", "0001", target_port_groups=3, multi_port=True)
    text = "000006125b301002" + b"SRPHA   embedded disk   0001".hex() + "00" * 22 + "0080046004c0" + "00" * 32
    assert told.encode().hex() == text
    assert inquiry.decode_standard_inquiry(told.encode()) == told
    assert inquiry.decode_standard_inquiry(told.encode()[:36]).version_descriptors == ()
    rude = bytearray(told.encode())
    rude[8:10] = b"\x1b\n"
    assert inquiry.decode_standard_inquiry(bytes(rude)).vendor == "??PHA"
    for bad in (b"", bytes(35), bytes(36)):
        with pytest.raises(DecodeError):
            inquiry.decode_standard_inquiry(bad)
    for wrong in (
        inquiry.StandardInquiry("far too long", "x", "1"),
        inquiry.StandardInquiry("x", "x", "1", peripheral=256),
        inquiry.StandardInquiry("x", "x", "1", version_descriptors=(1,) * 9),
    ):
        with pytest.raises(EncodeError):
            wrong.encode()


def test_capacity() -> None:
    assert capacity.Capacity(0x1000, 512).encode_10().hex() == "00000fff00000200"
    assert capacity.Capacity(1 << 40, 512).encode_10().hex() == "ffffffff00000200"
    assert capacity.Capacity(2, 512).total_bytes == 1024
    sixteen = capacity.ReadCapacity16(last_lba=0xFFF, block_length=4096, physical_block_exponent=3, unmap_supported=1)
    assert sixteen.encode().hex() == "0000000000000fff0000100000038000" + "00" * 16
    assert capacity.ReadCapacity16.decode(sixteen.encode()) == sixteen
    with pytest.raises(DecodeError):
        capacity.ReadCapacity10.decode(bytes(7))


def test_report_luns() -> None:
    fields = [lun.encode_lun(number) for number in (0, 5, 256)]
    data = capacity.encode_report_luns(fields)
    assert data.hex() == "0000001800000000" "0000000000000000" "0005000000000000" "4100000000000000"  # fmt: skip
    assert capacity.decode_report_luns(data) == (fields, 3)
    assert capacity.decode_report_luns(data[:16]) == (fields[:1], 3)
    assert capacity.decode_report_luns(data[:20]) == (fields[:1], 3)
    for bad in (bytes(7), b"\0\0\0\x07" + bytes(12)):
        with pytest.raises(DecodeError):
            capacity.decode_report_luns(bad)
    with pytest.raises(EncodeError):
        capacity.encode_report_luns([b"\0"])


@given(st.integers(0, (1 << 24) - 1))
def test_lun_round_trip(number: int) -> None:
    assert lun.decode_lun(lun.encode_lun(number)) == number
    assert lun.decode_lun(int.from_bytes(lun.encode_lun(number), "big")) == number


def test_lun_golden() -> None:
    assert lun.encode_lun(5).hex() == "0005000000000000"
    assert lun.encode_lun(5, lun.LunAddressing.FLAT).hex() == "4005000000000000"
    assert lun.encode_lun(0x4000).hex() == "d200400000000000"
    for bad in (
        bytes(7),
        "0105000000000000",
        "0005000100000000",
        "4005000000000001",
        "8000000000000000",
        "c101000000000000",
    ):
        with pytest.raises(DecodeError):
            lun.decode_lun(bytes.fromhex(bad) if isinstance(bad, str) else bad)
    with pytest.raises(DecodeError):
        lun.decode_lun(1 << 64)
    for number, method in ((256, lun.LunAddressing.PERIPHERAL), (-1, None), (1 << 24, None)):
        with pytest.raises(EncodeError):
            lun.encode_lun(number, method)


def test_mode_pages() -> None:
    caching = mode.CachingPage(write_cache_enable=1).encode()
    control = mode.ControlPage(descriptor_sense=1, busy_timeout=0xFFFF).encode()
    assert caching.hex() == "081204" + "00" * 17
    assert control.hex() == "0a0a04000000" "0000" "ffff" "0000"  # fmt: skip
    six = mode.encode_mode_sense(caching + control, mode.DEVICE_WRITE_PROTECT)
    assert six[:4].hex() == "23008000"
    read = mode.decode_mode_sense(six)
    assert read.write_protected
    assert read.pages == {(8, 0): caching, (10, 0): control}
    ten = mode.encode_mode_sense(caching, mode.DEVICE_DPOFUA, bytes(8), ten=True)
    assert ten[:8].hex() == "0022001000000008"
    assert mode.decode_mode_sense(ten, ten=True).block_descriptors == bytes(8)
    subpage = b"\x4a\x01\0\x02ab"
    assert mode.decode_mode_sense(mode.encode_mode_sense(subpage)).pages == {(10, 1): subpage}
    for bad in (b"", six[:-1], b"\x03\0\0\x08", b"\x04\0\0\0\x08", b"\x05\0\0\0\x08\x12"):
        with pytest.raises(DecodeError):
            mode.decode_mode_sense(bad)
    for call in (lambda: mode.encode_mode_sense(bytes(300)), lambda: mode.encode_mode_sense(b"", 256)):
        with pytest.raises(EncodeError):
            call()


GROUPS = (
    TargetPortGroup(1, AccessState.ACTIVE_OPTIMIZED, (1, 2), True),
    TargetPortGroup(2, AccessState.STANDBY, (3,), status_code=alua.StatusCode.ALTERED_BY_SET),
)
GROUPS_HEX = "80df000100000002" "00000001" "00000002" "02df000200010001" "00000003"  # fmt: skip


def test_rtpg_golden() -> None:
    short = TargetPortGroups(GROUPS)
    assert alua.encode_rtpg(short).hex() == "0000001c" + GROUPS_HEX
    assert alua.decode_rtpg(alua.encode_rtpg(short)) == short
    extended = TargetPortGroups(GROUPS, 60)
    assert alua.encode_rtpg(extended).hex() == "00000020103c0000" + GROUPS_HEX
    assert alua.decode_rtpg(alua.encode_rtpg(extended)) == extended
    assert extended.group_of(3) == GROUPS[1]
    assert extended.group_of(9) is None


def test_stpg_golden() -> None:
    states = [(1, AccessState.ACTIVE_OPTIMIZED), (2, AccessState.STANDBY)]
    assert alua.encode_stpg(states).hex() == "00000000" "00000001" "02000002"  # fmt: skip
    assert alua.decode_stpg(alua.encode_stpg(states)) == states
    for bad in (b"", bytes(5), b"\0\0\0\0\x07\0\0\1"):
        with pytest.raises(DecodeError):
            alua.decode_stpg(bad)


@given(st.binary(max_size=60))
def test_any_rtpg(body: bytes) -> None:
    try:
        report = alua.decode_rtpg(len(body).to_bytes(4, "big") + body)
    except DecodeError:
        return
    assert all(group.state in AccessState for group in report.groups)


def test_bad_rtpg() -> None:
    good = alua.encode_rtpg(TargetPortGroups(GROUPS))
    for end in range(len(good)):
        with pytest.raises(DecodeError):
            alua.decode_rtpg(good[:end])
    for wrong in (TargetPortGroup(1 << 16, AccessState.OFFLINE), TargetPortGroup(1, AccessState.OFFLINE, (0,))):
        with pytest.raises(EncodeError):
            wrong.encode()
    with pytest.raises(EncodeError):
        alua.encode_rtpg(TargetPortGroups(GROUPS, 256))
