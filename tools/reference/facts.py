"""Faults, events and states, with what the code says of them."""

from __future__ import annotations

import re
from enum import Enum
from typing import get_args

from srpha.core.connections.pairs import PairStatus
from srpha.core.discovery.scan_result import Standing
from srpha.core.events import EventKind, Severity
from srpha.embedded.fabric.faults import FAULT_USAGE, Fault
from tools.reference.text import member_docs, plain, table


def fault_kinds() -> str:
    """Every fault with its arguments and what it is."""
    meanings = {_kebab(made.__name__): plain(made.__doc__ or "") for made in get_args(Fault)}
    rows = [(f"`{kind}`", f"`{usage}`" if usage else "", meanings[kind]) for kind, usage in FAULT_USAGE.items()]
    return table(("fault", "arguments", "what happens"), rows)


def events() -> str:
    """Every event identifier."""
    return _members(EventKind, "event")


def severities() -> str:
    """Every severity."""
    return _members(Severity, "severity")


def standings() -> str:
    """Every standing of a target port."""
    return _members(Standing, "standing")


def pair_statuses() -> str:
    """Every status of a pair of local port and target port."""
    return _members(PairStatus, "status")


_OBVIOUS = {
    "connected": "The connection exists and its remote port runs.",
    "connecting": "The login is under way.",
    "port-down": "The local port cannot be used.",
    "target-silent": "The target port's agent does not answer.",
    "target-left": "The subnet does not list the target port any more.",
}
"""Members of :class:`PairStatus` whose name says it to a reader of the code."""


def _members(kind: type[Enum], head: str) -> str:
    docs = member_docs(kind)
    rows = [(f"`{member.value}`", docs.get(member.name) or _OBVIOUS[member.value]) for member in kind]
    return table((head, "meaning"), rows)


def _kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
