"""Block commands: READ, WRITE, VERIFY, SYNCHRONIZE CACHE, READ CAPACITY (SBC-3 chapter 5).

READ and WRITE are the hot path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from srpha.embedded.target.outcome import GOOD, Outcome, check, good, invalid_field
from srpha.embedded.target.unit_attention import ScsiNexus
from srpha.wire.errors import DecodeError
from srpha.wire.scsi.capacity import Capacity, ReadCapacity16
from srpha.wire.scsi.cdb import SA_READ_CAPACITY_16, Op, parse, parse_rw
from srpha.wire.scsi.sense import Asc, SenseKey
from srpha.wire.scsi.status import ScsiStatus

if TYPE_CHECKING:
    from srpha.embedded.target.logical_unit import LogicalUnit

Data = bytes | bytearray | memoryview
Handler = Callable[["LogicalUnit", ScsiNexus, bytes, Data], Outcome]
"""Executes one command whose CDB is as long as its operation code asks for."""

_PROTECT: Final = 0xE0
"""RDPROTECT, WRPROTECT, VRPROTECT: units here carry no protection information."""
_GOOD_STATUS: Final = int(ScsiStatus.GOOD)
_BYTCHK_ALL: Final = 0x02
_BYTCHK_ONE: Final = 0x06


def _request(cdb: bytes) -> tuple[int, int]:
    """``(LBA, blocks)`` of a CDB that :func:`parse_rw` knows."""
    parsed = parse_rw(cdb)
    if parsed is None:
        raise DecodeError(f"CDB {cdb.hex()} is no block command")
    return parsed[1], parsed[2]


def _read(unit: LogicalUnit, _nexus: ScsiNexus, cdb: bytes, _data: Data) -> Outcome:
    lba, blocks = _request(cdb)
    if lba + blocks > unit.blocks:
        return _out_of_range()
    if cdb[1] & _PROTECT and cdb[0] != Op.READ_6:
        return invalid_field(1)
    size = unit.block_size
    length = blocks * size
    if length > unit.max_transfer:
        return _too_long(cdb)
    return Outcome(_GOOD_STATUS, b"", unit.backing.read(lba * size, length), 0)


def _write(unit: LogicalUnit, _nexus: ScsiNexus, cdb: bytes, data: Data) -> Outcome:
    lba, blocks = _request(cdb)
    if lba + blocks > unit.blocks:
        return _out_of_range()
    if cdb[1] & _PROTECT and cdb[0] != Op.WRITE_6:
        return invalid_field(1)
    size = unit.block_size
    length = blocks * size
    if length > unit.max_transfer:
        return _too_long(cdb)
    if unit.write_protected:
        return check(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
    sent = len(data)
    if sent < length:
        return _data_missing(length)
    if sent > length:
        data = memoryview(data)[:length]
    unit.backing.write(lba * size, data)
    return Outcome(_GOOD_STATUS, b"", b"", length)


def _verify(unit: LogicalUnit, _nexus: ScsiNexus, cdb: bytes, data: Data) -> Outcome:
    """VERIFY: without BYTCHK the medium is readable by definition; with it, the data must be what is there."""
    lba, blocks = _request(cdb)
    if lba + blocks > unit.blocks:
        return _out_of_range()
    byte_check = cdb[1] & 0x06
    if cdb[1] & _PROTECT or byte_check == 0x04:
        return invalid_field(1)
    if not byte_check or not blocks:
        return GOOD
    size = unit.block_size
    length = blocks * size
    if length > unit.max_transfer:
        return _too_long(cdb)
    wanted = size if byte_check == _BYTCHK_ONE else length
    if len(data) < wanted:
        return _data_missing(wanted)
    expected = bytes(data[:wanted])
    if byte_check == _BYTCHK_ONE:
        expected *= blocks
    stored = unit.backing.read(lba * size, length)
    if stored != expected:
        first = next(at for at, (left, right) in enumerate(zip(stored, expected, strict=True)) if left != right)
        return check(SenseKey.MISCOMPARE, Asc.MISCOMPARE, information=first, taken=wanted)
    return Outcome(_GOOD_STATUS, b"", b"", wanted)


def _synchronize_cache(unit: LogicalUnit, _nexus: ScsiNexus, cdb: bytes, _data: Data) -> Outcome:
    fields = parse(cdb)
    if fields.lba + fields.blocks > unit.blocks:
        return _out_of_range()
    unit.backing.flush()
    return GOOD


def _read_capacity_10(unit: LogicalUnit, _nexus: ScsiNexus, cdb: bytes, _data: Data) -> Outcome:
    fields = parse(cdb)
    if fields.lba and not cdb[8] & 1:
        return invalid_field(2)
    return good(Capacity(unit.blocks, unit.block_size).encode_10(), fields.length)


def _service_action_in(unit: LogicalUnit, _nexus: ScsiNexus, cdb: bytes, _data: Data) -> Outcome:
    fields = parse(cdb)
    if fields.service_action != SA_READ_CAPACITY_16:
        return invalid_field(1)
    if fields.lba and not cdb[14] & 1:
        return invalid_field(2)
    return good(ReadCapacity16(last_lba=unit.blocks - 1, block_length=unit.block_size).encode(), fields.length)


def _out_of_range() -> Outcome:
    return check(SenseKey.ILLEGAL_REQUEST, Asc.LBA_OUT_OF_RANGE)


def _too_long(cdb: bytes) -> Outcome:
    """More than the maximum transfer length of VPD page 0xB0 (SBC-3 6.6.4): points at the transfer length field."""
    return invalid_field({0: 4, 1: 7, 4: 10, 5: 6}[cdb[0] >> 5])


def _data_missing(wanted: int) -> Outcome:
    """The initiator sends less than the CDB says: nothing is written or compared, as LIO has it."""
    code = Asc.INVALID_FIELD_IN_CDB
    return check(SenseKey.ILLEGAL_REQUEST, code, taken=wanted)


COMMANDS: Final[Mapping[int, Handler]] = MappingProxyType(
    {
        Op.READ_6: _read,
        Op.READ_10: _read,
        Op.READ_12: _read,
        Op.READ_16: _read,
        Op.WRITE_6: _write,
        Op.WRITE_10: _write,
        Op.WRITE_12: _write,
        Op.WRITE_16: _write,
        Op.VERIFY_10: _verify,
        Op.VERIFY_16: _verify,
        Op.SYNCHRONIZE_CACHE_10: _synchronize_cache,
        Op.SYNCHRONIZE_CACHE_16: _synchronize_cache,
        Op.READ_CAPACITY_10: _read_capacity_10,
        Op.SERVICE_ACTION_IN_16: _service_action_in,
    }
)
