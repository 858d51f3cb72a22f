"""Many management conversations at once, without I/O: who asks what, in which order, within a window.

A conversation is a generator. It yields questions (:class:`Ask`) that may be in flight together and is resumed with
their replies in the same order, a reply being the answer's bytes or None. The owner takes :class:`Question` values from
:meth:`Conversations.questions`, sends them, and hands back what came. An agent that answers BUSY (IBA 13.4.7) is asked
again later; the conversation sees only the last answer.

A :class:`Race` asks one and the same thing over several ways. Its tries overlap: each is waited for until the race is
over, and the first answer to any of them ends it. Where others have answered promptly, a race without any answer is
over sooner, with all its tries made.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

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


@dataclass(frozen=True, slots=True)
class Race:
    """One question over several ways, the best first; all have the same timeout and retries.

    It is resumed with one reply per way, at most one of which is an answer. ``patient``: it takes all its time whatever
    others do.
    """

    asks: tuple[Ask, ...]
    patient: bool = False


Turn: TypeAlias = Sequence[Ask] | Race
"""What a conversation asks at a time."""
Talk: TypeAlias = Generator[Turn, list[Reply], None]
"""A conversation."""
_WITNESSES: Final = 4
"""Races that must have been answered before what is usual is known."""
_BUSY: Final = int(MadStatus.BUSY)
_EPSILON: Final = 1e-6
"""Seconds that are nothing, in comparing times."""
_SLACK: Final = 8.0
"""A race is not over before this many times the slowest answer to another one."""


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
    race: _Running | None = None
    """The race whose one item this is, while it goes on."""


@dataclass(slots=True, eq=False)
class _Running:
    """A race: when it began, and its tries."""

    race: Race
    started: float = 0.0
    sent: int = 0
    last: float = 0.0
    """When the last try was sent."""
    flying: dict[int, int] = field(default_factory=dict)
    """Index of the way by number of the question."""

    @property
    def tries(self) -> int:
        """How often it is asked, over all ways."""
        return len(self.race.asks) * (self.race.asks[0].retries + 1)

    @property
    def limit(self) -> float:
        """Seconds that it takes at most."""
        return self.race.asks[0].timeout * (self.race.asks[0].retries + 1)


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
    _open: int = field(default=0, init=False)
    """Items in flight; a race is one, however many tries it has."""
    _delayed: list[tuple[float, int, _Item]] = field(default_factory=list, init=False)
    _racing: list[tuple[float, int, _Item]] = field(default_factory=list, init=False)
    """Races by when to look at them again."""
    _lapsed: list[int] = field(default_factory=list, init=False)
    _answered: int = field(default=0, init=False)
    _slowest: float = field(default=0.0, init=False)
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
        return not (self._waiting or self._open or self._delayed)

    @property
    def wake(self) -> float | None:
        """When a delayed question or the next try of one is due, if that is what :meth:`questions` waits for."""
        while self._racing and self._racing[0][2].race is None:
            heapq.heappop(self._racing)
        return min((heap[0][0] for heap in (self._delayed, self._racing) if heap), default=None)

    def start(self, talk: Talk) -> None:
        """Begin a conversation; it depends on the answers that were handed in last."""
        try:
            turn = next(talk)
        except StopIteration:
            return
        self._enter(talk, turn, self._depth)

    def questions(self, now: float) -> list[Question]:
        """What to send now; the window counts what was sent and not answered, a race once.

        A race that runs out of time ends here: ask :attr:`done` afterwards.
        """
        self.now = now
        ready: list[Question] = []
        while self._racing and self._racing[0][0] <= now:
            item = heapq.heappop(self._racing)[2]
            if item.race is not None:
                self._look_at(item, item.race, ready)
        while self._delayed and self._delayed[0][0] <= now:
            self._waiting.append(heapq.heappop(self._delayed)[2])
        while self._waiting and self._open < self.settings.window:
            item = self._waiting.popleft()
            self._open += 1
            if item.race is None:
                ready.append(self._sent(item, item.ask))
            else:
                item.race.started = now
                self._try(item, item.race, ready)
        return ready

    def lapsed(self) -> list[int]:
        """Numbers of questions that need no answer any more, each told once."""
        numbers, self._lapsed = self._lapsed, []
        return numbers

    def answer(self, number: int, reply: Reply, now: float) -> None:
        """Hand in what came for question ``number``; None for: no answer. A number that is not in flight is ignored."""
        self.now = now
        item = self._flying.pop(number, None)
        if item is None:
            return
        status = self._judge(item, reply)
        if status is None:
            reply = None
        if item.race is not None and not self._ends(item, item.race, number, reply):
            return
        self._open -= 1
        if status is not None and status & _BUSY and item.busy < self.settings.busy_tries:
            delay = self.settings.busy_delay * 2.0**item.busy
            item.busy += 1
            item.round.depth += 1
            self._deepest = max(self._deepest, item.round.depth)
            self._push(self._delayed, now + delay, item)
            return
        self._close(item, reply)

    def _sent(self, item: _Item, ask: Ask) -> Question:
        self._numbers += 1
        self._flying[self._numbers] = item
        return Question(self._numbers, ask)

    def _push(self, heap: list[tuple[float, int, _Item]], when: float, item: _Item) -> None:
        self._ties += 1
        heapq.heappush(heap, (when, self._ties, item))

    def _close(self, item: _Item, reply: Reply) -> None:
        """The item's reply is there: go on with the conversation when it was the last one missing."""
        turn = item.round
        turn.replies[item.index] = reply
        turn.missing -= 1
        if not turn.missing:
            self._depth = turn.depth
            self._resume(turn)

    # --- races ---

    def _patience(self, running: _Running) -> float:
        """Seconds from its begin to its end without an answer, as things look now."""
        if running.race.patient or self._answered < _WITNESSES:
            return running.limit
        return min(running.limit, max(self._least(running), _SLACK * self._slowest))

    def _least(self, running: _Running) -> float:
        haste = self.settings.haste
        return running.limit if haste is None else min(running.limit, haste * running.race.asks[0].timeout)

    def _look_at(self, item: _Item, running: _Running, ready: list[Question]) -> None:
        """Send the race's next try, or end it, if it is time for that; else look again later."""
        gap = self._patience(running) / running.tries
        due = running.last + gap
        if running.flying and due > self.now + _EPSILON:
            self._push(self._racing, min(due, self.now + self._least(running) / running.tries), item)
        elif running.sent < running.tries:
            self._try(item, running, ready)
        else:
            self._timeouts += len(running.race.asks)
            self._finish(item, running)
            self._open -= 1
            self._close(item, None)

    def _try(self, item: _Item, running: _Running, ready: list[Question]) -> None:
        index = running.sent % len(running.race.asks)
        running.sent += 1
        running.last = self.now
        left = max(running.started + running.limit - self.now, _EPSILON)
        question = self._sent(item, replace(running.race.asks[index], timeout=left, retries=0))
        running.flying[question.number] = index
        ready.append(question)
        self._push(self._racing, self.now + self._least(running) / running.tries, item)

    def _ends(self, item: _Item, running: _Running, number: int, reply: Reply) -> bool:
        """Take a try's end; whether the race ends with it."""
        index = running.flying.pop(number)
        if reply is None:
            if running.flying:
                return False
            if running.sent < running.tries:  # nothing to wait for: the next try at once
                self._push(self._racing, self.now, item)
                return False
            self._timeouts += len(running.race.asks)
            self._finish(item, running)
            return True
        self._answered += 1
        self._slowest = max(self._slowest, self.now - running.started)
        item.index, item.ask = index, running.race.asks[index]
        self._finish(item, running)
        return True

    def _finish(self, item: _Item, running: _Running) -> None:
        """No further try; those in flight are nobody's."""
        item.race = None
        for number in running.flying:
            del self._flying[number]
            self._lapsed.append(number)

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

    def _judge(self, item: _Item, reply: Reply) -> int | None:
        """Count the reply; its status, or None for one that is no answer to the question."""
        if reply is None:
            self._timeouts += item.race is None  # a race is counted when it is over
            return None
        try:
            got = MadHeader.decode(reply)
        except DecodeError:
            self._errors += 1
            return None
        if got.mgmt_class != item.ask.mad[1] or not got.is_response:
            self._errors += 1
            return None
        if got.status & _BUSY:
            self._busy += 1
        elif got.status:
            self._errors += 1
        return got.status

    def _resume(self, turn: _Round) -> None:
        try:
            asked = turn.talk.send(turn.replies)
        except StopIteration:
            return
        self._enter(turn.talk, asked, turn.depth)

    def _enter(self, talk: Talk, asked: Turn, depth: int) -> None:
        while not isinstance(asked, Race) and not asked:  # nothing to ask: go on at once
            try:
                asked = talk.send([])
            except StopIteration:
                return
        if isinstance(asked, Race):
            turn = _Round(talk, [None] * len(asked.asks), 1, depth + 1)
            self._waiting.append(_Item(asked.asks[0], turn, 0, race=_Running(asked)))
        else:
            turn = _Round(talk, [None] * len(asked), len(asked), depth + 1)
            self._waiting.extend(_Item(ask, turn, index) for index, ask in enumerate(asked))
        self._deepest = max(self._deepest, turn.depth)
