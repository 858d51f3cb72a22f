from __future__ import annotations

from collections.abc import Generator, Sequence

import pytest

from srpha.core.discovery.conversation import Ask, Conversations, Question, Race, Reply, Talk
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.core.seams import MadAddress
from srpha.wire.dm import DmAttribute, IoUnitInfo, dm_request, dm_response
from srpha.wire.mad import MadStatus, Method

SETTINGS = ScanSettings(window=3, busy_delay=0.1, busy_tries=2)
REQUEST = dm_request(Method.GET, DmAttribute.IO_UNIT_INFO, transaction_id=0)
ASK = Ask("a/1", MadAddress(5), REQUEST, 1.0, 0)
GOOD = dm_response(REQUEST, IoUnitInfo())
BUSY = dm_response(REQUEST, status=MadStatus.BUSY)


def collect(rounds: Sequence[int], into: list[list[Reply]]) -> Talk:
    """Asks ``rounds[i]`` questions in round i and notes the replies."""
    for count in rounds:
        replies = yield [ASK] * count
        into.append(replies)


def start(*rounds: int) -> tuple[Conversations, list[list[Reply]]]:
    seen: list[list[Reply]] = []
    talks = Conversations(SETTINGS, 10.0)
    talks.start(collect(rounds, seen))
    return talks, seen


def test_rounds_follow_each_other_and_replies_keep_their_order() -> None:
    talks, seen = start(2, 1)
    first, second = talks.questions(10.0)
    talks.answer(second.number, None, 10.5)
    assert seen == []
    talks.answer(first.number, GOOD, 10.6)
    assert seen == [[GOOD, None]]
    (third,) = talks.questions(10.6)
    talks.answer(third.number, GOOD, 10.7)
    assert talks.done
    cost = talks.statistics(11.0)
    assert (cost.queries, cost.timeouts, cost.round_trips, cost.duration) == (3, 1, 2, 1.0)


def test_window_is_kept() -> None:
    talks, _ = start(5)
    sent = talks.questions(10.0)
    assert len(sent) == 3
    assert talks.questions(10.0) == []
    talks.answer(sent[0].number, GOOD, 10.1)
    assert len(talks.questions(10.1)) == 1


def test_round_without_questions_goes_on_at_once() -> None:
    talks, seen = start(0, 0, 1)
    assert seen == [[], []]
    assert len(talks.questions(10.0)) == 1
    assert Conversations(SETTINGS, 0.0).done


def test_conversation_that_asks_nothing_ends() -> None:
    talks, seen = start()
    assert talks.done
    assert seen == []
    talks, seen = start(0)
    assert talks.done
    assert seen == [[]]


def test_busy_answers_are_waited_out_with_growing_delays() -> None:
    talks, seen = start(1)
    times = []
    now = 10.0
    for _ in range(3):
        (question,) = talks.questions(now)
        talks.answer(question.number, BUSY, now)
        if talks.wake is not None:
            times.append(talks.wake - now)
            assert talks.questions(talks.wake - 0.01) == []
            now = talks.wake
    assert times == pytest.approx([0.1, 0.2])
    assert seen == [[BUSY]]
    assert talks.statistics(now).busy == 3
    assert talks.done


@pytest.mark.parametrize("reply", [b"", b"short", b"\0" * 256, REQUEST, b"\x01\x03\x02\x81" + b"\0" * 252])
def test_what_is_no_answer_counts_as_none(reply: bytes) -> None:
    talks, seen = start(1)
    (question,) = talks.questions(10.0)
    talks.answer(question.number, reply, 10.1)
    assert seen == [[None]]
    assert talks.statistics(10.1).errors == 1


def test_unknown_numbers_are_ignored() -> None:
    talks, seen = start(1)
    (question,) = talks.questions(10.0)
    talks.answer(question.number + 1, GOOD, 10.1)
    talks.answer(question.number, GOOD, 10.2)
    talks.answer(question.number, None, 10.3)
    assert seen == [[GOOD]]


def test_conversation_started_by_an_answer_counts_as_depending_on_it() -> None:
    talks = Conversations(SETTINGS, 0.0)

    def first() -> Generator[Sequence[Ask], list[Reply], None]:
        yield [ASK]
        talks.start(collect([1], []))

    talks.start(first())
    for now in (1.0, 2.0):
        (question,) = talks.questions(now)
        talks.answer(question.number, GOOD, now)
    assert talks.statistics(2.0).round_trips == 2


# --- races ---

PLENTY = ScanSettings(timeout=1.0, haste=0.5, window=64)
WAYS = tuple(Ask(port, MadAddress(5), REQUEST, 1.0, 2) for port in ("a/1", "b/1"))


def race(into: list[list[Reply]], asks: tuple[Ask, ...] = WAYS, *, patient: bool = False) -> Talk:
    replies = yield Race(asks, patient)
    into.append(replies)


