"""Commands of a host that are not on a channel: those that wait to be sent, and those that are to be completed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

from srpha.core.scsi_io import ScsiCommand
from srpha.embedded.initiator.channel import Channel
from srpha.embedded.initiator.device import UnitQueue
from srpha.embedded.initiator.request import Request
from srpha.wire.scsi.status import HostByte


class Backlog:
    """Units with waiting commands; each gets its turn when credits come."""

    __slots__ = ("units",)

    def __init__(self) -> None:
        self.units: dict[UnitQueue, None] = {}
        """The unit to be served next comes first; empty: nothing waits."""

    def add(self, request: Request) -> None:
        """Let a command wait behind the others of its unit."""
        request.unit.waiting.append(request)
        self.units[request.unit] = None

    def drain(self, channels: Sequence[Channel]) -> None:
        """Send while there are credits, one command from each unit in turn."""
        units = self.units
        stuck = 0
        while stuck < len(units):
            unit = next(iter(units))
            if unit.held or unit.active >= unit.limit:
                stuck += 1
            else:
                channel = next((item for item in channels if item.has_credit), None)
                if channel is None:
                    return  # the unit stays in front: it is its turn when a credit comes
                stuck = 0
                unit.active += 1
                channel.transmit(unit.waiting.popleft())
            del units[unit]
            if unit.waiting:
                units[unit] = None

    def requests(self) -> list[Request]:
        """All waiting commands."""
        return [request for unit in self.units for request in unit.waiting]

    def take_all(self) -> list[Request]:
        """All waiting commands; none waits any more."""
        taken = self.requests()
        for unit in self.units:
            unit.waiting.clear()
        self.units.clear()
        return taken

    def take_expired(self, now: float) -> list[Request]:
        """The waiting commands whose time is over; the others keep their places."""
        taken: list[Request] = []
        for unit in tuple(self.units):
            taken += [request for request in unit.waiting if request.deadline <= now]
            unit.waiting = deque(request for request in unit.waiting if request.deadline > now)
            if not unit.waiting:
                del self.units[unit]
        return taken


class Completions:
    """Commands that are over, told to their submitters in the next turn of the loop: never from inside a submission."""

    __slots__ = ("_commands", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._commands: list[ScsiCommand] = []

    def finish(self, requests: Iterable[Request], host_byte: HostByte) -> None:
        """Complete commands with a host byte."""
        for request in requests:
            self.add(request.command, host_byte)

    def add(self, command: ScsiCommand, host_byte: HostByte) -> None:
        """Complete a command with a host byte."""
        command.host_byte = host_byte
        if not self._commands:
            self._loop.call_soon(self._deliver)
        self._commands.append(command)

    def _deliver(self) -> None:
        commands, self._commands = self._commands, []
        for command in commands:
            command.done(command)
