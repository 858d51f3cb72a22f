"""SRP_CMD and SRP_RSP, the information units of every SCSI command (SRP rev. 16a, 6.8, 6.9; SRP-2 immediate data).

This is the hot path: hand-written ``struct`` codecs, and value classes that are slotted but not frozen, because a
frozen dataclass costs several times as much to construct. Nobody changes them after construction.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from srpha.wire.errors import DecodeError, EncodeError

CMD_OPCODE: Final = 0x02
RSP_OPCODE: Final = 0xC1
CMD_LENGTH: Final = 48
RSP_LENGTH: Final = 36
IMMEDIATE_OFFSET: Final = 68
"""Where Linux puts immediate data: CMD, 16 bytes of additional CDB, 4 bytes of descriptor."""

_CMD: Final = struct.Struct(">BB3xBBBQ4xQxBxB16s")
_CMD_DIRECT: Final = struct.Struct(">BB3xBBBQ4xQxBxB16sQII")
_CMD_IMMEDIATE: Final = struct.Struct(">BB3xBBBQ4xQxBxB16sI16x")
_DIRECT: Final = struct.Struct(">QII")
_TABLE: Final = struct.Struct(">QIII")
_IMMEDIATE: Final = struct.Struct(">I")
_RSP: Final = struct.Struct(">BB2xiQ2xBBIIII")
_pack_cmd_direct: Final = _CMD_DIRECT.pack
_unpack_cmd: Final = _CMD.unpack_from
_unpack_direct: Final = _DIRECT.unpack_from
_pack_rsp: Final = _RSP.pack
_unpack_rsp: Final = _RSP.unpack_from


class BufferFormat(IntEnum):
    """Data buffer descriptor formats, nibbles of CMD byte 5."""

    NONE = 0
    DIRECT = 1
    INDIRECT = 2
    IMMEDIATE = 3


class TaskAttribute(IntEnum):
    """Task attribute of a CMD (SAM-4 8.9)."""

    SIMPLE = 0
    HEAD_OF_QUEUE = 1
    ORDERED = 2
    ACA = 4


class ResponseFlag(IntEnum):
    """Bits of RSP byte 18."""

    RSPVALID = 0x01
    SNSVALID = 0x02
    DOOVER = 0x04
    DOUNDER = 0x08
    DIOVER = 0x10
    DIUNDER = 0x20


class ResponseCode(IntEnum):
    """Byte 3 of the response data: how a task management function, or a malformed CMD, ended."""

    COMPLETE = 0x00
    INVALID_FIELDS = 0x02
    NOT_SUPPORTED = 0x04
    FAILED = 0x05


class MemoryDescriptor(NamedTuple):
    """A piece of initiator memory: virtual address, memory handle (R_Key), bytes."""

    address: int
    key: int
    length: int


@dataclass(slots=True)
class DataBuffer:
    """Data-out or data-in buffer of a CMD.

    ``descriptors`` are those in the IU. For :attr:`BufferFormat.INDIRECT` ``table`` names the whole table in initiator
    memory; when it has more entries than ``descriptors`` the rest must be fetched from there. ``immediate`` holds
    the data of :attr:`BufferFormat.IMMEDIATE`.
    """

    format: BufferFormat
    length: int
    descriptors: tuple[MemoryDescriptor, ...] = ()
    table: MemoryDescriptor | None = None
    immediate: bytes = b""

    @property
    def complete(self) -> bool:
        """Whether the IU holds all descriptors."""
        return self.table is None or self.table.length == 16 * len(self.descriptors)


@dataclass(slots=True)
class Command:
    """An SRP_CMD. ``lun`` is the 8-byte LUN field as an integer; ``cdb`` is 16 bytes plus the additional CDB."""

    tag: int
    lun: int
    cdb: bytes
    data_out: DataBuffer | None = None
    data_in: DataBuffer | None = None
    attribute: int = TaskAttribute.SIMPLE
    notify: int = 0


@dataclass(slots=True)
class Response:
    """An SRP_RSP. Residuals are positive for an underflow and negative for an overflow, 0 for neither."""

    tag: int
    status: int = 0
    limit_delta: int = 0
    sense: bytes = b""
    response_data: bytes = b""
    out_residual: int = 0
    in_residual: int = 0
    notify: int = 0

    @property
    def response_code(self) -> int | None:
        """Byte 3 of the response data (:class:`ResponseCode`), ``None`` when there is none."""
        return self.response_data[3] if len(self.response_data) > 3 else None


def direct_buffer(address: int, key: int, length: int) -> DataBuffer:
    """A buffer of one piece of memory."""
    return DataBuffer(BufferFormat.DIRECT, length, (MemoryDescriptor(address, key, length),))


def indirect_buffer(
    descriptors: tuple[MemoryDescriptor, ...], table_address: int = 0, table_key: int = 0
) -> DataBuffer:
    """A buffer of several pieces, all listed in the IU; the table's own address is only for further entries."""
    return DataBuffer(
        BufferFormat.INDIRECT,
        sum(piece.length for piece in descriptors),
        descriptors,
        MemoryDescriptor(table_address, table_key, 16 * len(descriptors)),
    )


