"""multipathd's maps: ``show maps json`` and a raw list of paths, checked and read (facts: multipath 1.7).

Fields that are not needed may be missing or new; fields that are needed must have the right type. multipathd does not
escape strings in its JSON: a vendor string with a quote in it makes the whole text unreadable, which is told, not
guessed around.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from srpha.core.seams import CheckerState, DeviceState, GroupState, PathState
from srpha.wire.errors import DecodeError

MAPS_COMMAND: Final = "show maps json"
PATHS_COMMAND: Final = 'show paths raw format "%d|%D|%i|%0"'
"""Kernel name, ``major:minor``, ``host:channel:target:lun`` and failures of every path; the JSON has no H:C:T:L."""

MAJOR_VERSION: Final = 0
_TEXT_MAX: Final = 255
_DEVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:!-]{0,63}", re.ASCII)
_DEV_T: Final = re.compile(r"\d{1,7}:\d{1,7}", re.ASCII)
_HCTL: Final = re.compile(r"\d{1,9}:\d{1,9}:\d{1,9}:\d{1,20}", re.ASCII)
_NUMBER: Final = re.compile(r"-?\d{1,20}", re.ASCII)
_DM_NAME: Final = re.compile(r"dm-\d{1,7}", re.ASCII)
_NO_DEVICE: Final = "-"
_NO_INQUIRY: Final = "##"
_UNDEFINED: Final = "undef"
_QUEUE_FEATURE: Final = "queue_if_no_path"
_WAITING: Final = re.compile(r"\d+ (?:sec|chk)", re.ASCII)

_CHECKERS: Final[Mapping[str, CheckerState]] = {
    **{state.value: state for state in CheckerState},
    # the unit has left its target: no I/O can succeed (multipath-tools 0.13)
    "disconnected": CheckerState.FAULTY,
}


@dataclass(frozen=True, slots=True)
class ListedPath:
    """A path as ``show maps json`` has it."""

    device: str
    dev_t: str
    state: PathState
    """A path that is not (yet) in the kernel's table counts as failed: no I/O goes there."""
    checker: CheckerState
    device_state: DeviceState
    """Only running or offline; sysfs knows more."""
    priority: int


@dataclass(frozen=True, slots=True)
class ListedGroup:
    """A path group as ``show maps json`` has it."""

    number: int
    selector: str
    priority: int
    state: GroupState
    paths: tuple[ListedPath, ...]


@dataclass(frozen=True, slots=True)
class ListedMap:
    """A map as ``show maps json`` has it; sizes and waiting I/O are the kernel's to tell."""

    name: str
    wwid: str
    dm_name: str
    """``dm-0``; empty while multipathd does not know it."""
    vendor: str
    product: str
    queueing: bool
    groups: tuple[ListedGroup, ...]


@dataclass(frozen=True, slots=True)
class PathFacts:
    """What the list of paths adds. ``hctl`` is empty for a path that is no SCSI device."""

    hctl: str
    fail_count: int


def parse_maps(text: str) -> tuple[ListedMap, ...]:
    """The maps by name; raises :class:`DecodeError` that names the field.

    Paths whose device is already gone (multipathd shows ``-``) are left out: nothing can be done with them.
    """
    if not text:
        raise DecodeError("multipathd sent no JSON for its maps")
    try:
        # control characters may stand in strings: they are what the device said
        document = json.loads(text, strict=False)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DecodeError(f"multipathd's maps are no JSON: {error}") from None
    root = _Fields(document, "multipathd's maps")
    major = root.number("major_version")
    if major != MAJOR_VERSION:
        raise DecodeError(f"multipathd's JSON has version {major}; srpha reads version {MAJOR_VERSION}")
    maps = [_map(item) for item in root.items("maps")]
    return tuple(sorted(maps, key=lambda item: item.name))


def parse_paths(text: str) -> dict[str, PathFacts]:
    """What :data:`PATHS_COMMAND` answered, by ``major:minor``; raises :class:`DecodeError` that names the line."""
    found: dict[str, PathFacts] = {}
    for line in text.splitlines():
        words = [word.strip() for word in line.split("|")]
        if len(words) != 4:
            raise DecodeError(f"multipathd's list of paths has a line of {len(words)} fields: {line[:80]!r}")
        _, dev_t, hctl, failures = words
        if not _DEV_T.fullmatch(dev_t):
            continue  # a path whose device is gone
        if failures and not _NUMBER.fullmatch(failures):
            raise DecodeError(f"multipathd's list of paths has {failures[:40]!r} for the failures of {dev_t}")
        # releases that do not know a field leave it empty
        found[dev_t] = PathFacts(hctl if _HCTL.fullmatch(hctl) else "", max(0, int(failures or 0)))
    return found


