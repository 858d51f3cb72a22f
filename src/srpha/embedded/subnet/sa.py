"""Subnet administration: answers queries about the subnet as the last sweep left it (IBA volume 1, chapter 15).

Served: Get ClassPortInfo; Get and GetTable of NodeRecord, PortInfoRecord and PathRecord; Set InformInfo; Reports to
subscribers. A requester sees the ports that it shares a partition with. Refusals look as OpenSM's: the request comes
back with a status; no match is an error for Get and an empty table for GetTable. A requester whose LID is not in the
subnet gets no answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from srpha.core.seams import ReceivedMad, Unwatch
from srpha.embedded.mads.gsi import GeneralServices
from srpha.embedded.subnet.sa_paths import PathQuery, RefusedError
from srpha.embedded.subnet.sa_subscriptions import ReportSettings, Subscriptions
from srpha.embedded.subnet.subnet_view import EndPort, SubnetView, empty_view
from srpha.wire.class_port_info import ClassPortInfo, SaCapability
from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import DEFAULT_SUBNET_PREFIX
from srpha.wire.layout import Structure
from srpha.wire.mad import MadStatus, ManagementClass, Method, status_response
from srpha.wire.notice import GidTrap, InformInfo, Trap, make_notice
from srpha.wire.rmpp import SA_HEADER_LENGTH
from srpha.wire.sa import (
    MATCH_CAPABILITY_BITS,
    SA_CLASS_VERSION,
    NodeRecord,
    NodeRecordMask,
    PathRecord,
    PortInfoRecord,
    PortInfoRecordMask,
    SaAttribute,
    SaHeader,
    SaStatus,
    decode_record,
    sa_error,
    sa_response,
    sa_table,
)
from srpha.wire.smp import NodeInfo, PortInfo

_SERVED: Final = (Method.GET, Method.SET, Method.GET_TABLE, Method.GET_TRACE_TABLE, Method.GET_MULTI, Method.DELETE)
_RESPONSE_TIME: Final = 16
"""Time code of 0.27 s, as OpenSM's."""

_NODE_FIELDS: Final[Mapping[int, str]] = MappingProxyType(
    {
        NodeRecordMask.BASE_VERSION: "base_version",
        NodeRecordMask.CLASS_VERSION: "class_version",
        NodeRecordMask.NODE_TYPE: "node_type",
        NodeRecordMask.PORT_COUNT: "port_count",
        NodeRecordMask.SYSTEM_IMAGE_GUID: "system_image_guid",
        NodeRecordMask.NODE_GUID: "node_guid",
        NodeRecordMask.PORT_GUID: "port_guid",
        NodeRecordMask.PARTITION_CAPACITY: "partition_capacity",
        NodeRecordMask.DEVICE_ID: "device_id",
        NodeRecordMask.REVISION: "revision",
        NodeRecordMask.LOCAL_PORT: "local_port",
        NodeRecordMask.VENDOR_ID: "vendor_id",
    }
)
_NODE_MASK: Final = int(sum(_NODE_FIELDS) | NodeRecordMask.LID | NodeRecordMask.NODE_DESCRIPTION)

_PORT_FIELDS: Final[Mapping[int, str]] = MappingProxyType(
    {
        PortInfoRecordMask.M_KEY: "m_key",
        PortInfoRecordMask.GID_PREFIX: "gid_prefix",
        PortInfoRecordMask.BASE_LID: "lid",
        PortInfoRecordMask.SM_LID: "sm_lid",
        PortInfoRecordMask.DIAG_CODE: "diag_code",
        PortInfoRecordMask.M_KEY_LEASE_PERIOD: "m_key_lease_period",
        PortInfoRecordMask.LOCAL_PORT: "local_port",
        PortInfoRecordMask.LINK_WIDTH_ENABLED: "link_width_enabled",
        PortInfoRecordMask.LINK_WIDTH_SUPPORTED: "link_width_supported",
        PortInfoRecordMask.LINK_WIDTH_ACTIVE: "link_width_active",
        PortInfoRecordMask.LINK_SPEED_SUPPORTED: "link_speed_supported",
        PortInfoRecordMask.PORT_STATE: "state",
        PortInfoRecordMask.PHYS_STATE: "phys_state",
    }
)
_PORT_MASK: Final = int(
    sum(_PORT_FIELDS)
    | PortInfoRecordMask.ENDPORT_LID
    | PortInfoRecordMask.PORT_NUMBER
    | PortInfoRecordMask.OPTIONS
    | PortInfoRecordMask.CAPABILITY_MASK
)


