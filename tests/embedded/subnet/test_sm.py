"""The subnet manager over real SMPs: bring-up, changes, losses, restarts."""

from __future__ import annotations

import asyncio

import pytest
from managed import Subnet, fat_tree, managed, two_switches

from srpha.core.seams import MadAddress, MadTimeoutError
from srpha.embedded.fabric.ports import Impairment, PortEvent, Traffic
from srpha.embedded.fabric.topology import Topology
from srpha.embedded.subnet.configure import Partition
from srpha.embedded.subnet.sm import SubnetManager, SubnetSettings
from srpha.embedded.subnet.smi import SubnetManagement
from srpha.embedded.virtual_time import run_virtual
from srpha.wire.mad import MadHeader, Method, build_mad, read_header
from srpha.wire.sa import SaAttribute
from srpha.wire.smp import PortCapability, PortState, SmState

ALONE = SubnetSettings(sweep_interval=1e6)
"""Nothing but causes makes it sweep."""


def lids(subnet: Subnet) -> dict[str, int]:
    return {name: gsi.port.lid for name, gsi in subnet.gsi.items()}


async def reaches(subnet: Subnet, source: str, destination: str) -> bool:
    mad = build_mad(MadHeader(mgmt_class=0x0A, method=1))
    try:
        answer = await subnet.gsi[source].transact(
            MadAddress(lid=subnet.port(destination).lid), mad, timeout=0.01, retries=0
        )
    except MadTimeoutError:
        return False
    return read_header(answer).status == 0x000C


def impair(subnet: Subnet, name: str, impairment: Impairment) -> None:
    port = subnet.port(name)
    port.tx_impairments = port.rx_impairments = (impairment,)
    subnet.fabric.changed()


async def test_two_switches_come_up() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        for gsi in subnet.gsi.values():
            port = gsi.port
            assert port.state is PortState.ACTIVE
            assert port.sm_lid == subnet.port("sm/1").lid == 1
            assert port.subnet_timeout == 18
        assert len(set(lids(subnet).values())) == 4
        for node in subnet.fabric.nodes.values():
            for port in node.ports:
                assert port.state is (PortState.ACTIVE if port.trained else PortState.DOWN)
        for source in subnet.gsi:
            for destination in subnet.gsi:
                assert await reaches(subnet, source, destination)
        assert subnet.sm.silent == ()
        info = subnet.port("sm/1").sm_info
        assert info is not None
        assert info.state == SmState.MASTER
        assert subnet.port("sm/1").capability_mask & PortCapability.SM


async def test_parallel_cables_share_the_load() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        left = subnet.fabric.node("left")
        ways = [left.lft[subnet.port(name).lid] for name in ("a/2", "b/1")]
        assert sorted(ways) == [5, 6]


async def test_two_hundred_hcas() -> None:
    async with managed(fat_tree(200), "h0/1") as subnet:
        assert len(subnet.sm.view.end_ports) == 200 + 13 + 4
        assert len(set(lids(subnet).values())) == 200
        for n in range(0, 200, 17):
            assert await reaches(subnet, f"h{n}/1", f"h{199 - n}/1")
        sent = subnet.smi.sent
        await subnet.sm.sweep()
        assert subnet.sm.sweeps >= 2
        assert subnet.smi.sent - sent < sent  # reads only


async def test_back_to_back() -> None:
    topology = two_switches()
    nodes = tuple(node for node in topology.nodes if node.name in ("sm", "b"))
    link = topology.links[0]
    cable = type(link)(a=link.a, b=topology.links[3].a)
    async with managed(Topology(nodes, (cable,)), "sm/1") as subnet:
        assert await reaches(subnet, "b/1", "sm/1")


async def test_without_a_cable() -> None:
    nodes = tuple(node for node in two_switches().nodes if node.name == "sm")
    async with managed(Topology(nodes, ()), "sm/1") as subnet:
        assert subnet.sm.view.end_ports == ()
        assert subnet.port("sm/1").lid == 1


async def test_same_run_same_result() -> None:
    async def once() -> tuple[dict[str, int], list[bytes], float]:
        async with managed(fat_tree(40), "h3/1") as subnet:
            tables = [bytes(node.lft[:128]) for node in subnet.fabric.nodes.values()]
            return lids(subnet), tables, asyncio.get_running_loop().time()

    first = await once()
    assert first[:2] == (await once())[:2]