def _map(fields: _Fields) -> ListedMap:
    name = fields.text("name")
    fields.where = f"map {name}"
    sysfs = fields.text("sysfs")
    if sysfs != _UNDEFINED and not _DM_NAME.fullmatch(sysfs):
        raise DecodeError(f"{fields.where}: sysfs is {sysfs[:40]!r}, dm-<number> is expected")
    return ListedMap(
        name=name,
        wwid=fields.text("uuid"),
        dm_name="" if sysfs == _UNDEFINED else sysfs,
        vendor=_inquiry(fields.optional_text("vend")),
        product=_inquiry(fields.optional_text("prod")),
        queueing=_queueing(fields.text("queueing"), fields.optional_text("features")),
        groups=tuple(_group(item) for item in fields.items("path_groups")),
    )


def _inquiry(text: str) -> str:
    """Vendor or product; a map without a path has none."""
    return "" if text == _NO_INQUIRY else text.strip()


def _queueing(word: str, features: str) -> bool:
    """``on``, ``off``, ``<N> chk`` (would queue for N checks), ``<N> sec`` (does so, N left); else the table says."""
    if word in ("on", "off"):
        return word == "on"
    return bool(_WAITING.fullmatch(word)) or _QUEUE_FEATURE in features.split()


def _group(fields: _Fields) -> ListedGroup:
    number = fields.number("group")
    fields.where = f"{fields.where} group {number}"
    states = {state.value: state for state in GroupState}
    return ListedGroup(
        number=number,
        selector=fields.text("selector", empty=True),
        priority=fields.number("pri"),
        state=states.get(fields.text("dm_st"), GroupState.ENABLED),
        paths=tuple(_path(item) for item in fields.items("paths") if item.optional_text("dev") != _NO_DEVICE),
    )


def _path(fields: _Fields) -> ListedPath:
    device, dev_t = fields.text("dev"), fields.text("dev_t")
    fields.where = f"{fields.where} path {device[:64]}"
    if not _DEVICE.fullmatch(device):
        raise DecodeError(f"{fields.where}: no name of a device")
    if not _DEV_T.fullmatch(dev_t):
        raise DecodeError(f"{fields.where}: dev_t is {dev_t[:40]!r}, major:minor is expected")
    return ListedPath(
        device=device,
        dev_t=dev_t,
        state=PathState.ACTIVE if fields.text("dm_st") == PathState.ACTIVE.value else PathState.FAILED,
        checker=_CHECKERS.get(fields.text("chk_st"), CheckerState.UNDEF),
        device_state=DeviceState.OFFLINE if fields.optional_text("dev_st") == "offline" else DeviceState.RUNNING,
        priority=fields.number("pri"),
    )


class _Fields:
    """A JSON object whose fields are taken with a check; ``where`` names it in complaints."""

    def __init__(self, value: object, where: str) -> None:
        self.where = where
        if not isinstance(value, dict):
            raise DecodeError(f"{where}: an object is expected, got {_kind(value)}")
        self._value: dict[str, object] = value

    def text(self, key: str, *, empty: bool = False) -> str:
        value = self._value.get(key)
        if not isinstance(value, str) or len(value) > _TEXT_MAX or not (value or empty):
            raise DecodeError(f"{self.where}: {key} must be text of 1 to {_TEXT_MAX} characters, got {_kind(value)}")
        return value

    def optional_text(self, key: str) -> str:
        return self.text(key, empty=True) if key in self._value else ""

    def number(self, key: str) -> int:
        value = self._value.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 63:
            raise DecodeError(f"{self.where}: {key} must be a number, got {_kind(value)}")
        return value

    def items(self, key: str) -> list[_Fields]:
        value = self._value.get(key)
        if not isinstance(value, list):
            raise DecodeError(f"{self.where}: {key} must be a list, got {_kind(value)}")
        return [_Fields(item, self.where) for item in value]


def _kind(value: object) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
