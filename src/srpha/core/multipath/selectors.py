"""Path selectors: which usable path of a group takes the next I/O, by the rules of dm-mpath's own selectors.

Each keeps its usable paths in a list whose order breaks ties: the path just chosen moves to the end (facts: multipath
1.5). Selectors have no arguments of their own; ``repeat_count`` is always 1, as the kernel has it since 4.6.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Generic, TypeVar

from srpha.core.multipath.path import PathSlot
from srpha.core.multipath.policy import SelectorKind

P = TypeVar("P", bound=PathSlot)


class Selector(Generic[P]):
    """A selector over the usable paths of one group; base of the three kinds."""

    __slots__ = ("paths",)

    kind: ClassVar[SelectorKind]

    def __init__(self, paths: Iterable[P] = ()) -> None:
        self.paths: list[P] = list(paths)
        """Usable paths, the preferred first."""

    def select(self, size: int) -> P | None:
        """The path for an I/O of ``size`` bytes; None when no path is usable."""
        raise NotImplementedError

    def fail(self, path: P) -> None:
        """Take a path out of use; one that is out already is left alone."""
        if path in self.paths:
            self.paths.remove(path)

    def reinstate(self, path: P) -> None:
        """Take a path into use; one that is in use already is left alone."""
        if path not in self.paths:
            self.paths.append(path)

    def table_words(self, path: P) -> tuple[str, ...]:
        """Arguments of a path in the table line."""
        return ("1",)

    def status_words(self, path: P) -> tuple[str, ...]:
        """What the status line tells of a path."""
        return ()


class RoundRobin(Selector[P]):
    """Every path in turn. A path that returns is the next to be taken."""

    __slots__ = ()
    kind = SelectorKind.ROUND_ROBIN

    def select(self, size: int) -> P | None:
        paths = self.paths
        if not paths:
            return None
        path = paths.pop(0)
        paths.append(path)
        return path

    def reinstate(self, path: P) -> None:
        if path not in self.paths:
            self.paths.insert(0, path)


class QueueLength(Selector[P]):
    """The path with the fewest I/Os in flight."""

    __slots__ = ()
    kind = SelectorKind.QUEUE_LENGTH

    def select(self, size: int) -> P | None:
        paths = self.paths
        if not paths:
            return None
        best = paths[0]
        least = best.in_flight
        if least:
            for path in paths:
                if path.in_flight < least:
                    best, least = path, path.in_flight
        if best is not paths[-1]:
            paths.remove(best)
            paths.append(best)
        return best

    def status_words(self, path: P) -> tuple[str, ...]:
        return (str(path.in_flight),)


class ServiceTime(Selector[P]):
    """The path that would have the I/O done first: in-flight bytes and this one's over the relative throughput."""

    __slots__ = ()
    kind = SelectorKind.SERVICE_TIME

    def select(self, size: int) -> P | None:
        paths = self.paths
        if not paths:
            return None
        best = paths[0]
        for path in paths:
            if path.relative_throughput == best.relative_throughput:
                if path.in_flight_bytes < best.in_flight_bytes:
                    best = path
            elif _is_quicker(path, best, size):
                best = path
        if best is not paths[-1]:
            paths.remove(best)
            paths.append(best)
        return best

    def table_words(self, path: P) -> tuple[str, ...]:
        return "1", str(path.relative_throughput)

    def status_words(self, path: P) -> tuple[str, ...]:
        return str(path.in_flight_bytes), str(path.relative_throughput)


def _is_quicker(path: PathSlot, best: PathSlot, size: int) -> bool:
    """Whether ``path`` beats ``best`` where their relative throughputs differ."""
    mine, its = path.relative_throughput, best.relative_throughput
    if not mine or not its or path.in_flight_bytes == best.in_flight_bytes:
        return mine > its
    my_time = (path.in_flight_bytes + size) * its
    its_time = (best.in_flight_bytes + size) * mine
    return my_time < its_time if my_time != its_time else mine > its


def make_selector(kind: SelectorKind, paths: Iterable[P]) -> Selector[P]:
    """A selector of the kind over paths that are usable now, the preferred first."""
    match kind:
        case SelectorKind.ROUND_ROBIN:
            return RoundRobin(paths)
        case SelectorKind.QUEUE_LENGTH:
            return QueueLength(paths)
        case SelectorKind.SERVICE_TIME:
            return ServiceTime(paths)
