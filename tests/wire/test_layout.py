"""Declarative layouts: golden bytes, round trips, values out of range, short buffers, overlaps refused."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.wire.errors import DecodeError, EncodeError, WireError
from srpha.wire.identifiers import Gid
from srpha.wire.layout import Structure, gid, raw, structure, uint


@structure(length=4)
class Word(Structure):
    version: int = uint(0, 4, default=6)
    traffic_class: int = uint(0, 8, bit=4)
    flow_label: int = uint(1, 20, bit=4)


@structure(length=40)
class Everything(Structure):
    byte: int = uint(0, 8, default=0x7F)
    half: int = uint(2, 16)
    word: int = uint(4, 32)
    long: int = uint(8, 64)
    flag: int = uint(16, 1)
    odd: int = uint(16, 24, bit=1)
    address: Gid = gid(20)
    text: bytes = raw(36, 3, default=b"abc")


@structure(length=8)
class Wide(Structure):
    """A bit field whose word has no struct code of its own (5 bytes)."""

    wide: int = uint(1, 36, bit=2)


@structure(length=3)
class Unordered(Structure):
    last: int = uint(2, 8)
    first: int = uint(0, 8)


@structure(length=4)
class Empty(Structure):
    pass


EVERYTHING = Everything(
    half=0x0102,
    word=0x03040506,
    long=0x0708090A0B0C0D0E,
    flag=1,
    odd=0x5A5A5A,
    address=Gid(0xFE80000000000000, 0x0002C90300000001),
    text=b"xyz",
)
EVERYTHING_BYTES = bytes.fromhex(
    "7f 00 0102 03040506 0708090a0b0c0d0e ad 2d 2d 00 fe80000000000000 0002c90300000001 78797a 00"
)


def integers(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1)


EVERYTHINGS = st.builds(
    Everything,
    byte=integers(8),
    half=integers(16),
    word=integers(32),
    long=integers(64),
    flag=integers(1),
    odd=integers(24),
    address=st.builds(Gid, integers(64), integers(64)),
    text=st.binary(min_size=3, max_size=3),
)


class TestGoldenBytes:
    @pytest.mark.parametrize(
        ("value", "data"),
        [
            (Word(), bytes.fromhex("60000000")),
            (Word(version=6, traffic_class=0xAB, flow_label=0xCDEF1), bytes.fromhex("6abcdef1")),
            (Word(version=0, traffic_class=1, flow_label=0), bytes.fromhex("00100000")),
            (EVERYTHING, EVERYTHING_BYTES),
            (Wide(wide=2**36 - 1), bytes.fromhex("00 3f ff ff ff fc 00 00")),
            (Wide(wide=1), bytes.fromhex("00 00 00 00 00 04 00 00")),
            (Unordered(first=1, last=3), b"\x01\x00\x03"),
        ],
    )
    def test_both_ways(self, value: Structure, data: bytes) -> None:
        assert value.encode() == data
        assert type(value).decode(data) == value

    def test_reserved_bits_are_ignored_on_receipt_and_sent_as_zero(self) -> None:
        noisy = bytearray(EVERYTHING_BYTES)
        for position, bits in ((1, 0xFF), (19, 0x7F), (39, 0xFF)):
            noisy[position] |= bits
        assert Everything.decode(noisy) == EVERYTHING
        assert Everything.decode(noisy).encode() == EVERYTHING_BYTES

    def test_defaults(self) -> None:
        assert Everything() == Everything(
            byte=0x7F, half=0, word=0, long=0, flag=0, odd=0, address=Gid(0, 0), text=b"abc"
        )

    def test_short_raw_values_are_padded_with_zeros(self) -> None:
        encoded = dataclasses.replace(EVERYTHING, text=b"x").encode()
        assert encoded[36:39] == b"x\0\0"
        assert Everything.decode(encoded).text == b"x\0\0"


class TestRoundTrips:
    @given(EVERYTHINGS)
    def test_values_survive(self, value: Everything) -> None:
        encoded = value.encode()
        assert len(encoded) == Everything.LENGTH == 40
        assert Everything.decode(encoded) == value

    @given(st.binary(min_size=40, max_size=40))
    def test_any_bytes_decode_and_encode_to_a_fixed_point(self, data: bytes) -> None:
        value = Everything.decode(data)
        again = value.encode()
        assert Everything.decode(again) == value
        reserved = {1: 0xFF, 19: 0x7F, 39: 0xFF}  # the top bit of byte 19 is the last of ``odd``
        changed = [old ^ new for old, new in zip(data, again, strict=True)]
        assert all(bits & ~reserved.get(at, 0) == 0 for at, bits in enumerate(changed))

    @given(EVERYTHINGS, st.binary(max_size=9), st.binary(max_size=9))
    def test_at_any_offset_of_any_kind_of_buffer(self, value: Everything, before: bytes, after: bytes) -> None:
        data = before + value.encode() + after
        for buffer in (data, bytearray(data), memoryview(data), memoryview(bytearray(data))):
            assert Everything.decode(buffer, len(before)) == value

    @given(st.integers(0, 2**32))
    def test_random_layouts(self, seed: int) -> None:
        """A structure of random adjacent bit fields agrees with arithmetic on one big integer."""
        rng = random.Random(seed)
        length = rng.randint(1, 12)
        annotations: dict[str, type] = {}
        body: dict[str, Any] = {"__annotations__": annotations}
        values: dict[str, int] = {}
        expected, at = 0, 0
        while at < length * 8:
            width = rng.randint(1, min(64, length * 8 - at))
            if rng.random() < 0.7:
                name = f"f{at}"
                body[name] = uint(at // 8, width, bit=at % 8)
                annotations[name] = int
                values[name] = rng.getrandbits(width)
                expected |= values[name] << (length * 8 - at - width)
            at += width
        made = structure(length=length)(type("Random", (Structure,), body))
        assert made(**values).encode() == expected.to_bytes(length, "big")
        assert made.decode(expected.to_bytes(length, "big")) == made(**values)


class TestOutOfRange:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("byte", 256),
            ("byte", -1),
            ("half", 2**16),
            ("word", 2**32),
            ("word", -1),
            ("long", 2**64),
            ("flag", 2),
            ("flag", -1),
            ("odd", 2**24),
            ("text", b"four"),
        ],
    )
    def test_does_not_encode(self, name: str, value: object) -> None:
        with pytest.raises(EncodeError, match="does not fit"):
            dataclasses.replace(EVERYTHING, **{name: value}).encode()

    @pytest.mark.parametrize(("name", "value"), [("flag", 2), ("text", b"four")])
    def test_names_the_field_where_it_is_known(self, name: str, value: object) -> None:
        with pytest.raises(EncodeError, match=f"Everything.{name}="):
            dataclasses.replace(EVERYTHING, **{name: value}).encode()

    @given(integers(24) | st.integers(-(2**40), 2**40))
    def test_a_bit_field_never_spills_into_its_neighbour(self, odd: int) -> None:
        value = dataclasses.replace(EVERYTHING, odd=odd)
        if 0 <= odd < 2**24:
            assert Everything.decode(value.encode()) == value
        else:
            with pytest.raises(EncodeError):
                value.encode()

    def test_wide_words_are_checked_too(self) -> None:
        with pytest.raises(EncodeError):
            Wide(wide=2**36).encode()


class TestShortBuffers:
    @given(st.binary(max_size=39))
    def test_do_not_decode(self, data: bytes) -> None:
        with pytest.raises(DecodeError, match="Everything needs 40 bytes at offset 0"):
            Everything.decode(data)

    @pytest.mark.parametrize("offset", [1, 40, 41, 1000, -1, -40])
    def test_offsets_outside_do_not_decode(self, offset: int) -> None:
        with pytest.raises(DecodeError):
            Everything.decode(EVERYTHING_BYTES, offset)

    def test_both_faults_are_wire_errors_and_told_apart(self) -> None:
        assert issubclass(DecodeError, WireError)
        assert issubclass(EncodeError, WireError)
        assert not issubclass(DecodeError, EncodeError)
        assert not issubclass(EncodeError, DecodeError)


class TestDeclarations:
    def test_overlapping_fields_are_refused(self) -> None:
        with pytest.raises(TypeError, match=r"Overlap\.second overlaps"):

            @structure(length=4)
            class Overlap(Structure):
                first: int = uint(0, 16)
                second: int = uint(1, 8)

    def test_overlapping_bits_are_refused(self) -> None:
        with pytest.raises(TypeError, match="overlaps"):

            @structure(length=1)
            class Overlap(Structure):
                first: int = uint(0, 4)
                second: int = uint(0, 5, bit=3)

    def test_the_same_place_twice_is_refused(self) -> None:
        with pytest.raises(TypeError, match="overlaps"):

            @structure(length=8)
            class Twice(Structure):
                first: int = uint(0, 32)
                second: int = uint(0, 32)

    @pytest.mark.parametrize("field", [uint(4, 8), uint(3, 16), uint(3, 6, bit=4), raw(2, 3), gid(0)])
    def test_a_field_beyond_the_end_is_refused(self, field: Any) -> None:
        body = {"__annotations__": {"late": int}, "late": field}
        with pytest.raises(TypeError, match="late overlaps its neighbour or the end"):
            structure(length=4)(type("Late", (Structure,), body))

    def test_a_field_without_a_place_is_refused(self) -> None:
        with pytest.raises(TypeError, match="has no place on the wire"):

            @structure(length=4)
            class Lost(Structure):
                nowhere: int = 0

    def test_a_structure_of_reserved_bits_only(self) -> None:
        assert Empty().encode() == bytes(4)
        assert Empty.decode(b"\xff" * 4) == Empty()
        with pytest.raises(DecodeError):
            Empty.decode(b"123")

    def test_values_are_frozen_hashable_and_keyword_only(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            EVERYTHING.byte = 1  # type: ignore[misc]
        assert hash(Everything.decode(EVERYTHING_BYTES)) == hash(EVERYTHING)
        assert not hasattr(EVERYTHING, "__dict__")
        with pytest.raises(TypeError):
            Word(1)  # type: ignore[call-arg]
