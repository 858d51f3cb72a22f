"""One NBD request on its way through a block device, in pieces that the device takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from srpha.embedded.multipath.io import BlockIo, IoKind

if TYPE_CHECKING:
    from srpha.embedded.nbd.export import BlockDevice

_WINDOW: Final = 8
"""Pieces of one request under way at a time: enough for all paths, and a long request does not crowd out others."""

Done = Callable[["Transfer"], None]


class Transfer:
    """A read, a write or a flush. A write without payload is one of zeroes.

    When ``done(transfer)`` is called no piece is under way any more; then ``error`` is the first piece's that failed,
    or None, and ``data`` holds what was read, in order. No piece is begun after one has failed.
    """

    __slots__ = (
        "_device",
        "_done",
        "_end",
        "_fua",
        "_kind",
        "_next",
        "_payload",
        "_start",
        "_step",
        "_under_way",
        "data",
        "error",
    )

    def __init__(
        self,
        device: BlockDevice,
        kind: IoKind,
        first: int,
        blocks: int,
        done: Done,
        *,
        payload: bytes = b"",
        fua: bool = False,
    ) -> None:
        self._device = device
        self._kind = kind
        self._done = done
        self._fua = fua
        self._start = self._next = first
        self._end = first + blocks
        self._step = max(1, device.max_io_bytes // device.block_size)
        self._under_way = 0
        if kind is IoKind.WRITE and not payload:
            payload = bytes(min(blocks, self._step) * device.block_size)
            self._start = -1
        self._payload = memoryview(payload)
        self.data: list[bytes | bytearray | memoryview] = []
        self.error: OSError | ValueError | None = None

    def start(self) -> None:
        """Send off the first pieces."""
        if self._kind is IoKind.READ:
            self.data = [b""] * -(-(self._end - self._start) // self._step)
        self._go_on()

    def _go_on(self) -> None:
        while self._next < self._end and self._under_way < _WINDOW and self.error is None:
            blocks = min(self._step, self._end - self._next)
            io = self._piece(blocks)
            try:
                self._device.submit(io)
            except ValueError as error:
                self.error = error
                break
            self._next += blocks
            self._under_way += 1
        if not self._under_way:
            self._done(self)

    def _piece(self, blocks: int) -> BlockIo:
        at = self._next
        if self._kind is IoKind.WRITE:
            size = self._device.block_size
            skip = 0 if self._start < 0 else (at - self._start) * size
            return BlockIo(
                IoKind.WRITE, self._finished, lba=at, data=self._payload[skip : skip + blocks * size], fua=self._fua
            )
        if self._kind is IoKind.FLUSH:
            return BlockIo(IoKind.FLUSH, self._finished)
        return BlockIo(IoKind.READ, self._finished, lba=at, blocks=blocks)

    def _finished(self, io: BlockIo) -> None:
        self._under_way -= 1
        if io.error is not None:
            self.error = self.error or io.error
        elif self._kind is IoKind.READ:
            self.data[(io.lba - self._start) // self._step] = io.data
        self._go_on()
