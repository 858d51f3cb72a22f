from __future__ import annotations

import asyncio
import dataclasses
import random
import time

import pytest
from rdma_world import QUICK, SERVICE, TICK, RdmaWorld

from srpha.embedded.fabric.hardware import Impairment
from srpha.embedded.rdma.rdma_port import CloseReason, ConnectRequest, RcConnection
from srpha.wire.cm import CmAttribute
from srpha.wire.rc import Opcode, RcAddress, pack_ack, pack_rdma, pack_send


async def test_messages_and_rdma_both_ways() -> None:
    world = RdmaWorld()
    connection, accepted = await world.pair()
    region = world.b.rdma.register(bytearray(10_000))
    data = random.Random(1).randbytes(10_000)
    order: list[str] = []
    got: list[bytes] = []
    connection.rdma_write(region.address, region.rkey, data, lambda: order.append("write"))
    connection.send(data[:9000])
    connection.rdma_read(region.address + 5, region.rkey, 9995, got.append)
    accepted.send(b"")
    await asyncio.sleep(0.1)
    assert region.view == data
    assert got == [data[5:]]
    assert world.b.messages == [data[:9000]]
    assert world.a.messages == [b""]
    assert order == ["write"]
    assert connection.resent == 0


@pytest.mark.parametrize("share", [0.05, 0.3])
@pytest.mark.parametrize("direction", ["both", "tx", "rx"])
async def test_nothing_is_lost_on_a_lossy_link(share: float, direction: str) -> None:
    world = RdmaWorld()
    connection, accepted = await world.pair(dataclasses.replace(QUICK, retry_count=7))
    loss = (Impairment(probability=share),)
    if direction != "rx":
        world.a.port.tx_impairments = loss
    if direction != "tx":
        world.a.port.rx_impairments = loss
    world.fabric.changed()
    region = world.a.rdma.register(bytearray(40_000))
    sent = [bytes([i]) * (i * 300) for i in range(30)]
    got: list[bytes] = []
    for message in sent:
        connection.send(message)
        accepted.send(message)
    accepted.rdma_write(region.address, region.rkey, b"w" * 40_000)
    accepted.rdma_read(region.address, region.rkey, 40_000, got.append)
    await asyncio.sleep(1000)
    assert world.a.closed == world.b.closed == []
    assert world.a.messages == world.b.messages == sent
    assert got == [b"w" * 40_000]


@pytest.mark.parametrize("deaf", ["a", "b"])
async def test_a_dead_way_exhausts_the_retries_in_time(deaf: str) -> None:
    world = RdmaWorld()
    connection, _ = await world.pair()
    loss = (Impairment(probability=1.0),)
    if deaf == "a":
        world.a.port.rx_impairments = loss
    else:
        world.a.port.tx_impairments = loss
    world.fabric.changed()
    loop = asyncio.get_running_loop()
    start, ended = loop.time(), []
    connection.on_closed = lambda reason: ended.append((reason, loop.time() - start))
    connection.send(b"hello")
    await asyncio.sleep(60)
    assert ended == [(CloseReason.RETRY_EXCEEDED, pytest.approx(3 * TICK))]
    assert world.b.messages == ([b"hello"] if deaf == "a" else [])
    assert not connection.is_open
    assert world.a.said.count(CmAttribute.DREQ) == 4
    assert world.b.closed == ([CloseReason.DISCONNECTED] if deaf == "a" else [])


async def test_without_an_ack_timeout_nobody_gives_up() -> None:
    world = RdmaWorld()
    connection, _ = await world.pair(dataclasses.replace(QUICK, ack_timeout=0))
    world.a.port.tx_impairments = (Impairment(probability=1.0),)
    world.fabric.changed()
    connection.send(b"hello")
    await asyncio.sleep(1000)
    assert connection.is_open


