"""The path checker's judgement: TEST UNIT READY answers, polling with back-off, and whether a path is still the same.

Rules of multipathd's ``tur`` checker and of its polling (facts: multipath 1.6), and the check that a returning path
leads to the same logical unit (facts: multipath 7.4).
"""

from __future__ import annotations

from typing import Final

from srpha.core.scsi_io import UnitIdentity
from srpha.core.seams import CheckerState, DeviceState
from srpha.wire.errors import DecodeError
from srpha.wire.scsi.sense import Asc, Sense, SenseKey, decode_sense
from srpha.wire.scsi.status import HostByte, ScsiStatus

TUR_RETRIES: Final = 5
"""Further TEST UNIT READY commands after unit attentions and passing host errors."""

_FINAL_HOST_BYTES: Final = frozenset(
    {HostByte.NO_CONNECT, HostByte.BAD_TARGET, HostByte.ABORT, HostByte.TRANSPORT_FAILFAST}
)
USABLE: Final = frozenset({CheckerState.READY, CheckerState.GHOST})
"""States in which a path may carry I/O."""


def judge_tur(host_byte: HostByte, status: ScsiStatus | int, sense: bytes, tries: int) -> CheckerState | None:
    """State of a path after its ``tries``-th TEST UNIT READY (from 1); None asks for another one."""
    again = tries <= TUR_RETRIES
    if host_byte is not HostByte.OK:
        return None if again and host_byte not in _FINAL_HOST_BYTES else CheckerState.FAULTY
    if status in (ScsiStatus.GOOD, ScsiStatus.CONDITION_MET, ScsiStatus.RESERVATION_CONFLICT):
        return CheckerState.READY
    if status != ScsiStatus.CHECK_CONDITION:
        return CheckerState.FAULTY
    try:
        decoded = decode_sense(sense)
    except DecodeError:
        return CheckerState.FAULTY
    return _judge_sense(decoded, again)


def _judge_sense(sense: Sense, again: bool) -> CheckerState | None:
    if sense.key == SenseKey.UNIT_ATTENTION:
        return None if again else CheckerState.FAULTY
    if sense.key in (SenseKey.NO_SENSE, SenseKey.RECOVERED_ERROR):
        return CheckerState.READY
    if sense.key == SenseKey.NOT_READY and sense.matches(Asc.ALUA_STANDBY):
        return CheckerState.GHOST
    if sense.key == SenseKey.NOT_READY and sense.matches(Asc.ALUA_TRANSITION):
        return CheckerState.PENDING
    return CheckerState.FAULTY


def judge_device(state: DeviceState) -> CheckerState | None:
    """State of a path whose device says that it cannot be asked; None when it can."""
    if state is DeviceState.RUNNING:
        return None
    return CheckerState.PENDING if state is DeviceState.BLOCKED else CheckerState.FAULTY


def next_interval(interval: float, changed: bool, good: bool, shortest: float, longest: float) -> float:
    """Seconds to the next check: doubled up to ``longest`` while a path stays good, else ``shortest``."""
    return min(2 * interval, longest) if good and not changed else shortest


def difference(known: UnitIdentity, found: UnitIdentity) -> str | None:
    """Why a unit that says ``found`` is not the ``known`` one, or not fit to stand in for it; None when it is.

    A larger capacity counts as different here: the map's owner decides about growth.
    """
    if found.wwid != known.wwid:
        return f"WWID is {found.wwid}, not {known.wwid}"
    if found.block_size != known.block_size:
        return f"block size is {found.block_size}, not {known.block_size}"
    if found.blocks != known.blocks:
        return f"capacity is {found.blocks} blocks, not {known.blocks}"
    if found.write_protected != known.write_protected:
        return "it is write-protected" if found.write_protected else "it is not write-protected, the map is"
    return None
