"""The order of timer writes, for every pair of combinations, against a model of the kernel's own check."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.core.recovery.remote_port import InvalidTimersError, RemotePortTimers
from srpha.core.recovery.timer_order import TIMER_MAX, TimerAttribute, TimerValues, TimerWrite, plan_timer_writes

OFF = -1


class KernelRemotePort:
    """The three attributes as scsi_transport_srp keeps them: -1 is off, and each write is checked with the others."""

    def __init__(self, values: TimerValues) -> None:
        reconnect, fast, loss = (OFF if value is None else value for value in values)
        self.values = {"reconnect_delay": reconnect, "fast_io_fail_tmo": fast, "dev_loss_tmo": loss}

    def write(self, name: str, text: str) -> None:
        value = OFF if text.startswith("off") else int(text)
        after = {**self.values, name: value}
        reconnect, fast, loss = after["reconnect_delay"], after["fast_io_fail_tmo"], after["dev_loss_tmo"]
        if reconnect < 0 and fast < 0 and loss < 0:
            raise OSError("all off")
        if reconnect == 0:
            raise OSError("reconnect_delay 0")
        if fast > 600:
            raise OSError("fast_io_fail_tmo > 600")
        if fast < 0 and loss > 600:
            raise OSError("dev_loss_tmo > 600 while fast_io_fail_tmo is off")
        if loss >= (1 << 63) // 1000:
            raise OSError("dev_loss_tmo too long")
        if fast >= 0 and loss >= 0 and fast >= loss:
            raise OSError("fast_io_fail_tmo >= dev_loss_tmo")
        self.values = after

    def show(self) -> TimerValues:
        reconnect, fast, loss = (None if value < 0 else value for value in self.values.values())
        return reconnect, fast, loss


def valid(values: TimerValues) -> bool:
    try:
        RemotePortTimers(*values)
    except InvalidTimersError:
        return False
    return True


EDGES: list[TimerValues] = [
    values
    for values in itertools.product((None, 1, 10), (None, 0, 1, 15, 599, 600), (None, 0, 1, 15, 16, 600, 601, 3600))
    if valid(values)
]


def carry_out(present: TimerValues, wanted: TimerValues) -> tuple[TimerWrite, ...]:
    port = KernelRemotePort(present)
    writes = plan_timer_writes(present, RemotePortTimers(*wanted))
    for write in writes:
        port.write(write.attribute.value, write.text)  # raises when the kernel would say EINVAL
    assert port.show() == wanted
    return writes


def test_the_model_agrees_with_the_rules_of_the_timers() -> None:
    for values in itertools.product((None, 0, 1, 10), (None, 0, 1, 15, 600, 601), (None, 0, 1, 15, 600, 601)):
        taken = True
        port = KernelRemotePort((10, 0, 700))
        port.values["reconnect_delay"], port.values["fast_io_fail_tmo"] = (-1 if v is None else v for v in values[:2])
        try:
            port.write("dev_loss_tmo", "off" if values[2] is None else str(values[2]))
        except OSError:
            taken = False
        assert taken == valid(values), values


def test_every_step_between_any_two_combinations_is_valid() -> None:
    assert len(EDGES) > 90
    for present, wanted in itertools.product(EDGES, EDGES):
        changed = sum(a != b for a, b in zip(present, wanted, strict=True))
        writes = carry_out(present, wanted)
        assert changed <= len(writes) <= changed + 2
        assert (changed == 0) == (writes == ())


@given(st.sampled_from(EDGES), st.tuples(st.integers(1, 5000), st.integers(0, 600), st.integers(1, 5000)))
def test_and_of_any_numbers(present: TimerValues, wanted: tuple[int, int, int]) -> None:
    if valid(wanted):
        carry_out(present, wanted)


def test_an_order_is_found_where_the_obvious_one_fails() -> None:
    assert plan_timer_writes((10, 15, 600), RemotePortTimers(10, 2, 5)) == (
        TimerWrite(TimerAttribute.FAST_IO_FAIL_TMO, 2),
        TimerWrite(TimerAttribute.DEV_LOSS_TMO, 5),
    )
    assert plan_timer_writes((10, 2, 5), RemotePortTimers(10, 15, 600)) == (
        TimerWrite(TimerAttribute.DEV_LOSS_TMO, 600),
        TimerWrite(TimerAttribute.FAST_IO_FAIL_TMO, 15),
    )


def test_a_value_in_between_is_used_where_no_order_is_valid() -> None:
    assert carry_out((None, None, 5), (None, 5, None)) == (
        TimerWrite(TimerAttribute.DEV_LOSS_TMO, 600),
        TimerWrite(TimerAttribute.FAST_IO_FAIL_TMO, 5),
        TimerWrite(TimerAttribute.DEV_LOSS_TMO, None),
    )


def test_off_is_written_as_a_word() -> None:
    (write,) = plan_timer_writes((10, 15, 600), RemotePortTimers(10, 15, None))
    assert (write.attribute, write.text) == (TimerAttribute.DEV_LOSS_TMO, "off")


def test_a_present_value_the_rules_do_not_know_is_mended_first() -> None:
    writes = plan_timer_writes((0, 15, 600), RemotePortTimers(10, 2, 5))
    assert writes[0] == TimerWrite(TimerAttribute.RECONNECT_DELAY, 10)


def test_a_present_combination_that_no_single_write_mends_is_an_error() -> None:
    with pytest.raises(InvalidTimersError, match="no valid way leads from the timers"):
        plan_timer_writes((0, 700, 5), RemotePortTimers(10, 15, 600))


def test_numbers_beyond_an_int_are_refused() -> None:
    with pytest.raises(InvalidTimersError, match=f"dev_loss_tmo is {TIMER_MAX + 1}; at most"):
        plan_timer_writes((10, 15, 600), RemotePortTimers(10, 15, TIMER_MAX + 1))
