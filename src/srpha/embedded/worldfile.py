"""The world's file: TOML as written by people, checked for shape; meaning is checked by :mod:`worldspec`.

Every problem is one line: file, key, value, what is possible instead.
"""

from __future__ import annotations

import re
import tomllib
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

_SIZE: Final = re.compile(r"(\d{1,15})\s*(B|KiB|MiB|GiB|TiB)?")
_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_HEX: Final = re.compile(r"(?:0x)?[0-9a-fA-F]{1,32}")


class WorldSpecError(ValueError):
    """A world cannot be built from its file. ``problems`` are lines of text, each naming file, key and remedy."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _read_size(value: object) -> object:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise ValueError('give bytes as a number, or text such as "64 MiB" (B, KiB, MiB, GiB, TiB)')
        return int(match[1]) * _UNITS[match[2] or "B"]
    return value


def _read_hex(value: object) -> object:
    if isinstance(value, str):
        if _HEX.fullmatch(value) is None:
            raise ValueError("give hex digits")
        return int(value, 16)
    return value


def _read_name(value: object) -> object:
    if isinstance(value, str) and (not value.isprintable() or value != value.strip() or '"' in value):
        raise ValueError("give printable characters without quotes, no blank at either end")
    return value


Name = Annotated[str, BeforeValidator(_read_name), Field(min_length=1, max_length=64)]
Guid = Annotated[int, BeforeValidator(_read_hex), Field(gt=0, lt=1 << 64)]
Prefix = Annotated[int, BeforeValidator(_read_hex), Field(gt=0, lt=1 << 64)]
Naa = Annotated[int, BeforeValidator(_read_hex), Field(ge=6 << 124, lt=7 << 124)]
Size = Annotated[int, BeforeValidator(_read_size), Field(ge=512, lt=1 << 50)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class SubnetTable(_Table):
    """``[subnet]``: GID prefix as 16 hex digits, and the HCA that runs the subnet manager."""

    prefix: Prefix = 0xFE80000000000000
    sm: Name | None = None


class SwitchTable(_Table):
    """``[[switch]]``."""

    name: Name
    ports: int = Field(ge=1, le=254)
    node_guid: Guid | None = None
    description: str = Field(default="", max_length=64)


class HcaTable(_Table):
    """``[[hca]]``. With ``topology`` an entry may name an HCA of that file, to give it a host and a device name."""

    name: Name
    ports: int | None = Field(default=None, ge=1, le=254)
    host: Name | None = None
    device: Name | None = None
    node_guid: Guid | None = None
    port_guids: list[Guid] = []
    description: str = Field(default="", max_length=64)


class LinkTable(_Table):
    """``[[link]]``: two ports as ``node/port``; latency in microseconds."""

    a: str
    b: str
    latency_us: float = Field(default=1.0, ge=0, le=1e6, strict=False)


class HostTable(_Table):
    """``[[host]]``; optional, hosts are known from their HCAs as well."""

    name: Name


class ServiceTable(_Table):
    """``[[target.ioc.service]]``: a further entry of an IOC's service table."""

    name: str = Field(max_length=40)
    id: Guid


class IocTable(_Table):
    """``[[target.ioc]]``: one SRP target port. GUID by default that of the target's HCA in the same place."""

    guid: Guid | None = None
    id_ext: Guid | None = None
    service_id: Guid | None = None
    id_string: str = Field(default="srpha embedded SRP target", max_length=64)
    io_class: Literal["16a", "10"] = "16a"
    access: Literal["optimized", "non-optimized", "standby", "unavailable"] = "optimized"
    service: list[ServiceTable] = []


class UnitTable(_Table):
    """``[[target.unit]]``: one logical unit, in memory unless ``file`` is given (relative to the world's file)."""

    lun: int = Field(ge=0, le=0x3FFF)
    size: Size
    block_size: Literal[512, 1024, 2048, 4096] = 512
    file: str | None = None
    serial: str | None = Field(default=None, min_length=1, max_length=32)
    naa: Naa | None = None
    write_protected: bool = False
    service_time_ms: float = Field(default=0.0, ge=0, lt=3.6e6, strict=False)
    queue_depth: int = Field(default=256, ge=1)


class TargetTable(_Table):
    """``[[target]]``: seen through all ports of its HCAs. ``late`` targets are powered off until they join."""

    name: Name
    hcas: list[Name] = Field(min_length=1)
    late: bool = False
    alua: bool = True
    request_limit: int = Field(default=64, ge=1, le=4096)
    max_iu: int = Field(default=8260, ge=64, le=65536)
    ioc: list[IocTable] = []
    unit: list[UnitTable] = Field(min_length=1)


class WorldFile(_Table):
    """The whole file."""

    topology: str | None = None
    """An ibsim or ibnetdiscover file, relative to this one, whose nodes and cables come first."""
    subnet: SubnetTable = SubnetTable()
    switches: list[SwitchTable] = Field(default=[], alias="switch")
    hcas: list[HcaTable] = Field(default=[], alias="hca")
    links: list[LinkTable] = Field(default=[], alias="link")
    hosts: list[HostTable] = Field(default=[], alias="host")
    targets: list[TargetTable] = Field(default=[], alias="target")


def read_world_file(text: str, source: str) -> WorldFile:
    """Check TOML text for shape. Raises :class:`WorldSpecError` with every problem found."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WorldSpecError((f"{source}: not TOML: {error}",)) from None
    try:
        return WorldFile.model_validate(data)
    except ValidationError as error:
        raise WorldSpecError(tuple(_line(source, detail) for detail in error.errors())) from None


def _line(source: str, detail: ErrorDetails) -> str:
    place = ""
    for part in detail["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"{source}: {place}: unknown key; possible here: {', '.join(_keys_at(detail['loc'][:-1]))}"
    if kind == "missing":
        return f"{source}: {place}: missing"
    what = detail["msg"].removeprefix("Value error, ")
    what = what[0].lower() + what[1:]
    value = repr(detail["input"])
    return f"{source}: {place}: {value if len(value) <= 60 else value[:57] + '...'} is not possible: {what}"


def _keys_at(path: tuple[int | str, ...]) -> list[str]:
    """Names of the keys that the table at ``path`` may have."""
    table: type[BaseModel] = WorldFile
    for part in path:
        for name, field in table.model_fields.items():
            if part == (field.alias or name):
                found = _table_in(field.annotation)
                table = found if found is not None else table
    return [field.alias or name for name, field in table.model_fields.items()]


def _table_in(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *getattr(annotation, "__args__", ()))
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
