"""ibsim's socket protocol: what a program on a simulated node and the simulator say to each other.

Source: include/ibsim.h of linux-rdma/ibsim. Everything travels in datagrams between sockets in the abstract name space,
whose names end in NUL. Control packets have 80 bytes in the machine's byte order, data packets 288 bytes: one MAD with
LIDs, queue pairs, status and length in network order, each LID in the first half of its word.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.layout import Buffer
from srpha.wire.mad import MAD_LENGTH

CONTROL_LENGTH: Final = 80
CONTROL_DATA: Final = 64
DATAGRAM_LENGTH: Final = 288
NODE_LENGTH: Final = 32
DEFAULT_BASE: Final = "sim"
"""Name space of programs that set no IBSIM_SOCKNAME."""

_MAGIC: Final = 0xDEADBEEF
_IDENTIFIER_LIMIT: Final = 1 << 31
_CONTROL: Final = struct.Struct(f"=IIII{CONTROL_DATA}s")
_CONNECT: Final = struct.Struct(f"=III{NODE_LENGTH}s")
_DATAGRAM: Final = struct.Struct(f">HHHHIII4xQ{MAD_LENGTH}s")
_PORT: Final = struct.Struct("=HBx")
_VENDOR: Final = struct.Struct("=III4xQ")
_WORD: Final = struct.Struct("=I")
_BASE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class ControlKind(IntEnum):
    """What a control packet asks for; the answer has the same kind, or ERROR."""

    ERROR = 0
    CONNECT = 1
    DISCONNECT = 2
    GET_PORT = 3
    GET_VENDOR = 4
    GET_GID = 5
    GET_GUID = 6
    GET_NODE_INFO = 7
    GET_PORT_INFO = 8
    SET_ISSM = 9
    GET_PKEYS = 10


@dataclass(frozen=True, slots=True)
class ControlPacket:
    """A request or its answer. ``kind`` may be a number that nobody knows; ``data`` is 64 bytes at most."""

    client: int
    kind: int
    data: bytes = b""

    @classmethod
    def decode(cls, packet: Buffer) -> ControlPacket:
        """Raises :class:`DecodeError` for another length or magic, or more data than there is room for."""
        if len(packet) != CONTROL_LENGTH:
            raise DecodeError(f"a control packet has {CONTROL_LENGTH} bytes, got {len(packet)}")
        magic, client, kind, length, data = _CONTROL.unpack(packet)
        if magic != _MAGIC:
            raise DecodeError(f"a control packet starts with {_MAGIC:#010x}, got {magic:#010x}")
        if length > CONTROL_DATA:
            raise DecodeError(f"a control packet has at most {CONTROL_DATA} bytes of data, it says {length}")
        return cls(client, kind, data[:length])

    def encode(self) -> bytes:
        """80 bytes; raises :class:`EncodeError` when a value does not fit."""
        if len(self.data) > CONTROL_DATA or not 0 <= self.client < 1 << 32 or not 0 <= self.kind < 1 << 32:
            raise EncodeError(f"{self!r} does not fit a control packet")
        return _CONTROL.pack(_MAGIC, self.client, self.kind, len(self.data), self.data)


@dataclass(frozen=True, slots=True)
class ConnectData:
    """Data of CONNECT: the number that the client chose for itself, in the answer the one it was given.

    ``requests``: unsolicited requests to the node come to this client. ``node`` is empty for any node.
    """

    identifier: int
    node: str
    requests: bool = False
    qp: int = 0

    @classmethod
    def decode(cls, data: Buffer) -> ConnectData:
        """Raises :class:`DecodeError` for too little data, an identifier out of range, or a name that is no text."""
        if len(data) < _CONNECT.size:
            raise DecodeError(f"CONNECT has {_CONNECT.size} bytes of data, got {len(data)}")
        identifier, qp, requests, node = _CONNECT.unpack_from(data)
        if not 0 < identifier < _IDENTIFIER_LIMIT:
            raise DecodeError(f"a client's identifier is 1 to {_IDENTIFIER_LIMIT - 1}, not {identifier}")
        try:
            name = node.partition(b"\0")[0].decode()
        except UnicodeDecodeError:
            raise DecodeError("the node's name is not UTF-8") from None
        if name and not name.isprintable():
            raise DecodeError(f"the node's name is not printable: {name!r}")
        return cls(identifier, name, bool(requests), qp)

    def encode(self) -> bytes:
        """44 bytes; a name that is too long is cut after 31, as ibsim cuts it."""
        name = self.node.encode()[: NODE_LENGTH - 1]
        return _CONNECT.pack(self.identifier, self.qp, self.requests, name)


@dataclass(frozen=True, slots=True)
class SimDatagram:
    """A MAD on its way from or to a client. ``status`` not 0: the MAD comes back because it could not be delivered."""

    dlid: int
    slid: int
    dest_qp: int
    source_qp: int
    mad: bytes
    status: int = 0

    @classmethod
    def decode(cls, packet: Buffer) -> SimDatagram:
        """Raises :class:`DecodeError` for another length of packet or MAD, and for impossible queue pairs."""
        if len(packet) != DATAGRAM_LENGTH:
            raise DecodeError(f"a datagram has {DATAGRAM_LENGTH} bytes, got {len(packet)}")
        dlid, _, slid, _, dest_qp, source_qp, status, length, mad = _DATAGRAM.unpack(packet)
        if length != MAD_LENGTH:
            raise DecodeError(f"a MAD has {MAD_LENGTH} bytes, the datagram says {length}")
        if dest_qp > 0xFFFFFF or source_qp > 0xFFFFFF:
            raise DecodeError(f"queue pairs {dest_qp:#x} and {source_qp:#x} have more than 24 bits")
        return cls(dlid, slid, dest_qp, source_qp, mad, status)

    def encode(self) -> bytes:
        """288 bytes; raises :class:`EncodeError` when a value does not fit."""
        if len(self.mad) != MAD_LENGTH:
            raise EncodeError(f"a MAD has {MAD_LENGTH} bytes, got {len(self.mad)}")
        try:
            return _DATAGRAM.pack(
                self.dlid, 0, self.slid, 0, self.dest_qp, self.source_qp, self.status, MAD_LENGTH, self.mad
            )
        except struct.error as error:
            raise EncodeError(f"{self!r} does not fit a datagram: {error}") from None


def port_data(lid: int, state: int) -> bytes:
    """Data of the answer to GET_PORT."""
    return _PORT.pack(lid, state)


def vendor_data(vendor_id: int, device_id: int, hardware: int, firmware: int) -> bytes:
    """Data of the answer to GET_VENDOR."""
    return _VENDOR.pack(vendor_id, device_id, hardware, firmware)


def read_word(data: Buffer) -> int:
    """The number that SET_ISSM carries; raises :class:`DecodeError` when it is not there."""
    if len(data) < _WORD.size:
        raise DecodeError(f"a number has {_WORD.size} bytes, got {len(data)}")
    return int(_WORD.unpack_from(data)[0])


def check_base(base: str) -> str:
    """``base`` if sockets can be named after it; raises :class:`EncodeError`."""
    if not _BASE.fullmatch(base):
        raise EncodeError(f"a name space of sockets has 1 to 64 letters, digits, dots, - and _, not {base!r}")
    return base


def control_name(base: str, identifier: int | None = None) -> bytes:
    """Abstract socket name for control: the simulator's, or that of the client which calls itself ``identifier``."""
    return f"\0{base}:ctl{'' if identifier is None else identifier}\0".encode()


def client_data_name(base: str, identifier: int) -> bytes:
    """Where a client takes its datagrams; ``identifier`` is its own choice."""
    return f"\0{base}:in{identifier}\0".encode()


def server_data_name(base: str, client: int) -> bytes:
    """Where the simulator takes the datagrams of a client; ``client`` is the number that it was given."""
    return f"\0{base}:out{client}\0".encode()
