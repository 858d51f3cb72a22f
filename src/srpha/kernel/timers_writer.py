"""Writes a remote port's timers so that every single write is valid for the kernel (facts: srp C.4)."""

from __future__ import annotations

from srpha.core.recovery.remote_port import InvalidTimersError, RemotePortTimers
from srpha.core.recovery.timer_order import TimerAttribute, TimerValues, plan_timer_writes
from srpha.core.seams import InitiatorError
from srpha.kernel.sysfs import AttributeGoneError, Sysfs, parse_integer

REMOTE_PORTS = "class/srp_remote_ports"


def read_timer(sysfs: Sysfs, remote_port: str, attribute: TimerAttribute) -> tuple[bool, int | None]:
    """Whether the timer is known, and its seconds or None for ``off``."""
    text = sysfs.text(f"{REMOTE_PORTS}/{remote_port}/{attribute.value}")
    if text == "off":
        return True, None
    number = parse_integer(text)
    if number is None:
        return False, None
    return True, number if number >= 0 else None


def read_timers(sysfs: Sysfs, remote_port: str) -> TimerValues | None:
    """All three as the kernel shows them; None when one of them is not known."""
    reconnect, fast, loss = (read_timer(sysfs, remote_port, attribute) for attribute in TimerAttribute)
    if not (reconnect[0] and fast[0] and loss[0]):
        return None
    return reconnect[1], fast[1], loss[1]


def write_timers(sysfs: Sysfs, remote_port: str, timers: RemotePortTimers) -> None:
    """Set the timers; blocks. Raises :class:`InitiatorError`; the timers are then a valid mixture of old and new."""
    present = read_timers(sysfs, remote_port)
    if present is None:
        raise InitiatorError(f"{remote_port}: its present timers could not be read, so none was written")
    try:
        writes = plan_timer_writes(present, timers)
    except InvalidTimersError as error:
        raise InitiatorError(f"{remote_port}: {error}") from error
    for write in writes:
        what = f"{remote_port}: {write.attribute.value} could not be set to {write.text}"
        try:
            sysfs.write(f"{REMOTE_PORTS}/{remote_port}/{write.attribute.value}", write.text)
        except AttributeGoneError as error:
            raise InitiatorError(f"{what}: the remote port is gone") from error
        except OSError as error:
            raise InitiatorError(f"{what}: {error.strerror or error}") from error
    if writes and read_timers(sysfs, remote_port) != (
        timers.reconnect_delay,
        timers.fast_io_fail_tmo,
        timers.dev_loss_tmo,
    ):
        raise InitiatorError(f"{remote_port}: the timers do not read back as they were written; someone else sets them")
