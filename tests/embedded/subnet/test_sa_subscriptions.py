"""Notices to subscribers over real packets: delivery, repeats, ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from managed import Subnet, managed, two_switches

from srpha.core.seams import ReceivedMad
from srpha.embedded.fabric.ports import Impairment, Traffic
from srpha.embedded.mads.mad_port import EmbeddedMadPort
from srpha.embedded.subnet.configure import Partition
from srpha.embedded.subnet.sa import AdministratorSettings
from srpha.embedded.subnet.sa_subscriptions import ReportSettings
from srpha.embedded.subnet.sm import SubnetSettings
from srpha.embedded.subnet.smi import SmpSettings
from srpha.wire.mad import Method, read_header, status_response
from srpha.wire.notice import (
    CapabilityTrap144,
    GidTrap,
    InformInfo,
    InformInfoMask,
    Trap,
    TrapNumber,
    capability_subscription,
    gid_subscription,
    read_notice,
    read_trap,
)
from srpha.wire.sa import SaAttribute, SaStatus, decode_record
from srpha.wire.smp import PortCapability

DM = PortCapability.DEVICE_MANAGEMENT
IN, OUT = TrapNumber.GID_IN_SERVICE, TrapNumber.GID_OUT_OF_SERVICE


class Subscriber:
    """A MadPort that keeps what it is told, and answers it unless it is told not to."""

    def __init__(self, subnet: Subnet, name: str) -> None:
        self.port = EmbeddedMadPort("mlx5_0", subnet.port(name), subnet.gsi[name])
        self.traps: list[Trap | None] = []
        self.mads: list[bytes] = []
        self.answers = True
        self.port.watch_reports(self._report)

    def _report(self, received: ReceivedMad) -> None:
        self.mads.append(received.mad)
        self.traps.append(read_trap(read_notice(received.mad, 56)))
        if self.answers:
            self.port.reply(received.source, status_response(received.mad, 0))


async def subscribe(subnet: Subnet, name: str, wanted: tuple[InformInfo, InformInfoMask]) -> int:
    info, mask = wanted
    return await subnet.status(name, Method.SET, SaAttribute.INFORM_INFO, info, int(mask))


async def subscribe_all(subnet: Subnet, name: str) -> Subscriber:
    for wanted in (gid_subscription(IN), gid_subscription(OUT), capability_subscription()):
        assert await subscribe(subnet, name, wanted) == 0
    return Subscriber(subnet, name)


def lossy(subnet: Subnet, name: str, probability: float) -> None:
    port = subnet.port(name)
    port.tx_impairments = port.rx_impairments = (Impairment(kinds=Traffic.MAD, probability=probability),)
    subnet.fabric.changed()


async def test_gid_out_of_service_and_back() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        await asyncio.sleep(1)
        told = await subscribe_all(subnet, "a/1")
        gid = subnet.port("b/1").gid
        subnet.fabric.set_plugged("b/1", plugged=False)
        await asyncio.sleep(0.5)
        assert told.traps == [GidTrap(OUT, gid)]
        subnet.fabric.set_plugged("b/1", plugged=True)
        await asyncio.sleep(0.5)
        assert told.traps == [GidTrap(OUT, gid), GidTrap(IN, gid)]
        await asyncio.sleep(30)
        assert len(told.traps) == 2
        subscriptions = subnet.sm.administrator.subscriptions
        assert (subscriptions.delivered, subscriptions.undelivered) == (2, 0)


async def test_bounce_quicker_than_a_sweep_is_still_told() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        await asyncio.sleep(1)
        told = await subscribe_all(subnet, "a/1")
        subnet.fabric.set_plugged("b/1", plugged=False)
        subnet.fabric.set_plugged("b/1", plugged=True)
        await asyncio.sleep(0.5)
        assert told.traps == [GidTrap(IN, subnet.port("b/1").gid)]


async def test_report_as_it_stands_on_the_wire() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        told = await subscribe_all(subnet, "a/1")
        subnet.fabric.set_power(subnet.fabric.node("b"), powered=False)
        await asyncio.sleep(0.5)
        header = read_header(told.mads[0])
        assert (header.mgmt_class, header.class_version, header.method, header.attribute_id) == (3, 2, 0x06, 0x0002)
        notice = read_notice(told.mads[0], 56)
        sm = subnet.port("sm/1")
        assert (notice.type, notice.producer_type, notice.trap_number) == (3, 4, 65)
        assert (notice.issuer_lid, notice.issuer_gid) == (sm.lid, sm.gid)


async def test_capability_change() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        await asyncio.sleep(1)
        told = await subscribe_all(subnet, "a/1")
        b = subnet.port("b/1")
        b.set_capability(DM, on=True)
        await asyncio.sleep(0.5)
        assert told.traps == [CapabilityTrap144(lid=b.lid, capability_mask=b.capability_mask)]
        assert subnet.sm.view.by_lid[b.lid].info.is_device_management_supported  # before the Report went out
        b.set_capability(DM, on=False)
        await asyncio.sleep(0.5)
        assert told.traps[1:] == [CapabilityTrap144(lid=b.lid, capability_mask=b.capability_mask)]


async def test_capability_change_whose_trap_is_lost() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        await asyncio.sleep(1)
        told = await subscribe_all(subnet, "a/1")
        b = subnet.port("b/1")
        lossy(subnet, "b/1", 1.0)
        b.set_capability(DM, on=True)
        await asyncio.sleep(0.2)
        b.tx_impairments = b.rx_impairments = ()
        subnet.fabric.changed()
        await asyncio.sleep(30)
        assert CapabilityTrap144(lid=b.lid, capability_mask=b.capability_mask) in told.traps


async def test_lost_reports_are_repeated(seed: int) -> None:
    settings = SubnetSettings(
        administrator=AdministratorSettings(reports=ReportSettings(retries=20)), sweep_interval=1e6
    )
    # The sweep after the trap loses packets too: with less patience the subscriber might leave the subnet in it.
    async with managed(two_switches(), "sm/1", settings, SmpSettings(retries=20)) as subnet:
        await asyncio.sleep(1)
        told = await subscribe_all(subnet, "b/1")
        subnet.fabric._rng.seed(seed)
        b = subnet.port("b/1")
        b.tx_impairments = b.rx_impairments = (Impairment(kinds=Traffic.MAD, probability=0.3),)
        subnet.fabric.changed()
        subnet.port("a/2").set_capability(DM, on=True)
        await asyncio.sleep(60)
        own = [trap for trap in told.traps if isinstance(trap, CapabilityTrap144)]
        assert own
        assert {trap.lid for trap in own} == {subnet.port("a/2").lid}
        assert subnet.sm.administrator.subscriptions.delivered >= 1


async def test_report_is_repeated_until_answered() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        await asyncio.sleep(1)
        told = await subscribe_all(subnet, "a/1")
        told.answers = False
        subnet.port("b/1").set_capability(DM, on=True)
        await asyncio.sleep(2.5)
        assert len(told.mads) == 3
        assert len(set(told.mads)) == 1
        told.answers = True
        await asyncio.sleep(30)
        assert len(told.mads) == 4
        assert len(subnet.sm.administrator.subscriptions) == 3


async def test_mute_subscriber_is_dropped_and_delays_nobody() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        await asyncio.sleep(1)
        mute, told = await subscribe_all(subnet, "a/1"), await subscribe_all(subnet, "a/2")
        mute.answers = False
        b = subnet.port("b/1")
        for n in range(4):
            b.set_capability(DM, on=n % 2 == 0)
            await asyncio.sleep(0.5)
            assert len(told.traps) == n + 1
        await asyncio.sleep(30)
        subscriptions = subnet.sm.administrator.subscriptions
        assert len(subscriptions) == 3
        assert len(set(mute.mads)) == 2
        assert subscriptions.delivered == 4
        mute.answers = True
        assert await subscribe(subnet, "a/1", capability_subscription()) == 0
        b.set_capability(DM, on=True)
        await asyncio.sleep(0.5)
        assert len(set(mute.mads)) == 3


async def test_order_is_kept_for_a_slow_subscriber() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        await asyncio.sleep(1)
        told = await subscribe_all(subnet, "a/1")
        told.answers = False
        gid = subnet.port("b/1").gid
        for plugged in (False, True, False):
            subnet.fabric.set_plugged("b/1", plugged=plugged)
            await asyncio.sleep(0.3)
        told.answers = True
        await asyncio.sleep(10)
        assert list(dict.fromkeys(told.mads)) != []
        order = [trap for n, trap in enumerate(told.traps) if told.mads[n] not in told.mads[:n]]
        assert order == [GidTrap(OUT, gid), GidTrap(IN, gid), GidTrap(OUT, gid)]


async def test_subscribing_twice_is_once_and_ending_is_exact() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        subscriptions = subnet.sm.administrator.subscriptions
        for _ in range(3):
            assert await subscribe(subnet, "a/1", gid_subscription(IN)) == 0
        assert len(subscriptions) == 1
        end = gid_subscription(IN, subscribe=False, qpn=1)
        assert await subscribe(subnet, "a/2", end) == SaStatus.REQUEST_INVALID
        assert await subscribe(subnet, "a/1", gid_subscription(OUT, subscribe=False, qpn=1)) == SaStatus.REQUEST_INVALID
        assert await subscribe(subnet, "a/1", end) == 0
        assert len(subscriptions) == 0
        assert await subscribe(subnet, "a/1", end) == SaStatus.REQUEST_INVALID


async def test_answer_repeats_the_inform_info() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        info, mask = capability_subscription()
        reply = await subnet.ask("a/1", Method.SET, SaAttribute.INFORM_INFO, info, int(mask))
        assert read_header(reply).method == Method.GET_RESP
        assert decode_record(reply, InformInfo) == info


async def test_too_many_subscriptions() -> None:
    settings = SubnetSettings(administrator=AdministratorSettings(reports=ReportSettings(most_subscriptions=2)))
    async with managed(two_switches(), "sm/1", settings) as subnet:
        info, mask = gid_subscription(IN)
        answers = [await subscribe(subnet, "a/1", (replace(info, trap_number=n), mask)) for n in (64, 65, 66, 64)]
        assert answers == [0, 0, SaStatus.NO_RESOURCES, 0]


@pytest.mark.parametrize(("begin", "end", "heard"), [(1, 100, True), (50, 100, False), (0xFFFF, 0, True)])
async def test_lid_range(begin: int, end: int, heard: bool) -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        info, mask = capability_subscription()
        wanted = replace(info, lid_range_begin=begin, lid_range_end=end)
        assert await subscribe(subnet, "a/1", (wanted, mask)) == 0
        told = Subscriber(subnet, "a/1")
        subnet.port("b/1").set_capability(DM, on=True)
        await asyncio.sleep(0.5)
        assert bool(told.traps) is heard


async def test_one_gid_only() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        info, mask = capability_subscription()
        wanted = replace(info, gid=subnet.port("b/1").gid, lid_range_begin=0)
        assert await subscribe(subnet, "a/1", (wanted, mask)) == 0
        told = Subscriber(subnet, "a/1")
        for name in ("a/2", "b/1"):
            subnet.port(name).set_capability(DM, on=True)
        await asyncio.sleep(1)
        lids = {trap.lid for trap in told.traps if isinstance(trap, CapabilityTrap144)}
        assert lids == {subnet.port("b/1").lid}


async def test_gid_notices_stay_within_a_partition() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        everyone = Partition(0x7FFF, full=frozenset({subnet.port("sm/1").guid}), limited=None)
        subnet.sm.set_partitions((everyone,))
        await subnet.sm.sweep()
        told, sm = await subscribe_all(subnet, "a/1"), await subscribe_all(subnet, "sm/1")
        subnet.fabric.set_plugged("b/1", plugged=False)
        await asyncio.sleep(0.5)
        assert told.traps == []
        assert sm.traps == [GidTrap(OUT, subnet.port("b/1").gid)]


async def test_subscribers_that_leave_are_forgotten() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        await asyncio.sleep(1)
        await subscribe_all(subnet, "b/1")
        subnet.fabric.set_plugged("b/1", plugged=False)
        await asyncio.sleep(0.5)
        assert len(subnet.sm.administrator.subscriptions) == 0


async def test_subscriptions_end_with_the_manager() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        told = await subscribe_all(subnet, "a/1")
        await subnet.stop_sm()
        subnet.port("b/1").set_capability(DM, on=True)
        await asyncio.sleep(5)
        await subnet.start_sm("b/1")
        await asyncio.sleep(5)
        assert told.traps == []
        assert len(subnet.sm.administrator.subscriptions) == 0


async def test_nobody_listens_at_the_subscribers_port() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        assert await subscribe(subnet, "a/1", capability_subscription()) == 0
        for on in (True, False, True):
            subnet.port("b/1").set_capability(DM, on=on)
            await asyncio.sleep(10)
        subscriptions = subnet.sm.administrator.subscriptions
        assert (len(subscriptions), subscriptions.undelivered) == (0, 2)
