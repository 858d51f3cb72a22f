"""When to scan and what to check: timers, hints and notices in, results out.

Subnets proceed on their own. Hints for one subnet are gathered: at most one scan of it runs, and at most one more is
wanted. A notice leads to a check of the port it names; too many of them lead to one scan instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from srpha.core.discovery.inventory import Inventory
from srpha.core.discovery.scan_result import ScanResult
from srpha.daemon.scanner import Member, check_unit, scan_subnet, subnets
from srpha.daemon.settings import Settings
from srpha.wire.notice import CapabilityTrap144, GidTrap, Trap
from srpha.wire.smp import PortCapability

_MANY_CHECKS = 16
"""Checks waiting that cost as much as a scan."""


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """What a check is about: a port GUID, or a LID where only that is known."""

    is_guid: bool
    value: int


class ScanListener(Protocol):
    """Who hears results; each method notes them and returns."""

    def scan_progress(self, result: ScanResult) -> None:
        """Part of a scan that goes on: each unit is told once."""
        ...

    def scan_finished(self, result: ScanResult) -> None:
        """A scan of one subnet is over."""
        ...

    def check_finished(self, subject: Subject, result: ScanResult) -> None:
        """A check of one port is over."""
        ...


class ScanScheduler:
    """Runs scans and checks for the local ports that ``members`` gives at the time."""

    def __init__(
        self,
        members: Callable[[], tuple[Member, ...]],
        inventory: Inventory,
        settings: Callable[[], Settings],
        listener: ScanListener,
    ) -> None:
        self._members = members
        self._inventory = inventory
        self._settings = settings
        self._listener = listener
        self._wanted: set[str] = set()
        self._scanning: set[str] = set()
        self._askers: set[str] = set()
        """Local ports that got answers last time: they ask first."""
        self._last_end: dict[str, float] = {}
        self._checks: dict[Subject, set[str]] = {}
        self._checking: set[Subject] = set()
        self._last_check: dict[Subject, float] = {}
        self._stir = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Nothing runs, nothing is wanted."""
        return not (self._wanted or self._scanning or self._checks or self._checking)

    def want_scan(self, local_ports: Iterable[str]) -> None:
        """Ask for a scan of the subnets of these local ports soon."""
        self._wanted.update(local_ports)
        self._stir.set()

    def want_check(self, subject: Subject, local_ports: Iterable[str]) -> None:
        """Ask for a check of one port of the subnet of these local ports."""
        self._checks.setdefault(subject, set()).update(local_ports)
        if len(self._checks) + len(self._checking) > _MANY_CHECKS:
            self._wanted.update(name for names in self._checks.values() for name in names)
            self._checks.clear()
        self._stir.set()

    def take_trap(self, local_port: str, trap: Trap) -> None:
        """A notice came to ``local_port``: have the port it names checked, if it may be an I/O unit."""
        if isinstance(trap, GidTrap):
            self._inventory.doubt(trap.gid.guid)
            known = self._inventory.target(trap.gid.guid) is not None
            if trap.in_service or known:
                self.want_check(Subject(True, trap.gid.guid), [local_port])
        elif isinstance(trap, CapabilityTrap144):
            guid = self._inventory.guid_at(trap.lid)
            if guid is not None:
                self._inventory.doubt(guid)
                self.want_check(Subject(True, guid), [local_port])
            elif trap.capability_mask & PortCapability.DEVICE_MANAGEMENT:
                self.want_check(Subject(False, trap.lid), [local_port])

    async def run(self) -> None:
        """Work until cancelled."""
        loop = asyncio.get_running_loop()
        # Subscribe first, then look: meanwhile the ports subscribe to notices.
        await asyncio.sleep(self._settings().scan_hold)
        next_scan = loop.time()
        async with asyncio.TaskGroup() as group:
            while True:
                now = loop.time()
                if now >= next_scan:
                    self._wanted.update(member.identity.name for member in self._members())
                    next_scan = now + self._settings().scan_interval
                for guid in self._inventory.due(now):
                    self._inventory.postpone(guid, now)
                    self._checks.setdefault(Subject(True, guid), set()).update(self._seen_by(guid))
                due = [next_scan, *self._start_checks(group, now), *self._start_scans(group, now)]
                if self._inventory.next_due is not None:
                    due.append(self._inventory.next_due)
                self._stir.clear()
                try:
                    async with asyncio.timeout_at(min(due)):
                        await self._stir.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(self._settings().scan_hold if self._wanted else 0)

    def _seen_by(self, guid: int) -> tuple[str, ...]:
        status = self._inventory.target(guid)
        return () if status is None else status.members

    def _start_scans(self, group: asyncio.TaskGroup, now: float) -> list[float]:
        """Start what is wanted and may start now; gives the times at which the rest may."""
        later = []
        members = self._members()
        self._wanted.intersection_update(member.identity.name for member in members)
        for subnet in subnets(members):
            names = {member.identity.name for member in subnet}
            if not names & self._wanted or names & self._scanning:
                continue
            free_at = max((self._last_end.get(name, -1e9) for name in names), default=0) + self._settings().scan_gap
            if free_at > now:
                later.append(free_at)
                continue
            self._wanted -= names
            self._scanning |= names
            group.create_task(self._scan(subnet, frozenset(names)))
        return later

    async def _scan(self, members: tuple[Member, ...], names: frozenset[str]) -> None:
        settings = self._settings().scan
        try:
            order = self._in_order(members)
            results = await scan_subnet(order, self._inventory.known_to, settings, self._listener.scan_progress)
        finally:
            now = asyncio.get_running_loop().time()
            self._last_end.update(dict.fromkeys(sorted(names), now))
            self._scanning -= names
        for result in results:
            self._askers.difference_update(result.members)
            if result.complete:
                self._askers.add(result.asker)
            self._listener.scan_finished(result)
        self._stir.set()

    def _in_order(self, members: tuple[Member, ...]) -> tuple[Member, ...]:
        return tuple(sorted(members, key=lambda member: member.identity.name not in self._askers))

    def _start_checks(self, group: asyncio.TaskGroup, now: float) -> list[float]:
        """Start the checks that may start now; gives the times at which others may."""
        later = []
        hold = self._settings().scan_hold
        self._last_check = {subject: end for subject, end in self._last_check.items() if end + hold > now}
        for subject in sorted(self._checks):
            if subject in self._checking:
                continue  # its end stirs this loop
            if subject in self._last_check:
                later.append(self._last_check[subject] + hold)
                continue
            names = self._checks.pop(subject)
            subnet = next((s for s in subnets(self._members()) if any(m.identity.name in names for m in s)), None)
            if subnet is not None:
                self._checking.add(subject)
                group.create_task(self._check(subject, self._in_order(subnet)))
        return later

    async def _check(self, subject: Subject, members: tuple[Member, ...]) -> None:
        known = self._inventory.known_to([member.identity.name for member in members])
        try:
            result = await check_unit(
                members,
                known,
                self._settings().scan,
                guid=subject.value if subject.is_guid else None,
                lid=None if subject.is_guid else subject.value,
            )
        finally:
            self._checking.discard(subject)
            self._last_check[subject] = asyncio.get_running_loop().time()
        self._listener.check_finished(subject, result)
        if not result.complete:
            self.want_scan(result.members)
        self._stir.set()
