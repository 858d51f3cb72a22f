"""The ``add_target`` line of ib_srp: what it may hold, read and written (facts: srp C.1, A.4).

A line is ``key=value`` items separated by commas or newlines. :func:`parse_target_line` accepts what the kernel does,
with ranges checked where the kernel would cut a value short; :func:`format_target_line` writes the keys in srp_daemon's
order, with ``max_it_iu_size`` last because kernels that do not know it stop reading there.
"""

from __future__ import annotations

import errno
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final, TypeAlias

from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import Gid
from srpha.wire.srp_ports import IO_CLASS_REV10, IO_CLASS_REV16A, initiator_port_id, target_port_id

LINE_MAX: Final = 4096
"""A sysfs store sees one page at most."""

_U64: Final = (1 << 64) - 1
_INT_MAX: Final = (1 << 31) - 1
_HEX: Final = re.compile(r"(?:0[xX])?[0-9a-fA-F]{1,16}", re.ASCII)
_DECIMAL: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_ID_EXT_TEXT: Final = re.compile(r"[0-9a-fA-F]{1,16}", re.ASCII)


class InvalidLineError(ValueError):
    """The line is refused as a whole, as the kernel refuses it with EINVAL; the message names key, value and rule."""

    errno: Final = errno.EINVAL


@dataclass(frozen=True, slots=True)
class NetworkAddress:
    """An RDMA/CM address: a literal IPv4 or IPv6 address and a port; ``port`` None only in ``src``."""

    host: str
    port: int | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TargetLine:
    """An ``add_target`` line. None means: not in the line, the driver's default holds. Checked when made.

    Either ``dgid``, ``pkey`` and ``service_id`` (InfiniBand CM) or ``dest`` (RDMA/CM) must be given.
    """

    id_ext: int
    ioc_guid: int
    dgid: Gid | None = None
    pkey: int | None = None
    service_id: int | None = None
    dest: NetworkAddress | None = None
    src: NetworkAddress | None = None
    io_class: int | None = None
    initiator_ext: int | None = None
    tl_retry_count: int | None = None
    max_sect: int | None = None
    max_cmd_per_lun: int | None = None
    queue_size: int | None = None
    target_can_queue: int | None = None
    cmd_sg_entries: int | None = None
    sg_tablesize: int | None = None
    allow_ext_sg: int | None = None
    comp_vector: int | None = None
    ch_count: int | None = None
    max_it_iu_size: int | None = None
    id_ext_text: str = field(default="", compare=False)
    """``id_ext`` as the target spells it (case, leading zeros); only for writing the same text again."""

    def __post_init__(self) -> None:
        for key, limits in _LIMITS.items():
            value = getattr(self, key)
            if value is not None and value not in limits.allowed:
                raise InvalidLineError(f"{key}={limits.text(value)}: {limits.rule}")
        if self.id_ext_text and (
            not _ID_EXT_TEXT.fullmatch(self.id_ext_text) or int(self.id_ext_text, 16) != self.id_ext
        ):
            raise InvalidLineError(f"id_ext={self.id_ext_text!r}: not the {self.id_ext:016x} it stands for")
        if self.dest is not None and self.dest.port is None:
            raise InvalidLineError(f"dest={self.dest}: a port is needed, as in 192.0.2.1:5555")
        missing = [key for key in ("dgid", "pkey", "service_id") if getattr(self, key) is None]
        if self.dest is None and missing:
            raise InvalidLineError(f"{', '.join(missing)} missing: give dgid, pkey and service_id, or dest")

    @property
    def uses_rdma_cm(self) -> bool:
        """Whether the login goes over RDMA/CM (``dest`` given) instead of the InfiniBand CM."""
        return self.dest is not None

    @property
    def initiator_extension(self) -> int:
        """``initiator_ext`` with the driver's default, 0."""
        return self.initiator_ext or 0

    @property
    def target_port_id(self) -> bytes:
        """16-byte SRP target port identifier: id_ext, ioc_guid; the other way round in revision 10 (facts: srp D)."""
        return target_port_id(self.id_ext, self.ioc_guid, self.io_class or IO_CLASS_REV16A)

    def initiator_port_id(self, sgid: Gid) -> bytes:
        """16-byte SRP initiator port identifier of a login from the local port with GID ``sgid`` (facts: srp D)."""
        return initiator_port_id(self.initiator_extension, sgid.guid, self.io_class or IO_CLASS_REV16A)


