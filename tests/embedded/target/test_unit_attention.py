from __future__ import annotations

from srpha.embedded.target.unit_attention import Attention, ScsiNexus


def make() -> ScsiNexus:
    return ScsiNexus(bytes(16), 0)


def test_conditions_are_reported_once_and_in_order() -> None:
    nexus = make()
    nexus.establish(1, Attention.CAPACITY_CHANGED)
    nexus.establish(1, Attention.LUNS_CHANGED)
    nexus.establish(1, Attention.CAPACITY_CHANGED)
    assert nexus.peek(1) is Attention.CAPACITY_CHANGED
    assert [nexus.take(1), nexus.take(1), nexus.take(1)] == [Attention.CAPACITY_CHANGED, Attention.LUNS_CHANGED, None]
    assert not nexus.pending


def test_conditions_of_units_are_apart() -> None:
    nexus = make()
    nexus.establish_all((0, 3), Attention.LUNS_CHANGED)
    assert nexus.take(0) is Attention.LUNS_CHANGED
    assert nexus.peek(0) is None
    assert nexus.peek(3) is Attention.LUNS_CHANGED


def test_a_reset_outdates_what_came_before() -> None:
    nexus = make()
    nexus.establish(0, Attention.CAPACITY_CHANGED)
    nexus.establish(0, Attention.UNIT_RESET)
    nexus.establish(0, Attention.ACCESS_STATE_CHANGED)
    assert [nexus.take(0), nexus.take(0), nexus.take(0)] == [
        Attention.UNIT_RESET,
        Attention.ACCESS_STATE_CHANGED,
        None,
    ]


def test_withdrawing_a_condition_leaves_the_others() -> None:
    nexus = make()
    nexus.establish_all((0, 1), Attention.LUNS_CHANGED)
    nexus.establish(1, Attention.CAPACITY_CHANGED)
    nexus.withdraw(Attention.LUNS_CHANGED)
    assert nexus.pending == {1: [Attention.CAPACITY_CHANGED]}


def test_forgetting_a_unit() -> None:
    nexus = make()
    nexus.establish(1, Attention.POWER_ON)
    nexus.forget(1)
    nexus.forget(1)
    assert not nexus.pending


def test_only_code_29_is_a_reset() -> None:
    assert {attention for attention in Attention if attention.is_reset} == {
        Attention.POWER_ON,
        Attention.TARGET_RESET,
        Attention.UNIT_RESET,
        Attention.NEXUS_LOSS,
    }