def test_two_runs_are_one() -> None:
    async def log() -> list[tuple[float, str, bytes]]:
        packets: list[tuple[float, str, bytes]] = []
        async with asyncio.TaskGroup() as group:
            subnet = Subnet(fat_tree(20), group)
            subnet.fabric.tap(lambda now, port, packet: packets.append((now, port.name, packet)))
            await subnet.start_sm("h3/1")
            subnet.fabric.set_plugged("h9/1", plugged=False)
            await asyncio.sleep(25)
            await subnet.stop_sm()
        return packets

    assert run_virtual(log()) == run_virtual(log())


async def test_lids_are_stable() -> None:
    async with managed(two_switches(), "sm/1", ALONE) as subnet:
        before = lids(subnet)
        events: list[PortEvent] = []
        for gsi in subnet.gsi.values():
            gsi.port.watch(events.append)
        for _ in range(3):
            await subnet.sm.sweep()
        assert lids(subnet) == before
        subnet.fabric.set_power(subnet.fabric.node("b"), powered=False)
        await subnet.sm.sweep()
        subnet.fabric.set_power(subnet.fabric.node("b"), powered=True)
        await subnet.sm.sweep()
        assert lids(subnet) == before
        assert await reaches(subnet, "b/1", "a/1")


async def test_quiet_sweeps_change_nothing() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        await asyncio.sleep(1)
        events: list[PortEvent] = []
        for node in subnet.fabric.nodes.values():
            for port in node.all_ports():
                port.watch(events.append)
        epoch = subnet.fabric.epoch
        await asyncio.sleep(100)
        assert subnet.sm.sweeps >= 10
        assert subnet.fabric.epoch == epoch
        assert events == []


async def test_link_down_and_up() -> None:
    async with managed(two_switches(), "sm/1", ALONE) as subnet:
        await asyncio.sleep(1)
        view = subnet.sm.view
        subnet.fabric.set_plugged("b/1", plugged=False)
        await asyncio.sleep(0.5)  # trap 128 of the switch makes it sweep
        b = subnet.port("b/1")
        assert b.guid in view.by_guid
        assert b.guid not in subnet.sm.view.by_guid
        subnet.fabric.set_plugged("b/1", plugged=True)
        await asyncio.sleep(0.5)
        assert b.state is PortState.ACTIVE
        assert subnet.sm.view.by_guid[b.guid].lid == view.by_guid[b.guid].lid
        assert await reaches(subnet, "a/1", "b/1")


async def test_cable_between_switches() -> None:
    async with managed(two_switches(), "sm/1", ALONE) as subnet:
        await asyncio.sleep(1)
        for name in ("left/5", "left/6"):
            subnet.fabric.set_plugged(name, plugged=False)
            await asyncio.sleep(0.5)
            connected = name == "left/5"
            assert await reaches(subnet, "a/1", "b/1") is connected
            assert (subnet.port("b/1").guid in subnet.sm.view.by_guid) is connected
        assert subnet.port("a/1").guid in subnet.sm.view.by_guid
        for name in ("left/5", "left/6"):
            subnet.fabric.set_plugged(name, plugged=True)
        await asyncio.sleep(0.5)
        assert await reaches(subnet, "a/1", "b/1")


async def test_several_causes_make_few_sweeps() -> None:
    async with managed(fat_tree(40), "h0/1", ALONE) as subnet:
        await asyncio.sleep(1)
        sweeps = subnet.sm.sweeps
        for n in range(1, 11):
            subnet.fabric.set_plugged(f"h{n}/1", plugged=False)
        await asyncio.sleep(2)
        assert 1 <= subnet.sm.sweeps - sweeps <= 2
        assert len(subnet.sm.view.end_ports) == 30 + 3 + 4


async def test_switch_power_cycle() -> None:
    async with managed(two_switches(), "sm/1", ALONE) as subnet:
        await asyncio.sleep(1)
        before = lids(subnet)
        right = subnet.fabric.node("right")
        subnet.fabric.set_power(right, powered=False)
        await asyncio.sleep(0.5)
        assert len(subnet.sm.view.end_ports) == 3  # sm, a/1, left
        subnet.fabric.set_power(right, powered=True)
        await asyncio.sleep(0.5)
        assert lids(subnet) == before
        assert await reaches(subnet, "b/1", "sm/1")
        assert await reaches(subnet, "a/2", "sm/1")


