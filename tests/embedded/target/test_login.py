from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.embedded.target.login import (
    LoginRefusedError,
    LoginTerms,
    Population,
    judge_login,
    read_login,
    supported_formats,
)
from srpha.embedded.target.spec import TargetLimits
from srpha.wire.srp import LoginRejectReason, LoginRequest, MultichannelResult

TARGET = bytes(range(16))
REQUEST = LoginRequest(
    tag=9,
    requested_it_iu_length=8260,
    flags=0x80,
    immediate_offset=68,
    initiator_port_id=bytes(16),
    target_port_id=TARGET,
)
EMPTY = Population(0, 0)


def judge(request: LoginRequest = REQUEST, population: Population = EMPTY, **limits: int) -> LoginTerms:
    return judge_login(
        request,
        target_port_id=TARGET,
        enabled=True,
        limits=TargetLimits(**limits),  # type: ignore[arg-type]
        population=population,
    )


def test_literal_login_response() -> None:
    terms = judge()
    assert (terms.max_iu, terms.immediate_offset, terms.ends_nexus) == (8260, 68, True)
    assert terms.response(TargetLimits()).hex() == (
        "c0000000" + "00000040" + "0000000000000009" + "00002044" + "00000124" + "0006" + "80" + "00" * 25
    )


def test_literal_login_reject() -> None:
    with pytest.raises(LoginRefusedError, match="target port identifier unknown") as caught:
        judge(replace(REQUEST, target_port_id=bytes(16)))
    assert caught.value.reject(TargetLimits(indirect=False)).hex() == (
        "c2000000" + "00010003" + "0000000000000009" + "00" * 8 + "0002" + "00" * 6
    )


def test_formats() -> None:
    assert supported_formats(TargetLimits()) == 6
    assert supported_formats(TargetLimits(indirect=False)) == 2


@pytest.mark.parametrize("data", [b"", bytes(63), b"\x02" + bytes(91)])
def test_what_is_no_login(data: bytes) -> None:
    with pytest.raises(LoginRefusedError) as caught:
        read_login(data)
    assert (caught.value.reason, caught.value.tag) == (LoginRejectReason.UNABLE_TO_ESTABLISH, 0)


@pytest.mark.parametrize(("asked", "granted"), [(68, 68), (52, 52), (51, 0), (0, 0), (8259, 8259), (8260, 0)])
def test_immediate_offset(asked: int, granted: int) -> None:
    assert judge(replace(REQUEST, immediate_offset=asked)).immediate_offset == granted


def test_room_is_counted_after_what_a_single_login_ends() -> None:
    full = Population(of_nexus=2, of_target=4)
    multi = replace(REQUEST, flags=1)
    assert judge(population=full, channels=4, channels_per_nexus=1).result is MultichannelResult.TERMINATED
    for limits, reason in (
        ({"channels": 4}, LoginRejectReason.INSUFFICIENT_RESOURCES),
        ({"channels": 5, "channels_per_nexus": 2}, LoginRejectReason.CHANNEL_LIMIT),
    ):
        with pytest.raises(LoginRefusedError) as caught:
            judge(multi, full, **limits)
        assert caught.value.reason is reason
    assert judge(multi, full, channels=5).result is MultichannelResult.MAINTAINED


def test_a_disabled_port_has_no_resources() -> None:
    with pytest.raises(LoginRefusedError) as caught:
        judge_login(REQUEST, target_port_id=TARGET, enabled=False, limits=TargetLimits(), population=EMPTY)
    assert caught.value.reason is LoginRejectReason.INSUFFICIENT_RESOURCES


@given(st.binary(max_size=92))
def test_any_private_data_is_judged(data: bytes) -> None:
    try:
        answer = judge(read_login(b"\x00" + data)).response(TargetLimits())
    except LoginRefusedError as refusal:
        answer = refusal.reject(TargetLimits())
    assert (answer[0], len(answer)) in {(0xC0, 52), (0xC2, 32)}
