"""Error recovery of a SCSI host whose commands time out: abort, then LUN reset, then host reset (facts: srp C.5).

:class:`ErrorLadder` decides and nothing else: it hears of timed-out commands and of the answers to task management, and
says which task management function to send next. One function is outstanding at a time, since one credit is kept for it
(facts: srp D, credits). An unanswered abort takes its whole LUN to LUN reset, an unanswered LUN reset the host to host
reset: a silent target costs :data:`TASK_MANAGEMENT_TIMEOUT` per rung, however many commands wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

TASK_MANAGEMENT_TIMEOUT: Final = 5.0
"""Seconds that ib_srp waits for the answer to a task management function."""


class RecoveryMode(Enum):
    """Which ib_srp the initiator behaves like when a transport breaks (facts: srp C.4, C.5)."""

    KERNEL = "kernel"
    """Since 3.13: remote-port states and timers, reconnects in place, the host goes at ``dev_loss_tmo``."""
    OFED = "ofed"
    """OFED up to 2.0: recovery at once; a host reset that fails removes the host and the daemon logs in anew."""


class Rung(Enum):
    """Where the ladder stands."""

    IDLE = "idle"
    ABORT = "abort"
    LUN_RESET = "lun-reset"
    HOST_RESET = "host-reset"


class TaskManagementOutcome(Enum):
    """What became of a task management function."""

    COMPLETE = "complete"
    REFUSED = "refused"
    SILENT = "silent"


class IllegalRecoveryEventError(RuntimeError):
    """An event that cannot happen on this rung; nothing has changed."""


@dataclass(frozen=True, slots=True)
class AbortTask:
    """Send ABORT TASK for the command with ``tag`` on ``lun``."""

    tag: int
    lun: int


@dataclass(frozen=True, slots=True)
class ResetLun:
    """Send LOGICAL UNIT RESET to ``lun``."""

    lun: int


@dataclass(frozen=True, slots=True)
class ResetHost:
    """Reconnect the remote port; commands are finished by that."""


@dataclass(frozen=True, slots=True)
class FinishAborted:
    """The target has confirmed the abort: complete the command, DID_ABORT."""

    tag: int


@dataclass(frozen=True, slots=True)
class FinishLun:
    """The target has confirmed the LUN reset: complete every command of ``lun`` sent before it, DID_RESET."""

    lun: int


RecoveryAction = AbortTask | ResetLun | ResetHost | FinishAborted | FinishLun


class _Next(Enum):
    """What the table says about an outcome on a rung."""

    ABORTED = "command is finished, next abort"
    ABORT_FAILED = "command joins its LUN's reset"
    ABORT_SILENT = "command and its LUN's other aborts join the LUN's reset"
    LUN_DONE = "LUN is finished, next LUN"
    RESET_HOST = "host reset"


_TABLE: Final[dict[tuple[Rung, TaskManagementOutcome], _Next]] = {
    (Rung.ABORT, TaskManagementOutcome.COMPLETE): _Next.ABORTED,
    (Rung.ABORT, TaskManagementOutcome.REFUSED): _Next.ABORT_FAILED,
    (Rung.ABORT, TaskManagementOutcome.SILENT): _Next.ABORT_SILENT,
    (Rung.LUN_RESET, TaskManagementOutcome.COMPLETE): _Next.LUN_DONE,
    (Rung.LUN_RESET, TaskManagementOutcome.REFUSED): _Next.RESET_HOST,
    (Rung.LUN_RESET, TaskManagementOutcome.SILENT): _Next.RESET_HOST,
}


class ErrorLadder:
    """The error recovery of one SCSI host. ``now`` is seconds of any one clock; actions are to be done in order."""

    __slots__ = ("_aborts", "_current", "_deadline", "_moot", "_resets", "_rung")

    def __init__(self) -> None:
        self._rung = Rung.IDLE
        self._aborts: dict[int, int] = {}
        """Tag to LUN of the commands whose abort is to come, in the order of their time-outs."""
        self._resets: dict[int, set[int]] = {}
        """LUNs whose reset is to come, in order, with the tags of the commands that it is for."""
        self._current: AbortTask | ResetLun | None = None
        self._moot = False
        """The command that is being aborted was answered meanwhile."""
        self._deadline: float | None = None

    @property
    def rung(self) -> Rung:
        """Where the ladder stands."""
        return self._rung

    @property
    def deadline(self) -> float | None:
        """When :meth:`expire` is due: the outstanding function is then held to be unanswered."""
        return self._deadline

    def command_timed_out(self, tag: int, lun: int, now: float) -> tuple[RecoveryAction, ...]:
        """A command's time is over. Told again of a command it already deals with, the ladder does nothing."""
        if self._rung is Rung.HOST_RESET or tag in self._aborts:
            return ()
        if lun in self._resets:
            self._resets[lun].add(tag)
            return ()
        match self._current:
            case AbortTask(current, _) if current == tag:
                return ()
            case ResetLun(current) if current == lun:
                return ()
        self._aborts[tag] = lun
        return self._climb(now) if self._rung is Rung.IDLE else ()

    def command_finished(self, tag: int) -> None:
        """The command was answered after all: nothing more is done for its sake. What was sent runs its course."""
        self._aborts.pop(tag, None)
        for lun, tags in tuple(self._resets.items()):
            tags.discard(tag)
            if not tags:
                del self._resets[lun]
        if isinstance(self._current, AbortTask) and self._current.tag == tag:
            self._moot = True

    def task_management_done(self, outcome: TaskManagementOutcome, now: float) -> tuple[RecoveryAction, ...]:
        """The outstanding function was answered (or could not be sent: SILENT).

        Raises :class:`IllegalRecoveryEventError` when none is outstanding.
        """
        verdict = _TABLE.get((self._rung, outcome))
        current = self._current
        if verdict is None or current is None:
            raise IllegalRecoveryEventError(f"{outcome.value} answer to task management on rung {self._rung.value}")
        done: tuple[RecoveryAction, ...] = ()
        match current:
            case AbortTask(tag, lun):
                if self._moot:
                    pass  # The answer, whatever it says, is about a command that is no more.
                elif verdict is _Next.ABORTED:
                    done = (FinishAborted(tag),)
                else:
                    tags = self._resets.setdefault(lun, set())
                    tags.add(tag)
                    if verdict is _Next.ABORT_SILENT:
                        tags.update(other for other, at in self._aborts.items() if at == lun)
                        self._aborts = {other: at for other, at in self._aborts.items() if at != lun}
            case ResetLun(lun):
                if verdict is _Next.RESET_HOST:
                    return self._reset_host()
                done = (FinishLun(lun),)
                self._aborts = {tag: at for tag, at in self._aborts.items() if at != lun}
        return (*done, *self._climb(now))

    def expire(self, now: float) -> tuple[RecoveryAction, ...]:
        """To be called at :attr:`deadline`; earlier it does nothing."""
        if self._deadline is None or now < self._deadline:
            return ()
        return self.task_management_done(TaskManagementOutcome.SILENT, now)

    def transport_finished(self) -> None:
        """The transport broke or was made anew, and every command sent over it is finished: back to idle.

        Task management sent over the old transport is void with it.
        """
        self._rung = Rung.IDLE
        self._aborts.clear()
        self._resets.clear()
        self._current = None
        self._moot = False
        self._deadline = None

    def _climb(self, now: float) -> tuple[RecoveryAction, ...]:
        """Aborts first, in order; then the LUN resets; then idle."""
        self._moot = False
        if self._aborts:
            tag = next(iter(self._aborts))
            self._current = AbortTask(tag, self._aborts.pop(tag))
            self._rung = Rung.ABORT
        elif self._resets:
            lun = next(iter(self._resets))
            del self._resets[lun]
            self._current = ResetLun(lun)
            self._rung = Rung.LUN_RESET
        else:
            self.transport_finished()
            return ()
        self._deadline = now + TASK_MANAGEMENT_TIMEOUT
        return (self._current,)

    def _reset_host(self) -> tuple[RecoveryAction, ...]:
        self.transport_finished()
        self._rung = Rung.HOST_RESET
        return (ResetHost(),)
