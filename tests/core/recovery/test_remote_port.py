from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.core.recovery.remote_port import (
    IllegalRemotePortEventError,
    InvalidTimersError,
    RemotePort,
    RemotePortEffect,
    RemotePortState,
    RemotePortTimers,
)

K, O = RecoveryMode.KERNEL, RecoveryMode.OFED  # noqa: E741
E, S = RemotePortEffect, RemotePortState


def port(mode: RecoveryMode = K, **timers: int | None) -> RemotePort:
    return RemotePort(mode, RemotePortTimers(**timers))


def test_break_fail_fast_and_recover() -> None:
    p = port(reconnect_delay=10, fast_io_fail_tmo=15, dev_loss_tmo=60)
    assert p.transport_error(0.0) == (E.BLOCK,)
    assert p.transport_error(0.1) == ()
    assert (p.state, p.deadline) == (S.BLOCKED, 10.0)
    assert p.expire(9.9) == ()
    assert p.expire(10.0) == (E.RECONNECT,)
    assert p.host_reset(11.0) == ()
    assert p.reconnect_failed(12.0) == ()
    assert p.failed_reconnects == 1
    assert p.expire(15.0) == (E.FAIL_IO,)
    assert p.state is S.FAIL_FAST
    assert p.expire(22.0) == (E.RECONNECT,)
    assert p.reconnected(23.0) == (E.UNBLOCK,)
    assert (p.state, p.deadline, p.failed_reconnects) == (S.RUNNING, None, 0)


def test_dev_loss_cancels_a_reconnect_in_flight() -> None:
    p = port(reconnect_delay=10, fast_io_fail_tmo=0, dev_loss_tmo=20)
    p.transport_error(0.0)
    assert p.expire(0.0) == (E.FAIL_IO,)
    assert p.expire(10.0) == (E.RECONNECT,)
    assert p.expire(20.0) == (E.CANCEL_RECONNECT, E.REMOVE_HOST)
    assert (p.state, p.deadline, p.reconnecting) == (S.LOST, None, False)
    assert p.delete(21.0) == p.transport_error(21.0) == p.host_reset(21.0) == ()
    with pytest.raises(IllegalRemotePortEventError):
        p.reconnected(22.0)


def test_everything_due_at_once() -> None:
    p = port(reconnect_delay=5, fast_io_fail_tmo=5, dev_loss_tmo=50)
    p.transport_error(0.0)
    assert p.expire(5.0) == (E.FAIL_IO, E.RECONNECT)
    q = port(reconnect_delay=5, fast_io_fail_tmo=5, dev_loss_tmo=50)
    q.transport_error(0.0)
    assert q.expire(100.0) == (E.REMOVE_HOST,)


def test_without_fail_timers_the_port_keeps_running_until_a_reconnect_fails() -> None:
    p = port(reconnect_delay=10, fast_io_fail_tmo=None, dev_loss_tmo=None)
    assert p.transport_error(0.0) == (E.BLOCK,)
    assert p.state is S.RUNNING
    assert p.expire(10.0) == (E.RECONNECT,)
    assert p.reconnect_failed(11.0) == (E.FAIL_IO,)
    assert (p.state, p.deadline) == (S.FAIL_FAST, 21.0)


def test_switching_reconnects_off_on_a_broken_port_without_fail_timers_arms_the_new_ones() -> None:
    p = port(reconnect_delay=10, fast_io_fail_tmo=None, dev_loss_tmo=None)
    p.transport_error(0.0)
    p.set_timers(RemotePortTimers(None, 5, None), 1.0)
    assert (p.state, p.deadline) == (S.BLOCKED, 6.0)


def test_host_reset_that_fails_goes_straight_to_fail_fast() -> None:
    p = port(reconnect_delay=10, fast_io_fail_tmo=15, dev_loss_tmo=60)
    assert p.host_reset(0.0) == (E.BLOCK, E.RECONNECT)
    assert p.reconnect_failed(1.0) == (E.FAIL_IO,)
    assert (p.state, p.deadline) == (S.FAIL_FAST, 11.0)


def test_back_off_grows_after_ten_failures_up_to_a_hundredfold() -> None:
    p = port(reconnect_delay=2, fast_io_fail_tmo=5, dev_loss_tmo=None)
    p.transport_error(0.0)
    delays = []
    now = 0.0
    for _ in range(130):
        deadline = p.deadline
        assert deadline is not None
        effects = p.expire(deadline)
        now = deadline
        if E.RECONNECT in effects:
            p.reconnect_failed(now)
            assert p.deadline is not None
            delays.append(min(p.deadline, p.deadline) - now)
    assert delays[2:11] == [2] * 9
    assert delays[11:14] == [4, 6, 8]
    assert max(delays) == delays[-1] == 200


def test_timers_set_while_down() -> None:
    p = port(reconnect_delay=None, fast_io_fail_tmo=15, dev_loss_tmo=60)
    p.transport_error(0.0)
    assert p.deadline == 15
    p.set_timers(RemotePortTimers(3, 1, 100), 1.0)
    assert p.deadline == 4, "reconnect is armed, the fail timers keep their times"
    p.set_timers(RemotePortTimers(None, 1, 100), 2.0)
    assert p.deadline == 15


