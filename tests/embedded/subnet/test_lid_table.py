"""LID assignment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from srpha.embedded.subnet.lid_table import Claim, LidTable


def test_lowest_free_first() -> None:
    table = LidTable(first=3)
    table.assign([Claim(30, 0), Claim(10, 4), Claim(20, 0)])
    assert [table.lid(guid) for guid in (30, 10, 20, 99)] == [3, 4, 5, None]


def test_takes_over_but_gives_each_once() -> None:
    table = LidTable()
    table.assign([Claim(1, 7), Claim(2, 7), Claim(3, 0xC000), Claim(4, 9)])
    assert [table.lid(guid) for guid in (1, 2, 3, 4)] == [7, 1, 2, 9]


def test_absent_ports_keep_theirs() -> None:
    table = LidTable()
    table.assign([Claim(1, 0), Claim(2, 0)])
    table.assign([Claim(3, 1)])
    assert [table.lid(guid) for guid in (1, 2, 3)] == [1, 2, 3]


def test_known_ports_do_not_follow_what_they_claim() -> None:
    table = LidTable()
    table.assign([Claim(1, 5)])
    table.assign([Claim(1, 6)])
    assert table.lid(1) == 5


def test_move() -> None:
    table = LidTable()
    table.assign([Claim(1, 0), Claim(2, 0), Claim(3, 0)])
    table.move([2, 1])
    assert [table.lid(guid) for guid in (1, 2, 3)] == [5, 4, 3]
    table.assign([Claim(4, 0)])
    assert table.lid(4) == 1


def test_full() -> None:
    table = LidTable(first=0xBFFF)
    table.assign([Claim(1, 0), Claim(2, 0)])
    assert (table.lid(1), table.lid(2)) == (0xBFFF, None)
    table.move([1])
    assert table.lid(1) == 0xBFFF


@given(st.lists(st.builds(Claim, st.integers(1, 30), st.integers(0, 40)), max_size=60, unique_by=lambda c: c.guid))
def test_unique(claims: list[Claim]) -> None:
    table = LidTable()
    table.assign(claims)
    given_away = [table.lid(claim.guid) for claim in claims]
    assert None not in given_away
    assert len(set(given_away)) == len(given_away)
    table.assign(reversed(claims))
    assert [table.lid(claim.guid) for claim in claims] == given_away
