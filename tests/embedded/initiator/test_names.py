from __future__ import annotations

import pytest

from srpha.core.hints import Hints
from srpha.core.seams import Unwatch
from srpha.embedded.initiator.names import DiskNumbers, disk_dev_t, disk_name


@pytest.mark.parametrize(
    ("number", "name", "dev_t"),
    [
        (0, "sda", "8:0"),
        (1, "sdb", "8:16"),
        (15, "sdp", "8:240"),
        (16, "sdq", "65:0"),
        (25, "sdz", "65:144"),
        (26, "sdaa", "65:160"),
        (128, "sddy", "128:0"),
        (255, "sdiv", "135:240"),
        (256, "sdiw", "8:256"),
        (701, "sdzz", "131:720"),
        (702, "sdaaa", "131:736"),
    ],
)
def test_names_and_numbers_are_linuxs(number: int, name: str, dev_t: str) -> None:
    assert (disk_name(number), disk_dev_t(number)) == (name, dev_t)


def test_every_disk_has_a_number_of_its_own() -> None:
    assert len({disk_dev_t(number) for number in range(2000)}) == 2000


def test_the_lowest_free_number_is_next() -> None:
    numbers = DiskNumbers()
    assert [numbers.allocate() for _ in range(3)] == [0, 1, 2]
    numbers.release(1)
    numbers.release(1)
    assert [numbers.allocate(), numbers.allocate()] == [1, 3]


def test_a_hint_registered_twice_leaves_one_at_a_time() -> None:
    heard: list[int] = []
    hints = Hints()

    def hint() -> None:
        heard.append(1)

    first, _ = hints.add(hint), hints.add(hint)
    hints.ring()
    first()
    first()
    hints.ring()
    assert len(heard) == 3


def test_a_listener_that_leaves_while_it_rings_is_not_called() -> None:
    heard: list[str] = []
    hints = Hints()
    leaving: list[Unwatch] = []

    def send_it_away() -> None:
        for leave in leaving:
            leave()

    hints.add(send_it_away)
    leaving.append(hints.add(lambda: heard.append("late")))
    hints.ring()
    assert heard == []
