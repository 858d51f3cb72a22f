"""The questions of discovery to the subnet administrator, and their answers read (IBA 15.2; facts: srp B.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

from srpha.core.discovery.conversation import Ask, Reply
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.core.seams import MadAddress, PortIdentity
from srpha.wire.class_port_info import ClassPortInfo
from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import PKEY_MEMBERSHIP, Gid
from srpha.wire.layout import Structure
from srpha.wire.mad import MadHeader, MadStatus, ManagementClass, Method, describe_status
from srpha.wire.sa import (
    MATCH_CAPABILITY_BITS,
    NodeRecord,
    NodeRecordMask,
    PathRecord,
    PathRecordMask,
    PortInfoRecord,
    PortInfoRecordMask,
    SaAttribute,
    SaRecord,
    SaStatus,
    decode_record,
    decode_table,
    sa_request,
)
from srpha.wire.smp import NodeInfo, PortCapability, PortInfo

R = TypeVar("R", bound=SaRecord)

_WILDCARD_REFUSED: Final = (SaStatus.REQUEST_INVALID, SaStatus.INSUFFICIENT_COMPONENTS, SaStatus.TOO_MANY_RECORDS)


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The SA gave no usable answer. ``refused`` means that it does not take this form of question."""

    reason: str
    refused: bool = False


def sa_address(port: PortIdentity) -> MadAddress:
    """Where ``port`` finds its subnet administrator: the default partition, to hand at index 0 or elsewhere."""
    for index, pkey in enumerate(port.pkeys):
        if pkey & 0x7FFF == 0x7FFF:
            return MadAddress(lid=port.sm_lid, sl=port.sm_sl, pkey_index=index)
    return MadAddress(lid=port.sm_lid, sl=port.sm_sl)


def partitions(port: PortIdentity) -> tuple[int, ...]:
    """The port's P_Keys in the order of its table, each partition once, full membership before limited."""
    best: dict[int, int] = {}
    for pkey in port.pkeys:
        base = pkey & 0x7FFF
        if base and not best.get(base, 0) & PKEY_MEMBERSHIP:
            best[base] = pkey
    return tuple(best.values())


@dataclass(frozen=True, slots=True)
class SaQuestions:
    """Words questions of one local port."""

    port: PortIdentity
    settings: ScanSettings

    def class_port_info(self) -> Ask:
        return self._ask(Method.GET, SaAttribute.CLASS_PORT_INFO)

    def all_nodes(self) -> Ask:
        """One table of all ports' nodes."""
        return self._ask(Method.GET_TABLE, SaAttribute.NODE_RECORD)

    def node_by_guid(self, guid: int) -> Ask:
        """The node of the port with GUID ``guid``."""
        record = NodeRecord.of(0, NodeInfo(port_guid=guid), b"")
        return self._ask(Method.GET, SaAttribute.NODE_RECORD, NodeRecordMask.PORT_GUID, record)

    def node_by_lid(self, lid: int) -> Ask:
        return self._ask(Method.GET, SaAttribute.NODE_RECORD, NodeRecordMask.LID, NodeRecord(lid=lid))

    def io_unit_ports(self, *, match_bits: bool) -> Ask:
        """One table of the ports with a Device Management agent; of all ports for an SA that cannot match bits."""
        if not match_bits:
            return self._ask(Method.GET_TABLE, SaAttribute.PORT_INFO_RECORD)
        record = PortInfoRecord.of(0, 0, PortInfo(capability_mask=PortCapability.DEVICE_MANAGEMENT))
        return self._ask(
            Method.GET_TABLE,
            SaAttribute.PORT_INFO_RECORD,
            PortInfoRecordMask.CAPABILITY_MASK,
            record,
            MATCH_CAPABILITY_BITS,
        )

    def port_by_lid(self, lid: int) -> Ask:
        record = PortInfoRecord(endport_lid=lid)
        return self._ask(Method.GET, SaAttribute.PORT_INFO_RECORD, PortInfoRecordMask.ENDPORT_LID, record)

    def all_paths(self, pkey: int) -> Ask:
        """One table with a path to every port that shares the partition of ``pkey``."""
        mask = PathRecordMask.SGID | PathRecordMask.NUMB_PATH | PathRecordMask.PKEY
        record = PathRecord(sgid=self.port.gid, numb_path=1, pkey=pkey)
        return self._ask(Method.GET_TABLE, SaAttribute.PATH_RECORD, mask, record)

    def path(self, dgid: Gid, pkey: int) -> Ask:
        """The path to one port in one partition."""
        mask = PathRecordMask.DGID | PathRecordMask.SGID | PathRecordMask.NUMB_PATH | PathRecordMask.PKEY
        record = PathRecord(dgid=dgid, sgid=self.port.gid, numb_path=1, pkey=pkey)
        return self._ask(Method.GET, SaAttribute.PATH_RECORD, mask, record)

    def _ask(
        self, method: Method, attribute: SaAttribute, mask: int = 0, record: Structure | None = None, modifier: int = 0
    ) -> Ask:
        mad = sa_request(method, attribute, transaction_id=0, mask=mask, record=record, modifier=modifier)
        return Ask(self.port.name, sa_address(self.port), mad, self.settings.sa_timeout, self.settings.sa_retries)


def read_class_port_info(reply: Reply) -> ClassPortInfo | NoAnswer:
    """What the SA can do."""
    failure = _failure(reply, SaAttribute.CLASS_PORT_INFO, "ClassPortInfo")
    if failure is not None or reply is None:
        return failure or NoAnswer("no answer")
    try:
        return decode_record(reply, ClassPortInfo)
    except DecodeError as error:
        return NoAnswer(f"unreadable answer to ClassPortInfo: {error}")


def read_table(reply: Reply, record_type: type[R]) -> tuple[R, ...] | NoAnswer:
    """The records of a table; "no records match" is an empty table."""
    failure = _failure(reply, record_type.ATTRIBUTE, record_type.__name__)
    if reply is None or (failure is not None and not _says_none(reply)):
        return failure or NoAnswer("no answer")
    if failure is not None:
        return ()
    try:
        return decode_table(reply, record_type)
    except DecodeError as error:
        return NoAnswer(f"unreadable {record_type.__name__} table: {error}")


def read_one(reply: Reply, record_type: type[R]) -> R | NoAnswer | None:
    """The record of a Get; None when the SA says that there is none."""
    failure = _failure(reply, record_type.ATTRIBUTE, record_type.__name__)
    if reply is None or (failure is not None and not _says_none(reply)):
        return failure or NoAnswer("no answer")
    if failure is not None:
        return None
    try:
        return decode_record(reply, record_type)
    except DecodeError as error:
        return NoAnswer(f"unreadable {record_type.__name__}: {error}")


def _failure(reply: Reply, attribute: SaAttribute, name: str) -> NoAnswer | None:
    if reply is None:
        return NoAnswer(f"no answer from the subnet administrator to {name}")
    header = MadHeader.decode(reply)
    if header.attribute_id != attribute:
        return NoAnswer(f"the subnet administrator answers {name} with attribute {header.attribute_id:#06x}")
    if header.status:
        text = describe_status(ManagementClass.SUBN_ADM, header.status)
        common = header.status & ~(MadStatus.BUSY | MadStatus.REDIRECT) & 0xFF
        particular = header.status & 0xFF00
        return NoAnswer(
            f"the subnet administrator refuses {name}: {text}", bool(common) or particular in _WILDCARD_REFUSED
        )
    return None


def _says_none(reply: bytes) -> bool:
    return MadHeader.decode(reply).status == SaStatus.NO_RECORDS
