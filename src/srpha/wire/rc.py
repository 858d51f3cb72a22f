"""InfiniBand packets on the embedded fabric's links (IBA volume 1, 7.7, 8.3, 9.2 to 9.7).

A packet is LRH, optionally GRH, BTH, an extended header that the opcode asks for, and the payload padded to four
bytes. The two CRCs are not on the embedded wire; LRH.PktLen still counts the ICRC as the specification says, so that
:mod:`srpha.wire.crc` makes a packet of a real link by appending them.

Packets of a connection are made and read by plain functions around precompiled ``struct`` codecs: every SCSI command
costs several packets. The :class:`Structure` classes serve tests, tools and everything that is not in a hurry.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from functools import partial
from typing import Final, NamedTuple

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.identifiers import Gid
from srpha.wire.layout import Buffer, Structure, gid, structure, uint

PSN_MASK: Final = 0xFFFFFF
LNH_LOCAL: Final = 2
LNH_GLOBAL: Final = 3
MTU_BYTES: Final = {1: 256, 2: 512, 3: 1024, 4: 2048, 5: 4096}
"""Payload bytes by IBA MTU code."""
MANAGEMENT_VL: Final = 15
GSI_Q_KEY: Final = 0x80010000
CREDITS_INVALID: Final = 31
"""AETH credit count that switches end-to-end flow control off (IBA 9.7.7.2)."""

LRH_LENGTH: Final = 8
GRH_LENGTH: Final = 40
BTH_LENGTH: Final = 12
DETH_LENGTH: Final = 8
RETH_LENGTH: Final = 16
AETH_LENGTH: Final = 4
ICRC_LENGTH: Final = 4


class Opcode(IntEnum):
    """BTH opcodes (IBA 9.2.1): RC 0x00..0x1f, UD 0x64."""

    RC_SEND_FIRST = 0x00
    RC_SEND_MIDDLE = 0x01
    RC_SEND_LAST = 0x02
    RC_SEND_ONLY = 0x04
    RC_WRITE_FIRST = 0x06
    RC_WRITE_MIDDLE = 0x07
    RC_WRITE_LAST = 0x08
    RC_WRITE_ONLY = 0x0A
    RC_READ_REQUEST = 0x0C
    RC_READ_RESPONSE_FIRST = 0x0D
    RC_READ_RESPONSE_MIDDLE = 0x0E
    RC_READ_RESPONSE_LAST = 0x0F
    RC_READ_RESPONSE_ONLY = 0x10
    RC_ACKNOWLEDGE = 0x11
    UD_SEND_ONLY = 0x64


WITH_RETH: Final = frozenset({Opcode.RC_WRITE_FIRST, Opcode.RC_WRITE_ONLY, Opcode.RC_READ_REQUEST})
WITH_AETH: Final = frozenset(
    {
        Opcode.RC_READ_RESPONSE_FIRST,
        Opcode.RC_READ_RESPONSE_LAST,
        Opcode.RC_READ_RESPONSE_ONLY,
        Opcode.RC_ACKNOWLEDGE,
    }
)

_EXTENSION: Final = {
    int(opcode): RETH_LENGTH
    if opcode in WITH_RETH
    else AETH_LENGTH
    if opcode in WITH_AETH
    else DETH_LENGTH
    if opcode is Opcode.UD_SEND_ONLY
    else 0
    for opcode in Opcode
}


class NakCode(IntEnum):
    """AETH NAK codes (IBA 9.7.5.2.8)."""

    PSN_SEQUENCE_ERROR = 0
    INVALID_REQUEST = 1
    REMOTE_ACCESS_ERROR = 2
    REMOTE_OPERATIONAL_ERROR = 3
    INVALID_RD_REQUEST = 4


class AckKind(IntEnum):
    """Bits 6 and 5 of the AETH syndrome (IBA 9.7.5.2.1)."""

    ACK = 0
    RNR_NAK = 1
    RESERVED = 2
    NAK = 3


RNR_TIMER_MS: Final = (
    *(655.36, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48, 0.64, 0.96, 1.28, 1.92),
    *(2.56, 3.84, 5.12, 7.68, 10.24, 15.36, 20.48, 30.72, 40.96, 61.44, 81.92, 122.88, 163.84, 245.76, 327.68, 491.52),
)
"""Milliseconds to wait after an RNR NAK, by timer field (IBA table 45)."""


@structure(length=LRH_LENGTH)
class LocalRouteHeader(Structure):
    """LRH (IBA 7.7). ``packet_length`` is in 4-byte words, from the LRH to the ICRC inclusive."""

    virtual_lane: int = uint(0, 4, default=0)
    link_version: int = uint(0, 4, bit=4, default=0)
    service_level: int = uint(1, 4)
    next_header: int = uint(1, 2, bit=6, default=LNH_LOCAL)
    dlid: int = uint(2, 16)
    packet_length: int = uint(4, 11, bit=5)
    slid: int = uint(6, 16)


@structure(length=GRH_LENGTH)
class GlobalRouteHeader(Structure):
    """GRH (IBA 8.3). ``payload_length`` counts the bytes after the GRH to the ICRC inclusive."""

    ip_version: int = uint(0, 4, default=6)
    traffic_class: int = uint(0, 8, bit=4, default=0)
    flow_label: int = uint(1, 20, bit=4, default=0)
    payload_length: int = uint(4, 16)
    next_header: int = uint(6, 8, default=0x1B)
    hop_limit: int = uint(7, 8, default=0)
    sgid: Gid = gid(8)
    dgid: Gid = gid(24)


@structure(length=BTH_LENGTH)
class BaseTransportHeader(Structure):
    """BTH (IBA 9.2)."""

    opcode: int = uint(0, 8)
    solicited_event: int = uint(1, 1, default=0)
    migration: int = uint(1, 1, bit=1, default=0)
    pad_count: int = uint(1, 2, bit=2, default=0)
    transport_version: int = uint(1, 4, bit=4, default=0)
    pkey: int = uint(2, 16)
    dest_qp: int = uint(5, 24)
    ack_request: int = uint(8, 1, default=0)
    psn: int = uint(9, 24)


@structure(length=DETH_LENGTH)
class DatagramHeader(Structure):
    """DETH (IBA 9.3.2)."""

    q_key: int = uint(0, 32)
    source_qp: int = uint(5, 24)


@structure(length=RETH_LENGTH)
class RdmaHeader(Structure):
    """RETH (IBA 9.3.3)."""

    virtual_address: int = uint(0, 64)
    r_key: int = uint(8, 32)
    dma_length: int = uint(12, 32)


@structure(length=AETH_LENGTH)
class AckHeader(Structure):
    """AETH (IBA 9.3.5). ``value``: credit count, RNR timer or NAK code, by ``kind``."""

    kind: int = uint(0, 2, bit=1)
    value: int = uint(0, 5, bit=3)
    msn: int = uint(1, 24)


def psn_add(psn: int, count: int) -> int:
    """``psn + count`` modulo 2**24; ``count`` may be negative."""
    return (psn + count) & PSN_MASK


def psn_diff(left: int, right: int) -> int:
    """Signed distance ``left - right`` in the 24-bit PSN circle: -2**23 .. 2**23-1 (IBA 9.7.1)."""
    distance = (left - right) & PSN_MASK
    return distance - 0x1000000 if distance & 0x800000 else distance


def ack_syndrome(credits_code: int = CREDITS_INVALID) -> int:
    """AETH syndrome of an ACK."""
    return credits_code & 0x1F


def rnr_syndrome(timer: int) -> int:
    """AETH syndrome of an RNR NAK with a 5-bit timer code (see :data:`RNR_TIMER_MS`)."""
    return 0x20 | timer & 0x1F


def nak_syndrome(code: NakCode) -> int:
    """AETH syndrome of a NAK."""
    return 0x60 | code


class RcAddress(NamedTuple):
    """What all packets of one direction of a connection share."""

    slid: int
    dlid: int
    dest_qp: int
    pkey: int
    service_level: int = 0
    virtual_lane: int = 0

    def checked(self) -> RcAddress:
        """Self, when every value fits its field; else :class:`EncodeError`. Check once, then pack without checks."""
        limits = (0xFFFF, 0xFFFF, PSN_MASK, 0xFFFF, 15, 15)
        if not all(0 <= value <= limit for value, limit in zip(self, limits, strict=True)):
            raise EncodeError(f"{self!r} does not fit its fields")
        return self


class RcPacket(NamedTuple):
    """An RC or UD packet as read by :func:`unpack`.

    ``extension`` is the offset of the extended header (RETH, AETH or DETH, see :data:`WITH_RETH`, :data:`WITH_AETH`)
    in ``data``, the whole packet; ``payload`` is without the padding.
    """

    opcode: int
    psn: int
    dest_qp: int
    slid: int
    dlid: int
    pkey: int
    ack_request: bool
    solicited: bool
    extension: int
    payload: bytes
    data: bytes


# LRH (VL|LVer|SL|LNH in one word, DLID, PktLen, SLID), BTH (opcode, flags, P_Key, QP, A|PSN), then the extension
_LRH_BTH: Final = struct.Struct(">HHHHBBHII")
_WITH_RETH: Final = struct.Struct(">HHHHBBHIIQII")
_WITH_AETH: Final = struct.Struct(">HHHHBBHIII")
_WITH_DETH: Final = struct.Struct(">HHHHBBHIIII")
_BTH: Final = struct.Struct(">BBHII")
_LRH: Final = struct.Struct(">HHHH")
_RETH: Final = struct.Struct(">QII")
_AETH: Final = struct.Struct(">I")
_DETH: Final = struct.Struct(">II")
_PADDING: Final = (b"", b"\0", b"\0\0", b"\0\0\0")
_pack_plain: Final = _LRH_BTH.pack
_pack_reth: Final = _WITH_RETH.pack
_pack_aeth: Final = _WITH_AETH.pack
_pack_deth: Final = _WITH_DETH.pack
_unpack_head: Final = _LRH_BTH.unpack_from
_make_packet: Final = partial(tuple.__new__, RcPacket)  # skips the Python-level constructor of the named tuple


def pack_send(
    address: RcAddress,
    opcode: int,
    psn: int,
    payload: Buffer,
    ack_request: bool = False,
    solicited: bool = False,
) -> bytes:
    """A packet without extended header: SEND first/middle/last/only, WRITE middle/last, READ response middle."""
    slid, dlid, dest_qp, pkey, service_level, lane = address
    size = len(payload)
    pad = -size & 3
    return (
        _pack_plain(
            lane << 12 | service_level << 4 | LNH_LOCAL,
            dlid,
            (size + pad + 24) >> 2,
            slid,
            opcode,
            solicited << 7 | 0x40 | pad << 4,
            pkey,
            dest_qp,
            ack_request << 31 | psn,
        )
        + payload
        + _PADDING[pad]
    )


def pack_rdma(
    address: RcAddress,
    opcode: int,
    psn: int,
    virtual_address: int,
    r_key: int,
    dma_length: int,
    payload: Buffer = b"",
    ack_request: bool = False,
) -> bytes:
    """A packet with RETH: WRITE first/only with data, or READ request without."""
    slid, dlid, dest_qp, pkey, service_level, lane = address
    size = len(payload)
    pad = -size & 3
    return (
        _pack_reth(
            lane << 12 | service_level << 4 | LNH_LOCAL,
            dlid,
            (size + pad + 40) >> 2,
            slid,
            opcode,
            0x40 | pad << 4,
            pkey,
            dest_qp,
            ack_request << 31 | psn,
            virtual_address,
            r_key,
            dma_length,
        )
        + payload
        + _PADDING[pad]
    )


def pack_ack(address: RcAddress, opcode: int, psn: int, syndrome: int, msn: int, payload: Buffer = b"") -> bytes:
    """A packet with AETH: ACK, NAK or RNR NAK, or READ response first/last/only with data."""
    slid, dlid, dest_qp, pkey, service_level, lane = address
    size = len(payload)
    pad = -size & 3
    return (
        _pack_aeth(
            lane << 12 | service_level << 4 | LNH_LOCAL,
            dlid,
            (size + pad + 28) >> 2,
            slid,
            opcode,
            0x40 | pad << 4,
            pkey,
            dest_qp,
            psn,
            syndrome << 24 | msn,
        )
        + payload
        + _PADDING[pad]
    )


def pack_datagram(address: RcAddress, psn: int, q_key: int, source_qp: int, payload: Buffer) -> bytes:
    """A UD SEND-only packet, as MADs travel: ``address.dest_qp`` 0 for an SMP (then VL 15), 1 for a GMP."""
    slid, dlid, dest_qp, pkey, service_level, lane = address
    size = len(payload)
    pad = -size & 3
    return (
        _pack_deth(
            lane << 12 | service_level << 4 | LNH_LOCAL,
            dlid,
            (size + pad + 32) >> 2,
            slid,
            Opcode.UD_SEND_ONLY,
            0x40 | pad << 4,
            pkey,
            dest_qp,
            psn,
            q_key,
            source_qp,
        )
        + payload
        + _PADDING[pad]
    )


def peek_route(data: Buffer) -> tuple[int, int, int, int]:
    """``(virtual lane, SLID, DLID, LNH)`` of a packet, all that a switch needs."""
    if len(data) < LRH_LENGTH:
        raise DecodeError(f"an LRH has {LRH_LENGTH} bytes, the packet has {len(data)}")
    word, dlid, _, slid = _LRH.unpack_from(data)
    return word >> 12, slid, dlid, word & 3


def unpack(data: bytes) -> RcPacket:
    """Read an RC or UD packet; :class:`DecodeError` for a bad length, version, padding or opcode."""
    total = len(data)
    if total < 20:
        raise DecodeError(f"an IBA packet has at least 20 bytes before its payload, got {total}")
    word, dlid, words, slid, opcode, flags, pkey, dest_qp, sequence = _unpack_head(data)
    bth = LRH_LENGTH
    if word & 0x0F03 != LNH_LOCAL:
        if word & 0x0F03 != LNH_GLOBAL:
            raise DecodeError(f"not an IBA transport packet: link version {word >> 8 & 15}, LNH {word & 3}")
        bth += GRH_LENGTH
        if total < bth + BTH_LENGTH:
            raise DecodeError(f"a global packet has at least 60 bytes before its payload, got {total}")
        opcode, flags, pkey, dest_qp, sequence = _BTH.unpack_from(data, bth)
    if (words & 0x7FF) << 2 != total + ICRC_LENGTH:
        raise DecodeError(f"LRH.PktLen says {(words & 0x7FF) * 4 - ICRC_LENGTH} bytes without ICRC, got {total}")
    if flags & 0x0F:
        raise DecodeError(f"unknown transport header version {flags & 0x0F}")
    extension_length = _EXTENSION.get(opcode)
    if extension_length is None:
        raise DecodeError(f"unknown or unsupported BTH opcode {opcode:#04x}")
    extension = bth + BTH_LENGTH
    start = extension + extension_length
    end = total - (flags >> 4 & 3)
    if start > end:
        raise DecodeError(f"packet of opcode {opcode:#04x} is too short: {total} bytes, payload would start at {start}")
    return _make_packet(
        (
            opcode,
            sequence & PSN_MASK,
            dest_qp & PSN_MASK,
            slid,
            dlid,
            pkey,
            sequence > 0x7FFFFFFF,
            flags > 0x7F,
            extension,
            data[start:end],
            data,
        )
    )


def read_reth(packet: RcPacket) -> tuple[int, int, int]:
    """``(virtual address, R_Key, DMA length)`` of a packet whose opcode is in :data:`WITH_RETH`."""
    va, r_key, length = _RETH.unpack_from(packet.data, packet.extension)
    return va, r_key, length


def read_aeth(packet: RcPacket) -> tuple[int, int]:
    """``(syndrome, MSN)`` of a packet whose opcode is in :data:`WITH_AETH`."""
    (word,) = _AETH.unpack_from(packet.data, packet.extension)
    return word >> 24, word & PSN_MASK


def read_deth(packet: RcPacket) -> tuple[int, int]:
    """``(Q_Key, source QP)`` of a UD packet."""
    q_key, source = _DETH.unpack_from(packet.data, packet.extension)
    return q_key, source & PSN_MASK


def read_grh(packet: RcPacket) -> GlobalRouteHeader | None:
    """The GRH of a packet, ``None`` for a local one."""
    if packet.extension == LRH_LENGTH + BTH_LENGTH:
        return None
    return GlobalRouteHeader.decode(packet.data, LRH_LENGTH)


def split_syndrome(syndrome: int) -> tuple[AckKind, int]:
    """``(kind, credit count | RNR timer | NAK code)`` of an AETH syndrome."""
    return AckKind(syndrome >> 5 & 3), syndrome & 0x1F
