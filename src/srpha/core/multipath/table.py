"""Table and status lines of the dm-multipath target, formatted and parsed (facts: multipath 1.1, 1.2).

Both are words separated by blanks; counts tell how many words follow. The kernel ends both with one blank, which is no
part of the format: it is not written here, and accepted when read. Lengths are in sectors of 512 bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from srpha.wire.errors import DecodeError

SECTOR: Final = 512
_TARGET: Final = "multipath"
_DEVICE: Final = re.compile(r"\d{1,7}:\d{1,7}\Z", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,20}\Z", re.ASCII)
_WORD: Final = re.compile(r"[!-~]{1,255}\Z")
_COUNT_MAX: Final = 4096
"""More words than this in one place are no table that anybody has loaded."""


@dataclass(frozen=True, slots=True)
class TablePath:
    """A path of a table: ``major:minor`` and its selector arguments."""

    dev_t: str
    arguments: tuple[str, ...] = ("1",)


@dataclass(frozen=True, slots=True)
class TableGroup:
    """A path group of a table; all its paths have the same number of arguments."""

    selector: str
    paths: tuple[TablePath, ...]
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableLine:
    """A table line. ``first_group`` is 0 only without groups; ``handler`` is name and arguments, or empty."""

    sectors: int
    groups: tuple[TableGroup, ...]
    features: tuple[str, ...] = ()
    handler: tuple[str, ...] = ()
    first_group: int = 1
    start: int = 0

    def format(self) -> str:
        """The line as ``dmsetup table`` prints it."""
        words = [str(self.start), str(self.sectors), _TARGET, *_counted(self.features), *_counted(self.handler)]
        words += [str(len(self.groups)), str(self.first_group)]
        for group in self.groups:
            width = len(group.paths[0].arguments) if group.paths else 0
            words += [group.selector, *_counted(group.arguments), str(len(group.paths)), str(width)]
            for path in group.paths:
                words += [path.dev_t, *path.arguments]
        return " ".join(words)


class GroupLetter(Enum):
    """State of a path group in a status line."""

    CURRENT = "A"
    ENABLED = "E"
    BYPASSED = "D"


@dataclass(frozen=True, slots=True)
class StatusPath:
    """A path of a status line: usable (A) or failed (F), how often it failed, and what its selector tells."""

    dev_t: str
    usable: bool
    fail_count: int
    info: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StatusGroup:
    """A path group of a status line."""

    letter: GroupLetter
    paths: tuple[StatusPath, ...]
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StatusLine:
    """A status line (STATUSTYPE_INFO). ``current`` is the number of the current group, 0 when there is none."""

    sectors: int
    groups: tuple[StatusGroup, ...]
    current: int
    queueing_io: bool = False
    """I/O waits for a path group to be initialised, or for a path."""
    initialising: int = 0
    handler: tuple[str, ...] = ()
    start: int = 0

    def format(self) -> str:
        """The line as ``dmsetup status`` prints it."""
        words = [str(self.start), str(self.sectors), _TARGET, "2", str(int(self.queueing_io)), str(self.initialising)]
        words += [*_counted(self.handler), str(len(self.groups)), str(self.current)]
        for group in self.groups:
            width = len(group.paths[0].info) if group.paths else 0
            words += [group.letter.value, *_counted(group.arguments), str(len(group.paths)), str(width)]
            for path in group.paths:
                words += [path.dev_t, "A" if path.usable else "F", str(path.fail_count), *path.info]
        return " ".join(words)


def parse_table(line: str) -> TableLine:
    """Read a table line; :class:`DecodeError` names the word that is wrong."""
    words = _Words(line, "table line")
    start, sectors = words.number("start sector"), words.number("length in sectors")
    words.expect(_TARGET)
    features = words.counted("feature arguments")
    handler = words.counted("hardware handler arguments")
    count, first = words.count("path groups"), words.number("first path group")
    if first > count or (first == 0) != (count == 0):
        raise words.error(f"first path group {first} of {count}")
    groups = tuple(_table_group(words) for _ in range(count))
    words.end()
    return TableLine(sectors, groups, features, handler, first, start)


def _table_group(words: _Words) -> TableGroup:
    selector = words.word("path selector")
    arguments = words.counted("selector arguments")
    count, width = words.count("paths"), words.count("arguments per path")
    if not count:
        raise words.error("a path group has at least one path")
    paths = tuple(TablePath(words.device(), words.take(width, "path arguments")) for _ in range(count))
    return TableGroup(selector, paths, arguments)


def parse_status(line: str) -> StatusLine:
    """Read a status line; :class:`DecodeError` names the word that is wrong."""
    words = _Words(line, "status line")
    start, sectors = words.number("start sector"), words.number("length in sectors")
    words.expect(_TARGET)
    words.expect("2")
    queueing, initialising = words.flag("queueing"), words.number("groups being initialised")
    handler = words.counted("hardware handler arguments")
    count, current = words.count("path groups"), words.number("current path group")
    if current > count:
        raise words.error(f"current path group {current} of {count}")
    groups = tuple(_status_group(words) for _ in range(count))
    words.end()
    return StatusLine(sectors, groups, current, queueing, initialising, handler, start)


def _status_group(words: _Words) -> StatusGroup:
    letter = words.choice("state of a path group", "AED")
    arguments = words.counted("selector arguments")
    count, width = words.count("paths"), words.count("words per path")
    paths = []
    for _ in range(count):
        device, state = words.device(), words.choice("state of a path", "AF")
        failures = words.number("fail count")
        paths.append(StatusPath(device, state == "A", failures, words.take(width, "selector words")))
    return StatusGroup(GroupLetter(letter), tuple(paths), arguments)


def _counted(words: Sequence[str]) -> list[str]:
    return [str(len(words)), *words]


class _Words:
    """The words of a line, taken one after another; every complaint says which word it is about."""

    def __init__(self, line: str, what: str) -> None:
        self._words = line.split()
        self._what = what
        self._at = 0

    def error(self, complaint: str) -> DecodeError:
        return DecodeError(f"multipath {self._what}, word {self._at}: {complaint}")

    def word(self, meaning: str) -> str:
        if self._at >= len(self._words):
            raise self.error(f"the line ends where {meaning} should be")
        word = self._words[self._at]
        self._at += 1
        if not _WORD.match(word):
            raise self.error(f"{word[:40]!r} is no {meaning}")
        return word

    def expect(self, literal: str) -> None:
        if self.word(repr(literal)) != literal:
            raise self.error(f"{self._words[self._at - 1]!r} instead of {literal!r}")

    def number(self, meaning: str) -> int:
        word = self.word(meaning)
        if not _NUMBER.match(word):
            raise self.error(f"{meaning} is a number, got {word!r}")
        return int(word)

    def count(self, meaning: str) -> int:
        number = self.number(f"number of {meaning}")
        if number > _COUNT_MAX:
            raise self.error(f"{number} {meaning} are too many")
        return number

    def flag(self, meaning: str) -> bool:
        return self.choice(meaning, "01") == "1"

    def choice(self, meaning: str, letters: str) -> str:
        word = self.word(meaning)
        if len(word) != 1 or word not in letters:
            raise self.error(f"{meaning} is one of {', '.join(letters)}, got {word!r}")
        return word

    def device(self) -> str:
        word = self.word("device")
        if not _DEVICE.match(word):
            raise self.error(f"a device is major:minor, got {word!r}")
        return word

    def take(self, count: int, meaning: str) -> tuple[str, ...]:
        return tuple(self.word(meaning) for _ in range(count))

    def counted(self, meaning: str) -> tuple[str, ...]:
        return self.take(self.count(meaning), meaning)

    def end(self) -> None:
        if self._at < len(self._words):
            self._at += 1
            raise self.error(f"{self._words[self._at - 1][:40]!r} after the end")
