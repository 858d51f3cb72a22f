"""What a scan of a subnet found: I/O units, their SRP services, and which local port reaches them in which partition.

Unknown is never empty: a unit or a local port about which a scan learnt nothing says so and keeps what is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from srpha.core.seams import GSI_QKEY, GSI_QPN
from srpha.core.targets.target_port import TargetPort
from srpha.wire.dm import IoControllerProfile, IoUnitInfo, ServiceEntry
from srpha.wire.identifiers import Gid


class Standing(Enum):
    """What a scan says of one I/O unit."""

    FOUND = "found"
    """The subnet lists it and its Device Management agent answered."""
    SILENT = "silent"
    """The subnet lists it, its agent gave no (usable) answer."""
    GONE = "gone"
    """It was known, and a complete answer of the SA does not list it any more."""
    UNKNOWN = "unknown"
    """It was known, and the questions about it failed."""


@dataclass(frozen=True, slots=True)
class SrpService:
    """An SRP service of an I/O controller, checked: fit for an ``add_target`` line."""

    id_ext: int
    id_ext_text: str
    ioc_guid: int
    service_id: int
    io_class: int
    send_message_size: int
    description: str

    def at(self, dgid: Gid, pkey: int) -> TargetPort:
        """The target port that this service is at port GID ``dgid`` in the partition of ``pkey``."""
        return TargetPort(
            id_ext=self.id_ext,
            ioc_guid=self.ioc_guid,
            dgid=dgid,
            service_id=self.service_id,
            pkey=pkey,
            io_class=self.io_class,
            id_ext_text=self.id_ext_text,
            send_message_size=self.send_message_size,
            description=self.description,
        )


@dataclass(frozen=True, slots=True)
class DmAgent:
    """Where a unit's Device Management agent answers: its port, or where that redirects to (IBA 13.5.2)."""

    lid: int
    qpn: int = GSI_QPN
    qkey: int = GSI_QKEY
    sl: int = 0
    pkey: int | None = None
    """The partition a redirect asks for; None: any shared one."""


@dataclass(frozen=True, slots=True)
class Controller:
    """An I/O controller in its unit's own words, unchecked: for listings, never for logins."""

    slot: int
    profile: IoControllerProfile
    services: tuple[tuple[int, ServiceEntry], ...]
    """SRP service entries, well-formed or not, with their 0-based number; none for a class that is not SRP's."""


@dataclass(frozen=True, slots=True)
class IoUnit:
    """An I/O unit at one port of the subnet."""

    gid: Gid
    lid: int
    node_guid: int
    description: str
    """Node description, safe for terminals."""
    standing: Standing
    agent: DmAgent
    reason: str = ""
    """Why it is not FOUND; empty when it is."""
    services: tuple[SrpService, ...] = ()
    refused: tuple[str, ...] = ()
    """What the unit offers that must not be used, a sentence each."""
    change_id: int | None = None
    """IOUnitInfo's change ID that ``services`` belong to; None when the walk was not complete."""
    info: IoUnitInfo | None = None
    """What it said of itself when it last answered."""
    controllers: tuple[Controller, ...] = ()
    """The controllers that ``services`` were taken from, by slot."""

    @property
    def guid(self) -> int:
        """Port GUID, the unit's key."""
        return self.gid.guid


@dataclass(frozen=True, slots=True)
class Reach:
    """What one local port reaches: P_Keys of its own table by port GUID, in the order of that table."""

    local_port: str
    known: bool
    reason: str = ""
    pkeys: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScanStatistics:
    """What a scan cost. ``duration`` in seconds; ``round_trips`` counts the longest chain of dependent answers."""

    queries: int = 0
    timeouts: int = 0
    errors: int = 0
    busy: int = 0
    round_trips: int = 0
    duration: float = 0.0


@dataclass(frozen=True, slots=True)
class ScanResult:
    """One scan of one subnet."""

    asker: str
    """The local port that asked."""
    members: tuple[str, ...]
    """The local ports that the result speaks for, ``asker`` among them."""
    strangers: tuple[str, ...]
    """Local ports that were taken for members but whose GUID the subnet does not list: they need their own scan."""
    complete: bool
    """The list of I/O units is whole; only then a missing unit is GONE."""
    reason: str
    """Why it is not complete."""
    units: tuple[IoUnit, ...]
    reach: tuple[Reach, ...]
    statistics: ScanStatistics
