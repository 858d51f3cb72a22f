"""A subnet for tests: answers the bytes of SA and Device Management requests from a table of nodes.

It is written from the specification's tables with the wire codecs, and knows nothing of the code under test.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from srpha.core.seams import LinkState, MadAddress, PortIdentity
from srpha.wire.class_port_info import ClassPortInfo, SaCapability
from srpha.wire.dm import (
    DmAttribute,
    DmStatus,
    IoControllerProfile,
    IoUnitInfo,
    ServiceEntries,
    ServiceEntry,
    dm_response,
    read_service_entries_modifier,
)
from srpha.wire.identifiers import Gid, pkeys_match
from srpha.wire.mad import MadHeader, MadStatus, ManagementClass, Method, status_response
from srpha.wire.sa import (
    MATCH_CAPABILITY_BITS,
    NodeRecord,
    PathRecord,
    PathRecordMask,
    PortInfoRecord,
    SaAttribute,
    SaHeader,
    SaStatus,
    decode_record,
    sa_error,
    sa_response,
    sa_table,
)
from srpha.wire.smp import NodeInfo, PortCapability, PortInfo

PREFIX = 0xFE80000000000000
SM_LID = 1


@dataclass
class Ioc:
    guid: int
    services: list[ServiceEntry]
    io_class: int = 0x0100
    silent: bool = False
    id_string: bytes = b"scripted"


@dataclass
class Unit:
    """An I/O unit at one port."""

    guid: int
    lid: int
    iocs: list[Ioc] = field(default_factory=list)
    pkeys: tuple[int, ...] = (0xFFFF,)
    change_id: int = 1
    dm: bool = True
    silent: bool = False
    silent_to: set[str] = field(default_factory=set)
    busy: int = 0
    status: int = 0
    redirect: ClassPortInfo | None = None
    garbage: bool = False

    @property
    def gid(self) -> Gid:
        return Gid(PREFIX, self.guid)


def srp_unit(number: int, *, iocs: int = 1, services: int = 1, pkeys: tuple[int, ...] = (0xFFFF,)) -> Unit:
    """Unit ``number`` with LID 100 + number and well-formed SRP services."""
    guid = 0x0002C90300000000 + number
    made = [
        Ioc(
            guid=guid + 0x1000000 * (ioc + 1),
            services=[
                ServiceEntry.of_srp(0x2005000000000000 + number * 256 + ioc * 16 + s, guid) for s in range(services)
            ],
        )
        for ioc in range(iocs)
    ]
    return Unit(guid=guid, lid=100 + number, iocs=made, pkeys=pkeys)


def local_port(
    number: int = 1, *, pkeys: tuple[int, ...] = (0xFFFF,), state: LinkState = LinkState.ACTIVE
) -> PortIdentity:
    """Local port ``mlx5_<number-1>/1`` with LID 10 + number."""
    guid = 0x0011223300000000 + number
    return PortIdentity(
        device=f"mlx5_{number - 1}",
        port=1,
        node_guid=guid + 0x100,
        port_guid=guid,
        gid=Gid(PREFIX, guid),
        lid=10 + number,
        sm_lid=SM_LID,
        sm_sl=0,
        state=state,
        pkeys=pkeys,
    )


@dataclass
class ScriptedSubnet:
    """Ports and units; ``reply`` answers one request or gives None for silence."""

    ports: list[PortIdentity] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    capability_matching: bool = True
    wildcard_paths: bool = True
    sa_silent: bool = False
    sa_busy: int = 0
    sa_silent_to: set[str] = field(default_factory=set)
    failing: set[int] = field(default_factory=set)
    """SA attributes that get no answer."""
    refusing: dict[int, int] = field(default_factory=dict)
    """SA attributes that get an error status."""
    unlisted: set[int] = field(default_factory=set)
    """GUIDs that the node table leaves out."""
    log: list[tuple[str, int, int, int, int]] = field(default_factory=list)
    """(port, class, method, attribute, LID) of each request."""

    def reply(self, port: str, address: MadAddress, mad: bytes) -> bytes | None:
        header = MadHeader.decode(mad)
        self.log.append((port, header.mgmt_class, header.method, header.attribute_id, address.lid))
        sender = next(item for item in self.ports if item.name == port)
        if header.mgmt_class == ManagementClass.SUBN_ADM:
            if address.lid != SM_LID:
                return None
            return self._sa(sender, header, mad)
        for unit in self.units:
            if unit.lid == address.lid:
                pkey = sender.pkeys[address.pkey_index]
                if any(pkeys_match(pkey, own) for own in unit.pkeys):
                    return self._dm(unit, sender, address, header, mad)
        return None

    def asked(self, mgmt_class: int, attribute: int) -> int:
        return sum(1 for _, seen, _, what, _ in self.log if (seen, what) == (mgmt_class, attribute))

    def _sa(self, sender: PortIdentity, header: MadHeader, mad: bytes) -> bytes | None:
        attribute = header.attribute_id
        if self.sa_silent or sender.name in self.sa_silent_to or attribute in self.failing:
            return None
        if self.sa_busy:
            self.sa_busy -= 1
            return sa_error(mad, MadStatus.BUSY)
        if attribute in self.refusing:
            return sa_error(mad, self.refusing[attribute])
        table = header.method == Method.GET_TABLE
        if attribute == SaAttribute.INFORM_INFO:
            return status_response(mad, 0)
        if attribute == SaAttribute.CLASS_PORT_INFO:
            mask = SaCapability.PORT_INFO_MASK_MATCH if self.capability_matching else 0
            return sa_response(mad, ClassPortInfo(class_version=2, capability_mask=mask))
        if attribute == SaAttribute.NODE_RECORD:
            return self._nodes(mad, table)
        if attribute == SaAttribute.PORT_INFO_RECORD:
            return self._ports(mad, header, table)
        if attribute == SaAttribute.PATH_RECORD:
            return self._paths(mad, table)
        return sa_error(mad, MadStatus.UNSUPPORTED_METHOD_ATTRIBUTE)

    def _endports(self) -> list[tuple[int, int, int, tuple[int, ...]]]:
        """GUID, LID, capability mask, P_Keys."""
        found = [(1, SM_LID, int(PortCapability.SM), (0xFFFF,))]
        found += [(port.port_guid, port.lid, 0, port.pkeys) for port in self.ports]
        found += [
            (unit.guid, unit.lid, int(PortCapability.DEVICE_MANAGEMENT) if unit.dm else 0, unit.pkeys)
            for unit in self.units
        ]
        return found

    def _nodes(self, mad: bytes, table: bool) -> bytes:
        asked = decode_record(mad, NodeRecord)
        records = [
            NodeRecord.of(lid, NodeInfo(node_guid=guid + 1, port_guid=guid, port_count=1), b"node of %d" % lid)
            for guid, lid, _, _ in self._endports()
            if guid not in self.unlisted
        ]
        if table:
            return sa_table(mad, records)
        records = [r for r in records if r.lid == asked.lid or r.info.port_guid == asked.info.port_guid]
        return sa_response(mad, records[0]) if records else sa_error(mad, SaStatus.NO_RECORDS)

    def _ports(self, mad: bytes, header: MadHeader, table: bool) -> bytes:
        asked = decode_record(mad, PortInfoRecord)
        records = []
        for _, lid, mask, _ in self._endports():
            info = PortInfo(gid_prefix=PREFIX, lid=lid, capability_mask=mask)
            records.append(PortInfoRecord.of(lid, 1, info))
        if not table:
            records = [r for r in records if r.endport_lid == asked.endport_lid]
            return sa_response(mad, records[0]) if records else sa_error(mad, SaStatus.NO_RECORDS)
        if header.attribute_modifier == MATCH_CAPABILITY_BITS and self.capability_matching:
            bits = asked.info.capability_mask
            records = [r for r in records if r.info.capability_mask & bits == bits]
        return sa_table(mad, records, stride=72)

    def _paths(self, mad: bytes, table: bool) -> bytes:
        asked = decode_record(mad, PathRecord)
        mask = SaHeader.decode(mad).component_mask
        source = next((p for p in self.ports if p.gid == asked.sgid), None)
        if source is None:
            return sa_error(mad, SaStatus.INVALID_GID)
        if not mask & PathRecordMask.DGID and not self.wildcard_paths:
            return sa_error(mad, SaStatus.REQUEST_INVALID)
        records = []
        for guid, lid, _, pkeys in self._endports():
            if mask & PathRecordMask.DGID and guid != asked.dgid.guid:
                continue
            own = [key for key in source.pkeys if key & 0x7FFF == asked.pkey & 0x7FFF]
            if any(pkeys_match(a, b) for a in own for b in pkeys):
                records.append(
                    PathRecord(
                        dgid=Gid(PREFIX, guid), sgid=source.gid, dlid=lid, slid=source.lid, pkey=asked.pkey, numb_path=1
                    )
                )
        if table:
            return sa_table(mad, records)
        return sa_response(mad, records[0]) if records else sa_error(mad, SaStatus.NO_RECORDS)

    def _dm(self, unit: Unit, sender: PortIdentity, address: MadAddress, header: MadHeader, mad: bytes) -> bytes | None:
        if unit.silent or sender.name in unit.silent_to:
            return None
        if unit.garbage:
            return b"\x01" * 256
        if unit.busy:
            unit.busy -= 1
            return dm_response(mad, status=MadStatus.BUSY)
        if unit.redirect is not None:
            if header.attribute_id == DmAttribute.CLASS_PORT_INFO:
                return dm_response(mad, unit.redirect)
            return dm_response(mad, status=MadStatus.REDIRECT)
        if unit.status:
            return dm_response(mad, status=unit.status)
        if header.attribute_id == DmAttribute.IO_UNIT_INFO:
            return dm_response(mad, IoUnitInfo.of_slots([1] * len(unit.iocs), change_id=unit.change_id))
        if header.attribute_id == DmAttribute.IO_CONTROLLER_PROFILE:
            ioc = unit.iocs[header.attribute_modifier - 1]
            if ioc.silent:
                return None
            return dm_response(
                mad,
                IoControllerProfile(
                    guid=ioc.guid,
                    io_class=ioc.io_class,
                    io_subclass=0x609E,
                    protocol=0x0108,
                    send_message_size=2116,
                    service_entries=len(ioc.services),
                    id_string=ioc.id_string,
                ),
            )
        if header.attribute_id == DmAttribute.SERVICE_ENTRIES:
            slot, first, last = read_service_entries_modifier(header.attribute_modifier)
            return dm_response(mad, ServiceEntries.of(unit.iocs[slot - 1].services[first : last + 1]))
        return dm_response(mad, status=DmStatus.IOC_FAILURE)
