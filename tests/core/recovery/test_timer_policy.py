from __future__ import annotations

import itertools

import pytest

from srpha.core.recovery.remote_port import InvalidTimersError, RemotePortTimers
from srpha.core.recovery.timer_policy import Queueing, WithoutPath, review_classes, review_timers

FAIL, QUEUE = WithoutPath.FAIL, WithoutPath.QUEUE


def texts(timers: RemotePortTimers, queueing: Queueing, *, adjust: bool = False) -> str:
    return "\n".join(finding.text for finding in review_timers(timers, queueing, adjust=adjust).findings)


def test_good_timers_pass_without_a_word() -> None:
    timers = RemotePortTimers(6, 5, 600)
    review = review_timers(timers, Queueing(12, 5), adjust=True)
    assert (review.timers, review.findings) == (timers, ())


def test_a_reconnect_before_fast_io_fail_is_the_trap_of_silent_loss() -> None:
    review = review_timers(RemotePortTimers(2, 5, 600), Queueing(12, 5), adjust=True)
    assert review.timers == RemotePortTimers(6, 5, 600)
    (finding,) = review.findings
    assert finding.repaired
    assert finding.text.startswith("reconnect_delay 2 s is not longer than fast_io_fail_tmo 5 s: when packets get lost")
    assert finding.text.endswith("reconnect_delay 6 s is used")


def test_the_same_is_only_told_when_nothing_may_be_changed() -> None:
    timers = RemotePortTimers(5, 5, 600)
    review = review_timers(timers, Queueing(12, 5), adjust=False)
    assert review.timers == timers
    assert [finding.repaired for finding in review.findings] == [False]


def test_the_drivers_own_defaults_are_in_the_trap() -> None:
    assert "reconnect_delay 10 s is not longer than fast_io_fail_tmo 15 s" in texts(RemotePortTimers(), Queueing(12, 5))


def test_disks_must_outlast_queueing() -> None:
    review = review_timers(RemotePortTimers(6, 5, 60), Queueing(30, 5), adjust=True)
    assert review.timers == RemotePortTimers(6, 5, 151)
    assert "no_path_retry 30 x polling_interval 5 s = 150 s" in review.findings[0].text
    assert review.findings[0].text.endswith("dev_loss_tmo 151 s is used")


def test_queueing_for_ever_wants_disks_that_stay() -> None:
    review = review_timers(RemotePortTimers(6, 5, 600), Queueing(QUEUE), adjust=True)
    assert review.timers == RemotePortTimers(6, 5, None)
    review = review_timers(RemotePortTimers(None, 5, 600), Queueing(QUEUE), adjust=True)
    assert review.timers.dev_loss_tmo == 600, "off would leave a connection that never comes back"
    assert not review.findings[0].repaired


def test_the_kernels_limit_bounds_the_repair() -> None:
    review = review_timers(RemotePortTimers(6, None, 300), Queueing(200, 5), adjust=True)
    assert review.timers.dev_loss_tmo == 300
    assert "cannot be longer than 600 s" in review.findings[0].text


@pytest.mark.parametrize(
    ("timers", "queueing", "text"),
    [
        (RemotePortTimers(10, None, 600), Queueing(12), "held until dev_loss_tmo, 600 s instead of moving"),
        (RemotePortTimers(10, None, None), Queueing(12), "held for ever instead of moving"),
        (RemotePortTimers(None, 5, 600), Queueing(12), "is dead until dev_loss_tmo, 600 s, then srpha logs in anew"),
        (RemotePortTimers(None, 5, None), Queueing(12), "stays dead until it is removed by hand"),
        (RemotePortTimers(60, 5, 600), Queueing(2, 5), "gives up 15 s after the last path broke"),
        (RemotePortTimers(6, 5, 600), Queueing(FAIL), "down for longer than fast_io_fail_tmo 5 s, I/O fails"),
        (RemotePortTimers(6, 5, 600), Queueing(0), "no_path_retry 0 x polling_interval 5 s = 0 s: when all paths"),
    ],
)
def test_what_has_no_one_repair_is_told(timers: RemotePortTimers, queueing: Queueing, text: str) -> None:
    assert text in texts(timers, queueing)
    assert review_timers(timers, queueing, adjust=True).timers == timers


def test_classes_are_named() -> None:
    reviews = review_classes({"arrays": RemotePortTimers(2, 5, 600)}, Queueing(12), adjust=True)
    assert reviews["arrays"].timers.reconnect_delay == 6
    assert reviews["arrays"].findings[0].text.startswith("timers of arrays: reconnect_delay 2 s")


@pytest.mark.parametrize("numbers", [(-1, 5), (3, 0)])
def test_odd_queueing_is_refused(numbers: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"no_path_retry|polling_interval"):
        Queueing(*numbers)


def test_repairs_are_valid_and_final_for_any_timers() -> None:
    values = (None, 0, 1, 5, 15, 60, 599, 600, 601)
    for reconnect, fast, loss in itertools.product(values, values, values):
        try:
            timers = RemotePortTimers(reconnect, fast, loss)
        except InvalidTimersError:
            continue
        for queueing in (Queueing(FAIL), Queueing(QUEUE), Queueing(3), Queueing(30), Queueing(500)):
            repaired = review_timers(timers, queueing, adjust=True)
            again = review_timers(repaired.timers, queueing, adjust=True)
            assert again.timers == repaired.timers
            assert not any(finding.repaired for finding in again.findings)
