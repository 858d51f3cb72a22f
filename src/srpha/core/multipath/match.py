"""Regular expressions of multipath.conf: POSIX extended, unanchored, with case (multipath.conf(5))."""

from __future__ import annotations

import re
from typing import Final

_CLASSES: Final = (
    ("[:alpha:]", "A-Za-z"),
    ("[:digit:]", "0-9"),
    ("[:alnum:]", "A-Za-z0-9"),
    ("[:upper:]", "A-Z"),
    ("[:lower:]", "a-z"),
    ("[:xdigit:]", "0-9A-Fa-f"),
    ("[:blank:]", " \\t"),
    ("[:space:]", "\\s"),
    ("[:punct:]", "!-/:-@\\[-`{-~"),
)
_BRACKET: Final = re.compile(r"\[(\^?)(\]?)((?:\[:[a-z]+:\]|[^\]])*)\]", re.ASCII)


def matches(pattern: str, text: str) -> bool:
    """Whether multipath finds ``pattern`` in ``text``. One that cannot be read here counts as no match."""
    compiled = _compiled(pattern)
    return compiled is not None and compiled.search(text) is not None


def excludes(pattern: str, text: str) -> bool:
    """Like :func:`matches` for entries of the blacklists, where a leading ``!`` turns the answer round."""
    if pattern.startswith("!"):
        compiled = _compiled(pattern[1:])
        return compiled is not None and compiled.search(text) is None
    return matches(pattern.removeprefix("\\") if pattern.startswith("\\!") else pattern, text)


def _compiled(pattern: str) -> re.Pattern[str] | None:
    # a bare asterisk is no regular expression, but multipath reads it as one that matches all
    translated = _translated(".*" if pattern == "*" else pattern)
    try:
        return re.compile(translated) if translated is not None else None
    except (re.error, OverflowError):
        return None


def _translated(pattern: str) -> str | None:
    """The expression for Python; only bracket expressions are written differently. None: a bracket is not closed."""
    parts: list[str] = []
    position = 0
    while position < len(pattern):
        width = 2 if pattern[position] == "\\" else 1
        bracket = _BRACKET.match(pattern, position)
        if bracket is not None:
            parts.append(_bracket(bracket))
            width = len(bracket[0])
        elif pattern[position] == "[":
            return None
        else:
            parts.append(pattern[position : position + width])
        position += width
    return "".join(parts)


def _bracket(match: re.Match[str]) -> str:
    """A bracket expression in Python's words: in POSIX neither a backslash nor a bracket is special in it."""
    inside = (match[2] + match[3]).replace("\\", "\\\\")
    named = dict(_CLASSES)
    parts = re.split(r"(\[:[a-z]+:\])", inside)
    return f"[{match[1]}" + "".join(named.get(part, _escape(part)) for part in parts) + "]"


def _escape(part: str) -> str:
    return re.sub(r"[\[\]&~|]", lambda found: "\\" + found[0], part)
