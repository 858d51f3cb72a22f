"""Unit attention conditions (SAM-5 5.14): what has happened to a unit since this initiator last asked."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Attention(Enum):
    """Conditions as (additional sense code, qualifier), SPC-4 annex F. Members of code 0x29 tell of a reset."""

    POWER_ON = (0x29, 0x01)
    TARGET_RESET = (0x29, 0x02)
    UNIT_RESET = (0x29, 0x03)
    """BUS DEVICE RESET FUNCTION OCCURRED: a logical unit reset."""
    NEXUS_LOSS = (0x29, 0x07)
    MODE_PARAMETERS_CHANGED = (0x2A, 0x01)
    ACCESS_STATE_CHANGED = (0x2A, 0x06)
    CAPACITY_CHANGED = (0x2A, 0x09)
    COMMANDS_CLEARED = (0x2F, 0x00)
    """COMMANDS CLEARED BY ANOTHER INITIATOR."""
    INQUIRY_CHANGED = (0x3F, 0x03)
    LUNS_CHANGED = (0x3F, 0x0E)
    """REPORTED LUNS DATA HAS CHANGED."""

    @property
    def is_reset(self) -> bool:
        return self.value[0] == 0x29


class ScsiNexus:
    """An I_T nexus as the units see it: who it is, through which controller, and what it has not yet been told."""

    __slots__ = ("controller", "initiator_port_id", "pending")

    def __init__(self, initiator_port_id: bytes, controller: int) -> None:
        self.initiator_port_id = initiator_port_id
        self.controller = controller
        """Index of the IOC (target port) in the target's spec."""
        self.pending: dict[int, list[Attention]] = {}
        """Conditions by LUN in the order they are reported; no empty lists, so that nothing pending is falsy."""

    def establish(self, lun: int, attention: Attention) -> None:
        """Add a condition unless it is pending already; a reset outdates everything before it (SAM-5 5.14.1)."""
        queue = self.pending.setdefault(lun, [])
        if attention.is_reset:
            queue[:] = [attention]
        elif attention not in queue:
            queue.append(attention)

    def establish_all(self, luns: Iterable[int], attention: Attention) -> None:
        for lun in luns:
            self.establish(lun, attention)

    def take(self, lun: int) -> Attention | None:
        """The next condition of ``lun``, which is thereby reported and gone."""
        queue = self.pending.get(lun)
        if queue is None:
            return None
        attention = queue.pop(0)
        if not queue:
            del self.pending[lun]
        return attention

    def peek(self, lun: int) -> Attention | None:
        queue = self.pending.get(lun)
        return queue[0] if queue else None

    def withdraw(self, attention: Attention) -> None:
        """Forget a condition on every unit: REPORT LUNS tells what LUNS_CHANGED was about (SPC-4 6.33)."""
        for lun in list(self.pending):
            queue = [kept for kept in self.pending[lun] if kept is not attention]
            if queue:
                self.pending[lun] = queue
            else:
                del self.pending[lun]

    def forget(self, lun: int) -> None:
        """The unit is gone."""
        self.pending.pop(lun, None)
