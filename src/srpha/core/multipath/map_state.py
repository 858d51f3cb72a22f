"""State of one map: its paths and groups, which group is current, failback, and what happens without any path.

This is dm-multipath's part (path choice, failing, bypassed groups, queue_if_no_path) with multipathd's (grouping,
failback, no_path_retry) as one machine without a clock (facts: multipath 1.3, 1.4, 1.6). Methods that start or stop a
wait take ``now`` in seconds; the owner calls :meth:`MapState.tick` at :meth:`MapState.next_deadline`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Generic, TypeVar

from srpha.core.multipath.grouping import group_paths, mean_priority
from srpha.core.multipath.path import PathSlot
from srpha.core.multipath.policy import Failback, MapPolicy, NoPathRetry
from srpha.core.multipath.selectors import Selector, make_selector

P = TypeVar("P", bound=PathSlot)


class PathGroup(Generic[P]):
    """A path group. ``number`` counts from 1 in table order."""

    __slots__ = ("bypassed", "number", "paths", "selector")

    def __init__(self, number: int, paths: Sequence[P], selector: Selector[P]) -> None:
        self.number = number
        self.paths = tuple(paths)
        self.selector = selector
        self.bypassed = False

    @property
    def priority(self) -> int:
        """Mean priority of the usable paths; 0 without any."""
        return mean_priority(self.selector.paths)


class MapState(Generic[P]):
    """See the module's description. A path object belongs to one map at a time."""

    def __init__(self, policy: MapPolicy) -> None:
        self._policy = policy
        self._paths: list[P] = []
        self._groups: tuple[PathGroup[P], ...] = ()
        self._group_of: dict[P, PathGroup[P]] = {}
        self._current: PathGroup[P] | None = None
        self._wanted: PathGroup[P] | None = None
        """Group asked for by name, taken at the next choice (switch_group)."""
        self._failback_at = math.inf
        self._give_up_at = math.inf
        self._starved = False
        self._queue_io = policy.no_path_retry is not NoPathRetry.FAIL

    # --- what is ---

    @property
    def paths(self) -> tuple[P, ...]:
        """All paths in the order they were added."""
        return tuple(self._paths)

    @property
    def groups(self) -> tuple[PathGroup[P], ...]:
        """Groups in table order."""
        return self._groups

    @property
    def current(self) -> PathGroup[P] | None:
        """The group that takes I/O; None before the first choice and while there is no group."""
        return self._current

    @property
    def usable_paths(self) -> int:
        """Number of paths that may take I/O."""
        return sum(len(group.selector.paths) for group in self._groups)

    @property
    def queueing(self) -> bool:
        """queue_if_no_path is set: I/O is queued when no path is left."""
        return self._queue_io

    @property
    def holds_io(self) -> bool:
        """I/O that finds no path now is to wait: by policy, or because a blocked device may be back soon."""
        return self._queue_io or not self._starved

    # --- choice ---

    def select(self, size: int) -> P | None:
        """The path for an I/O of ``size`` bytes; None when no path is usable."""
        group = self._current
        if group is not None and self._wanted is None:
            path = group.selector.select(size)
            if path is not None:
                return path
        return self._switch(size)

    def _switch(self, size: int) -> P | None:
        wanted, self._wanted = self._wanted, None
        order = [] if wanted is None else [wanted]
        order += [group for group in self._groups if not group.bypassed]
        order += [group for group in self._groups if group.bypassed]
        for group in order:
            path = group.selector.select(size)
            if path is not None:
                self._current = group
                return path
        return None

    # --- paths ---

    def add(self, path: P, now: float) -> None:
        """Add a path as it is (``usable``, ``pending``, ``priority``); ValueError when the map has it."""
        if path in self._group_of:
            raise ValueError(f"path {path.dev_t} is in the map already")
        self._paths.append(path)
        self._regroup(now)

    def remove(self, path: P, now: float) -> None:
        """Take a path out of the map; ValueError when the map does not have it."""
        self._group(path)
        self._paths.remove(path)
        self._regroup(now)

    def fail(self, path: P, now: float, *, pending: bool = False) -> bool:
        """Take a path out of use; whether that changed anything. ``pending``: its device may be back soon.

        A path that had failed for good is not made to be waited for again: a device that is blocked at every attempt to
        reconnect must not stretch ``no_path_retry`` without end.
        """
        group = self._group(path)
        changed = path.usable
        path.pending = pending and (changed or path.pending)
        if changed:
            path.usable = False
            path.fail_count += 1
            group.selector.fail(path)
            if group is self._current and not group.selector.paths:
                self._choose_current()
        self._consider_starving(now)
        return changed

    def reinstate(self, path: P, now: float) -> bool:
        """Take a path into use again; whether that changed anything."""
        group = self._group(path)
        path.pending = False
        if path.usable:
            return False
        path.usable = True
        group.selector.reinstate(path)
        self._consider_starving(now)
        self._consider_failback(now, returned=group)
        return True

    def set_priority(self, path: P, priority: int, now: float) -> bool:
        """Give a path a priority; whether that changed anything. Groups are made anew when it did."""
        self._group(path)
        if path.priority == priority:
            return False
        path.priority = priority
        self._regroup(now)
        return True

    # --- messages of dmsetup ---

    def bypass_group(self, number: int, bypassed: bool) -> None:
        """``disable_group`` and ``enable_group``; ValueError for a number that does not exist."""
        group = self._numbered(number)
        group.bypassed = bypassed
        if bypassed and group is self._current:
            self._choose_current()

    def switch_group(self, number: int) -> None:
        """``switch_group``: the next I/O goes to that group if it has a usable path. ValueError as above."""
        self._wanted = self._numbered(number)

    # --- time ---

    def next_deadline(self) -> float:
        """When :meth:`tick` has something to do; infinity when nothing is waited for."""
        return min(self._failback_at, self._give_up_at)

    def tick(self, now: float) -> bool:
        """Do what is due; whether anything changed. Look at :attr:`holds_io` then: queued I/O may have to fail."""
        changed = False
        if now >= self._failback_at:
            self._failback_at = math.inf
            changed = self._fail_back()
        if now >= self._give_up_at:
            self._give_up_at = math.inf
            self._queue_io = False
            changed = True
        return changed

    # --- inside ---

    def _group(self, path: P) -> PathGroup[P]:
        group = self._group_of.get(path)
        if group is None:
            raise ValueError(f"path {path.dev_t} is not in the map")
        return group

    def _numbered(self, number: int) -> PathGroup[P]:
        if not 1 <= number <= len(self._groups):
            raise ValueError(f"there is no path group {number}, the map has {len(self._groups)}")
        return self._groups[number - 1]

    def _regroup(self, now: float) -> None:
        """Make the groups anew (a table reload); the current group stays where most of its usable paths went."""
        old = self._current
        stay: dict[P, int] = {} if old is None else dict.fromkeys(old.selector.paths, 1)
        bypassed = {path for group in self._groups if group.bypassed for path in group.paths}
        groups: list[PathGroup[P]] = []
        for number, members in enumerate(group_paths(self._policy.grouping, self._paths), 1):
            usable = [path for path in members if path.usable]
            group = PathGroup(number, members, make_selector(self._policy.selector, usable))
            group.bypassed = all(path in bypassed for path in members)
            groups.append(group)
        self._groups = tuple(groups)
        self._group_of = {path: group for group in groups for path in group.paths}
        self._wanted = None
        heirs = [(sum(stay.get(path, 0) for path in group.selector.paths), group) for group in groups]
        most = max((count for count, _ in heirs), default=0)
        self._current = next((group for count, group in heirs if count == most and count), None)
        if self._current is None:
            self._choose_current()
        self._consider_starving(now)
        self._consider_failback(now, returned=None)

    def _choose_current(self) -> None:
        for bypassed in (False, True):
            for group in self._groups:
                if group.bypassed is bypassed and group.selector.paths:
                    self._current = group
                    return
        if self._current is not None and self._current not in self._groups:
            self._current = None

    def _best(self) -> PathGroup[P] | None:
        candidates = [group for group in self._groups if group.selector.paths and not group.bypassed]
        return max(candidates, key=lambda group: group.priority, default=None)

    def _consider_failback(self, now: float, *, returned: PathGroup[P] | None) -> None:
        if self._current is None or not self._current.selector.paths:
            self._failback_at = math.inf
            self._choose_current()
            return
        best = self._best()
        if best is None or best is self._current:
            self._failback_at = math.inf
            return
        policy = self._policy.failback
        if policy is Failback.IMMEDIATE:
            self._current = best
        elif policy is Failback.FOLLOWOVER:
            if returned is best and len(best.selector.paths) == 1:
                self._current = best
        elif not isinstance(policy, Failback) and self._failback_at == math.inf:
            self._failback_at = now + policy

    def _fail_back(self) -> bool:
        best = self._best()
        if best is None or best is self._current:
            return False
        self._current = best
        return True

    def _consider_starving(self, now: float) -> None:
        starved = not any(path.usable or path.pending for path in self._paths)
        if starved == self._starved:
            return
        self._starved = starved
        retry = self._policy.no_path_retry
        if isinstance(retry, NoPathRetry):
            return
        self._queue_io = True
        self._give_up_at = now + retry * self._policy.polling_interval if starved else math.inf
