from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.core.multipath.table import (
    GroupLetter,
    StatusGroup,
    StatusLine,
    StatusPath,
    TableGroup,
    TableLine,
    TablePath,
    parse_status,
    parse_table,
)
from srpha.wire.errors import DecodeError

# As multipath-tools loads it, and as the kernel documents it (service-time with its relative throughput).
TABLES = {
    "0 2097152 multipath 1 queue_if_no_path 1 alua 2 1 service-time 0 2 1 8:16 1 8:32 1 service-time 0 1 1 8:48 1": (
        TableLine(
            2097152,
            (
                TableGroup("service-time", (TablePath("8:16"), TablePath("8:32"))),
                TableGroup("service-time", (TablePath("8:48"),)),
            ),
            features=("queue_if_no_path",),
            handler=("alua",),
        )
    ),
    "0 10 multipath 0 0 1 1 service-time 0 2 2 8:0 128 1 8:16 128 4": TableLine(
        10, (TableGroup("service-time", (TablePath("8:0", ("128", "1")), TablePath("8:16", ("128", "4")))),)
    ),
    "0 10 multipath 0 0 1 1 queue-length 0 2 1 8:0 128 8:16 128": TableLine(
        10, (TableGroup("queue-length", (TablePath("8:0", ("128",)), TablePath("8:16", ("128",)))),)
    ),
    "0 8 multipath 3 queue_if_no_path pg_init_retries 50 0 0 0": TableLine(
        8, (), features=("queue_if_no_path", "pg_init_retries", "50"), first_group=0
    ),
}
STATUSES = {
    "0 10 multipath 2 0 0 0 1 1 E 0 2 2 8:0 A 0 0 1 8:16 A 0 0 4": StatusLine(
        10,
        (
            StatusGroup(
                GroupLetter.ENABLED,
                (StatusPath("8:0", True, 0, ("0", "1")), StatusPath("8:16", True, 0, ("0", "4"))),
            ),
        ),
        1,
    ),
    "0 1562378240 multipath 2 0 0 0 1 1 A 0 4 1 253:11 A 0 309 253:8 F 3 0 253:9 A 0 0 253:10 A 0 0": StatusLine(
        1562378240,
        (
            StatusGroup(
                GroupLetter.CURRENT,
                (
                    StatusPath("253:11", True, 0, ("309",)),
                    StatusPath("253:8", False, 3, ("0",)),
                    StatusPath("253:9", True, 0, ("0",)),
                    StatusPath("253:10", True, 0, ("0",)),
                ),
            ),
        ),
        1,
    ),
    "0 2097152 multipath 2 1 0 0 2 2 D 0 1 0 8:96 F 1 A 0 1 0 8:48 A 0": StatusLine(
        2097152,
        (
            StatusGroup(GroupLetter.BYPASSED, (StatusPath("8:96", False, 1),)),
            StatusGroup(GroupLetter.CURRENT, (StatusPath("8:48", True, 0),)),
        ),
        2,
        queueing_io=True,
    ),
    "0 8 multipath 2 0 0 0 0 0": StatusLine(8, (), 0),
}


@pytest.mark.parametrize(("text", "line"), TABLES.items())
def test_table_lines_both_ways(text: str, line: TableLine) -> None:
    assert line.format() == text
    assert parse_table(text) == line
    assert parse_table(f"{text} \n") == line


@pytest.mark.parametrize(("text", "line"), STATUSES.items())
def test_status_lines_both_ways(text: str, line: StatusLine) -> None:
    assert line.format() == text
    assert parse_status(text) == line
    assert parse_status(f"{text} ") == line


WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
DEVICES = st.builds("{}:{}".format, st.integers(0, 4095), st.integers(0, 1 << 20))


