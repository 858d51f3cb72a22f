"""Command descriptor blocks (SPC-4 chapter 6, SBC-3 chapter 5): builders, and parsers for a device server.

:func:`parse_rw` is the quick way for READ, WRITE and VERIFY; :func:`parse` reads everything else this project serves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from srpha.wire.errors import DecodeError, EncodeError

CDB_LENGTHS: Final = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}
"""CDB bytes by command group (top three bits of the opcode); groups 3, 6 and 7 have none of their own."""


class Op(IntEnum):
    """Operation codes."""

    TEST_UNIT_READY = 0x00
    REQUEST_SENSE = 0x03
    READ_6 = 0x08
    WRITE_6 = 0x0A
    INQUIRY = 0x12
    RESERVE_6 = 0x16
    RELEASE_6 = 0x17
    MODE_SENSE_6 = 0x1A
    START_STOP_UNIT = 0x1B
    READ_CAPACITY_10 = 0x25
    READ_10 = 0x28
    WRITE_10 = 0x2A
    VERIFY_10 = 0x2F
    SYNCHRONIZE_CACHE_10 = 0x35
    UNMAP = 0x42
    MODE_SENSE_10 = 0x5A
    PERSISTENT_RESERVE_IN = 0x5E
    PERSISTENT_RESERVE_OUT = 0x5F
    READ_16 = 0x88
    COMPARE_AND_WRITE = 0x89
    WRITE_16 = 0x8A
    VERIFY_16 = 0x8F
    SYNCHRONIZE_CACHE_16 = 0x91
    WRITE_SAME_16 = 0x93
    SERVICE_ACTION_IN_16 = 0x9E
    REPORT_LUNS = 0xA0
    MAINTENANCE_IN = 0xA3
    MAINTENANCE_OUT = 0xA4
    READ_12 = 0xA8
    WRITE_12 = 0xAA


SA_READ_CAPACITY_16: Final = 0x10
SA_TARGET_PORT_GROUPS: Final = 0x0A
"""Service action of REPORT and SET TARGET PORT GROUPS."""


class RwKind(Enum):
    """What :func:`parse_rw` found."""

    READ = "read"
    WRITE = "write"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class Cdb:
    """Fields of a CDB that is not READ, WRITE or VERIFY; those a command lacks are 0 or ``False``.

    ``length`` is the allocation or parameter list length in bytes; ``lba`` and ``blocks`` are of block commands.
    ``page`` and ``subpage`` are of INQUIRY (VPD) and MODE SENSE.
    """

    op: Op
    length: int = 0
    service_action: int = 0
    lba: int = 0
    blocks: int = 0
    page: int = 0
    subpage: int = 0
    evpd: bool = False
    extended_header: bool = False
    descriptor_sense: bool = False
    disable_block_descriptors: bool = False
    page_control: int = 0
    immediate: bool = False
    unmap: bool = False
    select_report: int = 0
    scope_and_type: int = 0
    start: bool = False
    control: int = 0


# flags byte, LBA, (group,) length, control: the block command shapes of SBC-3
_RW_10: Final = struct.Struct(">BBIxHB")
_RW_12: Final = struct.Struct(">BBIIxB")
_RW_16: Final = struct.Struct(">BBQIxB")
_BUILD_10: Final = struct.Struct(">BBIBHB")
_BUILD_12: Final = struct.Struct(">BBIIBB")
_BUILD_16: Final = struct.Struct(">BBQIBB")

_FUA: Final = 0x08
_SHAPES: Final[dict[int, tuple[RwKind, Callable[..., tuple[int, ...]], int]]] = {
    Op.READ_10: (RwKind.READ, _RW_10.unpack_from, 10),
    Op.WRITE_10: (RwKind.WRITE, _RW_10.unpack_from, 10),
    Op.VERIFY_10: (RwKind.VERIFY, _RW_10.unpack_from, 10),
    Op.READ_12: (RwKind.READ, _RW_12.unpack_from, 12),
    Op.WRITE_12: (RwKind.WRITE, _RW_12.unpack_from, 12),
    Op.READ_16: (RwKind.READ, _RW_16.unpack_from, 16),
    Op.WRITE_16: (RwKind.WRITE, _RW_16.unpack_from, 16),
    Op.VERIFY_16: (RwKind.VERIFY, _RW_16.unpack_from, 16),
}


def parse_rw(cdb: bytes) -> tuple[RwKind, int, int, bool] | None:
    """``(kind, LBA, blocks, FUA)`` of READ, WRITE or VERIFY of any length; ``None`` for other commands.

    VERIFY with BYTCHK gives ``True`` in the last place: the initiator sends data to compare.
    """
    shape = _SHAPES.get(cdb[0]) if cdb else None
    if shape is None:
        if cdb and cdb[0] in {Op.READ_6, Op.WRITE_6}:
            if len(cdb) < 6:
                raise DecodeError(f"CDB {cdb.hex()} has {len(cdb)} bytes, needs 6")
            kind = RwKind.READ if cdb[0] == Op.READ_6 else RwKind.WRITE
            return kind, int.from_bytes(cdb[1:4], "big") & 0x1FFFFF, cdb[4] or 256, False
        return None
    kind, unpack, length = shape
    if len(cdb) < length:
        raise DecodeError(f"CDB {cdb.hex()} has {len(cdb)} bytes, needs {length}")
    _, flags, lba, blocks, _ = unpack(cdb)
    return kind, lba, blocks, flags & (0x06 if kind is RwKind.VERIFY else _FUA) != 0


def parse(cdb: bytes) -> Cdb:
    """Read a CDB other than READ, WRITE and VERIFY; :class:`DecodeError` for an unknown opcode or a short CDB."""
    if not cdb:
        raise DecodeError("empty CDB")
    known = Op._value2member_map_.get(cdb[0])
    if not isinstance(known, Op):
        raise DecodeError(f"unknown SCSI opcode {cdb[0]:#04x}")
    needed = CDB_LENGTHS[known >> 5]
    if len(cdb) < needed:
        raise DecodeError(f"CDB of {known.name} has {len(cdb)} bytes, needs {needed}")
    control = cdb[needed - 1]
    match known:
        case Op.TEST_UNIT_READY | Op.RESERVE_6 | Op.RELEASE_6:
            return Cdb(known, control=control)
        case Op.REQUEST_SENSE:
            return Cdb(known, cdb[4], descriptor_sense=bool(cdb[1] & 1), control=control)
        case Op.INQUIRY:
            return Cdb(known, _be(cdb, 3, 5), page=cdb[2], evpd=bool(cdb[1] & 1), control=control)
        case Op.MODE_SENSE_6 | Op.MODE_SENSE_10:
            length = cdb[4] if known is Op.MODE_SENSE_6 else _be(cdb, 7, 9)
            return Cdb(
                known,
                length,
                page=cdb[2] & 0x3F,
                page_control=cdb[2] >> 6,
                subpage=cdb[3],
                disable_block_descriptors=bool(cdb[1] & 0x08),
                control=control,
            )
        case Op.START_STOP_UNIT:
            return Cdb(known, start=bool(cdb[4] & 1), immediate=bool(cdb[1] & 1), control=control)
        case Op.READ_CAPACITY_10:
            return Cdb(known, 8, lba=_be(cdb, 2, 6), control=control)
        case Op.SYNCHRONIZE_CACHE_10:
            return Cdb(known, lba=_be(cdb, 2, 6), blocks=_be(cdb, 7, 9), immediate=bool(cdb[1] & 2), control=control)
        case Op.SYNCHRONIZE_CACHE_16:
            return Cdb(known, lba=_be(cdb, 2, 10), blocks=_be(cdb, 10, 14), immediate=bool(cdb[1] & 2), control=control)
        case Op.UNMAP:
            return Cdb(known, _be(cdb, 7, 9), control=control)
        case Op.PERSISTENT_RESERVE_IN:
            return Cdb(known, _be(cdb, 7, 9), cdb[1] & 0x1F, control=control)
        case Op.PERSISTENT_RESERVE_OUT:
            return Cdb(known, _be(cdb, 5, 9), cdb[1] & 0x1F, scope_and_type=cdb[2], control=control)
        case Op.COMPARE_AND_WRITE:
            return Cdb(known, lba=_be(cdb, 2, 10), blocks=cdb[13], control=control)
        case Op.WRITE_SAME_16:
            return Cdb(known, lba=_be(cdb, 2, 10), blocks=_be(cdb, 10, 14), unmap=bool(cdb[1] & 8), control=control)
        case Op.SERVICE_ACTION_IN_16:
            return Cdb(known, _be(cdb, 10, 14), cdb[1] & 0x1F, lba=_be(cdb, 2, 10), control=control)
        case Op.REPORT_LUNS:
            return Cdb(known, _be(cdb, 6, 10), select_report=cdb[2], control=control)
        case Op.MAINTENANCE_IN | Op.MAINTENANCE_OUT:
            # REPORT TARGET PORT GROUPS: parameter data format 1 asks for the extended header
            extended = known is Op.MAINTENANCE_IN and cdb[1] >> 5 == 1
            return Cdb(known, _be(cdb, 6, 10), cdb[1] & 0x1F, extended_header=extended, control=control)
        case _:
            raise DecodeError(f"{known.name} is read by parse_rw")


def test_unit_ready() -> bytes:
    """TEST UNIT READY (SPC-4 6.47)."""
    return bytes(6)


def request_sense(length: int = 252, descriptor: bool = False) -> bytes:
    """REQUEST SENSE (SPC-4 6.39)."""
    return bytes([Op.REQUEST_SENSE, descriptor, 0, 0, _fit(length, 8), 0])


def inquiry(length: int, page: int | None = None) -> bytes:
    """INQUIRY (SPC-4 6.6): standard data, or VPD page ``page``."""
    return bytes([Op.INQUIRY, page is not None, _fit(page or 0, 8)]) + _fit(length, 16).to_bytes(2, "big") + b"\0"


def report_luns(length: int, select_report: int = 0) -> bytes:
    """REPORT LUNS (SPC-4 6.33); ``length`` at least 16."""
    return bytes([Op.REPORT_LUNS, 0, _fit(select_report, 8), 0, 0, 0]) + _fit(length, 32).to_bytes(4, "big") + bytes(2)


def read_capacity_10() -> bytes:
    """READ CAPACITY (10) (SBC-3 5.15)."""
    return bytes([Op.READ_CAPACITY_10]) + bytes(9)


def read_capacity_16(length: int = 32) -> bytes:
    """READ CAPACITY (16) (SBC-3 5.16)."""
    return (
        bytes([Op.SERVICE_ACTION_IN_16, SA_READ_CAPACITY_16])
        + bytes(8)
        + _fit(length, 32).to_bytes(4, "big")
        + bytes(2)
    )


def mode_sense_6(page: int, length: int = 192, subpage: int = 0, no_descriptors: bool = True) -> bytes:
    """MODE SENSE (6) (SPC-4 6.13), current values."""
    return bytes([Op.MODE_SENSE_6, no_descriptors << 3, _fit(page, 6), _fit(subpage, 8), _fit(length, 8), 0])


def mode_sense_10(page: int, length: int = 512, subpage: int = 0, no_descriptors: bool = True) -> bytes:
    """MODE SENSE (10) (SPC-4 6.14), current values."""
    head = bytes([Op.MODE_SENSE_10, no_descriptors << 3, _fit(page, 6), _fit(subpage, 8), 0, 0, 0])
    return head + _fit(length, 16).to_bytes(2, "big") + b"\0"


def report_target_port_groups(length: int, extended: bool = True) -> bytes:
    """REPORT TARGET PORT GROUPS (SPC-4 6.37), by default with the extended header that tells the transition time."""
    head = bytes([Op.MAINTENANCE_IN, extended << 5 | SA_TARGET_PORT_GROUPS, 0, 0, 0, 0])
    return head + _fit(length, 32).to_bytes(4, "big") + bytes(2)


def set_target_port_groups(length: int) -> bytes:
    """SET TARGET PORT GROUPS (SPC-4 6.45) with a parameter list of ``length`` bytes."""
    head = bytes([Op.MAINTENANCE_OUT, SA_TARGET_PORT_GROUPS, 0, 0, 0, 0])
    return head + _fit(length, 32).to_bytes(4, "big") + bytes(2)


def read(lba: int, blocks: int, fua: bool = False) -> bytes:
    """READ (10), or READ (16) where the address or the count needs it."""
    return _block_command(Op.READ_10, Op.READ_16, lba, blocks, fua << 3)


def write(lba: int, blocks: int, fua: bool = False) -> bytes:
    """WRITE (10), or WRITE (16) where the address or the count needs it."""
    return _block_command(Op.WRITE_10, Op.WRITE_16, lba, blocks, fua << 3)


def verify(lba: int, blocks: int) -> bytes:
    """VERIFY (10) or (16) without BYTCHK: the medium only."""
    return _block_command(Op.VERIFY_10, Op.VERIFY_16, lba, blocks, 0)


def synchronize_cache(lba: int = 0, blocks: int = 0) -> bytes:
    """SYNCHRONIZE CACHE (10) or (16); 0 blocks means to the end of the medium."""
    return _block_command(Op.SYNCHRONIZE_CACHE_10, Op.SYNCHRONIZE_CACHE_16, lba, blocks, 0)


def write_same_16(lba: int, blocks: int, unmap: bool = False) -> bytes:
    """WRITE SAME (16) (SBC-3 5.44)."""
    return _pack(_BUILD_16, Op.WRITE_SAME_16, unmap << 3, lba, blocks, 0, 0)


def read_12(lba: int, blocks: int, fua: bool = False) -> bytes:
    """READ (12)."""
    return _pack(_BUILD_12, Op.READ_12, fua << 3, lba, blocks, 0, 0)


def read_16(lba: int, blocks: int, fua: bool = False) -> bytes:
    """READ (16)."""
    return _pack(_BUILD_16, Op.READ_16, fua << 3, lba, blocks, 0, 0)


def write_12(lba: int, blocks: int, fua: bool = False) -> bytes:
    """WRITE (12)."""
    return _pack(_BUILD_12, Op.WRITE_12, fua << 3, lba, blocks, 0, 0)


def write_16(lba: int, blocks: int, fua: bool = False) -> bytes:
    """WRITE (16)."""
    return _pack(_BUILD_16, Op.WRITE_16, fua << 3, lba, blocks, 0, 0)


def _block_command(short: Op, long: Op, lba: int, blocks: int, flags: int) -> bytes:
    if 0 <= lba <= 0xFFFFFFFF and 0 <= blocks <= 0xFFFF:
        return _BUILD_10.pack(short, flags, lba, 0, blocks, 0)
    return _pack(_BUILD_16, long, flags, lba, blocks, 0, 0)


def _pack(layout: struct.Struct, op: Op, *values: int) -> bytes:
    try:
        return layout.pack(op, *values)
    except struct.error as error:
        raise EncodeError(f"{op.name} {values}: {error}") from error


def _fit(value: int, bits: int) -> int:
    if not 0 <= value < 1 << bits:
        raise EncodeError(f"{value} does not fit {bits} bits of a CDB")
    return value


def _be(cdb: bytes, start: int, end: int) -> int:
    return int.from_bytes(cdb[start:end], "big")
