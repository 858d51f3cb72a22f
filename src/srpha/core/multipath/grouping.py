"""Path groups out of paths, and a path's priority (multipath.conf: path_grouping_policy, prio; facts 1.6)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeVar

from srpha.core.multipath.path import PathSlot
from srpha.core.multipath.policy import GroupingPolicy
from srpha.wire.scsi.alua import AccessState

P = TypeVar("P", bound=PathSlot)

_KEYS: Final[dict[GroupingPolicy, Callable[[PathSlot], Hashable]]] = {
    GroupingPolicy.FAILOVER: id,
    GroupingPolicy.MULTIBUS: lambda _: 0,
    GroupingPolicy.GROUP_BY_SERIAL: lambda path: path.serial,
    GroupingPolicy.GROUP_BY_PRIO: lambda path: path.priority,
    GroupingPolicy.GROUP_BY_NODE_NAME: lambda path: path.node_name,
    GroupingPolicy.GROUP_BY_TPG: lambda path: path.target_port_group,
}

_ALUA_PRIORITIES: Final = {
    AccessState.ACTIVE_OPTIMIZED: 50,
    AccessState.ACTIVE_NON_OPTIMIZED: 10,
    AccessState.LBA_DEPENDENT: 5,
    AccessState.STANDBY: 1,
}
PREFERRED_BONUS: Final = 80
CONST_PRIORITY: Final = 1


def group_paths(policy: GroupingPolicy, paths: Sequence[P]) -> list[list[P]]:
    """Groups of paths, the best first: by mean priority, equal ones in the order of their first path."""
    key = _KEYS[policy]
    groups: dict[Hashable, list[P]] = {}
    for path in paths:
        groups.setdefault(key(path), []).append(path)
    return sorted(groups.values(), key=lambda group: -mean_priority(group))


def mean_priority(paths: Sequence[PathSlot]) -> int:
    """Priority of a group: the mean of its paths' priorities, rounded down; 0 without paths."""
    return sum(path.priority for path in paths) // len(paths) if paths else 0


def alua_priority(state: AccessState, preferred: bool) -> int:
    """Priority of an ALUA path. The preferred bit counts where the path is not optimized by itself."""
    priority = _ALUA_PRIORITIES.get(state, 0)
    return priority + PREFERRED_BONUS if preferred and state is not AccessState.ACTIVE_OPTIMIZED else priority
