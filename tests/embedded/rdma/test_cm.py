from __future__ import annotations

import asyncio
import dataclasses

import pytest
from rdma_world import QUICK, SERVICE, TICK, RdmaWorld

from srpha.embedded.rdma.cm_connect import ConnectError
from srpha.embedded.rdma.rdma_port import (
    CloseReason,
    CmRejectedError,
    CmTimeoutError,
    ConnectOptions,
    ConnectRequest,
    PortDownError,
    RcConnection,
)
from srpha.wire.cm import (
    CmAttribute,
    CmMessage,
    ConnectionPath,
    ConnectionReply,
    ConnectionRequest,
    DisconnectReply,
    DisconnectRequest,
    MessageReceiptAck,
    ReadyToUse,
    attribute_of,
    unpack_mad,
)
from srpha.wire.cm_reject import RejectReason
from srpha.wire.errors import EncodeError

REQ, REP, RTU, REJ = CmAttribute.REQ, CmAttribute.REP, CmAttribute.RTU, CmAttribute.REJ
DREQ, DREP, MRA = CmAttribute.DREQ, CmAttribute.DREP, CmAttribute.MRA


def now() -> float:
    return asyncio.get_running_loop().time()


def nothing_left(world: RdmaWorld) -> bool:
    return all(
        not (manager._exchanges or manager._by_peer or manager._by_qp)
        for manager in (world.a.rdma._manager, world.b.rdma._manager)
    )


def request_for(world: RdmaWorld, **changes: object) -> ConnectionRequest:
    """A REQ from a to b as a stranger would write it."""
    a, b = world.a.port, world.b.port
    fields: dict[str, object] = {
        "local_comm_id": 0x77,
        "service_id": SERVICE,
        "local_ca_guid": 0xCA,
        "local_qpn": 0x999,
        "responder_resources": 4,
        "initiator_depth": 4,
        "remote_cm_response_timeout": 18,
        "local_cm_response_timeout": 18,
        "max_cm_retries": 1,
        "retry_count": 1,
        "starting_psn": 5,
        "pkey": 0xFFFF,
        "path_mtu": 5,
        "primary": ConnectionPath(
            local_lid=a.lid, remote_lid=b.lid, local_gid=a.gid, remote_gid=b.gid, local_ack_timeout=18
        ).encode(),
    }
    return ConnectionRequest(**{**fields, **changes})  # type: ignore[arg-type]


async def test_a_handshake_carries_private_data_and_addresses() -> None:
    world = RdmaWorld()
    world.b.serve(b"welcome")
    connection = await world.connect(b"login")
    (request,) = world.b.requests
    (accepted,) = world.b.connections
    assert request.private_data == b"login".ljust(92, b"\0")
    assert connection.private_data == b"welcome".ljust(196, b"\0")
    assert (request.service_id, request.pkey) == (SERVICE, 0xFFFF)
    assert (request.remote_gid, request.remote_lid) == (world.a.port.gid, world.a.port.lid)
    assert request.remote_qpn == connection.local_qpn == accepted.remote_qpn
    assert connection.remote_qpn == accepted.local_qpn
    assert connection.remote_gid == accepted.local_gid == request.local_gid == world.b.port.gid
    assert connection.local_gid == accepted.remote_gid == world.a.port.gid
    assert not request.waiting
    await asyncio.sleep(10)
    assert world.a.said == [REQ, RTU]
    assert world.b.said == [REP]
    assert world.a.rdma.connections == (connection,)
    assert world.b.rdma.connections == (accepted,)


@pytest.mark.parametrize(
    ("lost", "a_said", "b_said"),
    [
        (REQ, [REQ, REQ, RTU], [REP]),
        (REP, [REQ, REQ, RTU], [REP, REP]),
        (RTU, [REQ, RTU, RTU], [REP, REP]),
    ],
)
async def test_a_handshake_survives_the_loss_of_each_message(
    lost: CmAttribute, a_said: list[CmAttribute], b_said: list[CmAttribute]
) -> None:
    world = RdmaWorld()
    world.b.serve()
    world.a.lose_first(lost)
    world.b.lose_first(lost)
    connection = await world.connect()
    await asyncio.sleep(20 * TICK)
    assert len(world.b.requests) == 1
    if lost is REP:
        # the passive end repeats its REP by itself as well; which comes first depends on latencies
        assert world.a.said.count(RTU) >= 1
    else:
        assert (world.a.said, world.b.said) == (a_said, b_said)
    connection.send(b"ping")
    world.b.connections[0].send(b"pong")
    await asyncio.sleep(1)
    assert world.b.messages == [b"ping"]
    assert world.a.messages == [b"pong"]


