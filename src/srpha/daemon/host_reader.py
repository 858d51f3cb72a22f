"""Reads connections and maps again and again; keeps the last good reading and tells what changed."""

from __future__ import annotations

from collections.abc import Callable, Collection

from srpha.core.changes import connection_events, map_events
from srpha.core.events import EventSink
from srpha.core.seams import Connection, Initiator, InitiatorError, MapInfo, PathManager, PathManagerError


class HostReader:
    """The host's side of the state. None means never read; a reading that fails keeps the one before."""

    def __init__(self, initiator: Initiator, path_manager: PathManager | None, events: EventSink) -> None:
        self._initiator = initiator
        self._path_manager = path_manager
        self._events = events
        self.connections: tuple[Connection, ...] | None = None
        self._before: tuple[Connection, ...] = ()
        self.maps: tuple[MapInfo, ...] | None = None if path_manager is not None else ()
        self.connections_trouble = ""
        """Why the last reading of the connections failed; empty when it did not."""
        self.maps_trouble = ""

    async def read_connections(self, now: float, adopt: Callable[[tuple[Connection, ...]], Collection[int]]) -> bool:
        """Read them; ``adopt`` settles what is ours and gives the hosts that need no event for appearing."""
        try:
            fresh = await self._initiator.connections()
        except InitiatorError as error:
            self.connections_trouble = f"the connections could not be read: {error}"
            return False
        self.connections_trouble = ""
        if fresh == self.connections:
            fresh = self.connections  # the same object: others tell by it that nothing changed
        before, self.connections = self.connections, fresh
        self._before = before or ()
        told = adopt(fresh)
        if before is not None and before is not fresh:
            for event in connection_events(before, fresh, told, now):
                self._events(event)
        return True

    def _seen(self) -> tuple[Connection, ...]:
        """The connections of this reading and the one before: a path may outlive its connection for a moment."""
        return (*self._before, *(self.connections or ()))

    async def read_maps(self, now: float) -> bool:
        """Read them and tell what changed."""
        if self._path_manager is None:
            return True
        try:
            fresh = await self._path_manager.maps()
        except PathManagerError as error:
            self.maps_trouble = f"the multipath maps could not be read: {error}"
            return False
        self.maps_trouble = ""
        if fresh == self.maps:
            return True
        before, self.maps = self.maps, fresh
        for event in map_events(before or (), fresh, self._seen(), now):
            self._events(event)
        return True
