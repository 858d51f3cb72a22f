"""The kernel's log, record by record (Documentation/ABI/testing/dev-kmsg).

ib_srp tells its caller an errno and only the log why. A reader opened at the end of the log before a login sees just
what is logged from then on.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

_RECORD_MAX: Final = 16384
"""Longer than any record; a shorter buffer gives EINVAL."""
_RECORDS_MAX: Final = 10000
"""A log that never ends is left after so many records."""
_HEADER: Final = re.compile(r"[0-9]+,[0-9]+,[0-9]+,[^;]*;(.*)", re.ASCII)
_UNFIT: Final = re.compile(r"[^ -~]")
_TEXT_MAX: Final = 400


class LogReader(Protocol):
    """The log from one moment on."""

    def lines(self) -> tuple[str, ...]:
        """What was logged since the reader was opened or asked last, printable ASCII, oldest first."""
        ...

    def close(self) -> None:
        """Give the reader up; twice is harmless."""
        ...


class KernelLog(Protocol):
    """Where readers come from."""

    def open(self, *, from_start: bool = False) -> LogReader:
        """A reader that starts now, or with the oldest record; raises OSError when the log may not be read."""
        ...


class Kmsg:
    """The log at ``dev``/kmsg."""

    def __init__(self, dev: Path = Path("/dev")) -> None:
        self._path = dev / "kmsg"

    def open(self, *, from_start: bool = False) -> LogReader:
        """See :class:`KernelLog`."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not from_start:
            with suppress(OSError):  # a pipe in its place has no end to go to
                os.lseek(descriptor, 0, os.SEEK_END)
        return KmsgReader(descriptor)


class KmsgReader:
    """Reads records from a non-blocking descriptor and owns it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def lines(self) -> tuple[str, ...]:
        """See :class:`LogReader`. Records that were overwritten before they could be read are left out."""
        found: list[str] = []
        for _ in range(_RECORDS_MAX):
            if self._descriptor is None:
                break
            try:
                data = os.read(self._descriptor, _RECORD_MAX)
            except BrokenPipeError:
                continue  # some were overwritten; reading goes on at the oldest that is left
            except OSError:
                break  # EAGAIN: no more now
            if not data:
                break
            found += parse_records(data)
        return tuple(found)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def parse_records(data: bytes) -> list[str]:
    """The messages in ``data``: ``priority,sequence,time,flags;message`` and property lines that begin with a blank."""
    messages: list[str] = []
    for line in data.decode("utf-8", "replace").split("\n"):
        header = _HEADER.fullmatch(line)
        if header is not None:
            messages.append(_UNFIT.sub("?", header.group(1))[:_TEXT_MAX])
    return messages
