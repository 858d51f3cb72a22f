"""One SCSI command on its way through the initiator: from a logical unit's queue over a channel to its completion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srpha.core.scsi_io import ScsiCommand
from srpha.embedded.rdma.memory import MemoryRegion

if TYPE_CHECKING:
    from srpha.embedded.initiator.device import UnitQueue


class Request:
    """A command, where it came from and what it holds. It is in exactly one place: a queue, a channel, or done."""

    __slots__ = ("command", "deadline", "expired", "region", "tag", "unit")

    def __init__(self, unit: UnitQueue, command: ScsiCommand, deadline: float) -> None:
        self.unit = unit
        self.command = command
        self.deadline = deadline
        """Loop time at which the command's time-out is over."""
        self.expired = False
        """Error recovery has been told of the time-out."""
        self.region: MemoryRegion | None = None
        """Memory the target may reach, until completion."""
        self.tag = 0
        """SRP tag, given when it is sent; never used again by this host."""
