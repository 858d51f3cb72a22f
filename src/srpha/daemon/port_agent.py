"""One local port of the daemon: its identity as it changes, its subscriptions, its logins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from srpha.core.seams import Initiator, MadPort, MadPortGoneError, PortIdentity
from srpha.daemon.connector import Connector
from srpha.daemon.connector import Report as LoginReport
from srpha.daemon.connector import Wanted as LoginWanted
from srpha.daemon.scanner import Member, link_trouble_of, trouble_of
from srpha.daemon.settings import Settings
from srpha.daemon.subscriptions import Subscriptions, TrapSink


@dataclass(frozen=True, slots=True)
class PortChange:
    """What two readings of a port's identity differ in."""

    name: str
    went_up: bool
    went_down: bool
    moved: bool
    """Another subnet, SM, LID or P_Key table: paths and subscriptions are to be asked for again."""
    text: str
    """One phrase for a person."""


class PortAgent:
    """Looks after one local port. ``look`` asks for a scan: whenever the port's subscriptions have been taken."""

    def __init__(
        self,
        port: MadPort,
        initiator: Initiator,
        settings: Callable[[], Settings],
        hint: Callable[[], None],
        traps: TrapSink,
        look: Callable[[], None],
        wanted: LoginWanted,
        report: LoginReport,
    ) -> None:
        self.port = port
        self.name = port.name
        self.identity: PortIdentity | None = None
        self.trouble = "not looked at yet"
        """Why the port can neither scan nor log in to what a scan finds; empty when it can."""
        self.connector = Connector(port, initiator, settings, wanted, report)
        self._subscriptions = Subscriptions(port, settings, traps, look)
        self._hint = hint

    @property
    def subscribed(self) -> bool:
        return self._subscriptions.subscribed

    @property
    def link_trouble(self) -> str:
        """Why the port can log in to no target at all; empty when it can."""
        return self.trouble if self.identity is None else link_trouble_of(self.identity)

    @property
    def member(self) -> Member | None:
        """The port as a member of scans, when it can take part."""
        return Member(self.port, self.identity) if self.identity is not None and not self.trouble else None

    def refresh(self) -> PortChange | None:
        """Read the identity again; what changed, or None."""
        before, old_trouble = self.identity, self.trouble
        try:
            self.identity = self.port.identity()
            self.trouble = trouble_of(self.identity)
        except MadPortGoneError as error:
            self.identity = None
            self.trouble = f"the device is gone ({error})"
        if before == self.identity and old_trouble == self.trouble:
            return None
        moved = before is not None and self.identity is not None and _place(before) != _place(self.identity)
        change = PortChange(
            name=self.name,
            went_up=bool(old_trouble) and not self.trouble,
            went_down=not old_trouble and bool(self.trouble),
            moved=moved,
            text=self.trouble or _place_text(self.identity),
        )
        if change.went_up or moved:
            self._subscriptions.renew()
        return change

    def renew(self) -> None:
        """The subnet manager asks for re-registration, or may: subscribe again."""
        self._subscriptions.renew()

    async def run(self) -> None:
        """Work until cancelled."""
        unwatch = self.port.watch(self._hint)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._subscriptions.run())
                group.create_task(self.connector.run())
        finally:
            unwatch()


def _place(identity: PortIdentity) -> tuple[int, int, int, tuple[int, ...]]:
    return identity.gid.prefix, identity.lid, identity.sm_lid, identity.pkeys


def _place_text(identity: PortIdentity | None) -> str:
    if identity is None:
        return "gone"
    pkeys = " ".join(f"{pkey:04x}" for pkey in identity.pkeys if pkey)
    return f"LID {identity.lid}, SM LID {identity.sm_lid}, P_Keys {pkeys}"
