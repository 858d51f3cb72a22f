"""The task set of a logical unit: commands that are in progress, and so can be aborted (SAM-5 8).

Most commands never enter it: a unit without service time executes a command the moment it is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from srpha.embedded.target.unit_attention import ScsiNexus


class Task(Protocol):
    """A command in progress."""

    @property
    def nexus(self) -> ScsiNexus: ...
    def abort(self) -> None:
        """End without executing and without a response; the task leaves its task set."""
        ...


class TaskSet:
    """Tasks of one logical unit in the order they came."""

    __slots__ = ("_tasks", "depth")

    def __init__(self, depth: int) -> None:
        self.depth = depth
        """Tasks that fit; :attr:`full` then says so, and the unit answers TASK SET FULL."""
        self._tasks: dict[Task, None] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(tuple(self._tasks))

    @property
    def full(self) -> bool:
        return len(self._tasks) >= self.depth

    def add(self, task: Task) -> None:
        self._tasks[task] = None

    def discard(self, task: Task) -> None:
        self._tasks.pop(task, None)

    def abort(self, wanted: Callable[[Task], bool] = lambda _task: True) -> tuple[ScsiNexus, ...]:
        """Abort the tasks that are ``wanted``; the nexuses that lost some, in the order of their first task."""
        hit: dict[ScsiNexus, None] = {}
        for task in self:
            if wanted(task):
                hit[task.nexus] = None
                task.abort()
        return tuple(hit)
