"""SCSI scan of a target: which logical units it has and what each says of itself (SPC-4 6.6, 6.33, 7.8; SBC-3 5.16)."""

from __future__ import annotations

import asyncio
from typing import Final

from srpha.core.scsi_io import ScsiCommand, UnitIdentity
from srpha.embedded.initiator.device import UnitQueue
from srpha.wire.errors import DecodeError
from srpha.wire.scsi import cdb
from srpha.wire.scsi.capacity import CAPACITY_10_LIMIT, ReadCapacity10, ReadCapacity16, decode_report_luns
from srpha.wire.scsi.inquiry import PERIPHERAL_DISK, StandardInquiry, decode_standard_inquiry
from srpha.wire.scsi.mode import PAGE_ALL, decode_mode_sense
from srpha.wire.scsi.sense import SenseKey, decode_sense
from srpha.wire.scsi.status import HostByte, ScsiStatus
from srpha.wire.scsi.vpd import (
    PAGE_IDENTIFICATION,
    PAGE_SERIAL,
    PAGE_SUPPORTED,
    decode_identification,
    decode_serial,
    decode_supported_pages,
    port_group,
    wwid,
)

LUNS_MAX: Final = 512
"""Logical units taken from one target (the kernel's max_report_luns is of this order)."""
_TRIES: Final = 4
"""Unit attentions, BUSY and TASK SET FULL met on the way are asked again this often."""
_BUSY_PAUSE: Final = 0.1
_BLOCK_SIZES: Final = (512, 1024, 2048, 4096)


class UnitRefusedError(Exception):
    """The unit answered a command of the scan with an error, or with data that make no sense."""


class TransportLostError(Exception):
    """The connection was lost during the scan."""


async def report_luns(unit: UnitQueue, timeout: float) -> tuple[int, ...]:
    """LUN fields (8 bytes as integers) of the target, at most :data:`LUNS_MAX`; LUN 0 alone when it cannot tell.

    Raises :class:`TransportLostError`.
    """
    try:
        data = await ask(unit, cdb.report_luns(8 + 8 * LUNS_MAX), 8 + 8 * LUNS_MAX, timeout)
        fields, _ = decode_report_luns(data)
    except (UnitRefusedError, DecodeError):
        return (0,)
    return tuple(dict.fromkeys(int.from_bytes(field, "big") for field in fields))


async def identify(unit: UnitQueue, timeout: float) -> UnitIdentity | None:
    """What a unit says of itself; None when it is no disk or has no name to join paths by.

    Raises :class:`UnitRefusedError` and :class:`TransportLostError`.
    """
    try:
        standard = decode_standard_inquiry(await ask(unit, cdb.inquiry(96), 96, timeout))
        if standard.peripheral != PERIPHERAL_DISK:
            return None
        pages = decode_supported_pages(await ask(unit, cdb.inquiry(252, PAGE_SUPPORTED), 252, timeout))
        if PAGE_IDENTIFICATION not in pages:
            return None
        designators = decode_identification(await ask(unit, cdb.inquiry(4096, PAGE_IDENTIFICATION), 4096, timeout))
        name = wwid(designators)
        if name is None:
            return None
        serial = ""
        if PAGE_SERIAL in pages:
            serial = decode_serial(await ask(unit, cdb.inquiry(252, PAGE_SERIAL), 252, timeout))
        blocks, block_size = await _capacity(unit, timeout)
        mode = decode_mode_sense(await ask(unit, cdb.mode_sense_6(PAGE_ALL), 192, timeout))
    except DecodeError as error:
        raise UnitRefusedError(f"LUN {unit.lun}: {error}") from error
    return _identity(standard, name, serial, blocks, block_size, mode.write_protected, port_group(designators))


def _identity(
    standard: StandardInquiry, name: str, serial: str, blocks: int, block_size: int, protected: bool, group: int | None
) -> UnitIdentity:
    return UnitIdentity(
        wwid=name,
        serial=serial,
        vendor=standard.vendor,
        product=standard.product,
        revision=standard.revision,
        blocks=blocks,
        block_size=block_size,
        write_protected=protected,
        target_port_group=group if standard.target_port_groups else None,
    )


async def _capacity(unit: UnitQueue, timeout: float) -> tuple[int, int]:
    """Blocks and bytes per block; READ CAPACITY (16) first, (10) for units that do not have it."""
    try:
        large = ReadCapacity16.decode(await ask(unit, cdb.read_capacity_16(32), 32, timeout))
        last, size = large.last_lba, large.block_length
    except UnitRefusedError:
        small = ReadCapacity10.decode(await ask(unit, cdb.read_capacity_10(), 8, timeout))
        if small.last_lba == CAPACITY_10_LIMIT:
            raise
        last, size = small.last_lba, small.block_length
    if size not in _BLOCK_SIZES:
        raise DecodeError(f"blocks of {size} bytes")
    return last + 1, size


async def ask(unit: UnitQueue, block: bytes, length: int, timeout: float) -> bytes:
    """Send one command that reads up to ``length`` bytes; what came. Unit attentions and BUSY are asked again.

    Raises :class:`UnitRefusedError` and :class:`TransportLostError`.
    """
    what = ""
    for _ in range(_TRIES):
        data = bytearray(length)
        command = await _execute(unit, block, data, timeout)
        if command.host_byte is not HostByte.OK:
            if command.host_byte in (HostByte.ABORT, HostByte.RESET, HostByte.TIME_OUT, HostByte.ERROR):
                raise UnitRefusedError(f"LUN {unit.lun}: {command.host_byte.name} for CDB {block.hex()}")
            raise TransportLostError(f"LUN {unit.lun}: {command.host_byte.name} for CDB {block.hex()}")
        match command.status:
            case ScsiStatus.GOOD:
                return bytes(data[: length - max(0, command.residual)])
            case ScsiStatus.BUSY | ScsiStatus.TASK_SET_FULL:
                what = command.status.name
                await asyncio.sleep(_BUSY_PAUSE)
            case ScsiStatus.CHECK_CONDITION:
                what = _sense_text(command)
                if not _is_attention(command):
                    break
            case status:
                what = status.name
                break
    raise UnitRefusedError(f"LUN {unit.lun}: {what} for CDB {block.hex()}")


async def _execute(unit: UnitQueue, block: bytes, data: bytearray, timeout: float) -> ScsiCommand:
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(_command: ScsiCommand) -> None:
        if not finished.done():
            finished.set_result(None)

    command = ScsiCommand(block, done, data_in=data, timeout=timeout, fail_fast=True)
    unit.submit(command)
    await finished
    return command


def _is_attention(command: ScsiCommand) -> bool:
    try:
        return decode_sense(command.sense).key == SenseKey.UNIT_ATTENTION
    except DecodeError:
        return False


def _sense_text(command: ScsiCommand) -> str:
    try:
        return str(decode_sense(command.sense))
    except DecodeError:
        return f"CHECK CONDITION with sense {command.sense.hex() or 'missing'}"
