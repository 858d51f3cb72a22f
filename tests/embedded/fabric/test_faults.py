from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.embedded.fabric.faults import (
    FAULT_USAGE,
    AddPkey,
    ChangeLid,
    Delay,
    Direction,
    Fault,
    FaultError,
    FaultInjector,
    LinkDown,
    LinkUp,
    Lose,
    Mend,
    PowerOff,
    PowerOn,
    RemovePkey,
    SetCapability,
    SmLoss,
    SmStart,
    TargetCrash,
    TargetJoin,
    TargetLeave,
    TargetRestart,
    fault_kind,
    format_fault,
    parse_fault,
)
from srpha.embedded.fabric.hardware import Traffic
from srpha.embedded.fabric.topology import PortRef
from srpha.wire.smp import PortState
from tests.embedded.fabric.by_hand import configure, mad_packet, make_fabric, rc_packet

A1 = PortRef("a", 1)

TEXTS: list[tuple[str, Fault]] = [
    ("link-down a/1", LinkDown(A1)),
    ("link-up a/1", LinkUp(A1)),
    ("lose a/1", Lose(A1)),
    ("lose a/1 rx 0.25 rc", Lose(A1, Direction.RX, 0.25, Traffic.RC)),
    ("delay a/1 2.5", Delay(A1, 2.5)),
    ("delay a/1 2.5 tx mad", Delay(A1, 2.5, Direction.TX, Traffic.MAD)),
    ("mend a/1", Mend(A1)),
    ("power-off 'rack 1/leaf'", PowerOff("rack 1/leaf")),
    ("power-on b", PowerOn("b")),
    ("remove-pkey a/1 8001", RemovePkey(A1, 0x8001)),
    ("add-pkey a/1 0x7fff", AddPkey(A1, 0x7FFF)),
    ("set-capability a/1 19 off", SetCapability(A1, 19, False)),
    ("change-lid a/1", ChangeLid(A1)),
    ("sm-loss", SmLoss()),
    ("sm-start", SmStart()),
    ("sm-start b", SmStart("b")),
    ("target-crash t", TargetCrash("t")),
    ("target-restart t", TargetRestart("t")),
    ("target-join t", TargetJoin("t")),
    ("target-leave t", TargetLeave("t")),
]


@pytest.mark.parametrize(("text", "fault"), TEXTS)
def test_text_form_both_ways(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault
    assert parse_fault(format_fault(fault)) == fault


def test_every_kind_has_a_text_form() -> None:
    assert {fault_kind(fault) for _, fault in TEXTS} == set(FAULT_USAGE)


@given(
    st.text(min_size=1, max_size=20),
    st.integers(0, 254),
    st.sampled_from(Direction),
    st.floats(0, 1),
    st.sampled_from(Traffic),
)
def test_any_name_and_number_survives(
    name: str, port: int, direction: Direction, probability: float, kinds: Traffic
) -> None:
    fault = Lose(PortRef(name, port), direction, probability, kinds)
    assert parse_fault(format_fault(fault)) == fault
    assert parse_fault(format_fault(PowerOff(name))) == PowerOff(name)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no fault given; possible are link-down"),
        ("explode a/1", "'explode' is no fault; possible are link-down"),
        ("link-down", "expected link-down PORT"),
        ("link-down a/1 now", "expected link-down PORT"),
        ("link-down a", "expected NODE/PORT"),
        ("lose a/1 sideways", "'sideways' is not a valid Direction; expected lose PORT"),
        ("lose a/1 tx 1.5", "'1.5' is no number from 0 to 1"),
        ("lose a/1 tx nan", "'nan' is no number"),
        ("lose a/1 tx 1 udp", "not a valid Traffic"),
        ("delay a/1 soon", "could not convert"),
        ("delay a/1 -1", "'-1' is no number from 0 to 86400"),
        ("remove-pkey a/1 10000", "is no P_Key"),
        ("remove-pkey a/1 8000", "is no P_Key"),
        ("remove-pkey a/1 80_1", "is no P_Key"),
        ("remove-pkey a/1 xyz", "expected remove-pkey PORT PKEY"),
        ("set-capability a/1 32 on", "no bit from 0 to 31"),
        ("set-capability a/1 19 maybe", "neither on nor off"),
        ("power-off 'a", "No closing quotation"),
        ("sm-loss now", "expected sm-loss"),
    ],
)
def test_unreadable_faults_say_what_is_expected(text: str, what: str) -> None:
    with pytest.raises(FaultError, match=what) as caught:
        parse_fault(text)
    assert "\n" not in str(caught.value)