def race_among_prompt(latency: float = 0.001, *, patient: bool = False) -> tuple[Conversations, list[list[Reply]]]:
    """A race after four others that were answered ``latency`` seconds after they began at 10.0."""
    talks, others, seen = Conversations(PLENTY, 10.0), list[list[Reply]](), list[list[Reply]]()
    for _ in range(4):
        talks.start(race(others))
    talks.start(race(seen, patient=patient))
    first = talks.questions(10.0)
    for question in first[:4]:
        talks.answer(question.number, GOOD, 10.0 + latency)
    assert others == [[GOOD, None]] * 4
    assert talks.lapsed() == []
    return talks, seen


def run_silently(talks: Conversations) -> list[tuple[float, Question]]:
    """Let time pass; what was sent and when."""
    sent: list[tuple[float, Question]] = []
    while (wake := talks.wake) is not None:
        sent += [(wake, question) for question in talks.questions(wake)]
    return sent


def test_race_without_witnesses_takes_the_time_of_all_tries() -> None:
    talks, seen = Conversations(PLENTY, 10.0), list[list[Reply]]()
    talks.start(race(seen))
    (first,) = talks.questions(10.0)
    later = run_silently(talks)
    assert [question.ask.port for question in (first, *(q for _, q in later))] == ["a/1", "b/1"] * 3
    assert [when for when, _ in later] == pytest.approx([10.5, 11.0, 11.5, 12.0, 12.5])
    assert [q.ask.timeout + when for when, q in later] == pytest.approx([13.0] * 5), "each is waited for to the end"
    assert {question.ask.retries for _, question in later} == {0}
    assert seen == [[None, None]]
    assert talks.done
    assert talks.now == pytest.approx(13.0)
    assert sorted(talks.lapsed()) == [1, 2, 3, 4, 5, 6]
    assert talks.lapsed() == []
    cost = talks.statistics(13.0)
    assert (cost.queries, cost.timeouts, cost.round_trips) == (6, 2, 1)


def test_race_among_prompt_ones_makes_all_tries_in_less_time() -> None:
    talks, seen = race_among_prompt()
    assert len(run_silently(talks)) == 5
    assert seen == [[None, None]]
    assert talks.now == pytest.approx(10.5, abs=0.01)


def test_race_waits_long_where_answers_take_long() -> None:
    talks, _ = race_among_prompt(0.2)
    run_silently(talks)
    assert talks.now == pytest.approx(11.6, abs=0.1)
    talks, _ = race_among_prompt(0.9)
    run_silently(talks)
    assert talks.now == pytest.approx(13.0, abs=0.1), "never longer than all tries"


def test_patient_race_ignores_what_is_usual() -> None:
    talks, _ = race_among_prompt(patient=True)
    run_silently(talks)
    assert talks.now == pytest.approx(13.0, abs=0.1)


def test_first_answer_to_any_try_ends_a_race() -> None:
    talks, seen = Conversations(PLENTY, 10.0), list[list[Reply]]()
    talks.start(race(seen))
    (first,) = talks.questions(10.0)
    (second,) = talks.questions(10.5)
    (third,) = talks.questions(11.0)
    talks.answer(second.number, GOOD, 11.2)
    assert seen == [[None, GOOD]]
    assert talks.done
    assert sorted(talks.lapsed()) == [first.number, third.number]
    talks.answer(first.number, GOOD, 11.3)
    assert len(seen) == 1


def test_failure_to_send_leads_to_the_next_try_at_once() -> None:
    talks, seen = Conversations(PLENTY, 10.0), list[list[Reply]]()
    talks.start(race(seen))
    ports = []
    while not talks.done:
        (question,) = talks.questions(10.0)
        ports.append(question.ask.port)
        talks.answer(question.number, None, 10.0)
    assert ports == ["a/1", "b/1"] * 3
    assert seen == [[None, None]]


def test_busy_answer_in_a_race_is_asked_again_by_its_way() -> None:
    talks, seen = Conversations(PLENTY, 10.0), list[list[Reply]]()
    talks.start(race(seen))
    talks.questions(10.0)
    (second,) = talks.questions(10.5)
    talks.answer(second.number, BUSY, 10.6)
    assert talks.questions(10.65) == []
    (again,) = talks.questions(10.7)
    assert again.ask == WAYS[1]
    talks.answer(again.number, GOOD, 10.8)
    assert seen == [[None, GOOD]]


def test_a_race_takes_one_place_in_the_window() -> None:
    talks, seen = Conversations(SETTINGS, 10.0), list[list[Reply]]()
    for _ in range(4):
        talks.start(race(seen))
    assert len(talks.questions(10.0)) == 3
    assert len(talks.questions(10.5)) == 3
    run_silently(talks)
    assert seen == [[None, None]] * 4
