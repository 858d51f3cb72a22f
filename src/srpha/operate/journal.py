"""systemd's journal: whether standard output leads there, and its native protocol.

The protocol: systemd.io/JOURNAL_NATIVE_PROTOCOL; ``$JOURNAL_STREAM``: systemd.exec(5).
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

JOURNAL_SOCKET: Final = Path("/run/systemd/journal/socket")
_FIELD: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)


def leads_to_journal(descriptor: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a file descriptor is the stream that systemd gave the service, as ``$JOURNAL_STREAM`` says."""
    device, colon, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    if not colon or not (device.isdecimal() and inode.isdecimal()):
        return False
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (int(device), int(inode))


def encode_entry(fields: Mapping[str, str]) -> bytes:
    """One entry. Names are upper case; a value with a line end is sent with its length."""
    parts = []
    for name, value in fields.items():
        if not _FIELD.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a journal field")
        data = value.encode("utf-8", "replace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


class Journal:
    """Sends entries. One that the journal does not take is lost, as it would be from any logger."""

    def __init__(self, path: Path = JOURNAL_SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def send(self, fields: Mapping[str, str]) -> bool:
        """Send one entry; whether it went out."""
        try:
            self._socket.sendto(encode_entry(fields), self._path)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()
