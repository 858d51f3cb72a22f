"""A list of listeners who want to hear that something may have changed."""

from __future__ import annotations

from collections.abc import Callable

from srpha.core.seams import Unwatch


class Hints:
    """Listeners in the order they came; rung from inside the change, so they note it and work later."""

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def add(self, hint: Callable[[], None]) -> Unwatch:
        """Listen until the result is called; calling it twice is harmless."""
        entry = [hint]
        listener = _call(entry)
        self._listeners.append(listener)

        def leave() -> None:
            entry.clear()
            if listener in self._listeners:
                self._listeners.remove(listener)

        return leave

    def ring(self) -> None:
        """Call every listener; one that left meanwhile is not called."""
        for listener in tuple(self._listeners):
            listener()


def _call(entry: list[Callable[[], None]]) -> Callable[[], None]:
    """A distinct callable per registration, so that one hint may be registered twice."""

    def listener() -> None:
        for hint in tuple(entry):
            hint()

    return listener
