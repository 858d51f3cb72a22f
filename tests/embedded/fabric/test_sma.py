from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from srpha.embedded.fabric.hardware import Fabric, Port, PortEvent
from srpha.wire.layout import Structure
from srpha.wire.mad import Method
from srpha.wire.notice import CapabilityTrap144, LidTrap128, Notice, read_trap
from srpha.wire.smp import (
    DirectedRouteSmp,
    GuidInfoBlock,
    LidRoutedSmp,
    LinearForwardingTableBlock,
    NodeDescription,
    NodeInfo,
    PkeyTableBlock,
    PortCapability,
    PortInfo,
    PortState,
    SmInfo,
    SmpAttribute,
    SwitchInfo,
    directed_path,
    read_smp,
)
from tests.embedded.fabric.by_hand import configure, make_fabric, payload_of, smp_packet


class Manager:
    """QP0 of one port: asks by directed routes, keeps what else arrives."""

    def __init__(self, fabric: Fabric, ref: str = "a/1") -> None:
        self.port: Port = fabric.port(ref)
        self.heard: list[DirectedRouteSmp | LidRoutedSmp] = []
        self.port.bind(0, lambda packet: self.heard.append(read_smp(payload_of(packet))))

    async def ask(
        self,
        path: tuple[int, ...],
        attribute: SmpAttribute,
        modifier: int = 0,
        value: Structure | None = None,
    ) -> DirectedRouteSmp | None:
        """The answer, ``None`` when none came within 10 ms."""
        before = len(self.heard)
        smp = DirectedRouteSmp(
            method=Method.GET if value is None else Method.SET,
            hop_count=len(path),
            transaction_id=0x1234,
            attribute_id=attribute,
            attribute_modifier=modifier,
            data=b"" if value is None else value.encode(),
            initial_path=directed_path(path),
        )
        self.port.send(smp_packet(smp))
        await asyncio.sleep(0.01)
        answers = [answer for answer in self.heard[before:] if isinstance(answer, DirectedRouteSmp)]
        return answers[0] if answers else None

    async def get(self, path: tuple[int, ...], attribute: SmpAttribute, modifier: int = 0) -> DirectedRouteSmp:
        answer = await self.ask(path, attribute, modifier)
        assert answer is not None
        return answer

    async def set(self, path: tuple[int, ...], attribute: SmpAttribute, modifier: int, value: Structure) -> int:
        answer = await self.ask(path, attribute, modifier, value)
        assert answer is not None
        assert answer.method == Method.GET_RESP
        return answer.status


async def test_node_info_by_directed_route_of_every_length() -> None:
    manager = Manager(make_fabric())
    names = []
    for path in ((), (1,), (1, 3), (1, 3, 1), (1, 3, 2)):
        answer = await manager.get(path, SmpAttribute.NODE_INFO)
        assert (answer.status, answer.direction, answer.hop_pointer, answer.transaction_id) == (0, 1, 0, 0x1234)
        text = (await manager.get(path, SmpAttribute.NODE_DESCRIPTION)).data
        info = NodeInfo.decode(answer.data)
        names.append((NodeDescription.decode(text).display, int(info.node_type), info.port_count, info.local_port))
    assert names == [("a", 1, 2, 1), ("left", 2, 4, 1), ("right", 2, 4, 3), ("b", 1, 1, 1), ("a", 1, 2, 2)]


async def test_return_path_is_filled_on_the_way() -> None:
    manager = Manager(make_fabric())
    answer = await manager.get((1, 3, 2), SmpAttribute.NODE_INFO)
    assert answer.return_path[:5] == bytes((0, 1, 3, 2, 0))


@pytest.mark.parametrize("path", [(2,), (1, 4), (1, 9), (1, 0), (1, 3, 1, 1), (1, 3, 1, 1, 3), (1, 255)])
async def test_directed_routes_that_lead_nowhere_get_no_answer(path: tuple[int, ...]) -> None:
    fabric = make_fabric()
    manager = Manager(fabric)
    smp = DirectedRouteSmp(
        method=Method.GET,
        hop_count=len(path),
        attribute_id=SmpAttribute.NODE_INFO,
        initial_path=bytes((0, *path)).ljust(64, b"\0"),
    )
    manager.port.send(smp_packet(smp))
    await asyncio.sleep(0.1)
    assert manager.heard == []


