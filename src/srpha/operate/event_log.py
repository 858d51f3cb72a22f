"""The events of a running daemon, numbered, bounded, and readable by many at their own pace."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from srpha.core.events import Event
from srpha.core.seams import Unwatch


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event and its number; numbers start at 1 and have no gaps."""

    number: int
    event: Event


class EventLog:
    """Takes events as an :data:`~srpha.core.events.EventSink` and keeps the newest ``capacity`` of them."""

    def __init__(self, capacity: int = 10_000) -> None:
        self._kept: deque[LoggedEvent] = deque(maxlen=capacity)
        self._count = 0
        self._listeners: list[Callable[[LoggedEvent], None]] = []

    def __call__(self, event: Event) -> None:
        """Take one event."""
        self._count += 1
        logged = LoggedEvent(self._count, event)
        self._kept.append(logged)
        for listener in tuple(self._listeners):
            listener(logged)

    def __iter__(self) -> Iterator[LoggedEvent]:
        return iter(tuple(self._kept))

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def last(self) -> int:
        """Number of the newest event, 0 when there was none."""
        return self._count

    def since(self, number: int) -> tuple[LoggedEvent, ...]:
        """Kept events after ``number``, oldest first. A first number above ``number + 1`` shows that some are gone."""
        return tuple(logged for logged in self._kept if logged.number > number)

    def listen(self, listener: Callable[[LoggedEvent], None]) -> Unwatch:
        """Hear every event as it comes. The listener must not raise and must not block."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop
