"""Awaiting I/Os: one future for a transfer of one or more pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from srpha.embedded.multipath.io import BlockIo


class _Transfer:
    """Counts the pieces of a transfer; its future is done when the last has completed."""

    __slots__ = ("future", "left")

    def __init__(self, pieces: int) -> None:
        self.left = pieces
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


def settle(io: BlockIo) -> None:
    """``done`` of the pieces of a transfer."""
    transfer = io.context
    assert isinstance(transfer, _Transfer)
    transfer.left -= 1
    if not transfer.left and not transfer.future.done():
        transfer.future.set_result(None)


async def transfer(submit: Callable[[BlockIo], None], pieces: Sequence[BlockIo]) -> None:
    """Submit the pieces, all at once, and wait until each has completed; raises the first piece's error.

    Every piece has :func:`settle` as its ``done``. A caller that is cancelled leaves the I/Os under way.
    """
    shared = _Transfer(len(pieces))
    for io in pieces:
        io.context = shared
        submit(io)
    await shared.future
    for io in pieces:
        if io.error is not None:
            raise io.error
