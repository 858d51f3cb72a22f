"""Fails paths in multipath as soon as it is known that they are dead, and offers them again when they are not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, TypeAlias

from srpha.core.connections.path_guard import paths_to_fail, paths_to_reinstate
from srpha.core.events import Event, EventKind, EventSink, Severity
from srpha.core.seams import MapInfo, PathManager, PathManagerError, PathState

_RETRY: Final = 30.0
"""Seconds before a path that was refused is offered again."""
_Action: TypeAlias = Callable[[str], Awaitable[None]]


class Guard:
    """Acts once per device and suspicion: a path manager that knows better is not fought.

    multipathd checks a path that was failed by command no longer: it stays failed until somebody reinstates it. So what
    was failed here is remembered until it is active again, and what is found failed at first counts as failed by a
    daemon before this one.
    """

    def __init__(self, path_manager: PathManager, events: EventSink) -> None:
        self._path_manager = path_manager
        self._events = events
        self._condemned: dict[str, int] | None = None
        """Devices failed here, and the host they are on; None before the first look."""
        self._retry_at: dict[str, float] = {}
        """When to offer a device again that the path manager would not have."""

    async def act(self, maps: Sequence[MapInfo], suspects: Mapping[int, str], healthy_hosts: Collection[int]) -> bool:
        """Fail and reinstate; whether anything was done. ``suspects``: reasons by host number."""
        acted = False
        paths = {path.device: path for item in maps for path in item.paths}
        if self._condemned is None:
            failed = [path for path in paths.values() if path.state is PathState.FAILED]
            self._condemned = {path.device: path.host for path in failed}
        condemned = self._condemned
        for device, host in list(condemned.items()):
            if device not in paths or paths[device].host != host:
                self._forget(device)
        for verdict in paths_to_fail(maps, suspects):
            if verdict.device in condemned:
                continue
            condemned[verdict.device] = paths[verdict.device].host
            text = f"{verdict.device} of map {verdict.map_name} is failed early: {verdict.reason}"
            acted |= await self._do(self._path_manager.fail_path, verdict.device, text)
        now = asyncio.get_running_loop().time()
        for device in paths_to_reinstate(maps, condemned, healthy_hosts):
            if now < self._retry_at.get(device, now):
                continue
            text = f"{device} is offered to multipath again: its connection is healthy"
            if await self._do(self._path_manager.reinstate_path, device, text):
                acted = True
                self._forget(device)
            else:
                self._retry_at[device] = now + _RETRY
        for device, host in list(condemned.items()):
            if paths[device].state is PathState.ACTIVE and host in healthy_hosts and host not in suspects:
                self._forget(device)  # the path manager took it back by itself
        return acted

    def _forget(self, device: str) -> None:
        if self._condemned is not None:
            self._condemned.pop(device, None)
        self._retry_at.pop(device, None)

    async def _do(self, action: _Action, device: str, text: str) -> bool:
        now = asyncio.get_running_loop().time()
        try:
            await action(device)
        except PathManagerError as error:
            self._events(Event(now, EventKind.NOTICE, Severity.WARNING, device, f"{text}; refused: {error}"))
            return False
        self._events(Event(now, EventKind.NOTICE, Severity.NOTICE, device, text))
        return True
