"""The kernel's own word on multipath devices and their paths, out of sysfs.

It adds sizes and device states to what multipathd tells, and names the maps that still serve I/O while multipathd is
down. Files that are absent or odd count as unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from srpha.core.seams import DeviceState
from srpha.kernel.sysfs import Sysfs, numbered

SECTOR: Final = 512
_UUID_PREFIX: Final = "mpath-"
_HCTL: Final = re.compile(r"\d{1,9}:\d{1,9}:\d{1,9}:\d{1,20}", re.ASCII)
_COUNT: Final = re.compile(r"\d{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True)
class KernelMap:
    """A multipath device as device-mapper shows it in sysfs: path states are not to be had there."""

    name: str
    wwid: str
    dm_name: str
    slaves: tuple[str, ...]
    """Kernel names of the paths in its table."""
    suspended: bool


@dataclass(frozen=True, slots=True)
class MapSize:
    """Size and load of a device-mapper device; what could not be read is 0."""

    blocks: int
    block_size: int
    in_flight: int


class DmSysfs:
    """Reads ``block`` of a sysfs tree."""

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs

    def maps(self) -> tuple[KernelMap, ...]:
        """All multipath devices by name; partitions on them are none. Raises OSError when sysfs cannot be read."""
        if not self._sysfs.exists("block"):
            raise FileNotFoundError(f"{self._sysfs.root / 'block'} does not exist")
        found = []
        for _, device in numbered(self._sysfs.names("block"), "dm-"):
            folder = f"block/{device}"
            name, uuid = self._sysfs.text(f"{folder}/dm/name"), self._sysfs.text(f"{folder}/dm/uuid")
            if name is None or uuid is None or not uuid.startswith(_UUID_PREFIX):
                continue
            suspended = self._sysfs.integer(f"{folder}/dm/suspended") == 1
            slaves = self._sysfs.names(f"{folder}/slaves")
            found.append(KernelMap(name, uuid.removeprefix(_UUID_PREFIX), device, slaves, suspended))
        return tuple(sorted(found, key=lambda item: item.name))

    def size(self, dm_name: str) -> MapSize:
        """Size of ``dm-0`` in its own logical blocks, and its requests under way."""
        folder = f"block/{dm_name}"
        block_size = self._sysfs.integer(f"{folder}/queue/logical_block_size") or 0
        sectors = self._counts(f"{folder}/size", 1)
        blocks = sectors * SECTOR // block_size if block_size > 0 else 0
        return MapSize(blocks, max(0, block_size), self._counts(f"{folder}/inflight", 2))

    def device_state(self, device: str) -> DeviceState | None:
        """The SCSI device's state; None when there is none, or a state that has no name here."""
        word = self._sysfs.text(f"block/{device}/device/state")
        return next((state for state in DeviceState if state.value == word), None)

    def hctl(self, device: str) -> str:
        """``host:channel:target:lun`` of a SCSI disk, else empty."""
        try:
            name = (self._sysfs.root / "block" / device / "device").resolve(strict=True).name
        except OSError:
            return ""
        return name if _HCTL.fullmatch(name) else ""

    def _counts(self, path: str, expected: int) -> int:
        """The sum of the ``expected`` numbers in an attribute, or 0 for anything else."""
        words = (self._sysfs.text(path) or "").split()
        good = len(words) == expected and all(_COUNT.fullmatch(word) for word in words)
        return sum(map(int, words)) if good else 0
