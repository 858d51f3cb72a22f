"""Discovery of SRP targets in one subnet, without I/O (IBA 15.2.5, 16.3; SRP annex B; facts: srp B)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """Limits of a scan. Times in seconds, ``timeout`` per try."""

    timeout: float = 1.0
    retries: int = 2
    """Further tries of a question to a Device Management agent."""
    sa_timeout: float = 2.0
    """Per try of a question to the subnet administrator."""
    sa_retries: int = 3
    window: int = 64
    """Questions in flight."""
    busy_delay: float = 0.1
    """Delay after a BUSY answer, doubling each time."""
    busy_tries: int = 6
    """BUSY answers to one question before it counts as failed."""
