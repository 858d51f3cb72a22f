"""The event log numbers without gaps, forgets only the oldest, and lets listeners come and go."""

from __future__ import annotations

from srpha.core.events import Event, EventKind, Severity
from srpha.operate.event_log import EventLog, LoggedEvent


def event(subject: str) -> Event:
    return Event(1.0, EventKind.PORT_UP, Severity.INFO, subject, f"{subject} is up")


def test_numbers_start_at_one_and_have_no_gaps() -> None:
    log = EventLog()
    assert (log.last, log.since(0)) == (0, ())
    for name in "abc":
        log(event(name))
    assert [(item.number, item.event.subject) for item in log.since(0)] == [(1, "a"), (2, "b"), (3, "c")]
    assert [item.number for item in log.since(2)] == [3]
    assert log.since(3) == ()


def test_the_oldest_are_forgotten_and_the_reader_can_tell() -> None:
    log = EventLog(capacity=2)
    for name in "abcd":
        log(event(name))
    assert [item.number for item in log.since(0)] == [3, 4]
    assert (len(log), log.last) == (2, 4)


def test_a_listener_hears_until_it_stops_even_from_inside_a_call() -> None:
    log = EventLog()
    heard: list[int] = []

    def once(logged: LoggedEvent) -> None:
        heard.append(logged.number)
        stop()

    stop = log.listen(once)
    log(event("a"))
    log(event("b"))
    stop()
    assert heard == [1]
