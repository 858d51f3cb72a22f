"""Desired connections minus actual ones: what to do for each pair of local port and target port, and why.

Nothing here acts; :func:`reconcile` compares values and answers with a :class:`Pair` for each one it looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from srpha.core.target_port import TargetPort
from srpha.wire.identifiers import Gid


@dataclass(frozen=True, slots=True)
class BackOff:
    """Delays between failed logins: ``first``, then twice as long each time, at most ``longest`` (seconds)."""

    first: float = 3.0
    longest: float = 60.0
    blocked: float = 0.5
    """Delay while a host that is not visible any more still blocks the login (EEXIST)."""
    blocked_tries: int = 40
    """After so many of these the login counts as failed."""

    def delay(self, failures: int) -> float:
        """Delay after ``failures`` failures in a row, at least 1."""
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 30))


class PairStatus(Enum):
    """How a local port and a target port stand to each other."""

    CONNECTED = "connected"
    RECOVERING = "recovering"
    """The connection exists, its remote port is blocked or fails fast, and the driver reconnects by itself."""
    REMOVING = "removing"
    """An old connection is on its way out; the login follows at once when it is gone."""
    DUE = "due"
    """To be connected now."""
    CONNECTING = "connecting"
    BACKING_OFF = "backing-off"
    """A login failed; the next one is at ``next_attempt``."""
    DISALLOWED = "disallowed"
    """The rules say no."""
    OCCUPIED = "occupied"
    """A connection that is not ours stands where ours would."""
    UNREACHABLE = "unreachable"
    """No path from this local port: no shared partition, or no route."""
    PORT_DOWN = "port-down"
    TARGET_SILENT = "target-silent"
    TARGET_LEFT = "target-left"


@dataclass(frozen=True, slots=True, order=True)
class PairKey:
    """Identity of a connection (facts: srp C.1): what the driver tells connections apart by, and the target port."""

    local_port: str
    id_ext: int
    ioc_guid: int
    dgid: Gid
    initiator_ext: int | None


@dataclass(frozen=True, slots=True)
class Pair:
    """One local port and one target port: what is, why, and which connection stands for it."""

    key: PairKey
    status: PairStatus
    reason: str
    """One sentence for a person."""
    target: TargetPort
    line: str
    """The ``add_target`` line for it; empty when it must not be connected."""
    host: int | None = None
    failures: int = 0
    next_attempt: float | None = None
    ours: bool = False
    """The connection was made or adopted by this daemon."""
