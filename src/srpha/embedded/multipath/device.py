"""A multipath device: I/O on one logical unit over whichever path works (facts: multipath 1.4, 7).

Every attempt of an I/O is a command object of its own, and a read attempt has a buffer of its own. A completion counts
only when its command is still out on its path, so an I/O completes exactly once however often, or late, a device
answers. A write-class command that was caught on a failed path waits for its fence
(:mod:`srpha.core.multipath.fencing`).
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

from srpha.core.multipath.disposition import BlockStatus, Disposition, SideEffect, Verdict, classify
from srpha.core.multipath.fencing import FencePolicy, Release
from srpha.core.multipath.map_state import MapState
from srpha.core.scsi_io import ScsiCommand, ScsiDevice, UnitIdentity
from srpha.embedded.multipath.fences import FenceCoordinator
from srpha.embedded.multipath.io import BlockIo, BlockIoError, IoKind
from srpha.embedded.multipath.path import DevicePath
from srpha.embedded.multipath.settings import MultipathSettings
from srpha.embedded.multipath.transfer import settle, transfer
from srpha.wire.scsi.status import HostByte

_CDB_10: Final = struct.Struct(">BBIBHB").pack
_CDB_16: Final = struct.Struct(">BBQIBB").pack
_FUA: Final = 0x08
_OPCODES: Final = {IoKind.READ: (0x28, 0x88), IoKind.WRITE: (0x2A, 0x8A)}
"""READ and WRITE (10) and (16)."""
_SYNCHRONIZE_CACHE: Final = _CDB_10(0x35, 0, 0, 0, 0, 0)
_NO_PATH: Final = Verdict(Disposition.PATH_ERROR, BlockStatus.IOERR, reason="no path is left")
_RETRIED: Final = frozenset(
    {Disposition.RETRY, Disposition.RETRY_UNCOUNTED, Disposition.RETRY_DELAYED, Disposition.REQUEUE}
)

PathNotice = Callable[[DevicePath, SideEffect], None]
"""Hears that a command has failed its path (no effect) or that a unit attention has told something."""


@dataclass(slots=True)
class IoCounters:
    """What a device has done since it appeared."""

    reads: int = 0
    writes: int = 0
    flushes: int = 0
    errors: int = 0
    retries: int = 0
    """Attempts repeated on the same path."""
    reissued: int = 0
    """Attempts repeated through another choice of path."""
    queued: int = 0
    """I/Os that had to wait for a path, each time counted."""
    held: int = 0
    """Writes that had to wait for a fence, each time counted."""
    given_up: int = 0
    """Attempts that multipath stopped waiting for before their device answered."""
    late: int = 0
    """Completions of superseded attempts, and second completions: ignored."""
    resets: int = 0
    """Unit attentions of a power on or reset: a volatile cache may have been lost."""


class MultipathDevice:
    """One map. Addresses are in blocks of :attr:`block_size` bytes."""

    def __init__(
        self,
        name: str,
        dm_name: str,
        identity: UnitIdentity,
        settings: MultipathSettings,
        fences: FenceCoordinator,
        notice: PathNotice,
        changed: Callable[[], None],
    ) -> None:
        self.name = name
        """``mpatha``."""
        self.dm_name = dm_name
        """``dm-0``."""
        self.identity = identity
        """The unit as the map takes it to be; every path must agree with it."""
        self.state: MapState[DevicePath] = MapState(settings.map_policy)
        self.counters = IoCounters()
        self.block_size = identity.block_size
        self.blocks = identity.blocks
        self._settings = settings
        self._max_blocks = max(1, settings.max_io_bytes // identity.block_size)
        self._timeout = settings.io_timeout
        self._fences = fences
        self._notice = notice
        self._changed = changed
        self._queue: deque[BlockIo] = deque()
        self._held: dict[int, BlockIo] = {}
        """Writes that wait for a fence, by tag."""
        self._last_tag = 0
        self._on_done = self._done

    # --- what is ---

    @property
    def wwid(self) -> str:
        """World-wide identification of the unit."""
        return self.identity.wwid

    @property
    def size(self) -> int:
        """Bytes."""
        return self.blocks * self.block_size

    @property
    def write_protected(self) -> bool:
        """Writes are refused by the unit."""
        return self.identity.write_protected

    @property
    def max_io_bytes(self) -> int:
        """Longest single I/O of :meth:`submit`, a multiple of the block size."""
        return self._max_blocks * self.block_size

    @property
    def queued(self) -> int:
        """I/Os waiting now because no path can take them."""
        return len(self._queue)

    @property
    def held(self) -> int:
        """Writes waiting now for a fence."""
        return len(self._held)

    # --- I/O ---

    def submit(self, io: BlockIo) -> None:
        """Take an I/O; ValueError, and nothing done, when it lies outside the device, is too long or under way."""
        kind = io.kind
        if io.tag:
            raise ValueError(f"{self.name}: the I/O is under way already")
        if kind is IoKind.FLUSH:
            io.size = 0
            io.cdb = _SYNCHRONIZE_CACHE
        else:
            if kind is IoKind.WRITE:
                io.size = size = len(io.data)
                io.blocks = blocks = size // self.block_size
                if blocks * self.block_size != size:
                    raise ValueError(f"{self.name}: {size} bytes are no whole number of {self.block_size}-byte blocks")
            else:
                blocks = io.blocks
                io.size = blocks * self.block_size
            lba = io.lba
            if lba < 0 or blocks <= 0 or lba + blocks > self.blocks or blocks > self._max_blocks:
                raise ValueError(self._range_error(lba, blocks))
            short, long = _OPCODES[kind]
            if lba <= 0xFFFFFFFF and blocks <= 0xFFFF:
                io.cdb = _CDB_10(short, _FUA if io.fua else 0, lba, 0, blocks, 0)
            else:
                io.cdb = _CDB_16(long, _FUA if io.fua else 0, lba, blocks, 0, 0)
        self._last_tag = io.tag = self._last_tag + 1
        io.attempt = io.retries = 0
        io.deadline = 0.0
        io.error = io.verdict = None
        path = self.state.select(io.size)
        if path is not None:
            self._send(io, path)
        elif self.state.holds_io:
            self._enqueue(io)
        else:
            asyncio.get_running_loop().call_soon(self._finish_failed, io, _NO_PATH)

    async def read(self, lba: int, blocks: int) -> bytes:
        """Read any number of blocks. Raises :class:`BlockIoError`; ValueError outside the device."""
        if blocks > self._max_blocks:
            self._check_range(lba, blocks)
        pieces = [
            BlockIo(IoKind.READ, settle, lba=at, blocks=min(self._max_blocks, lba + blocks - at))
            for at in range(lba, lba + max(blocks, 1), self._max_blocks)
        ]
        await transfer(self.submit, pieces)
        return bytes(pieces[0].data) if len(pieces) == 1 else b"".join([piece.data for piece in pieces])

    async def write(self, lba: int, data: bytes | bytearray | memoryview, *, fua: bool = False) -> None:
        """Write a whole number of blocks; the buffer must not change meanwhile.

        Raises :class:`BlockIoError`; ValueError outside the device.
        """
        if len(data) <= self.max_io_bytes:
            pieces = [BlockIo(IoKind.WRITE, settle, lba=lba, data=data, fua=fua)]
        else:
            if len(data) % self.block_size:
                raise ValueError(f"{self.name}: {len(data)} bytes are no whole number of blocks")
            self._check_range(lba, len(data) // self.block_size)
            view = memoryview(data)
            pieces = [
                BlockIo(
                    IoKind.WRITE,
                    settle,
                    lba=lba + at // self.block_size,
                    data=view[at : at + self.max_io_bytes],
                    fua=fua,
                )
                for at in range(0, len(data), self.max_io_bytes)
            ]
        await transfer(self.submit, pieces)

    async def flush(self) -> None:
        """SYNCHRONIZE CACHE of the whole unit. Raises :class:`BlockIoError`."""
        await transfer(self.submit, [BlockIo(IoKind.FLUSH, settle)])

    # --- for the path manager ---

    def give_up(self, path: DevicePath) -> None:
        """Go on without the commands that are out on a path: reads at once, writes when they are fenced."""
        for command, io in list(path.active.items()):
            path.forget(command, io)
            self.counters.given_up += 1
            reason = f"no answer through {path.device.name}"
            io.verdict = Verdict(Disposition.PATH_ERROR, BlockStatus.TRANSPORT, reason=reason)
            if io.kind is IoKind.READ or self._settings.fence_policy is FencePolicy.UNSAFE:
                self._reissue(io)
            else:
                self._hold(io, path)

    def settle(self) -> None:
        """The map's state has changed: send what waits, or fail it when it is not to wait any longer."""
        state = self.state
        if state.usable_paths:
            if self._queue:
                waiting = sorted(self._queue, key=lambda io: io.tag)
                self._queue.clear()
                for io in waiting:
                    self._route(io)
        elif not state.holds_io:
            waiting = sorted([*self._queue, *self._held.values()], key=lambda io: io.tag)
            self._queue.clear()
            for io in waiting:
                self._unhold(io)
                self._finish_failed(io, io.verdict or _NO_PATH)

    def resize(self, blocks: int, identity: UnitIdentity) -> None:
        """The unit has grown; every path agrees."""
        self.blocks = blocks
        self.identity = identity

    def vias(self) -> Iterable[ScsiDevice]:
        """Devices of usable paths, for fences."""
        return [path.device for path in self.state.paths if path.usable and path.running]

    # --- inside: attempts ---

    def _send(self, io: BlockIo, path: DevicePath) -> None:
        if io.kind is IoKind.READ:
            command = ScsiCommand(
                io.cdb, self._on_done, data_in=bytearray(io.size), timeout=self._timeout, fail_fast=True, context=io
            )
        else:
            command = ScsiCommand(
                io.cdb, self._on_done, data_out=io.data, timeout=self._timeout, fail_fast=True, context=io
            )
        io.attempt += 1
        io.command = command
        io.path = path
        path.active[command] = io
        path.in_flight += 1
        path.in_flight_bytes += io.size
        path.submit(command)

    def _done(self, command: ScsiCommand) -> None:
        io = command.context
        assert isinstance(io, BlockIo)
        path = io.path
        if path is None or path.active.pop(command, None) is None:
            self._late(io, command)
            return
        path.in_flight -= 1
        path.in_flight_bytes -= io.size
        if command.host_byte or command.status or command.residual:
            self._failed(io, path, command)
        else:
            self._finish(io, command)

    def _finish(self, io: BlockIo, command: ScsiCommand) -> None:
        kind = io.kind
        if kind is IoKind.READ:
            assert command.data_in is not None
            io.data = command.data_in
            self.counters.reads += 1
        elif kind is IoKind.WRITE:
            self.counters.writes += 1
        else:
            self.counters.flushes += 1
        io.command = None
        io.tag = 0
        io.done(io)

    def _finish_failed(self, io: BlockIo, verdict: Verdict) -> None:
        self.counters.errors += 1
        where = "" if io.kind is IoKind.FLUSH else f" of {io.blocks} blocks at {io.lba}"
        io.error = BlockIoError(
            verdict.status.errno,
            f"{self.name}: {io.kind.value}{where}: {verdict.status.text} error, {verdict.reason}",
        )
        io.command = None
        io.tag = 0
        io.done(io)

    def _failed(self, io: BlockIo, path: DevicePath, command: ScsiCommand) -> None:
        """Decide about an attempt that its device has ended, and not well."""
        verdict = classify(command.host_byte, command.status, command.sense)
        if verdict.effects:
            if verdict.effects & SideEffect.RESET:
                self.counters.resets += 1
            self._notice(path, verdict.effects)
        if verdict.disposition is Disposition.COMPLETE:
            if not command.residual or io.kind is IoKind.FLUSH:
                self._finish(io, command)
                return
            text = f"{command.residual} bytes were not transferred"
            verdict = Verdict(Disposition.RETRY, BlockStatus.IOERR, reason=text)
        io.verdict = verdict
        if verdict.disposition is Disposition.DELIVER_ERROR:
            self._finish_failed(io, verdict)
            return
        doubtful = self._in_doubt(io, command)
        # A reset has ended the first copy, or the same channel's successor does before it takes the second one.
        retriable = verdict.disposition in _RETRIED and (not doubtful or command.host_byte is HostByte.RESET)
        if retriable and self._may_retry(io, verdict):
            if path.usable and path.running:
                self._retry(io, path, verdict)
                return
        elif not verdict.status.path_error:
            self._finish_failed(io, verdict)
            return
        else:
            if path.usable:
                self.state.fail(path, asyncio.get_running_loop().time())
            self._notice(path, SideEffect.NONE)
        if doubtful:
            self._hold(io, path)
        else:
            self._reissue(io)
        self.settle()

    def _in_doubt(self, io: BlockIo, command: ScsiCommand) -> bool:
        """The first copy of a write may still be executed, and the policy cares."""
        return (
            io.kind is not IoKind.READ
            and command.delivered
            and command.host_byte is not HostByte.OK
            and self._settings.fence_policy is FencePolicy.SAFE
        )

    def _may_retry(self, io: BlockIo, verdict: Verdict) -> bool:
        settings = self._settings
        now = asyncio.get_running_loop().time()
        if not io.deadline:
            io.deadline = now + (settings.retries + 1) * settings.io_timeout
        if verdict.disposition is Disposition.RETRY:
            io.retries += 1
            if io.retries > settings.retries:
                return False
        return now < io.deadline

    def _retry(self, io: BlockIo, path: DevicePath, verdict: Verdict) -> None:
        self.counters.retries += 1
        settings = self._settings
        match verdict.disposition:
            case Disposition.RETRY_DELAYED:
                delay = settings.not_ready_delay
            case Disposition.REQUEUE:
                delay = min(settings.busy_delay * 2 ** min(io.attempt - 1, 16), settings.busy_delay_max)
            case _:
                self._send(io, path)
                return
        asyncio.get_running_loop().call_later(delay, self._retry_now, io, path)

    def _retry_now(self, io: BlockIo, path: DevicePath) -> None:
        if path.usable and path.running:
            self._send(io, path)
        else:
            self._reissue(io)

    def _reissue(self, io: BlockIo) -> None:
        self.counters.reissued += 1
        io.retries = 0
        io.deadline = 0.0
        self._route(io)

    def _route(self, io: BlockIo) -> None:
        path = self.state.select(io.size)
        if path is not None:
            self._send(io, path)
        elif self.state.holds_io:
            self._enqueue(io)
        else:
            self._finish_failed(io, io.verdict or _NO_PATH)

    def _enqueue(self, io: BlockIo) -> None:
        self.counters.queued += 1
        io.command = None
        self._queue.append(io)
        if len(self._queue) == 1:
            self._changed()

    # --- inside: fences and late answers ---

    def _hold(self, io: BlockIo, path: DevicePath) -> None:
        """Keep a write until its first copy is known to be gone. ``io.command`` stays: a late answer may say so."""
        if not self.state.usable_paths and not self.state.holds_io:
            self._finish_failed(io, io.verdict or _NO_PATH)
            return
        self.counters.held += 1
        self._held[io.tag] = io
        io.hold_token = self._fences.hold(path.device.nexus, self.vias, partial(self._released, io, io.tag))

    def _unhold(self, io: BlockIo) -> None:
        if io.hold_token:
            del self._held[io.tag]
            self._fences.release(io.hold_token)
            io.hold_token = 0

    def _released(self, io: BlockIo, tag: int, _why: Release) -> None:
        if io.tag == tag and io.hold_token:
            self._unhold(io)
            self._reissue(io)

    def _late(self, io: BlockIo, command: ScsiCommand) -> None:
        """An answer nobody waits for, unless it clears up what became of a held write."""
        path = io.path
        if not io.hold_token or io.command is not command or path is None:
            self.counters.late += 1
        elif command.host_byte is HostByte.OK:
            self._unhold(io)
            if command.status or command.residual:
                self._failed(io, path, command)
            else:
                self._finish(io, command)
        elif not command.delivered:
            self._unhold(io)
            self._reissue(io)

    def _check_range(self, lba: int, blocks: int) -> None:
        if lba < 0 or blocks <= 0 or lba + blocks > self.blocks:
            raise ValueError(self._range_error(lba, blocks))

    def _range_error(self, lba: int, blocks: int) -> str:
        limits = f"the device has {self.blocks}, one I/O at most {self._max_blocks}"
        return f"{self.name}: {blocks} blocks at {lba}: {limits}"
