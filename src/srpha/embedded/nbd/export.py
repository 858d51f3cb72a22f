"""A block device as an NBD export: what it advertises, which requests it takes, and how it carries them out.

The advertised minimum block size is the device's own. A request that is not aligned to it is refused with EINVAL, also
from a client that never asked for the size: read-modify-write would not be atomic against other clients' writes.

CAN_MULTI_CONN is true of every export: nothing is cached here, FUA travels with the WRITE, and FLUSH is a SYNCHRONIZE
CACHE of the whole logical unit, whoever wrote to it over whichever connection and path (SBC-3 5.22). TRIM, CACHE and
FAST_ZERO are not offered: the units unmap nothing, and zeroes are written as ordinary data, piece by piece.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from srpha.embedded.multipath.io import BlockIo, IoKind
from srpha.embedded.nbd.settings import NbdLimits
from srpha.embedded.nbd.transfer import Done, Transfer
from srpha.wire.nbd import (
    BLOCK_SIZE_LIMIT,
    BlockSizeInfo,
    Command,
    CommandFlag,
    NbdError,
    Request,
    TransmissionFlag,
)

_ALWAYS: Final = (
    TransmissionFlag.HAS_FLAGS
    | TransmissionFlag.SEND_FLUSH
    | TransmissionFlag.SEND_FUA
    | TransmissionFlag.SEND_WRITE_ZEROES
    | TransmissionFlag.CAN_MULTI_CONN
)
_WRITERS: Final = frozenset({Command.WRITE, Command.WRITE_ZEROES})
_COMMAND_FLAGS: Final[Mapping[int, CommandFlag]] = MappingProxyType(
    {
        Command.READ: CommandFlag.FUA | CommandFlag.DF,
        Command.WRITE: CommandFlag.FUA,
        Command.FLUSH: CommandFlag.FUA,
        Command.WRITE_ZEROES: CommandFlag.FUA | CommandFlag.NO_HOLE,
    }
)
"""The commands that are taken and the flags that each may have. FUA is legal on all of them once it is advertised."""
_ERRORS: Final[Mapping[int, NbdError]] = MappingProxyType(
    {
        errno.EPERM: NbdError.EPERM,
        errno.EACCES: NbdError.EPERM,
        errno.EROFS: NbdError.EPERM,
        errno.ENOSPC: NbdError.ENOSPC,
        errno.EDQUOT: NbdError.ENOSPC,
        errno.EFBIG: NbdError.ENOSPC,
        errno.ENOMEM: NbdError.ENOMEM,
        errno.EINVAL: NbdError.EINVAL,
    }
)
"""All others are EIO: NBD knows no finer ones that a client could act on ("Error values")."""


class BlockDevice(Protocol):
    """What an export needs of a multipath device."""

    @property
    def name(self) -> str: ...
    @property
    def wwid(self) -> str: ...
    @property
    def block_size(self) -> int: ...
    @property
    def blocks(self) -> int: ...
    @property
    def max_io_bytes(self) -> int: ...
    @property
    def write_protected(self) -> bool: ...

    def submit(self, io: BlockIo) -> None: ...


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request has not been carried out: NBD's error and a sentence."""

    error: NbdError
    text: str


