"""Device Management over a real fabric, and against literal bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srpha.core.seams import MadAddress, MadTimeoutError, ReceivedMad
from srpha.embedded.target.dm_agent import DeviceManagementAgent
from srpha.embedded.target.io_unit import IoUnit
from srpha.embedded.target.spec import IocSpec, TargetLimits
from srpha.wire.class_port_info import ClassPortInfo
from srpha.wire.dm import (
    DM_DATA,
    DmAttribute,
    dm_request,
    read_io_controller_profile,
    read_io_unit_info,
    read_service_entries,
    service_entries_modifier,
)
from srpha.wire.identifiers import Gid
from srpha.wire.mad import Method, read_header
from tests.embedded.target.bench import Bench

SENDER = MadAddress(lid=5)
MANY = IocSpec(
    guid=0x0002C90300A1B2C3,
    id_ext=0x200500A0B81146A1,
    service_id=7,
    services=tuple((f"Console {number}", 100 + number) for number in range(5)),
)


class Wire:
    """Datagrams that stay here."""

    def __init__(self) -> None:
        self.sent: list[tuple[MadAddress, bytes]] = []

    def register(self, mgmt_class: int, handler: object, methods: object = None) -> object:
        assert mgmt_class == 6
        self.handler = handler
        return lambda: setattr(self, "handler", None)

    def send(self, address: MadAddress, mad: bytes) -> None:
        self.sent.append((address, mad))


def make(iocs: tuple[IocSpec, ...] = (MANY,)) -> tuple[DeviceManagementAgent, Wire, IoUnit]:
    wire, unit = Wire(), IoUnit(iocs, TargetLimits())
    agent = DeviceManagementAgent(wire, unit)  # type: ignore[arg-type]
    agent.start()
    agent.start()
    return agent, wire, unit


def ask(wire: Wire, attribute: int, modifier: int = 0, method: int = Method.GET, **parts: object) -> bytes:
    request = dm_request(method, attribute, transaction_id=77, modifier=modifier, **parts)  # type: ignore[arg-type]
    wire.handler(ReceivedMad(SENDER, request))  # type: ignore[operator]
    address, answer = wire.sent.pop()
    assert address == SENDER
    header = read_header(answer)
    assert (header.method, header.transaction_id, header.attribute_id) == (Method.GET_RESP, 77, attribute)
    return answer


def status_of(answer: bytes) -> int:
    return read_header(answer).status


async def test_discovery_over_the_fabric() -> None:
    bench = Bench()
    address = MadAddress(lid=bench.ports["b"][1].lid)

    async def get(attribute: int, modifier: int = 0) -> bytes:
        request = dm_request(Method.GET, attribute, transaction_id=0, modifier=modifier)
        return await bench.gsi["a"][0].transact(address, request, timeout=0.5, retries=0)

    info = read_io_unit_info(await get(DmAttribute.IO_UNIT_INFO))
    assert (info.change_id, info.max_controllers, info.present_slots) == (1, 16, (1, 2))
    profile = read_io_controller_profile(await get(DmAttribute.IO_CONTROLLER_PROFILE, 2))
    assert (profile.guid, profile.is_srp, profile.service_entries) == (0x0002C90300A1B2C4, True, 1)
    assert profile.send_message_size == 8260
    [entry] = read_service_entries(await get(DmAttribute.SERVICE_ENTRIES, service_entries_modifier(2, 0, 0)), 0, 0)
    assert (entry.id_ext, entry.service_id) == (0x200500A0B81146A2, 0x200500A0B81146A2)
    bench.target.crash()
    with pytest.raises(MadTimeoutError):
        await get(DmAttribute.IO_UNIT_INFO)
    bench.target.restart()
    bench.target.set_controller_present(0, False)
    info = read_io_unit_info(await get(DmAttribute.IO_UNIT_INFO))
    assert (info.change_id, info.present_slots) == (2, (2,))
    assert read_header(await get(DmAttribute.IO_CONTROLLER_PROFILE, 1)).status == 0x0100
    bench.target.leave()
    assert read_header(await get(DmAttribute.IO_UNIT_INFO)).status == 0x000C


def test_literal_io_unit_info() -> None:
    _, wire, _ = make((MANY, replace(MANY, guid=2, id_ext=2, service_id=2)))
    answer = ask(wire, DmAttribute.IO_UNIT_INFO)
    assert answer[:24].hex() == "01060181" + "00000000" + f"{77:016x}" + "0010" + "000000000000"
    assert answer[24:64] == bytes(40)
    assert answer[64:].hex() == "00011000" + "11" + "00" * 187


def test_literal_profile() -> None:
    _, wire, _ = make()
    assert ask(wire, DmAttribute.IO_CONTROLLER_PROFILE, 1)[64:].hex() == (
        "0002c90300a1b2c3" + "00140500" + "00000000" + "00000000" + "00140500" + "00000000"
        "0100609e" + "01080001" + "ffffffff" + "00400004" + "00002044" + "00400000"
        "2b0006" + "00" * 9 + b"srpha embedded SRP target".hex() + "00" * 39 + "00" * 64
    )


def test_more_than_four_services() -> None:
    _, wire, _ = make()
    modifier = service_entries_modifier(1, 0, 3)
    first = read_service_entries(ask(wire, DmAttribute.SERVICE_ENTRIES, modifier), 0, 3)
    assert [entry.name_text for entry in first] == ["SRP.T10:200500A0B81146A1", "Console 0", "Console 1", "Console 2"]
    rest = read_service_entries(ask(wire, DmAttribute.SERVICE_ENTRIES, service_entries_modifier(1, 4, 5)), 4, 5)
    assert [(entry.name_text, entry.service_id) for entry in rest] == [("Console 3", 103), ("Console 4", 104)]


@pytest.mark.parametrize(
    ("attribute", "modifier", "status"),
    [
        (DmAttribute.IO_CONTROLLER_PROFILE, 0, 0x001C),
        (DmAttribute.IO_CONTROLLER_PROFILE, 17, 0x001C),
        (DmAttribute.IO_CONTROLLER_PROFILE, 2, 0x0100),
        (DmAttribute.SERVICE_ENTRIES, 0x00020000, 0x0100),
        (DmAttribute.SERVICE_ENTRIES, 0x00010600, 0x001C),
        (DmAttribute.SERVICE_ENTRIES, 0x00010400, 0x001C),
        (DmAttribute.SERVICE_ENTRIES, 0x00010001, 0x001C),
        (DmAttribute.SERVICE_ENTRIES, 0x00000000, 0x001C),
        (DmAttribute.DIAG_CODE, 0, 0x000C),
    ],
)
def test_refusals(attribute: int, modifier: int, status: int) -> None:
    _, wire, _ = make()
    answer = ask(wire, attribute, modifier)
    assert status_of(answer) == status
    assert not any(answer[DM_DATA:])


def test_methods_and_versions() -> None:
    _, wire, _ = make()
    assert status_of(ask(wire, DmAttribute.IO_UNIT_INFO, method=Method.SET)) == 0x000C
    old = dm_request(Method.GET, DmAttribute.IO_UNIT_INFO, transaction_id=77)
    wire.handler(ReceivedMad(SENDER, old[:2] + b"\x02" + old[3:]))  # type: ignore[operator]
    assert status_of(wire.sent.pop()[1]) == 0x0004
    wire.handler(ReceivedMad(SENDER, old[:3] + b"\x12" + old[4:]))  # type: ignore[operator]
    assert status_of(wire.sent.pop()[1]) == 0x0008


def test_set_class_port_info_changes_the_trap_receiver_only() -> None:
    agent, wire, _ = make()
    written = ClassPortInfo(class_version=9, capability_mask=0xFFFF, trap_gid=Gid(1, 2), trap_lid=5)
    ask(wire, DmAttribute.CLASS_PORT_INFO, method=Method.SET, attribute_data=written)
    got = ClassPortInfo.decode(ask(wire, DmAttribute.CLASS_PORT_INFO), DM_DATA)
    assert got == ClassPortInfo(response_time=18, trap_gid=Gid(1, 2), trap_lid=5)
    assert agent.answered == 2


def test_silence_and_stop() -> None:
    agent, wire, _ = make()
    agent.silent = True
    wire.handler(ReceivedMad(SENDER, dm_request(Method.GET, 0x10, transaction_id=1)))  # type: ignore[operator]
    assert wire.sent == []
    agent.stop()
    agent.stop()
    assert wire.handler is None


@settings(max_examples=200)
@given(st.binary(min_size=24, max_size=24), st.binary(max_size=256))
def test_no_datagram_breaks_the_agent(header: bytes, body: bytes) -> None:
    _, wire, _ = make()
    for mad in ((header + body).ljust(256, b"\0")[:256], b"\x01\x06\x01" + (header[3:] + body).ljust(253, b"\0")[:253]):
        wire.handler(ReceivedMad(SENDER, mad))  # type: ignore[operator]
    for _, answer in wire.sent:
        assert len(answer) == 256
