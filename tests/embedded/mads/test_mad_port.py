"""The MadPort seam over an embedded port."""

from __future__ import annotations

import asyncio

import pytest
from managed import managed, two_switches

from srpha.core.seams import LinkState, MadAddress, MadPort, MadPortGoneError, MadTimeoutError, ReceivedMad
from srpha.embedded.mads.mad_port import EmbeddedMadPort
from srpha.wire.class_port_info import ClassPortInfo
from srpha.wire.mad import Method
from srpha.wire.notice import Notice
from srpha.wire.sa import NodeRecord, SaAttribute, decode_record, decode_table, sa_request
from srpha.wire.smp import PortCapability


async def test_identity() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        port = subnet.port("a/2")
        made = EmbeddedMadPort("mlx5_1", port, subnet.gsi["a/2"])
        seam: MadPort = made
        identity = seam.identity()
        assert seam.name == identity.name == "mlx5_1/2"
        assert (identity.gid, identity.lid, identity.sm_lid) == (port.gid, port.lid, 1)
        assert (identity.port_guid, identity.node_guid) == (port.guid, port.node.node_guid)
        assert identity.state is LinkState.ACTIVE
        assert identity.pkeys[0] == 0xFFFF
        assert made.gsi is subnet.gsi["a/2"]


async def test_hints() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        await asyncio.sleep(1)
        seam = EmbeddedMadPort("mlx5_0", subnet.port("b/1"), subnet.gsi["b/1"])
        states: list[LinkState] = []
        end = seam.watch(lambda: states.append(seam.identity().state))
        subnet.port("b/1").set_capability(PortCapability.DEVICE_MANAGEMENT, on=True)
        assert states == []
        subnet.fabric.set_plugged("b/1", plugged=False)
        assert LinkState.DOWN in states
        subnet.fabric.set_plugged("b/1", plugged=True)
        await asyncio.sleep(0.5)
        assert states[-1] is LinkState.ACTIVE
        end()
        end()
        count = len(states)
        subnet.fabric.set_plugged("b/1", plugged=False)
        assert len(states) == count


async def test_device_that_is_gone() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        seam = EmbeddedMadPort("mlx5_0", subnet.port("b/1"), subnet.gsi["b/1"])
        subnet.fabric.set_power(subnet.fabric.node("b"), powered=False)
        with pytest.raises(MadPortGoneError, match="mlx5_0/1"):
            seam.identity()
        with pytest.raises(MadPortGoneError):
            await seam.transact(MadAddress(lid=1), bytes(256), timeout=1, retries=0)


async def test_queries() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        seam = EmbeddedMadPort("mlx5_0", subnet.port("b/1"), subnet.gsi["b/1"])
        sa = MadAddress(lid=seam.identity().sm_lid)
        asked = sa_request(Method.GET, SaAttribute.CLASS_PORT_INFO, transaction_id=77)
        reply = await seam.transact(sa, asked, timeout=1, retries=3)
        assert decode_record(reply, ClassPortInfo).class_version == 2
        asked = sa_request(Method.GET_TABLE, SaAttribute.NODE_RECORD, transaction_id=77)
        reply = await seam.transact(sa, asked, timeout=1, retries=3)
        assert len(decode_table(reply, NodeRecord)) == 6
        with pytest.raises(MadTimeoutError):
            await seam.transact(MadAddress(lid=1000), asked, timeout=1, retries=1)


async def test_reports_and_two_listeners() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        seam = EmbeddedMadPort("mlx5_0", subnet.port("b/1"), subnet.gsi["b/1"])
        first: list[ReceivedMad] = []
        second: list[ReceivedMad] = []
        seam.watch_reports(first.append)
        end = seam.watch_reports(second.append)
        report = sa_request(Method.REPORT, SaAttribute.NOTICE, transaction_id=5, record=Notice())
        here = MadAddress(lid=subnet.port("b/1").lid)
        subnet.gsi["sm/1"].send(here, report)
        await asyncio.sleep(0.01)
        end()
        subnet.gsi["sm/1"].send(here, report)
        await asyncio.sleep(0.01)
        assert (len(first), len(second)) == (2, 1)
        assert first[0].mad == report
        seam.close()
        subnet.gsi["sm/1"].send(here, report)
        await asyncio.sleep(0.01)
        assert len(first) == 2
        EmbeddedMadPort("mlx5_0", subnet.port("b/1"), subnet.gsi["b/1"])  # the Report method is free again


async def test_sa_and_client_share_the_managers_port() -> None:
    async with managed(two_switches(), "sm/1") as subnet:
        seam = EmbeddedMadPort("mlx5_0", subnet.port("sm/1"), subnet.gsi["sm/1"])
        asked = sa_request(Method.GET_TABLE, SaAttribute.NODE_RECORD, transaction_id=0)
        reply = await seam.transact(MadAddress(lid=seam.identity().sm_lid), asked, timeout=1, retries=0)
        assert len(decode_table(reply, NodeRecord)) == 6