async def test_posts_of_the_accepting_end_wait_for_rtu() -> None:
    world = RdmaWorld()
    world.b.serve()
    world.a.lose_first(RTU)
    await world.connect()
    world.b.connections[0].send(b"early")
    await asyncio.sleep(0.5 * TICK)
    assert world.a.messages == []
    await asyncio.sleep(TICK)
    assert world.a.messages == [b"early"]


async def test_the_first_message_stands_for_rtu() -> None:
    world = RdmaWorld()
    world.b.serve()
    world.a.lose_first(RTU, 100)
    connection = await world.connect()
    world.b.connections[0].send(b"pong")
    connection.send(b"ping")
    await asyncio.sleep(0.1)
    assert world.b.messages == [b"ping"]
    assert world.a.messages == [b"pong"]
    await asyncio.sleep(30)
    assert world.b.said == [REP]


async def test_rtu_that_never_comes_ends_both_ends() -> None:
    world = RdmaWorld()
    world.b.serve()
    world.a.lose_first(RTU, 100)
    await world.connect()
    await asyncio.sleep(30)
    assert world.b.said == [REP] * 4 + [REJ]
    assert world.a.closed == world.b.closed == [CloseReason.HANDSHAKE]
    assert nothing_left(world)


async def test_a_request_that_comes_again_gets_the_same_reply_at_once() -> None:
    world = RdmaWorld()
    world.b.serve()
    world.a.copies = lambda _message: 0
    for _ in range(3):
        world.a.say(world.b.port.lid, request_for(world))
        await asyncio.sleep(0.01)
    assert world.b.said == [REP] * 3
    assert len(world.b.requests) == 1


@pytest.mark.parametrize("attribute", [REQ, REP, RTU, DREQ, DREP])
async def test_repeated_messages_change_nothing(attribute: CmAttribute) -> None:
    world = RdmaWorld()
    world.b.serve()
    for side in (world.a, world.b):
        side.copies = lambda message: 3 if attribute_of(message) is attribute else 1
    connection = await world.connect()
    connection.send(b"ping")
    await asyncio.sleep(1)
    assert len(world.b.requests) == 1
    assert world.b.messages == [b"ping"]
    connection.disconnect()
    await asyncio.sleep(30)
    assert world.a.closed == [CloseReason.LOCAL]
    assert world.b.closed == [CloseReason.DISCONNECTED]
    assert nothing_left(world)


async def test_nobody_answers() -> None:
    world = RdmaWorld()
    world.a.lose_first(REQ, 100)
    with pytest.raises(CmTimeoutError, match="no answer from LID 3"):
        await world.connect()
    assert now() == pytest.approx(4 * TICK)
    assert world.a.said == [REQ] * 4 + [REJ]
    assert nothing_left(world)


async def test_a_peer_whose_reps_are_lost_hears_that_we_gave_up() -> None:
    world = RdmaWorld()
    world.b.serve()
    world.b.lose_first(REP, 100)
    with pytest.raises(CmTimeoutError):
        await world.connect()
    await asyncio.sleep(0.1)
    assert world.b.closed == [CloseReason.HANDSHAKE]
    assert nothing_left(world)


async def test_an_unknown_service_is_rejected() -> None:
    world = RdmaWorld()
    with pytest.raises(CmRejectedError, match="invalid service id") as caught:
        await world.connect()
    assert caught.value.reason == RejectReason.INVALID_SERVICE_ID
    assert nothing_left(world)


async def test_a_reject_carries_its_reason_and_data_and_is_repeated_as_it_was() -> None:
    world = RdmaWorld()
    requests: list[ConnectRequest] = []

    def refuse(request: ConnectRequest) -> None:
        requests.append(request)
        request.reject(RejectReason.CONSUMER_DEFINED, b"ari", b"\xc2rejected")

    world.b.rdma.listen(SERVICE, refuse)
    world.b.lose_first(REJ)
    with pytest.raises(CmRejectedError) as caught:
        await world.connect()
    assert caught.value.reason == 28
    assert caught.value.ari == b"ari"
    assert caught.value.private_data == b"\xc2rejected".ljust(148, b"\0")
    assert len(requests) == 1
    assert world.b.said == [REJ, REJ]
    assert nothing_left(world)
    with pytest.raises(RuntimeError, match="answered"):
        requests[0].accept()
    with pytest.raises(RuntimeError, match="answered"):
        requests[0].reject(28)


