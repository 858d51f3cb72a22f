from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import pattern

from srpha.wire.dm import (
    DmAttribute,
    IoControllerProfile,
    IoUnitInfo,
    ServiceEntries,
    ServiceEntry,
    SlotState,
    display_text,
    dm_request,
    dm_response,
    read_dm_header,
    read_io_controller_profile,
    read_io_unit_info,
    read_service_entries,
    read_service_entries_modifier,
    service_entries_modifier,
    srp_id_ext,
)
from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.mad import Method

UNIT = bytes.fromhex("0001 04 c0 10f1") + bytes(126)
PROFILE = bytes.fromhex(
    "0002c90300001234"  # GUID
    "0002c9 00 00001017 00a0 0000"  # vendor, reserved, device, version, reserved
    "00abcd 00 00000005"  # subsystem vendor, reserved, subsystem
    "0100 609e 0108 0001"  # class, subclass, protocol, version
    "0011 0022 0fff 00 10"  # connections, initiators, queue depth, reserved, read depth
    "00001064 00100000"  # send size, RDMA size
    "2b 01 02 000000000000000000"  # capabilities, services, entries, reserved
) + b"Linux SRP target".ljust(64, b"\0")
ENTRY = b"SRP.T10:0002C90300001234".ljust(40, b"\0") + bytes.fromhex("0002c90300001234")


def test_io_unit_info_both_ways() -> None:
    value = IoUnitInfo(
        change_id=1,
        max_controllers=4,
        option_rom=1,
        diagnostic_device_id=1,
        controllers=b"\x10\xf1" + bytes(126),
    )
    assert value.encode() == UNIT
    assert IoUnitInfo.decode(UNIT) == value
    assert [value.slot(n) for n in (1, 2, 3, 4)] == [1, 0, 0xF, 1]
    assert value.present_slots == (1, 4)
    for bad in (0, 5):
        with pytest.raises(EncodeError):
            value.slot(bad)


def test_slots_beyond_the_maximum_do_not_count() -> None:
    assert IoUnitInfo(max_controllers=3, controllers=b"\x11" * 128).present_slots == (1, 2, 3)
    assert IoUnitInfo(max_controllers=0, controllers=b"\x11" * 128).present_slots == ()


@given(st.lists(st.integers(0, 15), max_size=255), st.integers(0, 0xFFFF))
def test_slots_survive(states: list[int], change_id: int) -> None:
    info = IoUnitInfo.decode(IoUnitInfo.of_slots(states, change_id=change_id).encode())
    assert info.change_id == change_id
    assert [info.slot(n) for n in range(1, info.max_controllers + 1)] == states
    assert info.present_slots == tuple(n for n, s in enumerate(states, 1) if s == SlotState.PRESENT)


def test_impossible_slots() -> None:
    for bad in ([0] * 256, [16], [-1]):
        with pytest.raises(EncodeError):
            IoUnitInfo.of_slots(bad, change_id=0)


def test_profile_both_ways() -> None:
    value = IoControllerProfile(
        guid=0x0002C90300001234,
        vendor_id=0x0002C9,
        device_id=0x1017,
        device_version=0xA0,
        subsystem_vendor_id=0xABCD,
        subsystem_id=5,
        io_class=0x0100,
        io_subclass=0x609E,
        protocol=0x0108,
        protocol_version=1,
        service_connections=0x11,
        initiators_supported=0x22,
        send_queue_depth=0xFFF,
        rdma_read_depth=16,
        send_message_size=0x1064,
        rdma_transfer_size=0x100000,
        operation_capabilities=0x2B,
        service_capabilities=1,
        service_entries=2,
        id_string=b"Linux SRP target".ljust(64, b"\0"),
    )
    assert len(PROFILE) == 128
    assert value.encode() == PROFILE
    assert IoControllerProfile.decode(PROFILE) == value
    assert value.is_srp
    assert value.id_text == "Linux SRP target"
    assert not IoControllerProfile(io_class=0x0100, io_subclass=0x609E, protocol=0x0109).is_srp
    assert IoControllerProfile(io_class=0xFF00, io_subclass=0x609E, protocol=0x0108).is_srp


