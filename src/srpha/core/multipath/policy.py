"""The words of multipath.conf that decide how paths are grouped, chosen, left and taken up again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class GroupingPolicy(Enum):
    """``path_grouping_policy``."""

    FAILOVER = "failover"
    """One path per group."""
    MULTIBUS = "multibus"
    """All paths in one group."""
    GROUP_BY_SERIAL = "group_by_serial"
    GROUP_BY_PRIO = "group_by_prio"
    GROUP_BY_NODE_NAME = "group_by_node_name"
    """By target; for SRP that is the target port identifier of the nexus."""
    GROUP_BY_TPG = "group_by_tpg"
    """By ALUA target port group."""


class SelectorKind(Enum):
    """``path_selector``: which path of the current group takes the next I/O."""

    ROUND_ROBIN = "round-robin"
    QUEUE_LENGTH = "queue-length"
    SERVICE_TIME = "service-time"


class Prioritizer(Enum):
    """``prio``: where a path's priority comes from."""

    DETECT = "detect"
    """ALUA where the unit supports it, else constant (``detect_prio yes``)."""
    CONST = "const"
    ALUA = "alua"


class Failback(Enum):
    """``failback``; a number in its place is the delay in seconds."""

    IMMEDIATE = "immediate"
    MANUAL = "manual"
    FOLLOWOVER = "followover"
    """Only when the first path of the better group returns by itself."""


class NoPathRetry(Enum):
    """``no_path_retry``; a number in its place counts polling intervals after which queued I/O fails."""

    FAIL = "fail"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPolicy:
    """What a map's state machine needs of the settings."""

    grouping: GroupingPolicy
    selector: SelectorKind
    failback: Failback | float
    """A number is the delay in seconds."""
    no_path_retry: NoPathRetry | int
    polling_interval: float
    """Seconds; the unit of ``no_path_retry``."""
