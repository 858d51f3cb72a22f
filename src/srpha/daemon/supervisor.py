"""The host's supervisor: keeps every local port connected to every target that the rules allow."""

from __future__ import annotations

from collections.abc import Sequence

from srpha.core.events import EventSink
from srpha.core.seams import Initiator, MadPort, PathManager
from srpha.daemon.settings import Settings
from srpha.daemon.snapshot import Snapshot


class Supervisor:
    """Joins discovery, initiator and path manager of one host. ``path_manager`` None: no multipath is looked at."""

    def __init__(
        self,
        mad_ports: Sequence[MadPort],
        initiator: Initiator,
        path_manager: PathManager | None,
        settings: Settings,
        events: EventSink,
    ) -> None:
        raise NotImplementedError

    async def run(self) -> None:
        """Work until cancelled. Connections stay when it ends."""
        raise NotImplementedError

    def snapshot(self) -> Snapshot:
        """The state now; cheap, at any time."""
        raise NotImplementedError

    def rescan(self) -> None:
        """Ask for a full scan soon."""
        raise NotImplementedError

    def apply(self, settings: Settings) -> None:
        """Take other settings from now on; what is connected stays."""
        raise NotImplementedError
