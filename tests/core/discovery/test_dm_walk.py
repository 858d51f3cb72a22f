from __future__ import annotations

from dataclasses import replace

import pytest

from scripted_subnet import ScriptedSubnet, Unit, local_port, srp_unit
from srpha.core.discovery.conversation import Conversations
from srpha.core.discovery.dm_walk import Way, aliveness_question, is_sign_of_life, pkey_index, walk
from srpha.core.discovery.scan_result import DmAgent, IoUnit, Standing
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.wire.dm import DmAttribute, IoUnitInfo, dm_request, dm_response
from srpha.wire.mad import MadStatus, Method

PORT = local_port(1, pkeys=(0x8001, 0xFFFF))
REQUEST = dm_request(Method.GET, DmAttribute.IO_UNIT_INFO, transaction_id=0)


@pytest.mark.parametrize(
    ("table", "pkey", "index"),
    [
        ((0xFFFF,), 0xFFFF, 0),
        ((0x8001, 0x7FFF), 0xFFFF, 1),
        ((0x7FFF, 0xFFFF), 0x7FFF, 1),
        ((0x8001,), 0xFFFF, None),
        ((0x0000, 0x8000), 0x8000, None),
    ],
)
def test_pkey_index(table: tuple[int, ...], pkey: int, index: int | None) -> None:
    assert pkey_index(table, pkey) == index


def test_way_uses_the_partition_it_was_found_in_unless_redirected() -> None:
    way = Way(PORT, 0xFFFF)
    assert way.address(DmAgent(5)).pkey_index == 1
    assert way.address(DmAgent(5, qpn=9, qkey=7, sl=3, pkey=0x8001)).pkey_index == 0
    assert way.address(DmAgent(5, pkey=0x8009)).pkey_index == 1
    address = way.address(DmAgent(5, qpn=9, qkey=7, sl=3))
    assert (address.lid, address.qpn, address.qkey, address.sl) == (5, 9, 7, 3)


@pytest.mark.parametrize(
    ("reply", "alive"),
    [
        (None, False),
        (b"", False),
        (b"\0" * 256, False),
        (REQUEST, False),
        (dm_response(REQUEST, IoUnitInfo()), True),
        (dm_response(REQUEST, status=MadStatus.BUSY), True),
        (dm_response(REQUEST, status=MadStatus.UNSUPPORTED_METHOD_ATTRIBUTE), True),
    ],
)
def test_sign_of_life(reply: bytes | None, alive: bool) -> None:
    assert is_sign_of_life(reply) == alive


def test_aliveness_question() -> None:
    ask = aliveness_question(Way(PORT, 0xFFFF), DmAgent(5), 0.5, 2)
    assert (ask.port, ask.address.lid, ask.timeout, ask.retries) == ("mlx5_0/1", 5, 0.5, 2)
    assert ask.mad == REQUEST


def run(unit: Unit, ports: int = 1, known: IoUnit | None = None) -> tuple[IoUnit, ScriptedSubnet]:
    """Walk ``unit`` over ways from local ports; no time passes but that of timeouts."""
    identities = [local_port(number) for number in range(1, ports + 1)]
    subnet = ScriptedSubnet(ports=identities, units=[unit])
    talks = Conversations(ScanSettings(), 0.0)
    start = IoUnit(unit.gid, unit.lid, 1, "unit", Standing.UNKNOWN, DmAgent(unit.lid))
    outcomes: list[IoUnit] = []
    ways = [Way(identity, 0xFFFF) for identity in identities]
    talks.start(walk(start, ways, known, ScanSettings(), lambda: talks.now, outcomes.append))
    while not talks.done:
        now = talks.wake or talks.now
        for question in talks.questions(now):
            ask = question.ask
            talks.answer(question.number, subnet.reply(ask.port, ask.address, ask.mad), now)
    (outcome,) = outcomes
    return outcome, subnet


def test_walk_without_a_way() -> None:
    outcome, subnet = run(srp_unit(1), ports=0)
    assert (outcome.standing, outcome.reason) == (Standing.SILENT, "no local port has a path to it")
    assert subnet.log == []


def test_second_way_is_asked_only_after_silence() -> None:
    unit = srp_unit(1)
    unit.silent_to.add("mlx5_0/1")
    outcome, _ = run(unit, ports=2)
    assert outcome.standing is Standing.FOUND
    refusing = srp_unit(1)
    refusing.status = MadStatus.UNSUPPORTED_METHOD
    outcome, subnet = run(refusing, ports=2)
    assert outcome.standing is Standing.SILENT
    assert {port for port, *_ in subnet.log} == {"mlx5_0/1"}


def test_known_change_id_spares_the_rest() -> None:
    unit = srp_unit(1)
    known, _ = run(unit)
    again, subnet = run(unit, known=replace(known, description="older"))
    assert again.services == known.services
    assert len(subnet.log) == 1
    _, subnet = run(unit, known=replace(known, change_id=None))
    assert len(subnet.log) == 3


def test_agent_busy_in_the_middle_keeps_the_walk_incomplete() -> None:
    unit = srp_unit(1)
    unit.busy = 10_000
    outcome, _ = run(unit)
    assert outcome.standing is Standing.SILENT
    assert outcome.reason == "refuses: busy, try again later"


def test_unit_without_controllers_is_found_and_offers_nothing() -> None:
    outcome, _ = run(Unit(guid=5, lid=5))
    assert (outcome.standing, outcome.services, outcome.change_id) == (Standing.FOUND, (), 1)
