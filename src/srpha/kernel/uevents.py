"""The kernel's uevents as hints that something has changed (netlink(7), NETLINK_KOBJECT_UEVENT).

A message is ``action@devpath`` and ``KEY=value`` pairs, each ended by a NUL. Messages get lost when the receive buffer
overflows: then everybody is told to look again. Nothing is ever concluded from a message itself.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from srpha.core.hints import Hints
from srpha.core.seams import Unwatch
from srpha.wire.errors import DecodeError

NETLINK_KOBJECT_UEVENT: Final = 15
KERNEL_GROUP: Final = 1
"""Messages from the kernel itself; group 2 carries udev's."""
RECEIVE_BUFFER: Final = 16 << 20
"""Bytes; hundreds of disks come and go at once when a target does."""

_SO_RCVBUFFORCE: Final = 33
"""<asm-generic/socket.h>; Python's socket module does not have it."""
_KERNEL: Final = 0
"""Netlink port number of the kernel; anything else is another process."""
_MESSAGE_MAX: Final = 16384
"""Bytes; the kernel's own buffer for one message has 2048."""
_BATCH: Final = 512
"""Messages taken at once before others on the loop have their turn."""
_ACTION: Final = re.compile(r"[a-z]{1,32}", re.ASCII)
_KEY: Final = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)


class Topic(Enum):
    """What a uevent is about."""

    RDMA = "rdma"
    """An RDMA device or a user MAD device came or went."""
    SCSI = "scsi"
    """A SCSI host, remote port, device or disk."""
    MULTIPATH = "multipath"
    """A device-mapper device: a table loaded, a path failed or reinstated."""


_SUBSYSTEMS: Final[Mapping[str, Topic]] = {
    "infiniband": Topic.RDMA,
    "infiniband_mad": Topic.RDMA,
    "scsi": Topic.SCSI,
    "scsi_host": Topic.SCSI,
    "scsi_device": Topic.SCSI,
    "srp_host": Topic.SCSI,
    "srp_remote_ports": Topic.SCSI,
}


@dataclass(frozen=True, slots=True)
class Uevent:
    """One message."""

    action: str
    devpath: str
    properties: Mapping[str, str]

    @property
    def subsystem(self) -> str:
        return self.properties.get("SUBSYSTEM", "")

    @property
    def topic(self) -> Topic | None:
        """What it is about, None for nothing that srpha looks at."""
        if self.subsystem != "block":
            return _SUBSYSTEMS.get(self.subsystem)
        name = self.devpath.rpartition("/")[2]
        if name.startswith("dm-") or "DM_ACTION" in self.properties:
            return Topic.MULTIPATH
        return Topic.SCSI if name.startswith("sd") else None


def parse_uevent(data: bytes) -> Uevent:
    """Read one message of the kernel; raises :class:`DecodeError`."""
    head, *pairs = data.removesuffix(b"\0").split(b"\0")
    action, at, devpath = head.decode("latin-1").partition("@")
    if not at or not _ACTION.fullmatch(action) or not devpath.startswith("/"):
        raise DecodeError(f"no uevent of the kernel: {head[:60]!r}")
    properties: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.decode("utf-8", "replace").partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise DecodeError(f"uevent of {devpath[:200]!r}: {pair[:60]!r} is no KEY=value")
        properties[key] = value
    return Uevent(action, devpath, properties)


def open_uevents(receive_buffer: int = RECEIVE_BUFFER) -> socket.socket:
    """A socket that hears the kernel's uevents; needs no privilege. Raises OSError where there is none."""
    end = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT)
    try:
        try:
            end.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_buffer)
        except PermissionError:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)  # cut to net.core.rmem_max
        end.bind((0, KERNEL_GROUP))
    except OSError:
        end.close()
        raise
    return end


class UeventListener:
    """Turns the messages of one socket (from :func:`open_uevents`) into hints by topic; owns the socket."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._hints = {topic: Hints() for topic in Topic}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.overflows = 0
        """How often the kernel said that messages were lost."""
        self.malformed = 0
        """Messages that were none, or not from the kernel."""
        self.trouble = ""
        """Why nothing is heard any more; empty while it works."""

    def watch(self, topic: Topic, hint: Callable[[], None]) -> Unwatch:
        """Hear that something of ``topic`` happened, or may have."""
        return self._hints[topic].add(hint)

    def start(self) -> None:
        """Listen on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._end, self._readable)

    def close(self) -> None:
        """Stop listening and close the socket; twice is harmless."""
        self._stop()
        self._end.close()

    def _stop(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._end)
            self._loop = None

    def _readable(self) -> None:
        rung: dict[Topic, None] = {}
        for _ in range(_BATCH):
            try:
                data, _, flags, sender = self._end.recvmsg(_MESSAGE_MAX)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                rung |= dict.fromkeys(Topic)
                if error.errno != errno.ENOBUFS:
                    self.trouble = f"uevents are not heard any more: {error.strerror}"
                    self._stop()
                    break
                self.overflows += 1
                continue
            if not data:
                self.trouble = "uevents are not heard any more: end of file"
                self._stop()
                break
            if (topic := self._topic(data, flags, sender)) is not None:
                rung[topic] = None
        # a burst of messages is one hint
        for topic in rung:
            self._hints[topic].ring()

    def _topic(self, data: bytes, flags: int, sender: object) -> Topic | None:
        try:
            if flags & socket.MSG_TRUNC or (isinstance(sender, tuple) and sender[0] != _KERNEL):
                raise DecodeError("cut short, or sent by another process")
            return parse_uevent(data).topic
        except DecodeError:
            self.malformed += 1
            return None
