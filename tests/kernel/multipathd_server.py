"""A stand-in for multipathd's socket that plays a script, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field


def frame(text: str | bytes) -> bytes:
    """Length with the NUL as eight bytes, then text and NUL."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data) + 1) + data + b"\0"


@dataclass
class ScriptedMultipathd:
    """``answer`` maps a command to the bytes to send; None answers nothing, b"" hangs up."""

    answer: Callable[[str], bytes | None]
    commands: list[str] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    connections: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by every command."""
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                header = await reader.readexactly(8)
                body = await reader.readexactly(struct.unpack("<Q", header)[0])
                self.raw.append(header + body)
                self.commands.append(body[:-1].decode())
                self.arrived.set()
                reply = self.answer(self.commands[-1])
                if reply == b"":
                    break
                if reply is not None:
                    writer.write(reply)
                    await writer.drain()

    def hang_up(self) -> None:
        """End every connection, as a restart of multipathd does."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@contextlib.asynccontextmanager
async def serving(path: str, answer: Callable[[str], bytes | None]) -> AsyncIterator[ScriptedMultipathd]:
    """A server on ``path``; a leading ``@`` puts it into the abstract name space."""
    script = ScriptedMultipathd(answer)
    address = "\0" + path[1:] if path.startswith("@") else path
    server = await asyncio.start_unix_server(script.serve, address)
    try:
        yield script
    finally:
        await asyncio.sleep(0.005)  # lets connections arrive that were made and dropped
        server.close()
        script.hang_up()
        await asyncio.sleep(0.005)  # lets their handlers end
