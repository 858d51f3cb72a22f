"""One I/O on a multipath device, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srpha.core.multipath.disposition import Verdict
    from srpha.core.scsi_io import ScsiCommand
    from srpha.embedded.multipath.path import DevicePath


class IoKind(Enum):
    READ = "read"
    WRITE = "write"
    FLUSH = "flush"


class BlockIoError(OSError):
    """An I/O has failed: ``errno`` as the block layer gives it, and a sentence with device, address and sense."""


class BlockIo:
    """One I/O on a multipath device.

    ``done(io)`` is called exactly once, never from inside ``submit``; then ``error`` is None or a :class:`BlockIoError`
    and, for a read, ``data`` holds the bytes read, in a buffer that no other attempt has ever used. ``context`` is the
    submitter's own. An I/O may be submitted again after it has completed. The attributes from ``attempt`` on belong to
    the multipath device.
    """

    __slots__ = (
        "attempt",
        "blocks",
        "cdb",
        "command",
        "context",
        "data",
        "deadline",
        "done",
        "error",
        "fua",
        "hold_token",
        "kind",
        "lba",
        "path",
        "retries",
        "size",
        "tag",
        "verdict",
    )

    def __init__(
        self,
        kind: IoKind,
        done: Callable[[BlockIo], None],
        *,
        lba: int = 0,
        blocks: int = 0,
        data: bytes | bytearray | memoryview = b"",
        fua: bool = False,
        context: object = None,
    ) -> None:
        self.kind = kind
        self.done = done
        self.lba = lba
        self.blocks = blocks
        """For a read; a write takes it from its data."""
        self.data = data
        self.fua = fua
        self.context = context
        self.error: BlockIoError | None = None
        self.attempt = 0
        """Number of the attempt under way, 1 is the first; 0 before."""
        self.tag = 0
        """Number of the I/O on its device, while it is under way; 0 otherwise."""
        self.size = 0
        self.cdb = b""
        self.command: ScsiCommand | None = None
        """The attempt under way. An answer to any other command is late and ignored."""
        self.path: DevicePath | None = None
        self.retries = 0
        self.deadline = 0.0
        """When retries on the same path end; 0 before the first retry."""
        self.verdict: Verdict | None = None
        """Of the last attempt that failed."""
        self.hold_token = 0
        """Of the fence that a write waits for; 0 when it waits for none."""
