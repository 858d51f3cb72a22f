from __future__ import annotations

import asyncio

import pytest

from srpha.embedded.target.hold import HoldScope
from srpha.wire.scsi.sense import Asc, decode_sense
from srpha.wire.srp import CreditRequest, CreditResponse, TaskFunction, decode_iu
from srpha.wire.srp_io import ResponseCode
from tests.embedded.target.bench import TUR, Bench, Session, held

OTHER = bytes(15) + b"\x42"
WRITE = "2a 00 00000000 00 0001 00"


async def two_initiators(bench: Bench) -> tuple[Session, Session]:
    return await bench.login(ready=True), await bench.login(initiator=OTHER, ready=True)


async def test_literal_bytes_of_the_response() -> None:
    bench = Bench()
    session = await bench.login()
    session.manage(TaskFunction.ABORT_TASK, task_tag=5)
    assert (await session.receive()).hex() == (
        "c100000000000001" + f"{101:016x}" + "00000100" + "00000000" * 3 + "00000004" + "00000000"
    )


async def test_an_aborted_write_is_never_executed() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    hold = bench.target.hold()
    tag = session.start(WRITE, data_out=session.buffer(b"\xff" * 512))
    await held(hold, 1)
    asked = session.manage(TaskFunction.ABORT_TASK, task_tag=tag)
    response = await session.response()
    assert (response.tag, response.response_code) == (asked, ResponseCode.COMPLETE)
    assert response.limit_delta == 2  # its own credit and that of the aborted command
    hold.release()
    await asyncio.sleep(1)
    assert session.inbox.empty()
    assert bench.target.device.units[0].backing.read(0, 512) == bytes(512)
    assert bench.target.sessions()[0].credits == 64


async def test_abort_while_the_data_are_on_their_way() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    tag = session.start(WRITE, data_out=session.buffer(b"\xff" * 512))
    session.manage(TaskFunction.ABORT_TASK, task_tag=tag)
    assert (await session.response()).response_code == ResponseCode.COMPLETE
    await asyncio.sleep(1)
    assert session.inbox.empty()
    assert bench.target.device.units[0].backing.read(0, 512) == bytes(512)
    assert (await session.run(TUR)).limit_delta == 1


async def test_abort_through_another_channel_of_the_nexus() -> None:
    bench = Bench()
    first = await bench.login(ready=True)
    second = await bench.login(flags=1)
    hold = bench.target.hold()
    tag = first.start(TUR)
    await held(hold, 1)
    second.manage(TaskFunction.ABORT_TASK, task_tag=tag)
    assert (await second.response()).limit_delta == 1
    assert len(hold) == 0
    credit = decode_iu(await first.receive())
    assert isinstance(credit, CreditRequest)
    assert credit.limit_delta == 1
    first.send(CreditResponse(tag=credit.tag).encode())


async def test_nobody_aborts_commands_of_another_nexus_or_unit() -> None:
    bench = Bench()
    first, second = await two_initiators(bench)
    hold = bench.target.hold()
    tag = first.start(TUR)
    await held(hold, 1)
    second.manage(TaskFunction.ABORT_TASK, task_tag=tag)
    first.manage(TaskFunction.ABORT_TASK, task_tag=tag, lun=3)
    assert (await second.response()).response_code == ResponseCode.COMPLETE
    assert (await first.response()).response_code == ResponseCode.COMPLETE
    hold.release()
    assert (await first.response()).tag == tag


async def test_abort_task_set_is_of_one_nexus_and_unit() -> None:
    bench = Bench()
    first, second = await two_initiators(bench)
    hold = bench.target.hold()
    mine = [first.start(TUR), first.start(TUR)]
    elsewhere, theirs = first.start(TUR, lun=3), second.start(TUR)
    await held(hold, 4)
    first.manage(TaskFunction.ABORT_TASK_SET)
    assert (await first.response()).limit_delta == 1 + len(mine)
    hold.release()
    assert (await first.response()).tag == elsewhere
    response = await second.response()
    assert (response.tag, response.status) == (theirs, 0)


async def test_clear_task_set_tells_the_others() -> None:
    bench = Bench()
    first, second = await two_initiators(bench)
    bystander = await bench.login(initiator=bytes(16), ready=True)
    hold = bench.target.hold(HoldScope(lun=0))
    first.start(TUR)
    second.start(TUR)
    await held(hold, 2)
    first.manage(TaskFunction.CLEAR_TASK_SET)
    assert (await first.response()).limit_delta == 2
    assert isinstance(decode_iu(await second.receive()), CreditRequest)
    hold.release()
    assert (await first.run(TUR)).status == 0
    assert (await bystander.run(TUR)).status == 0
    assert decode_sense((await second.run(TUR)).sense).matches(Asc.COMMANDS_CLEARED)


async def test_lun_reset_tells_everybody() -> None:
    bench = Bench()
    first, second = await two_initiators(bench)
    hold = bench.target.hold(HoldScope(writes_only=True))
    first.start(WRITE, data_out=first.buffer(b"\xff" * 512))
    await held(hold, 1)
    second.manage(TaskFunction.LUN_RESET)
    assert (await second.response()).response_code == ResponseCode.COMPLETE
    hold.release()
    assert bench.target.device.units[0].backing.read(0, 512) == bytes(512)
    assert isinstance(decode_iu(await first.receive()), CreditRequest)
    for session in (first, second):
        assert decode_sense((await session.run(TUR)).sense).matches(Asc.DEVICE_RESET)
        assert (await session.run(TUR, lun=3)).status == 0


@pytest.mark.parametrize("function", [TaskFunction.CLEAR_ACA, 0, 0x03, 0x80])
async def test_functions_that_are_not_there(function: int) -> None:
    bench = Bench()
    session = await bench.login()
    session.manage(function)
    assert (await session.response()).response_code == ResponseCode.NOT_SUPPORTED


async def test_no_unit_at_the_lun() -> None:
    bench = Bench()
    session = await bench.login()
    session.manage(TaskFunction.LUN_RESET, lun=9)
    assert (await session.response()).response_code == ResponseCode.FAILED
