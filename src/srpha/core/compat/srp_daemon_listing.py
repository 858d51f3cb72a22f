"""What srp_daemon and ibsrpdm print, byte for byte (facts: srp A.4; observed on srptools 44).

The human listing shows I/O units in their own words, whatever rules and connections there are. The other form is one
``add_target`` line per target port. A unit is shown once for each partition that it shares with the local port, in the
order of the port's P_Key table.

What a unit says is made harmless first: bytes that no terminal should see become ``?``, and a service whose name does
not hold 16 hex digits gets no line (srp_daemon would pass such text on to the kernel).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from srpha.core.discovery.dm_walk import srp_service
from srpha.core.discovery.scan_result import Controller, IoUnit, ScanResult, Standing
from srpha.core.seams import Connection
from srpha.core.targets.add_target import format_target_line
from srpha.core.targets.rules import Verdict
from srpha.core.targets.target_port import InitiatorExt, TargetPort
from srpha.wire.dm import SRP_SERVICE_PREFIX, IoUnitInfo, SlotState

NO_TARGETS = "Query did not find any targets\n"
"""Printed with ``-v`` when the subnet lists no I/O unit at all."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """An I/O unit seen in one partition of the local port, and the target ports it is there."""

    unit: IoUnit
    pkey: int

    @property
    def targets(self) -> tuple[TargetPort, ...]:
        """Target ports in the order of controllers and service entries."""
        services = (
            srp_service(controller.profile, entry)
            for controller in self.unit.controllers
            for _, entry in controller.services
        )
        return tuple(service.at(self.unit.gid, self.pkey) for service in services if service is not None)


def sightings(result: ScanResult, local_port: str) -> Iterator[Sighting]:
    """Every unit that answered, by GUID, in every partition in which ``local_port`` reaches it."""
    reach = next((item for item in result.reach if item.local_port == local_port), None)
    for unit in result.units:
        if unit.standing is Standing.FOUND and reach is not None:
            for pkey in reach.pkeys.get(unit.guid, ()):
                yield Sighting(unit, pkey)


def unit_listing(unit: IoUnit, *, slots: bool) -> str:
    """The human listing of one unit; ``slots`` adds a line for each controller slot (``-v``)."""
    info = unit.info
    if info is None:
        return ""
    lines = [
        "IO Unit Info:",
        f"    port LID:        {unit.lid:04x}",
        f"    port GID:        {unit.gid.hex()}",
        f"    change ID:       {info.change_id:04x}",
        f"    max controllers: 0x{info.max_controllers:02x}",
    ]
    if slots:
        lines += [f"    controller[{slot:3}]: {_slot(info, slot)}" for slot in range(1, info.max_controllers + 1)]
    lines.append("")
    for controller in unit.controllers:
        lines += _controller(controller)
    return "\n".join(lines) + "\n"


def _slot(info: IoUnitInfo, slot: int) -> str:
    match info.slot(slot):
        case SlotState.EMPTY:
            return "not installed"
        case SlotState.PRESENT:
            return "present"
        case SlotState.NO_SLOT:
            return "no slot"
        case _:
            return "<unknown>"


def _controller(controller: Controller) -> Iterator[str]:
    profile = controller.profile
    size = profile.send_message_size
    yield f"    controller[{controller.slot:3}]"
    yield f"        GUID:      {profile.guid:016x}"
    yield f"        vendor ID: {profile.vendor_id:06x}"
    yield f"        device ID: {profile.device_id:06x}"
    yield f"        IO class : {profile.io_class:04x}"
    # srp_daemon shows this field as a signed number.
    yield f"        Maximum size of Send Messages in bytes: {size - (1 << 32) if size >> 31 else size}"
    yield f"        ID:        {_text(profile.id_string)}"
    yield f"        service entries: {profile.service_entries}"
    for number, entry in controller.services:
        if entry.name[len(SRP_SERVICE_PREFIX) :].rstrip(b"\0").strip():
            yield f"            service[{number:3}]: {entry.service_id:016x} / {_text(entry.name)}"
    yield ""


def _text(field: bytes) -> str:
    """Text up to the first zero byte, blanks at its end included; what is no printable ASCII becomes ``?``."""
    text = field.split(b"\0", 1)[0]
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in text)


@dataclass(frozen=True, slots=True)
class LineStyle:
    """What the command line and the driver's state say of all lines."""

    initiator_ext: InitiatorExt
    tl_retry_count: int | None = None
    """Of ``-l``; srp_daemon writes it only together with ``-e``."""
    max_imm_data: int | None = None
    """ib_srp's immediate-data size when it uses any; a target that takes less gets ``max_it_iu_size``."""


def connection_line(target: TargetPort, verdict: Verdict, style: LineStyle) -> str:
    """The line that ``-c`` prints and ``-e`` hands to the driver, without a newline.

    Options stand where srp_daemon puts them: ``-l`` first, then the rule's in its order (of a repeated key the driver
    takes the last), then ``max_it_iu_size``, because an old driver stops reading there.
    """
    items = [format_target_line(target.line(style.initiator_ext))]
    if style.tl_retry_count is not None:
        items.append(f"tl_retry_count={style.tl_retry_count}")
    items += [f"{key}={value}" for key, value in verdict.options.items()]
    if style.max_imm_data is not None and style.max_imm_data > target.send_message_size:
        items.append(f"max_it_iu_size={target.send_message_size}")
    return ",".join(items)


def is_connected(
    target: TargetPort, connections: Iterable[Connection], local_port: str, *, any_pkey: bool = False
) -> bool:
    """Whether a connection from ``local_port`` to ``target`` exists, whoever made it (facts: srp A.7).

    ``any_pkey``: one in another partition counts too, as with ``-e``. A connection on its way out does not count.
    """
    for item in connections:
        gid = item.orig_dgid if item.orig_dgid is not None else item.dgid
        same = (item.local_port, item.id_ext, item.ioc_guid, item.service_id, gid) == (
            local_port,
            target.id_ext,
            target.ioc_guid,
            target.service_id,
            target.dgid,
        )
        if same and not item.removing and (any_pkey or item.pkey == target.pkey):
            return True
    return False


def complaints(result: ScanResult, local_port: str) -> tuple[str, ...]:
    """What went wrong in a scan, a sentence each: silent units, refused services, answers that did not come."""
    sentences = [] if result.complete else [f"the list of targets is not complete: {result.reason}"]
    reached: set[int] = set()
    for reach in result.reach:
        if not reach.known:
            sentences.append(f"the paths of {reach.local_port} are not known: {reach.reason}")
        if reach.local_port == local_port:
            reached.update(guid for guid, pkeys in reach.pkeys.items() if pkeys)
    for unit in result.units:
        if unit.guid in reached:
            where = f"I/O unit {unit.guid:016x} with LID {unit.lid}"
            sentences += [f"{where}: {sentence}" for sentence in (unit.reason, *unit.refused) if sentence]
    return tuple(sentences)