def immediate_buffer(data: bytes) -> DataBuffer:
    """Data-out that travels in the CMD itself."""
    return DataBuffer(BufferFormat.IMMEDIATE, len(data), immediate=data)


def encode_read_write_cmd(tag: int, lun: int, cdb: bytes, write: bool, address: int, key: int, length: int) -> bytes:
    """A CMD of 64 bytes with one direct descriptor: data-out when ``write``, else data-in. CDB of at most 16 bytes."""
    if len(cdb) > 16:
        raise EncodeError(f"a CDB of {len(cdb)} bytes needs the additional CDB field")
    try:
        return _pack_cmd_direct(CMD_OPCODE, 0, 0x10 if write else 0x01, 0, 0, tag, lun, 0, 0, cdb, address, key, length)
    except struct.error as error:
        raise EncodeError(f"SRP_CMD tag {tag:#x}: {error}") from error


def encode_immediate_cmd(tag: int, lun: int, cdb: bytes, data: bytes | bytearray | memoryview) -> bytes:
    """A CMD with ``data`` as immediate data-out at :data:`IMMEDIATE_OFFSET`. CDB of at most 16 bytes."""
    if len(cdb) > 16:
        raise EncodeError(f"a CDB of {len(cdb)} bytes needs the additional CDB field")
    try:
        head = _CMD_IMMEDIATE.pack(CMD_OPCODE, 0, 0x30, 0, 0, tag, lun, 0, 0, cdb, len(data))
    except struct.error as error:
        raise EncodeError(f"SRP_CMD tag {tag:#x}: {error}") from error
    return head + data


def encode_cmd(command: Command, immediate_offset: int = IMMEDIATE_OFFSET) -> bytes:
    """Any SRP_CMD; ``immediate_offset`` is what LOGIN_REQ said."""
    cdb = command.cdb
    extra = b""
    if len(cdb) > 16:
        extra = cdb[16:] + bytes(-len(cdb) & 3)
        cdb = cdb[:16]
    if len(extra) > 0xFC:
        raise EncodeError(f"an additional CDB has at most 252 bytes, got {len(extra)}")
    out_format, out_count, out_bytes = _encode_buffer(command.data_out)
    in_format, in_count, in_bytes = _encode_buffer(command.data_in)
    if in_format == BufferFormat.IMMEDIATE:
        raise EncodeError("immediate data is for data-out only")
    try:
        head = _CMD.pack(
            CMD_OPCODE,
            command.notify,
            out_format << 4 | in_format,
            out_count,
            in_count,
            command.tag,
            command.lun,
            command.attribute,
            len(extra),
            cdb,
        )
    except struct.error as error:
        raise EncodeError(f"SRP_CMD tag {command.tag:#x}: {error}") from error
    unit = head + extra + out_bytes + in_bytes
    if command.data_out is not None and out_format == BufferFormat.IMMEDIATE:
        if len(unit) > immediate_offset:
            raise EncodeError(f"descriptors of {len(unit)} bytes reach past the immediate data at {immediate_offset}")
        unit += bytes(immediate_offset - len(unit)) + command.data_out.immediate
    return unit


