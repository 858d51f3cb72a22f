"""ibsim's socket protocol, spoken without a preload: a program attached to one node of the simulated fabric.

Two pairs of abstract datagram sockets, whose names end in a zero byte: one for control (connect, port data), one for
datagrams of 288 bytes that carry a MAD each. LIDs, queue pairs, status and length are in network order, the rest is in
the machine's.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
from dataclasses import dataclass

_CONTROL = struct.Struct("=4I64s")
_CLIENT = struct.Struct("=3I32s")
_DATAGRAM = struct.Struct(">H2xH2xIII4xQ256s")
_MAGIC = 0xDEADBEEF
_CONNECT, _DISCONNECT, _NODE_INFO, _PORT_INFO = 1, 2, 7, 8
_numbers = itertools.count(1)


class IbsimError(OSError):
    """ibsim refused, or is not there."""


@dataclass(frozen=True)
class Datagram:
    """A MAD that came in, and whom the answer goes to."""

    slid: int
    sqp: int
    status: int
    mad: bytes


class IbsimClient:
    """Attached to the first port of ``node`` in the fabric named ``base``; requests to its QP1 come here."""

    def __init__(self, base: str, node: str) -> None:
        self.node = node
        identifier = 0x40000000 + (os.getpid() << 8 & 0x3FFFFF00) + next(_numbers)
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._data = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._client = 0
        try:
            self._control.bind(f"\0{base}:ctl{identifier}\0")
            self._control.connect(f"\0{base}:ctl\0")
            self._control.settimeout(5)
            self._data.bind(f"\0{base}:in{identifier}\0")
            told = self._ask(_CONNECT, _CLIENT.pack(identifier, 0, 1, node.encode()))
            (self._client,) = struct.unpack_from("=I", told)
            self._data.connect(f"\0{base}:out{self._client}\0")
        except OSError:
            self._control.close()
            self._data.close()
            raise
        self._data.setblocking(False)

    def _ask(self, kind: int, data: bytes = b"") -> bytes:
        self._control.send(_CONTROL.pack(_MAGIC, self._client, kind, len(data), data))
        _, _, answered, _, told = _CONTROL.unpack(self._control.recv(_CONTROL.size))
        if not answered:
            raise IbsimError(f"ibsim refused request {kind} for {self.node}")
        return bytes(told)

    @property
    def node_guid(self) -> int:
        return int(struct.unpack_from(">Q", self._ask(_NODE_INFO), 12)[0])

    @property
    def lid(self) -> int:
        return int(struct.unpack_from(">H", self._ask(_PORT_INFO), 16)[0])

    def fileno(self) -> int:
        return self._data.fileno()

    def receive(self) -> Datagram | None:
        """The next datagram, None when there is none."""
        try:
            data = self._data.recv(_DATAGRAM.size)
        except BlockingIOError:
            return None
        _, slid, _, sqp, status, _, mad = _DATAGRAM.unpack(data)
        return Datagram(slid, sqp, status, mad)

    def send(self, lid: int, qpn: int, mad: bytes) -> None:
        """To a queue pair, from QP1."""
        self._data.send(_DATAGRAM.pack(lid, 0, qpn, 1, 0, 256, mad))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the fabric may have gone first
            self._ask(_DISCONNECT)
        self._control.close()
        self._data.close()
