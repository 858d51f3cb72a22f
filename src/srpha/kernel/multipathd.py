"""A client of multipathd's socket (facts: multipath 1.7).

A request is the command's length with its closing NUL as a native ``size_t``, then the command; the reply is framed
alike. One request is under way at a time on a connection, which is kept between requests and made anew when multipathd
was restarted. Anybody may bind the abstract name while multipathd is down, so the peer's user is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Final

PATHNAME_SOCKET: Final = "/run/multipathd.socket"
ABSTRACT_SOCKET: Final = "@/org/kernel/linux/storage/multipathd"
SOCKET_VARIABLE: Final = "MULTIPATH_SOCKET_NAME"
REPLY_MAX: Final = 32 << 20
"""multipath-tools' own limit of a reply, in bytes."""
COMMAND_MAX: Final = 511
"""Characters of a command; multipathd drops clients that send more."""
TIMEOUT: Final = 4.0
"""multipath-tools' own default, in seconds."""

_LENGTH: Final = struct.Struct("@N")
_CREDENTIALS: Final = struct.Struct("=iII")
_COMMAND: Final = re.compile(r"[ -~]+", re.ASCII)
_FAILURES: Final = ("fail", "timeout", "permission deny: need to be root")
"""First lines of a refusal; before 0.10 multipathd sends some reasons without a ``fail`` in front."""


class MultipathdError(Exception):
    """A request to multipathd came to nothing; the message is one sentence for an operator."""


class MultipathdAwayError(MultipathdError):
    """multipathd cannot be reached, does not answer in time, or does not speak its protocol."""


class MultipathdRefusedError(MultipathdError):
    """multipathd answered, and refused."""


class _HungUpError(Exception):
    """The connection ended before the first byte of a reply: the request may be sent again on another one."""


def socket_names(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Where to look for multipathd, first the best; ``@`` stands for the abstract name space."""
    name = environment.get(SOCKET_VARIABLE, "")
    return (name,) if name else (PATHNAME_SOCKET, ABSTRACT_SOCKET)


class MultipathdClient:
    """Asks one multipathd. All methods belong to one event loop; requests of several callers wait for each other.

    ``trusted_users`` are the user numbers that the other end may have: root, and whoever runs srpha.
    """

    def __init__(
        self,
        names: Sequence[str] | None = None,
        *,
        timeout: float = TIMEOUT,
        trusted_users: Collection[int] | None = None,
    ) -> None:
        self._names = tuple(names) if names is not None else socket_names(os.environ)
        self._timeout = timeout
        self._trusted = frozenset(trusted_users if trusted_users is not None else (0, os.geteuid()))
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()

    async def show(self, command: str) -> str:
        """The text that ``show ...`` answers; a bare ``ok``, which stands for an empty list, comes back as ``""``.

        Raises :class:`MultipathdAwayError` or :class:`MultipathdRefusedError`.
        """
        reply = await self.ask(command)
        first = reply.split("\n", 1)[0].rstrip()
        if first in _FAILURES:
            raise MultipathdRefusedError(f"multipathd refused '{command}': {_reason(reply)}")
        return "" if reply.strip() == "ok" else reply

    async def act(self, command: str) -> None:
        """Have multipathd do something; returns when it said ``ok``. Raises like :meth:`show`."""
        reply = await self.ask(command)
        if reply.strip() != "ok":
            raise MultipathdRefusedError(f"multipathd refused '{command}': {_reason(reply)}")

    async def ask(self, command: str) -> str:
        """Send one command and return the reply as it came. Raises :class:`MultipathdAwayError`."""
        if len(command) > COMMAND_MAX or not _COMMAND.fullmatch(command):
            raise ValueError(f"no command for multipathd: {command[:60]!r}")
        request = command.encode("ascii") + b"\0"
        async with self._turn:
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._exchange(request)
            except TimeoutError:
                raise MultipathdAwayError(f"multipathd did not answer '{command}' in {self._timeout:g} s") from None

    async def close(self) -> None:
        """End the connection; the next request makes another."""
        async with self._turn:
            self._drop()

    async def _exchange(self, request: bytes) -> str:
        if self._streams is not None:
            with contextlib.suppress(_HungUpError):
                return await self._once(request)
        await self._connect()
        try:
            return await self._once(request)
        except _HungUpError as error:
            raise MultipathdAwayError(f"multipathd ended the connection instead of answering ({error})") from None

    async def _once(self, request: bytes) -> str:
        """One request on the connection there is.

        Unless it ends well the connection ends: a late reply would be taken for the answer to the next request.
        """
        assert self._streams is not None
        reader, writer = self._streams
        finished = False
        try:
            reply = await _round_trip(reader, writer, request)
            finished = True
            return reply
        finally:
            if not finished:
                self._drop()

    async def _connect(self) -> None:
        troubles = []
        for name in self._names:
            address = "\0" + name[1:] if name.startswith("@") else name
            try:
                reader, writer = await asyncio.open_unix_connection(address)
            except OSError as error:
                troubles.append(f"{name}: {os.strerror(error.errno) if error.errno else error}")
                continue
            peer = _peer_user(writer)
            if peer not in self._trusted:
                writer.transport.abort()
                troubles.append(f"{name}: user {peer} listens there, not root")
                continue
            self._streams = reader, writer
            return
        raise MultipathdAwayError(f"multipathd cannot be reached ({'; '.join(troubles)}); is it running?")

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


async def _round_trip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> str:
    try:
        writer.write(_LENGTH.pack(len(request)) + request)
        await writer.drain()
        header = await reader.readexactly(_LENGTH.size)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise MultipathdAwayError("multipathd ended the connection in the middle of a reply") from None
        raise _HungUpError("end of file") from None
    except OSError as error:
        raise _HungUpError(str(error)) from None
    (length,) = _LENGTH.unpack(header)
    if not 0 < length <= REPLY_MAX:
        raise MultipathdAwayError(f"multipathd announced a reply of {length} bytes; 1 to {REPLY_MAX} are allowed")
    try:
        reply = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, OSError):
        raise MultipathdAwayError("multipathd ended the connection in the middle of a reply") from None
    if reply.find(b"\0") != length - 1:
        raise MultipathdAwayError("multipathd sent a reply that does not end where its length says")
    # vendor and product strings of a device pass through as they are
    return reply[:-1].decode("utf-8", "replace")


def _peer_user(writer: asyncio.StreamWriter) -> int:
    end: socket.socket = writer.get_extra_info("socket")
    _, user, _ = _CREDENTIALS.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(user)


def _reason(reply: str) -> str:
    """The reason out of a refusal; multipathd answers a command it cannot read with its whole help text."""
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    if lines and lines[0] == "fail":
        del lines[0]
    if not lines:
        return "it gave no reason"
    return lines[0][:200] if len(lines) == 1 else f"{lines[0][:200]} ..."
