"""What a completed command means: done, the target's answer for the caller, a retry, or the path's fault.

The decisions are those of the SCSI midlayer (scsi_decide_disposition, scsi_check_sense, scsi_io_completion) followed by
dm-multipath's blk_path_error() (facts: multipath 7.1, 7.2) for commands sent with REQ_FAILFAST_TRANSPORT, with one
change: a disrupted transport is a path error at once, since waiting for it helps nobody who has another path.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import Enum, Flag, auto
from typing import Final

from srpha.wire.errors import DecodeError
from srpha.wire.scsi.sense import Sense, SenseKey, decode_sense
from srpha.wire.scsi.status import HostByte, ScsiStatus


class BlockStatus(Enum):
    """The block layer's completion statuses: its word, its errno, and whether the path is to blame (blk_path_error)."""

    OK = "ok", 0, False
    NOTSUPP = "operation not supported", errno.EOPNOTSUPP, False
    NOSPC = "critical space allocation", errno.ENOSPC, False
    TARGET = "critical target", errno.EREMOTEIO, False
    RESV_CONFLICT = "reservation conflict", errno.EBADE, False
    MEDIUM = "critical medium", errno.ENODATA, False
    PROTECTION = "protection", errno.EILSEQ, False
    IOERR = "I/O", errno.EIO, True
    TRANSPORT = "recoverable transport", errno.ENOLINK, True
    TIMEOUT = "timeout", errno.ETIMEDOUT, True
    OFFLINE = "device offline", errno.ENODEV, True

    def __init__(self, text: str, number: int, path_error: bool) -> None:
        self.text = text
        self.errno = number
        self.path_error = path_error


class Disposition(Enum):
    """What to do with the command."""

    COMPLETE = "complete"
    DELIVER_ERROR = "deliver error"
    """Up to the caller; the path stays good."""
    PATH_ERROR = "path error"
    """Fail the path and go on through another one."""
    RETRY = "retry"
    """Again on the same path, counted; when the retries are used up the status decides between caller and path."""
    RETRY_UNCOUNTED = "retry uncounted"
    RETRY_DELAYED = "retry delayed"
    """Again after a pause: the unit is becoming ready."""
    REQUEUE = "requeue"
    """Again after a short pause: the unit is busy."""


class SideEffect(Flag):
    """What a unit attention tells besides."""

    NONE = 0
    CAPACITY_CHANGED = auto()
    LUNS_CHANGED = auto()
    INQUIRY_CHANGED = auto()
    ACCESS_STATE_CHANGED = auto()
    RESET = auto()
    SPACE_LOW = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """``status`` is what the command fails with, now or once its retries are used up."""

    disposition: Disposition
    status: BlockStatus
    effects: SideEffect = SideEffect.NONE
    reason: str = ""


_HOST: Final[dict[HostByte, tuple[Disposition, BlockStatus]]] = {
    HostByte.NO_CONNECT: (Disposition.PATH_ERROR, BlockStatus.IOERR),
    HostByte.BUS_BUSY: (Disposition.PATH_ERROR, BlockStatus.IOERR),
    HostByte.TIME_OUT: (Disposition.PATH_ERROR, BlockStatus.IOERR),
    HostByte.BAD_TARGET: (Disposition.PATH_ERROR, BlockStatus.IOERR),
    HostByte.ABORT: (Disposition.PATH_ERROR, BlockStatus.IOERR),
    HostByte.PARITY: (Disposition.RETRY, BlockStatus.IOERR),
    HostByte.ERROR: (Disposition.RETRY, BlockStatus.IOERR),
    HostByte.RESET: (Disposition.RETRY_UNCOUNTED, BlockStatus.IOERR),
    HostByte.BAD_INTR: (Disposition.PATH_ERROR, BlockStatus.IOERR),
    HostByte.PASSTHROUGH: (Disposition.PATH_ERROR, BlockStatus.IOERR),
    HostByte.SOFT_ERROR: (Disposition.RETRY, BlockStatus.IOERR),
    HostByte.IMM_RETRY: (Disposition.RETRY_UNCOUNTED, BlockStatus.IOERR),
    HostByte.REQUEUE: (Disposition.RETRY_UNCOUNTED, BlockStatus.IOERR),
    HostByte.TRANSPORT_DISRUPTED: (Disposition.PATH_ERROR, BlockStatus.TRANSPORT),
    HostByte.TRANSPORT_FAILFAST: (Disposition.PATH_ERROR, BlockStatus.TRANSPORT),
    HostByte.TRANSPORT_MARGINAL: (Disposition.PATH_ERROR, BlockStatus.TRANSPORT),
    HostByte.TARGET_FAILURE: (Disposition.DELIVER_ERROR, BlockStatus.TARGET),
    HostByte.NEXUS_FAILURE: (Disposition.DELIVER_ERROR, BlockStatus.RESV_CONFLICT),
    HostByte.ALLOC_FAILURE: (Disposition.DELIVER_ERROR, BlockStatus.NOSPC),
    HostByte.MEDIUM_ERROR: (Disposition.DELIVER_ERROR, BlockStatus.MEDIUM),
}

_DELAYED_NOT_READY: Final = frozenset(
    {0x01, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0A, 0x11, 0x14, 0x1A, 0x1B, 0x1D, 0x24}
)
"""ASCQs of 04h that pass by themselves; 0Ah (asymmetric access transition) is asked again after a second too."""

