"""The embedded path manager: maps out of SCSI devices, checkers, fences and events as hints."""

from __future__ import annotations

from collections.abc import Callable

from srpha.core.fencing import Fencer
from srpha.core.scsi_io import DeviceSource
from srpha.core.seams import MapInfo, Unwatch
from srpha.embedded.multipath.device import MultipathDevice
from srpha.embedded.multipath.settings import MultipathSettings


class EmbeddedPathManager:
    """Implements :class:`srpha.core.seams.PathManager` for the devices of an embedded initiator."""

    def __init__(self, source: DeviceSource, fencer: Fencer, settings: MultipathSettings) -> None:
        raise NotImplementedError

    async def run(self) -> None:
        """Take up the source's devices, check paths and fence nexuses until cancelled."""
        raise NotImplementedError

    def devices(self) -> tuple[MultipathDevice, ...]:
        """All maps in the order they appeared."""
        raise NotImplementedError

    def device(self, name: str) -> MultipathDevice:
        """The map called ``name`` (``mpatha`` or ``dm-0``) or with that WWID; KeyError when there is none."""
        raise NotImplementedError

    async def maps(self) -> tuple[MapInfo, ...]:
        raise NotImplementedError

    async def fail_path(self, device: str) -> None:
        raise NotImplementedError

    async def reinstate_path(self, device: str) -> None:
        raise NotImplementedError

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        raise NotImplementedError

    def table_line(self, name: str) -> str:
        """dm-multipath's table line of a map, as ``dmsetup table`` prints it (without the blank at its end)."""
        raise NotImplementedError

    def status_line(self, name: str) -> str:
        """dm-multipath's status line of a map, as ``dmsetup status`` prints it (without the blank at its end)."""
        raise NotImplementedError