@dataclass(frozen=True, slots=True)
class _Limits:
    """The values a key may have, the rule in words, and how its values are written."""

    allowed: range | tuple[int, ...]
    rule: str
    hexadecimal: int = 0
    """Digits of a hexadecimal key; 0 for a decimal one."""

    def text(self, value: int) -> str:
        return f"{value:0{self.hexadecimal}x}" if self.hexadecimal else str(value)


_LIMITS: Final[Mapping[str, _Limits]] = {
    "id_ext": _Limits(range(_U64 + 1), "at most 16 hex digits", 16),
    "ioc_guid": _Limits(range(_U64 + 1), "at most 16 hex digits", 16),
    "pkey": _Limits(range(0x10000), "at most 4 hex digits", 4),
    "service_id": _Limits(range(_U64 + 1), "at most 16 hex digits", 16),
    "io_class": _Limits((IO_CLASS_REV16A, IO_CLASS_REV10), "0100 or ff00", 4),
    "initiator_ext": _Limits(range(_U64 + 1), "at most 16 hex digits", 16),
    "tl_retry_count": _Limits(range(2, 8), "2 to 7"),
    "max_sect": _Limits(range(1, _INT_MAX + 1), "at least 1"),
    "max_cmd_per_lun": _Limits(range(1, _INT_MAX + 1), "at least 1"),
    "queue_size": _Limits(range(1, _INT_MAX + 1), "at least 1"),
    "target_can_queue": _Limits(range(1, _INT_MAX + 1), "at least 1"),
    "cmd_sg_entries": _Limits(range(1, 256), "1 to 255"),
    "sg_tablesize": _Limits(range(1, 2049), "1 to 2048"),
    "allow_ext_sg": _Limits((0, 1), "0 or 1"),
    "comp_vector": _Limits(range(_INT_MAX + 1), "at least 0"),
    "ch_count": _Limits(range(1, _INT_MAX + 1), "at least 1"),
    "max_it_iu_size": _Limits(range(_INT_MAX + 1), "at least 0"),
}

_Value: TypeAlias = int | Gid | NetworkAddress
_OPTION_ORDER: Final = tuple(list(_LIMITS)[list(_LIMITS).index("max_sect") : -1])


def parse_target_line(text: str) -> TargetLine:
    """Read an ``add_target`` line; of a repeated key the last counts. Raises :class:`InvalidLineError`."""
    if len(text) > LINE_MAX:
        raise InvalidLineError(f"the line has {len(text)} characters; at most {LINE_MAX} are allowed")
    values: dict[str, _Value] = {}
    id_ext_text = ""
    for item in re.split(r"[,\n]", text):
        if not item:
            continue
        key, equals, value = item.partition("=")
        reader = _READERS.get(key)
        if reader is None or not equals:
            raise InvalidLineError(f"unknown parameter or missing value {item[:64]!r}")
        values[key] = reader(key, value)
        if key == "id_ext":
            id_ext_text = value if _ID_EXT_TEXT.fullmatch(value) else ""
    for key in ("id_ext", "ioc_guid"):
        if key not in values:
            raise InvalidLineError(f"{key} missing")
    return TargetLine(**values, id_ext_text=id_ext_text)  # type: ignore[arg-type]  # each reader gives its key's type


