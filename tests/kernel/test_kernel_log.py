from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.kernel.kernel_log import Kmsg, KmsgReader, parse_records

RECORD = b"4,1234,98765432,-;scsi host7:   REJ reason 0x3\n SUBSYSTEM=scsi\n DEVICE=+scsi:host7\n"


def test_a_record_is_its_message() -> None:
    assert parse_records(RECORD) == ["scsi host7:   REJ reason 0x3"]


def test_what_a_terminal_would_obey_is_replaced() -> None:
    assert parse_records(b"4,1,1,-;a\x1b[31mb\xff\xc3\xa4c\n") == ["a?[31mb??c"]


@pytest.mark.parametrize("data", [b"", b"\n", b"no record\n", b"4,1;short header\n", b" KEY=value\n", b"x,1,1,-;y\n"])
def test_what_is_no_record_is_left_out(data: bytes) -> None:
    assert parse_records(data) == []


def test_more_flags_may_come() -> None:
    assert parse_records(b"6,339,5140900,c,caller=T1;text; with; semicolons\n") == ["text; with; semicolons"]


def test_a_long_message_is_cut() -> None:
    (text,) = parse_records(b"4,1,1,-;" + b"x" * 9000)
    assert len(text) == 400


@given(st.binary(max_size=300))
def test_any_bytes_give_printable_lines(data: bytes) -> None:
    assert all(text.isascii() and text.isprintable() for text in parse_records(data))


def test_one_record_per_read_until_there_are_no_more() -> None:
    """A pipe in packet mode gives a record per read and then EAGAIN, as /dev/kmsg does."""
    ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_DIRECT)
    reader = KmsgReader(ours)
    try:
        os.write(theirs, RECORD)
        os.write(theirs, b"4,1235,98765433,-;second\n")
        assert reader.lines() == ("scsi host7:   REJ reason 0x3", "second")
        assert reader.lines() == ()
        os.write(theirs, b"4,1236,98765434,-;third\n")
        assert reader.lines() == ("third",)
    finally:
        reader.close()
        reader.close()
        os.close(theirs)
    assert reader.lines() == ()


def test_records_that_were_overwritten_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_DIRECT)
    real, lost = os.read, [True]

    def read(descriptor: int, size: int) -> bytes:
        if descriptor == ours and lost.pop() if lost else False:
            raise BrokenPipeError
        return real(descriptor, size)

    monkeypatch.setattr(os, "read", read)
    reader = KmsgReader(ours)
    os.write(theirs, RECORD)
    assert reader.lines() == ("scsi host7:   REJ reason 0x3",)
    reader.close()
    os.close(theirs)


def test_a_reader_starts_at_the_end_of_the_log_or_at_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "kmsg").write_bytes(RECORD)
    reader, whole = Kmsg(tmp_path).open(), Kmsg(tmp_path).open(from_start=True)
    with (tmp_path / "kmsg").open("ab") as log:
        log.write(b"4,1235,98765433,-;later\n")
    assert reader.lines() == ("later",)
    assert whole.lines() == ("scsi host7:   REJ reason 0x3", "later")
    reader.close()
    whole.close()


def test_a_fifo_can_stand_in_for_the_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "kmsg")
    reader = Kmsg(tmp_path).open()
    assert reader.lines() == ()
    with (tmp_path / "kmsg").open("wb") as log:
        log.write(RECORD)
        log.flush()
        assert reader.lines() == ("scsi host7:   REJ reason 0x3",)
    reader.close()


def test_a_log_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Kmsg(tmp_path).open()