def decode_cmd(data: bytes, immediate_offset: int = IMMEDIATE_OFFSET) -> Command:
    """Read an SRP_CMD and check its descriptors; :class:`DecodeError` when they do not agree with its length."""
    size = len(data)
    if size < CMD_LENGTH:
        raise DecodeError(f"SRP_CMD has at least {CMD_LENGTH} bytes, got {size}")
    opcode, notify, formats, out_count, in_count, tag, lun, attribute, extra, cdb = _unpack_cmd(data)
    if opcode != CMD_OPCODE:
        raise DecodeError(f"not an SRP_CMD: opcode {opcode:#04x}")
    position = CMD_LENGTH
    if extra & 0xFC:
        position += extra & 0xFC
        if position > size:
            raise DecodeError(f"SRP_CMD tag {tag:#x}: additional CDB of {extra & 0xFC} bytes reaches past its end")
        cdb = data[32:position]
    data_out = data_in = None
    if formats:
        if formats & 0xF0:
            data_out, position = _decode_buffer(data, position, formats >> 4, out_count, immediate_offset, tag)
        if formats & 0x0F:
            if formats & 0x0F == BufferFormat.IMMEDIATE:
                raise DecodeError(f"SRP_CMD tag {tag:#x}: immediate data-in")
            data_in, position = _decode_buffer(data, position, formats & 0x0F, in_count, immediate_offset, tag)
        if data_out is not None and data_out.format is BufferFormat.IMMEDIATE and position > immediate_offset:
            raise DecodeError(f"SRP_CMD tag {tag:#x}: descriptors reach past the immediate data at {immediate_offset}")
    return Command(tag, lun, cdb, data_out, data_in, attribute & 7, notify)


def _encode_buffer(buffer: DataBuffer | None) -> tuple[int, int, bytes]:
    """``(format, descriptor count field, descriptor bytes)``."""
    if buffer is None:
        return 0, 0, b""
    try:
        if buffer.format is BufferFormat.DIRECT:
            if len(buffer.descriptors) != 1:
                raise EncodeError(f"a direct buffer has one descriptor, got {len(buffer.descriptors)}")
            return BufferFormat.DIRECT, 0, _DIRECT.pack(*buffer.descriptors[0])
        if buffer.format is BufferFormat.INDIRECT:
            if buffer.table is None or len(buffer.descriptors) > 255:
                raise EncodeError("an indirect buffer has a table and at most 255 descriptors in the IU")
            pieces = b"".join([_DIRECT.pack(*piece) for piece in buffer.descriptors])
            return BufferFormat.INDIRECT, len(buffer.descriptors), _TABLE.pack(*buffer.table, buffer.length) + pieces
        if buffer.format is BufferFormat.IMMEDIATE:
            if buffer.length != len(buffer.immediate):
                raise EncodeError(f"immediate data has {len(buffer.immediate)} bytes, its descriptor {buffer.length}")
            return BufferFormat.IMMEDIATE, 0, _IMMEDIATE.pack(buffer.length)
    except struct.error as error:
        raise EncodeError(f"{buffer!r}: {error}") from error
    raise EncodeError(f"no data buffer has format {buffer.format!r}")