@pytest.mark.parametrize(
    "change",
    [{"dr_slid": 1}, {"dr_dlid": 1}, {"hop_pointer": 1}, {"hop_count": 64}, {"direction": 1}, {"class_version": 2}],
)
async def test_odd_directed_smps_are_dropped(change: dict[str, int]) -> None:
    manager = Manager(make_fabric())
    smp = DirectedRouteSmp(
        method=Method.GET, hop_count=1, attribute_id=SmpAttribute.NODE_INFO, initial_path=directed_path((1,))
    )
    manager.port.send(smp_packet(replace(smp, **change)))
    await asyncio.sleep(0.1)
    assert manager.heard == []


async def test_smp_of_a_wrong_length_is_dropped() -> None:
    fabric = make_fabric()
    manager = Manager(fabric)
    manager.port.send(smp_packet(DirectedRouteSmp(method=Method.GET))[:-4])
    manager.port.send(smp_packet(DirectedRouteSmp(method=Method.GET)) + bytes(4))
    await asyncio.sleep(0.1)
    assert (manager.heard, fabric.dropped) == ([], 2)


async def test_unsupported_attributes_are_refused_by_status() -> None:
    manager = Manager(make_fabric())
    for path, attribute in (
        ((), SmpAttribute.SWITCH_INFO),
        ((), SmpAttribute.LINEAR_FORWARDING_TABLE),
        ((), SmpAttribute.SM_INFO),
        ((1,), SmpAttribute.VL_ARBITRATION),
        ((1,), SmpAttribute.SL_TO_VL_TABLE),
    ):
        assert (await manager.get(path, attribute)).status == 0x000C
    assert await manager.set((1,), SmpAttribute.NODE_INFO, 0, NodeInfo()) == 0x000C


async def test_port_comes_up_by_port_info() -> None:
    fabric = make_fabric()
    manager = Manager(fabric)
    port = fabric.port("b/1")
    events: list[PortEvent] = []
    port.watch(events.append)
    path = (1, 3, 1)
    info = PortInfo.decode((await manager.get(path, SmpAttribute.PORT_INFO)).data)
    assert (info.state, info.phys_state, info.lid, info.mtu_cap) == (PortState.INIT, 5, 0, 5)
    assert info.capability_mask & PortCapability.COMMUNICATION_MANAGEMENT
    wanted = replace(info, lid=7, sm_lid=3, sm_sl=1, state=3, phys_state=0, subnet_timeout=16, client_reregister=1)
    assert await manager.set(path, SmpAttribute.PORT_INFO, 1, wanted) == 0
    assert (port.lid, port.sm_lid, port.sm_sl, port.state, port.subnet_timeout) == (7, 3, 1, PortState.ARMED, 16)
    assert await manager.set(path, SmpAttribute.PORT_INFO, 1, replace(wanted, state=4, client_reregister=0)) == 0
    assert events == [
        PortEvent.LID_CHANGE,
        PortEvent.SM_CHANGE,
        PortEvent.CLIENT_REREGISTER,
        PortEvent.PORT_ACTIVE,
    ]


@pytest.mark.parametrize(
    "bad",
    [
        {"lid": 0},
        {"lid": 0xC000},
        {"sm_lid": 0},
        {"sm_lid": 0xFFFF},
        {"lmc": 2, "lid": 6},
        {"state": 4},
        {"state": 2},
        {"state": 5},
        {"phys_state": 4},
        {"neighbor_mtu": 6},
        {"operational_vls": 2},
    ],
)
async def test_bad_port_info_changes_nothing(bad: dict[str, int]) -> None:
    fabric = make_fabric()
    manager = Manager(fabric)
    good = PortInfo(lid=4, sm_lid=1, neighbor_mtu=4)
    assert await manager.set((1, 3, 1), SmpAttribute.PORT_INFO, 1, replace(good, **bad)) == 0x001C
    port = fabric.port("b/1")
    assert (port.lid, port.sm_lid, port.mtu, port.state) == (0, 0, 5, PortState.INIT)


