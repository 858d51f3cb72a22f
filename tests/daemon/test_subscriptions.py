from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fake_seams import FakeMadPort, is_report_response

from scripted_subnet import PREFIX, SM_LID, ScriptedSubnet, local_port
from srpha.core.seams import LinkState
from srpha.daemon.settings import Settings
from srpha.daemon.subscriptions import Subscriptions
from srpha.wire.identifiers import Gid
from srpha.wire.mad import MadHeader, MadStatus
from srpha.wire.notice import CapabilityTrap144, GidTrap, InformInfo, LidTrap128, Trap, TrapNumber
from srpha.wire.sa import SaAttribute, decode_record

GID = Gid(PREFIX, 7)
TRAP = GidTrap(TrapNumber.GID_IN_SERVICE, GID)


class Desk:
    def __init__(self) -> None:
        identity = local_port(1)
        self.subnet = ScriptedSubnet(ports=[identity])
        self.port = FakeMadPort(identity, self.subnet)
        self.heard: list[tuple[str, Trap]] = []
        self.looks = 0
        self.subscriptions = Subscriptions(
            self.port, Settings, lambda name, trap: self.heard.append((name, trap)), self._look
        )

    def _look(self) -> None:
        self.looks += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.subscriptions.run())
            await asyncio.sleep(0.1)
            yield
            task.cancel()


async def test_subscribes_to_three_traps_and_renews() -> None:
    desk = Desk()
    async with desk.running():
        assert desk.subscriptions.subscribed
        assert desk.port.subscriptions() == 3
        await asyncio.sleep(300)
        assert desk.port.subscriptions() == 6
        desk.subscriptions.renew()
        await asyncio.sleep(0.1)
        assert desk.port.subscriptions() == 9
        assert desk.looks == 3
    assert desk.port.receivers == []


async def test_what_is_asked_for() -> None:
    desk = Desk()
    asked: list[InformInfo] = []
    reply = desk.subnet.reply

    def listen(port: str, address: object, mad: bytes) -> bytes | None:
        asked.append(decode_record(mad, InformInfo))
        return reply(port, address, mad)  # type: ignore[arg-type]

    desk.subnet.reply = listen  # type: ignore[method-assign, assignment]
    async with desk.running():
        pass
    assert [(info.trap_number, info.type, info.producer_type) for info in asked] == [
        (64, 3, 4),
        (65, 3, 4),
        (144, 4, 1),
    ]
    assert all((info.subscribe, info.is_generic, info.lid_range_begin) == (1, 1, 0xFFFF) for info in asked)


@pytest.mark.parametrize("how", ["silent", "refusing", "down", "gone"])
async def test_failure_is_tried_again(how: str) -> None:
    desk = Desk()
    match how:
        case "silent":
            desk.subnet.sa_silent = True
        case "refusing":
            desk.subnet.refusing[SaAttribute.INFORM_INFO] = MadStatus.INVALID_FIELD
        case "down":
            desk.port.change(state=LinkState.DOWN)
        case "gone":
            desk.port.current = None
    async with desk.running():
        await asyncio.sleep(20)
        assert not desk.subscriptions.subscribed
        assert desk.looks == 0
        desk.subnet.sa_silent = False
        desk.subnet.refusing.clear()
        desk.port.current = local_port(1)
        desk.subnet.ports = [local_port(1)]
        await asyncio.sleep(30)
        assert desk.subscriptions.subscribed


async def test_reports_are_answered_and_passed_on() -> None:
    desk = Desk()
    async with desk.running():
        desk.port.notice(TRAP)
        desk.port.notice(GidTrap(TrapNumber.GID_OUT_OF_SERVICE, GID))
        desk.port.notice(CapabilityTrap144(5, 1 << 19))
    assert [trap for _, trap in desk.heard] == [
        TRAP,
        GidTrap(TrapNumber.GID_OUT_OF_SERVICE, GID),
        CapabilityTrap144(5, 1 << 19),
    ]
    assert {name for name, _ in desk.heard} == {"mlx5_0/1"}
    for address, mad in desk.port.replies:
        assert address.lid == SM_LID
        assert is_report_response(mad)
        assert MadHeader.decode(mad).transaction_id == 7
        assert len(mad) == 256


async def test_traps_that_nobody_asked_for_are_answered_and_dropped() -> None:
    desk = Desk()
    async with desk.running():
        desk.port.notice(LidTrap128(5))
    assert desk.heard == []
    assert len(desk.port.replies) == 1


@pytest.mark.parametrize("mad", [b"", b"\0" * 256, b"\x01\x03\x02\x06" + b"\0" * 252, b"\xff" * 255])
async def test_malformed_reports_are_dropped(mad: bytes) -> None:
    desk = Desk()
    async with desk.running():
        desk.port.deliver(mad)
    assert desk.heard == []
    assert desk.port.replies == []