@pytest.mark.parametrize(
    ("changes", "path_changes", "reason"),
    [
        ({"transport_service": 1}, {}, RejectReason.INVALID_TRANSPORT),
        ({"path_mtu": 0}, {}, RejectReason.INVALID_MTU),
        ({"path_mtu": 6}, {}, RejectReason.INVALID_MTU),
        ({"pkey": 0x8123}, {}, RejectReason.UNSUPPORTED),
        ({}, {"remote_lid": 9}, RejectReason.INVALID_LID),
        ({}, {"local_lid": 0}, RejectReason.INVALID_LID),
        ({}, {"local_lid": 0xC001}, RejectReason.INVALID_LID),
        ({"primary": bytes(44)}, {}, RejectReason.INVALID_GID),
    ],
)
async def test_a_request_that_cannot_be_is_rejected(
    changes: dict[str, object], path_changes: dict[str, int], reason: RejectReason
) -> None:
    world = RdmaWorld()
    world.b.serve()
    heard: list[object] = []
    world.a.rdma._manager._unregister()
    world.a.gsi.register(7, lambda received: heard.append(unpack_mad(received.mad)[1]))
    request = request_for(world, **changes)
    if path_changes:
        path = dataclasses.replace(request.primary_path, **path_changes)
        request = dataclasses.replace(request, primary=path.encode())
    world.a.say(world.b.port.lid, request)
    await asyncio.sleep(0.1)
    assert [getattr(message, "reason", None) for message in heard] == [reason]
    assert world.b.requests == []
    assert nothing_left(world)


async def test_a_consumer_that_thinks_long_gets_time() -> None:
    world = RdmaWorld()
    world.b.rdma.listen(SERVICE, world.b.requests.append)
    login = asyncio.ensure_future(world.connect())
    await asyncio.sleep(2.5 * TICK)
    assert world.b.said == [MRA]
    assert world.a.said == [REQ, REQ]
    assert world.b.requests[0].waiting
    world.b.adopt(world.b.requests[0].accept())
    connection = await login
    assert connection.is_open
    assert len(world.b.requests) == 1


async def test_a_request_whose_peer_gave_up_cannot_be_accepted() -> None:
    world = RdmaWorld()
    world.b.rdma.listen(SERVICE, world.b.requests.append)
    login = asyncio.ensure_future(world.connect())
    await asyncio.sleep(0.1)
    login.cancel()
    with pytest.raises(asyncio.CancelledError):
        await login
    await asyncio.sleep(0.1)
    (request,) = world.b.requests
    assert not request.waiting
    with pytest.raises(ConnectError, match="gave up"):
        request.accept()
    request.reject(RejectReason.NO_RESOURCES)
    assert nothing_left(world)


@pytest.mark.parametrize("delivered", [False, True])
async def test_cancelling_when_the_reply_is_there_disconnects(delivered: bool) -> None:
    world = RdmaWorld()
    world.b.serve()
    login = asyncio.ensure_future(world.connect())

    def cancel_at_rtu(message: CmMessage) -> int:
        if attribute_of(message) is RTU:
            if delivered:
                asyncio.get_running_loop().call_soon(login.cancel)
            else:
                login.cancel()
        return 1

    world.a.copies = cancel_at_rtu
    with pytest.raises(asyncio.CancelledError):
        await login
    await asyncio.sleep(1)
    assert world.b.closed == [CloseReason.DISCONNECTED]
    assert nothing_left(world)


@pytest.mark.parametrize(("lost", "said"), [(None, 1), (DREQ, 2), (DREP, 2)])
async def test_disconnecting_survives_loss(lost: CmAttribute | None, said: int) -> None:
    world = RdmaWorld()
    connection, accepted = await world.pair()
    if lost is not None:
        world.a.lose_first(lost)
        world.b.lose_first(lost)
    connection.disconnect()
    assert not connection.is_open
    assert world.a.closed == []
    connection.send(b"ignored")
    await asyncio.sleep(10)
    assert world.a.said.count(DREQ) == world.b.said.count(DREP) + (lost is DREQ) == said
    assert world.a.closed == [CloseReason.LOCAL]
    assert world.b.closed == [CloseReason.DISCONNECTED]
    assert not accepted.is_open
    connection.disconnect()
    accepted.disconnect()
    accepted.destroy()
    await asyncio.sleep(10)
    assert world.a.closed == [CloseReason.LOCAL]
    assert world.b.closed == [CloseReason.DISCONNECTED]
    assert nothing_left(world)


