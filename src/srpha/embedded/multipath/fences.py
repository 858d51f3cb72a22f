"""Fences of all maps: has dead nexuses ended, and lets held writes go (rules: srpha.core.multipath.fencing)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from srpha.core.multipath.fencing import FenceLedger, Fencer, Release
from srpha.core.scsi_io import Nexus, ScsiDevice
from srpha.core.seams import InitiatorError

Candidates = Callable[[], Iterable[ScsiDevice]]
"""Devices through which a nexus may be fenced, the preferred first."""
Resume = Callable[[Release], None]


@dataclass(slots=True)
class FenceCounters:
    """What fences have come to. Counts since the engine was made."""

    started: int = 0
    confirmed: int = 0
    failed: int = 0
    released_fenced: int = 0
    released_renewed: int = 0
    released_quiesced: int = 0


@dataclass(frozen=True, slots=True)
class _Held:
    candidates: Candidates
    resume: Resume


class FenceCoordinator:
    """One fence per nexus at a time, shared by the held writes of all maps."""

    def __init__(self, fencer: Fencer, *, quiesce_time: float, fence_timeout: float, retry_interval: float) -> None:
        self._fencer = fencer
        self._ledger = FenceLedger(quiesce_time)
        self._fence_timeout = fence_timeout
        self._retry_interval = retry_interval
        self._held: dict[int, _Held] = {}
        self._last_token = 0
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._retry_timer: asyncio.TimerHandle | None = None
        self.counters = FenceCounters()

    def hold(self, nexus: Nexus, candidates: Candidates, resume: Resume) -> int:
        """Hold a write given up on ``nexus`` now; ``resume`` is called once when it may go on. Returns its token."""
        self._last_token += 1
        token = self._last_token
        self._held[token] = _Held(candidates, resume)
        self._ledger.hold(token, nexus, asyncio.get_running_loop().time())
        self._arm()
        self._wake.set()
        return token

    def release(self, token: int) -> None:
        """The write no longer waits; its ``resume`` is not called."""
        self._held.pop(token, None)
        self._ledger.release(token)
        self._arm()

    @property
    def waiting(self) -> int:
        """Writes held now."""
        return self._ledger.waiting()

    def renewed(self, nexus: Nexus) -> None:
        """The nexus was logged in anew: its commands from before are gone from the target."""
        self._let_go(self._ledger.renewed(nexus), Release.RENEWED)

    def paths_changed(self) -> None:
        """Other paths may be usable now: fences that failed are tried again."""
        self._ledger.retry()
        self._wake.set()

    async def run(self) -> None:
        """Fence nexuses until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    for nexus in self._ledger.wanting():
                        via = self._ledger.start(nexus, self._candidates(nexus))
                        if via is not None:
                            self.counters.started += 1
                            group.create_task(self._fence(nexus, via), name=f"fence via {via.name}")
        finally:
            for timer in (self._timer, self._retry_timer):
                if timer is not None:
                    timer.cancel()
            self._timer = self._retry_timer = None

    def _candidates(self, nexus: Nexus) -> list[ScsiDevice]:
        found: dict[str, ScsiDevice] = {}
        for token in self._ledger.held_on(nexus):
            for device in self._held[token].candidates():
                found.setdefault(device.hctl, device)
        # The same target confirms best; another one of the unit may know of the nexus, or refuse.
        return sorted(found.values(), key=lambda device: device.nexus.target_port_id != nexus.target_port_id)

    async def _fence(self, nexus: Nexus, via: ScsiDevice) -> None:
        try:
            async with asyncio.timeout(self._fence_timeout):
                confirmed = await self._fencer.fence(nexus, via)
        except (TimeoutError, InitiatorError):
            confirmed = False
        if confirmed:
            self.counters.confirmed += 1
        else:
            self.counters.failed += 1
            self._retry_later()
        self._let_go(self._ledger.finish(nexus, via.hctl, confirmed=confirmed), Release.FENCED)
        self._wake.set()

    def _let_go(self, tokens: tuple[int, ...], why: Release) -> None:
        held = [self._held.pop(token) for token in tokens]
        match why:
            case Release.FENCED:
                self.counters.released_fenced += len(held)
            case Release.RENEWED:
                self.counters.released_renewed += len(held)
            case Release.QUIESCED:
                self.counters.released_quiesced += len(held)
        for item in held:
            item.resume(why)
        if held:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._ledger.next_deadline()
        if deadline < math.inf:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._let_go(self._ledger.expire(asyncio.get_running_loop().time()), Release.QUIESCED)
        self._arm()

    def _retry_later(self) -> None:
        if self._retry_timer is None:
            self._retry_timer = asyncio.get_running_loop().call_later(self._retry_interval, self._retry)

    def _retry(self) -> None:
        self._retry_timer = None
        self.paths_changed()