@st.composite
def table_lines(draw: st.DrawFn) -> TableLine:
    def group() -> TableGroup:
        width = draw(st.integers(0, 3))
        arguments = st.lists(WORDS, min_size=width, max_size=width).map(tuple)
        paths = draw(st.lists(st.builds(TablePath, DEVICES, arguments), min_size=1, max_size=4))
        return TableGroup(draw(WORDS), tuple(paths), tuple(draw(st.lists(WORDS, max_size=2))))

    groups = tuple(group() for _ in range(draw(st.integers(0, 4))))
    words = st.lists(WORDS, max_size=4).map(tuple)
    first = draw(st.integers(1, len(groups))) if groups else 0
    return TableLine(draw(st.integers(0, 1 << 60)), groups, draw(words), draw(words), first)


@st.composite
def status_lines(draw: st.DrawFn) -> StatusLine:
    def group() -> StatusGroup:
        width = draw(st.integers(0, 3))
        info = st.lists(WORDS, min_size=width, max_size=width).map(tuple)
        path = st.builds(StatusPath, DEVICES, st.booleans(), st.integers(0, 1 << 32), info)
        return StatusGroup(draw(st.sampled_from(GroupLetter)), tuple(draw(st.lists(path, max_size=4))))

    groups = [group() for _ in range(draw(st.integers(0, 4)))]
    # A group without paths has no words to tell its width by.
    groups = [item for item in groups if item.paths]
    current = draw(st.integers(0, len(groups)))
    return StatusLine(draw(st.integers(0, 1 << 60)), tuple(groups), current, draw(st.booleans()))


@given(table_lines())
def test_any_table_survives_the_round_trip(line: TableLine) -> None:
    assert parse_table(line.format()) == line


@given(status_lines())
def test_any_status_survives_the_round_trip(line: StatusLine) -> None:
    assert parse_status(line.format()) == line


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the line ends where start sector should be"),
        ("0 10 linear 8:0 0", "word 3: 'linear' instead of 'multipath'"),
        ("0 x multipath 0 0 0 0", "length in sectors is a number, got 'x'"),
        ("0 10 multipath 2 queue_if_no_path", "the line ends where feature arguments should be"),
        ("0 10 multipath 0 0 1 0 service-time 0 1 1 8:0 1", "first path group 0 of 1"),
        ("0 10 multipath 0 0 1 2 service-time 0 1 1 8:0 1", "first path group 2 of 1"),
        ("0 10 multipath 0 0 0 1", "first path group 1 of 0"),
        ("0 10 multipath 0 0 1 1 service-time 0 0 1", "at least one path"),
        ("0 10 multipath 0 0 1 1 service-time 0 1 1 sda 1", "a device is major:minor, got 'sda'"),
        ("0 10 multipath 0 0 1 1 service-time 0 1 1 8:0 1 9", "'9' after the end"),
        ("0 10 multipath 99999 a", "too many"),
        ("0 10 multipath 0 0 1 1 service-t\xefme 0 1 1 8:0 1", "is no path selector"),
        ("0 ١٠ multipath 0 0 0 0", "is no length in sectors"),
    ],
)
def test_malformed_tables_name_the_word(text: str, complaint: str) -> None:
    with pytest.raises(DecodeError, match="multipath table line, word") as caught:
        parse_table(text)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0 10 multipath 3 0 0 0 0 0", "'3' instead of '2'"),
        ("0 10 multipath 2 7 0 0 0 0", "queueing is one of 0, 1, got '7'"),
        ("0 10 multipath 2 0 0 0 1 2 A 0 0 0", "current path group 2 of 1"),
        ("0 10 multipath 2 0 0 0 1 1 X 0 0 0", "state of a path group is one of A, E, D, got 'X'"),
        ("0 10 multipath 2 0 0 0 1 1 A 0 1 0 8:0 Q 0", "state of a path is one of A, F, got 'Q'"),
        ("0 10 multipath 2 0 0 0 1 1 A 0 1 0 8:0 A -1", "fail count is a number, got '-1'"),
    ],
)
def test_malformed_statuses_name_the_word(text: str, complaint: str) -> None:
    with pytest.raises(DecodeError, match="multipath status line, word") as caught:
        parse_status(text)
    assert complaint in str(caught.value)
