from __future__ import annotations

from srpha.embedded.target.task_set import TaskSet
from srpha.embedded.target.unit_attention import ScsiNexus


class Entry:
    def __init__(self, tasks: TaskSet, nexus: ScsiNexus) -> None:
        self.nexus = nexus
        self._tasks = tasks
        tasks.add(self)

    def abort(self) -> None:
        self._tasks.discard(self)


def test_full_at_its_depth() -> None:
    tasks, nexus = TaskSet(2), ScsiNexus(bytes(16), 0)
    first, second = Entry(tasks, nexus), Entry(tasks, nexus)
    assert tasks.full
    assert list(tasks) == [first, second]
    tasks.discard(first)
    tasks.discard(first)
    assert not tasks.full
    assert len(tasks) == 1


def test_abort_tells_who_lost_commands() -> None:
    tasks = TaskSet(10)
    one, two, three = (ScsiNexus(bytes([number]) * 16, 0) for number in range(3))
    for nexus in (two, one, two, three):
        Entry(tasks, nexus)
    assert tasks.abort(lambda task: task.nexus is not three) == (two, one)
    assert tasks.abort() == (three,)
    assert tasks.abort() == ()
