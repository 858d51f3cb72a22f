"""Captures of the fabric's packets for tshark and Wireshark: pcap with link type 147 (USER0).

The embedded wire carries no CRCs; here ICRC and VCRC are appended, so that a record is a packet of a real link, LRH to
VCRC. Wireshark is told once what link type 147 means::

    tshark -o 'uat:user_dlts:"User 0 (DLT=147)","infiniband","0","","0",""' -r file.pcap

A packet is recorded as its first port sends it; a directed-route SMP thus shows the hop pointer its maker set. The VCRC
is computed byte by byte, about 0.1 us each: a capture of data traffic slows a world down, one of MADs does not matter.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

from srpha.core.seams import GSI_QPN, Unwatch
from srpha.embedded.fabric.hardware import Fabric, Port
from srpha.wire.crc import with_crcs
from srpha.wire.errors import DecodeError
from srpha.wire.rc import BTH_LENGTH, GRH_LENGTH, LNH_GLOBAL, LRH_LENGTH

LINKTYPE_USER0: Final = 147
_NANOSECOND_MAGIC: Final = 0xA1B23C4D
_FILE_HEADER: Final = struct.Struct("<IHHiIII")
_RECORD_HEADER: Final = struct.Struct("<IIII")
_SNAP_LENGTH: Final = 65535
_NANOSECONDS: Final = 1_000_000_000


class PcapWriter:
    """Writes packets to a binary stream, which stays the caller's to close.

    ``epoch`` in seconds since 1970 is added to loop times. ``mads_only`` leaves out what does not go to QP0 or QP1.
    ``written`` and ``skipped`` count records and packets that are too short to be any.
    """

    def __init__(self, stream: BinaryIO, *, epoch: float = 0.0, mads_only: bool = False) -> None:
        self._stream = stream
        self._epoch = epoch
        self._mads_only = mads_only
        self.written = 0
        self.skipped = 0
        stream.write(_FILE_HEADER.pack(_NANOSECOND_MAGIC, 2, 4, 0, 0, _SNAP_LENGTH, LINKTYPE_USER0))

    def write(self, when: float, packet: bytes) -> None:
        """Add one packet without CRCs, seen at loop time ``when`` in seconds."""
        if self._mads_only and not is_mad(packet):
            return
        try:
            record = with_crcs(packet)
        except DecodeError:
            self.skipped += 1
            return
        seconds, nanoseconds = divmod(round((self._epoch + when) * _NANOSECONDS), _NANOSECONDS)
        self._stream.write(_RECORD_HEADER.pack(seconds, nanoseconds, len(record), len(record)) + record)
        self.written += 1

    def attach(self, fabric: Fabric, port: Port | None = None) -> Unwatch:
        """Record every packet of the fabric once, or what one port sends and takes in."""
        if port is None:
            return fabric.tap(lambda now, _port, packet: self.write(now, packet))

        def heard(now: float, at: Port, packet: bytes) -> None:
            if at is port:
                self.write(now, packet)

        stop_sent = fabric.tap(heard)
        stop_arrived = fabric.tap(heard, arrivals=True)

        def detach() -> None:
            stop_sent()
            stop_arrived()

        return detach


def is_mad(packet: bytes) -> bool:
    """Whether a packet goes to QP0 or QP1."""
    if len(packet) < LRH_LENGTH + BTH_LENGTH:
        return False
    bth = LRH_LENGTH + (GRH_LENGTH if packet[1] & 3 == LNH_GLOBAL else 0)
    return len(packet) >= bth + BTH_LENGTH and int.from_bytes(packet[bth + 5 : bth + 8], "big") <= GSI_QPN
