"""Declarative layouts: a structure on the wire as a frozen dataclass whose fields know their place.

Specifications draw structures as big-endian words with bit 0 the most significant; so do the field specifiers here.
Every structure names its length on the wire, decodes from any buffer at any offset, and encodes to that length::

    @structure(length=24)
    class MadHeader(Structure):
        base_version: int = uint(0, 8, default=1)
        ...
        transaction_id: int = uint(8, 64)

Reserved bits are not fields: they are ignored on receipt and sent as zero, as IBA 3.2.5 asks.
``decode`` and ``encode`` are generated once per class, so that a decode costs one ``struct`` call and one constructor.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Final, Self, TypeVar, cast, dataclass_transform

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.identifiers import Gid

Buffer = bytes | bytearray | memoryview
T = TypeVar("T", bound="Structure")

_PLACE: Final = "srpha.place"
_NATURAL: Final = {8: "B", 16: "H", 32: "I", 64: "Q"}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a field stands: first bit from the start of the structure, width in bits, and how it is read."""

    start: int
    width: int
    kind: str  # "uint", "raw" or "gid"

    @property
    def end(self) -> int:
        return self.start + self.width

    @property
    def natural(self) -> bool:
        return self.kind != "uint" or (self.start % 8 == 0 and self.width in _NATURAL)


def uint(byte: int, width: int, *, bit: int = 0, default: int = 0) -> int:
    """An unsigned big-endian integer of ``width`` bits starting ``bit`` bits after the top of byte ``byte``."""
    return field(default=default, metadata={_PLACE: _Place(byte * 8 + bit, width, "uint")})


def raw(byte: int, length: int, *, default: bytes | None = None) -> bytes:
    """``length`` bytes as they are; shorter values are padded with zero bytes when encoded."""
    value = bytes(length) if default is None else default
    return field(default=value, metadata={_PLACE: _Place(byte * 8, length * 8, "raw")})


def gid(byte: int) -> Gid:
    """A 16-byte GID."""
    return field(default=Gid(0, 0), metadata={_PLACE: _Place(byte * 8, 128, "gid")})


class Structure:
    """Base of all fixed-length structures. Subclasses are made by :func:`structure`."""

    __slots__ = ()
    LENGTH: ClassVar[int]

    @classmethod
    def decode(cls, data: Buffer, offset: int = 0) -> Self:
        """Read one structure at ``offset``; raises :class:`DecodeError` when the buffer is too short."""
        raise NotImplementedError

    def encode(self) -> bytes:
        """``LENGTH`` bytes; raises :class:`EncodeError` when a value does not fit its field."""
        raise NotImplementedError


# Without field_specifiers a type checker takes every right-hand side for a default, and here every field has one.
@dataclass_transform(frozen_default=True, kw_only_default=True)
def structure(*, length: int) -> Callable[[type[T]], type[T]]:
    """Make a :class:`Structure` of ``length`` bytes out of a class body of field specifiers."""

    def make(cls: type[T]) -> type[T]:
        made = dataclass(frozen=True, slots=True, kw_only=True)(cls)
        made.LENGTH = length
        _compile(made, length)
        return made

    return make


def _compile(cls: type[Structure], length: int) -> None:
    """Generate ``decode`` and ``encode`` for ``cls`` from the places of its fields."""
    places: list[tuple[str, _Place]] = []
    for item in fields(cast("Any", cls)):
        place = item.metadata.get(_PLACE)
        if place is None or item.default is MISSING:
            raise TypeError(f"{cls.__name__}.{item.name} has no place on the wire")
        places.append((item.name, place))
    places.sort(key=lambda pair: pair[1].start)
    words = _words(cls.__name__, places, length)

    layout = ">"
    position = 0
    unpacked: list[str] = []
    getters: dict[str, str] = {}
    packed: list[str] = []
    checks: list[str] = []
    for number, (first, size, members) in enumerate(words):
        if first > position:
            layout += f"{first - position}x"
        position = first + size
        word = f"w{number}"
        unpacked.append(word)
        name, place = members[0]
        if place.natural:
            layout += _NATURAL[place.width] if place.kind == "uint" else f"{size}s"
            getters[name] = f"Gid.from_bytes({word})" if place.kind == "gid" else word
            packed.append(f"self.{name}.packed" if place.kind == "gid" else f"self.{name}")
            if place.kind == "raw":
                checks.append(f"if len(self.{name}) > {size}: misfit(self, {name!r})")
            continue
        code = _NATURAL.get(size * 8)
        layout += code or f"{size}s"
        value = word if code else f"from_bytes({word}, 'big')"
        terms: list[str] = []
        for name, place in members:
            shift = (first + size) * 8 - place.end
            mask = (1 << place.width) - 1
            getters[name] = f"({value} >> {shift}) & {mask:#x}"
            checks.append(f"if not 0 <= self.{name} <= {mask:#x}: misfit(self, {name!r})")
            terms.append(f"(self.{name} << {shift})")
        joined = " | ".join(terms)
        packed.append(joined if code else f"({joined}).to_bytes({size}, 'big')")
    if position < length:
        layout += f"{length - position}x"

    codec = struct.Struct(layout)
    arguments = ", ".join(f"{item.name}={getters[item.name]}" for item in fields(cast("Any", cls)))
    source = [
        "def decode(cls, data, offset=0):",
        f"    if offset < 0 or len(data) - offset < {length}: short(cls, data, offset)",
        f"    {', '.join(unpacked)}, = unpack_from(data, offset)" if unpacked else "    pass",
        f"    return cls({arguments})",
        "def encode(self):",
        *(f"    {check}" for check in checks),
        "    try:",
        f"        return pack({', '.join(packed)})",
        "    except struct_error:",
        "        misfit(self, None)",
    ]
    namespace: dict[str, Any] = {
        "unpack_from": codec.unpack_from,
        "pack": codec.pack,
        "struct_error": struct.error,
        "from_bytes": int.from_bytes,
        "Gid": Gid,
        "short": _short,
        "misfit": _misfit,
    }
    exec("\n".join(source), namespace)  # noqa: S102 - the source is made above from field names, as dataclasses does
    cls.decode = classmethod(namespace["decode"])  # type: ignore[assignment]
    cls.encode = namespace["encode"]  # type: ignore[method-assign]


def _words(
    owner: str, places: list[tuple[str, _Place]], length: int
) -> list[tuple[int, int, list[tuple[str, _Place]]]]:
    """Group fields into words (first byte, size in bytes, members), joining bit fields that share bytes."""
    words: list[tuple[int, int, list[tuple[str, _Place]]]] = []
    end_bit = 0
    for name, place in places:
        if place.start < end_bit or place.end > length * 8:
            raise TypeError(f"{owner}.{name} overlaps its neighbour or the end of the structure")
        first, last = place.start // 8, (place.end + 7) // 8
        if words and words[-1][0] + words[-1][1] > first:
            start, _, members = words[-1]
            words[-1] = (start, last - start, [*members, (name, place)])
        else:
            words.append((first, last - first, [(name, place)]))
        end_bit = place.end
    return words


def _short(cls: type[Structure], data: Buffer, offset: int) -> None:
    raise DecodeError(f"{cls.__name__} needs {cls.LENGTH} bytes at offset {offset}, the buffer has {len(data)}")


def _misfit(value: Structure, name: str | None) -> None:
    what = type(value).__name__ if name is None else f"{type(value).__name__}.{name}={getattr(value, name)!r}"
    raise EncodeError(f"{what} does not fit its field: {value!r}")
