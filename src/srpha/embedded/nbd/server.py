"""NBD on a Unix socket: every map of a host is an export, from the map's appearance on."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path
from typing import Final
from urllib.parse import quote

from srpha.embedded.nbd.connection import NbdConnection
from srpha.embedded.nbd.export import Exports
from srpha.embedded.nbd.settings import NbdLimits

_SOCKET_MODE: Final = 0o660
_BACKLOG: Final = 16


class NbdServerError(Exception):
    """The socket cannot be had; the message is one line for an operator."""


class NbdServer:
    """Serves what ``exports()`` gives at the time a client asks; the first of them is the default export."""

    def __init__(self, path: Path, exports: Exports, limits: NbdLimits | None = None) -> None:
        self.path = path
        self.listening = asyncio.Event()
        """Set while clients can connect."""
        self._exports = exports
        self._limits = limits or NbdLimits()
        self._connections = 0
        self._listener: socket.socket | None = None

    @property
    def connections(self) -> int:
        """Clients now, also those that have left while I/O of theirs is under way."""
        return self._connections

    def uri(self, export: str = "") -> str:
        """The NBD URI of an export, as libnbd and QEMU take it."""
        return f"nbd+unix:///{quote(export)}?socket={quote(str(self.path))}"

    def open(self) -> None:
        """Take the socket, if :meth:`run` is not to be the first to find out that it cannot be had.

        Raises :class:`NbdServerError`. A leftover of a dead process is replaced, a live one is not.
        """
        if self._listener is None:
            self._listener = _bind(self.path)

    def close(self) -> None:
        """Give the socket back; for a server that was opened and not run."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self.path.unlink(missing_ok=True)

    async def run(self) -> None:
        """Serve until cancelled; then I/O under way is finished or refused, and the socket is gone.

        Raises :class:`NbdServerError` as :meth:`open` does.
        """
        self.open()
        try:
            async with asyncio.TaskGroup() as group:

                def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                    if self._connections >= self._limits.connections:
                        writer.transport.abort()
                        return
                    self._connections += 1
                    group.create_task(self._serve(reader, writer))

                server = await asyncio.start_unix_server(accept, sock=self._listener, backlog=_BACKLOG)
                self.listening.set()
                try:
                    await asyncio.Event().wait()  # serve_forever would wait for the clients that its end is to end
                finally:
                    self.listening.clear()
                    server.close()
        finally:
            self.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await NbdConnection(reader, writer, self._exports, self._limits).run()
        finally:
            self._connections -= 1


def _bind(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear_leftover(path)
        mask = os.umask(0o777 & ~_SOCKET_MODE)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
    except OSError as error:
        listener.close()
        raise NbdServerError(f"{path}: the NBD socket cannot be made: {error.strerror or error}") from error
    except NbdServerError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _clear_leftover(path: Path) -> None:
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise NbdServerError(f"{path} exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise NbdServerError(f"something serves {path} already")
