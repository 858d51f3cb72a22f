"""Queries to the SA over real packets."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from managed import Subnet, fat_tree, managed, two_switches

from srpha.core.seams import MadAddress, MadTimeoutError
from srpha.embedded.fabric.ports import Impairment, Traffic
from srpha.embedded.subnet.configure import Partition
from srpha.embedded.subnet.sa import AdministratorSettings
from srpha.embedded.subnet.sm import SubnetSettings
from srpha.wire.class_port_info import ClassPortInfo
from srpha.wire.identifiers import Gid
from srpha.wire.mad import Method, read_header
from srpha.wire.notice import InformInfo, NoticeType, ProducerType
from srpha.wire.sa import (
    MATCH_CAPABILITY_BITS,
    NodeRecord,
    NodeRecordMask,
    PathRecord,
    PathRecordMask,
    PortInfoRecord,
    PortInfoRecordMask,
    SaAttribute,
    SaHeader,
    SaStatus,
    decode_record,
    decode_table,
    sa_request,
)
from srpha.wire.smp import NodeInfo, NodeType, PortCapability, PortInfo, PortState

DM = PortCapability.DEVICE_MANAGEMENT
N, P, R = SaAttribute.NODE_RECORD, SaAttribute.PORT_INFO_RECORD, SaAttribute.PATH_RECORD
GET, TABLE = Method.GET, Method.GET_TABLE


async def nodes(subnet: Subnet, name: str, record: NodeRecord | None = None, mask: int = 0) -> list[str]:
    reply = await subnet.ask(name, TABLE, N, record, mask)
    return [found.description_text for found in decode_table(reply, NodeRecord)]


async def paths(subnet: Subnet, name: str, record: PathRecord, mask: int) -> tuple[PathRecord, ...]:
    return decode_table(await subnet.ask(name, TABLE, R, record, mask), PathRecord)


# --- ClassPortInfo ---


@pytest.mark.parametrize("matching", [True, False])
async def test_class_port_info(matching: bool) -> None:
    settings = SubnetSettings(administrator=AdministratorSettings(capability_matching=matching))
    async with managed(two_switches(), "sm/1", settings) as subnet:
        info = decode_record(await subnet.ask("a/1", GET, SaAttribute.CLASS_PORT_INFO), ClassPortInfo)
        assert info.matches_capability_bits is matching
        assert (info.base_version, info.class_version) == (1, 2)
        assert not info.redirects


# --- NodeRecord ---


async def test_all_nodes() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        reply = await subnet.ask("a/1", TABLE, N)
        assert SaHeader.decode(reply).attribute_offset == 14
        records = decode_table(reply, NodeRecord)
        assert [record.description_text for record in records] == ["sm", "left", "a", "a", "right", "b"]
        by_lid = {record.lid: record.info for record in records}
        for gsi in subnet.gsi.values():
            info = by_lid[gsi.port.lid]
            assert (info.port_guid, info.local_port) == (gsi.port.guid, gsi.port.number)
            assert info.node_guid == gsi.port.node.node_guid


async def test_node_queries() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        b = subnet.port("b/1")
        assert await nodes(subnet, "a/1", NodeRecord(lid=b.lid), NodeRecordMask.LID) == ["b"]
        switch = NodeRecord.of(0, NodeInfo(node_type=NodeType.SWITCH), b"")
        assert await nodes(subnet, "a/1", switch, NodeRecordMask.NODE_TYPE) == ["left", "right"]
        named = NodeRecord(description=b"a".ljust(64, b"\0"))
        assert await nodes(subnet, "a/1", named, NodeRecordMask.NODE_DESCRIPTION) == ["a", "a"]
        one = await subnet.ask("a/1", GET, N, NodeRecord(lid=b.lid), NodeRecordMask.LID)
        assert decode_record(one, NodeRecord).info.port_guid == b.guid


async def test_refusals_look_as_opensm_makes_them() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        lid = NodeRecord(lid=77)
        assert await subnet.status("a/1", GET, N, lid, NodeRecordMask.LID) == SaStatus.NO_RECORDS
        assert await subnet.status("a/1", GET, N) == SaStatus.TOO_MANY_RECORDS
        assert await subnet.status("a/1", GET, 0x38) == 0x000C
        assert await subnet.status("a/1", Method.SET, N) == 0x000C
        assert await subnet.status("a/1", Method.DELETE, N) == 0x0008
        assert await subnet.status("a/1", GET, N, lid, 1 << 40) == SaStatus.REQUEST_INVALID
        empty = await subnet.ask("a/1", TABLE, N, lid, NodeRecordMask.LID)
        header = SaHeader.decode(empty)
        assert (header.mad.status, header.attribute_offset, len(empty)) == (0, 0, 56)
        refused = await subnet.ask("a/1", TABLE, 0x38, lid, 1)
        header = SaHeader.decode(refused)
        assert (header.mad.method, header.mad.status, header.attribute_offset) == (Method.GET_TABLE_RESP, 0x000C, 0)
        assert refused[56:58] == b"\x00\x4d"


async def test_another_class_version() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        mad = bytearray(sa_request(GET, N, transaction_id=0))
        mad[2] = 1
        answer = await subnet.gsi["a/1"].transact(subnet.sa("a/1"), bytes(mad), timeout=1, retries=0)
        assert read_header(answer).status == 0x0004


async def test_requester_that_is_not_in_the_subnet_gets_no_answer() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        b = subnet.port("b/1")
        b.set_lid(99)
        route = subnet.fabric.node("right").lft
        subnet.fabric.node("left").lft[99] = 5
        route[99] = 1
        subnet.fabric.changed()
        before = subnet.sm.administrator.malformed
        with pytest.raises(MadTimeoutError):
            await subnet.ask("b/1", GET, SaAttribute.CLASS_PORT_INFO, retries=0)
        assert subnet.sm.administrator.malformed == before + 1


# --- PortInfoRecord ---


async def test_ports_by_capability_bit() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        subnet.port("a/2").set_capability(DM, on=True)
        subnet.port("b/1").set_capability(DM, on=True)
        await asyncio.sleep(1)
        query = PortInfoRecord.of(0, 0, PortInfo(capability_mask=DM))
        mask = PortInfoRecordMask.CAPABILITY_MASK
        reply = await subnet.ask("a/1", TABLE, P, query, mask, MATCH_CAPABILITY_BITS)
        assert SaHeader.decode(reply).attribute_offset == 9
        records = decode_table(reply, PortInfoRecord)
        assert [r.endport_lid for r in records] == sorted(subnet.port(name).lid for name in ("a/2", "b/1"))
        assert all(r.info.is_device_management_supported for r in records)
        assert all(r.info.state == PortState.ACTIVE for r in records)
        exact = await subnet.ask("a/1", TABLE, P, query, mask)
        assert decode_table(exact, PortInfoRecord) == ()
        subnet.port("b/1").set_capability(DM, on=False)
        await asyncio.sleep(1)
        reply = await subnet.ask("a/1", TABLE, P, query, mask, MATCH_CAPABILITY_BITS)
        assert [r.endport_lid for r in decode_table(reply, PortInfoRecord)] == [subnet.port("a/2").lid]


async def test_old_sm_does_not_match_single_bits() -> None:
    settings = SubnetSettings(administrator=AdministratorSettings(capability_matching=False))
    async with managed(two_switches(), "sm/1", settings) as subnet:
        subnet.port("b/1").set_capability(DM, on=True)
        await subnet.sm.sweep()
        query = PortInfoRecord.of(0, 0, PortInfo(capability_mask=DM))
        reply = await subnet.ask("a/1", TABLE, P, query, PortInfoRecordMask.CAPABILITY_MASK, MATCH_CAPABILITY_BITS)
        assert decode_table(reply, PortInfoRecord) == ()
        one = PortInfoRecord(endport_lid=subnet.port("b/1").lid)
        reply = await subnet.ask("a/1", GET, P, one, PortInfoRecordMask.ENDPORT_LID)
        assert decode_record(reply, PortInfoRecord).info.is_device_management_supported


async def test_switch_has_one_record_per_port() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        management = subnet.fabric.node("left").port(0)
        query = PortInfoRecord(endport_lid=management.lid)
        reply = await subnet.ask("a/1", TABLE, P, query, PortInfoRecordMask.ENDPORT_LID)
        assert [r.port_number for r in decode_table(reply, PortInfoRecord)] == list(range(7))
        assert await subnet.status("a/1", GET, P, query, PortInfoRecordMask.ENDPORT_LID) == SaStatus.TOO_MANY_RECORDS
        mask = PortInfoRecordMask.ENDPORT_LID | PortInfoRecordMask.PORT_NUMBER
        fifth = await subnet.ask("a/1", GET, P, replace(query, port_number=5), mask)
        assert decode_record(fifth, PortInfoRecord).info.state == PortState.ACTIVE


# --- PathRecord ---


async def test_path_between_gids_as_the_kernel_asks() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        a, b = subnet.port("a/1"), subnet.port("b/1")
        query = PathRecord(service_id=0x1234, dgid=b.gid, sgid=a.gid, numb_path=1, pkey=0xFFFF)
        bits = PathRecordMask
        mask = bits.SERVICE_ID | bits.DGID | bits.SGID | bits.NUMB_PATH | bits.PKEY
        path = decode_record(await subnet.ask("a/1", GET, R, query, mask), PathRecord)
        assert path == PathRecord(
            service_id=0x1234,
            dgid=b.gid,
            sgid=a.gid,
            dlid=b.lid,
            slid=a.lid,
            reversible=1,
            pkey=0xFFFF,
            mtu_selector=2,
            mtu=5,
            rate_selector=2,
            rate=7,
            packet_life_selector=2,
            packet_life=18,
        )


async def test_path_between_lids_as_srp_daemon_asks() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        a, b = subnet.port("a/1"), subnet.port("b/1")
        mask = PathRecordMask.DLID | PathRecordMask.SLID | PathRecordMask.PKEY
        query = PathRecord(dlid=b.lid, slid=a.lid, pkey=0xFFFF)
        path = decode_record(await subnet.ask("a/1", GET, R, query, mask), PathRecord)
        assert (path.dgid, path.sgid) == (b.gid, a.gid)
        other = replace(query, pkey=0x8012)
        assert await subnet.status("a/1", GET, R, other, mask) == SaStatus.NO_RECORDS


async def test_own_gid_twice_gives_the_lid() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        b = subnet.port("b/1")
        bits = PathRecordMask
        mask = bits.DGID | bits.SGID | bits.RAW_TRAFFIC | bits.HOP_LIMIT | bits.NUMB_PATH
        query = PathRecord(dgid=b.gid, sgid=b.gid, numb_path=1)
        path = decode_record(await subnet.ask("a/1", GET, R, query, mask), PathRecord)
        assert path.dlid == path.slid == b.lid


async def test_all_paths_from_a_port() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        a = subnet.port("a/1")
        found = await paths(subnet, "a/1", PathRecord(sgid=a.gid), PathRecordMask.SGID)
        assert [path.dlid for path in found] == [port.lid for port in subnet.sm.view.end_ports]
        assert {path.slid for path in found} == {a.lid}
        everything = await subnet.status("a/1", TABLE, R, PathRecord(), 0)
        assert everything == SaStatus.INSUFFICIENT_COMPONENTS


async def test_path_refusals() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        a, b = subnet.port("a/1"), subnet.port("b/1")
        bits = PathRecordMask
        both = bits.SGID | bits.DGID
        good = PathRecord(sgid=a.gid, dgid=b.gid)

        async def status(query: PathRecord, mask: int) -> int:
            return await subnet.status("a/1", GET, R, query, mask)

        assert await status(good, both) == 0
        assert await status(replace(good, dgid=Gid(b.gid.prefix, 1)), both) == SaStatus.INVALID_GID
        assert await status(replace(good, dgid=Gid(1, b.guid)), both) == SaStatus.INVALID_GID
        assert await status(replace(good, dlid=a.lid), both | bits.DLID) == SaStatus.NO_RECORDS
        assert await status(replace(good, dlid=b.lid), both | bits.DLID) == 0
        assert await status(good, bits.SGID) == SaStatus.TOO_MANY_RECORDS
        for name, value, accepted in (
            ("mtu", 4, {0: True, 1: False, 2: False, 3: True}),
            ("mtu", 5, {0: False, 1: False, 2: True, 3: True}),
            ("rate", 6, {0: True, 1: False, 2: False, 3: True}),
            ("rate", 15, {0: True, 1: False, 2: False, 3: True}),  # 25 Gb/s, below our 40 for all its higher code
            ("rate", 63, {0: False, 1: False, 2: False, 3: False}),
            ("packet_life", 19, {0: False, 1: True, 2: False, 3: True}),
        ):
            for selector, ok in accepted.items():
                query = replace(good, **{name: value, f"{name}_selector": selector})
                upper = name.upper()
                mask = both | bits[upper] | bits[f"{upper}_SELECTOR"]
                assert (await status(query, mask) == 0) is ok, (name, value, selector)
        assert await status(replace(good, sl=1), both | bits.SL) == SaStatus.NO_RECORDS


async def test_paths_follow_partitions() -> None:
    topology = two_switches()
    async with managed(topology, "sm/1") as subnet:
        a, b, other = (subnet.port(name) for name in ("a/1", "b/1", "a/2"))
        limited = frozenset({a.guid, b.guid, other.guid})
        everyone = Partition(0x7FFF, full=frozenset({subnet.port("sm/1").guid}), limited=None)
        storage = Partition(0x12, full=frozenset({a.guid}), limited=limited)
        subnet.sm.set_partitions((everyone, storage))
        await subnet.sm.sweep()
        mask = PathRecordMask.SGID | PathRecordMask.DGID
        path = await paths(subnet, "a/1", PathRecord(sgid=a.gid, dgid=b.gid), mask)
        assert [found.pkey for found in path] == [0x8012]
        path = await paths(subnet, "b/1", PathRecord(sgid=b.gid, dgid=a.gid), mask)
        assert [found.pkey for found in path] == [0x0012]
        assert await paths(subnet, "sm/1", PathRecord(sgid=b.gid, dgid=other.gid), mask) == ()  # two limited members
        assert await nodes(subnet, "b/1") == ["sm", "a", "b"]  # not a's other port, nor the switches


# --- RMPP tables ---


async def test_table_of_two_hundred_hcas() -> None:
    async with managed(fat_tree(200), "h0/1") as subnet:
        reply = await subnet.ask("h199/1", TABLE, N)
        records = decode_table(reply, NodeRecord)
        assert len(records) == 217
        assert len(reply) == 56 + 217 * 112
        assert {record.lid for record in records} == {port.lid for port in subnet.sm.view.end_ports}
        found = await paths(subnet, "h199/1", PathRecord(sgid=subnet.port("h199/1").gid), PathRecordMask.SGID)
        assert len(found) == 217


async def test_table_over_a_lossy_link(seed: int) -> None:
    async with managed(fat_tree(100), "h0/1", SubnetSettings(sweep_interval=1e6)) as subnet:
        whole = await subnet.ask("h99/1", TABLE, N)
        port = subnet.port("h99/1")
        subnet.fabric._rng.seed(seed)
        port.tx_impairments = port.rx_impairments = (Impairment(kinds=Traffic.MAD, probability=0.2),)
        subnet.fabric.changed()
        for _ in range(5):
            mad = sa_request(TABLE, N, transaction_id=0)
            reply = await subnet.gsi["h99/1"].transact(subnet.sa("h99/1"), mad, timeout=3, retries=10)
            assert reply[56:] == whole[56:]


async def test_many_questions_at_once() -> None:
    async with managed(fat_tree(60), "h0/1") as subnet:
        replies = await asyncio.gather(*(subnet.ask(f"h{n}/1", TABLE, N) for n in range(60) for _ in range(3)))
        assert len({reply[56:] for reply in replies}) == 1


# --- hostile requests ---


@given(
    method=st.sampled_from([0x01, 0x02, 0x12, 0x13, 0x14, 0x15, 0x03, 0x05, 0x06, 0x07, 0x7F]),
    attribute=st.sampled_from([0x01, 0x02, 0x03, 0x11, 0x12, 0x35, 0x38, 0xFFFF]),
    modifier=st.integers(0, 0xFFFFFFFF),
    mask=st.one_of(st.integers(0, 0x7FFFFF), st.integers(0, 2**64 - 1)),
    body=st.binary(max_size=200),
    rmpp=st.binary(min_size=12, max_size=12),
)
async def test_any_request_is_answered_or_dropped(
    method: int, attribute: int, modifier: int, mask: int, body: bytes, rmpp: bytes
) -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        view = subnet.sm.view
        mad = bytearray(sa_request(method, attribute, transaction_id=9, mask=mask, modifier=modifier))
        mad[24:36] = rmpp
        mad[56 : 56 + len(body)] = body
        subnet.gsi["a/1"].send(subnet.sa("a/1"), bytes(mad))
        await asyncio.sleep(5)
        assert subnet.sm.view is view
        assert len(await nodes(subnet, "a/1")) == 6
        await asyncio.sleep(0.01)
        assert subnet.gsi["sm/1"]._senders == {}


async def test_inform_info_is_checked() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        good = InformInfo(
            lid_range_begin=0xFFFF,
            is_generic=1,
            subscribe=1,
            type=NoticeType.SUBNET_MANAGEMENT,
            trap_number=64,
            producer_type=ProducerType.CLASS_MANAGER,
        )
        for bad in (
            replace(good, subscribe=2),
            replace(good, is_generic=3),
            replace(good, lid_range_begin=9, lid_range_end=8),
            replace(good, subscribe=0),
        ):
            assert await subnet.status("a/1", Method.SET, SaAttribute.INFORM_INFO, bad) == SaStatus.REQUEST_INVALID
        assert len(subnet.sm.administrator.subscriptions) == 0


async def test_other_pkey_than_the_agents_is_not_heard() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        subnet.sm.set_partitions((Partition(0x7FFF), Partition(0x12, full=frozenset({subnet.port("a/1").guid}))))
        await subnet.sm.sweep()
        mad = sa_request(GET, SaAttribute.CLASS_PORT_INFO, transaction_id=0)
        with pytest.raises(MadTimeoutError):
            await subnet.gsi["a/1"].transact(
                MadAddress(lid=subnet.port("a/1").sm_lid, pkey_index=1), mad, timeout=1, retries=0
            )