async def test_switch_ports_are_set_by_number_and_have_no_lid() -> None:
    fabric = make_fabric()
    manager = Manager(fabric)
    assert await manager.set((1,), SmpAttribute.PORT_INFO, 3, PortInfo(lid=9, sm_lid=9, state=3)) == 0
    assert (fabric.port("left/3").state, fabric.port("left/3").lid) == (PortState.ARMED, 0)
    assert await manager.set((1,), SmpAttribute.PORT_INFO, 0, PortInfo(lid=9, sm_lid=1, state=3)) == 0
    assert (fabric.port("left/0").lid, fabric.port("left/0").state) == (9, PortState.ACTIVE)
    assert (await manager.get((1,), SmpAttribute.PORT_INFO, 5)).status == 0x001C
    assert PortInfo.decode((await manager.get((1,), SmpAttribute.PORT_INFO, 2)).data).state == PortState.DOWN


async def test_ca_ports_are_set_through_themselves_only() -> None:
    manager = Manager(make_fabric())
    assert (await manager.get((), SmpAttribute.PORT_INFO, 2)).status == 0
    assert await manager.set((), SmpAttribute.PORT_INFO, 2, PortInfo(lid=4, sm_lid=1)) == 0x001C


async def test_set_down_bounces_the_link_after_the_answer() -> None:
    fabric = make_fabric()
    manager = Manager(fabric)
    events: list[PortEvent] = []
    fabric.port("b/1").watch(events.append)
    assert await manager.set((1, 3), SmpAttribute.PORT_INFO, 1, PortInfo(state=1)) == 0
    assert events == [PortEvent.LINK_CHANGE, PortEvent.LINK_CHANGE]
    assert fabric.port("b/1").state is PortState.INIT


async def test_disabled_port_stays_down_until_polling_is_asked() -> None:
    fabric = make_fabric()
    manager = Manager(fabric)
    assert await manager.set((1, 3), SmpAttribute.PORT_INFO, 1, PortInfo(phys_state=3)) == 0
    assert fabric.port("b/1").state is PortState.DOWN
    assert PortInfo.decode((await manager.get((1, 3), SmpAttribute.PORT_INFO, 1)).data).phys_state == 3
    assert await manager.set((1, 3), SmpAttribute.PORT_INFO, 1, PortInfo(phys_state=2)) == 0
    assert fabric.port("b/1").state is PortState.INIT


async def test_pkey_table_blocks() -> None:
    fabric = make_fabric()
    manager = Manager(fabric)
    path = (1, 3, 1)
    assert PkeyTableBlock.decode((await manager.get(path, SmpAttribute.PKEY_TABLE)).data).pkeys[:2] == (0xFFFF, 0)
    assert await manager.set(path, SmpAttribute.PKEY_TABLE, 3, PkeyTableBlock.of((0x8001,))) == 0
    assert fabric.port("b/1").pkeys[96] == 0x8001
    assert (await manager.get(path, SmpAttribute.PKEY_TABLE, 4)).status == 0x001C
    assert (await manager.get((1,), SmpAttribute.PKEY_TABLE, 0)).status == 0
    assert (await manager.get((1,), SmpAttribute.PKEY_TABLE, 1 << 16)).status == 0x001C


async def test_guid_info_has_one_fixed_guid() -> None:
    fabric = make_fabric()
    manager = Manager(fabric)
    block = GuidInfoBlock.decode((await manager.get((1, 3, 1), SmpAttribute.GUID_INFO)).data)
    assert block.guids == (fabric.port("b/1").guid, 0, 0, 0, 0, 0, 0, 0)


async def test_forwarding_table_and_its_top() -> None:
    fabric = make_fabric()
    manager = Manager(fabric)
    table = LinearForwardingTableBlock(ports=bytes(range(64)))
    epoch = fabric.epoch
    assert await manager.set((1,), SmpAttribute.LINEAR_FORWARDING_TABLE, 2, table) == 0
    assert fabric.node("left").lft[128:192] == bytes(range(64))
    assert fabric.epoch > epoch
    assert (await manager.get((1,), SmpAttribute.LINEAR_FORWARDING_TABLE, 768)).status == 0x001C
    info = SwitchInfo.decode((await manager.get((1,), SmpAttribute.SWITCH_INFO)).data)
    assert (info.linear_fdb_capacity, info.linear_fdb_top) == (49152, 0)
    assert await manager.set((1,), SmpAttribute.SWITCH_INFO, 0, replace(info, linear_fdb_top=200)) == 0
    assert fabric.node("left").lft_top == 200
    assert await manager.set((1,), SmpAttribute.SWITCH_INFO, 0, replace(info, linear_fdb_top=49152)) == 0x001C


