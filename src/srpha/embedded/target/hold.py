"""Commands held back on purpose: a controller that stalls and executes them later, or a path that delivers late.

A held command has arrived with all its data. It is executed on release even if its path has died meanwhile, unless the
target has heard of that and aborted it: the *ghost write* that fencing is about (design.md, section 6).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class HeldCommand(Protocol):
    """What a hold keeps."""

    @property
    def lun(self) -> int: ...
    @property
    def port(self) -> int:
        """Index of the HCA port that the command came in by."""
        ...

    @property
    def initiator_port_id(self) -> bytes: ...
    @property
    def is_write(self) -> bool: ...
    def execute(self) -> None: ...


@dataclass(frozen=True, slots=True)
class HoldScope:
    """Which commands are held; None means any."""

    lun: int | None = None
    port: int | None = None
    initiator_port_id: bytes | None = None
    writes_only: bool = False

    def covers(self, command: HeldCommand) -> bool:
        return (
            (self.lun is None or command.lun == self.lun)
            and (self.port is None or command.port == self.port)
            and (self.initiator_port_id is None or command.initiator_port_id == self.initiator_port_id)
            and (not self.writes_only or command.is_write)
        )


class Hold:
    """A hold in force until :meth:`release`."""

    __slots__ = ("_commands", "_ended", "scope")

    def __init__(self, scope: HoldScope, ended: Callable[[Hold], None]) -> None:
        self.scope = scope
        self._ended = ended
        self._commands: dict[HeldCommand, None] = {}

    def __len__(self) -> int:
        """Commands held now."""
        return len(self._commands)

    def keep(self, command: HeldCommand) -> None:
        self._commands[command] = None

    def drop(self, command: HeldCommand) -> None:
        """The command was aborted."""
        self._commands.pop(command, None)

    def release(self) -> None:
        """Hold nothing more and execute what was held, in the order it came. A second release does nothing."""
        self._ended(self)
        held, self._commands = self._commands, {}
        for command in held:
            command.execute()
