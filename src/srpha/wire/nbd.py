"""NBD, the Network Block Device protocol: fixed newstyle handshake and transmission messages, both directions.

Source: doc/proto.md of NetworkBlockDevice/nbd. Everything is big-endian. A structure that starts with a magic number
refuses any other; strings are UTF-8 without NUL, at most 4096 bytes ("Conventions"). Metadata contexts, TLS and the
experimental extensions are left out but for the numbers of their options, so that they can be named when refused.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final, TypeAlias, TypeVar

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.layout import Buffer, Structure, raw, structure, uint

MAGIC: Final = b"NBDMAGIC"
OPTION_MAGIC: Final = b"IHAVEOPT"
OPTION_REPLY_MAGIC: Final = 0x0003E889045565A9
REQUEST_MAGIC: Final = 0x25609513
SIMPLE_REPLY_MAGIC: Final = 0x67446698
CHUNK_MAGIC: Final = 0x668E33EF

STRING_LIMIT: Final = 4096
"""Bytes of a string ("Conventions")."""
BLOCK_SIZE_LIMIT: Final = 1 << 16
"""Largest minimum block size ("Size constraints")."""
PORTABLE_PAYLOAD: Final = 1 << 25
"""Bytes of payload that a server without other advice should take, and must not hold for an attack."""
EXPORT_REPLY_PADDING: Final = bytes(124)
"""Follows :class:`ExportReply` unless both sides have agreed on NO_ZEROES."""


class HandshakeFlag(IntFlag):
    """Of the server's greeting; the client's flags have the same bits ("Handshake flags", "Client flags")."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class TransmissionFlag(IntFlag):
    """What an export can do ("Transmission flags")."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8
    SEND_RESIZE = 1 << 9
    SEND_CACHE = 1 << 10
    SEND_FAST_ZERO = 1 << 11


class Option(IntEnum):
    """Options of the haggling ("Option types")."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    PEEK_EXPORT = 4
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class OptionReply(IntEnum):
    """Reply types; errors have bit 31 set ("Option reply types")."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = 0x80000001
    ERR_POLICY = 0x80000002
    ERR_INVALID = 0x80000003
    ERR_PLATFORM = 0x80000004
    ERR_TLS_REQD = 0x80000005
    ERR_UNKNOWN = 0x80000006
    ERR_SHUTDOWN = 0x80000007
    ERR_BLOCK_SIZE_REQD = 0x80000008
    ERR_TOO_BIG = 0x80000009


class Info(IntEnum):
    """Kinds of information about an export (``NBD_REP_INFO``)."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class Command(IntEnum):
    """Request types."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class CommandFlag(IntFlag):
    """Flags of a request ("Command flags")."""

    FUA = 1 << 0
    NO_HOLE = 1 << 1
    DF = 1 << 2
    REQ_ONE = 1 << 3
    FAST_ZERO = 1 << 4


class ChunkFlag(IntFlag):
    """Flags of a structured reply chunk."""

    DONE = 1 << 0


class ChunkType(IntEnum):
    """Structured reply types; errors have bit 15 set."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = 0x8001
    ERROR_OFFSET = 0x8002


class NbdError(IntEnum):
    """Error values: a closed set that looks like Linux errno ("Error values")."""

    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


# --- handshake ---


@structure(length=18)
class Greeting(Structure):
    """The server's first words ("Newstyle negotiation"). The client answers with :class:`ClientFlags`."""

    magic: bytes = raw(0, 8, default=MAGIC)
    option_magic: bytes = raw(8, 8, default=OPTION_MAGIC)
    flags: int = uint(16, 16)


@structure(length=4)
class ClientFlags(Structure):
    """:class:`HandshakeFlag` bits that the client agrees to."""

    flags: int = uint(0, 32)


@structure(length=16)
class OptionHeader(Structure):
    """An option; ``length`` bytes of data follow. ``option`` may be a number that :class:`Option` does not know."""

    magic: bytes = raw(0, 8, default=OPTION_MAGIC)
    option: int = uint(8, 32)
    length: int = uint(12, 32)