def test_service_entries_both_ways() -> None:
    entry = ServiceEntry.of_srp(0x0002C90300001234, 0x0002C90300001234)
    assert entry.encode() == ENTRY
    assert ServiceEntry.decode(ENTRY).id_ext == 0x0002C90300001234
    assert entry.name_text == "SRP.T10:0002C90300001234"
    block = ServiceEntries.of((entry, entry))
    assert block.encode() == ENTRY + ENTRY + bytes(96)
    assert block.entries == (ServiceEntry.decode(ENTRY), ServiceEntry.decode(ENTRY), ServiceEntry(), ServiceEntry())
    with pytest.raises(EncodeError):
        ServiceEntries.of((entry,) * 5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"SRP.T10:0123456789abcDEF", 0x0123456789ABCDEF),
        (b"SRP.T10:0123456789abcDEF" + bytes(16), 0x0123456789ABCDEF),
        (b"SRP.T10:0000000000000000", 0),
        (b"SRP.T10:0123456789abcdef:reserved", 0x0123456789ABCDEF),
        (b"SRP.T10:0123456789abcdef:reservedxxxxxxx", 0x0123456789ABCDEF),
        (b"SRP.T10:0123456789abcdef:", 0x0123456789ABCDEF),
        (b"SRP.T10:0123456789abcde", None),
        (b"SRP.T10:0123456789abcdef0", None),
        (b"SRP.T10:1,ch_count=99999", None),
        (b"SRP.T10:+123456789abcdef", None),
        (b"SRP.T10:0x23456789abcdef", None),
        (b"SRP.T10:0_23456789abcdef", None),
        (b"SRP.T10: 123456789abcdef", None),
        (b"SRP.T10:0123456789abcdef:\x1b[2J", None),
        (b"SRP.T10:0123456789abcdef\0x", None),
        (b"SRP.T10:0123456789abcdef ", None),
        (b"srp.t10:0123456789abcdef", None),
        (b"xSRP.T10:0123456789abcdef", None),
        (b"SRP.T10:", None),
        (b"", None),
        ("SRP.T10:０123456789abcd".encode(), None),
    ],
)
def test_srp_id_ext(name: bytes, value: int | None) -> None:
    assert srp_id_ext(name) == value


@given(st.binary(max_size=40).map(lambda tail: (b"SRP.T10:" + tail)[:40]))
def test_srp_id_ext_takes_only_its_form(name: bytes) -> None:
    found = srp_id_ext(name)
    if found is not None:
        assert name[8:24].decode("ascii").upper() == f"{found:016X}"
        assert name[24:25] in (b"", b"\0", b":")


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (b"plain", "plain"),
        (b"cut\0off", "cut"),
        (b"\x1b[2J\r\nroot#", "?[2J??root#"),
        (b"caf\xc3\xa9\x7f", "caf???"),
        (b"blanks  \0", "blanks"),
        (b"x" * 64, "x" * 64),
        (b"", ""),
    ],
)
def test_display_text(field: bytes, text: str) -> None:
    assert display_text(field) == text


def test_modifier() -> None:
    assert service_entries_modifier(2, 4, 7) == 0x00020704
    assert read_service_entries_modifier(0x00020704) == (2, 4, 7)
    for slot, first, last in ((0, 0, 3), (1, 0, 4), (1, 3, 2), (1, 254, 256), (256, 0, 0), (1, -1, 0)):
        with pytest.raises(EncodeError):
            service_entries_modifier(slot, first, last)
    for bad in (0x00000300, 0x00010400, 0x00010203, 0x01000000):
        with pytest.raises(DecodeError):
            read_service_entries_modifier(bad)


def test_exchange() -> None:
    request = dm_request(Method.GET, DmAttribute.IO_UNIT_INFO, transaction_id=0x42)
    assert request == bytes.fromhex("01 06 01 01 0000 0000 0000000000000042 0010 0000 00000000") + bytes(232)
    answer = dm_response(request, IoUnitInfo.decode(UNIT))
    assert answer == (
        bytes.fromhex("01 06 01 81 0000 0000 0000000000000042 0010 0000 00000000") + bytes(40) + UNIT + bytes(60)
    )
    assert read_io_unit_info(answer) == IoUnitInfo.decode(UNIT)
    refusal = dm_response(request, status=0x0100)
    assert refusal[4:6] == b"\x01\x00"
    with pytest.raises(DecodeError, match="0x0100"):
        read_io_unit_info(refusal)
    for bad in (request, answer[:-1], b"\x02" + answer[1:], answer[:1] + b"\x04" + answer[2:]):
        with pytest.raises(DecodeError):
            read_io_unit_info(bad)
    with pytest.raises(DecodeError):
        read_io_controller_profile(answer)
    with pytest.raises(DecodeError):
        read_dm_header(answer[:2] + b"\x02" + answer[3:])


def test_set_carries_its_attribute() -> None:
    wire = dm_request(Method.SET, DmAttribute.CLASS_PORT_INFO, transaction_id=1, attribute_data=IoUnitInfo.decode(UNIT))
    assert wire[3] == 2
    assert wire[64:196] == UNIT


def test_profile_and_services_of_a_response() -> None:
    request = dm_request(Method.GET, DmAttribute.IO_CONTROLLER_PROFILE, transaction_id=1, modifier=1)
    assert read_io_controller_profile(dm_response(request, IoControllerProfile.decode(PROFILE))).is_srp
    with pytest.raises(DecodeError, match="GUID 0"):
        read_io_controller_profile(dm_response(request, IoControllerProfile()))
    request = dm_request(
        Method.GET, DmAttribute.SERVICE_ENTRIES, transaction_id=1, modifier=service_entries_modifier(1, 0, 1)
    )
    block = ServiceEntries.decode(pattern(192))
    answer = dm_response(request, block)
    assert read_service_entries(answer, 0, 1) == block.entries[:2]
    for first, last in ((0, 4), (1, 0)):
        with pytest.raises(EncodeError):
            read_service_entries(answer, first, last)