class BlockExport:
    """One device under its own name, as large as it was when this was made. ``limits`` are the server's."""

    def __init__(self, device: BlockDevice, limits: NbdLimits | None = None) -> None:
        """Raises ValueError when the device's blocks have a size that NBD cannot tell a client."""
        self.block_size = size = device.block_size
        if size & (size - 1) or not 1 <= size <= BLOCK_SIZE_LIMIT:
            raise ValueError(f"{device.name}: NBD has no minimum block size of {size} bytes")
        self.name = device.name
        self.size = device.blocks * size
        self.read_only = device.write_protected
        self.description = f"{device.wwid}, {device.blocks} blocks of {size} bytes" + (
            ", write-protected" if self.read_only else ""
        )
        self._device = device
        self._max_payload = (limits or NbdLimits()).max_payload

    @property
    def block_sizes(self) -> BlockSizeInfo:
        return BlockSizeInfo(
            minimum=self.block_size, preferred=max(4096, self.block_size), maximum_payload=self._max_payload
        )

    def flags(self, *, structured: bool) -> TransmissionFlag:
        """What is advertised; "don't fragment" belongs to structured replies."""
        flags = _ALWAYS
        if structured:
            flags |= TransmissionFlag.SEND_DF
        if self.read_only:
            flags |= TransmissionFlag.READ_ONLY
        return flags

    def refuse(self, request: Request, *, structured: bool) -> Failure | None:
        """Why a request cannot be taken, by its header alone; None when it can."""
        command, offset, length = request.command, request.offset, request.length
        allowed = _COMMAND_FLAGS.get(command)
        if allowed is None:
            return Failure(NbdError.EINVAL, f"{self.name}: command {command} is not supported")
        if request.flags and (strange := self._strange_flags(request.flags, allowed, structured=structured)):
            return Failure(NbdError.EINVAL, f"{self.name}: flags {strange:#x} do not belong to command {command}")
        if command == Command.FLUSH:
            if offset or length:
                return Failure(NbdError.EINVAL, f"{self.name}: a flush has no offset and no length")
            return None
        writes = command in _WRITERS
        if writes and self.read_only:
            return Failure(NbdError.EPERM, f"{self.name}: the unit is write-protected")
        if (offset | length) & (self.block_size - 1):
            text = f"{self.name}: {length} bytes at {offset} are no whole blocks of {self.block_size} bytes"
            return Failure(NbdError.EINVAL, text)
        if offset + length > self.size:
            text = f"{self.name}: {length} bytes at {offset} end beyond its {self.size} bytes"
            return Failure(NbdError.ENOSPC if writes else NbdError.EINVAL, text)
        if length > self._max_payload and command != Command.WRITE_ZEROES:
            # A structured READ could be cut up; proto.md lets us say that we do not.
            error = NbdError.EOVERFLOW if structured and command == Command.READ else NbdError.EINVAL
            return Failure(error, f"{self.name}: {length} bytes are more than the {self._max_payload} of one request")
        return None

    def cost(self, request: Request) -> int:
        """Bytes of memory that an accepted request holds until it is answered."""
        if request.command == Command.WRITE_ZEROES:
            return min(request.length, self._device.max_io_bytes)
        return request.length

    def start(self, request: Request, payload: bytes, done: Done) -> None:
        """Carry out a request that is not refused; ``done(transfer)`` is called exactly once, perhaps at once."""
        device, size = self._device, self.block_size
        first, count = request.offset // size, request.length // size
        fua = bool(request.flags & CommandFlag.FUA)
        match request.command:
            case Command.READ:
                transfer = Transfer(device, IoKind.READ, first, count, done)
            case Command.WRITE:
                transfer = Transfer(device, IoKind.WRITE, first, count, done, payload=payload, fua=fua)
            case Command.WRITE_ZEROES:
                transfer = Transfer(device, IoKind.WRITE, first, count, done, fua=fua)
            case _:
                transfer = Transfer(device, IoKind.FLUSH, 0, 1, done)
        transfer.start()

    @staticmethod
    def _strange_flags(flags: int, allowed: CommandFlag, *, structured: bool) -> int:
        if not structured:
            allowed &= ~CommandFlag.DF
        return flags & ~int(allowed)


def failure_of(error: OSError | ValueError) -> Failure:
    """What a client is told of an I/O that failed (OSError) or that its device would not take (ValueError)."""
    if isinstance(error, OSError):
        return Failure(_ERRORS.get(error.errno or errno.EIO, NbdError.EIO), error.strerror or str(error))
    return Failure(NbdError.EINVAL, str(error))


def exports_of(devices: Iterable[BlockDevice], limits: NbdLimits | None = None) -> dict[str, BlockExport]:
    """Exports of ``devices`` by name, in their order; without those whose block size NBD cannot express."""
    return {
        device.name: BlockExport(device, limits)
        for device in devices
        if 1 <= device.block_size <= BLOCK_SIZE_LIMIT and not device.block_size & (device.block_size - 1)
    }


Exports = Callable[[], Mapping[str, BlockExport]]
"""The exports that there are now, by name; the first of them is the default one."""
