from __future__ import annotations

import io
import json
import os
import socket
from pathlib import Path

import pytest

from srpha.core.events import Event, EventKind, Severity
from srpha.operate.event_log import LoggedEvent
from srpha.operate.event_logging import EventLogger
from srpha.operate.journal import Journal, encode_entry, leads_to_journal

EVENT = LoggedEvent(
    7, Event(1.5, EventKind.CONNECT_FAILED, Severity.WARNING, "mlx5_0/1", "login failed", {"errno": "ECONNRESET"})
)


def test_json_lines() -> None:
    stream = io.StringIO()
    logger = EventLogger("json", stream=stream)
    logger(EVENT)
    logger.say(Severity.INFO, "hello")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "login failed",
        "level": "warning",
        "kind": "connect-failed",
        "subject": "mlx5_0/1",
        "errno": "ECONNRESET",
    }
    assert second["event"] == "hello"


def test_console_lines_are_plain_outside_a_terminal() -> None:
    stream = io.StringIO()
    logger = EventLogger("console", stream=stream)
    logger(EVENT)
    (line,) = stream.getvalue().splitlines()
    assert "\x1b" not in line
    assert "login failed" in line
    assert "errno=ECONNRESET" in line
    assert "warning" in line


def test_least_severity() -> None:
    stream = io.StringIO()
    logger = EventLogger("json", Severity.WARNING, stream=stream)
    for severity in Severity:
        logger.say(severity, severity.value)
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["warning", "error"]


def test_journal_entries(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "socket"))
        logger = EventLogger("journal", stream=io.StringIO(), journal=lambda: Journal(tmp_path / "socket"))
        logger(EVENT)
        assert listener.recv(4096) == (
            b"MESSAGE=login failed\nPRIORITY=4\nSYSLOG_IDENTIFIER=srpha\n"
            b"SRPHA_KIND=connect-failed\nSRPHA_SUBJECT=mlx5_0/1\nSRPHA_ERRNO=ECONNRESET\n"
        )
        logger.close()


def test_an_entry_with_line_ends_is_sent_with_its_length() -> None:
    assert encode_entry({"MESSAGE": "a\nb"}) == b"MESSAGE\n\x03\x00\x00\x00\x00\x00\x00\x00a\nb\n"
    with pytest.raises(ValueError, match="is no name of a journal field"):
        encode_entry({"_PID": "1"})


def test_a_journal_that_is_away_does_no_harm(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "nothing")
    assert not journal.send({"MESSAGE": "x"})
    journal.close()


def test_a_reader_that_went_away_does_no_harm() -> None:
    class Broken(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    EventLogger("json", stream=Broken()).say(Severity.ERROR, "x")


def test_whether_the_stream_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        found = os.fstat(out.fileno())
        name = f"{found.st_dev}:{found.st_ino}"
        assert leads_to_journal(out.fileno(), {"JOURNAL_STREAM": name})
        for wrong in ("", "1:2", "x", f"{found.st_dev}", f"{name}x"):
            assert not leads_to_journal(out.fileno(), {"JOURNAL_STREAM": wrong})
        assert not leads_to_journal(out.fileno(), {})
        assert isinstance(EventLogger("auto", stream=out), EventLogger)
    assert not leads_to_journal(9999, {"JOURNAL_STREAM": "1:2"})
