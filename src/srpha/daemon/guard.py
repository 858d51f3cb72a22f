"""Fails paths in multipath as soon as it is known that they are dead, and offers them again when they are not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeAlias

from srpha.core.events import Event, EventKind, EventSink, Severity
from srpha.core.path_guard import paths_to_fail, paths_to_reinstate
from srpha.core.seams import MapInfo, PathManager, PathManagerError

_Action: TypeAlias = Callable[[str], Awaitable[None]]


class Guard:
    """Acts once per device and suspicion: a path manager that knows better is not fought."""

    def __init__(self, path_manager: PathManager, events: EventSink) -> None:
        self._path_manager = path_manager
        self._events = events
        self._condemned: dict[str, int] = {}
        """Devices failed here, and the host they are on."""

    async def act(self, maps: Sequence[MapInfo], suspects: Mapping[int, str], healthy_hosts: Collection[int]) -> bool:
        """Fail and reinstate; whether anything was done. ``suspects``: reasons by host number."""
        acted = False
        present = {path.device: path.host for item in maps for path in item.paths}
        self._condemned = {device: host for device, host in self._condemned.items() if present.get(device) == host}
        for verdict in paths_to_fail(maps, suspects):
            if verdict.device in self._condemned:
                continue
            self._condemned[verdict.device] = present[verdict.device]
            text = f"{verdict.device} of map {verdict.map_name} is failed early: {verdict.reason}"
            acted |= await self._do(self._path_manager.fail_path, verdict.device, text)
        for device in paths_to_reinstate(maps, self._condemned, healthy_hosts):
            del self._condemned[device]
            text = f"{device} is offered to multipath again: its connection is healthy"
            acted |= await self._do(self._path_manager.reinstate_path, device, text)
        for device, host in list(self._condemned.items()):
            if host in healthy_hosts and host not in suspects:
                del self._condemned[device]  # the path manager took it back by itself
        return acted

    async def _do(self, action: _Action, device: str, text: str) -> bool:
        now = asyncio.get_running_loop().time()
        try:
            await action(device)
        except PathManagerError as error:
            self._events(Event(now, EventKind.NOTICE, Severity.WARNING, device, f"{text}; refused: {error}"))
            return False
        self._events(Event(now, EventKind.NOTICE, Severity.NOTICE, device, text))
        return True