async def test_sm_info_where_a_manager_runs() -> None:
    fabric = make_fabric()
    manager = Manager(fabric)
    fabric.port("b/1").sm_info = SmInfo(guid=5, priority=3, state=3)
    info = SmInfo.decode((await manager.get((1, 3, 1), SmpAttribute.SM_INFO)).data)
    assert (info.guid, info.priority, info.state) == (5, 3, 3)


async def test_lid_routed_smps_reach_ports_and_switches() -> None:
    fabric = make_fabric()
    configure(fabric)
    manager = Manager(fabric)
    for name in ("b/1", "right/0", "left/0", "a/1"):
        smp = LidRoutedSmp(method=Method.GET, transaction_id=9, attribute_id=SmpAttribute.NODE_INFO)
        manager.port.send(smp_packet(smp, manager.port.lid, fabric.port(name).lid))
        await asyncio.sleep(0.1)
        answer = manager.heard[-1]
        assert isinstance(answer, LidRoutedSmp)
        assert NodeInfo.decode(answer.data).node_guid == fabric.port(name).node.node_guid
    assert len(manager.heard) == 4


async def test_link_state_trap_is_repeated_until_repressed() -> None:
    fabric = make_fabric()
    configure(fabric)
    manager = Manager(fabric)
    fabric.set_plugged("b/1", False)
    await asyncio.sleep(4)
    traps = [smp for smp in manager.heard if smp.method == Method.TRAP]
    assert len(traps) == 3  # after 0, 1.07 and 3.2 s
    trap = traps[0]
    assert read_trap(Notice.decode(trap.data.ljust(80, b"\0"))) == LidTrap128(fabric.port("right/0").lid)
    assert SwitchInfo.decode((await manager.get((1, 3), SmpAttribute.SWITCH_INFO)).data).port_state_change == 1
    manager.port.send(smp_packet(replace(trap, method=Method.TRAP_REPRESS), 1, fabric.port("right/0").lid))
    await asyncio.sleep(100)
    assert len([smp for smp in manager.heard if smp.method == Method.TRAP]) == 3


async def test_capability_trap_and_none_without_a_manager() -> None:
    fabric = make_fabric()
    port = fabric.port("b/1")
    port.set_capability(PortCapability.SM, True)  # nobody to tell
    configure(fabric)
    manager = Manager(fabric)
    port.set_capability(PortCapability.DEVICE_MANAGEMENT, True)
    await asyncio.sleep(0.1)
    assert len(manager.heard) == 1
    trap = read_trap(Notice.decode(manager.heard[0].data.ljust(80, b"\0")))
    assert trap == CapabilityTrap144(port.lid, port.capability_mask)


async def test_a_newer_trap_replaces_the_older_and_old_repress_is_ignored() -> None:
    fabric = make_fabric()
    configure(fabric)
    manager = Manager(fabric)
    fabric.set_plugged("b/1", False)
    await asyncio.sleep(0.1)
    fabric.set_plugged("b/1", True)
    await asyncio.sleep(0.1)
    first, second = manager.heard
    assert first.transaction_id != second.transaction_id
    manager.port.send(smp_packet(replace(first, method=Method.TRAP_REPRESS), 1, fabric.port("right/0").lid))
    await asyncio.sleep(2)
    assert len(manager.heard) == 3


async def test_powered_off_node_does_not_answer() -> None:
    fabric = make_fabric()
    manager = Manager(fabric)
    fabric.set_power(fabric.node("right"), False)
    assert await manager.ask((1, 3), SmpAttribute.NODE_INFO) is None
    fabric.set_power(fabric.node("right"), True)
    assert (await manager.get((1, 3), SmpAttribute.NODE_INFO)).status == 0
