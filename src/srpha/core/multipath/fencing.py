"""Fencing: when a write that was caught on a dead path may be sent again on another one.

The first copy of such a write may still sit in the target. If it is executed after the repeated copy was acknowledged
and newer data were written, the newer data are lost ("ghost write"; facts: multipath 7.3). So a write-class command
waits until one of these is known:

* the nexus it was sent on is gone: the target has confirmed it through a surviving path (:class:`Fencer`), or the
  device has logged in again under the same identifiers, which ends the old nexus first (SRP 5.1.2, SINGLE channel);
* the target answered the command itself, or it was never sent (``ScsiCommand.delivered`` is False);
* the quiesce time has passed since the command was given up.

:class:`FenceLedger` is the bookkeeping of all this without a clock: one fence per nexus at a time serves every held
write. A confirmation covers only what was given up before that fence was started, since a later command may have gone
out on a newer login.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from srpha.core.scsi_io import Nexus, ScsiDevice


class FencePolicy(Enum):
    """What happens to a write-class command that was caught on a dead path."""

    SAFE = "safe"
    """It waits for the fence of its nexus or for the quiesce time."""
    UNSAFE = "unsafe"
    """It is sent again at once, as dm-multipath does; newer data can be lost."""


class Fencer(Protocol):
    """Who can end a nexus from outside: the initiator."""

    async def fence(self, nexus: Nexus, via: ScsiDevice) -> bool:
        """Make the target end ``nexus`` through the port and target of ``via``, a device of another nexus.

        True only when the target has confirmed it: no command of the old nexus is executed any more. False or an
        :class:`srpha.core.seams.InitiatorError` when it is not known.
        """
        ...


class Release(Enum):
    """Why a held write may go on."""

    FENCED = "fenced"
    RENEWED = "renewed"
    QUIESCED = "quiesced"


@dataclass(slots=True)
class _NexusRecord:
    """Fence state of one nexus: tokens held by the time they were given up, and the fence under way."""

    held: dict[int, float] = field(default_factory=dict)
    """Given-up time by token, oldest first."""
    covered: frozenset[int] = frozenset()
    """Tokens that were held when the fence under way was started."""
    running: bool = False
    refused: tuple[str, ...] = ()
    """Devices through which the fence failed in this round."""


class FenceLedger:
    """Which held writes wait for which nexus. A token is the holder's own number for a write, unique among all."""

    def __init__(self, quiesce_time: float) -> None:
        self._quiesce_time = quiesce_time
        self._nexuses: dict[Nexus, _NexusRecord] = {}
        self._nexus_of: dict[int, Nexus] = {}

    def hold(self, token: int, nexus: Nexus, now: float) -> None:
        """Hold a write that was given up on ``nexus`` at ``now``. A token that is held already raises ValueError."""
        if token in self._nexus_of:
            raise ValueError(f"write {token} is held already")
        self._nexus_of[token] = nexus
        self._nexuses.setdefault(nexus, _NexusRecord()).held[token] = now

    def release(self, token: int) -> None:
        """Forget a write that no longer waits, for a reason of its own. Unknown tokens are ignored."""
        nexus = self._nexus_of.pop(token, None)
        if nexus is not None:
            self._nexuses[nexus].held.pop(token, None)
            self._tidy(nexus)

    def wanting(self) -> tuple[Nexus, ...]:
        """Nexuses with held writes and no fence under way, in the order they first lost a write."""
        return tuple(nexus for nexus, record in self._nexuses.items() if record.held and not record.running)

    def held_on(self, nexus: Nexus) -> tuple[int, ...]:
        """Tokens held for a nexus, oldest first."""
        record = self._nexuses.get(nexus)
        return () if record is None else tuple(record.held)

    def waiting(self) -> int:
        """Writes held now."""
        return len(self._nexus_of)

    def start(self, nexus: Nexus, candidates: Sequence[ScsiDevice]) -> ScsiDevice | None:
        """Start a fence of ``nexus``: the first candidate of another nexus that has not failed in this round, or None.

        None starts nothing: the writes wait for a new candidate, a new login or the quiesce time.
        """
        record = self._nexuses.get(nexus)
        if record is None or record.running or not record.held:
            return None
        for device in candidates:
            if device.nexus != nexus and device.hctl not in record.refused:
                record.running = True
                record.covered = frozenset(record.held)
                return device
        return None

    def finish(self, nexus: Nexus, via: str, *, confirmed: bool) -> tuple[int, ...]:
        """The fence through the device at ``via`` (H:C:T:L) has ended; the tokens it releases, oldest first."""
        record = self._nexuses.get(nexus)
        if record is None:
            return ()
        record.running = False
        if not confirmed:
            record.refused = (*record.refused, via)
            self._tidy(nexus)
            return ()
        record.refused = ()
        return self._let_go(nexus, [token for token in record.held if token in record.covered])

    def renewed(self, nexus: Nexus) -> tuple[int, ...]:
        """The nexus was logged in anew just now: the tokens this releases (all that it holds), oldest first."""
        record = self._nexuses.get(nexus)
        return () if record is None else self._let_go(nexus, list(record.held))

    def retry(self) -> None:
        """Paths have changed: candidates that failed before may be asked again."""
        for record in self._nexuses.values():
            record.refused = ()

    def expire(self, now: float) -> tuple[int, ...]:
        """Tokens whose quiesce time has passed, oldest first per nexus."""
        gone: list[int] = []
        for nexus, record in list(self._nexuses.items()):
            due = [token for token, given_up in record.held.items() if now >= given_up + self._quiesce_time]
            gone.extend(self._let_go(nexus, due))
        return tuple(gone)

    def next_deadline(self) -> float:
        """Time at which :meth:`expire` has something to do; infinity when nothing is held."""
        return min(
            (next(iter(record.held.values())) for record in self._nexuses.values() if record.held), default=math.inf
        ) + (self._quiesce_time)

    def _let_go(self, nexus: Nexus, tokens: list[int]) -> tuple[int, ...]:
        record = self._nexuses[nexus]
        for token in tokens:
            del record.held[token]
            del self._nexus_of[token]
        self._tidy(nexus)
        return tuple(tokens)

    def _tidy(self, nexus: Nexus) -> None:
        record = self._nexuses[nexus]
        if not record.held and not record.running:
            del self._nexuses[nexus]
