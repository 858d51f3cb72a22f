"""One NBD client: handshake, then requests until it leaves.

One coroutine reads requests in order; replies go out from the completions of their I/O, in whatever order those come.
What a client may have under way is bounded, and the coroutine reads nothing more while it is, or while the client does
not read its replies. A length is judged before anything of that length is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Final

from srpha.embedded.nbd.export import BlockExport, Exports, Failure, failure_of
from srpha.embedded.nbd.haggling import DENIAL_LIMIT, OFFERED, OPTION_LIMIT, Haggling
from srpha.embedded.nbd.settings import NbdLimits
from srpha.embedded.nbd.transfer import Transfer
from srpha.wire.errors import DecodeError
from srpha.wire.nbd import (
    PORTABLE_PAYLOAD,
    ClientFlags,
    Command,
    ErrorChunk,
    Greeting,
    NbdError,
    OptionHeader,
    Request,
    clipped,
    data_chunk,
    decode_message,
    decode_request,
    error_chunk,
    none_chunk,
    simple_reply,
)

_PIECE: Final = 1 << 16
"""Bytes that are skipped at a time."""
_JOINED: Final = 1 << 17
"""Bytes of replies up to which copying them together costs less than another system call."""


class NbdConnection:
    """Serve one client with :meth:`run`; the connection is closed when it returns."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, exports: Exports, limits: NbdLimits
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._exports = exports
        self._limits = limits
        self._structured = False
        self._under_way: dict[int, Request] = {}
        """Requests that are not answered, by a number of our own: clients may reuse a cookie."""
        self._last = 0
        self._bytes = 0
        self._outbox: list[bytes | bytearray | memoryview] = []
        self._freed = asyncio.Event()

    async def run(self) -> None:
        """Serve until the client leaves or breaks the protocol; when cancelled, end as a server's shutdown does."""
        try:
            async with asyncio.timeout(self._limits.handshake_time):
                export = await self._negotiate()
            if export is not None:
                await self._transmit(export)
        except (DecodeError, EOFError, ConnectionError, TimeoutError):
            pass  # A client that goes away, falls silent or breaks the rules is disconnected; there is nobody to tell.
        except asyncio.CancelledError:
            await self._shut_down()
            raise
        finally:
            await self._close()

    # --- handshake ---

    async def _negotiate(self) -> BlockExport | None:
        self._writer.write(Greeting(flags=OFFERED).encode())
        flags = ClientFlags.decode(await self._reader.readexactly(ClientFlags.LENGTH)).flags
        if flags & ~int(OFFERED):
            return None
        haggling = Haggling(self._exports, flags)
        while True:
            header = decode_message(OptionHeader, await self._reader.readexactly(OptionHeader.LENGTH))
            if header.length > DENIAL_LIMIT:
                return None
            data: bytes | None = None
            if header.length > OPTION_LIMIT:
                await self._skip(header.length)
            else:
                data = await self._reader.readexactly(header.length)
            answer = haggling.answer(header.option, data)
            self._writer.write(answer.reply)
            await self._writer.drain()
            await asyncio.sleep(0)
            if answer.hang_up:
                return None
            if answer.export is not None:
                self._structured = haggling.structured
                return answer.export

    # --- transmission ---

    async def _transmit(self, export: BlockExport) -> None:
        try:
            while (request := decode_request(await self._reader.readexactly(Request.LENGTH))).command != Command.DISC:
                if request.command == Command.WRITE and request.length > PORTABLE_PAYLOAD:
                    break
                failure = export.refuse(request, structured=self._structured)
                if failure is not None:
                    if request.command == Command.WRITE:
                        await self._skip(request.length)
                    self._reply_failure(request, failure)
                    await asyncio.sleep(0)  # a flood of nonsense must not keep others waiting
                else:
                    await self._take(export, request)
                await self._writer.drain()
        except (DecodeError, EOFError, ConnectionError):
            pass
        # Also after a client that has just gone: its slot is not free while its I/O holds memory.
        await self._all_done()

    async def _take(self, export: BlockExport, request: Request) -> None:
        cost = export.cost(request)
        limits = self._limits
        while self._under_way and (
            self._bytes + cost > limits.in_flight_bytes or len(self._under_way) >= limits.in_flight_requests
        ):
            await self._next_freed()
        payload = await self._reader.readexactly(request.length) if request.command == Command.WRITE else b""
        if not request.length and request.command != Command.FLUSH:
            self._reply(request, [])
            return
        self._last = number = self._last + 1
        self._under_way[number] = request
        self._bytes += cost
        export.start(request, payload, partial(self._done, number, cost))

    def _done(self, number: int, cost: int, transfer: Transfer) -> None:
        request = self._under_way.pop(number)
        self._bytes -= cost
        self._freed.set()
        if transfer.error is not None:
            self._reply_failure(request, failure_of(transfer.error))
        else:
            self._reply(request, transfer.data)

    async def _next_freed(self) -> None:
        self._freed.clear()
        await self._freed.wait()

    async def _all_done(self) -> None:
        while self._under_way:
            await self._next_freed()

    # --- replies ---

    def _reply(self, request: Request, data: list[bytes | bytearray | memoryview]) -> None:
        if request.command == Command.READ and self._structured:
            head = data_chunk(request.cookie, request.offset, request.length) if data else none_chunk(request.cookie)
        else:
            head = simple_reply(request.cookie)
        self._send(head)
        for piece in data:
            self._send(piece)

    def _reply_failure(self, request: Request, failure: Failure) -> None:
        if self._structured:
            self._send(error_chunk(request.cookie, ErrorChunk(failure.error, clipped(failure.text))))
        else:
            self._send(simple_reply(request.cookie, failure.error))

    def _send(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes of a reply. All that become ready in one turn of the loop go out in one system call."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append(data)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        if self._writer.is_closing():
            return
        if sum(map(len, outbox)) <= _JOINED:
            self._writer.write(b"".join(outbox))
        else:
            for data in outbox:
                self._writer.write(data)

    # --- ends ---

    async def _skip(self, length: int) -> None:
        while length:
            length -= len(await self._reader.readexactly(min(length, _PIECE)))

    async def _shut_down(self) -> None:
        """Let I/O under way finish for a while; answer ESHUTDOWN to what has not (proto.md, "Terminating ...")."""
        await _within(self._limits.grace, self._all_done())
        for request in self._under_way.values():
            self._reply_failure(request, Failure(NbdError.ESHUTDOWN, "the server is shutting down"))

    async def _close(self) -> None:
        """Give the client a while to read the last replies; then close in any case."""
        self._flush()
        self._writer.close()
        if not await _within(self._limits.linger, self._closed()):
            self._writer.transport.abort()

    async def _closed(self) -> None:
        with suppress(OSError):
            await self._writer.wait_closed()


async def _within(seconds: float, work: Coroutine[object, object, None]) -> bool:
    """Whether ``work`` ended in time; it is cancelled otherwise.

    Not ``asyncio.timeout``: before Python 3.11.3 that one does not work in a task that was cancelled, as a
    connection is that ends with its server.
    """
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    task.cancel()
    return bool(done)
