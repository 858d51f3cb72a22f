from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from srpha.core.recovery.error_recovery import (
    TASK_MANAGEMENT_TIMEOUT,
    AbortTask,
    ErrorLadder,
    FinishAborted,
    FinishLun,
    IllegalRecoveryEventError,
    RecoveryAction,
    ResetHost,
    ResetLun,
    Rung,
    TaskManagementOutcome,
)

DONE, REFUSED, SILENT = TaskManagementOutcome


def test_abort_that_works() -> None:
    ladder = ErrorLadder()
    assert ladder.command_timed_out(7, 1, 0.0) == (AbortTask(7, 1),)
    assert ladder.command_timed_out(7, 1, 0.1) == ()
    assert ladder.command_timed_out(8, 1, 0.2) == ()
    assert ladder.task_management_done(DONE, 1.0) == (FinishAborted(7), AbortTask(8, 1))
    assert ladder.deadline == 1.0 + TASK_MANAGEMENT_TIMEOUT
    assert ladder.task_management_done(DONE, 2.0) == (FinishAborted(8),)
    assert (ladder.rung, ladder.deadline) == (Rung.IDLE, None)


def test_refused_aborts_lead_to_one_lun_reset() -> None:
    ladder = ErrorLadder()
    ladder.command_timed_out(7, 1, 0.0)
    ladder.command_timed_out(8, 1, 0.0)
    assert ladder.task_management_done(REFUSED, 0.1) == (AbortTask(8, 1),)
    assert ladder.task_management_done(REFUSED, 0.2) == (ResetLun(1),)
    assert ladder.task_management_done(DONE, 0.3) == (FinishLun(1),)
    assert ladder.rung is Rung.IDLE


def test_a_silent_target_costs_two_timeouts_however_many_commands_wait() -> None:
    ladder = ErrorLadder()
    for tag in range(100):
        ladder.command_timed_out(tag, 1, 0.0)
    assert ladder.expire(4.9) == ()
    assert ladder.expire(5.0) == (ResetLun(1),)
    assert ladder.expire(10.0) == (ResetHost(),)
    assert ladder.rung is Rung.HOST_RESET
    assert ladder.command_timed_out(1000, 2, 11.0) == ()
    ladder.transport_finished()
    assert ladder.command_timed_out(1000, 2, 12.0) == (AbortTask(1000, 2),)


@pytest.mark.parametrize("outcome", TaskManagementOutcome)
def test_answer_to_the_command_makes_its_abort_moot(outcome: TaskManagementOutcome) -> None:
    ladder = ErrorLadder()
    ladder.command_timed_out(7, 1, 0.0)
    ladder.command_timed_out(8, 1, 0.0)
    ladder.command_finished(7)
    ladder.command_finished(8)
    assert ladder.task_management_done(outcome, 0.1) == ()
    assert ladder.rung is Rung.IDLE


def test_illegal_answers_change_nothing() -> None:
    ladder = ErrorLadder()
    with pytest.raises(IllegalRecoveryEventError):
        ladder.task_management_done(DONE, 0.0)
    assert ladder.rung is Rung.IDLE


class Model(RuleBasedStateMachine):
    """Every command that timed out is finished by an abort, a LUN reset, its own answer, or a host reset; once."""

    @initialize()
    def start(self) -> None:
        self.now = 0.0
        self.ladder = ErrorLadder()
        self.pending: dict[int, int] = {}
        self.tags = 0
        self.outstanding: RecoveryAction | None = None

    def perform(self, actions: tuple[RecoveryAction, ...]) -> None:
        for action in actions:
            match action:
                case AbortTask(tag, lun):
                    assert self.pending[tag] == lun
                    self.outstanding = action
                case ResetLun(lun):
                    assert lun in self.pending.values()
                    self.outstanding = action
                case FinishAborted(tag):
                    del self.pending[tag]
                case FinishLun(lun):
                    self.pending = {tag: at for tag, at in self.pending.items() if at != lun}
                case ResetHost():
                    self.pending.clear()
                    self.outstanding = None
                    assert self.ladder.rung is Rung.HOST_RESET
                    self.ladder.transport_finished()

    @rule(lun=st.integers(0, 2))
    def time_out(self, lun: int) -> None:
        self.tags += 1
        self.pending[self.tags] = lun
        self.perform(self.ladder.command_timed_out(self.tags, lun, self.now))

    @precondition(lambda self: self.outstanding is not None)
    @rule(outcome=st.sampled_from(TaskManagementOutcome))
    def answer(self, outcome: TaskManagementOutcome) -> None:
        self.outstanding = None
        self.perform(self.ladder.task_management_done(outcome, self.now))

    @precondition(lambda self: self.outstanding is not None)
    @rule()
    def wait(self) -> None:
        assert self.ladder.deadline is not None
        self.now = self.ladder.deadline
        self.outstanding = None
        self.perform(self.ladder.expire(self.now))

    @precondition(lambda self: any(not isinstance(self.outstanding, ResetLun) for _ in self.pending))
    @rule(data=st.data())
    def answered_late(self, data: st.DataObject) -> None:
        tag = data.draw(st.sampled_from(sorted(self.pending)))
        del self.pending[tag]
        self.ladder.command_finished(tag)

    @rule()
    def transport_breaks(self) -> None:
        self.pending.clear()
        self.outstanding = None
        self.ladder.transport_finished()

    @invariant()
    def nothing_is_forgotten(self) -> None:
        if not hasattr(self, "ladder"):
            return
        if self.pending:
            assert self.outstanding is not None
            assert self.ladder.deadline is not None
        if self.outstanding is None:
            assert self.ladder.rung is Rung.IDLE


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=80, stateful_step_count=30)
