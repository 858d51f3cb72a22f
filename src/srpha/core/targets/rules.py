"""Rules in the grammar of ``/etc/srp_daemon.conf`` (srp_daemon(8); facts: srp A.6).

A line is ``a`` or ``d`` and ``key=value`` items. Match keys are hexadecimal and all must match; option keys are decimal
and go into the login of an allowed target. The first rule that matches decides; a target that no rule matches is
allowed, or refused when the default says so. Blank lines, leading blanks, CR line ends, a last line without its end
and comments behind blanks are taken, though srp_daemon itself stumbles over them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from srpha.core.targets.add_target import InvalidLineError, TargetLine, with_options
from srpha.core.targets.target_port import TargetPort
from srpha.wire.identifiers import Gid

_MATCH_DIGITS: Final[Mapping[str, int]] = {"id_ext": 16, "ioc_guid": 16, "dgid": 32, "service_id": 16, "pkey": 9}
_OPTIONS: Final = (
    "allow_ext_sg",
    "ch_count",
    "cmd_sg_entries",
    "comp_vector",
    "max_cmd_per_lun",
    "max_sect",
    "queue_size",
    "sg_tablesize",
    "tl_retry_count",
)
_ITEM: Final = re.compile(r"([^\s,=]+)=([^\s,]*)")
_SEPARATOR: Final = re.compile(r"(?:,[ \t]*|[ \t]+,?[ \t]*)")
_PKEY_MASK: Final = 0xFFFF
_ANY_LINE: Final = TargetLine(0, 0, Gid(0, 0), 0xFFFF, 0)
"""A valid login to try options on: their ranges are known there."""


_Wrong = Callable[[int, str], "RuleSyntaxError"]
"""Makes the error for a position in the current line."""


class RuleSyntaxError(ValueError):
    """A rules file is wrong. ``str()`` is one line: file, line, column, what is wrong, what is allowed."""

    def __init__(self, source: str, line: int, column: int, message: str) -> None:
        super().__init__(f"{source}:{line}:{column}: {message}")
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: all ``matches`` must hold. ``options`` keep the order of the file."""

    allow: bool
    matches: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, int] = field(default_factory=dict)
    line: int = 0

    def fits(self, target: TargetPort) -> bool:
        """Whether the rule speaks of ``target``; values are compared as numbers."""
        found = {
            "id_ext": target.id_ext,
            "ioc_guid": target.ioc_guid,
            "dgid": target.dgid.prefix << 64 | target.dgid.guid,
            "service_id": target.service_id,
            "pkey": target.pkey & _PKEY_MASK,
        }
        return all(found[key] == value for key, value in self.matches.items())


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of a target: allowed or not, why in one phrase, and the options for its login."""

    allowed: bool
    reason: str
    options: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """An ordered list of rules and the verdict for a target that none of them matches."""

    rules: tuple[Rule, ...] = ()
    allow_by_default: bool = True
    source: str = "no rules file"

    def judge(self, target: TargetPort, local_port: str = "") -> Verdict:
        """The first matching rule's verdict; this grammar does not speak of local ports."""
        for rule in self.rules:
            if rule.fits(target):
                word = "allowed" if rule.allow else "disallowed"
                return Verdict(rule.allow, f"{word} by {self.source}:{rule.line}", rule.options)
        word = "allowed" if self.allow_by_default else "disallowed"
        return Verdict(self.allow_by_default, f"{word} by default, no rule matches")


def parse_rules(lines: Iterable[str], source: str, *, allow_by_default: bool = True) -> Rules:
    """Read a rules file given as lines. Raises :class:`RuleSyntaxError` for the first thing that is wrong."""
    rules = []
    for number, text in enumerate(lines, start=1):
        rule = _parse_rule(text.rstrip("\r\n"), source, number)
        if rule is not None:
            rules.append(rule)
    return Rules(tuple(rules), allow_by_default, source)


def _parse_rule(text: str, source: str, number: int) -> Rule | None:
    def wrong(position: int, message: str) -> RuleSyntaxError:
        return RuleSyntaxError(source, number, position + 1, message)

    body = text.expandtabs(1)
    start = len(body) - len(body.lstrip())
    if start == len(body) or body[start] == "#":
        return None
    letter = body[start]
    if letter not in "aAdD" or (len(body) > start + 1 and body[start + 1] != " "):
        raise wrong(start, f"a rule starts with 'a' (allow) or 'd' (disallow) and a blank, found {body[start:][:16]!r}")
    allow = letter in "aA"
    matches: dict[str, int] = {}
    options: dict[str, int] = {}
    position = start + 1
    position += len(body[position:]) - len(body[position:].lstrip())
    while position < len(body) and body[position] != "#":
        item = _ITEM.match(body, position)
        if item is None:
            raise wrong(position, f"expected key=value, found {body[position:][:32]!r}")
        key, value = item.groups()
        if key in _MATCH_DIGITS:
            matches[key] = _hex_value(key, value, wrong, item.start(2))
        elif key in _OPTIONS:
            if not allow:
                raise wrong(position, f"option {key} stands in a disallow rule; options go with 'a' only")
            options[key] = _option_value(key, value, wrong, item.start(2))
        else:
            known = ", ".join((*_MATCH_DIGITS, *_OPTIONS))
            raise wrong(position, f"unknown key {key!r}; known are {known}")
        position = item.end()
        separator = _SEPARATOR.match(body, position)
        if separator is not None:
            position = separator.end()
        elif position < len(body):
            raise wrong(position, f"expected a comma or a blank, found {body[position:][:16]!r}")
    return Rule(allow, matches, options, number)


def _hex_value(key: str, value: str, wrong: _Wrong, position: int) -> int:
    digits = _MATCH_DIGITS[key]
    exact = " exactly" if key == "dgid" else " 1 to"
    if not re.fullmatch(r"[0-9a-fA-F]+", value, re.ASCII) or len(value) > digits:
        raise wrong(position, f"{key}={value[:40]!r}:{exact} {digits} hex digits without 0x are allowed")
    if key == "dgid" and len(value) != digits:
        raise wrong(position, f"dgid={value!r}: exactly {digits} hex digits are needed, got {len(value)}")
    return int(value, 16) & _PKEY_MASK if key == "pkey" else int(value, 16)


def _option_value(key: str, value: str, wrong: _Wrong, position: int) -> int:
    if not re.fullmatch(r"[0-9]{1,16}", value, re.ASCII):
        raise wrong(position, f"{key}={value[:40]!r}: a decimal number is needed")
    try:
        with_options(_ANY_LINE, {key: int(value)})
    except InvalidLineError as error:
        raise wrong(position, str(error)) from error
    return int(value)