@structure(length=20)
class OptionReplyHeader(Structure):
    """A reply to ``option``; ``length`` bytes of data follow."""

    magic: int = uint(0, 64, default=OPTION_REPLY_MAGIC)
    option: int = uint(8, 32)
    kind: int = uint(12, 32)
    length: int = uint(16, 32)


@structure(length=10)
class ExportReply(Structure):
    """The answer to ``NBD_OPT_EXPORT_NAME``: size in bytes and :class:`TransmissionFlag` bits."""

    size: int = uint(0, 64)
    flags: int = uint(8, 16)


@structure(length=12)
class ExportInfo(Structure):
    """``NBD_INFO_EXPORT``: the same as :class:`ExportReply`."""

    kind: int = uint(0, 16, default=Info.EXPORT)
    size: int = uint(2, 64)
    flags: int = uint(10, 16)


@structure(length=14)
class BlockSizeInfo(Structure):
    """``NBD_INFO_BLOCK_SIZE``: minimum and preferred block size and longest payload, in bytes."""

    kind: int = uint(0, 16, default=Info.BLOCK_SIZE)
    minimum: int = uint(2, 32)
    preferred: int = uint(6, 32)
    maximum_payload: int = uint(10, 32)


@dataclass(frozen=True, slots=True)
class TextInfo:
    """``NBD_INFO_NAME`` or ``NBD_INFO_DESCRIPTION``."""

    kind: Info
    text: str

    def encode(self) -> bytes:
        return _U16.pack(self.kind) + encode_string(self.text)


@dataclass(frozen=True, slots=True)
class UnknownInfo:
    """A kind of information to be ignored."""

    kind: int
    payload: bytes

    def encode(self) -> bytes:
        return _U16.pack(self.kind) + self.payload


Information: TypeAlias = ExportInfo | BlockSizeInfo | TextInfo | UnknownInfo


@dataclass(frozen=True, slots=True)
class ExportQuery:
    """Data of ``NBD_OPT_INFO`` and ``NBD_OPT_GO``: an export ("" is the default one) and what to tell of it.

    ``wanted`` are the numbers of :class:`Info`, others among them are to be ignored.
    """

    name: str
    wanted: tuple[int, ...] = ()

    def encode(self) -> bytes:
        name = encode_string(self.name)
        try:
            return (
                _U32.pack(len(name))
                + name
                + _U16.pack(len(self.wanted))
                + b"".join([_U16.pack(kind) for kind in self.wanted])
            )
        except struct.error:
            raise EncodeError(f"{self!r} does not fit its fields") from None

    @classmethod
    def decode(cls, data: Buffer) -> ExportQuery:
        """Exactly one query; raises :class:`DecodeError`."""
        if len(data) < 6:
            raise DecodeError(f"a query of an export needs at least 6 bytes, got {len(data)}")
        (length,) = _U32.unpack_from(data)
        if length > len(data) - 6:
            raise DecodeError(f"a name of {length} bytes does not fit into {len(data)} bytes of option data")
        name = decode_string(data[4 : 4 + length])
        (count,) = _U16.unpack_from(data, 4 + length)
        if len(data) != 6 + length + 2 * count:
            raise DecodeError(f"{count} information requests after a name of {length} bytes make no {len(data)} bytes")
        return cls(name, tuple(struct.unpack_from(f">{count}H", data, 6 + length)))


@dataclass(frozen=True, slots=True)
class ServerEntry:
    """Data of ``NBD_REP_SERVER``: an export's name and a description for people."""

    name: str
    description: str = ""

    def encode(self) -> bytes:
        name = encode_string(self.name)
        return _U32.pack(len(name)) + name + encode_string(self.description)

    @classmethod
    def decode(cls, data: Buffer) -> ServerEntry:
        if len(data) < 4:
            raise DecodeError(f"an export's entry needs at least 4 bytes, got {len(data)}")
        (length,) = _U32.unpack_from(data)
        if length > len(data) - 4:
            raise DecodeError(f"a name of {length} bytes does not fit into an entry of {len(data)} bytes")
        return cls(decode_string(data[4 : 4 + length]), decode_string(data[4 + length :]))