_ATTENTIONS: Final[dict[tuple[int, int], SideEffect]] = {
    (0x2A, 0x01): SideEffect.ACCESS_STATE_CHANGED,
    (0x2A, 0x06): SideEffect.ACCESS_STATE_CHANGED,
    (0x2A, 0x07): SideEffect.ACCESS_STATE_CHANGED,
    (0x2A, 0x09): SideEffect.CAPACITY_CHANGED,
    (0x38, 0x07): SideEffect.SPACE_LOW,
    (0x3F, 0x03): SideEffect.INQUIRY_CHANGED,
    (0x3F, 0x0E): SideEffect.LUNS_CHANGED,
}

_UP: Final = Disposition.DELIVER_ERROR
_DONE: Final = Verdict(Disposition.COMPLETE, BlockStatus.OK)


def classify(host_byte: HostByte, status: ScsiStatus | int, sense: bytes) -> Verdict:
    """Judge a completion by host byte, SCSI status and sense data. What is not known is a path error (IOERR)."""
    if host_byte is not HostByte.OK:
        disposition, result = _HOST.get(host_byte, (Disposition.PATH_ERROR, BlockStatus.IOERR))
        return Verdict(disposition, result, reason=f"host byte {host_byte.name}")
    if status in (ScsiStatus.GOOD, ScsiStatus.CONDITION_MET):
        return _DONE
    if status == ScsiStatus.CHECK_CONDITION:
        try:
            decoded = decode_sense(sense)
        except DecodeError as error:
            # Sense that cannot be read is worth a few tries: the command may have been one that never ran.
            return Verdict(Disposition.RETRY, BlockStatus.IOERR, reason=f"CHECK CONDITION, {error}")
        return classify_sense(decoded)
    if status in (ScsiStatus.BUSY, ScsiStatus.TASK_SET_FULL):
        return Verdict(Disposition.REQUEUE, BlockStatus.IOERR, reason=ScsiStatus(status).name.replace("_", " "))
    if status == ScsiStatus.RESERVATION_CONFLICT:
        return Verdict(_UP, BlockStatus.RESV_CONFLICT, reason="RESERVATION CONFLICT")
    if status == ScsiStatus.TASK_ABORTED:
        return Verdict(Disposition.RETRY, BlockStatus.IOERR, reason="TASK ABORTED")
    return Verdict(Disposition.PATH_ERROR, BlockStatus.IOERR, reason=f"SCSI status {int(status):#04x}")


def classify_sense(sense: Sense) -> Verdict:
    """Judge CHECK CONDITION by its sense data (scsi_check_sense)."""
    effects = _effects(sense)
    disposition, status = _sense_decision(sense)
    return Verdict(disposition, status, effects, str(sense))


def _effects(sense: Sense) -> SideEffect:
    if sense.key != SenseKey.UNIT_ATTENTION:
        return SideEffect.NONE
    if sense.asc == 0x29:
        return SideEffect.RESET
    return _ATTENTIONS.get((sense.asc, sense.ascq), SideEffect.NONE)


def _sense_decision(sense: Sense) -> tuple[Disposition, BlockStatus]:
    if sense.deferred:
        # It tells of an earlier command; this one did not run.
        return Disposition.RETRY, BlockStatus.IOERR
    asc, ascq = sense.asc, sense.ascq
    match sense.key:
        case SenseKey.NO_SENSE | SenseKey.RECOVERED_ERROR | SenseKey.COMPLETED:
            return Disposition.COMPLETE, BlockStatus.OK
        case SenseKey.ABORTED_COMMAND if asc == 0x10:
            return _UP, BlockStatus.PROTECTION
        case SenseKey.ABORTED_COMMAND | SenseKey.UNIT_ATTENTION:
            return Disposition.RETRY, BlockStatus.IOERR
        case SenseKey.NOT_READY if asc == 0x04 and ascq in _DELAYED_NOT_READY:
            return Disposition.RETRY_DELAYED, BlockStatus.IOERR
        case SenseKey.NOT_READY:
            return Disposition.PATH_ERROR, BlockStatus.IOERR
        case SenseKey.MEDIUM_ERROR if asc in (0x11, 0x13, 0x14):
            return _UP, BlockStatus.MEDIUM
        case SenseKey.MEDIUM_ERROR:
            return Disposition.RETRY, BlockStatus.MEDIUM
        case SenseKey.DATA_PROTECT if (asc, ascq) == (0x27, 0x07):
            return _UP, BlockStatus.NOSPC
        case SenseKey.ILLEGAL_REQUEST if asc == 0x10:
            return _UP, BlockStatus.PROTECTION
        case SenseKey.ILLEGAL_REQUEST if asc in (0x20, 0x21, 0x22, 0x24, 0x26, 0x27):
            return _UP, BlockStatus.TARGET
        case (
            SenseKey.HARDWARE_ERROR
            | SenseKey.DATA_PROTECT
            | SenseKey.MISCOMPARE
            | SenseKey.BLANK_CHECK
            | SenseKey.VOLUME_OVERFLOW
            | SenseKey.COPY_ABORTED
        ):
            return _UP, BlockStatus.TARGET
        case _:
            return Disposition.PATH_ERROR, BlockStatus.IOERR
