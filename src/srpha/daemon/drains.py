"""Local ports that are drained for maintenance: their paths are held out of use until the port is resumed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from srpha.core.connections.drain import assess_drain, held_paths, hosts_of, paths_to_reinstate
from srpha.core.events import Event, EventKind, EventSink, Severity
from srpha.core.seams import Connection, Initiator, InitiatorError, MapInfo, PathManager, PathManagerError


class DrainRefusedError(Exception):
    """The port is not drained, or not resumed; one sentence for an operator. Nothing has changed."""


@dataclass(frozen=True, slots=True)
class DrainReport:
    """What was done. ``refused`` are sentences about paths that multipath would not give up or take."""

    port: str
    maps: tuple[str, ...]
    paths: tuple[str, ...]
    refused: tuple[str, ...]


class Drains:
    """The drained ports of one host. What is decided on is read afresh from the seams each time."""

    def __init__(self, initiator: Initiator, path_manager: PathManager | None, events: EventSink) -> None:
        self._initiator = initiator
        self._path_manager = path_manager
        self._events = events
        self._drained: dict[str, frozenset[str]] = {}
        """Drained ports, and the maps that may be left without any path for each."""
        self._turn = asyncio.Lock()
        """Two drains at a time might each count on the paths that the other takes away."""
        self._owed: dict[str, int] = {}
        """Devices over resumed ports that could not be reinstated yet, and the host of each."""

    @property
    def drained(self) -> Mapping[str, Collection[str]]:
        """Drained ports by name, and the maps that were named to be left without a path for each."""
        return {name: tuple(sorted(forced)) for name, forced in sorted(self._drained.items())}

    def restore(self, drained: Mapping[str, Collection[str]]) -> None:
        """Have these ports drained, as a daemon before this one had."""
        self._drained = {name: frozenset(forced) for name, forced in drained.items()}

    def holds(self, local_port: str) -> bool:
        """Whether the port is drained."""
        return local_port in self._drained

    async def drain(self, port: str, known: Collection[str], force: Collection[str]) -> DrainReport:
        """Hold all paths over ``port``. ``force`` names the maps that may lose their last path by it.

        Raises :class:`DrainRefusedError`.
        """
        async with self._turn:
            return await self._drain(port, known, force)

    async def _drain(self, port: str, known: Collection[str], force: Collection[str]) -> DrainReport:
        connections, maps = await self._look()
        _check_known(port, {*known, *(item.local_port for item in connections)})
        forced = self._all_forced() | frozenset(force)
        mine = assess_drain(maps, hosts_of(connections, {port}), {item.name for item in maps})
        stranded = [
            name
            for name in assess_drain(maps, hosts_of(connections, {port, *self._drained}), forced).stranded
            if name in mine.maps
        ]
        unknown = sorted(set(force) - {item.name for item in maps})
        if unknown:
            raise DrainRefusedError(f"there is no map {', '.join(unknown)}")
        if stranded:
            named = ", ".join(stranded)
            options = " ".join(f"--force {name}" for name in stranded)
            raise DrainRefusedError(
                f"{port} is not drained: {named} would be left without a healthy path over another port; restore one, "
                f"or accept that I/O waits or fails with {options}"
            )
        # From here on there is no new login, whatever becomes of the paths.
        self._drained[port] = self._drained.get(port, frozenset()) | frozenset(force)
        refused = await self._hold(mine.paths)
        held = tuple(device for device in mine.paths if device not in refused)
        text = f"{port} is drained: {_count(held, 'path')} of {_count(mine.maps, 'map')} held until it is resumed"
        self._event(EventKind.PORT_DRAINED, port, text)
        return DrainReport(port, mine.maps, held, tuple(refused.values()))

    async def resume(self, port: str) -> DrainReport:
        """Use ``port`` again. Raises :class:`DrainRefusedError`, also when it is not drained."""
        async with self._turn:
            return await self._resume(port)

    async def _resume(self, port: str) -> DrainReport:
        if port not in self._drained:
            said = f"; drained are {', '.join(sorted(self._drained))}" if self._drained else ""
            raise DrainRefusedError(f"{port} is not drained{said}")
        connections, maps = await self._look()
        del self._drained[port]
        hosts = hosts_of(connections, {port})
        names = assess_drain(maps, hosts).maps
        self._owed |= held_paths(maps, hosts)
        resumed, refused = await self._reinstate(maps, connections)
        self._event(EventKind.PORT_RESUMED, port, f"{port} is resumed: {_count(resumed, 'path')} offered again")
        return DrainReport(port, names, resumed, tuple(refused.values()))

    async def act(self, maps: Sequence[MapInfo], connections: Sequence[Connection]) -> bool:
        """Hold paths over drained ports that came into use, and reinstate what is owed; whether anything was done.

        A last path is left alone.
        """
        if not self._drained and not self._owed:
            return False
        async with self._turn:
            return await self._act(maps, connections)

    async def _act(self, maps: Sequence[MapInfo], connections: Sequence[Connection]) -> bool:
        resumed, _ = await self._reinstate(maps, connections)
        assessment = assess_drain(maps, hosts_of(connections, self._drained), self._all_forced())
        refused = await self._hold(assessment.in_use)
        return bool(resumed) or len(refused) < len(assessment.in_use)

    async def _look(self) -> tuple[tuple[Connection, ...], tuple[MapInfo, ...]]:
        """Connections and maps of now: on what cannot be read nothing is decided."""
        try:
            connections = await self._initiator.connections()
            maps = await self._path_manager.maps() if self._path_manager is not None else ()
        except (InitiatorError, PathManagerError) as error:
            raise DrainRefusedError(f"nothing is changed: {error}") from error
        return connections, maps

    async def _hold(self, devices: Sequence[str]) -> dict[str, str]:
        """Hold paths; why multipath refused, by device."""
        refused: dict[str, str] = {}
        if self._path_manager is None:
            return refused
        for device in devices:
            try:
                await self._path_manager.hold_path(device)
            except PathManagerError as error:
                refused[device] = str(error)
        return refused

    async def _reinstate(
        self, maps: Sequence[MapInfo], connections: Sequence[Connection]
    ) -> tuple[tuple[str, ...], dict[str, str]]:
        """Reinstate what is owed and can carry I/O; the devices, and why multipath refused, by device."""
        held = held_paths(maps, hosts_of(connections, {item.local_port for item in connections}))
        drained = hosts_of(connections, self._drained)
        self._owed = {
            device: host for device, host in self._owed.items() if held.get(device) == host and host not in drained
        }
        resumed: list[str] = []
        refused: dict[str, str] = {}
        if self._path_manager is None:
            return (), refused
        for device in paths_to_reinstate(maps, connections, self._owed):
            del self._owed[device]
            try:
                await self._path_manager.reinstate_path(device)
            except PathManagerError as error:
                refused[device] = str(error)
            else:
                resumed.append(device)
        return tuple(resumed), refused

    def _all_forced(self) -> frozenset[str]:
        return frozenset[str]().union(*self._drained.values())

    def _event(self, kind: EventKind, port: str, text: str) -> None:
        self._events(Event(asyncio.get_running_loop().time(), kind, Severity.NOTICE, port, text))


def _check_known(port: str, known: Collection[str]) -> None:
    if port not in known:
        raise DrainRefusedError(f"there is no local port {port!r}; there are {', '.join(sorted(known)) or 'none'}")


def _count(things: Collection[str], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"