async def test_disconnecting_from_a_dead_peer_ends() -> None:
    world = RdmaWorld()
    connection, _ = await world.pair()
    world.a.lose_first(DREQ, 100)
    start = now()
    done: list[float] = []
    connection.on_closed = lambda _reason: done.append(now())
    connection.disconnect()
    await asyncio.sleep(100)
    assert done == [pytest.approx(start + 4 * TICK)]


async def test_both_ends_disconnect_at_once() -> None:
    world = RdmaWorld()
    connection, accepted = await world.pair()
    connection.disconnect()
    accepted.disconnect()
    await asyncio.sleep(100)
    assert world.a.closed == world.b.closed == [CloseReason.LOCAL]
    assert nothing_left(world)


async def test_destroy_is_silent_and_ends_a_disconnection() -> None:
    world = RdmaWorld()
    connection, accepted = await world.pair()
    connection.disconnect()
    connection.destroy()
    await asyncio.sleep(100)
    assert world.a.closed == []
    accepted.destroy()
    assert nothing_left(world)


async def test_a_crashed_port_is_silent_and_its_peer_finds_out() -> None:
    world = RdmaWorld()
    connection, _ = await world.pair()
    world.b.rdma.close()
    start = now()
    ended: list[tuple[CloseReason, float]] = []
    connection.on_closed = lambda reason: ended.append((reason, now() - start))
    world.b.said.clear()
    connection.send(b"anybody?")
    await asyncio.sleep(60)
    assert ended == [(CloseReason.RETRY_EXCEEDED, pytest.approx(3 * TICK))]
    assert world.b.said == world.b.closed == []


async def test_closing_a_port_fails_its_logins() -> None:
    world = RdmaWorld()
    login = asyncio.ensure_future(world.connect())
    await asyncio.sleep(0)
    world.a.rdma.close()
    with pytest.raises(PortDownError, match="closed"):
        await login


async def test_a_peer_that_forgot_its_connection_is_told_so() -> None:
    world = RdmaWorld()
    connection, accepted = await world.pair()
    peer = world.b.rdma._manager._exchanges
    (exchange,) = peer.values()
    world.a.rdma.close()  # the host crashes, and its next life takes the same QP number
    again = request_for(world, local_ca_guid=exchange.peer_guid, local_qpn=connection.local_qpn)
    world.a.say(world.b.port.lid, again)
    await asyncio.sleep(0.1)
    assert world.b.closed == [CloseReason.STALE]
    assert world.b.said[-1] is REJ
    assert not accepted.is_open
    world.a.say(world.b.port.lid, again)
    await asyncio.sleep(0.1)
    assert world.b.said[-2:] == [REJ, REJ]
    assert len(world.b.requests) == 1
    world.a.say(world.b.port.lid, dataclasses.replace(again, local_qpn=0xABC))
    await asyncio.sleep(0.1)
    assert len(world.b.requests) == 2


async def test_the_same_id_of_another_life_is_stale_too() -> None:
    world = RdmaWorld()
    await world.pair()
    (exchange,) = world.b.rdma._manager._exchanges.values()
    again = request_for(
        world, local_ca_guid=exchange.peer_guid, local_comm_id=exchange.peer_id, local_qpn=0x5555, starting_psn=9
    )
    world.a.say(world.b.port.lid, again)
    await asyncio.sleep(0.1)
    assert world.b.closed == [CloseReason.STALE]


