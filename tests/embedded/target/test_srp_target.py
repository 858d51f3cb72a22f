"""Logins, nexuses and the life of a target, over a real embedded fabric."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

import pytest

from srpha.embedded.fabric.ports import Port
from srpha.embedded.rdma.cm_connect import CmRejectedError, CmTimeoutError, PortDownError
from srpha.embedded.rdma.rc_outcome import CloseReason
from srpha.embedded.target.hold import HoldScope
from srpha.embedded.target.spec import SpecError, TargetLimits
from srpha.embedded.target.srp_target import DEVICE_MANAGEMENT_BIT, SrpTarget, TargetState
from srpha.embedded.target.transport import Attachment
from srpha.wire.cm import CM_CLASS, CmAttribute
from srpha.wire.cm_reject import RejectReason
from srpha.wire.scsi.sense import Asc, decode_sense
from srpha.wire.srp import LoginRejectReason, MultichannelResult, decode_iu
from tests.embedded.target.bench import TUR, Bench, held
from tests.embedded.target.conftest import INITIATOR, make_spec

OTHER = bytes(15) + b"\x42"
WRITE_0 = "2a 00 00000000 00 0001 00"


# --- login ---


async def test_login_response() -> None:
    bench = Bench()
    session = await bench.login()
    login = session.login
    assert (login.limit_delta, login.tag) == (64, 0x1122334455667788)
    assert (login.max_it_iu_length, login.max_ti_iu_length, login.buffer_formats) == (8260, 292, 6)
    assert login.flags == MultichannelResult.NO_CHANNEL
    [info] = bench.target.sessions()
    assert (info.initiator_port_id, info.ioc_guid, info.port, info.channel) == (INITIATOR, 0x0002C90300A1B2C3, "b/1", 0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"requested_it_iu_length": 8261}, LoginRejectReason.IU_TOO_LARGE),
        ({"requested_it_iu_length": 63}, LoginRejectReason.IU_TOO_LARGE),
        ({"target_port_id": bytes(16)}, LoginRejectReason.CANNOT_ASSOCIATE),
        ({"buffer_formats": 0x0E}, LoginRejectReason.UNSUPPORTED_FORMAT),
        ({"buffer_formats": 0}, LoginRejectReason.UNSUPPORTED_FORMAT),
        ({"flags": 2}, LoginRejectReason.UNABLE_TO_ESTABLISH),
        ({"opcode": 2}, LoginRejectReason.UNABLE_TO_ESTABLISH),
    ],
)
async def test_rejected_logins(change: dict[str, int], reason: LoginRejectReason) -> None:
    bench = Bench()
    rejection = await bench.refused(**change)
    assert rejection.reason == reason
    assert rejection.buffer_formats == 6
    assert rejection.tag == (0 if "opcode" in change else 0x1122334455667788)
    assert bench.target.sessions() == ()


async def test_the_target_port_id_is_that_of_the_service() -> None:
    bench = Bench()
    crossed = bench.spec.iocs[1].target_port_id
    assert (await bench.refused(target_port_id=crossed)).reason == LoginRejectReason.CANNOT_ASSOCIATE
    await bench.login(controller=1)


async def test_limits_of_a_small_target() -> None:
    limits = TargetLimits(multichannel=False, indirect=False, channels=2)
    bench = Bench(make_spec(limits=limits))
    assert (await bench.refused()).reason == LoginRejectReason.UNSUPPORTED_FORMAT
    assert (await bench.refused(buffer_formats=2, flags=1)).reason == LoginRejectReason.NO_MULTICHANNEL
    await bench.login(buffer_formats=2)
    await bench.login(buffer_formats=2, initiator=OTHER)
    rejection = await bench.refused(buffer_formats=2, initiator=bytes(16))
    assert (rejection.reason, rejection.buffer_formats) == (LoginRejectReason.INSUFFICIENT_RESOURCES, 2)
    await bench.login(buffer_formats=2)  # replaces its own channel, so there is room


async def test_channel_limit_of_a_nexus() -> None:
    bench = Bench(make_spec(limits=TargetLimits(channels_per_nexus=2)))
    await bench.login()
    await bench.login(flags=1)
    assert (await bench.refused(flags=1)).reason == LoginRejectReason.CHANNEL_LIMIT
    await bench.login(flags=1, initiator=OTHER)


async def test_a_disabled_port_refuses_and_drops_its_channels() -> None:
    bench = Bench()
    first = await bench.login(target_port=0)
    second = await bench.login(target_port=1, initiator=OTHER, ready=True)
    bench.target.disable_port(0)
    assert await first.closed is CloseReason.DISCONNECTED
    assert (await bench.refused(target_port=0)).reason == LoginRejectReason.INSUFFICIENT_RESOURCES
    assert (await second.run(TUR)).status == 0
    bench.target.enable_port(0)
    await bench.login(target_port=0)


async def test_refusals_on_purpose() -> None:
    bench = Bench()
    bench.target.refuse_logins(LoginRejectReason.CHANNEL_LIMIT, 2)
    bench.target.refuse_logins(RejectReason.NO_RESOURCES)
    for _ in range(2):
        assert (await bench.refused()).reason == LoginRejectReason.CHANNEL_LIMIT
    with pytest.raises(CmRejectedError) as caught:
        await bench.login()
    assert caught.value.reason == RejectReason.NO_RESOURCES
    await bench.login()


# --- channels and nexuses ---


async def test_multichannel_results() -> None:
    bench = Bench()
    assert (await bench.login(flags=1)).login.multichannel_result == MultichannelResult.NO_CHANNEL
    assert (await bench.login(flags=1)).login.multichannel_result == MultichannelResult.MAINTAINED
    assert [info.channel for info in bench.target.sessions()] == [0, 1]
    assert (await bench.login()).login.multichannel_result == MultichannelResult.TERMINATED
    assert len(bench.target.sessions()) == 1


async def test_a_single_login_ends_the_old_nexus_before_it_is_answered() -> None:
    """Through another HCA port on both sides, with a write held: the write is gone when the answer is here."""
    bench = Bench()
    old = await bench.login(ready=True)
    second = await bench.login(flags=1)
    hold = bench.target.hold(HoldScope(writes_only=True))
    old.start(WRITE_0, data_out=old.buffer(b"\xff" * 512))
    second.start(WRITE_0, data_out=second.buffer(b"\xee" * 512))
    await held(hold, 2)
    new = await bench.login(host_port=1, target_port=1)
    assert len(hold) == 0
    assert len(bench.target.sessions()) == 1
    hold.release()
    assert bench.target.device.units[0].backing.read(0, 512) == bytes(512)
    assert await old.closed is CloseReason.DISCONNECTED
    assert await second.closed is CloseReason.DISCONNECTED
    assert decode_iu(await old.receive()).reason == 4  # type: ignore[union-attr]
    assert decode_sense((await new.run(TUR)).sense).matches(Asc.NEXUS_LOSS)


async def test_the_old_channel_is_disconnected_before_the_answer_leaves() -> None:
    bench = Bench()
    await bench.login(ready=True)
    said: list[int] = []

    def heard(_when: float, port: Port, packet: bytes) -> None:
        mad = packet[28:]
        if port.name == "b/1" and len(mad) == 256 and mad[1] == CM_CLASS:
            said.append(int.from_bytes(mad[16:18], "big"))

    bench.fabric.tap(heard)
    await bench.login(ready=True)
    assert said.index(CmAttribute.DREQ) < said.index(CmAttribute.REP)


async def test_a_refused_login_ends_nothing() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    assert (await bench.refused(buffer_formats=0x10)).reason == LoginRejectReason.UNSUPPORTED_FORMAT
    bench.target.refuse_logins(LoginRejectReason.INSUFFICIENT_RESOURCES)
    await bench.refused()
    assert (await session.run(TUR)).status == 0


async def test_without_that_login_a_ghost_write_lands() -> None:
    """The path dies, the target does not hear of it, and executes what it held: why fencing is needed."""
    bench = Bench()
    old = await bench.login(ready=True)
    hold = bench.target.hold(HoldScope(lun=0, port=0, initiator_port_id=INITIATOR, writes_only=True))
    old.start(WRITE_0, data_out=old.buffer(b"\xff" * 512))
    await held(hold, 1)
    old.connection.destroy()
    other = await bench.login(host_port=1, target_port=1, initiator=OTHER, ready=True)
    assert (await other.run(WRITE_0, data_out=other.buffer(b"\x11" * 512))).status == 0
    hold.release()
    assert bench.target.device.units[0].backing.read(0, 512) == b"\xff" * 512


async def test_the_other_controller_is_another_nexus() -> None:
    bench = Bench()
    first = await bench.login(ready=True)
    await bench.login(controller=1)
    assert (await first.run(TUR)).status == 0
    assert len(bench.target.sessions()) == 2


async def test_a_lost_connection_is_a_lost_nexus() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    hold = bench.target.hold()
    session.start(TUR)
    await held(hold, 1)
    session.connection.disconnect()
    assert await session.closed is CloseReason.LOCAL
    assert bench.target.sessions() == ()
    assert len(hold) == 0
    again = await bench.login()
    hold.release()
    assert decode_sense((await again.run(TUR)).sense).matches(Asc.NEXUS_LOSS)


async def test_a_target_port_that_goes_down_takes_its_channels_along() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    survivor = await bench.login(host_port=1, target_port=1, initiator=OTHER, ready=True)
    hold = bench.target.hold(HoldScope(port=0))
    session.start(WRITE_0, data_out=session.buffer(b"\xff" * 512))
    await held(hold, 1)
    bench.fabric.set_plugged("b/1", False)
    assert [info.port for info in bench.target.sessions()] == ["b/2"]
    hold.release()
    assert bench.target.device.units[0].backing.read(0, 512) == bytes(512)
    assert (await survivor.run(TUR)).status == 0
    again = await bench.login(host_port=1, target_port=1)
    assert decode_sense((await again.run(TUR)).sense).matches(Asc.NEXUS_LOSS)


async def test_the_target_does_not_hear_of_a_host_port_that_goes_down() -> None:
    """What it holds is executed late, unless a login of the same initiator port ends the nexus."""
    bench = Bench()
    session = await bench.login(ready=True)
    hold = bench.target.hold()
    session.start(WRITE_0, data_out=session.buffer(b"\xff" * 512))
    await held(hold, 1)
    bench.fabric.set_plugged("a/1", False)
    assert await session.closed is CloseReason.PORT_DOWN
    await asyncio.sleep(60)
    assert len(hold) == 1
    await bench.login(host_port=1)
    assert len(hold) == 0


async def test_one_channel_of_several_is_not_the_nexus() -> None:
    bench = Bench()
    first = await bench.login(ready=True)
    second = await bench.login(flags=1)
    second.connection.disconnect()
    await second.closed
    assert (await first.run(TUR)).status == 0


async def test_logout_of_the_initiator() -> None:
    bench = Bench()
    session = await bench.login()
    session.send(bytes([3]) + bytes(15))
    assert await session.closed is CloseReason.DISCONNECTED
    assert bench.target.sessions() == ()


# --- life ---


async def test_nobody_listens_before_join_and_after_leave() -> None:
    bench = Bench()
    assert bench.ports["b"][0].capability_mask & DEVICE_MANAGEMENT_BIT
    session = await bench.login(ready=True)
    bench.target.leave()
    bench.target.leave()
    assert bench.target.state is TargetState.AWAY
    assert await session.closed is CloseReason.DISCONNECTED
    assert decode_iu(await session.receive()).reason == 0  # type: ignore[union-attr]
    assert not bench.ports["b"][1].capability_mask & DEVICE_MANAGEMENT_BIT
    with pytest.raises(CmRejectedError) as caught:
        await bench.login()
    assert caught.value.reason == RejectReason.INVALID_SERVICE_ID
    bench.target.join()
    bench.target.join()
    again = await bench.login()
    assert decode_sense((await again.run(TUR)).sense).matches(Asc.NEXUS_LOSS)


async def test_a_crashed_target_says_nothing() -> None:
    bench = Bench()
    session = await bench.login(ready=True)
    await session.run(WRITE_0, data_out=session.buffer(b"\x77" * 512))
    hold = bench.target.hold()
    session.start(WRITE_0, data_out=session.buffer(b"\x88" * 512))
    await held(hold, 1)
    bench.target.crash()
    hold.release()
    session.start(TUR)
    assert await session.closed is CloseReason.RETRY_EXCEEDED
    with pytest.raises(CmTimeoutError):
        await bench.login()
    await asyncio.sleep(0.01)  # the initiator's last word, that it has given up, is on its way
    with pytest.raises(SpecError, match="has crashed"):
        bench.target.join()
    bench.target.restart()
    again = await bench.login()
    assert decode_sense((await again.run(TUR)).sense).matches(Asc.POWER_ON)
    response, data = await again.read("28 00 00000000 00 0001 00", 512)
    assert (response.status, data) == (0, b"\x77" * 512)


async def test_a_login_that_is_repeated_until_the_target_is_back() -> None:
    bench = Bench()
    bench.target.crash()
    patient = asyncio.ensure_future(bench.connect(bench.request().encode(), retries=15))
    with pytest.raises(CmTimeoutError):
        await bench.connect(bench.request(initiator=OTHER).encode(), host_port=1, retries=0)
    await asyncio.sleep(0.01)
    bench.target.restart()
    await patient
    assert [info.initiator_port_id for info in bench.target.sessions()] == [INITIATOR]


async def test_restart_of_a_running_target() -> None:
    bench = Bench()
    session = await bench.login()
    bench.target.restart()
    assert bench.target.state is TargetState.ONLINE
    session.start(TUR)
    assert await session.closed is CloseReason.RETRY_EXCEEDED
    await bench.login()


async def test_a_controller_is_pulled_and_put_back() -> None:
    bench = Bench()
    first, second = await bench.login(), await bench.login(controller=1, ready=True)
    before = bench.target.io_unit.change_id
    bench.target.set_controller_present(0, False)
    bench.target.set_controller_present(0, False)
    assert bench.target.io_unit.change_id == before + 1
    assert await first.closed is CloseReason.DISCONNECTED
    assert (await second.run(TUR)).status == 0
    with pytest.raises(CmRejectedError) as caught:
        await bench.login()
    assert caught.value.reason == RejectReason.INVALID_SERVICE_ID
    bench.target.set_controller_present(0, True)
    await bench.login()
    assert bench.target.io_unit.change_id == before + 2


class Hopeless:
    """A request whose port goes down before it is answered."""

    waiting = True

    def __init__(self, private_data: bytes) -> None:
        self.private_data = private_data

    def accept(self, private_data: bytes = b"") -> NoReturn:
        raise PortDownError("b/1 is not active")

    def reject(self, reason: int, ari: bytes = b"", private_data: bytes = b"") -> NoReturn:
        raise AssertionError("it is a good login")


async def test_a_port_that_goes_down_under_a_request() -> None:
    bench = Bench()
    heard: list[Callable[[Hopeless], None]] = []

    class Ear:
        def listen(self, service_id: int, on_request: Callable[[Hopeless], None]) -> Callable[[], None]:
            heard.append(on_request)
            return heard.clear

    attachment = Attachment(Ear(), bench.gsi["a"][0], bench.ports["a"][0])  # type: ignore[arg-type]
    target = SrpTarget(make_spec(), [attachment])
    target.join()
    heard[0](Hopeless(bench.request().encode().ljust(92, b"\0")))
    assert target.sessions() == ()
    target.leave()
    assert heard == []


async def test_close_leaves_nothing() -> None:
    bench = Bench()
    await bench.login()
    bench.target.close()
    with pytest.raises(CmRejectedError):
        await bench.login()
    assert bench.target.sessions() == ()


async def test_a_target_needs_a_port() -> None:
    with pytest.raises(SpecError, match="has no HCA port"):
        SrpTarget(make_spec(), [])
