from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import GIDS

from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import Gid
from srpha.wire.notice import (
    CapabilityTrap144,
    GidTrap,
    InformInfo,
    LidTrap128,
    LocalChange,
    Notice,
    NoticeType,
    ProducerType,
    SystemImageTrap145,
    Trap,
    TrapNumber,
    capability_subscription,
    gid_subscription,
    make_notice,
    read_notice,
    read_trap,
)

PORT = Gid(0xFE80000000000000, 0x0002C90300001234)
ISSUER = Gid(0xFE80000000000000, 0x0002C90300000001)
ISSUER_HEX = "fe800000000000000002c90300000001"

GOLDEN: list[tuple[Trap, str]] = [
    (
        GidTrap(TrapNumber.GID_IN_SERVICE, PORT),
        "83 000004 0040 0001 0000" + "000000000000 fe800000000000000002c90300001234" + "00" * 32,
    ),
    (
        GidTrap(TrapNumber.GID_OUT_OF_SERVICE, PORT),
        "83 000004 0041 0001 0000" + "000000000000 fe800000000000000002c90300001234" + "00" * 32,
    ),
    (LidTrap128(0x0203), "81 000002 0080 0001 0000" + "0203" + "00" * 52),
    (
        CapabilityTrap144(0x0203, 0x02510868, True, LocalChange.LINK_WIDTH_ENABLED, 0x0102),
        "84 000001 0090 0001 0000" + "0000 0203 00 01 02510868 0002 0102" + "00" * 40,
    ),
    (
        SystemImageTrap145(0x0203, 0x0002C90300009999),
        "84 000001 0091 0001 0000" + "0000 0203 0000 0002c90300009999" + "00" * 40,
    ),
]


@pytest.mark.parametrize(("trap", "wire"), GOLDEN)
def test_traps_both_ways(trap: Trap, wire: str) -> None:
    data = bytes.fromhex(wire + ISSUER_HEX)
    assert len(data) == 80
    assert make_notice(trap, issuer_lid=1, issuer_gid=ISSUER).encode() == data
    assert read_trap(Notice.decode(data)) == trap


def test_toggle_and_count() -> None:
    assert Notice(toggle=1, count=0x0123).encode()[8:10] == b"\x81\x23"


def test_in_service() -> None:
    assert [GidTrap(TrapNumber(n), PORT).in_service for n in (64, 65, 66, 67)] == [True, False, True, False]


def test_what_has_no_view() -> None:
    assert read_trap(Notice(generic=0, trap_number=64)) is None
    assert read_trap(Notice(trap_number=257)) is None


def test_empty_notice_is_refused() -> None:
    with pytest.raises(DecodeError):
        read_notice(b"\xff" + bytes(79), 0)
    with pytest.raises(DecodeError):
        read_notice(bytes(80), 1)
    assert read_notice(bytes(3) + Notice(trap_number=64).encode(), 3).trap_number == 64


@given(
    st.one_of(
        st.builds(GidTrap, st.sampled_from([TrapNumber(n) for n in (64, 65, 66, 67)]), GIDS),
        st.builds(LidTrap128, st.integers(0, 0xFFFF)),
        st.builds(
            CapabilityTrap144,
            st.integers(0, 0xFFFF),
            st.integers(0, 2**32 - 1),
            st.booleans(),
            st.integers(0, 0xFFFF),
            st.integers(0, 0xFFFF),
        ),
        st.builds(SystemImageTrap145, st.integers(0, 0xFFFF), st.integers(0, 2**64 - 1)),
    )
)
def test_traps_survive(trap: Trap) -> None:
    assert read_trap(Notice.decode(make_notice(trap).encode())) == trap


@given(st.binary(min_size=80, max_size=80))
def test_any_notice_reads(wire: bytes) -> None:
    read_trap(Notice.decode(wire))


INFORM = bytes.fromhex(
    "00000000000000000000000000000000"  # GID
    "ffff 0000 0000"  # LID range, reserved
    "01 01 0003 0040"  # generic, subscribe, type, trap
    "00012312"  # QPN, response time
    "00 000004"  # reserved, producer
)


def test_inform_info_both_ways() -> None:
    value = InformInfo(
        lid_range_begin=0xFFFF,
        is_generic=1,
        subscribe=1,
        type=3,
        trap_number=64,
        qpn=0x000123,
        response_time=0x12,
        producer_type=4,
    )
    assert value.encode() == INFORM
    assert InformInfo.decode(INFORM) == value


def test_subscriptions() -> None:
    info, mask = gid_subscription(TrapNumber.GID_IN_SERVICE)
    assert info.encode() == INFORM[:28] + bytes.fromhex("00000000 00000004")
    assert mask == 0x10F2
    info, mask = gid_subscription(TrapNumber.GID_OUT_OF_SERVICE, subscribe=False, qpn=1)
    assert (info.subscribe, info.trap_number, info.qpn, mask) == (0, 65, 1, 0x11F2)
    info, mask = capability_subscription()
    assert (info.type, info.trap_number, info.producer_type, mask) == (4, 144, 1, 0x10F2)


def test_accepts() -> None:
    notice = make_notice(GidTrap(TrapNumber.GID_IN_SERVICE, PORT))
    info, _ = gid_subscription(TrapNumber.GID_IN_SERVICE)
    assert info.accepts(notice)
    assert not gid_subscription(TrapNumber.GID_OUT_OF_SERVICE)[0].accepts(notice)
    assert InformInfo(is_generic=1, type=0xFFFF, trap_number=0xFFFF, producer_type=0xFFFFFF).accepts(notice)
    assert not InformInfo(is_generic=0, type=0xFFFF, trap_number=0xFFFF, producer_type=0xFFFFFF).accepts(notice)
    assert not InformInfo(is_generic=1, type=NoticeType.URGENT, trap_number=64, producer_type=4).accepts(notice)
    wrong_producer = InformInfo(is_generic=1, type=3, trap_number=64, producer_type=ProducerType.SWITCH)
    assert not wrong_producer.accepts(notice)
