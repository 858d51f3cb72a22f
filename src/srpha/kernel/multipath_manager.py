"""multipathd as the daemon's path manager: maps, failing and reinstating paths (design: the PathManager seam)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from srpha.core.hints import Hints
from srpha.core.seams import GroupInfo, MapInfo, PathInfo, PathManagerError, PathState, Unwatch
from srpha.kernel.dm_sysfs import DmSysfs, KernelMap
from srpha.kernel.multipathd import MultipathdAwayError, MultipathdClient, MultipathdError
from srpha.kernel.multipathd_json import (
    MAPS_COMMAND,
    PATHS_COMMAND,
    ListedGroup,
    ListedMap,
    ListedPath,
    PathFacts,
    parse_maps,
    parse_paths,
)
from srpha.kernel.sysfs import Sysfs
from srpha.wire.errors import DecodeError

_DEVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:!-]{0,63}", re.ASCII)
_NAMED: Final = 5
"""Maps named in the message that multipathd is down."""


class MultipathManager:
    """Implements :class:`srpha.core.seams.PathManager` with multipathd, sysfs and hints from outside.

    multipathd owns the path states: when it is down :meth:`maps` raises, and :meth:`kernel_maps` still says which
    multipath devices the kernel has.
    """

    def __init__(self, client: MultipathdClient | None = None, *, sysfs: Path = Path("/sys")) -> None:
        self._client = client if client is not None else MultipathdClient()
        self._kernel = DmSysfs(Sysfs(sysfs))
        self._hints = Hints()

    async def maps(self) -> tuple[MapInfo, ...]:
        """All maps of multipathd by name. Raises :class:`PathManagerError`, never answers empty for unknown."""
        try:
            listed = await self._client.show(MAPS_COMMAND)
            paths = await self._client.show(PATHS_COMMAND)
            return await asyncio.to_thread(self._join, listed, paths)
        except MultipathdAwayError as error:
            raise PathManagerError(f"{error}; {await self._what_the_kernel_has()}") from error
        except (MultipathdError, DecodeError) as error:
            raise PathManagerError(str(error)) from error

    async def kernel_maps(self) -> tuple[KernelMap, ...]:
        """The multipath devices that the kernel has, asked without multipathd: no groups and no path states.

        Raises :class:`PathManagerError` when sysfs cannot be read.
        """
        try:
            return await asyncio.to_thread(self._kernel.maps)
        except OSError as error:
            raise PathManagerError(f"the device-mapper devices in sysfs cannot be read: {error}") from error

    async def fail_path(self, device: str) -> None:
        """Take ``sda`` out of use. multipathd also stops checking it, so that it stays out until reinstated."""
        await self._act("fail", device)

    async def hold_path(self, device: str) -> None:
        """The same: multipathd knows no other way."""
        await self.fail_path(device)

    async def reinstate_path(self, device: str) -> None:
        """Offer ``sda`` again; multipathd checks it from now on, and fails it again when it does not answer."""
        await self._act("reinstate", device)

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        """Hear that the maps may have changed."""
        return self._hints.add(hint)

    def hint(self) -> None:
        """Something happened to a map or a path: everybody who watches should look again."""
        self._hints.ring()

    async def close(self) -> None:
        """End the connection to multipathd."""
        await self._client.close()

    async def _act(self, verb: str, device: str) -> None:
        if not _DEVICE.fullmatch(device):
            raise PathManagerError(f"{device[:64]!r} is no name of a device")
        try:
            await self._client.act(f"{verb} path {device}")
        except MultipathdError as error:
            raise PathManagerError(str(error)) from error
        self.hint()

    async def _what_the_kernel_has(self) -> str:
        try:
            names = [item.name for item in await self.kernel_maps()]
        except PathManagerError:
            return "what multipath devices the kernel has is unknown"
        if not names:
            return "the kernel has no multipath device"
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return f"the kernel still serves {', '.join(names[:_NAMED])}{more}, but nobody checks or restores their paths"

    def _join(self, listed: str, paths: str) -> tuple[MapInfo, ...]:
        facts = parse_paths(paths)
        return tuple(self._map_info(item, facts) for item in parse_maps(listed))

    def _map_info(self, item: ListedMap, facts: Mapping[str, PathFacts]) -> MapInfo:
        groups = tuple(self._group_info(group, facts) for group in item.groups)
        size = self._kernel.size(item.dm_name)
        usable = any(path.state is PathState.ACTIVE for group in groups for path in group.paths)
        return MapInfo(
            name=item.name,
            wwid=item.wwid,
            dm_name=item.dm_name,
            blocks=size.blocks,
            block_size=size.block_size,
            vendor=item.vendor,
            product=item.product,
            queueing=item.queueing,
            # nothing counts what dm holds back; without a usable path all that is under way is held back
            queued=0 if usable else size.in_flight,
            groups=groups,
        )

    def _group_info(self, group: ListedGroup, facts: Mapping[str, PathFacts]) -> GroupInfo:
        paths = tuple(self._path_info(path, facts.get(path.dev_t)) for path in group.paths)
        return GroupInfo(group.number, group.selector, group.priority, group.state, paths)

    def _path_info(self, path: ListedPath, facts: PathFacts | None) -> PathInfo:
        return PathInfo(
            device=path.device,
            dev_t=path.dev_t,
            hctl=(facts.hctl if facts is not None else "") or self._kernel.hctl(path.device),
            state=path.state,
            checker=path.checker,
            device_state=self._kernel.device_state(path.device) or path.device_state,
            priority=path.priority,
            fail_count=facts.fail_count if facts is not None else 0,
        )
