"""Logical units of a host: the queue in front of each, and the SCSI disk that multipath sees."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from srpha.core.hints import Hints
from srpha.core.scsi_io import Nexus, ScsiCommand, UnitIdentity
from srpha.core.seams import DeviceState, Unwatch
from srpha.embedded.initiator.request import Request

if TYPE_CHECKING:
    from srpha.embedded.initiator.host import ScsiHost


class UnitQueue:
    """Commands for one logical unit of a host, in order of submission.

    A command goes straight to a channel when there is room for it; else it waits here, also while the host is blocked
    or the unit is being reset.
    """

    __slots__ = ("_host", "active", "held", "limit", "lun", "lun_field", "waiting")

    def __init__(self, host: ScsiHost, lun: int, lun_field: int, limit: int) -> None:
        self._host = host
        self.lun = lun
        self.lun_field = lun_field
        """The 8-byte LUN field as an integer."""
        self.limit = limit
        """``max_cmd_per_lun``: most commands outstanding."""
        self.active = 0
        """Commands outstanding on channels."""
        self.held = False
        """A LUN reset is under way: nothing is sent."""
        self.waiting: deque[Request] = deque()

    @property
    def host(self) -> ScsiHost:
        """The scsi_host this unit hangs on."""
        return self._host

    def submit(self, command: ScsiCommand) -> None:
        """Take the command; ``command.done`` is called exactly once, later (never from inside ``submit``)."""
        host = self._host
        request = Request(self, command, host.clock() + command.timeout)
        if self.waiting or self.held or self.active >= self.limit or len(command.cdb) > 16:
            host.defer(request)
            return
        for channel in host.open_channels:
            if channel.has_credit:
                self.active += 1
                channel.transmit(request)
                if request.deadline < host.next_sweep:
                    host.sweep_by(request.deadline)
                return
        host.defer(request)


class ScsiDisk(UnitQueue):
    """A SCSI disk of the embedded initiator; implements :class:`srpha.core.scsi_io.ScsiDevice`."""

    __slots__ = ("_dev_t", "_hctl", "_hints", "_identity", "_name", "_state", "trusted")

    def __init__(
        self, host: ScsiHost, lun: int, lun_field: int, limit: int, *, name: str, dev_t: str, identity: UnitIdentity
    ) -> None:
        super().__init__(host, lun, lun_field, limit)
        self._name = name
        self._dev_t = dev_t
        self._hctl = f"{host.number}:0:0:{lun}"
        self._identity = identity
        self._state = DeviceState.RUNNING
        self._hints = Hints()
        self.trusted = True
        """The last login's look at the unit succeeded."""

    @property
    def name(self) -> str:
        """``sda``; used again after the disk is gone."""
        return self._name

    @property
    def dev_t(self) -> str:
        """``major:minor``."""
        return self._dev_t

    @property
    def hctl(self) -> str:
        """``host:channel:target:lun``."""
        return self._hctl

    @property
    def state(self) -> DeviceState:
        """What the host's remote port, or error recovery, makes of the disk."""
        return self._state

    @property
    def identity(self) -> UnitIdentity:
        """What the unit said of itself at the last login."""
        return self._identity

    @property
    def nexus(self) -> Nexus:
        """The I_T nexus that the disk's commands use."""
        return self._host.nexus

    def submit(self, command: ScsiCommand) -> None:
        """As :meth:`UnitQueue.submit`; a disk that error recovery took offline refuses at once."""
        if self._state is DeviceState.OFFLINE:
            self._host.refuse(command)
            return
        super().submit(command)

    def watch_state(self, hint: Callable[[], None]) -> Unwatch:
        """Hear, at once and from inside the change, that ``state`` or ``identity`` has changed."""
        return self._hints.add(hint)

    def set_state(self, state: DeviceState) -> None:
        """For the host only: change the state and tell who listens."""
        if state is not self._state:
            self._state = state
            self._hints.ring()

    def set_identity(self, identity: UnitIdentity) -> None:
        """For the host only: what a scan found."""
        if identity != self._identity:
            self._identity = identity
            self._hints.ring()