async def test_cable_faults_and_their_mending() -> None:
    fabric = make_fabric()
    configure(fabric)
    injector = FaultInjector(fabric)
    a, b = fabric.port("a/1"), fabric.port("b/1")
    data: list[bytes] = []
    mads: list[bytes] = []
    b.bind(64, data.append)
    b.bind(1, mads.append)

    async def arriving() -> tuple[int, int]:
        before = len(data), len(mads)
        a.send(rc_packet(a, b, 64))
        a.send(mad_packet(a, b))
        await asyncio.sleep(0.5)
        return len(data) - before[0], len(mads) - before[1]

    assert await arriving() == (1, 1)
    injector.apply(Lose(A1, kinds=Traffic.RC))
    assert await arriving() == (0, 1)
    injector.apply(Mend(A1))
    injector.apply(Lose(A1, Direction.RX))  # nothing comes to a
    assert await arriving() == (1, 1)
    injector.apply(Mend(A1))
    injector.apply(Delay(A1, 0.7, kinds=Traffic.MAD))
    assert await arriving() == (1, 0)
    injector.apply(Mend(A1))
    assert await arriving() == (1, 2)
    injector.apply(LinkDown(A1))
    assert (a.state, await arriving()) == (PortState.DOWN, (0, 0))
    injector.apply(LinkUp(A1))
    assert a.state is PortState.INIT


def test_power_and_registers() -> None:
    fabric = make_fabric()
    injector = FaultInjector(fabric)
    port = fabric.port("a/1")
    injector.apply(PowerOff("a"))
    assert port.state is PortState.DOWN
    injector.apply(PowerOn("a"))
    assert port.state is PortState.INIT
    injector.apply(AddPkey(A1, 0x8001))
    injector.apply(AddPkey(A1, 0x8001))
    assert port.pkeys[:3] == [0xFFFF, 0x8001, 0]
    injector.apply(RemovePkey(A1, 0xFFFF))
    assert port.pkeys[:3] == [0, 0x8001, 0]
    injector.apply(SetCapability(A1, 19, True))
    assert port.capability_mask >> 19 & 1 == 1


@pytest.mark.parametrize(
    "text",
    [
        *("link-down x/1", "link-down a/9", "link-down left/2", "lose left/2", "mend left/2", "power-off x"),
        *("remove-pkey a/1 8001", "sm-loss", "target-crash t", "add-pkey x/1 8001"),
    ],
)
def test_impossible_faults_change_nothing(text: str) -> None:
    fabric = make_fabric()
    injector = FaultInjector(fabric)
    heard: list[Fault] = []
    injector.watch(heard.append)
    epoch = fabric.epoch
    with pytest.raises(FaultError):
        injector.apply(parse_fault(text))
    assert (heard, fabric.epoch) == ([], epoch)


def test_a_full_pkey_table_takes_no_more() -> None:
    fabric = make_fabric()
    fabric.port("a/1").set_pkeys(0, tuple(range(0x8001, 0x8001 + 128)))
    with pytest.raises(FaultError, match="full"):
        FaultInjector(fabric).apply(AddPkey(A1, 0x9000))


def test_handlers_carry_out_what_is_theirs_and_watchers_hear_it() -> None:
    injector = FaultInjector(make_fabric())
    done: list[Fault] = []
    heard: list[Fault] = []
    injector.register("sm-loss", done.append)
    unwatch = injector.watch(heard.append)
    injector.apply(SmLoss())
    injector.apply(LinkDown(A1))
    unwatch()
    unwatch()
    injector.apply(LinkUp(A1))
    assert done == [SmLoss()]
    assert heard == [SmLoss(), LinkDown(A1)]
    for kind in ("link-down", "no-such"):
        with pytest.raises(ValueError, match="takes a handler"):
            injector.register(kind, done.append)
