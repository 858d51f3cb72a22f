"""Information units of a channel: commands and their buffers, residuals, credits, hostile initiators."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srpha.embedded.rdma.rc_outcome import CloseReason
from srpha.embedded.target.outcome import BUSY
from srpha.embedded.target.spec import TargetLimits, UnitSpec
from srpha.embedded.target.srp_channel import ChannelEnd, LogoutReason
from srpha.wire.scsi.sense import Asc, Sense, SenseKey, decode_sense, encode_fixed
from srpha.wire.srp import (
    CreditRequest,
    CreditResponse,
    EventResponse,
    TargetLogout,
    decode_event,
    decode_iu,
)
from srpha.wire.srp_io import (
    BufferFormat,
    Command,
    DataBuffer,
    MemoryDescriptor,
    ResponseCode,
    encode_cmd,
    immediate_buffer,
)
from tests.embedded.target.bench import TUR, Bench, Session, held
from tests.embedded.target.conftest import INITIATOR, make_spec

READ_8 = "28 00 00000000 00 0008 00"
WRITE_8 = "2a 00 00000000 00 0008 00"
PATTERN = bytes(range(256)) * 16


def blocks_of(bench: Bench) -> bytes:
    return bench.target.device.units[0].backing.read(0, len(PATTERN))


async def assert_logged_out(session: Session, reason: LogoutReason) -> None:
    assert await session.closed is CloseReason.DISCONNECTED
    said = decode_iu(await session.receive())
    assert isinstance(said, TargetLogout)
    assert said.reason == reason


# --- data buffers ---


async def test_literal_bytes_of_a_response() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    session.start(TUR, tag=0xCAFE)
    assert (await session.receive()).hex() == "c100000000000001000000000000cafe" + "00" * 20
    session.start(b"\xff" * 16, tag=0xCAFF)
    assert (await session.receive()).hex() == (
        "c100000000000001000000000000caff" + "00000202" + "00000000" * 2 + "00000012" + "00000000"
        "700005000000000a00000000200000000000"
    )


async def test_direct_buffers() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    written = await session.run(WRITE_8, data_out=session.buffer(PATTERN))
    assert (written.status, written.limit_delta, written.out_residual) == (0, 1, 0)
    assert blocks_of(bench) == PATTERN
    response, data = await session.read(READ_8, 4096)
    assert (response.status, response.in_residual, data) == (0, 0, PATTERN)


@pytest.mark.parametrize("listed", [0, 1, 3])
async def test_indirect_buffers(listed: int) -> None:
    """All descriptors in the IU, some of them, and none: the table is then fetched."""
    bench = Bench()
    session = await bench.login(ready=True)
    parts = [bytearray(PATTERN[:100]), bytearray(PATTERN[100:3000]), bytearray(PATTERN[3000:])]
    assert (await session.run(WRITE_8, data_out=session.table(parts, listed))).status == 0
    assert blocks_of(bench) == PATTERN
    memory = [bytearray(1000), bytearray(3000), bytearray(96)]
    response = await session.run(READ_8, data_in=session.table(memory, listed))
    assert (response.status, response.in_residual) == (0, 0)
    assert b"".join(memory) == PATTERN


async def test_pieces_of_no_length() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    parts = [bytearray(), bytearray(PATTERN), bytearray()]
    assert (await session.run(WRITE_8, data_out=session.table(parts, 3))).status == 0
    memory = [bytearray(), bytearray(4096)]
    assert (await session.run(READ_8, data_in=session.table(memory, 2))).status == 0
    assert memory[1] == PATTERN


async def test_immediate_data() -> None:
    bench = Bench()
    session = await bench.login(ready=True, requested_it_iu_length=8260, flags=0x80, immediate_offset=68)
    assert session.login.flags & 0x80
    assert (await session.run(WRITE_8, data_out=immediate_buffer(PATTERN))).status == 0
    assert blocks_of(bench) == PATTERN


@pytest.mark.parametrize(
    "change", [{}, {"flags": 0x80, "immediate_offset": 51}, {"flags": 0x80, "immediate_offset": 2116}]
)
async def test_immediate_data_that_was_not_agreed_on(change: dict[str, int]) -> None:
    bench = Bench()
    session = await bench.login(ready=True, **change)
    assert not session.login.flags & 0x80
    response = await session.run("2a 00 00000000 00 0001 00", data_out=immediate_buffer(bytes(512)))
    assert response.response_code == ResponseCode.INVALID_FIELDS
    assert (await session.run(TUR)).status == 0


async def test_a_target_without_immediate_data() -> None:
    bench = Bench(make_spec(limits=TargetLimits(immediate_data=False)))
    assert not (await bench.login(flags=0x80, immediate_offset=68)).login.flags & 0x80


async def test_two_way_command() -> None:
    """Nothing here uses both buffers, but both are accounted for."""
    bench = Bench()
    session = await bench.login(ready=True)
    response = await session.run(WRITE_8, data_out=session.buffer(PATTERN), data_in=session.buffer(bytearray(77)))
    assert (response.status, response.out_residual, response.in_residual) == (0, 0, 77)


async def test_a_long_cdb() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    assert (await session.run(TUR + bytes(16))).status == 0


# --- residuals ---


@pytest.mark.parametrize(("length", "residual"), [(4096, 0), (5000, 904), (4000, -96)])
async def test_residuals_of_data_in(length: int, residual: int) -> None:
    bench = Bench()
    bench.target.device.units[0].backing.write(0, PATTERN)
    session = await bench.login(ready=True)
    response, data = await session.read(READ_8, length)
    assert (response.status, response.in_residual, response.out_residual) == (0, residual, 0)
    assert data == PATTERN[:length].ljust(length, b"\0")


async def test_data_in_without_a_buffer_overflows() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    assert (await session.run(READ_8)).in_residual == -4096


async def test_underflow_of_data_out() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    response = await session.run(WRITE_8, data_out=session.buffer(PATTERN + bytes(512)))
    assert (response.status, response.out_residual) == (0, 512)
    assert blocks_of(bench) == PATTERN


@pytest.mark.parametrize("sent", [0, 512])
async def test_overflow_of_data_out_writes_nothing(sent: int) -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    buffer = session.buffer(PATTERN[:sent]) if sent else None
    response = await session.run(WRITE_8, data_out=buffer)
    assert (response.status, response.out_residual) == (2, sent - 4096)
    assert decode_sense(response.sense).matches(Asc.INVALID_FIELD_IN_CDB)
    assert blocks_of(bench) == bytes(4096)


async def test_a_refused_command_moves_nothing() -> None:
    bench = Bench()
    session = await bench.login()
    memory = bytearray(b"\x55" * 4096)
    response = await session.run(READ_8, data_in=session.buffer(memory))
    assert (response.status, response.in_residual) == (2, 4096)
    assert decode_sense(response.sense).matches(Asc.POWER_ON)
    assert memory == b"\x55" * 4096


async def test_no_unit_at_the_lun() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    response, data = await session.read("12 00 00 0060 00", 96, lun=9)
    assert (response.status, data[0]) == (0, 0x7F)
    response = await session.run(WRITE_8, data_out=session.buffer(PATTERN), lun=9)
    assert decode_sense(response.sense).matches(Asc.LUN_NOT_SUPPORTED)
    assert response.out_residual == 4096


# --- time ---


async def test_service_time() -> None:
    bench = Bench(make_spec(units=(UnitSpec(lun=0, blocks=64, service_time=0.25), UnitSpec(lun=3, blocks=8))))
    session = await bench.login(ready=True)
    loop = asyncio.get_running_loop()
    began = loop.time()
    first, second = session.start(TUR), session.start(READ_8, data_in=session.buffer(bytearray(4096)))
    quick = session.start(TUR, lun=3)
    assert (await session.response()).tag == quick
    assert loop.time() - began < 0.01
    assert [info.in_progress for info in bench.target.sessions()] == [2]
    assert [(await session.response()).tag for _ in range(2)] == [first, second]
    assert loop.time() - began == pytest.approx(0.25, abs=0.01)


async def test_a_full_task_set() -> None:
    bench = Bench(make_spec(units=(UnitSpec(lun=0, blocks=8, service_time=1.0, queue_depth=2),)))
    session = await bench.login()
    started = [session.start(TUR) for _ in range(3)]
    response = await session.response()
    assert (response.tag, response.status) == (started[2], 0x28)
    assert [(await session.response()).tag for _ in range(2)] == started[:2]
    assert (await session.run(TUR)).status == 0


async def test_injected_busy() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    bench.target.device.units[0].inject(BUSY)
    assert (await session.run(READ_8, data_in=session.buffer(bytearray(4096)))).status == 8
    assert (await session.run(TUR)).status == 0


async def test_held_immediate_data() -> None:
    bench = Bench()
    session = await bench.login(ready=True, requested_it_iu_length=8260, flags=0x80, immediate_offset=68)
    hold = bench.target.hold()
    session.start(WRITE_8, data_out=immediate_buffer(PATTERN))
    await held(hold, 1)
    assert blocks_of(bench) == bytes(4096)
    hold.release()
    assert (await session.response()).status == 0
    assert blocks_of(bench) == PATTERN


async def test_what_arrives_after_the_end_is_nothing() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    [channel] = bench.target.channels()
    session.start(WRITE_8, data_out=session.table([bytearray(PATTERN)], 0))
    while not channel.tasks:  # noqa: ASYNC110 - nothing tells that the table is being fetched
        await asyncio.sleep(1e-7)
    [task] = channel.tasks.values()
    channel.end(ChannelEnd.TARGET)
    channel.end(ChannelEnd.TARGET)
    task.execute()
    task.abort()
    assert await session.closed is CloseReason.DISCONNECTED
    assert blocks_of(bench) == bytes(4096)


async def test_held_commands_go_on_in_order() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    hold = bench.target.hold()
    tags = [session.start(TUR) for _ in range(3)]
    await held(hold, 3)
    assert session.inbox.empty()
    hold.release()
    hold.release()
    assert [(await session.response()).tag for _ in range(3)] == tags
    assert bench.target.holds == []


# --- credits ---


async def test_credits_return_one_by_one() -> None:
    bench = Bench(make_spec(limits=TargetLimits(request_limit=2)))
    session = await bench.login()
    assert session.login.limit_delta == 2
    for _ in range(5):
        assert (await session.run(TUR)).limit_delta == 1
    assert bench.target.sessions()[0].credits == 2


async def test_more_requests_than_credits_end_the_channel() -> None:
    bench = Bench(make_spec(limits=TargetLimits(request_limit=2)))
    session, bystander = await bench.login(), await bench.login(initiator=bytes(16), ready=True)
    bench.target.hold(None)
    for _ in range(3):
        session.start(TUR)
    await assert_logged_out(session, LogoutReason.NONE)
    assert bystander.connection.is_open


async def test_task_management_costs_a_credit_too() -> None:
    bench = Bench(make_spec(limits=TargetLimits(request_limit=1)))
    session = await bench.login()
    hold = bench.target.hold()
    session.start(TUR)
    await held(hold, 1)
    session.manage(1)
    await assert_logged_out(session, LogoutReason.NONE)
    assert bench.target.channels() == ()


async def test_throttled_credits() -> None:
    bench = Bench(make_spec(limits=TargetLimits(request_limit=4)))
    session = await bench.login()
    [channel] = bench.target.channels()
    channel.throttle(3)
    assert [(await session.run(TUR)).limit_delta for _ in range(4)] == [0, 0, 0, 1]
    assert channel.credits == 1
    channel.unthrottle(3)
    asked = decode_iu(await session.receive())
    assert isinstance(asked, CreditRequest)
    assert asked.limit_delta == 3
    channel.unthrottle(2)
    session.send(CreditResponse(tag=asked.tag).encode())
    more = decode_iu(await session.receive())
    assert isinstance(more, CreditRequest)
    assert (more.limit_delta, more.tag) == (2, asked.tag + 1)
    assert channel.credits == 6


# --- requests of the target ---


async def test_events_of_a_unit_one_at_a_time() -> None:
    bench = Bench()
    session = await bench.login()
    [channel] = bench.target.channels()
    sense = Sense.of(SenseKey.UNIT_ATTENTION, Asc.CAPACITY_CHANGED)
    channel.report_event(3 << 48, sense)
    channel.report_event(0, sense)
    header, data = decode_event(await session.receive())
    assert (header.lun, data) == (3 << 48, encode_fixed(sense))
    await asyncio.sleep(1)
    assert session.inbox.empty()
    session.send(EventResponse(tag=header.tag).encode())
    second, _ = decode_event(await session.receive())
    assert second.lun == 0


@pytest.mark.parametrize("iu", [CreditResponse(tag=1).encode(), EventResponse(tag=1).encode()])
async def test_a_response_to_nothing(iu: bytes) -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    session.send(iu)
    await assert_logged_out(session, LogoutReason.SPURIOUS_RESPONSE)


# --- hostile initiators ---


@pytest.mark.parametrize(
    ("iu", "reason"),
    [
        (bytes([0x00]) + bytes(63), LogoutReason.INVALID_IU),
        (bytes([0x77]) + bytes(47), LogoutReason.INVALID_IU),
        (bytes([0xC1]) + bytes(35), LogoutReason.INVALID_IU),
        (bytes([0x02]) + bytes(46), LogoutReason.NONE),
        (bytes([0x01]) + bytes(20), LogoutReason.NONE),
        (bytes([0x02, 0, 0, 0, 0, 0x10]) + bytes(42), LogoutReason.NONE),
        (bytes([0x02, 0, 0, 0, 0, 0x0F]) + bytes(90), LogoutReason.NONE),
        (bytes([0x02]) + bytes(2116), LogoutReason.NONE),
    ],
)
async def test_malformed_ius_end_their_channel_only(iu: bytes, reason: LogoutReason) -> None:
    bench = Bench()
    session, bystander = await bench.login(ready=True), await bench.login(flags=1)
    session.send(iu)
    await assert_logged_out(session, reason)
    assert (await bystander.run(TUR)).status == 0
    assert len(bench.target.sessions()) == 1


async def test_a_tag_that_is_in_use() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    bench.target.hold()
    session.start(TUR, tag=7)
    session.start(TUR, tag=7)
    await assert_logged_out(session, LogoutReason.NONE)


@pytest.mark.parametrize("wrong", ["key", "address", "length"])
async def test_memory_that_is_not_there(wrong: str) -> None:
    """The RDMA operation is refused, the channel dies, nothing is written."""
    bench = Bench()
    session = await bench.login(ready=True)
    good = session.buffer(bytearray(PATTERN))
    piece = good.descriptors[0]
    bad = piece._replace(**{wrong: getattr(piece, wrong) + 1})
    session.start(WRITE_8, data_out=replace(good, length=bad.length, descriptors=(bad,)))
    assert await session.closed is CloseReason.PEER_ERROR
    await asyncio.sleep(0.01)  # the refusal is on its way
    assert blocks_of(bench) == bytes(4096)
    assert bench.target.sessions() == ()


async def test_buffers_that_make_no_sense() -> None:
    bench = Bench(make_spec(limits=TargetLimits(max_transfer=1 << 20)))
    session = await bench.login(ready=True)
    huge = session.table([bytearray(16)], 0)
    short = session.table([bytearray(100)] * 3, 0)
    for buffer in (
        DataBuffer(BufferFormat.DIRECT, 0x200000, (MemoryDescriptor(0, 0, 0x200000),)),
        replace(huge, length=512, table=MemoryDescriptor(0, 0, 16 * 5000)),
        replace(short, length=512),
    ):
        response = await session.run(WRITE_8, data_out=buffer)
        assert response.response_code == ResponseCode.INVALID_FIELDS
        response = await session.run(READ_8, data_in=buffer)
        assert response.response_code == ResponseCode.INVALID_FIELDS
    assert (await session.run(TUR)).status == 0
    assert bench.target.sessions()[0].credits == 64


async def test_indirect_buffers_that_were_not_agreed_on() -> None:
    bench = Bench(make_spec(limits=TargetLimits(indirect=False)))
    session = await bench.login(ready=True, buffer_formats=2)
    response = await session.run(READ_8, data_in=session.table([bytearray(4096)], 1))
    assert response.response_code == ResponseCode.INVALID_FIELDS


@settings(max_examples=60)
@given(st.lists(st.binary(min_size=1, max_size=120), min_size=1, max_size=4))
def test_no_bytes_break_the_target(units: list[bytes]) -> None:
    from srpha.embedded.virtual_time import run_virtual

    async def scene() -> None:
        bench = Bench()
        session, bystander = await bench.login(), await bench.login(initiator=bytes(16), ready=True)
        for unit in units:
            session.send(unit)
        assert (await bystander.run(TUR)).status == 0
        if session.connection.is_open:
            session.connection.disconnect()
        await session.closed
        assert [info.initiator_port_id for info in bench.target.sessions()] == [bytes(16)]
        assert all(len(unit.tasks) == 0 for unit in bench.target.device.units.values())

    run_virtual(scene())


async def test_a_quick_command_behind_a_write() -> None:
    """The second may be answered first: its data need not be fetched."""
    bench = Bench()
    session = await bench.login(ready=True, initiator=INITIATOR)
    tags = [
        session.start(WRITE_8, data_out=session.buffer(PATTERN)),
        session.start(TUR),
    ]
    assert {(await session.response()).tag for _ in range(2)} == set(tags)
    session.send(encode_cmd(Command(900, 0, TUR)))
    assert (await session.response()).tag == 900
