"""Limits of discovery."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """Limits of a scan. Times in seconds, timeouts per try."""

    timeout: float = 1.0
    """For questions to a Device Management agent."""
    retries: int = 2
    """Further tries of such a question."""
    haste: float | None = 0.5
    """Timeouts after which a unit that never answered is given up where others answer promptly, all its tries made;
    None: it always gets the time of all tries."""
    sa_timeout: float = 2.0
    sa_retries: int = 3
    window: int = 64
    """Questions in flight."""
    unit_window: int = 8
    """Questions in flight to one I/O unit."""
    unit_time: float = 15.0
    """After this long no new question goes to a unit that answers some questions and not others."""
    busy_delay: float = 0.1
    """Delay after a BUSY answer; it doubles each time."""
    busy_tries: int = 6
    """BUSY answers to one question after which it counts as failed."""
