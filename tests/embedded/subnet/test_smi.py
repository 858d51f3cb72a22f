"""QP0: batches of SMPs, traps, and what must be survived."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from managed import managed, two_switches

from srpha.embedded.fabric.ports import Port
from srpha.embedded.subnet.smi import SmpRequest, SmpSettings, SubnetManagement
from srpha.wire import rc
from srpha.wire.identifiers import PKEY_DEFAULT_FULL
from srpha.wire.mad import Method
from srpha.wire.notice import Notice, TrapNumber
from srpha.wire.smp import LidRoutedSmp, NodeInfo, SmpAttribute


def smp_packet(smp: LidRoutedSmp, slid: int, dlid: int) -> bytes:
    route = rc.RcAddress(slid, dlid, 0, PKEY_DEFAULT_FULL, 0, rc.MANAGEMENT_VL)
    return rc.pack_datagram(route, 0, 0, 0, smp.encode())


@given(packet=st.binary(max_size=300), mad=st.binary(min_size=256, max_size=256))
async def test_any_packet_to_qp0_is_survived(packet: bytes, mad: bytes) -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        view = subnet.sm.view
        for body in (mad, b"\x01\x01\x01\x05" + mad[4:], b"\x01\x81\x01\x81" + mad[4:]):
            subnet.smi._receive(rc.pack_datagram(rc.RcAddress(3, 1, 0, 0xFFFF), 0, 0, 0, body))
        subnet.smi._receive(packet)
        await subnet.sm.sweep()
        assert [port.lid for port in subnet.sm.view.end_ports] == [port.lid for port in view.end_ports]


async def test_exchange_keeps_order_and_window() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        await subnet.stop_sm()
        smi = SubnetManagement(subnet.port("sm/1"), SmpSettings(window=3, timeout=0.1, retries=1))
        requests = [SmpRequest((1,), Method.GET, SmpAttribute.PORT_INFO, number) for number in range(7)]
        requests.insert(3, SmpRequest((1, 4), Method.GET, SmpAttribute.NODE_INFO))  # nobody there
        flying = 0

        def tap(_now: float, port: Port, _packet: bytes) -> None:
            nonlocal flying
            if port.name == "sm/1":
                flying = max(flying, len(smi._waiting))

        subnet.fabric.tap(tap)
        loop = asyncio.get_running_loop()
        before = loop.time()
        answers = await smi.exchange(requests)
        assert loop.time() - before == pytest.approx(0.2, abs=1e-3)
        assert [answer is None for answer in answers] == [False] * 3 + [True] + [False] * 4
        assert [answer.attribute_modifier for answer in answers if answer] == list(range(7))
        assert flying == 3
        assert smi.sent == 9
        assert await smi.exchange([]) == []
        (one,) = await smi.exchange([SmpRequest((), Method.GET, SmpAttribute.NODE_INFO)])
        assert one is not None
        assert NodeInfo.decode(one.data).port_guid == subnet.port("sm/1").guid
        smi.close()


async def test_exchange_cancelled_or_closed() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        await subnet.stop_sm()
        smi = SubnetManagement(subnet.port("sm/1"))
        nobody = [SmpRequest((1, 4), Method.GET, SmpAttribute.NODE_INFO)]
        asking = asyncio.ensure_future(smi.exchange(nobody))
        await asyncio.sleep(0.1)
        asking.cancel()
        await asyncio.wait([asking])
        assert smi._waiting == {}
        asking = asyncio.ensure_future(smi.exchange(nobody))
        await asyncio.sleep(0.1)
        smi.close()
        assert await asking == [None]


async def test_trap_is_repressed_only_while_somebody_listens() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        await subnet.stop_sm()
        smi = SubnetManagement(subnet.port("sm/1"))
        b, sent = subnet.port("b/1"), []
        subnet.fabric.tap(lambda _now, port, packet: sent.append(packet) if port.name == "sm/1" else None)
        notice = Notice(type=1, producer_type=2, trap_number=TrapNumber.LINK_STATE_CHANGED)
        trap = LidRoutedSmp(
            method=Method.TRAP, transaction_id=5, attribute_id=SmpAttribute.NOTICE, data=notice.encode()[:64]
        )
        b.send(smp_packet(trap, b.lid, subnet.port("sm/1").lid))
        await asyncio.sleep(0.01)
        assert sent == []
        heard: list[int] = []
        end = smi.watch_traps(lambda lid, _notice: heard.append(lid))
        b.send(smp_packet(trap, b.lid, subnet.port("sm/1").lid))
        await asyncio.sleep(0.01)
        assert heard == [b.lid]
        repress = LidRoutedSmp.decode(sent[0], 28)
        assert (repress.method, repress.transaction_id) == (Method.TRAP_REPRESS, 5)
        end()
        end()
        smi.close()
