"""One-shot discovery for ``srpha discover`` and the drop-in commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from srpha.core.pairs import Pair
from srpha.core.scan_result import ScanResult
from srpha.core.seams import MadPort, PortIdentity
from srpha.daemon.settings import Settings


@dataclass(frozen=True, slots=True)
class DiscoveryResult:
    """What one look at every subnet found."""

    ports: tuple[PortIdentity, ...]
    unusable: tuple[tuple[str, str], ...]
    """Local ports that could not ask, and why."""
    scans: tuple[ScanResult, ...]
    pairs: tuple[Pair, ...]
    """Every local port with every target port it was judged for, by port; ``status`` is DUE, DISALLOWED, ..."""

    @property
    def complete(self) -> bool:
        """Every usable port's subnet gave a whole answer."""
        return all(scan.complete for scan in self.scans)


async def discover(mad_ports: Sequence[MadPort], settings: Settings) -> DiscoveryResult:
    """Scan the subnets of ``mad_ports`` once. Never raises for what a peer does: the result says what failed."""
    raise NotImplementedError