def test_ofed_mode_recovers_at_once_or_is_lost() -> None:
    p = port(O)
    assert p.transport_error(0.0) == (E.BLOCK, E.RECONNECT)
    assert (p.state, p.deadline) == (S.BLOCKED, None)
    assert p.reconnected(1.0) == (E.UNBLOCK,)
    assert p.host_reset(2.0) == (E.BLOCK, E.RECONNECT)
    assert p.transport_error(2.5) == p.host_reset(2.5) == ()
    assert p.reconnect_failed(3.0) == (E.REMOVE_HOST,)
    assert p.state is S.LOST


@pytest.mark.parametrize("mode", RecoveryMode)
def test_an_illegal_event_changes_nothing(mode: RecoveryMode) -> None:
    p = port(mode)
    for event in (p.reconnected, p.reconnect_failed):
        with pytest.raises(IllegalRemotePortEventError):
            event(0.0)
    assert (p.state, p.deadline, p.failed_reconnects, p.reconnecting) == (S.RUNNING, None, 0, False)


VALUES = (None, -1, 0, 1, 15, 600, 601, 5000)


@pytest.mark.parametrize(("reconnect", "fast", "loss"), list(itertools.product(VALUES, repeat=3)))
def test_constraints_are_the_kernels(reconnect: int | None, fast: int | None, loss: int | None) -> None:
    legal = (
        all(value is None or value >= 0 for value in (reconnect, fast, loss))
        and reconnect != 0
        and (reconnect, fast, loss) != (None, None, None)
        and (fast is None or fast <= 600)
        and not (fast is None and loss is not None and loss > 600)
        and not (fast is not None and loss is not None and fast >= loss)
    )
    if legal:
        RemotePortTimers(reconnect, fast, loss)
    else:
        with pytest.raises(InvalidTimersError):
            RemotePortTimers(reconnect, fast, loss)


@st.composite
def timers(draw: st.DrawFn) -> RemotePortTimers:
    loss = draw(st.none() | st.integers(1, 1000))
    top = 600 if loss is None else min(600, loss - 1)
    fast = draw(st.integers(0, top)) if loss is not None and loss > 600 else draw(st.none() | st.integers(0, top))
    reconnect = draw(st.integers(1, 100) if (fast, loss) == (None, None) else st.none() | st.integers(1, 100))
    return RemotePortTimers(reconnect, fast, loss)


@given(timers())
def test_a_broken_port_always_has_something_to_wait_for(given_timers: RemotePortTimers) -> None:
    p = RemotePort(K, given_timers)
    p.transport_error(0.0)
    assert p.deadline is not None


class Model(RuleBasedStateMachine):
    """An owner that carries out the effects; it must never be told something that contradicts what it was told."""

    @initialize(mode=st.sampled_from(RecoveryMode), chosen=timers())
    def start(self, mode: RecoveryMode, chosen: RemotePortTimers) -> None:
        self.now = 0.0
        self.port = RemotePort(mode, chosen)
        self.io = "runs"
        self.reconnecting = False

    def perform(self, effects: tuple[RemotePortEffect, ...]) -> None:
        for effect in effects:
            assert self.io != "removed"
            match effect:
                case E.BLOCK:
                    self.io = "held"
                case E.UNBLOCK:
                    assert self.io in ("held", "failing")
                    self.io = "runs"
                case E.FAIL_IO:
                    assert self.io == "held"
                    self.io = "failing"
                case E.RECONNECT:
                    assert not self.reconnecting
                    assert self.io != "runs"
                    self.reconnecting = True
                case E.CANCEL_RECONNECT:
                    assert self.reconnecting
                    self.reconnecting = False
                case E.REMOVE_HOST:
                    self.io = "removed"

    @rule()
    def break_transport(self) -> None:
        self.perform(self.port.transport_error(self.now))

    @rule()
    def reset(self) -> None:
        self.perform(self.port.host_reset(self.now))

    @rule()
    def delete(self) -> None:
        self.perform(self.port.delete(self.now))

    @rule(seconds=st.floats(0, 200))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(3000):
            if self.port.deadline is None or self.port.deadline > until:
                break
            self.now = self.port.deadline
            self.perform(self.port.expire(self.now))
        self.now = until

    @precondition(lambda self: self.reconnecting)
    @rule(success=st.booleans())
    def end_reconnect(self, success: bool) -> None:
        self.reconnecting = False
        self.perform(self.port.reconnected(self.now) if success else self.port.reconnect_failed(self.now))

    @rule(chosen=timers())
    def set_timers(self, chosen: RemotePortTimers) -> None:
        self.port.set_timers(chosen, self.now)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "port"):
            return
        assert self.port.reconnecting == self.reconnecting
        assert (self.port.state is S.LOST) == (self.io == "removed")
        assert (self.port.state is S.FAIL_FAST) == (self.io == "failing")
        if self.port.state is S.BLOCKED:
            assert self.io == "held"
        if self.io == "runs":
            assert self.port.state is S.RUNNING
            assert self.port.deadline is None
        if self.io == "removed":
            assert self.port.deadline is None
        if self.io == "held":
            assert self.port.deadline is not None or self.reconnecting, "held for ever"


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=80, stateful_step_count=30)
