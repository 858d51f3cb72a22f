"""The daemon's state at one moment, for status, metrics and tests."""

from __future__ import annotations

from dataclasses import dataclass

from srpha.core.connections.pairs import OtherConnection, Pair
from srpha.core.discovery.inventory import TargetStatus
from srpha.core.discovery.scan_result import ScanStatistics
from srpha.core.seams import Connection, MapInfo, PortIdentity


@dataclass(frozen=True, slots=True)
class PortStatus:
    """A local port. ``identity`` is None while the device is gone."""

    name: str
    identity: PortIdentity | None
    usable: bool
    """Active, with a LID and an SM: it can scan and log in."""
    reason: str
    """Why it is not usable."""
    subscribed: bool
    """The SA has taken all subscriptions to notices."""
    drained: bool = False
    """Held out of use until it is resumed."""


@dataclass(frozen=True, slots=True)
class SubnetScan:
    """The last scan of one subnet."""

    time: float
    asker: str
    members: tuple[str, ...]
    complete: bool
    reason: str
    statistics: ScanStatistics


@dataclass(frozen=True, slots=True)
class ScanTotals:
    """All scans and probes since the daemon started."""

    scans: int = 0
    failed_scans: int = 0
    probes: int = 0
    queries: int = 0
    timeouts: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the daemon knows. ``connections`` and ``maps`` are None while they could never be read."""

    time: float
    ports: tuple[PortStatus, ...]
    targets: tuple[TargetStatus, ...]
    pairs: tuple[Pair, ...]
    others: tuple[OtherConnection, ...]
    """Connections that belong to no pair and are left alone."""
    connections: tuple[Connection, ...] | None
    maps: tuple[MapInfo, ...] | None
    scans: tuple[SubnetScan, ...]
    totals: ScanTotals
    troubles: tuple[str, ...]
    """What could not be read of the host, a sentence each."""
    settled: bool
    """Nothing is under way: every port is scanned, and every pair is connected or waits for something outside."""
