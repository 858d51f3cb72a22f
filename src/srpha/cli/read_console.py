"""A console for work that goes on for long: when nobody reads its output any more, the work is ended.

rich raises SystemExit then, wherever something was being printed: inside a task that tears the loop down with it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

from rich.console import Console

T = TypeVar("T")


class ReaderLeftError(Exception):
    """Nobody reads the output any more."""


class ReadConsole(Console):
    """Keeps quiet once its reader has left."""

    _work: asyncio.Task[Any] | None = None
    _left = False

    def on_broken_pipe(self) -> None:
        self.quiet = self._left = True
        # What is in the stream's own buffer would be written at the end of the process, and fail again.
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)
        if self._work is not None:
            self._work.cancel()

    async def while_read(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work``, which prints here. Raises :class:`ReaderLeftError` when it was ended for want of a reader."""
        task = asyncio.create_task(work)
        self._work = task
        try:
            return await task
        except asyncio.CancelledError:
            if self._left:
                raise ReaderLeftError from None
            raise
