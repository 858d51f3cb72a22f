"""The targets that are known, and what a new scan or check changes about them.

What a question that failed would have told stays as it was. A unit is gone only when a complete answer leaves it out
for every local port that used to see it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from srpha.core.discovery.scan_result import IoUnit, ScanResult, Standing
from srpha.core.events import EventKind

FORGET_AFTER: Final = 3600.0
"""Seconds for which a unit that left is still shown."""
TRUSTED_SCANS: Final = 10
"""Scans in a row that may take an unchanged change ID for unchanged services: some targets never move it."""


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """A unit as it is known now. Times in seconds of the daemon's clock."""

    unit: IoUnit
    """As it was last found; ``standing`` and ``reason`` are of now."""
    first_seen: float
    last_seen: float
    """When its agent last answered; ``first_seen`` when it never did."""
    since: float
    """When it came to its present standing."""
    members: tuple[str, ...]
    """Local ports whose subnet it is in."""
    silent_count: int = 0
    """Scans and checks in a row without an answer."""
    next_probe: float | None = None
    """When it is asked again by itself; None: by the next scan."""
    trust: int = 0
    """Scans that may still rely on its change ID."""

    @property
    def standing(self) -> Standing:
        return self.unit.standing


@dataclass(frozen=True, slots=True)
class TargetChange:
    """Something an operator may want to know of a unit."""

    kind: EventKind
    unit: IoUnit
    text: str


