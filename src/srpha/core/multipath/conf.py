"""The syntax of multipath.conf, read (multipath.conf(5); facts: multipath 1.6).

One option or one brace per line: ``keyword value``, ``keyword {`` and ``}``. A value is one word or stands in double
quotes, where ``""`` is a quote; ``#`` and ``!`` start comments. What multipath itself ignores is ignored here and told
in a complaint.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

_SECTIONS: Final = frozenset(
    (
        "defaults",
        "blacklist",
        "blacklist_exceptions",
        "devices",
        "device",
        "overrides",
        "multipaths",
        "multipath",
    )
)
_TOKEN: Final = re.compile(
    r'"(?P<quoted>(?:[^"]|"")*)"|(?P<open>"[^"]*$)|(?P<brace>[{}])|(?P<word>[^\s"{}!#]+)', re.ASCII
)
_LINE_MAX: Final = 1024
"""multipath reads lines of fewer characters."""


@dataclass(frozen=True, slots=True)
class Option:
    """``keyword value`` and where it stands."""

    keyword: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Section:
    """``keyword { ... }`` and where it begins."""

    keyword: str
    line: int
    options: tuple[Option, ...]
    sections: tuple[Section, ...]

    def get(self, keyword: str) -> Option | None:
        """The option that decides: the last one with this keyword."""
        return next((option for option in reversed(self.options) if option.keyword == keyword), None)

    def all(self, keyword: str) -> tuple[Option, ...]:
        """Every option with this keyword, for those that add up."""
        return tuple(option for option in self.options if option.keyword == keyword)

    def inside(self, keyword: str) -> tuple[Section, ...]:
        """The sections with this keyword in it."""
        return tuple(section for section in self.sections if section.keyword == keyword)


@dataclass(frozen=True, slots=True)
class ConfFile:
    """One file of multipath's configuration; ``path`` is only for messages."""

    path: str
    sections: tuple[Section, ...]
    complaints: tuple[str, ...] = ()
    """What multipath cannot make sense of, a sentence with file and line each."""

    def all(self, keyword: str) -> tuple[Section, ...]:
        """The top-level sections with this keyword."""
        return tuple(section for section in self.sections if section.keyword == keyword)


def parse_conf(text: str, path: str) -> ConfFile:
    """Read one file. Never fails: what makes no sense is left out and complained about, as multipath does."""
    reader = _Reader(path)
    for number, line in enumerate(text.splitlines(), start=1):
        reader.line(number, line)
    return reader.finish()


def quote(value: str) -> str:
    """A value in quotes as the file wants it."""
    return '"' + value.replace('"', '""') + '"'


@dataclass(slots=True)
class _Open:
    """A section whose closing brace has not come yet."""

    keyword: str
    line: int
    options: list[Option] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)

    def close(self) -> Section:
        return Section(self.keyword, self.line, tuple(self.options), tuple(self.sections))


class _Reader:
    def __init__(self, path: str) -> None:
        self._path = path
        self._complaints: list[str] = []
        self._stack = [_Open("", 0)]

    def line(self, number: int, line: str) -> None:
        if len(line) >= _LINE_MAX:
            self._complain(number, f"the line is longer than {_LINE_MAX - 1} characters")
            return
        tokens = list(_tokens(line))
        if not tokens:
            return
        keyword, bare = tokens[0]
        if keyword == "}" and bare:
            self._close(number)
            self._no_more(number, tokens[1:])
        elif keyword == "{" and bare:
            self._complain(number, "'{' has no keyword before it")
        elif tokens[1:2] == [("{", True)] or self._opens(keyword):
            if tokens[1:2] != [("{", True)]:
                self._complain(number, f"'{keyword}' must be followed by '{{'")
            self._stack.append(_Open(keyword, number))
            self._no_more(number, tokens[2:])
        elif len(tokens) == 1:
            self._complain(number, f"'{keyword}' has no value")
        else:
            self._stack[-1].options.append(Option(keyword, tokens[1][0], number))
            self._no_more(number, tokens[2:])

    def finish(self) -> ConfFile:
        while len(self._stack) > 1:
            self._complain(self._stack[-1].line, f"the section '{self._stack[-1].keyword}' is not closed")
            self._end_section()
        root = self._stack[0]
        for option in root.options:
            self._complain(option.line, f"'{option.keyword}' stands outside of every section")
        return ConfFile(self._path, tuple(root.sections), tuple(self._complaints))

    def _opens(self, keyword: str) -> bool:
        # inside overrides `protocol` is a section, inside the blacklists it is an option
        return keyword in _SECTIONS or (keyword == "protocol" and self._stack[-1].keyword == "overrides")

    def _close(self, number: int) -> None:
        if len(self._stack) == 1:
            self._complain(number, "'}' closes nothing")
        else:
            self._end_section()

    def _end_section(self) -> None:
        section = self._stack.pop().close()
        self._stack[-1].sections.append(section)

    def _no_more(self, number: int, rest: Sequence[tuple[str, bool]]) -> None:
        if rest:
            self._complain(number, f"'{rest[0][0][:40]}' and what follows on the line is ignored")

    def _complain(self, number: int, text: str) -> None:
        self._complaints.append(f"{self._path} line {number}: {text}")


def _tokens(line: str) -> Iterator[tuple[str, bool]]:
    """Words, quoted strings and braces up to a comment; the flag says that it was not quoted."""
    position = 0
    while position < len(line):
        if line[position] in "!#":
            return
        match = _TOKEN.match(line, position)
        if match is None:
            position += 1
            continue
        position = match.end()
        if match["quoted"] is not None:
            yield match["quoted"].replace('""', '"'), False
        elif match["open"] is not None:
            yield match["open"][1:], False
        else:
            yield match[0], True
