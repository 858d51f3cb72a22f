"""Primary commands: INQUIRY and VPD pages, REPORT LUNS, REQUEST SENSE, MODE SENSE, target port groups (SPC-4 6)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from srpha.embedded.target.outcome import GOOD, Outcome, attention_sense, good, invalid_field
from srpha.embedded.target.sbc_commands import Data, Handler
from srpha.embedded.target.unit_attention import Attention, ScsiNexus
from srpha.wire.scsi import vpd
from srpha.wire.scsi.alua import TargetPortGroup, TargetPortGroups, encode_rtpg
from srpha.wire.scsi.capacity import encode_report_luns
from srpha.wire.scsi.cdb import SA_TARGET_PORT_GROUPS, Op, parse
from srpha.wire.scsi.inquiry import TPGS_IMPLICIT, StandardInquiry
from srpha.wire.scsi.lun import encode_lun
from srpha.wire.scsi.mode import (
    DEVICE_DPOFUA,
    DEVICE_WRITE_PROTECT,
    PAGE_ALL,
    PAGE_CACHING,
    PAGE_CONTROL,
    CachingPage,
    ControlPage,
    encode_mode_sense,
)
from srpha.wire.scsi.sense import Asc, Sense, SenseKey, encode_descriptor, encode_fixed
from srpha.wire.scsi.status import ScsiStatus

if TYPE_CHECKING:
    from srpha.embedded.target.logical_unit import LogicalUnit

_REPORT_LUNS_MINIMUM: Final = 16
_SAVED_VALUES: Final = 3
_CHANGEABLE_VALUES: Final = 1
_ALL_SUBPAGES: Final = 0xFF


def _test_unit_ready(_unit: LogicalUnit, _nexus: ScsiNexus, _cdb: bytes, _data: Data) -> Outcome:
    return GOOD


def _inquiry(unit: LogicalUnit, nexus: ScsiNexus, cdb: bytes, _data: Data) -> Outcome:
    fields = parse(cdb)
    if fields.evpd:
        page = _vpd_page(unit, nexus, fields.page)
        return invalid_field(2) if page is None else good(page, fields.length)
    if fields.page:
        return invalid_field(2)
    target = unit.device.spec
    standard = StandardInquiry(
        target.vendor,
        target.product,
        target.revision,
        target_port_groups=TPGS_IMPLICIT if target.alua else 0,
        multi_port=len(target.iocs) > 1,
    )
    return good(standard.encode(), fields.length)


def _vpd_page(unit: LogicalUnit, nexus: ScsiNexus, page: int) -> bytes | None:
    """A vital product data page, None for one the unit does not have."""
    target = unit.device.spec
    match page:
        case vpd.PAGE_SUPPORTED:
            return vpd.encode_supported_pages(
                (vpd.PAGE_SUPPORTED, vpd.PAGE_SERIAL, vpd.PAGE_IDENTIFICATION, vpd.PAGE_BLOCK_LIMITS)
            )
        case vpd.PAGE_SERIAL:
            return vpd.encode_serial(unit.serial)
        case vpd.PAGE_IDENTIFICATION:
            relative = nexus.controller + 1
            designators = [
                vpd.naa_designator(unit.naa.to_bytes(16, "big")),
                vpd.t10_designator(target.vendor, unit.serial),
                vpd.relative_port_designator(relative),
            ]
            if target.alua:
                designators.append(vpd.port_group_designator(relative))
            return vpd.encode_identification(designators)
        case vpd.PAGE_BLOCK_LIMITS:
            return vpd.BlockLimits(max_transfer=unit.max_transfer // unit.block_size).encode()
        case _:
            return None


def _report_luns(unit: LogicalUnit, nexus: ScsiNexus, cdb: bytes, _data: Data) -> Outcome:
    return report_luns(unit.device.luns, nexus, cdb)


def report_luns(luns: tuple[int, ...], nexus: ScsiNexus, cdb: bytes) -> Outcome:
    """REPORT LUNS of a target with these LUNs. Only well-known LUNs (select report 1) are none here."""
    fields = parse(cdb)
    if fields.length < _REPORT_LUNS_MINIMUM:
        return invalid_field(6)
    if fields.select_report > 2:
        return invalid_field(2)
    nexus.withdraw(Attention.LUNS_CHANGED)
    listed = () if fields.select_report == 1 else luns
    return good(encode_report_luns([encode_lun(lun) for lun in listed]), fields.length)


def _request_sense(unit: LogicalUnit, nexus: ScsiNexus, cdb: bytes, _data: Data) -> Outcome:
    attention = nexus.take(unit.lun)
    sense = Sense.of(SenseKey.NO_SENSE, Asc.NO_INFORMATION) if attention is None else attention_sense(attention)
    return request_sense(sense, cdb)


def request_sense(sense: Sense, cdb: bytes) -> Outcome:
    """REQUEST SENSE that returns ``sense`` in the format the CDB asks for."""
    fields = parse(cdb)
    return good(encode_descriptor(sense) if fields.descriptor_sense else encode_fixed(sense), fields.length)


def _mode_sense(unit: LogicalUnit, _nexus: ScsiNexus, cdb: bytes, _data: Data) -> Outcome:
    fields = parse(cdb)
    if fields.page_control == _SAVED_VALUES:
        return _saving_unsupported()
    if fields.subpage not in (0, _ALL_SUBPAGES):
        return invalid_field(3)
    pages = {PAGE_CACHING: CachingPage().encode(), PAGE_CONTROL: ControlPage(queue_algorithm=1).encode()}
    if fields.page_control == _CHANGEABLE_VALUES:
        pages = {code: page[:2].ljust(len(page), b"\0") for code, page in pages.items()}
    if fields.page != PAGE_ALL:
        if fields.page not in pages:
            return invalid_field(2)
        pages = {fields.page: pages[fields.page]}
    descriptor = b""
    if not fields.disable_block_descriptors:
        descriptor = min(unit.blocks, 0xFFFFFFFF).to_bytes(4, "big") + unit.block_size.to_bytes(4, "big")
    device = DEVICE_DPOFUA | (DEVICE_WRITE_PROTECT if unit.write_protected else 0)
    ten = fields.op is Op.MODE_SENSE_10
    return good(encode_mode_sense(b"".join(pages.values()), device, descriptor, ten), fields.length)


def _saving_unsupported() -> Outcome:
    """SAVING PARAMETERS NOT SUPPORTED (SPC-4 6.13.1)."""
    return Outcome(ScsiStatus.CHECK_CONDITION, encode_fixed(Sense(SenseKey.ILLEGAL_REQUEST, 0x39, 0x00)))


def _maintenance_in(unit: LogicalUnit, _nexus: ScsiNexus, cdb: bytes, _data: Data) -> Outcome:
    """REPORT TARGET PORT GROUPS: each I/O controller is one target port and a group of its own."""
    fields = parse(cdb)
    if fields.service_action != SA_TARGET_PORT_GROUPS or not unit.device.spec.alua:
        return invalid_field(1)
    groups = tuple(
        TargetPortGroup(index + 1, state, (index + 1,)) for index, state in enumerate(unit.device.access_states)
    )
    transition = 0 if fields.extended_header else None
    return good(encode_rtpg(TargetPortGroups(groups, transition)), fields.length)


COMMANDS: Final[Mapping[int, Handler]] = MappingProxyType(
    {
        Op.TEST_UNIT_READY: _test_unit_ready,
        Op.REQUEST_SENSE: _request_sense,
        Op.INQUIRY: _inquiry,
        Op.MODE_SENSE_6: _mode_sense,
        Op.MODE_SENSE_10: _mode_sense,
        Op.REPORT_LUNS: _report_luns,
        Op.MAINTENANCE_IN: _maintenance_in,
    }
)

NEVER_REFUSED: Final = frozenset({Op.INQUIRY, Op.REPORT_LUNS, Op.REQUEST_SENSE})
"""Commands that a pending unit attention condition does not stop (SAM-5 5.14.1)."""

ALLOWED_IN_STANDBY: Final = NEVER_REFUSED | {Op.MODE_SENSE_6, Op.MODE_SENSE_10, Op.MAINTENANCE_IN}
"""Commands that a unit executes in every access state (SPC-4 5.15.2.4)."""
