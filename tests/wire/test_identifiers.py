"""GIDs and P_Keys: golden text and bytes, round trips, malformed input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import DEFAULT_SUBNET_PREFIX, Gid, pkeys_match

LINK_LOCAL = Gid(DEFAULT_SUBNET_PREFIX, 0x0002C90200402BED)
TEXT = "fe80:0000:0000:0000:0002:c902:0040:2bed"
GIDS = st.builds(Gid, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
PKEYS = st.integers(0, 0xFFFF)


class TestGid:
    def test_golden(self) -> None:
        data = bytes.fromhex("fe800000000000000002c90200402bed")
        assert Gid.from_bytes(data) == LINK_LOCAL
        assert LINK_LOCAL.packed == data
        assert LINK_LOCAL.hex() == data.hex()
        assert str(LINK_LOCAL) == TEXT
        assert Gid.from_hex(TEXT) == Gid.from_hex(TEXT.upper()) == Gid.from_hex(data.hex()) == LINK_LOCAL

    @given(GIDS)
    def test_round_trips(self, gid: Gid) -> None:
        assert Gid.from_bytes(gid.packed) == gid
        assert Gid.from_bytes(memoryview(gid.packed)) == gid
        assert Gid.from_hex(gid.hex()) == gid
        assert Gid.from_hex(str(gid)) == gid

    @given(GIDS, GIDS)
    def test_sorts_as_its_bytes_do(self, left: Gid, right: Gid) -> None:
        assert (left < right) == (left.packed < right.packed)

    @given(st.binary(max_size=40).filter(lambda data: len(data) != 16))
    def test_other_lengths_do_not_decode(self, data: bytes) -> None:
        with pytest.raises(DecodeError, match="16 bytes"):
            Gid.from_bytes(data)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "fe80::1",
            TEXT[:-1],
            TEXT + "0",
            TEXT.replace("f", "g"),
            " " + TEXT[1:],
            "0x" + "0" * 30,
            "-" + "0" * 31,
            "0" * 15 + "_" + "0" * 16,
            "٠" * 32,  # digits, but not ASCII ones
        ],
    )
    def test_other_text_does_not_decode(self, text: str) -> None:
        with pytest.raises(DecodeError, match="32 hex digits"):
            Gid.from_hex(text)

    @given(st.text(max_size=40))
    def test_any_text_decodes_or_is_a_decode_error(self, text: str) -> None:
        try:
            gid = Gid.from_hex(text)
        except DecodeError:
            return
        assert gid.hex() == text.replace(":", "").lower()


class TestPkeys:
    @pytest.mark.parametrize(
        ("left", "right", "match"),
        [
            (0xFFFF, 0xFFFF, True),
            (0xFFFF, 0x7FFF, True),
            (0x7FFF, 0xFFFF, True),
            (0x7FFF, 0x7FFF, False),  # two limited members
            (0x8001, 0x8002, False),
            (0x8001, 0x0001, True),
            (0x0000, 0x0000, False),
            (0x8000, 0x8000, False),  # partition 0 is invalid whatever the membership
            (0x8000, 0x0000, False),
        ],
    )
    def test_golden(self, left: int, right: int, match: bool) -> None:
        assert pkeys_match(left, right) is match

    @given(PKEYS, PKEYS)
    def test_is_symmetric(self, left: int, right: int) -> None:
        assert pkeys_match(left, right) == pkeys_match(right, left)

    @given(PKEYS)
    def test_a_limited_member_never_matches_its_like(self, pkey: int) -> None:
        assert not pkeys_match(pkey & 0x7FFF, pkey & 0x7FFF)
