"""Device Management agent of one HCA port of a target: answers what discovery asks (IBA 16.3, SRP annex B)."""

from __future__ import annotations

from typing import Final

from srpha.core.seams import ReceivedMad, Unwatch
from srpha.embedded.target.io_unit import IoUnit
from srpha.embedded.target.transport import Datagrams
from srpha.wire.class_port_info import ClassPortInfo
from srpha.wire.dm import (
    DM_CLASS_VERSION,
    DM_DATA,
    DmAttribute,
    DmStatus,
    dm_response,
    read_dm_header,
    read_service_entries_modifier,
)
from srpha.wire.errors import DecodeError
from srpha.wire.layout import Structure
from srpha.wire.mad import MadHeader, MadStatus, ManagementClass, Method, read_header, status_response

_RESPONSE_TIME: Final = 18
"""4.096 us * 2**18, about one second."""


class DeviceManagementAgent:
    """Serves class 0x06 on one port between :meth:`start` and :meth:`stop`.

    Answers are Get ClassPortInfo, IOUnitInfo, IOControllerProfile, ServiceEntries, and Set ClassPortInfo, which Topspin
    initiators send to name the receiver of traps.
    """

    def __init__(self, gsi: Datagrams, unit: IoUnit) -> None:
        self._gsi = gsi
        self._unit = unit
        self._class_port_info = ClassPortInfo(class_version=DM_CLASS_VERSION, response_time=_RESPONSE_TIME)
        self._unregister: Unwatch | None = None
        self.silent = False
        """Whether requests are swallowed, as by a host that has crashed while its link stays up."""
        self.answered = 0
        """Requests answered since the agent was made, refusals included."""

    def start(self) -> None:
        """Serve the class; doing so twice is harmless."""
        self.silent = False
        if self._unregister is None:
            self._unregister = self._gsi.register(ManagementClass.DEVICE_MGMT, self._receive)

    def stop(self) -> None:
        """Leave the class; whoever asks then hears that it is not supported."""
        if self._unregister is not None:
            self._unregister()
            self._unregister = None

    def _receive(self, received: ReceivedMad) -> None:
        if self.silent:
            return
        try:
            answer = self._answer(received.mad)
        except DecodeError:
            return  # a datagram that is not even a request of this class
        if answer is not None:
            self.answered += 1
            self._gsi.send(received.source, answer)

    def _answer(self, request: bytes) -> bytes | None:
        header = read_header(request)
        if header.is_response or header.method == Method.SEND:
            return None
        if header.class_version != DM_CLASS_VERSION:
            return status_response(request, MadStatus.BAD_VERSION)
        header = read_dm_header(request)
        if header.method == Method.SET:
            if header.attribute_id != DmAttribute.CLASS_PORT_INFO:
                return status_response(request, MadStatus.UNSUPPORTED_METHOD_ATTRIBUTE)
            self._class_port_info = self._with_trap_receiver(ClassPortInfo.decode(request, DM_DATA))
            return dm_response(request, self._class_port_info)
        if header.method != Method.GET:
            return status_response(request, MadStatus.UNSUPPORTED_METHOD)
        found = self._get(header)
        return dm_response(request, status=found) if isinstance(found, int) else dm_response(request, found)

    def _get(self, header: MadHeader) -> Structure | int:
        """The attribute asked for, or the MAD status of the refusal."""
        modifier = header.attribute_modifier
        match header.attribute_id:
            case DmAttribute.CLASS_PORT_INFO:
                return self._class_port_info
            case DmAttribute.IO_UNIT_INFO:
                return self._unit.info()
            case DmAttribute.IO_CONTROLLER_PROFILE:
                if modifier == 0 or modifier > self._unit.info().max_controllers:
                    return int(MadStatus.INVALID_FIELD)
                return self._unit.profile(modifier) or int(DmStatus.NO_IOC)
            case DmAttribute.SERVICE_ENTRIES:
                return self._services(modifier)
            case _:
                return int(MadStatus.UNSUPPORTED_METHOD_ATTRIBUTE)

    def _services(self, modifier: int) -> Structure | int:
        try:
            slot, first, last = read_service_entries_modifier(modifier)
        except DecodeError:
            return int(MadStatus.INVALID_FIELD)
        if self._unit.controller(slot) is None:
            return int(DmStatus.NO_IOC)
        return self._unit.services(slot, first, last) or int(MadStatus.INVALID_FIELD)

    def _with_trap_receiver(self, written: ClassPortInfo) -> ClassPortInfo:
        """Our ClassPortInfo with the trap fields of ``written``; everything else cannot be set."""
        return ClassPortInfo(
            class_version=DM_CLASS_VERSION,
            response_time=_RESPONSE_TIME,
            trap_gid=written.trap_gid,
            trap_traffic_class=written.trap_traffic_class,
            trap_sl=written.trap_sl,
            trap_flow_label=written.trap_flow_label,
            trap_lid=written.trap_lid,
            trap_pkey=written.trap_pkey,
            trap_hop_limit=written.trap_hop_limit,
            trap_qpn=written.trap_qpn,
            trap_qkey=written.trap_qkey,
        )