async def test_messages_about_nothing_change_nothing() -> None:
    world = RdmaWorld()
    connection, accepted = await world.pair()
    (mine,) = world.a.rdma._manager._exchanges
    (theirs,) = world.b.rdma._manager._exchanges
    lid = world.b.port.lid
    for message in (
        ReadyToUse(local_comm_id=1, remote_comm_id=2),
        DisconnectReply(local_comm_id=mine, remote_comm_id=theirs),
        DisconnectRequest(local_comm_id=mine + 1, remote_comm_id=theirs, remote_qpn=accepted.local_qpn),
        DisconnectRequest(local_comm_id=mine, remote_comm_id=theirs, remote_qpn=accepted.local_qpn + 1),
        DisconnectRequest(local_comm_id=5, remote_comm_id=6),
        ConnectionReply(local_comm_id=7, remote_comm_id=8),
        ConnectionReply(local_comm_id=mine, remote_comm_id=theirs),
        MessageReceiptAck(local_comm_id=mine, remote_comm_id=theirs, service_timeout=31),
    ):
        world.a.say(lid, message)
    broken = bytearray(256)
    broken[:4] = bytes((1, 7, 2, 3))
    world.a.send_mad(world.a.rdma._manager._exchanges[mine].peer, bytes(broken))  # attribute 0
    await asyncio.sleep(0.1)
    assert world.b.rdma._manager.dropped > 0
    assert world.a.closed == world.b.closed == []
    connection.send(b"still here")
    await asyncio.sleep(0.1)
    assert world.b.messages == [b"still here"]


async def test_a_port_that_goes_down_fails_what_it_carries() -> None:
    world = RdmaWorld()
    await world.pair()
    world.a.lose_first(REQ, 100)
    login = asyncio.ensure_future(world.connect())
    await asyncio.sleep(0.1)
    world.fabric.set_plugged("a/1", False)
    assert world.a.closed == [CloseReason.PORT_DOWN]
    with pytest.raises(PortDownError, match="went down"):
        await login
    with pytest.raises(PortDownError, match="not active"):
        await world.connect()
    assert world.b.closed == []
    assert not world.a.rdma._manager._exchanges


async def test_a_connection_may_be_left_to_its_retries_when_the_port_goes_down() -> None:
    world = RdmaWorld()
    connection, _ = await world.pair(dataclasses.replace(QUICK, close_on_port_error=False))
    world.fabric.set_plugged("a/1", False)
    assert connection.is_open
    connection.send(b"into the void")
    await asyncio.sleep(10)
    assert world.a.closed == [CloseReason.RETRY_EXCEEDED]


async def test_a_request_on_a_port_that_went_down_cannot_be_accepted() -> None:
    world = RdmaWorld()
    world.b.rdma.listen(SERVICE, world.b.requests.append)
    login = asyncio.ensure_future(world.connect())
    await asyncio.sleep(0.1)
    world.fabric.set_plugged("b/1", False)
    assert not world.b.requests[0].waiting
    with pytest.raises(ConnectError):
        world.b.requests[0].accept()
    login.cancel()
    await asyncio.gather(login, return_exceptions=True)


async def test_a_path_that_the_port_cannot_use() -> None:
    world = RdmaWorld()
    with pytest.raises(ConnectError, match="P_Key 0x8001"):
        await world.a.rdma.connect(dataclasses.replace(world.path(), pkey=0x8001), SERVICE)
    with pytest.raises(ConnectError, match="MTU"):
        await world.a.rdma.connect(world.path(mtu=0), SERVICE)
    with pytest.raises(EncodeError):
        await world.a.rdma.connect(world.path(), SERVICE, bytes(93))
    assert nothing_left(world)


async def test_one_listener_per_service() -> None:
    world = RdmaWorld()
    stop = world.b.rdma.listen(SERVICE, world.b.requests.append)
    with pytest.raises(ValueError, match="has a listener"):
        world.b.rdma.listen(SERVICE, world.b.requests.append)
    stop()
    stop()
    world.b.rdma.listen(SERVICE, world.b.requests.append)


async def test_too_much_private_data_in_an_answer_changes_nothing() -> None:
    world = RdmaWorld()
    world.b.rdma.listen(SERVICE, world.b.requests.append)
    login = asyncio.ensure_future(world.connect())
    await asyncio.sleep(0.1)
    with pytest.raises(EncodeError):
        world.b.requests[0].accept(bytes(197))
    with pytest.raises(EncodeError):
        world.b.requests[0].reject(28, private_data=bytes(149))
    world.b.adopt(world.b.requests[0].accept(bytes(196)))
    assert isinstance(await login, RcConnection)


@pytest.mark.parametrize("name", ["retry_count", "ack_timeout", "initiator_depth", "max_cm_retries", "max_message"])
def test_options_have_limits(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ConnectOptions(**{name: -1})
    with pytest.raises(ValueError, match="retry_count"):
        ConnectOptions(retry_count=8)
