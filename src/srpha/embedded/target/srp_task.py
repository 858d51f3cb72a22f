"""A SCSI command in progress on an SRP channel: fetching its data, being held, or waiting for its service time.

Commands that need none of that are executed by the channel without one of these.
"""

from __future__ import annotations

from asyncio import TimerHandle
from collections.abc import Callable
from typing import TYPE_CHECKING

from srpha.embedded.target.data_buffers import BadBufferError, Fetch, Pieces, read_table
from srpha.embedded.target.hold import Hold
from srpha.embedded.target.unit_attention import ScsiNexus
from srpha.wire.srp_io import BufferFormat, Command, DataBuffer

if TYPE_CHECKING:
    from srpha.embedded.target.logical_unit import LogicalUnit
    from srpha.embedded.target.srp_channel import SrpChannel


class SrpTask:
    """One command; it ends by :meth:`execute` (with a response) or :meth:`abort` (without), whichever comes first."""

    __slots__ = ("_channel", "_data", "_ended", "_hold", "_in_pieces", "_timer", "command", "unit")

    def __init__(self, channel: SrpChannel, command: Command, unit: LogicalUnit) -> None:
        self._channel = channel
        self.command = command
        self.unit = unit
        self._data: bytes = b""
        self._in_pieces: Pieces = ()
        self._timer: TimerHandle | None = None
        self._hold: Hold | None = None
        self._ended = False

    @property
    def nexus(self) -> ScsiNexus:
        return self._channel.scsi

    @property
    def lun(self) -> int:
        return self.unit.lun

    @property
    def port(self) -> int:
        return self._channel.port

    @property
    def initiator_port_id(self) -> bytes:
        return self._channel.scsi.initiator_port_id

    @property
    def is_write(self) -> bool:
        return self.command.data_out is not None

    def start(self) -> None:
        """Fetch what the command needs from initiator memory, then go on."""
        out = self.command.data_out
        if out is None:
            self._resolve_in()
        elif out.format is BufferFormat.IMMEDIATE:
            self._data = out.immediate
            self._resolve_in()
        else:
            self._resolve(out, self._fetch)

    def _resolve(self, buffer: DataBuffer, go_on: Callable[[Pieces], None]) -> None:
        """Get hold of all descriptors of a buffer: those in the IU, or the table in initiator memory."""
        table = buffer.table
        if table is None or buffer.complete:
            go_on(buffer.descriptors)
            return

        def arrived(data: bytes) -> None:
            if self._ended:
                return
            try:
                pieces = read_table(data, buffer.length)
            except BadBufferError:
                self._leave()
                self._channel.refuse(self.command.tag)
                return
            go_on(pieces)

        self._channel.connection.rdma_read(table.address, table.key, table.length, arrived)

    def _fetch(self, pieces: Pieces) -> None:
        Fetch(self._channel.connection, pieces, self._fetched)

    def _fetched(self, data: bytes) -> None:
        if not self._ended:
            self._data = data
            self._resolve_in()

    def _resolve_in(self) -> None:
        data_in = self.command.data_in
        if data_in is None:
            self._complete()
        else:
            self._resolve(data_in, self._resolved_in)

    def _resolved_in(self, pieces: Pieces) -> None:
        self._in_pieces = pieces
        self._complete()

    def _complete(self) -> None:
        """Everything has arrived: hold, wait, or execute."""
        for hold in self._channel.host.holds:
            if hold.scope.covers(self):
                self._hold = hold
                hold.keep(self)
                return
        if self.unit.service_time > 0:
            self._timer = self._channel.host.call_later(self.unit.service_time, self.execute)
        else:
            self.execute()

    def execute(self) -> None:
        """Execute the command and respond."""
        if self._ended:
            return
        self._leave()
        outcome = self.unit.execute(self._channel.scsi, self.command.cdb, self._data)
        self._channel.respond(self.command, self._in_pieces, outcome)

    def abort(self) -> None:
        """End without executing and without a response; the channel gives the credit back another way."""
        if not self._ended:
            self._leave()
            self._channel.return_credit()

    def _leave(self) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._hold is not None:
            self._hold.drop(self)
        self.unit.tasks.discard(self)
        self._channel.tasks.pop(self.command.tag, None)