class Inventory:
    """All units known and which local port reaches them. Times in seconds.

    ``probe_first`` and ``probe_longest`` bound the delays before a silent unit is asked again.
    """

    def __init__(self, probe_first: float, probe_longest: float) -> None:
        self._first = probe_first
        self._longest = probe_longest
        self._targets: dict[int, TargetStatus] = {}
        self._reach: dict[str, dict[int, tuple[int, ...]]] = {}
        self.version = 0
        """Moves whenever anything that others decide by does."""

    def probe_delays(self, first: float, longest: float) -> None:
        """Take other bounds from now on."""
        self._first, self._longest = first, longest

    @property
    def targets(self) -> tuple[TargetStatus, ...]:
        """All units by GUID."""
        return tuple(self._targets[guid] for guid in sorted(self._targets))

    def target(self, guid: int) -> TargetStatus | None:
        return self._targets.get(guid)

    def guid_at(self, lid: int) -> int | None:
        """GUID of the known unit with LID ``lid``, if one is there."""
        return next((t.unit.guid for t in self.targets if t.unit.lid == lid and t.standing is not Standing.GONE), None)

    def pkeys(self, local_port: str, guid: int) -> tuple[int, ...] | None:
        """Shared P_Keys in the local table's order, () for no path, None while the port's paths are unknown."""
        reach = self._reach.get(local_port)
        return None if reach is None else reach.get(guid, ())

    def known_to(self, members: Collection[str]) -> Mapping[int, IoUnit]:
        """What a scan for ``members`` should know; a change ID only where it may be relied on."""
        return {
            guid: status.unit if status.trust else replace(status.unit, change_id=None)
            for guid, status in self._targets.items()
            if status.standing is not Standing.GONE and any(name in members for name in status.members)
        }

    def doubt(self, guid: int) -> None:
        """Do not rely on the unit's change ID any more: something happened to it."""
        status = self._targets.get(guid)
        if status is not None:
            self._targets[guid] = replace(status, trust=0)

    def due(self, now: float) -> tuple[int, ...]:
        """Silent units to be asked again now, by GUID."""
        return tuple(t.unit.guid for t in self.targets if t.next_probe is not None and t.next_probe <= now)

    def postpone(self, guid: int, now: float) -> None:
        """A silent unit is being asked, or cannot be: do not call it due again before long."""
        status = self._targets.get(guid)
        if status is not None and status.next_probe is not None:
            self._targets[guid] = replace(status, next_probe=now + self._longest)

    @property
    def next_due(self) -> float | None:
        """When :meth:`due` will have something."""
        return min((t.next_probe for t in self._targets.values() if t.next_probe is not None), default=None)

    def apply(
        self, result: ScanResult, now: float, *, single: bool = False, partial: bool = False
    ) -> list[TargetChange]:
        """Take in a result and tell what changed.

        ``single``: it is of a check of one unit, other units are not spoken of. ``partial``: more will come, so that a
        path that is not there yet is not missing.
        """
        before = dict(self._targets)
        reached = {name: dict(known) for name, known in self._reach.items()}
        for reach in result.reach:
            known = self._reach.get(reach.local_port)
            if single and known is not None:
                if reach.known:
                    for unit in result.units:
                        known.pop(unit.guid, None)
                known.update(reach.pkeys)
            elif reach.known and not single:
                self._reach[reach.local_port] = dict(reach.pkeys)
            elif reach.pkeys:
                self._reach.setdefault(reach.local_port, {}).update(reach.pkeys)
        changes: list[TargetChange] = []
        for unit in result.units:
            changes += self._take(unit, result.members, now)
        if not partial:
            self._forget(now)
            for guid, status in self._targets.items():
                if not single and status.trust and any(name in result.members for name in status.members):
                    self._targets[guid] = replace(status, trust=status.trust - 1)
        if reached != self._reach or _matters(before, self._targets):
            self.version += 1
        return changes

    def forget_port(self, local_port: str) -> None:
        """The local port is in another subnet now, or gone: what it reached counts no longer."""
        self.version += 1
        self._reach.pop(local_port, None)

    def _take(self, unit: IoUnit, members: Iterable[str], now: float) -> list[TargetChange]:
        old = self._targets.get(unit.guid)
        match unit.standing:
            case Standing.FOUND:
                return self._found(unit, old, members, now)
            case Standing.SILENT:
                return self._silent(unit, old, members, now)
            case Standing.GONE if old is not None:
                return self._gone(unit, old, members, now)
            case _:
                return []

    def _found(self, unit: IoUnit, old: TargetStatus | None, members: Iterable[str], now: float) -> list[TargetChange]:
        back = old is None or old.standing is not Standing.FOUND
        fresh = old is None or old.unit.change_id != unit.change_id or not old.trust
        self._targets[unit.guid] = TargetStatus(
            unit=unit,
            first_seen=now if old is None else old.first_seen,
            last_seen=now,
            since=now if back or old is None else old.since,
            members=_joined(() if old is None or old.standing is Standing.GONE else old.members, members),
            trust=TRUSTED_SCANS + 1 if fresh or old is None else old.trust,
        )
        changes = []
        if back:
            count = len(unit.services)
            what = f"{count} SRP service{'' if count == 1 else 's'}"
            again = "" if old is None else " again"
            changes.append(TargetChange(EventKind.TARGET_FOUND, unit, f"{unit_name(unit)} answers{again}: {what}"))
        elif old is not None and set(old.unit.services) != set(unit.services):
            changes.append(TargetChange(EventKind.TARGET_CHANGED, unit, f"{unit_name(unit)} offers other services"))
        seen = () if old is None else old.unit.refused
        changes += [
            TargetChange(EventKind.TARGET_REFUSED, unit, f"{unit_name(unit)}: {text}; it is not used")
            for text in unit.refused
            if text not in seen
        ]
        return changes

    def _silent(self, unit: IoUnit, old: TargetStatus | None, members: Iterable[str], now: float) -> list[TargetChange]:
        members = tuple(members)
        if old is None or old.standing is Standing.GONE:
            self._targets[unit.guid] = TargetStatus(
                unit=unit,
                first_seen=now,
                last_seen=now,
                since=now,
                members=members,
                silent_count=1,
                next_probe=now + self._first,
            )
            return [TargetChange(EventKind.TARGET_SILENT, unit, f"{unit_name(unit)}: {unit.reason}")]
        elsewhere = any(name not in members for name in old.members)
        if old.standing is Standing.FOUND and elsewhere and now - old.last_seen < self._longest:
            return []  # other local ports, in another subnet or partition, still hear it
        count = old.silent_count + 1
        self._targets[unit.guid] = replace(
            old,
            unit=replace(old.unit, standing=Standing.SILENT, reason=unit.reason, lid=unit.lid, agent=unit.agent),
            since=now if old.standing is Standing.FOUND else old.since,
            members=_joined(old.members, members),
            silent_count=count,
            next_probe=now + min(self._longest, self._first * 2.0 ** min(count - 1, 30)),
            trust=0,
        )
        if old.standing is Standing.SILENT:
            return []
        return [TargetChange(EventKind.TARGET_SILENT, unit, f"{unit_name(unit)}: {unit.reason}")]

    def _gone(self, unit: IoUnit, old: TargetStatus, members: Iterable[str], now: float) -> list[TargetChange]:
        if old.standing is Standing.GONE:
            return []
        without = set(members)
        left = tuple(name for name in old.members if name not in without)
        if left:
            self._targets[unit.guid] = replace(old, members=left)
            return []
        self._targets[unit.guid] = replace(
            old,
            unit=replace(old.unit, standing=Standing.GONE, reason=unit.reason, change_id=None),
            since=now,
            members=(),
            next_probe=None,
            trust=0,
        )
        return [TargetChange(EventKind.TARGET_LEFT, unit, f"{unit_name(unit)} left: {unit.reason}")]

    def _forget(self, now: float) -> None:
        for guid, status in list(self._targets.items()):
            if status.standing is Standing.GONE and now - status.since > FORGET_AFTER:
                del self._targets[guid]


def unit_name(unit: IoUnit) -> str:
    """A unit in messages: its description, if it has one, and its port GUID."""
    guid = f"{unit.guid:016x}"
    return f"{unit.description} ({guid})" if unit.description else guid


def _matters(before: Mapping[int, TargetStatus], after: Mapping[int, TargetStatus]) -> bool:
    """Whether two states of the inventory differ in more than times and counts."""
    if before.keys() != after.keys():
        return True
    return any(
        old is not new and (old.unit != new.unit or old.members != new.members)
        for old, new in zip(before.values(), (after[guid] for guid in before), strict=True)
    )


def _joined(old: Iterable[str], new: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*old, *new}))
