"""Many management conversations at once, without I/O: who asks what, in which order, within a window.

A conversation is a generator. It yields questions (:class:`Ask`) that may be in flight together and is resumed with
their replies in the same order, a reply being the answer's bytes or None. The owner takes :class:`Question` values from
:meth:`Conversations.questions`, sends them, and hands back what came. An agent that answers BUSY (IBA 13.4.7) is asked
again later; the conversation sees only the last answer.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from srpha.core.discovery.scan_result import ScanStatistics
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.core.seams import MadAddress
from srpha.wire.errors import DecodeError
from srpha.wire.mad import MadHeader, MadStatus


@dataclass(frozen=True, slots=True)
class Ask:
    """A question: a 256-byte request from local port ``port``. ``timeout`` in seconds per try."""

    port: str
    address: MadAddress
    mad: bytes
    timeout: float
    retries: int


Reply: TypeAlias = bytes | None
"""The response's bytes with a whole MAD header, or None when no (readable) answer came."""
Talk: TypeAlias = Generator[Sequence[Ask], list[Reply], None]
"""A conversation."""


@dataclass(frozen=True, slots=True)
class Question:
    """An :class:`Ask` that is to be sent now; ``number`` is given back with the answer."""

    number: int
    ask: Ask


@dataclass(slots=True)
class _Round:
    """The questions of one conversation that are in flight together."""

    talk: Talk
    replies: list[Reply]
    missing: int
    depth: int


@dataclass(slots=True, eq=False)
class _Item:
    """A question's place in its round, and how often its answer was BUSY."""

    ask: Ask
    round: _Round
    index: int
    busy: int = 0


@dataclass(slots=True)
class Conversations:
    """Runs conversations. All times are seconds of one clock that the owner reads."""

    settings: ScanSettings
    started: float
    """When the owner began."""
    now: float = field(init=False)
    """The time of the latest event, for conversations that limit themselves."""
    _waiting: deque[_Item] = field(default_factory=deque, init=False)
    _flying: dict[int, _Item] = field(default_factory=dict, init=False)
    _delayed: list[tuple[float, int, _Item]] = field(default_factory=list, init=False)
    _numbers: int = field(default=0, init=False)
    _timeouts: int = field(default=0, init=False)
    _errors: int = field(default=0, init=False)
    _busy: int = field(default=0, init=False)
    _deepest: int = field(default=0, init=False)
    _ties: int = field(default=0, init=False)
    _depth: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.now = self.started

    @property
    def done(self) -> bool:
        """No question waits, flies or is delayed."""
        return not (self._waiting or self._flying or self._delayed)

    @property
    def wake(self) -> float | None:
        """When a delayed question is due, if that is what :meth:`questions` waits for."""
        return self._delayed[0][0] if self._delayed else None

    def start(self, talk: Talk) -> None:
        """Begin a conversation; it depends on the answers that were handed in last."""
        try:
            asks = next(talk)
        except StopIteration:
            return
        self._enter(talk, asks, self._depth)

    def questions(self, now: float) -> list[Question]:
        """What to send now; the window counts what was sent and not answered."""
        self.now = now
        while self._delayed and self._delayed[0][0] <= now:
            self._waiting.append(heapq.heappop(self._delayed)[2])
        ready = []
        while self._waiting and len(self._flying) < self.settings.window:
            item = self._waiting.popleft()
            self._numbers += 1
            self._flying[self._numbers] = item
            ready.append(Question(self._numbers, item.ask))
        return ready

    def answer(self, number: int, reply: Reply, now: float) -> None:
        """Hand in what came for question ``number``; None for: no answer. A number that is not in flight is ignored."""
        self.now = now
        item = self._flying.pop(number, None)
        if item is None:
            return
        reply = self._judge(item, reply)
        if reply is not None and item.busy < self.settings.busy_tries and _is_busy(reply):
            delay = self.settings.busy_delay * 2.0**item.busy
            item.busy += 1
            item.round.depth += 1
            self._deepest = max(self._deepest, item.round.depth)
            self._ties += 1
            heapq.heappush(self._delayed, (now + delay, self._ties, item))
            return
        turn = item.round
        turn.replies[item.index] = reply
        turn.missing -= 1
        if not turn.missing:
            self._depth = turn.depth
            self._resume(turn)

    def statistics(self, now: float) -> ScanStatistics:
        """What it cost until now."""
        return ScanStatistics(
            queries=self._numbers,
            timeouts=self._timeouts,
            errors=self._errors,
            busy=self._busy,
            round_trips=self._deepest,
            duration=now - self.started,
        )

    def _judge(self, item: _Item, reply: Reply) -> Reply:
        """Count the reply; one that is no answer to the question is as good as none."""
        if reply is None:
            self._timeouts += 1
            return None
        try:
            asked, got = MadHeader.decode(item.ask.mad), MadHeader.decode(reply)
        except DecodeError:
            self._errors += 1
            return None
        if got.mgmt_class != asked.mgmt_class or not got.is_response:
            self._errors += 1
            return None
        if got.status & MadStatus.BUSY:
            self._busy += 1
        elif got.status:
            self._errors += 1
        return reply

    def _resume(self, turn: _Round) -> None:
        try:
            asks = turn.talk.send(turn.replies)
        except StopIteration:
            return
        self._enter(turn.talk, asks, turn.depth)

    def _enter(self, talk: Talk, asks: Sequence[Ask], depth: int) -> None:
        while not asks:  # nothing to ask: go on at once
            try:
                asks = talk.send([])
            except StopIteration:
                return
        turn = _Round(talk, [None] * len(asks), len(asks), depth + 1)
        self._deepest = max(self._deepest, turn.depth)
        self._waiting.extend(_Item(ask, turn, index) for index, ask in enumerate(asks))


def _is_busy(reply: bytes) -> bool:
    return bool(MadHeader.decode(reply).status & MadStatus.BUSY)