# --- transmission ---


@structure(length=28)
class Request(Structure):
    """A request; after a WRITE ``length`` bytes of data follow. ``offset`` and ``length`` are bytes."""

    magic: int = uint(0, 32, default=REQUEST_MAGIC)
    flags: int = uint(4, 16)
    command: int = uint(6, 16)
    cookie: int = uint(8, 64)
    offset: int = uint(16, 64)
    length: int = uint(24, 32)


@structure(length=16)
class SimpleReply(Structure):
    """A reply; after a READ without error the data follow. ``error`` is 0 or a :class:`NbdError`."""

    magic: int = uint(0, 32, default=SIMPLE_REPLY_MAGIC)
    error: int = uint(4, 32)
    cookie: int = uint(8, 64)


@structure(length=20)
class ChunkHeader(Structure):
    """A structured reply chunk; ``length`` bytes of payload follow."""

    magic: int = uint(0, 32, default=CHUNK_MAGIC)
    flags: int = uint(4, 16)
    kind: int = uint(6, 16)
    cookie: int = uint(8, 64)
    length: int = uint(16, 32)


@structure(length=28)
class DataChunkHeader(Structure):
    """The head of an OFFSET_DATA chunk: ``length - 8`` bytes of the export from ``offset`` on follow."""

    magic: int = uint(0, 32, default=CHUNK_MAGIC)
    flags: int = uint(4, 16, default=ChunkFlag.DONE)
    kind: int = uint(6, 16, default=ChunkType.OFFSET_DATA)
    cookie: int = uint(8, 64)
    length: int = uint(16, 32)
    offset: int = uint(20, 64)


@structure(length=12)
class Hole(Structure):
    """Payload of an OFFSET_HOLE chunk: ``size`` bytes from ``offset`` on read as zeroes."""

    offset: int = uint(0, 64)
    size: int = uint(8, 32)


@dataclass(frozen=True, slots=True)
class ErrorChunk:
    """Payload of an ERROR chunk, or with ``offset`` of an ERROR_OFFSET chunk. ``message`` is for people."""

    error: int
    message: str = ""
    offset: int | None = None

    @property
    def kind(self) -> ChunkType:
        return ChunkType.ERROR if self.offset is None else ChunkType.ERROR_OFFSET

    def encode(self) -> bytes:
        message = encode_string(self.message)
        if not 0 < self.error <= 0xFFFFFFFF or not 0 <= (self.offset or 0) < 1 << 64:
            raise EncodeError(f"{self!r} does not fit its fields")
        tail = b"" if self.offset is None else _U64.pack(self.offset)
        return _ERROR.pack(self.error, len(message)) + message + tail

    @classmethod
    def decode(cls, kind: int, data: Buffer) -> ErrorChunk:
        """The payload of an error chunk of any ``kind``; fields of unknown kinds after the message are ignored."""
        tail = 8 if kind == ChunkType.ERROR_OFFSET else 0
        if len(data) < 6 + tail:
            raise DecodeError(f"an error chunk of type {kind:#x} needs {6 + tail} bytes, got {len(data)}")
        error, length = _ERROR.unpack_from(data)
        if not error:
            raise DecodeError("an error chunk without an error")
        if 6 + length + tail > len(data):
            raise DecodeError(f"a message of {length} bytes does not fit into a chunk of {len(data)} bytes")
        offset = _U64.unpack_from(data, 6 + length)[0] if tail else None
        return cls(error, decode_string(data[6 : 6 + length]), offset)


# --- functions ---

_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_ERROR: Final = struct.Struct(">IH")
_M = TypeVar("_M", Greeting, OptionHeader, OptionReplyHeader, Request, SimpleReply, ChunkHeader, DataChunkHeader)


