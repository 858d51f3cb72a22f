import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.scsi.sense import Asc, Sense, SenseKey, decode_sense, describe_asc, encode_descriptor, encode_fixed

ALUA = Sense.of(SenseKey.UNIT_ATTENTION, Asc.ALUA_STATE_CHANGED)


def test_fixed_golden() -> None:
    assert encode_fixed(ALUA).hex() == "700006000000000a000000002a06" "00000000"  # fmt: skip
    assert decode_sense(encode_fixed(ALUA)) == ALUA
    told = Sense(5, 0x24, 0, True, 0x1234, 2)
    assert encode_fixed(told).hex() == "f1000500001234" "0a00000000" "240000" "c00002"  # fmt: skip
    assert decode_sense(encode_fixed(told)) == told


def test_descriptor_golden() -> None:
    assert encode_descriptor(ALUA).hex() == "72062a0600000000"
    told = Sense(5, 0x24, 0, False, 1 << 40, 2)
    assert encode_descriptor(told).hex() == (
        "7205240000000014" "000a8000" "0000010000000000" "02060000" "c0000200"
    )  # fmt: skip
    assert decode_sense(encode_descriptor(told)) == told


senses = st.builds(
    Sense,
    st.integers(0, 15),
    st.integers(0, 255),
    st.integers(0, 255),
    st.booleans(),
    st.none() | st.integers(0, 2**32 - 1),
    st.none() | st.integers(0, 2**16 - 1),
)


@given(senses)
def test_round_trip(sense: Sense) -> None:
    assert decode_sense(encode_fixed(sense)) == sense
    assert decode_sense(encode_descriptor(sense)) == sense


@given(st.binary(max_size=40))
def test_any_bytes(data: bytes) -> None:
    try:
        sense = decode_sense(data)
    except DecodeError:
        return
    assert decode_sense(encode_descriptor(sense)) == sense


def test_cut_fixed_sense() -> None:
    assert decode_sense(encode_fixed(ALUA)[:8]) == Sense(6)
    assert decode_sense(b"\x70\0\x02") == Sense(2)


@pytest.mark.parametrize(
    "text", ["", "70", "7000", "72062a06000000", "72062a0600000004", "72062a06000000020203", "7f00000000"]
)
def test_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        decode_sense(bytes.fromhex(text))


def test_our_mistakes() -> None:
    for bad in (Sense(16), Sense(1, 256), Sense(1, field_pointer=1 << 16), Sense(1, information=1 << 64)):
        with pytest.raises(EncodeError):
            encode_descriptor(bad)
    with pytest.raises(EncodeError):
        encode_fixed(Sense(1, information=1 << 32))


def test_texts() -> None:
    assert str(ALUA) == "UNIT ATTENTION 2a/06: asymmetric access state changed"
    assert ALUA.matches(Asc.ALUA_STATE_CHANGED)
    assert not ALUA.matches(Asc.CAPACITY_CHANGED)
    assert describe_asc(0x99, 1) == "ASC/ASCQ 99/01"
    assert str(Sense(0xC, 0, 0, True)).startswith("deferred KEY 0xc")
    pairs = [(code.asc, code.ascq) for code in Asc]
    assert len(pairs) == len(set(pairs))