async def test_rdma_outside_of_memory_ends_both_ends_at_once() -> None:
    world = RdmaWorld()
    connection, accepted = await world.pair()
    region = world.b.rdma.register(bytearray(100))
    connection.rdma_write(region.address + 1, region.rkey, bytes(range(100)))
    await asyncio.sleep(0.01)
    assert world.a.closed == [CloseReason.REMOTE_ACCESS_ERROR]
    assert world.b.closed == [CloseReason.PEER_ERROR]
    assert not any(region.view)
    assert not accepted.is_open


async def test_a_deregistered_region_is_out_of_reach() -> None:
    world = RdmaWorld()
    connection, _ = await world.pair()
    region = world.b.rdma.register(b"secret")
    world.b.rdma.deregister(region)
    connection.rdma_read(region.address, region.rkey, 6, lambda _data: pytest.fail("read"))
    await asyncio.sleep(0.01)
    assert world.a.closed == [CloseReason.REMOTE_ACCESS_ERROR]


async def test_a_message_longer_than_allowed_is_refused() -> None:
    world = RdmaWorld()
    connection, _ = await world.pair(dataclasses.replace(QUICK, max_message=5000))
    connection.send(bytes(5000))
    connection.send(bytes(5001))
    await asyncio.sleep(0.01)
    assert world.b.messages == [bytes(5000)]
    assert world.b.closed == [CloseReason.PEER_ERROR]
    assert world.a.closed == [CloseReason.REMOTE_INVALID_REQUEST]


async def test_hostile_packets_change_nothing() -> None:
    world = RdmaWorld()
    connection, accepted = await world.pair()
    region = world.b.rdma.register(bytearray(16))
    a, b = world.a.port, world.b.port
    route = RcAddress(a.lid, b.lid, accepted.local_qpn, 0xFFFF)
    good = pack_send(route, Opcode.RC_SEND_ONLY, 0, b"evil")
    connection.send(b"one")
    for packet in (
        good[:22],  # shorter than its length says
        good + b"tail",
        good[:8] + b"\x1f" + good[9:],  # unknown opcode
        good[:8] + b"\x64" + good[9:] + bytes(8),
        good[:9] + b"\x4f" + good[10:],  # transport version
        pack_send(route._replace(slid=77), Opcode.RC_SEND_ONLY, 0, b"evil"),  # a stranger
        pack_ack(route, Opcode.RC_ACKNOWLEDGE, 0x123456, 0x62, 0),
        pack_ack(route, Opcode.RC_READ_RESPONSE_ONLY, 0, 31, 0, b"evil"),
        pack_rdma(route._replace(slid=77), Opcode.RC_WRITE_ONLY, 0, region.address, region.rkey, 4, b"evil"),
    ):
        a.send(packet)
        connection.send(b"more")
    await asyncio.sleep(5)
    assert world.b.messages == [b"one"] + [b"more"] * 9
    assert not any(region.view)
    assert world.a.closed == world.b.closed == []
    assert accepted.dropped == 7


async def test_a_wild_psn_costs_one_repeat_at_most() -> None:
    world = RdmaWorld()
    connection, accepted = await world.pair()
    route = RcAddress(world.a.port.lid, world.b.port.lid, accepted.local_qpn, 0xFFFF)
    for psn in range(0, 1 << 24, 1 << 20):
        world.a.port.send(pack_send(route, Opcode.RC_SEND_ONLY, psn, b"evil"))
    connection.send(b"good")
    await asyncio.sleep(20)
    assert world.b.messages == [b"good"]
    assert world.a.closed == world.b.closed == []


async def test_a_destroyed_connection_touches_nothing() -> None:
    world = RdmaWorld()
    connection, accepted = await world.pair()
    region = world.b.rdma.register(bytearray(16))
    connection.rdma_write(region.address, region.rkey, b"late", lambda: pytest.fail("acknowledged"))
    connection.send(b"late")
    accepted.destroy()
    accepted.destroy()
    accepted.send(b"ignored")
    await asyncio.sleep(60)
    assert not any(region.view)
    assert world.b.messages == world.b.closed == []
    assert world.a.closed == [CloseReason.RETRY_EXCEEDED]


