"""Logins of one local port through its ``add_target`` attribute (facts: srp C.1).

The driver takes one at a time per port and may hold the writer for 70 s. A caller that is cancelled leaves the write
behind it: the port stays busy until the kernel lets go, and the next login waits for that.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from srpha.kernel.kernel_log import KernelLog
from srpha.kernel.sysfs import AttributeGoneError, Sysfs
from srpha.kernel.worker import Worker


@dataclass(frozen=True, slots=True)
class AddTargetResult:
    """What the kernel said: errno (0: logged in), and what it logged from the beginning to the end of the write."""

    errno: int
    log: tuple[str, ...]
    log_trouble: str = ""
    """Why the log is not known; empty when it is."""
    missing: bool = False
    """There is no such local port: nothing was written."""


class AddTargetWorker:
    """Writes the lines of one local port, one after the other."""

    def __init__(self, sysfs: Sysfs, directory: str, log: KernelLog) -> None:
        """``directory`` is the port's, relative to the root of sysfs."""
        self._sysfs = sysfs
        self._path = f"{directory}/add_target"
        self._log = log
        self._worker = Worker(directory.rpartition("/")[2])

    @property
    def busy(self) -> bool:
        """A login is under way or waits, also one whose caller has left."""
        return self._worker.busy

    async def add(self, line: str) -> AddTargetResult:
        """Write ``line``; returns when the kernel has logged in and scanned, or has refused."""
        return await self._worker.call(lambda: self._add(line))

    def close(self) -> None:
        """Take no more; a login that is under way goes on by itself."""
        self._worker.close()

    def _add(self, line: str) -> AddTargetResult:
        trouble = ""
        reader = None
        try:
            reader = self._log.open()
        except OSError as error:
            trouble = f"the kernel log could not be read: {error.strerror or error}"
        try:
            code, missing = self._write(line)
            return AddTargetResult(code, reader.lines() if reader is not None else (), trouble, missing)
        finally:
            if reader is not None:
                reader.close()

    def _write(self, line: str) -> tuple[int, bool]:
        try:
            # Without a newline: the driver would take it for an empty parameter, which old ones do not know.
            self._sysfs.write(self._path, line)
        except AttributeGoneError:
            return errno.ENODEV, True
        except OSError as error:
            return error.errno or errno.EIO, False
        return 0, False
