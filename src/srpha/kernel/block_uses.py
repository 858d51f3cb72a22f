"""Who uses a block device: holders in sysfs, mounts and swap space in /proc, and device-mapper's own count of opens.

Partitions belong to their device: what uses one uses it. Raw opens of a disk that is no map are not to be seen. Those
of a map need CAP_SYS_ADMIN to be counted; without it they show when multipathd refuses to take the map down.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from srpha.core.connections.shutdown import BlockUse, UseKind
from srpha.core.seams import PathManagerError
from srpha.kernel.dm_ioctl import open_count
from srpha.kernel.multipathd import MultipathdClient, MultipathdError
from srpha.kernel.sysfs import Sysfs

_PARTITION_UUID: Final = re.compile(r"part[0-9]+-mpath-.*", re.ASCII)
_ESCAPE: Final = re.compile(r"\\([0-7]{3})", re.ASCII)
_MAP_NAME: Final = re.compile(r"[A-Za-z0-9#+.:=@_-]{1,127}", re.ASCII)
_DEPTH: Final = 4
"""Partitions of partitions: deeper nesting is no storage."""


class KernelBlockDevices:
    """Implements :class:`srpha.daemon.shutdown.BlockDevices`."""

    def __init__(
        self,
        *,
        sysfs: Path = Path("/sys"),
        proc: Path = Path("/proc"),
        count_opens: Callable[[str], int] = open_count,
        client: MultipathdClient | None = None,
    ) -> None:
        self._sysfs = Sysfs(sysfs)
        self._proc = proc
        self._count_opens = count_opens
        self._client = client if client is not None else MultipathdClient()

    async def uses(self, devices: Collection[str]) -> Mapping[str, Sequence[BlockUse]]:
        """Who uses each device. Raises :class:`PathManagerError` when that cannot be told for all of them."""
        return await asyncio.to_thread(self._uses, tuple(devices))

    async def flush(self, name: str) -> None:
        """Have multipathd take the map down; it refuses while the map is open."""
        if not _MAP_NAME.fullmatch(name):
            raise PathManagerError(f"{name[:64]!r} is no name of a map")
        try:
            await self._client.act(f"del map {name}")
        except MultipathdError as error:
            raise PathManagerError(str(error)) from error
        finally:
            await self._client.close()

    def _uses(self, devices: Sequence[str]) -> dict[str, tuple[BlockUse, ...]]:
        try:
            mounts, swaps = self._mounts(), self._swaps()
            return {device: tuple(dict.fromkeys(self._of(device, mounts, swaps, _DEPTH))) for device in devices}
        except (OSError, ValueError) as error:
            raise PathManagerError(f"who uses the disks cannot be told: {error}") from error

    def _of(
        self, device: str, mounts: Mapping[str, Sequence[str]], swaps: Collection[str], depth: int
    ) -> Iterator[BlockUse]:
        folder = f"class/block/{device}"
        number = self._sysfs.text(f"{folder}/dev")
        if number is None:
            raise FileNotFoundError(f"{self._sysfs.root / folder} does not tell the device's number")
        name = self._sysfs.text(f"{folder}/dm/name")
        paths = {f"/dev/{device}", f"/dev/mapper/{name}"}
        found = 0
        for key in (number, *sorted(paths)):
            for place in mounts.get(key, ()):
                found += 1
                yield BlockUse(UseKind.MOUNT, place)
        if paths & set(swaps):
            found += 1
            yield BlockUse(UseKind.SWAP)
        partitions = 0
        for holder in self._sysfs.names(f"{folder}/holders"):
            uuid = self._sysfs.text(f"class/block/{holder}/dm/uuid") or ""
            if _PARTITION_UUID.fullmatch(uuid) and depth:
                partitions += 1
                yield from self._of(holder, mounts, swaps, depth - 1)
                continue
            found += 1
            shown = self._sysfs.text(f"class/block/{holder}/dm/name")
            yield BlockUse(UseKind.HOLDER, f"{holder} ({shown})" if shown else holder)
        for partition in self._sysfs.names(folder):
            if depth and partition.startswith(device) and self._sysfs.exists(f"{folder}/{partition}/partition"):
                yield from self._of(partition, mounts, swaps, depth - 1)
        if name is not None and not found and self._opens(name) > partitions:
            yield BlockUse(UseKind.OPEN)

    def _opens(self, name: str) -> int:
        try:
            return self._count_opens(name)
        except PermissionError:
            return 0

    def _mounts(self) -> dict[str, list[str]]:
        """Mount points by ``major:minor`` and by the path of the source (proc(5), mountinfo)."""
        mounts: dict[str, list[str]] = {}
        for line in (self._proc / "self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
            head, dash, tail = line.partition(" - ")
            words, sources = head.split(" "), tail.split(" ")
            if not dash or len(words) < 6 or len(sources) < 2:
                raise ValueError(f"{self._proc}/self/mountinfo has a line of another form: {line[:80]!r}")
            place = _plain(words[4])
            for key in dict.fromkeys((words[2], _plain(sources[1]))):
                mounts.setdefault(key, []).append(place)
        return mounts

    def _swaps(self) -> frozenset[str]:
        """Paths of the devices and files that are swap space (proc(5))."""
        lines = (self._proc / "swaps").read_text("utf-8", "surrogateescape").splitlines()[1:]
        return frozenset(_plain(line.split()[0]) for line in lines if line.strip())


def _plain(text: str) -> str:
    """The kernel writes blanks and the like as octal escapes; nothing that a terminal would obey is let through."""
    decoded = _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)
    return "".join(character if character.isprintable() else "?" for character in decoded)