@dataclass(frozen=True, slots=True)
class AdministratorSettings:
    """How the SA behaves. ``capability_matching`` False is an SA that cannot find ports by a capability bit."""

    capability_matching: bool = True
    packet_life: int = 18
    """Time code of every path's packet life."""
    most_records: int = 65536
    """Records of one table; a query for more is refused with no resources."""
    reports: ReportSettings = field(default_factory=ReportSettings)


class SubnetAdministrator:
    """The SA on one port. It serves while :meth:`run` runs, once; :meth:`publish` gives it what to answer from.

    ``malformed`` counts requests dropped unread, ``queries`` those answered.
    """

    def __init__(self, gsi: GeneralServices, settings: AdministratorSettings = AdministratorSettings()) -> None:
        self._gsi = gsi
        self._settings = settings
        self._view = empty_view(DEFAULT_SUBNET_PREFIX)
        self.subscriptions = Subscriptions(gsi, settings.reports)
        self._unregister: Unwatch | None = None
        self._stopped = False
        self.malformed = 0
        self.queries = 0

    async def run(self) -> None:
        """Serve until cancelled; subscriptions end with it."""

        def started() -> None:
            if not self._stopped:
                self._unregister = self._gsi.register(ManagementClass.SUBN_ADM, self._request, _SERVED)

        try:
            await self.subscriptions.run(started)
        finally:
            self.stop()

    def stop(self) -> None:
        """Serve no more, at once; for who cannot wait until :meth:`run` has ended."""
        self._stopped = True
        if self._unregister is not None:
            self._unregister()
            self._unregister = None

    def publish(self, view: SubnetView) -> None:
        """Answer from ``view`` from now on. Subscribers that are not in it are dropped."""
        self._view = view
        self.subscriptions.keep_only(view)

    def report(self, trap: Trap, about: EndPort) -> None:
        """Tell subscribers of a trap of the port ``about``, or of one that concerns it (64, 65)."""
        view = self._view
        sm = view.by_lid.get(view.sm_lid)
        issuer = sm if isinstance(trap, GidTrap) else about
        if issuer is not None:
            notice = make_notice(trap, issuer_lid=issuer.lid, issuer_gid=issuer.gid)
            self.subscriptions.report(notice, about, view)

    def _request(self, received: ReceivedMad) -> None:
        mad = received.mad
        if mad[2] != SA_CLASS_VERSION:
            self._gsi.send(received.source, status_response(mad, MadStatus.BAD_VERSION))
            return
        try:
            header = SaHeader.decode(mad)
            requester = self._view.by_lid.get(received.source.lid)
            if requester is None:
                raise DecodeError(f"LID {received.source.lid} is not in the subnet")
        except DecodeError:
            self.malformed += 1
            return
        self.queries += 1
        try:
            self._answer(received, header, requester)
        except RefusedError as refused:
            self._gsi.send(received.source, sa_error(mad, refused.status))

    def _answer(self, received: ReceivedMad, header: SaHeader, requester: EndPort) -> None:
        mad = received.mad
        method, attribute = header.mad.method, header.mad.attribute_id
        if method not in (Method.GET, Method.GET_TABLE, Method.SET):
            raise RefusedError(MadStatus.UNSUPPORTED_METHOD)
        if method == Method.SET:
            if attribute != SaAttribute.INFORM_INFO:
                raise RefusedError(MadStatus.UNSUPPORTED_METHOD_ATTRIBUTE)
            info = decode_record(mad, InformInfo)
            status = self.subscriptions.set(received.source, info)
            if status:
                raise RefusedError(status)
            self._gsi.send(received.source, sa_response(mad, info))
            return
        if attribute == SaAttribute.CLASS_PORT_INFO and method == Method.GET:
            self._gsi.send(received.source, sa_response(mad, self._class_port_info()))
            return
        records = self._records(header, mad, requester)
        if method == Method.GET_TABLE:
            if len(records) > self._settings.most_records:
                raise RefusedError(SaStatus.NO_RESOURCES)
            message = sa_table(mad, records)
            self._gsi.send_rmpp(received.source, message[:SA_HEADER_LENGTH], message[SA_HEADER_LENGTH:])
        elif not records:
            raise RefusedError(SaStatus.NO_RECORDS)
        elif len(records) > 1:
            raise RefusedError(SaStatus.TOO_MANY_RECORDS)
        else:
            self._gsi.send(received.source, sa_response(mad, records[0]))

    def _class_port_info(self) -> ClassPortInfo:
        capabilities = SaCapability.OPTIONAL_RECORDS
        if self._settings.capability_matching:
            capabilities |= SaCapability.PORT_INFO_MASK_MATCH
        return ClassPortInfo(class_version=SA_CLASS_VERSION, capability_mask=capabilities, response_time=_RESPONSE_TIME)

    def _records(self, header: SaHeader, mad: bytes, requester: EndPort) -> Sequence[Structure]:
        mask = header.component_mask
        match header.mad.attribute_id:
            case SaAttribute.NODE_RECORD:
                return self._nodes(mask, decode_record(mad, NodeRecord), requester)
            case SaAttribute.PORT_INFO_RECORD:
                by_bits = bool(header.mad.attribute_modifier & MATCH_CAPABILITY_BITS)
                return self._ports(mask, decode_record(mad, PortInfoRecord), requester, by_bits=by_bits)
            case SaAttribute.PATH_RECORD:
                query = PathQuery(self._view, requester, mask, decode_record(mad, PathRecord))
                return query.records(self._settings.packet_life)
            case _:
                raise RefusedError(MadStatus.UNSUPPORTED_METHOD_ATTRIBUTE)

    def _nodes(self, mask: int, asked: NodeRecord, requester: EndPort) -> list[NodeRecord]:
        if mask & ~_NODE_MASK:
            raise RefusedError(SaStatus.REQUEST_INVALID)
        wanted = _wanted(_NODE_FIELDS, mask, asked.info)
        found: list[NodeRecord] = []
        for port in self._visible(mask & NodeRecordMask.LID, asked.lid, requester):
            if mask & NodeRecordMask.NODE_DESCRIPTION and port.description != asked.description:
                continue
            if all(getattr(port.node, name) == value for name, value in wanted):
                found.append(NodeRecord.of(port.lid, port.node, port.description))
        return found

    def _ports(self, mask: int, asked: PortInfoRecord, requester: EndPort, *, by_bits: bool) -> list[PortInfoRecord]:
        if mask & ~_PORT_MASK:
            raise RefusedError(SaStatus.REQUEST_INVALID)
        info = asked.info
        wanted = _wanted(_PORT_FIELDS, mask, info)
        capability = info.capability_mask if mask & PortInfoRecordMask.CAPABILITY_MASK else None
        by_bits = by_bits and self._settings.capability_matching
        found: list[PortInfoRecord] = []
        for port in self._visible(mask & PortInfoRecordMask.ENDPORT_LID, asked.endport_lid, requester):
            for number, own in self._port_infos(port):
                if mask & PortInfoRecordMask.PORT_NUMBER and number != asked.port_number:
                    continue
                if mask & PortInfoRecordMask.OPTIONS and asked.options:
                    continue
                if capability is not None and not _capable(own, capability, by_bits=by_bits):
                    continue
                if all(getattr(own, name) == value for name, value in wanted):
                    found.append(PortInfoRecord.of(port.lid, number, own))
        return found

    def _port_infos(self, port: EndPort) -> list[tuple[int, PortInfo]]:
        """The port itself and, of a switch, its outer ports: they share the LID of port 0."""
        outer = self._view.switch_ports.get(port.node.node_guid, ())
        return [(port.number, port.info), *enumerate(outer, start=1)]

    def _visible(self, by_lid: int, lid: int, requester: EndPort) -> list[EndPort]:
        view = self._view
        if by_lid:
            ports: Sequence[EndPort] = [view.by_lid[lid]] if lid in view.by_lid else []
        else:
            ports = view.end_ports
        return [port for port in ports if port.visible_to(requester)]


def _wanted(fields: Mapping[int, str], mask: int, asked: NodeInfo | PortInfo) -> list[tuple[str, int]]:
    return [(name, getattr(asked, name)) for bit, name in fields.items() if mask & bit]


def _capable(info: PortInfo, capability: int, *, by_bits: bool) -> bool:
    """Whether the capability mask matches: in all given bits, or exactly (IBA 15.2.5.3)."""
    if by_bits:
        return info.capability_mask & capability == capability
    return info.capability_mask == capability
