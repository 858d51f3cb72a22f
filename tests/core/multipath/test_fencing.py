from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from srpha.core.multipath.fencing import FenceLedger
from srpha.core.scsi_io import Nexus, ScsiDevice

A, B, C = (Nexus(bytes([number]) * 16, bytes(16)) for number in range(3))


@dataclass(frozen=True)
class Via:
    hctl: str
    nexus: Nexus


def via(hctl: str, nexus: Nexus) -> ScsiDevice:
    return cast("ScsiDevice", Via(hctl, nexus))


ON_A, ON_B, ON_C = via("1:0:0:0", A), via("2:0:0:0", B), via("3:0:0:0", C)


def test_one_fence_serves_all_that_was_held_when_it_started() -> None:
    ledger = FenceLedger(60.0)
    ledger.hold(1, A, 10.0)
    ledger.hold(2, A, 10.5)
    assert ledger.wanting() == (A,)
    assert ledger.start(A, [ON_A, ON_B]) is ON_B
    assert ledger.wanting() == ()
    assert ledger.start(A, [ON_B]) is None  # one at a time
    ledger.hold(3, A, 11.0)
    assert ledger.finish(A, "2:0:0:0", confirmed=True) == (1, 2)
    # The third may have gone out on a login that is younger than the fence.
    assert ledger.wanting() == (A,)
    assert ledger.held_on(A) == (3,)


def test_a_nexus_is_not_fenced_through_itself() -> None:
    ledger = FenceLedger(60.0)
    ledger.hold(1, A, 0.0)
    assert ledger.start(A, [ON_A]) is None
    assert ledger.wanting() == (A,)


def test_refusals_move_on_to_the_next_path_until_paths_change() -> None:
    ledger = FenceLedger(60.0)
    ledger.hold(1, A, 0.0)
    assert ledger.start(A, [ON_B, ON_C]) is ON_B
    assert ledger.finish(A, ON_B.hctl, confirmed=False) == ()
    assert ledger.start(A, [ON_B, ON_C]) is ON_C
    assert ledger.finish(A, ON_C.hctl, confirmed=False) == ()
    assert ledger.start(A, [ON_B, ON_C]) is None
    ledger.retry()
    assert ledger.start(A, [ON_B, ON_C]) is ON_B


def test_quiesce_time_counts_from_each_giving_up() -> None:
    ledger = FenceLedger(60.0)
    ledger.hold(1, A, 10.0)
    ledger.hold(2, B, 5.0)
    ledger.hold(3, A, 12.0)
    assert ledger.next_deadline() == 65.0
    assert ledger.expire(64.9) == ()
    assert ledger.expire(65.0) == (2,)
    assert ledger.next_deadline() == 70.0
    assert ledger.expire(100.0) == (1, 3)
    assert (ledger.next_deadline(), ledger.waiting(), ledger.wanting()) == (math.inf, 0, ())


def test_a_new_login_frees_everything_of_its_nexus() -> None:
    ledger = FenceLedger(60.0)
    ledger.hold(1, A, 0.0)
    ledger.hold(2, B, 0.0)
    assert ledger.start(A, [ON_B]) is ON_B
    ledger.hold(3, A, 1.0)
    assert ledger.renewed(A) == (1, 3)
    assert ledger.finish(A, ON_B.hctl, confirmed=True) == ()
    assert ledger.renewed(C) == ()
    assert ledger.waiting() == 1


def test_a_write_that_no_longer_waits_is_forgotten() -> None:
    ledger = FenceLedger(60.0)
    ledger.hold(1, A, 0.0)
    with pytest.raises(ValueError, match="held already"):
        ledger.hold(1, B, 0.0)
    ledger.release(1)
    ledger.release(1)
    assert ledger.wanting() == ()
    assert ledger.start(A, [ON_B]) is None


class LedgerMachine(RuleBasedStateMachine):
    """Every held write is let go exactly once, and never on a confirmation that is older than it."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = FenceLedger(50.0)
        self.now = 0.0
        self.token = 0
        self.held: dict[int, tuple[Nexus, float]] = {}
        self.running: dict[Nexus, tuple[ScsiDevice, float]] = {}

    def _gone(self, tokens: tuple[int, ...]) -> list[tuple[Nexus, float]]:
        return [self.held.pop(token) for token in tokens]

    @rule(nexus=st.sampled_from([A, B]), seconds=st.floats(0, 20))
    def hold(self, nexus: Nexus, seconds: float) -> None:
        self.now += seconds
        self.token += 1
        self.ledger.hold(self.token, nexus, self.now)
        self.held[self.token] = (nexus, self.now)

    @rule(nexus=st.sampled_from([A, B]))
    def start(self, nexus: Nexus) -> None:
        device = self.ledger.start(nexus, [ON_A, ON_B, ON_C])
        if device is not None:
            assert nexus not in self.running
            assert device.nexus != nexus
            self.now += 1e-3
            self.running[nexus] = (device, self.now)

    @rule(nexus=st.sampled_from([A, B]), confirmed=st.booleans())
    def finish(self, nexus: Nexus, confirmed: bool) -> None:
        if nexus in self.running:
            device, started = self.running.pop(nexus)
            gone = self._gone(self.ledger.finish(nexus, device.hctl, confirmed=confirmed))
            assert all(item[0] == nexus and item[1] <= started for item in gone)
            assert confirmed or not gone

    @rule(nexus=st.sampled_from([A, B]))
    def renewed(self, nexus: Nexus) -> None:
        self._gone(self.ledger.renewed(nexus))
        assert all(item[0] != nexus for item in self.held.values())

    @rule()
    def expire(self) -> None:
        gone = self._gone(self.ledger.expire(self.now))
        assert all(self.now >= given_up + 50.0 for _, given_up in gone)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.held:
            token = data.draw(st.sampled_from(sorted(self.held)))
            self.ledger.release(token)
            del self.held[token]

    @invariant()
    def the_books_agree(self) -> None:
        assert self.ledger.waiting() == len(self.held)
        for nexus in (A, B):
            assert self.ledger.held_on(nexus) == tuple(t for t, item in self.held.items() if item[0] == nexus)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=50, stateful_step_count=30)
