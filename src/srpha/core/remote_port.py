"""SRP remote ports: their states and timers as scsi_transport_srp has them (facts: srp C.4)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

FAST_IO_FAIL_MAX: Final = 600
"""SCSI_DEVICE_BLOCK_MAX_TIMEOUT: no device stays blocked for longer, in seconds."""


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