async def test_what_comes_before_the_callbacks_is_kept_for_them() -> None:
    world = RdmaWorld()
    accepted: list[RcConnection] = []

    def accept(request: ConnectRequest) -> None:
        accepted.append(request.accept())

    world.b.rdma.listen(SERVICE, accept)
    connection = await world.connect()
    connection.send(b"one")
    connection.send(b"two")
    await asyncio.sleep(0.01)
    accepted[0].on_receive = world.b.messages.append
    connection.send(b"three")
    await asyncio.sleep(0.01)
    assert world.b.messages == [b"one", b"two", b"three"]
    second: list[bytes] = []
    accepted[0].on_receive = second.append
    connection.send(b"four")
    await asyncio.sleep(0.01)
    assert second == [b"four"]
    connection.disconnect()
    await asyncio.sleep(0.01)
    accepted[0].on_closed = world.b.closed.append
    await asyncio.sleep(0.01)
    assert world.b.closed == [CloseReason.DISCONNECTED]


async def test_a_receiver_may_answer_and_close_from_its_callback() -> None:
    world = RdmaWorld()
    connection, accepted = await world.pair()

    def answer(message: bytes) -> None:
        accepted.send(message + b"!")
        if message == b"two":
            accepted.disconnect()

    accepted.on_receive = answer
    for message in (b"one", b"two", b"three"):
        connection.send(message)
    await asyncio.sleep(5)
    assert world.a.messages == [b"one!", b"two!"]
    assert world.a.closed == [CloseReason.DISCONNECTED]
    assert world.b.closed == [CloseReason.LOCAL]


async def test_two_runs_are_the_same_run() -> None:
    logs: list[list[bytes]] = []
    for _ in range(2):
        world = RdmaWorld()
        log: list[bytes] = []
        world.fabric.tap(lambda _now, _port, packet, log=log: log.append(packet))  # type: ignore[misc]
        connection, accepted = await world.pair()
        connection.send(b"ping")
        accepted.send(b"pong")
        await asyncio.sleep(1)
        logs.append(log)
    assert logs[0] == logs[1]


async def test_other_mtus() -> None:
    world = RdmaWorld()
    world.b.serve()
    connection = world.a.adopt(await world.a.rdma.connect(world.path(mtu=1), SERVICE, b"", QUICK))
    lengths: list[int] = []
    world.fabric.tap(lambda _now, _port, packet: lengths.append(len(packet)))
    connection.send(bytes(1000))
    world.b.connections[0].send(bytes(300))
    await asyncio.sleep(0.1)
    assert world.b.messages == [bytes(1000)]
    assert world.a.messages == [bytes(300)]
    assert max(lengths) == 20 + 256


@pytest.mark.realtime
async def test_the_hot_path_is_quick_enough() -> None:
    world = RdmaWorld(timer_floor=1e-3)
    connection, accepted = await world.pair()
    region = world.b.rdma.register(bytearray(4096))
    loop = asyncio.get_running_loop()
    data = bytes(4096)
    best = 1.0
    for _ in range(5):
        finished = loop.create_future()
        start = time.process_time()
        for _ in range(31):
            for _ in range(31):
                connection.rdma_write(region.address, region.rkey, data)
            connection.send(b"next")
            await asyncio.sleep(0)
        connection.rdma_write(region.address, region.rkey, data, lambda done=finished: done.set_result(None))
        await finished
        best = min(best, (time.process_time() - start) / (31 * 32 + 1))
    assert accepted.dropped == 0
    assert best < 50e-6  # about 6 us on a quiet machine


async def test_a_slow_way_under_load_is_not_taken_for_a_dead_one() -> None:
    world = RdmaWorld()
    connection, _ = await world.pair()
    world.a.port.tx_impairments = world.a.port.rx_impairments = (Impairment(delay=0.4 * TICK),)
    world.fabric.changed()
    for _ in range(60):
        connection.send(b"tick")
        await asyncio.sleep(0.3 * TICK)
    await asyncio.sleep(TICK)
    assert len(world.b.messages) == 60
    assert connection.resent == 0
