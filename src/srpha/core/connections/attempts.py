"""Logins that were tried: when the next one may follow, and why the last one failed (facts: srp C.1)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final

from srpha.core.connections.pairs import PairKey


@dataclass(frozen=True, slots=True)
class BackOff:
    """Delays between failed logins: ``first``, then twice as long each time, at most ``longest`` (seconds)."""

    first: float = 3.0
    longest: float = 60.0
    blocked: float = 0.5
    """Delay while a host that is not visible any more still blocks the login (EEXIST)."""
    blocked_tries: int = 40
    """After so many of these the login counts as failed."""

    def delay(self, failures: int) -> float:
        """Delay after ``failures`` failures in a row, at least 1."""
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 30))


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is remembered of the logins for one pair. Times in seconds."""

    under_way: bool = False
    failures: int = 0
    """In a row."""
    blocked: int = 0
    """EEXIST in a row though no connection is to be seen."""
    next_at: float = 0.0
    reason: str = ""
    """Why the last one failed."""


_NONE: Final = Attempt()


class Attempts:
    """The memory of all pairs' logins."""

    def __init__(self, back_off: BackOff) -> None:
        self.back_off = back_off
        self._known: dict[PairKey, Attempt] = {}
        self.version = 0
        """Moves whenever anything here does."""

    def of(self, key: PairKey) -> Attempt:
        return self._known.get(key, _NONE)

    @property
    def under_way(self) -> frozenset[PairKey]:
        """Pairs with a login under way."""
        return frozenset(key for key, attempt in self._known.items() if attempt.under_way)

    def started(self, key: PairKey) -> None:
        """A login is under way."""
        self.version += 1
        self._known[key] = replace(self.of(key), under_way=True)

    def succeeded(self, key: PairKey) -> None:
        """The connection was seen alive: all is forgotten."""
        if self._known.pop(key, None) is not None:
            self.version += 1

    def cancelled(self, key: PairKey) -> None:
        """The login was not made after all."""
        self.version += 1
        self._known[key] = replace(self.of(key), under_way=False)

    def failed(self, key: PairKey, code: int, message: str, now: float) -> Attempt:
        """A login failed with errno ``code``.

        EEXIST without a connection to be seen is a host on its way out, so the next try comes soon. EINVAL will be the
        same next time, so it comes late.
        """
        old = self.of(key)
        if code == errno.EEXIST and old.blocked < self.back_off.blocked_tries:
            new = replace(
                old, under_way=False, blocked=old.blocked + 1, next_at=now + self.back_off.blocked, reason=message
            )
        else:
            failures = old.failures + 1
            delay = self.back_off.longest if code == errno.EINVAL else self.back_off.delay(failures)
            blocked = old.blocked if code == errno.EEXIST else 0
            new = Attempt(failures=failures, blocked=blocked, next_at=now + delay, reason=message)
        self._known[key] = new
        self.version += 1
        return new

    def hasten(self, concerns: Callable[[PairKey], bool]) -> None:
        """Something changed for the better: pairs that ``concerns`` picks need not wait any longer."""
        for key, attempt in list(self._known.items()):
            if concerns(key):
                self._known[key] = replace(attempt, failures=0, blocked=0, next_at=0.0)
                self.version += 1

    def forget(self, concerns: Callable[[PairKey], bool]) -> None:
        """Nothing is remembered any more of pairs that ``concerns`` picks."""
        self._known = {key: attempt for key, attempt in self._known.items() if not concerns(key)}
        self.version += 1

    def keep(self, keys: Collection[PairKey]) -> None:
        """Forget pairs that are none any more, but not a login that is under way."""
        for key in [key for key, attempt in self._known.items() if key not in keys and not attempt.under_way]:
            del self._known[key]
            self.version += 1