async def test_own_link_down_and_up() -> None:
    async with managed(two_switches(), "sm/1", ALONE) as subnet:
        await asyncio.sleep(1)
        subnet.fabric.set_plugged("sm/1", plugged=False)
        await asyncio.sleep(0.5)
        assert subnet.sm.view.end_ports == ()
        assert await reaches(subnet, "a/1", "b/1")  # the subnet works on without manager
        subnet.fabric.set_plugged("sm/1", plugged=True)
        await asyncio.sleep(0.5)
        assert len(subnet.sm.view.end_ports) == 6
        assert await reaches(subnet, "a/1", "sm/1")


async def test_silent_node_is_left_out() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        impair(subnet, "b/1", Impairment(probability=1.0))
        before = loop.time()
        await subnet.sm.sweep()
        assert loop.time() - before < 1.5
        assert subnet.port("b/1").guid not in subnet.sm.view.by_guid
        right = subnet.fabric.node("right")
        assert subnet.sm.silent == ((right.node_guid, 1),)
        before = loop.time()
        await subnet.sm.sweep()
        assert loop.time() - before < 0.5  # known to be silent: one try
        assert await reaches(subnet, "a/2", "sm/1")
        port = subnet.port("b/1")
        port.tx_impairments = port.rx_impairments = ()
        subnet.fabric.changed()
        await asyncio.sleep(11)  # no trap tells: the timer finds it
        assert port.guid in subnet.sm.view.by_guid
        assert subnet.sm.silent == ()


@pytest.mark.parametrize("probability", [0.05, 0.2])
async def test_lossy_fabric_still_comes_up(probability: float, seed: int) -> None:
    async with asyncio.TaskGroup() as group:
        subnet = Subnet(fat_tree(20, spines=2), group)
        subnet.fabric._rng.seed(seed)
        for n in range(20):
            impair(subnet, f"h{n}/1", Impairment(kinds=Traffic.MAD, probability=probability))
        await subnet.start_sm("h0/1")
        await asyncio.sleep(60)
        for n in range(20):
            port = subnet.port(f"h{n}/1")
            port.tx_impairments = port.rx_impairments = ()
        subnet.fabric.changed()
        await asyncio.sleep(11)
        assert len(subnet.sm.view.end_ports) == 20 + 2 + 2
        assert await reaches(subnet, "h1/1", "h19/1")
        await subnet.stop_sm()


async def test_restart_on_another_node() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        await asyncio.sleep(1)
        before = lids(subnet)
        heard: list[PortEvent] = []
        subnet.port("a/1").watch(heard.append)
        await subnet.stop_sm()
        assert subnet.port("sm/1").sm_info is None
        assert not subnet.port("sm/1").capability_mask & PortCapability.SM
        await asyncio.sleep(30)
        assert heard == []
        await subnet.start_sm("b/1")
        await asyncio.sleep(1)
        assert lids(subnet) == before  # taken over
        assert {gsi.port.sm_lid for gsi in subnet.gsi.values()} == {before["b/1"]}
        assert heard == [PortEvent.SM_CHANGE, PortEvent.CLIENT_REREGISTER]


async def test_restart_with_new_lids() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        before = lids(subnet)
        await subnet.stop_sm()
        await subnet.start_sm("b/1", SubnetSettings(new_lids=True))
        assert not set(lids(subnet).values()) & set(before.values())
        for destination in subnet.gsi:
            assert await reaches(subnet, "a/2", destination)


async def test_reassign_lids() -> None:
    async with managed(two_switches(), "sm/1", ALONE) as subnet:
        before = lids(subnet)
        subnet.sm.reassign_lids([subnet.port("b/1").guid])
        await subnet.sm.sweep()
        after = lids(subnet)
        assert after["b/1"] not in before.values()
        assert {k: v for k, v in after.items() if k != "b/1"} == {k: v for k, v in before.items() if k != "b/1"}
        assert await reaches(subnet, "a/1", "b/1")
        subnet.sm.reassign_lids()
        await subnet.sm.sweep()
        assert not set(lids(subnet).values()) & (set(before.values()) | set(after.values()))
        assert subnet.port("b/1").sm_lid == subnet.port("sm/1").lid
        assert await reaches(subnet, "b/1", "sm/1")


