"""What an embedded target is: its logical units, its I/O controllers, its limits. Checked when made.

In SRP's words (SRP r16a 5.1) a target port is ``id_ext`` and the GUID of an I/O controller (IOC). An IOC may be reached
through several HCA ports and still is one target port; a target with two IOCs has two, each a port group of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from srpha.wire import srp_ports
from srpha.wire.scsi.alua import AccessState

LUN_MAX: Final = 0x3FFF
"""Largest LUN of flat space addressing (SAM-5 4.7.6)."""


class SpecError(ValueError):
    """A value of a target's description is not possible; the message names it and says what is."""


@dataclass(frozen=True, slots=True)
class UnitSpec:
    """One logical unit. ``service_time`` is in seconds per command; ``path`` None keeps the blocks in memory.

    ``naa`` is the 128-bit NAA-6 designator (SPC-4 7.8.6.6.5) and ``serial`` the unit serial number; both must outlive
    restarts, since multipath joins paths by them. None derives them from the target's first IOC GUID and the LUN.
    """

    lun: int
    blocks: int
    block_size: int = 512
    serial: str | None = None
    naa: int | None = None
    path: Path | None = None
    write_protected: bool = False
    service_time: float = 0.0
    queue_depth: int = 256
    """Commands that may be in progress; one more ends with TASK SET FULL."""

    def __post_init__(self) -> None:
        if not 0 <= self.lun <= LUN_MAX:
            raise SpecError(f"lun is {self.lun}; give 0..{LUN_MAX}")
        if self.block_size not in (512, 1024, 2048, 4096):
            raise SpecError(f"block_size of LUN {self.lun} is {self.block_size}; give 512, 1024, 2048 or 4096")
        if not 1 <= self.blocks < 1 << 48:
            raise SpecError(f"blocks of LUN {self.lun} is {self.blocks}; give at least 1")
        if self.serial is not None and not (1 <= len(self.serial) <= 32 and _printable(self.serial)):
            raise SpecError(f"serial of LUN {self.lun} is {self.serial!r}; give 1 to 32 printable ASCII characters")
        if self.naa is not None and self.naa >> 124 != 6:
            raise SpecError(f"naa of LUN {self.lun} is {self.naa:#x}; give 32 hex digits that start with 6")
        if not 0 <= self.service_time < 3600:
            raise SpecError(f"service_time of LUN {self.lun} is {self.service_time}; give 0 to 3600 seconds")
        if self.queue_depth < 1:
            raise SpecError(f"queue_depth of LUN {self.lun} is {self.queue_depth}; give at least 1")


@dataclass(frozen=True, slots=True)
class IocSpec:
    """One I/O controller, that is one SRP target port. ``services`` are further entries (name, service id) it lists."""

    guid: int
    id_ext: int
    service_id: int
    id_string: str = "srpha embedded SRP target"
    io_class: int = srp_ports.IO_CLASS_REV16A
    vendor_id: int = 0x001405
    device_id: int = 0
    services: tuple[tuple[str, int], ...] = ()
    access_state: AccessState = AccessState.ACTIVE_OPTIMIZED

    def __post_init__(self) -> None:
        for name in ("guid", "id_ext", "service_id"):
            value = getattr(self, name)
            if not 0 < value < 1 << 64:
                raise SpecError(f"{name} of an IOC is {value:#x}; give 1 to 16 hex digits, not all zero")
        if self.io_class not in (srp_ports.IO_CLASS_REV16A, srp_ports.IO_CLASS_REV10):
            raise SpecError(f"io_class of IOC {self.guid:016x} is {self.io_class:#06x}; give 0x0100 or 0xff00")
        if len(self.id_string) > 64 or not _printable(self.id_string):
            raise SpecError(
                f"id_string of IOC {self.guid:016x} is {self.id_string!r}; give at most 64 ASCII characters"
            )
        if len(self.services) > 254:
            raise SpecError(f"IOC {self.guid:016x} has {len(self.services) + 1} services; at most 255 can be listed")
        for text, service_id in self.services:
            if len(text) > 40 or not _printable(text) or not 0 <= service_id < 1 << 64:
                raise SpecError(
                    f"service {text!r} of IOC {self.guid:016x}: give at most 40 ASCII characters and 64 bits"
                )

    @property
    def target_port_id(self) -> bytes:
        """The 16-byte target port identifier that a login must name (SRP r16a 5.1.3)."""
        return srp_ports.target_port_id(self.id_ext, self.guid, self.io_class)

    @property
    def service_entries(self) -> tuple[tuple[str, int], ...]:
        """All service entries in slot order: the SRP service first (SRP r16a annex B)."""
        return ((f"SRP.T10:{self.id_ext:016X}", self.service_id), *self.services)


@dataclass(frozen=True, slots=True)
class TargetLimits:
    """What a target grants. ``request_limit`` is credits per channel; ``max_iu`` bytes of an initiator's IU."""

    request_limit: int = 64
    max_iu: int = 8260
    channels: int = 64
    """Channels of the whole target; one login more is refused with insufficient resources."""
    channels_per_nexus: int = 8
    """Channels of one I_T nexus; one login more is refused with channel limit reached."""
    max_transfer: int = 1 << 22
    """Bytes of one command's data."""
    multichannel: bool = True
    immediate_data: bool = True
    indirect: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.request_limit <= 4096:
            raise SpecError(f"request_limit is {self.request_limit}; give 1..4096")
        if not 64 <= self.max_iu <= 65536:
            raise SpecError(f"max_iu is {self.max_iu}; give 64..65536")
        if self.channels < 1 or self.channels_per_nexus < 1:
            raise SpecError("channels and channels_per_nexus are at least 1")


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """A whole target. ``alua`` makes the units report target port groups, one per IOC."""

    name: str
    iocs: tuple[IocSpec, ...]
    units: tuple[UnitSpec, ...]
    limits: TargetLimits = TargetLimits()
    vendor: str = "SRPHA"
    product: str = "EMBEDDED DISK"
    revision: str = "0001"
    alua: bool = True

    def __post_init__(self) -> None:
        if not 1 <= len(self.iocs) <= 16:
            raise SpecError(f"target {self.name} has {len(self.iocs)} IOCs; give 1 to 16")
        for what, values in (
            ("IOC GUID", [ioc.guid for ioc in self.iocs]),
            ("service_id", [ioc.service_id for ioc in self.iocs]),
            ("LUN", [unit.lun for unit in self.units]),
        ):
            if len(values) != len(set(values)):
                raise SpecError(f"target {self.name} uses one {what} twice")
        for name, size in (("vendor", 8), ("product", 16), ("revision", 4)):
            value = getattr(self, name)
            if not 1 <= len(value) <= size or not _printable(value):
                raise SpecError(
                    f"{name} of target {self.name} is {value!r}; give 1 to {size} printable ASCII characters"
                )


def ioc_of_node(node_guid: int) -> IocSpec:
    """The I/O controller of a Linux target: IOC GUID, id_ext and service id are the node GUID (facts: srp B.3)."""
    return IocSpec(guid=node_guid, id_ext=node_guid, service_id=node_guid)


def naa6(guid: int, lun: int) -> int:
    """A stable NAA-6 designator of a GUID and a LUN: OUI, 36 bits of the GUID, then the rest of it and the LUN."""
    company, rest = guid >> 40, guid & 0xFFFFFFFFFF
    return 6 << 124 | company << 100 | (rest & 0xFFFFFFFFF) << 64 | (rest >> 36) << 60 | lun


def _printable(text: str) -> bool:
    return text.isascii() and text.isprintable()
