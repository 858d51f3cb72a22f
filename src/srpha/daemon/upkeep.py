"""What our connections need besides being there: their timers, and an end when their target has left for good."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from srpha.core.connections.pairs import Pair, PairStatus
from srpha.core.events import Event, EventKind, EventSink, Severity
from srpha.core.recovery.remote_port import RemotePortTimers
from srpha.core.seams import Connection, Initiator, InitiatorError
from srpha.daemon.settings import Settings

_RETRY: Final = 60.0
"""Seconds before what the driver refused is tried again."""


class Upkeep:
    """Acts on connections that are ours, never on others."""

    def __init__(self, initiator: Initiator, events: EventSink) -> None:
        self._initiator = initiator
        self._events = events
        self._refused: dict[tuple[int, RemotePortTimers | None], float] = {}
        """When it was refused, by host and timers; None for its removal."""

    async def set_timers(self, pairs: Iterable[Pair], connections: Sequence[Connection], settings: Settings) -> bool:
        """Give connections the timers that the settings want, wherever they differ; whether anything was done."""
        by_host = {item.host: item for item in connections}
        acted = False
        for pair in pairs:
            timers = settings.timers_for(pair.target)
            connection = by_host.get(pair.host) if pair.host is not None else None
            if timers is None or connection is None or not pair.ours or not connection.remote_port:
                continue
            if pair.status not in (PairStatus.CONNECTED, PairStatus.RECOVERING) or connection.timers == timers:
                continue
            if self._may_try(connection.host, timers):
                try:
                    await self._initiator.set_timers(connection.host, timers)
                    acted = True
                except InitiatorError as error:
                    self._note(
                        pair, connection.host, timers, f"the timers of host{connection.host} could not be set: {error}"
                    )
        return acted

    async def remove_departed(self, pairs: Iterable[Pair], gone: Collection[int]) -> bool:
        """Remove connections to target ports (by GUID) that a positive answer says have left; whether any was."""
        acted = False
        for pair in pairs:
            removing = pair.status is PairStatus.REMOVING
            if pair.host is None or not pair.ours or pair.static or removing or pair.key.dgid.guid not in gone:
                continue
            if self._may_try(pair.host, None):
                try:
                    await self._initiator.remove(pair.host)
                    acted = True
                except InitiatorError as error:
                    self._note(pair, pair.host, None, f"host{pair.host} could not be removed: {error}")
        return acted

    def _may_try(self, host: int, timers: RemotePortTimers | None) -> bool:
        now = asyncio.get_running_loop().time()
        self._refused = {what: when for what, when in self._refused.items() if when + _RETRY > now}
        return (host, timers) not in self._refused

    def _note(self, pair: Pair, host: int, timers: RemotePortTimers | None, text: str) -> None:
        now = asyncio.get_running_loop().time()
        self._refused[host, timers] = now
        self._events(
            Event(now, EventKind.CONNECTION_STATE, Severity.WARNING, pair.name, f"{pair.name}: {text}", {"host": host})
        )