async def test_consumers_are_asked_to_subscribe_anew() -> None:
    async with managed(two_switches(), "sm/1", ALONE) as subnet:
        await asyncio.sleep(1)
        asked: list[str] = []
        for name, gsi in subnet.gsi.items():
            gsi.port.watch(lambda e, n=name: asked.append(n) if e is PortEvent.CLIENT_REREGISTER else None)
        await subnet.sm.sweep()
        assert asked == []
        subnet.sm.reassign_lids([subnet.port("b/1").guid])
        await subnet.sm.sweep()
        await asyncio.sleep(0.1)
        assert asked == ["b/1"]
        subnet.sm.reassign_lids([subnet.port("sm/1").guid])
        await subnet.sm.sweep()
        await asyncio.sleep(0.1)
        assert sorted(asked[1:]) == sorted(subnet.gsi)


async def test_partitions() -> None:
    async with managed(two_switches(), "sm/1", ALONE) as subnet:
        a, b = subnet.port("a/1"), subnet.port("b/1")
        everybody = Partition(0x7FFF)
        subnet.sm.set_partitions((everybody, Partition(0x0012, frozenset({a.guid}), frozenset({b.guid}))))
        await subnet.sm.sweep()
        assert a.pkeys[:3] == [0xFFFF, 0x8012, 0]
        assert b.pkeys[:3] == [0xFFFF, 0x0012, 0]
        assert subnet.port("a/2").pkeys[:2] == [0xFFFF, 0]
        heard: list[PortEvent] = []
        b.watch(heard.append)
        subnet.sm.set_partitions((everybody,))
        await subnet.sm.sweep()
        assert b.pkeys[:2] == [0xFFFF, 0]
        assert heard == [PortEvent.PKEY_CHANGE]


async def test_pkey_removed_behind_the_managers_back() -> None:
    pair = (Partition(0x7FFF), Partition(0x12))
    async with managed(two_switches(), "sm/1", SubnetSettings(partitions=pair, sweep_interval=1e6)) as subnet:
        b = subnet.port("b/1")
        assert b.pkeys[:2] == [0xFFFF, 0x8012]
        b.set_pkeys(1, (0,))
        await subnet.sm.sweep()
        assert b.pkeys[:2] == [0xFFFF, 0]  # not fought
        assert subnet.sm.view.by_guid[b.guid].pkeys == (0xFFFF,)
        subnet.fabric.set_plugged("b/1", plugged=False)
        await subnet.sm.sweep()
        subnet.fabric.set_plugged("b/1", plugged=True)
        await subnet.sm.sweep()
        assert b.pkeys[:2] == [0xFFFF, 0x8012]  # a port that comes up is set up


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="0x8012"):
        Partition(0x8012)


async def test_manager_without_its_node() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        view = subnet.sm.view
        subnet.fabric.set_power(subnet.fabric.node("sm"), powered=False)
        await asyncio.sleep(30)
        assert subnet.sm.failed_sweeps > 0
        assert subnet.sm.view is view  # unknown is not empty
        subnet.fabric.set_power(subnet.fabric.node("sm"), powered=True)
        await asyncio.sleep(30)
        assert len(subnet.sm.view.end_ports) == 6
        assert await reaches(subnet, "a/1", "sm/1")


@pytest.mark.parametrize("delay", [0.0, 2e-5, 0.5, 11.0])
async def test_another_manager_in_the_same_turn_of_the_loop(delay: float) -> None:
    async with asyncio.TaskGroup() as group:
        subnet = Subnet(two_switches(), group)
        port, gsi = subnet.port("sm/1"), subnet.gsi["sm/1"]
        tasks: list[asyncio.Task[None]] = []
        for turn in range(3):
            smi = SubnetManagement(port)
            sm = SubnetManager(port, smi, gsi)
            tasks.append(group.create_task(sm.run()))
            if turn < 2:
                await asyncio.sleep(delay)
                tasks[-1].cancel()
                smi.close()
        await sm.ready()
        await asyncio.sleep(1)
        assert len(sm.view.end_ports) == 6
        assert port.sm_info is not None
        assert port.capability_mask & PortCapability.SM
        assert [task.done() for task in tasks] == [True, True, False]
        answer = await subnet.ask("a/1", Method.GET, SaAttribute.CLASS_PORT_INFO)
        assert read_header(answer).status == 0
        tasks[-1].cancel()
        smi.close()


async def test_stop_frees_the_port() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        waiting = asyncio.ensure_future(subnet.sm.sweep())
        await subnet.stop_sm()
        await asyncio.wait([waiting])
        await subnet.start_sm("sm/1")
        assert isinstance(subnet.sm, SubnetManager)
        assert len(subnet.sm.view.end_ports) == 6