def decode_message(cls: type[_M], data: Buffer) -> _M:
    """A message that starts with a magic number; raises :class:`DecodeError` when it is not this message's."""
    message = cls.decode(data)
    expected = cls()
    if message.magic != expected.magic:
        shown = message.magic.hex() if isinstance(message.magic, bytes) else f"{message.magic:#x}"
        raise DecodeError(f"{cls.__name__} with the magic number {shown}")
    if isinstance(message, Greeting) and message.option_magic != OPTION_MAGIC:
        raise DecodeError("a greeting of the old style: it names no IHAVEOPT")
    return message


def decode_request(data: Buffer) -> Request:
    """A request, as :func:`decode_message`, on the quick way."""
    request = Request.decode(data)
    if request.magic != REQUEST_MAGIC:
        raise DecodeError(f"Request with the magic number {request.magic:#x}")
    return request


def option_reply(option: int, kind: OptionReply, data: bytes = b"") -> bytes:
    """A whole option reply."""
    return OptionReplyHeader(option=option, kind=kind, length=len(data)).encode() + data


def decode_information(data: Buffer) -> Information:
    """Data of ``NBD_REP_INFO``; raises :class:`DecodeError`."""
    if len(data) < 2:
        raise DecodeError(f"information needs at least 2 bytes, got {len(data)}")
    (kind,) = _U16.unpack_from(data)
    match kind:
        case Info.EXPORT:
            return _exactly(ExportInfo, data)
        case Info.BLOCK_SIZE:
            return _exactly(BlockSizeInfo, data)
        case Info.NAME | Info.DESCRIPTION:
            return TextInfo(Info(kind), decode_string(data[2:]))
    return UnknownInfo(kind, bytes(data[2:]))


def simple_reply(cookie: int, error: int = 0) -> bytes:
    """A whole simple reply without data."""
    return SimpleReply(cookie=cookie, error=error).encode()


def data_chunk(cookie: int, offset: int, length: int) -> bytes:
    """The head of the only, final content chunk of a READ of ``length`` bytes, which must follow."""
    return DataChunkHeader(cookie=cookie, offset=offset, length=8 + length).encode()


def none_chunk(cookie: int) -> bytes:
    """A whole final chunk without content."""
    return ChunkHeader(flags=ChunkFlag.DONE, kind=ChunkType.NONE, cookie=cookie).encode()


def error_chunk(cookie: int, chunk: ErrorChunk) -> bytes:
    """A whole final error chunk."""
    payload = chunk.encode()
    return ChunkHeader(flags=ChunkFlag.DONE, kind=chunk.kind, cookie=cookie, length=len(payload)).encode() + payload


def encode_string(text: str) -> bytes:
    """UTF-8; raises :class:`EncodeError` when it is too long or holds a NUL."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise EncodeError(f"{text!r} has no UTF-8 form") from None
    if len(data) > STRING_LIMIT or b"\0" in data:
        raise EncodeError(f"a string of {len(data)} bytes, longer than {STRING_LIMIT} or with NUL, is not NBD's")
    return data


def decode_string(data: Buffer) -> str:
    """UTF-8; raises :class:`DecodeError` when it is not, is too long or holds a NUL."""
    if len(data) > STRING_LIMIT:
        raise DecodeError(f"a string of {len(data)} bytes is longer than {STRING_LIMIT}")
    try:
        text = bytes(data).decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"a string is not UTF-8 at byte {error.start}") from None
    if "\0" in text:
        raise DecodeError("a string holds a NUL")
    return text


def clipped(text: str) -> str:
    """``text`` as a string that NBD can carry: without NUL and not longer than the limit."""
    return text.replace("\0", "").encode(errors="replace")[:STRING_LIMIT].decode(errors="ignore")


_F = TypeVar("_F", ExportInfo, BlockSizeInfo)


def _exactly(cls: type[_F], data: Buffer) -> _F:
    if len(data) != cls.LENGTH:
        raise DecodeError(f"{cls.__name__} is {cls.LENGTH} bytes long, got {len(data)}")
    return cls.decode(data)
