"""Hypothesis strategies for wire structures, and the two properties that all of them share."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hypothesis import strategies as st

from srpha.wire.identifiers import Gid
from srpha.wire.layout import Structure

GIDS = st.builds(Gid, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


def structures(cls: type[Structure]) -> st.SearchStrategy[Any]:
    """Any value of ``cls`` whose fields fit."""
    parts: dict[str, st.SearchStrategy[Any]] = {}
    for item in fields(cls):  # type: ignore[arg-type]
        place = item.metadata["srpha.place"]
        if place.kind == "gid":
            parts[item.name] = GIDS
        elif place.kind == "raw":
            parts[item.name] = st.binary(min_size=place.width // 8, max_size=place.width // 8)
        else:
            parts[item.name] = st.integers(0, 2**place.width - 1)
    return st.builds(cls, **parts)


def used_bits(cls: type[Structure]) -> bytes:
    """Mask of the bits that are not reserved."""
    return cls.decode(b"\xff" * cls.LENGTH).encode()


def reserved_count(cls: type[Structure]) -> int:
    return sum(8 - byte.bit_count() for byte in used_bits(cls))


def masked(data: bytes, mask: bytes) -> bytes:
    return bytes(left & right for left, right in zip(data, mask, strict=True))


def pattern(length: int, first: int = 1) -> bytes:
    """Bytes that tell their position."""
    return bytes((first + n) % 251 for n in range(length))