def format_target_line(line: TargetLine, option_order: Sequence[str] = ()) -> str:
    """The line without a newline, keys in srp_daemon's order; ``option_order`` names options that go before the others.

    ``io_class`` is written only when it is not 0100. Raises :class:`InvalidLineError` for a name in ``option_order``
    that is not an option of a rule.
    """
    unknown = [name for name in option_order if name not in _OPTION_ORDER]
    if unknown:
        raise InvalidLineError(f"{unknown[0]!r} is not an option of add_target")
    items = [f"id_ext={line.id_ext_text or format(line.id_ext, '016x')}", f"ioc_guid={line.ioc_guid:016x}"]
    if line.dgid is not None:
        items.append(f"dgid={line.dgid.hex()}")
    head = ["pkey", "service_id", "dest", "src", "io_class", "initiator_ext", "tl_retry_count"]
    for key in dict.fromkeys((*head, *option_order, *_OPTION_ORDER, "max_it_iu_size")):
        value = getattr(line, key)
        if value is None or (key == "io_class" and value == IO_CLASS_REV16A):
            continue
        limits = _LIMITS.get(key)
        items.append(f"{key}={limits.text(value) if limits else value}")
    return ",".join(items)


def with_options(line: TargetLine, options: Mapping[str, int]) -> TargetLine:
    """``line`` with decimal options of a rule set over its own; raises :class:`InvalidLineError` for a bad one."""
    allowed = {*_OPTION_ORDER, "tl_retry_count", "max_it_iu_size"}
    for key in options:
        if key not in allowed:
            raise InvalidLineError(f"{key!r} is not an option of add_target")
    return replace(line, **options)  # type: ignore[arg-type]  # the keys are checked above, their values are integers


def address_gid(host: str) -> Gid:
    """An IP address as the GID that RoCE v2 makes of it (IBA A17.4.6): IPv6 as it is, IPv4 mapped into IPv6.

    Raises ValueError for anything but a literal address.
    """
    address = ipaddress.ip_address(host)
    packed = address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
    return Gid.from_bytes(packed)


def _read_hex(key: str, value: str) -> int:
    if not _HEX.fullmatch(value):
        raise InvalidLineError(f"{key}={value[:64]!r}: {_LIMITS[key].rule}")
    return _check(key, int(value, 16), value)


def _read_decimal(key: str, value: str) -> int:
    if not _DECIMAL.fullmatch(value):
        raise InvalidLineError(f"{key}={value[:64]!r}: a decimal number, {_LIMITS[key].rule}")
    return _check(key, int(value), value)


def _check(key: str, number: int, value: str) -> int:
    if number not in _LIMITS[key].allowed:
        raise InvalidLineError(f"{key}={value}: {_LIMITS[key].rule}")
    return number


def _read_gid(key: str, value: str) -> Gid:
    if ":" in value:
        raise InvalidLineError(f"{key}={value[:64]!r}: 32 hex digits without colons")
    try:
        return Gid.from_hex(value)
    except DecodeError as error:
        raise InvalidLineError(f"{key}={value[:64]!r}: exactly 32 hex digits") from error


def _read_address(key: str, value: str) -> NetworkAddress:
    host, port = value, ""
    if value.startswith("["):
        host, bracket, port = value[1:].partition("]")
        well_formed = bool(bracket) and (not port or port.startswith(":"))
        port = port[1:] if port else ""
        version = 6
    else:
        host, colon, port = value.partition(":")
        well_formed = bool(port) or not colon
        version = 4
    rule = f"{key}={value[:64]!r}: an address such as 192.0.2.1:5555 or [2001:db8::1]:5555"
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise InvalidLineError(rule) from error
    number = int(port) if _DECIMAL.fullmatch(port) else 0
    if not well_formed or address.version != version or (port and not 0 < number <= 0xFFFF) or "%" in host:
        raise InvalidLineError(rule)
    return NetworkAddress(str(address), number if port else None)


_READERS: Final[Mapping[str, Callable[[str, str], _Value]]] = {
    "dgid": _read_gid,
    "dest": _read_address,
    "src": _read_address,
    **{key: _read_hex if limits.hexadecimal else _read_decimal for key, limits in _LIMITS.items()},
}

if {item.name for item in fields(TargetLine)} != {*_READERS, "id_ext_text"}:
    raise TypeError("a field of TargetLine has no reader")
