"""The targets that are known, and what a new scan or probe changes about them."""

from __future__ import annotations

from dataclasses import dataclass

from srpha.core.scan_result import IoUnit, Standing


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """A unit as it is known now. Times in seconds of the daemon's clock."""

    unit: IoUnit
    """As it was last found; ``standing`` and ``reason`` are of now."""
    first_seen: float
    last_seen: float
    """When its agent last answered."""
    members: tuple[str, ...]
    """Local ports whose subnet it is in."""
    silent_count: int = 0
    """Scans and probes in a row without an answer."""
    next_probe: float | None = None
    """When it is asked again by itself; None: by the next scan."""

    @property
    def standing(self) -> Standing:
        return self.unit.standing
