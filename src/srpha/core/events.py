"""Events: what the daemon tells operators, with stable identifiers.

An event is a fact about the past, small and flat, so that a console line, a JSON line and a database row hold the same.
The identifiers are part of srpha's interface: they are never renamed, only added to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum


class EventKind(Enum):
    """Stable event identifiers."""

    PORT_UP = "port-up"
    PORT_DOWN = "port-down"
    PORT_CHANGED = "port-changed"
    SCAN_FINISHED = "scan-finished"
    SCAN_FAILED = "scan-failed"
    TARGET_FOUND = "target-found"
    TARGET_CHANGED = "target-changed"
    TARGET_SILENT = "target-silent"
    TARGET_LEFT = "target-left"
    TARGET_REFUSED = "target-refused"
    """A rule, or an identity that is not valid, keeps srpha from connecting."""
    NOTICE = "notice"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    CONNECT_FAILED = "connect-failed"
    CONNECTION_ADOPTED = "connection-adopted"
    CONNECTION_STATE = "connection-state"
    CONNECTION_REMOVED = "connection-removed"
    DEVICE_ADDED = "device-added"
    DEVICE_REMOVED = "device-removed"
    MAP_ADDED = "map-added"
    MAP_REMOVED = "map-removed"
    PATH_ADDED = "path-added"
    PATH_REMOVED = "path-removed"
    PATH_FAILED = "path-failed"
    PATH_RESTORED = "path-restored"
    MAP_QUEUEING = "map-queueing"
    MAP_RECOVERED = "map-recovered"
    REDUNDANCY_LOST = "redundancy-lost"
    REDUNDANCY_RESTORED = "redundancy-restored"
    FAULT_INJECTED = "fault-injected"


class Severity(Enum):
    """How much an operator should care."""

    INFO = "info"
    NOTICE = "notice"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``time`` is the loop's clock in seconds; ``fields`` holds names and values that explain it."""

    time: float
    kind: EventKind
    severity: Severity
    subject: str
    """What it happened to: a port, target port, connection, map or path by name."""
    text: str
    """One sentence for a person."""
    fields: dict[str, str | int | float | bool] = field(default_factory=dict)


EventSink = Callable[[Event], None]
"""Takes an event; must not raise and must not block."""
