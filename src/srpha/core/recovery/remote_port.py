"""SRP remote ports: their states and timers as scsi_transport_srp has them (facts: srp C.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from srpha.core.recovery.error_recovery import RecoveryMode

FAST_IO_FAIL_MAX: Final = 600
"""SCSI_DEVICE_BLOCK_MAX_TIMEOUT: no device stays blocked for longer, in seconds."""

_BACK_OFF_AFTER: Final = 10
"""Failed reconnects after which the delay begins to grow."""
_BACK_OFF_MAX: Final = 100
"""The delay's largest multiple."""


class RemotePortState(Enum):
    """States of a remote port, in the kernel's words."""

    RUNNING = "running"
    BLOCKED = "blocked"
    FAIL_FAST = "fail-fast"
    LOST = "lost"


class InvalidTimersError(ValueError):
    """A combination of timers that the kernel refuses with EINVAL; the message says which rule is broken."""


@dataclass(frozen=True, slots=True)
class RemotePortTimers:
    """The three timers of a remote port in seconds; None is the kernel's ``off``. Checked when made."""

    reconnect_delay: int | None = 10
    fast_io_fail_tmo: int | None = 15
    dev_loss_tmo: int | None = 600

    def __post_init__(self) -> None:
        reconnect, fast, loss = self.reconnect_delay, self.fast_io_fail_tmo, self.dev_loss_tmo
        for name in ("reconnect_delay", "fast_io_fail_tmo", "dev_loss_tmo"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InvalidTimersError(f"{name} is {value}; give seconds, or off")
        if reconnect == 0:
            raise InvalidTimersError("reconnect_delay is 0; give at least 1 s, or off")
        if reconnect is None and fast is None and loss is None:
            raise InvalidTimersError("reconnect_delay, fast_io_fail_tmo and dev_loss_tmo are all off; set at least one")
        if fast is not None and fast > FAST_IO_FAIL_MAX:
            raise InvalidTimersError(f"fast_io_fail_tmo is {fast}; at most {FAST_IO_FAIL_MAX} s is allowed")
        if fast is None and loss is not None and loss > FAST_IO_FAIL_MAX:
            raise InvalidTimersError(f"dev_loss_tmo is {loss} while fast_io_fail_tmo is off; at most 600 s then")
        if fast is not None and loss is not None and fast >= loss:
            raise InvalidTimersError(f"fast_io_fail_tmo {fast} must be smaller than dev_loss_tmo {loss}")


class RemotePortEvent(Enum):
    """What can happen to a remote port."""

    TRANSPORT_ERROR = "transport-error"
    """The QP failed or a DREQ came, and a fail timer is set."""
    TRANSPORT_ERROR_UNTIMED = "transport-error-untimed"
    """Likewise with fast_io_fail_tmo and dev_loss_tmo both off."""
    HOST_RESET = "host-reset"
    """Error recovery asks for a reconnect."""
    RECONNECT_DUE = "reconnect-due"
    RECONNECTED = "reconnected"
    RECONNECT_FAILED = "reconnect-failed"
    FAST_IO_FAIL = "fast-io-fail"
    DEV_LOSS = "dev-loss"
    DELETE = "delete"


class RemotePortEffect(Enum):
    """What the owner of the remote port must do, in the order given."""

    BLOCK = "block"
    """Devices hold what is submitted; outstanding commands stay where they are."""
    UNBLOCK = "unblock"
    """Devices run again, also those that error recovery had taken offline."""
    FAIL_IO = "fail-io"
    """Devices go transport-offline: held and outstanding commands complete DID_TRANSPORT_FAILFAST, new ones at once."""
    RECONNECT = "reconnect"
    """Start a reconnect; its end is told by ``reconnected`` or ``reconnect_failed``."""
    CANCEL_RECONNECT = "cancel-reconnect"
    """Stop the reconnect that runs; its end must not be told any more."""
    REMOVE_HOST = "remove-host"
    """Remove the scsi_host: all its commands complete DID_NO_CONNECT."""


class IllegalRemotePortEventError(RuntimeError):
    """An event that cannot happen in this state; nothing has changed."""


class _Timer(Enum):
    """What the table does to the timers besides its effects."""

    ARM_RECONNECT = "arm reconnect"
    ARM_FAST_IO_FAIL = "arm fast_io_fail"
    ARM_DEV_LOSS = "arm dev_loss"
    CANCEL_ALL = "cancel all timers"


_S: Final = RemotePortState
_E: Final = RemotePortEvent
_F: Final = RemotePortEffect
_T: Final = _Timer
_Row: TypeAlias = tuple[RemotePortState, tuple[RemotePortEffect | _Timer, ...]]

_LOSE: Final[_Row] = (_S.LOST, (_T.CANCEL_ALL, _F.CANCEL_RECONNECT, _F.REMOVE_HOST))
_RECOVER: Final[_Row] = (_S.RUNNING, (_T.CANCEL_ALL, _F.UNBLOCK))
_STAY_LOST: Final[Mapping[RemotePortEvent, _Row]] = dict.fromkeys(
    (_E.TRANSPORT_ERROR, _E.TRANSPORT_ERROR_UNTIMED, _E.HOST_RESET, _E.DELETE), (_S.LOST, ())
)

_KERNEL: Final[Mapping[RemotePortState, Mapping[RemotePortEvent, _Row]]] = {
    _S.RUNNING: {
        _E.TRANSPORT_ERROR: (_S.BLOCKED, (_F.BLOCK, _T.ARM_RECONNECT, _T.ARM_FAST_IO_FAIL, _T.ARM_DEV_LOSS)),
        _E.TRANSPORT_ERROR_UNTIMED: (_S.RUNNING, (_F.BLOCK, _T.ARM_RECONNECT)),
        _E.HOST_RESET: (_S.RUNNING, (_F.BLOCK, _F.RECONNECT)),
        _E.RECONNECT_DUE: (_S.RUNNING, (_F.RECONNECT,)),
        _E.RECONNECTED: _RECOVER,
        _E.RECONNECT_FAILED: (_S.FAIL_FAST, (_F.FAIL_IO, _T.ARM_RECONNECT, _T.ARM_DEV_LOSS)),
        _E.DELETE: _LOSE,
    },
    _S.BLOCKED: {
        _E.TRANSPORT_ERROR: (_S.BLOCKED, ()),
        _E.TRANSPORT_ERROR_UNTIMED: (_S.BLOCKED, ()),
        _E.HOST_RESET: (_S.BLOCKED, (_F.RECONNECT,)),
        _E.RECONNECT_DUE: (_S.BLOCKED, (_F.RECONNECT,)),
        _E.RECONNECTED: _RECOVER,
        _E.RECONNECT_FAILED: (_S.BLOCKED, (_T.ARM_RECONNECT,)),
        _E.FAST_IO_FAIL: (_S.FAIL_FAST, (_F.FAIL_IO,)),
        _E.DEV_LOSS: _LOSE,
        _E.DELETE: _LOSE,
    },
    _S.FAIL_FAST: {
        _E.TRANSPORT_ERROR: (_S.FAIL_FAST, ()),
        _E.TRANSPORT_ERROR_UNTIMED: (_S.FAIL_FAST, ()),
        _E.HOST_RESET: (_S.FAIL_FAST, (_F.RECONNECT,)),
        _E.RECONNECT_DUE: (_S.FAIL_FAST, (_F.RECONNECT,)),
        _E.RECONNECTED: _RECOVER,
        _E.RECONNECT_FAILED: (_S.FAIL_FAST, (_T.ARM_RECONNECT,)),
        _E.DEV_LOSS: _LOSE,
        _E.DELETE: _LOSE,
    },
    _S.LOST: _STAY_LOST,
}

_OFED: Final[Mapping[RemotePortState, Mapping[RemotePortEvent, _Row]]] = {
    _S.RUNNING: {
        _E.TRANSPORT_ERROR: (_S.BLOCKED, (_F.BLOCK, _F.RECONNECT)),
        _E.TRANSPORT_ERROR_UNTIMED: (_S.BLOCKED, (_F.BLOCK, _F.RECONNECT)),
        _E.HOST_RESET: (_S.BLOCKED, (_F.BLOCK, _F.RECONNECT)),
        _E.DELETE: _LOSE,
    },
    _S.BLOCKED: {
        _E.TRANSPORT_ERROR: (_S.BLOCKED, ()),
        _E.TRANSPORT_ERROR_UNTIMED: (_S.BLOCKED, ()),
        _E.HOST_RESET: (_S.BLOCKED, ()),
        _E.RECONNECTED: _RECOVER,
        _E.RECONNECT_FAILED: _LOSE,
        _E.DELETE: _LOSE,
    },
    _S.FAIL_FAST: {},
    _S.LOST: _STAY_LOST,
}

_TABLES: Final = {RecoveryMode.KERNEL: _KERNEL, RecoveryMode.OFED: _OFED}


class RemotePort:
    """State, timers and reconnect back-off of one remote port. ``now`` is seconds of any one clock.

    Every event returns the effects to carry out, in order. An event that the table does not have raises
    :class:`IllegalRemotePortEventError` and changes nothing. The owner calls :meth:`expire` at :attr:`deadline`.

    In one point this is quicker than the kernel, whose timers wait for the mutex that a reconnect holds: here
    ``fast_io_fail_tmo`` and ``dev_loss_tmo`` act on time while a reconnect runs.
    """

    __slots__ = ("_dev_loss_at", "_failed_reconnects", "_fast_io_fail_at", "_mode", "_reconnect_at", "_reconnecting",
                 "_state", "_table", "_timers")  # fmt: skip

    def __init__(self, mode: RecoveryMode, timers: RemotePortTimers) -> None:
        self._mode = mode
        self._table = _TABLES[mode]
        self._timers = timers
        self._state = RemotePortState.RUNNING
        self._failed_reconnects = 0
        self._reconnecting = False
        self._reconnect_at: float | None = None
        self._fast_io_fail_at: float | None = None
        self._dev_loss_at: float | None = None

    @property
    def state(self) -> RemotePortState:
        """The state as ``/sys/class/srp_remote_ports/*/state`` shows it."""
        return self._state

    @property
    def timers(self) -> RemotePortTimers:
        """The timers as set last."""
        return self._timers

    @property
    def failed_reconnects(self) -> int:
        """Reconnects that failed since the port ran last."""
        return self._failed_reconnects

    @property
    def reconnecting(self) -> bool:
        """A reconnect was asked for and has not ended."""
        return self._reconnecting

    @property
    def deadline(self) -> float | None:
        """When the next timer is due; None when none is armed."""
        armed = [at for at in (self._reconnect_at, self._fast_io_fail_at, self._dev_loss_at) if at is not None]
        return min(armed) if armed else None

    def transport_error(self, now: float) -> tuple[RemotePortEffect, ...]:
        """The QP failed or the target disconnected. Told again, it changes nothing."""
        timed = self._timers.fast_io_fail_tmo is not None or self._timers.dev_loss_tmo is not None
        return self._apply(_E.TRANSPORT_ERROR if timed else _E.TRANSPORT_ERROR_UNTIMED, now)

    def host_reset(self, now: float) -> tuple[RemotePortEffect, ...]:
        """Error recovery wants a reconnect; one that runs already serves it."""
        return self._apply(_E.HOST_RESET, now)

    def reconnected(self, now: float) -> tuple[RemotePortEffect, ...]:
        """The reconnect succeeded on every channel."""
        return self._apply(_E.RECONNECTED, now)

    def reconnect_failed(self, now: float) -> tuple[RemotePortEffect, ...]:
        """The reconnect failed; the next try is ``reconnect_delay`` x min(100, max(1, failures - 10)) from now."""
        return self._apply(_E.RECONNECT_FAILED, now)

    def delete(self, now: float) -> tuple[RemotePortEffect, ...]:
        """``delete`` was written, or the host is to go for another reason. The second time changes nothing."""
        return self._apply(_E.DELETE, now)

    def expire(self, now: float) -> tuple[RemotePortEffect, ...]:
        """Fire the timers that are due, the severest first: what makes another pointless goes before it."""
        effects: tuple[RemotePortEffect, ...] = ()
        if self._dev_loss_at is not None and now >= self._dev_loss_at:
            return self._apply(_E.DEV_LOSS, now)
        if self._fast_io_fail_at is not None and now >= self._fast_io_fail_at:
            effects += self._apply(_E.FAST_IO_FAIL, now)
            self._fast_io_fail_at = None
        if self._reconnect_at is not None and now >= self._reconnect_at:
            effects += self._apply(_E.RECONNECT_DUE, now)
        return effects

    def set_timers(self, timers: RemotePortTimers, now: float) -> None:
        """Set the timers as a write to sysfs does.

        ``reconnect_delay`` switched on arms the reconnect and switched off disarms it at once. An armed fail timer
        keeps its time; its new value counts from the next transport error.
        """
        before, self._timers = self._timers, timers
        waiting = self._reconnect_at is not None
        if timers.reconnect_delay is None:
            self._reconnect_at = None
            if waiting and self._state is RemotePortState.RUNNING:
                # Broken with no fail timer set, and now nothing would mend it: the new fail timers take over.
                self.transport_error(now)
        elif before.reconnect_delay is None and self._state in (RemotePortState.BLOCKED, RemotePortState.FAIL_FAST):
            self._arm_reconnect(now)

    def _apply(self, event: RemotePortEvent, now: float) -> tuple[RemotePortEffect, ...]:
        row = self._table[self._state].get(event)
        ends = event in (_E.RECONNECTED, _E.RECONNECT_FAILED)
        if row is None or (ends and not self._reconnecting):
            raise IllegalRemotePortEventError(f"{event.value} while {self._state.value} in {self._mode.value} mode")
        if ends:
            self._reconnecting = False
            self._failed_reconnects = 0 if event is _E.RECONNECTED else self._failed_reconnects + 1
        self._state, steps = row
        effects: list[RemotePortEffect] = []
        for step in steps:
            if isinstance(step, RemotePortEffect):
                if self._wanted(step):
                    effects.append(step)
            else:
                self._set_timer(step, now)
        return tuple(effects)

    def _wanted(self, effect: RemotePortEffect) -> bool:
        """Keep one reconnect at a time, and note its beginning and end."""
        if effect is _F.RECONNECT:
            started = not self._reconnecting
            self._reconnecting = True
            self._reconnect_at = None
            return started
        if effect is _F.CANCEL_RECONNECT:
            running, self._reconnecting = self._reconnecting, False
            return running
        return True

    def _set_timer(self, timer: _Timer, now: float) -> None:
        fast, loss = self._timers.fast_io_fail_tmo, self._timers.dev_loss_tmo
        match timer:
            case _T.ARM_RECONNECT:
                self._arm_reconnect(now)
            case _T.ARM_FAST_IO_FAIL:
                self._fast_io_fail_at = None if fast is None else now + fast
            case _T.ARM_DEV_LOSS:
                self._dev_loss_at = None if loss is None else now + loss
            case _T.CANCEL_ALL:
                self._reconnect_at = self._fast_io_fail_at = self._dev_loss_at = None

    def _arm_reconnect(self, now: float) -> None:
        """Arm the reconnect timer, unless one runs (its failure arms the timer) or reconnects are off."""
        delay = self._timers.reconnect_delay
        if delay is not None and not self._reconnecting:
            self._reconnect_at = now + delay * min(_BACK_OFF_MAX, max(1, self._failed_reconnects - _BACK_OFF_AFTER))
