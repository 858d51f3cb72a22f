from __future__ import annotations

import errno

from srpha.core.connections.attempts import Attempts, BackOff
from srpha.core.connections.pairs import PairKey
from srpha.wire.identifiers import Gid

KEY = PairKey("mlx5_0/1", 1, 2, Gid(1, 2), 3)
OTHER = PairKey("mlx5_1/1", 1, 2, Gid(1, 2), 3)


def test_delays_double_up_to_the_longest() -> None:
    assert [BackOff().delay(count) for count in range(1, 8)] == [3, 6, 12, 24, 48, 60, 60]
    assert BackOff().delay(10_000) == 60


def test_failure_ends_the_login_and_counts() -> None:
    attempts = Attempts(BackOff())
    attempts.started(KEY)
    assert attempts.of(KEY).under_way
    failed = attempts.failed(KEY, errno.ECONNRESET, "rejected", 100.0)
    assert (failed.under_way, failed.failures, failed.next_at, failed.reason) == (False, 1, 103.0, "rejected")
    attempts.started(KEY)
    assert attempts.failed(KEY, errno.ETIMEDOUT, "no answer", 200.0).next_at == 206.0
    attempts.succeeded(KEY)
    assert attempts.of(KEY).failures == 0


def test_bad_line_is_not_tried_again_soon() -> None:
    assert Attempts(BackOff()).failed(KEY, errno.EINVAL, "bad", 0.0).next_at == 60


def test_invisible_host_is_waited_for_a_while() -> None:
    attempts = Attempts(BackOff(blocked_tries=2))
    waits = [attempts.failed(KEY, errno.EEXIST, "exists", 0.0).next_at for _ in range(4)]
    assert waits == [0.5, 0.5, 3, 6]
    assert attempts.of(KEY).failures == 2


def test_login_not_made_keeps_the_count() -> None:
    attempts = Attempts(BackOff())
    attempts.failed(KEY, errno.ECONNRESET, "rejected", 0.0)
    attempts.started(KEY)
    attempts.cancelled(KEY)
    assert (attempts.of(KEY).under_way, attempts.of(KEY).failures) == (False, 1)


def test_hastening_concerns_only_whom_it_concerns() -> None:
    attempts = Attempts(BackOff())
    for key in (KEY, OTHER):
        attempts.failed(key, errno.ECONNRESET, "rejected", 100.0)
    attempts.hasten(lambda key: key.local_port == "mlx5_0/1")
    assert (attempts.of(KEY).next_at, attempts.of(OTHER).next_at) == (0.0, 103.0)
    assert attempts.of(KEY).reason == "rejected"


def test_pairs_that_are_none_any_more_are_forgotten_but_not_logins_under_way() -> None:
    attempts = Attempts(BackOff())
    attempts.failed(KEY, errno.ECONNRESET, "rejected", 0.0)
    attempts.started(OTHER)
    attempts.keep(())
    assert attempts.of(KEY).failures == 0
    assert attempts.of(OTHER).under_way


def test_version_moves_with_every_change_and_only_then() -> None:
    attempts = Attempts(BackOff())
    seen = [attempts.version]
    for change in (
        lambda: attempts.started(KEY),
        lambda: attempts.cancelled(KEY),
        lambda: attempts.failed(KEY, errno.ENOENT, "no P_Key", 0.0),
        lambda: attempts.hasten(lambda _: True),
        lambda: attempts.succeeded(KEY),
    ):
        change()
        seen.append(attempts.version)
    assert len(set(seen)) == 6
    attempts.succeeded(KEY)
    attempts.keep(())
    assert attempts.version == seen[-1]
