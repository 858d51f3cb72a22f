"""What scans and checks have said: fed into the inventory, told as events, counted, and kept for status."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from srpha.core.discovery.inventory import Inventory, TargetChange
from srpha.core.discovery.scan_result import ScanResult, Standing
from srpha.core.events import Event, EventKind, EventSink, Severity
from srpha.daemon.snapshot import ScanTotals, SubnetScan

_SEVERITY = {
    EventKind.TARGET_FOUND: Severity.INFO,
    EventKind.TARGET_CHANGED: Severity.NOTICE,
    EventKind.TARGET_SILENT: Severity.WARNING,
    EventKind.TARGET_LEFT: Severity.WARNING,
    EventKind.TARGET_REFUSED: Severity.WARNING,
}

Fields = dict[str, str | int | float | bool]


class ScanRecords:
    """The last scan of each subnet, the totals, and the ports that were scanned since they came up.

    ``appeared`` hears the GUID of every target that answers anew. Times are seconds of the loop's clock.
    """

    def __init__(self, inventory: Inventory, appeared: Callable[[int], None], events: EventSink) -> None:
        self._inventory = inventory
        self._appeared = appeared
        self._events = events
        self._scans: dict[tuple[str, ...], SubnetScan] = {}
        self._scanned: set[str] = set()
        self.totals = ScanTotals()

    @property
    def scans(self) -> tuple[SubnetScan, ...]:
        """The last scan of each subnet."""
        return tuple(self._scans.values())

    @property
    def scanned(self) -> frozenset[str]:
        """Local ports whose subnet was scanned since they came up or moved."""
        return frozenset(self._scanned)

    def unsettle(self, port: str) -> None:
        """A local port came up, moved or went: what was scanned for it does not count any more."""
        self._scanned.discard(port)

    def keep(self, ports: Collection[str]) -> None:
        """Forget scans that spoke for none of ``ports``."""
        present = set(ports)
        self._scans = {members: scan for members, scan in self._scans.items() if set(members) & present}

    def progress(self, result: ScanResult, now: float) -> None:
        """Part of a scan that goes on: targets that answered or stayed silent."""
        self._tell(self._inventory.apply(result, now, partial=True), now)

    def finished(self, result: ScanResult, now: float) -> None:
        """A scan is over; its units were told on the way, but for those that are gone."""
        rest = replace(result, units=tuple(unit for unit in result.units if unit.standing is Standing.GONE))
        self._tell(self._inventory.apply(rest, now), now)
        self._count(result, scans=1)
        stats = result.statistics
        self._scans = {members: scan for members, scan in self._scans.items() if not set(members) & set(result.members)}
        self._scans[result.members] = SubnetScan(
            now, result.asker, result.members, result.complete, result.reason, stats
        )
        self._scanned.update(result.members)
        found = sum(1 for unit in result.units if unit.standing is Standing.FOUND)
        fields: Fields = {
            "found": found,
            "units": len(result.units),
            "queries": stats.queries,
            "timeouts": stats.timeouts,
            "round_trips": stats.round_trips,
            "duration": round(stats.duration, 6),
        }
        who = ", ".join(result.members)
        if result.complete:
            text = f"scan for {who}: {found} of {len(result.units)} targets answer"
            self._events(Event(now, EventKind.SCAN_FINISHED, Severity.INFO, result.asker, text, fields))
        else:
            text = f"scan for {who} is not complete: {result.reason}; what was known stays"
            self._events(Event(now, EventKind.SCAN_FAILED, Severity.WARNING, result.asker, text, fields))

    def checked(self, result: ScanResult, now: float) -> None:
        """A check of one port is over."""
        self._tell(self._inventory.apply(result, now, single=True), now)
        self._count(result, scans=0)
        for unit in result.units:
            if unit.standing is Standing.FOUND:
                self._appeared(unit.guid)

    def _count(self, result: ScanResult, *, scans: int) -> None:
        totals, stats = self.totals, result.statistics
        self.totals = ScanTotals(
            scans=totals.scans + scans,
            failed_scans=totals.failed_scans + (scans if not result.complete else 0),
            probes=totals.probes + 1 - scans,
            queries=totals.queries + stats.queries,
            timeouts=totals.timeouts + stats.timeouts,
        )

    def _tell(self, changes: Sequence[TargetChange], now: float) -> None:
        for change in changes:
            unit = change.unit
            fields: Fields = {"guid": f"{unit.guid:016x}", "lid": unit.lid}
            self._events(Event(now, change.kind, _SEVERITY[change.kind], f"{unit.guid:016x}", change.text, fields))
            if change.kind is EventKind.TARGET_FOUND:
                self._appeared(unit.guid)