def _decode_buffer(
    data: bytes, position: int, kind: int, count: int, immediate_offset: int, tag: int
) -> tuple[DataBuffer, int]:
    """A buffer whose descriptor stands at ``position``, and the position after it."""
    size = len(data)
    if kind == 1:
        end = position + 16
        if end > size:
            raise DecodeError(f"SRP_CMD tag {tag:#x}: direct descriptor reaches past its end of {size} bytes")
        piece = MemoryDescriptor._make(_unpack_direct(data, position))
        return DataBuffer(BufferFormat.DIRECT, piece.length, (piece,)), end
    if kind == 2:
        end = position + 20 + 16 * count
        if end > size:
            raise DecodeError(f"SRP_CMD tag {tag:#x}: {count} indirect descriptors reach past its end of {size} bytes")
        address, key, table_length, total = _TABLE.unpack_from(data, position)
        if table_length % 16 or table_length < 16 * count:
            raise DecodeError(f"SRP_CMD tag {tag:#x}: table of {table_length} bytes for {count} listed descriptors")
        pieces = tuple(map(MemoryDescriptor._make, _DIRECT.iter_unpack(data[position + 20 : end])))
        listed = sum([piece.length for piece in pieces])
        if listed > total or (listed != total and table_length == 16 * count):
            raise DecodeError(f"SRP_CMD tag {tag:#x}: descriptors of {listed} bytes for a buffer of {total}")
        table = MemoryDescriptor(address, key, table_length)
        return DataBuffer(BufferFormat.INDIRECT, total, pieces, table), end
    if kind == 3:
        end = position + 4
        if end > size:
            raise DecodeError(f"SRP_CMD tag {tag:#x}: immediate descriptor reaches past its end of {size} bytes")
        (length,) = _IMMEDIATE.unpack_from(data, position)
        if immediate_offset + length > size:
            raise DecodeError(f"SRP_CMD tag {tag:#x}: {length} bytes of immediate data reach past its end")
        held = data[immediate_offset : immediate_offset + length]
        return DataBuffer(BufferFormat.IMMEDIATE, length, immediate=held), end
    raise DecodeError(f"SRP_CMD tag {tag:#x}: unknown buffer format {kind}")


def encode_good_rsp(tag: int, limit_delta: int = 1) -> bytes:
    """The 36-byte RSP of a command that ended GOOD with all its data."""
    try:
        return _pack_rsp(RSP_OPCODE, 0, limit_delta, tag, 0, 0, 0, 0, 0, 0)
    except struct.error as error:
        raise EncodeError(f"SRP_RSP tag {tag:#x}: {error}") from error


def encode_rsp(response: Response) -> bytes:
    """Any SRP_RSP."""
    flags = 0
    if response.response_data:
        flags = ResponseFlag.RSPVALID
    if response.sense:
        flags |= ResponseFlag.SNSVALID
    out_residual, in_residual = response.out_residual, response.in_residual
    if out_residual:
        flags |= ResponseFlag.DOUNDER if out_residual > 0 else ResponseFlag.DOOVER
    if in_residual:
        flags |= ResponseFlag.DIUNDER if in_residual > 0 else ResponseFlag.DIOVER
    try:
        head = _pack_rsp(
            RSP_OPCODE,
            response.notify,
            response.limit_delta,
            response.tag,
            flags,
            response.status,
            abs(out_residual),
            abs(in_residual),
            len(response.sense),
            len(response.response_data),
        )
    except struct.error as error:
        raise EncodeError(f"SRP_RSP tag {response.tag:#x}: {error}") from error
    return head + response.response_data + response.sense


def decode_rsp(data: bytes) -> Response:
    """Read an SRP_RSP; :class:`DecodeError` for contradicting flags or lengths past its end."""
    size = len(data)
    if size < RSP_LENGTH:
        raise DecodeError(f"SRP_RSP has at least {RSP_LENGTH} bytes, got {size}")
    opcode, notify, delta, tag, flags, status, out_residual, in_residual, sense_length, rsp_length = _unpack_rsp(data)
    if opcode != RSP_OPCODE:
        raise DecodeError(f"not an SRP_RSP: opcode {opcode:#04x}")
    if not flags:
        return Response(tag, status, delta, b"", b"", 0, 0, notify)
    if flags & 0x0C == 0x0C or flags & 0x30 == 0x30:
        raise DecodeError(f"SRP_RSP tag {tag:#x}: both overflow and underflow (flags {flags:#04x})")
    # lengths count only when their flag is set
    sense_start = RSP_LENGTH + (rsp_length if flags & ResponseFlag.RSPVALID else 0)
    end = sense_start + (sense_length if flags & ResponseFlag.SNSVALID else 0)
    if end > size:
        raise DecodeError(f"SRP_RSP tag {tag:#x}: response data and sense end at {end}, it has {size} bytes")
    return Response(
        tag,
        status,
        delta,
        data[sense_start:end],
        data[RSP_LENGTH:sense_start],
        out_residual if flags & ResponseFlag.DOUNDER else -out_residual if flags & ResponseFlag.DOOVER else 0,
        in_residual if flags & ResponseFlag.DIUNDER else -in_residual if flags & ResponseFlag.DIOVER else 0,
        notify,
    )
