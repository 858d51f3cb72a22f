"""The I/O unit of a target: which controllers sit in its slots, and the change ID that tells (IBA 16.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from srpha.embedded.target.spec import IocSpec, TargetLimits
from srpha.wire.dm import (
    ENTRIES_PER_MAD,
    SRP_IO_SUBCLASS,
    SRP_PROTOCOL,
    SRP_PROTOCOL_VERSION,
    IocCapability,
    IoControllerProfile,
    IoUnitInfo,
    ServiceEntries,
    ServiceEntry,
    SlotState,
)

SLOTS: Final = 16
"""Slots of an I/O unit, as Linux targets have (facts: srp B.3)."""


class IoUnit:
    """Controllers by slot: slot n holds the n-th controller of the target's spec, or is empty while that is absent."""

    def __init__(self, iocs: Sequence[IocSpec], limits: TargetLimits) -> None:
        self._iocs = tuple(iocs)
        self._limits = limits
        self._present = [True] * len(self._iocs)
        self.change_id = 1
        """16 bits; moves with every change of the controller list."""

    def present(self, index: int) -> bool:
        """Whether controller ``index`` (0-based) is in its slot."""
        return self._present[index]

    def set_present(self, index: int, present: bool) -> None:
        """Put a controller into its slot or take it out."""
        if self._present[index] != present:
            self._present[index] = present
            self.change_id = (self.change_id + 1) & 0xFFFF

    def info(self) -> IoUnitInfo:
        """IOUnitInfo."""
        states = [SlotState.PRESENT if here else SlotState.EMPTY for here in self._present]
        states += [SlotState.EMPTY] * (SLOTS - len(states))
        return IoUnitInfo.of_slots(states, change_id=self.change_id)

    def controller(self, slot: int) -> IocSpec | None:
        """The controller in a 1-based slot."""
        if 1 <= slot <= len(self._iocs) and self._present[slot - 1]:
            return self._iocs[slot - 1]
        return None

    def profile(self, slot: int) -> IoControllerProfile | None:
        """IOControllerProfile of a slot, None for an empty one."""
        ioc = self.controller(slot)
        if ioc is None:
            return None
        capabilities = (
            IocCapability.SEND_TO
            | IocCapability.SEND_FROM
            | IocCapability.RDMA_READ_FROM
            | IocCapability.RDMA_WRITE_FROM
        )
        return IoControllerProfile(
            guid=ioc.guid,
            vendor_id=ioc.vendor_id,
            device_id=ioc.device_id,
            subsystem_vendor_id=ioc.vendor_id,
            subsystem_id=ioc.device_id,
            io_class=ioc.io_class,
            io_subclass=SRP_IO_SUBCLASS,
            protocol=SRP_PROTOCOL,
            protocol_version=SRP_PROTOCOL_VERSION,
            service_connections=0xFFFF,
            initiators_supported=0xFFFF,
            send_queue_depth=self._limits.request_limit,
            rdma_read_depth=4,
            send_message_size=self._limits.max_iu,
            rdma_transfer_size=self._limits.max_transfer,
            operation_capabilities=capabilities,
            service_entries=len(ioc.service_entries),
            id_string=ioc.id_string.encode("ascii"),
        )

    def services(self, slot: int, first: int, last: int) -> ServiceEntries | None:
        """Services ``first`` to ``last`` (0-based) of a slot; None when a controller or one of them does not exist."""
        ioc = self.controller(slot)
        if ioc is None or last >= len(ioc.service_entries) or last - first >= ENTRIES_PER_MAD:
            return None
        return ServiceEntries.of(
            [
                ServiceEntry(name=name.encode("ascii"), service_id=service_id)
                for name, service_id in ioc.service_entries[first : last + 1]
            ]
        )
