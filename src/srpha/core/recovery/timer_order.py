"""In which order a remote port's timers must be written so that the kernel takes every single write.

The kernel checks the combination that each write would leave behind (facts: srp C.4), so that going from one valid
combination to another may need a certain order, and sometimes a value in between.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from srpha.core.recovery.remote_port import FAST_IO_FAIL_MAX, InvalidTimersError, RemotePortTimers

TIMER_MAX: Final = (1 << 31) - 1
"""The kernel reads the timers as ``int``."""


class TimerAttribute(Enum):
    """The attributes of a remote port, by their names in sysfs."""

    RECONNECT_DELAY = "reconnect_delay"
    FAST_IO_FAIL_TMO = "fast_io_fail_tmo"
    DEV_LOSS_TMO = "dev_loss_tmo"


@dataclass(frozen=True, slots=True)
class TimerWrite:
    """One write: seconds, None for ``off``."""

    attribute: TimerAttribute
    value: int | None

    @property
    def text(self) -> str:
        """What goes into the attribute."""
        return "off" if self.value is None else str(self.value)


TimerValues: TypeAlias = tuple[int | None, int | None, int | None]
"""reconnect_delay, fast_io_fail_tmo, dev_loss_tmo as the kernel shows them, which need not be to our liking."""

_ATTRIBUTES: Final = (
    TimerAttribute.RECONNECT_DELAY,
    TimerAttribute.FAST_IO_FAIL_TMO,
    TimerAttribute.DEV_LOSS_TMO,
)
_PREFERRED: Final = (2, 1, 0)
"""Of equally short ways the one that begins with dev_loss_tmo: it acts last, so that a moment of it hurts least."""


def plan_timer_writes(present: TimerValues, wanted: RemotePortTimers) -> tuple[TimerWrite, ...]:
    """The fewest writes that lead from ``present`` to ``wanted`` with a valid combination after each of them.

    Nothing that is right already is written, unless it stands in the way. Raises
    :class:`~srpha.core.recovery.remote_port.InvalidTimersError` for values beyond the kernel's integers, and when
    ``present`` breaks rules in a way that no single write mends.
    """
    goal: TimerValues = (wanted.reconnect_delay, wanted.fast_io_fail_tmo, wanted.dev_loss_tmo)
    for attribute, value in zip(_ATTRIBUTES, goal, strict=True):
        if value is not None and value > TIMER_MAX:
            raise InvalidTimersError(f"{attribute.value} is {value}; at most {TIMER_MAX} s is allowed")
    # With these in-between values every valid combination is reached from every other: dev_loss_tmo 600 suits any
    # fast_io_fail_tmo below 600, and fast_io_fail_tmo 0 any dev_loss_tmo above 0. reconnect_delay needs none.
    choices: tuple[tuple[int | None, ...], ...] = (
        (goal[0],),
        (goal[1], 0),
        (goal[2], FAST_IO_FAIL_MAX),
    )
    ways: dict[TimerValues, tuple[TimerWrite, ...]] = {present: ()}
    ahead = deque([present])
    while ahead:
        values = ahead.popleft()
        if values == goal:
            return ways[values]
        for index in _PREFERRED:
            for value in choices[index]:
                after = _with(values, index, value)
                if after not in ways and _valid(after):
                    ways[after] = (*ways[values], TimerWrite(_ATTRIBUTES[index], value))
                    ahead.append(after)
    raise InvalidTimersError(f"no valid way leads from the timers {present} to {goal}")


def _with(values: TimerValues, index: int, value: int | None) -> TimerValues:
    changed = list(values)
    changed[index] = value
    return changed[0], changed[1], changed[2]


def _valid(values: TimerValues) -> bool:
    try:
        RemotePortTimers(*values)
    except InvalidTimersError:
        return False
    return True
