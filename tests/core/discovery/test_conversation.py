from __future__ import annotations

from collections.abc import Generator, Sequence

import pytest

from srpha.core.discovery.conversation import Ask, Conversations, Reply, Talk
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
