"""SRP services that discovery found, and how a login to one is worded.

What Device Management calls a service entry of an I/O controller (IBA A1.3) is to SRP a target port: an identifier
extension and an IOC GUID, reachable at a port GID in a partition under a service ID (SRP annex B).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from srpha.core.targets.add_target import TargetLine, with_options
from srpha.wire.identifiers import Gid


class InitiatorExtMode(Enum):
    """Where ``initiator_ext`` of a login comes from (facts: srp A.10)."""

    DGID = "dgid"
    """The target port's GUID in its natural order, as rdma-core writes it since release 13."""
    DGID_SWAPPED = "dgid-swapped"
    """The same with its bytes reversed, as OFED and rdma-core until 12 did on little-endian hosts."""
    NONE = "none"
    """Not given: the driver's default, 0."""
    FIXED = "fixed"
    """A value from the configuration."""


@dataclass(frozen=True, slots=True)
class InitiatorExt:
    """The rule for ``initiator_ext``; ``value`` counts for FIXED only."""

    mode: InitiatorExtMode = InitiatorExtMode.DGID
    value: int = 0

    def of(self, dgid: Gid) -> int | None:
        """``initiator_ext`` for a login to the target port with GID ``dgid``, None for: leave it out."""
        match self.mode:
            case InitiatorExtMode.DGID:
                return dgid.guid
            case InitiatorExtMode.DGID_SWAPPED:
                return int.from_bytes(dgid.guid.to_bytes(8, "big"), "little")
            case InitiatorExtMode.NONE:
                return None
            case InitiatorExtMode.FIXED:
                return self.value


@dataclass(frozen=True, slots=True, order=True)
class TargetPort:
    """One SRP service at one port GID in one partition: what a local port can log in to."""

    id_ext: int
    ioc_guid: int
    dgid: Gid
    service_id: int
    pkey: int
    io_class: int = 0x0100
    id_ext_text: str = ""
    """The 16 digits as the target spells them, for the ``add_target`` line."""
    send_message_size: int = 0
    """Longest SEND the IOC takes, in bytes (IOControllerProfile); 0 = not told."""
    description: str = ""
    """ID string of the IOC, made safe for terminals."""

    @property
    def name(self) -> str:
        """Name in messages: IOC and port GUID."""
        return f"{self.id_ext:016x}/{self.ioc_guid:016x}@{self.dgid.guid:016x}"

    def line(self, initiator_ext: InitiatorExt, options: Mapping[str, int] | None = None) -> TargetLine:
        """The ``add_target`` line; ``options`` come from the rule that allows the target."""
        line = TargetLine(
            id_ext=self.id_ext,
            ioc_guid=self.ioc_guid,
            dgid=self.dgid,
            pkey=self.pkey,
            service_id=self.service_id,
            io_class=self.io_class,
            initiator_ext=initiator_ext.of(self.dgid),
            id_ext_text=self.id_ext_text,
        )
        return with_options(line, options) if options else line
