from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.core.targets.target_mask import (
    MASK_DIGITS,
    HexMask,
    InvalidMaskError,
    TargetMask,
    parse_mask,
    parse_port_masks,
)
from srpha.core.targets.target_port import TargetPort
from srpha.wire.identifiers import Gid

TARGET = TargetPort(
    id_ext=0x200500A0B81146A1,
    ioc_guid=0x0002C90200402BEC,
    dgid=Gid(0xFE80000000000000, 0x0002C90200402BED),
    service_id=0x200400A0B81146A1,
    pkey=0x8001,
)


@pytest.mark.parametrize(
    ("key", "text", "fits"),
    [
        ("id_ext", "200500A0B8*", True),
        ("id_ext", "0x200500a0b81146a1", True),
        ("id_ext", "*46a1", True),
        ("id_ext", "2005*46a1", True),
        ("id_ext", "200500a0b81146a?", True),
        ("id_ext", "*", True),
        ("id_ext", "*200500a0b81146a1*", True),
        ("id_ext", "200400A0B8*", False),
        ("id_ext", "5*", False),
        ("id_ext", "1", False),
        ("ioc_guid", "2c90200402bec", True),
        ("ioc_guid", "2c9*", False),
        ("ioc_guid", "0002c9*", True),
        ("dgid", "fe80000000000000*", True),
        ("dgid", "fe80000000000000" + "?" * 16, True),
        ("service_id", "2004*", True),
        ("pkey", "?001", True),
        ("pkey", "1", False),
        ("pkey", "8001", True),
    ],
)
def test_masks_are_compared_digit_by_digit(key: str, text: str, fits: bool) -> None:
    assert TargetMask({key: parse_mask(text, MASK_DIGITS[key])}).fits(TARGET) is fits


def test_all_masks_must_fit() -> None:
    good, bad = parse_mask("2005*", 16), parse_mask("2004*", 16)
    assert TargetMask({}).fits(TARGET)
    assert TargetMask({"id_ext": good, "service_id": bad}).fits(TARGET)
    assert not TargetMask({"id_ext": bad, "service_id": bad}).fits(TARGET)


@pytest.mark.parametrize(
    "text", ["", "0x", "xyz", "20 05", "1" * 17, "?" * 15, "?" * 17, "1" * 17 + "*", "٣", "fe80::1", "5\n"]
)
def test_masks_that_can_fit_nothing_are_refused(text: str) -> None:
    with pytest.raises(InvalidMaskError, match=r"hex digits, \? for any digit, \* for any number of them, 16 digits"):
        parse_mask(text, 16)


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 16))
def test_a_prefix_of_the_digits_fits(value: int, length: int) -> None:
    digits = f"{value:016X}"
    assert parse_mask(digits[:length] + "*", 16).fits(value)
    assert parse_mask(digits, 16) == HexMask(digits.lower(), 16)
    assert parse_mask(f"{value:x}", 16).fits(value)


@pytest.mark.parametrize(
    ("names", "port", "fits"),
    [
        (["mlx5_0/1"], "mlx5_0/1", True),
        (["mlx5_0"], "mlx5_0/2", True),
        (["mlx5_1"], "mlx5_10/1", False),
        (["mlx5_?"], "mlx5_1/1", True),
        (["mlx5_?"], "mlx5_10/1", False),
        (["mlx5_*"], "mlx5_10/1", True),
        (["*/1"], "mlx4_0/1", True),
        (["*/1"], "mlx4_0/2", False),
        (["*"], "mlx4_0/2", True),
        (["a", "b"], "b/1", True),
        ([], "b/1", False),
    ],
)
def test_local_ports_by_name(names: list[str], port: str, fits: bool) -> None:
    assert parse_port_masks(names).fits(port) is fits


@pytest.mark.parametrize("name", ["", "mlx5_0/", "/1", "mlx5_0/1/2", "mlx5 0", "mlx5_0/x", "a" * 65, "[ab]/1"])
def test_names_of_no_port_are_refused(name: str) -> None:
    with pytest.raises(InvalidMaskError, match="names no local port"):
        parse_port_masks([name])
