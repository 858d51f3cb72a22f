"""ibsim's packets: literal bytes both ways, round trips, and what is refused."""

from __future__ import annotations

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.ibsim import (
    CONTROL_LENGTH,
    DATAGRAM_LENGTH,
    ConnectData,
    ControlKind,
    ControlPacket,
    SimDatagram,
    check_base,
    client_data_name,
    control_name,
    port_data,
    read_word,
    server_data_name,
    vendor_data,
)

WORDS = st.integers(0, 0xFFFFFFFF)
NAMES = st.text(st.characters(codec="ascii", exclude_categories=("Cc",)), max_size=31)


def native(text: str) -> bytes:
    """Hexadecimal words of 32 bits as this machine stores them."""
    return b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in text.split())


def test_control_packet_literally() -> None:
    packet = native("deadbeef 00000003 00000009 00000004 00000001") + bytes(60)
    assert ControlPacket.decode(packet) == ControlPacket(3, ControlKind.SET_ISSM, native("00000001"))
    assert ControlPacket(3, ControlKind.SET_ISSM, native("00000001")).encode() == packet
    assert len(packet) == CONTROL_LENGTH


def test_connect_literally() -> None:
    data = native("00001234 00000000 00000001") + b"host1-a".ljust(32, b"\0")
    assert ConnectData.decode(data) == ConnectData(0x1234, "host1-a", requests=True)
    assert ConnectData(0x1234, "host1-a", requests=True).encode() == data


def test_datagram_literally() -> None:
    mad = bytes(range(256))
    packet = bytes.fromhex("0007 0000  0003 0000  00000001  00000002  0000006e  00000000  0000000000000100") + mad
    assert SimDatagram.decode(packet) == SimDatagram(7, 3, 1, 2, mad, 110)
    assert SimDatagram(7, 3, 1, 2, mad, 110).encode() == packet
    assert len(packet) == DATAGRAM_LENGTH


def test_names_end_in_nul() -> None:
    assert control_name("sim") == b"\0sim:ctl\0"
    assert control_name("sim", 7) == b"\0sim:ctl7\0"
    assert client_data_name("sim", 7) == b"\0sim:in7\0"
    assert server_data_name("sim", 0) == b"\0sim:out0\0"


def test_answers_literally() -> None:
    assert port_data(0x1234, 4) == (0x1234).to_bytes(2, sys.byteorder) + b"\4\0"
    assert vendor_data(1, 2, 3, 4) == native("1 2 3 0") + (4).to_bytes(8, sys.byteorder)
    assert read_word(native("7") + b"rest") == 7


@given(client=WORDS, kind=WORDS, data=st.binary(max_size=64))
def test_control_round_trip(client: int, kind: int, data: bytes) -> None:
    packet = ControlPacket(client, kind, data)
    assert ControlPacket.decode(packet.encode()) == packet


@given(st.builds(ConnectData, st.integers(1, 2**31 - 1), NAMES, st.booleans(), WORDS))
def test_connect_round_trip(data: ConnectData) -> None:
    assert ConnectData.decode(data.encode()) == data


@given(
    st.builds(
        SimDatagram,
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFFFF),
        st.integers(0, 0xFFFFFF),
        st.binary(min_size=256, max_size=256),
        WORDS,
    )
)
def test_datagram_round_trip(datagram: SimDatagram) -> None:
    assert SimDatagram.decode(datagram.encode()) == datagram


@given(st.binary(max_size=300))
def test_noise_is_refused_or_read(packet: bytes) -> None:
    for decode in (ControlPacket.decode, SimDatagram.decode, ConnectData.decode, read_word):
        try:
            decode(packet)
        except DecodeError:
            continue


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        native("deadbeef 0 1 0") + bytes(63),
        native("deadbeef 0 1 0") + bytes(65),
        native("deadbeee 0 1 0") + bytes(64),
        native("deadbeef 0 1 41") + bytes(64),
    ],
)
def test_malformed_control_packets(packet: bytes) -> None:
    with pytest.raises(DecodeError):
        ControlPacket.decode(packet)


@pytest.mark.parametrize(
    "data",
    [
        native("1 0 0") + bytes(31),
        native("0 0 0") + bytes(32),
        native("80000000 0 0") + bytes(32),
        native("1 0 0") + b"\xff" + bytes(31),
        native("1 0 0") + b"a\nb" + bytes(29),
    ],
)
def test_malformed_connects(data: bytes) -> None:
    with pytest.raises(DecodeError):
        ConnectData.decode(data)


def raw_datagram(dest_qp: int = 1, source_qp: int = 1, length: int = 256, size: int = 256) -> bytes:
    return struct.pack(">HHHHIII4xQ", 1, 0, 2, 0, dest_qp, source_qp, 0, length) + bytes(size)


@pytest.mark.parametrize(
    "packet",
    [
        raw_datagram(size=255),
        raw_datagram(size=257),
        raw_datagram(length=255),
        raw_datagram(length=1 << 40),
        raw_datagram(dest_qp=1 << 24),
        raw_datagram(source_qp=1 << 31),
    ],
)
def test_malformed_datagrams(packet: bytes) -> None:
    with pytest.raises(DecodeError):
        SimDatagram.decode(packet)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ControlPacket(0, 1, bytes(65)).encode(),
        lambda: ControlPacket(-1, 1).encode(),
        lambda: ControlPacket(0, 1 << 32).encode(),
        lambda: SimDatagram(1, 2, 1, 1, bytes(255)).encode(),
        lambda: SimDatagram(0x10000, 2, 1, 1, bytes(256)).encode(),
        lambda: check_base(""),
        lambda: check_base("a b"),
        lambda: check_base("a/b\0"),
        lambda: check_base("x" * 65),
    ],
)
def test_our_own_mistakes(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(EncodeError):
        wrong()


def test_name_that_is_too_long_is_cut_as_ibsim_cuts_it() -> None:
    assert ConnectData.decode(ConnectData(1, "x" * 40).encode()).node == "x" * 31
