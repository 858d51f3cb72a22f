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
    """A local port can be used: it is active and has a LID."""
    PORT_DOWN = "port-down"
    """A local port cannot be used, for the reason the text gives."""
    PORT_CHANGED = "port-changed"
    """LID, SM LID, P_Keys or state of a local port changed."""
    PORT_DRAINED = "port-drained"
    """A local port is drained: its paths are held out of use and there is no new login, until it is resumed."""
    PORT_RESUMED = "port-resumed"
    """A drained local port is used again."""
    SCAN_FINISHED = "scan-finished"
    """A scan of a subnet got all its answers."""
    SCAN_FAILED = "scan-failed"
    """A scan of a subnet did not get all its answers; what it would have told stays as it was."""
    TARGET_FOUND = "target-found"
    """A target port answers for the first time, or again."""
    TARGET_CHANGED = "target-changed"
    """A target port offers other SRP services than before."""
    TARGET_SILENT = "target-silent"
    """The subnet lists a target port, but its Device Management agent does not answer."""
    TARGET_LEFT = "target-left"
    """A complete answer of the subnet does not list a target port any more."""
    TARGET_REFUSED = "target-refused"
    """A rule, or an identity that is not valid, keeps srpha from connecting."""
    NOTICE = "notice"
    """The subnet administrator reported something, or srpha failed a path early or offered it again."""
    CONNECTING = "connecting"
    """A login was handed to the initiator."""
    CONNECTED = "connected"
    """A login succeeded."""
    CONNECT_FAILED = "connect-failed"
    """A login failed; the text says why and when the next one follows."""
    CONNECTION_ADOPTED = "connection-adopted"
    """A connection that was there already is taken over: it has the identity srpha would have given it."""
    CONNECTION_STATE = "connection-state"
    """A connection's remote port changed its state, or the connection is being removed."""
    CONNECTION_REMOVED = "connection-removed"
    """A connection and its scsi_host are gone."""
    DEVICE_ADDED = "device-added"
    """A SCSI disk appeared on a connection."""
    DEVICE_REMOVED = "device-removed"
    """A SCSI disk is gone from a connection."""
    MAP_ADDED = "map-added"
    """A multipath device appeared."""
    MAP_REMOVED = "map-removed"
    """A multipath device is gone."""
    PATH_ADDED = "path-added"
    """A disk became a path of a multipath device."""
    PATH_REMOVED = "path-removed"
    """A disk is no path of its multipath device any more."""
    PATH_FAILED = "path-failed"
    """A path carries no I/O."""
    PATH_RESTORED = "path-restored"
    """A path carries I/O again."""
    MAP_QUEUEING = "map-queueing"
    """No usable path is left: I/O waits or fails, as the text says."""
    MAP_RECOVERED = "map-recovered"
    """A multipath device that had no usable path has one again."""
    REDUNDANCY_LOST = "redundancy-lost"
    """One more port would take the last path of a multipath device."""
    REDUNDANCY_RESTORED = "redundancy-restored"
    """No single port can take the last path of a multipath device any more."""
    FAULT_INJECTED = "fault-injected"
    """A fault was injected into the embedded world."""


class Severity(Enum):
    """How much an operator should care."""

    INFO = "info"
    """Something expected."""
    NOTICE = "notice"
    """A change worth knowing."""
    WARNING = "warning"
    """Redundancy is less than it should be, or something does not answer."""
    ERROR = "error"
    """I/O waits or fails, or a connection is lost."""


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
