"""Carries out an ordered shutdown: all checks first, then maps, then connections."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from srpha.core.connections.shutdown import BlockUse, ShutdownPlan, devices_to_ask_for, plan_shutdown
from srpha.core.seams import Connection, Initiator, InitiatorError, PathManager, PathManagerError

_REMOVAL_LIMIT: Final = 30.0
"""Seconds to wait until the driver has removed what it was told to remove."""
_REMOVAL_POLL: Final = 0.1


class ShutdownRefusedError(Exception):
    """Not shut down; one line per reason. What was done before is in the message."""


class BlockDevices(Protocol):
    """The block devices of the host, and maps as things to take down."""

    async def uses(self, devices: Collection[str]) -> Mapping[str, Sequence[BlockUse]]:
        """Who uses each of these devices (``dm-0``, ``sda``). Raises :class:`PathManagerError` when it is not known."""
        ...

    async def flush(self, name: str) -> None:
        """Take a map down. Raises :class:`PathManagerError`, also when it is in use."""
        ...


@dataclass(frozen=True, slots=True)
class ShutdownReport:
    """What was done, or with a dry run would be."""

    plan: ShutdownPlan
    removed: tuple[Connection, ...]


class Shutdown:
    """Takes a host's SRP storage down."""

    def __init__(self, initiator: Initiator, path_manager: PathManager, devices: BlockDevices) -> None:
        self._initiator = initiator
        self._path_manager = path_manager
        self._devices = devices

    async def run(self, ours: Collection[int], *, dry_run: bool) -> ShutdownReport:
        """Flush the maps over our connections and remove those. Raises :class:`ShutdownRefusedError`.

        A dry run raises the same for what can be told beforehand. The caller sees to it that nobody logs in again.
        """
        try:
            connections = await self._initiator.connections()
            maps = await self._path_manager.maps()
            uses = await self._devices.uses(devices_to_ask_for(maps, connections, ours))
        except (InitiatorError, PathManagerError) as error:
            raise ShutdownRefusedError(f"nothing is changed: {error}") from error
        plan = plan_shutdown(maps, connections, ours, uses)
        if plan.refused:
            raise ShutdownRefusedError("\n".join((*plan.refused, "nothing is changed; end these uses first")))
        going = tuple(item for item in connections if item.host in plan.remove)
        if not dry_run:
            await self._flush(plan)
            await self._remove(plan)
        return ShutdownReport(plan, going)

    async def _flush(self, plan: ShutdownPlan) -> None:
        done: list[str] = []
        for name in plan.flush:
            try:
                await self._devices.flush(name)
            except PathManagerError as error:
                said = f"; flushed already: {', '.join(done)}" if done else ""
                text = f"{name} could not be flushed: {error}{said}; no connection is removed"
                raise ShutdownRefusedError(text) from error
            done.append(name)

    async def _remove(self, plan: ShutdownPlan) -> None:
        failed: list[str] = []
        for host in plan.remove:
            try:
                await self._initiator.remove(host)
            except InitiatorError as error:
                failed.append(f"host{host} could not be removed: {error}")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _REMOVAL_LIMIT
        left = set(plan.remove)
        while left and not failed:
            try:
                left &= {item.host for item in await self._initiator.connections()}
            except InitiatorError as error:
                failed.append(f"whether the connections are gone is not known: {error}")
                break
            if left and loop.time() >= deadline:
                failed += [f"host{host} is still being removed after {_REMOVAL_LIMIT:g} s" for host in sorted(left)]
            elif left:
                await asyncio.sleep(_REMOVAL_POLL)
        if failed:
            raise ShutdownRefusedError("\n".join(failed))
