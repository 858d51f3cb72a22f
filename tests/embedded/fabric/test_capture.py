from __future__ import annotations

import asyncio
import io
import struct
import subprocess
from pathlib import Path

import pytest

from srpha.core.seams import MadAddress
from srpha.embedded.fabric.capture import PcapWriter, is_mad
from srpha.embedded.fabric.hardware import Fabric, Port
from srpha.wire import cm, rc
from srpha.wire.crc import icrc, vcrc, with_crcs
from srpha.wire.mad import Method
from srpha.wire.rmpp import segment
from srpha.wire.sa import PathRecord, PathRecordMask, SaAttribute, sa_request, sa_response, sa_table
from srpha.wire.smp import DirectedRouteSmp, PortCapability, SmpAttribute, directed_path
from tests.embedded.fabric.by_hand import configure, mad_packet, make_fabric, rc_packet, smp_packet
from tests.embedded.fabric.managed import Subnet, two_switches

USER_DLT = 'uat:user_dlts:"User 0 (DLT=147)","infiniband","0","","0",""'
FIELDS = (
    "infiniband.lrh.pktlen",
    "infiniband.mad.mgmtclass",
    "infiniband.mad.method",
    "infiniband.mad.attributeid",
    "infiniband.invariant.crc",
    "infiniband.variant.crc",
    "infiniband.nodeinfo.nodeguid",
    "infiniband.portinfo.lid",
    "infiniband.cm.req.serviceid",
    "infiniband.cm.rep.localqpn",
    "infiniband.rmpp.segmentnumber",
    "_ws.malformed",
    "_ws.expert",
    "_ws.col.Info",
)


def test_literal_file() -> None:
    stream = io.BytesIO()
    writer = PcapWriter(stream, epoch=1000.0)
    packet = rc.pack_send(rc.RcAddress(1, 2, 64, 0xFFFF), rc.Opcode.RC_SEND_ONLY, 0, b"abcd")
    writer.write(1.5, packet)
    data = stream.getvalue()
    assert data[:24].hex() == "4d3cb2a1020004000000000000000000ffff000093000000"
    assert data[24:40] == struct.pack("<IIII", 1001, 500_000_000, 30, 30)
    assert data[40:64] == packet
    assert data[64:68] == icrc(packet).to_bytes(4, "little")
    assert data[68:] == vcrc(packet + data[64:68]).to_bytes(2, "little")


def test_only_mads_and_only_packets() -> None:
    fabric = make_fabric()
    configure(fabric)
    a, b = fabric.port("a/1"), fabric.port("b/1")
    writer = PcapWriter(io.BytesIO(), mads_only=True)
    for packet in (rc_packet(a, b, 64), mad_packet(a, b), smp_packet(DirectedRouteSmp()), b"", bytes(20)):
        writer.write(0, packet)
    assert (writer.written, writer.skipped) == (3, 0)  # twenty zero bytes go to QP0
    everything = PcapWriter(io.BytesIO())
    everything.write(0, b"short")
    assert (everything.written, everything.skipped) == (0, 1)
    plain = mad_packet(a, b)
    grh = rc.GlobalRouteHeader(payload_length=len(plain) - 4).encode()
    assert is_mad(bytes([plain[0], plain[1] | 1]) + plain[2:8] + grh + plain[8:])
    assert not is_mad(bytes([plain[0], plain[1] | 1]) + plain[2:8] + grh)


async def test_one_port_or_all() -> None:
    fabric = make_fabric()
    configure(fabric)
    a, b = fabric.port("a/1"), fabric.port("b/1")
    b.bind(64, lambda _: None)
    every, mine = PcapWriter(io.BytesIO()), PcapWriter(io.BytesIO())
    every.attach(fabric)
    stop = mine.attach(fabric, b)
    a.send(rc_packet(a, b, 64))
    b.send(rc_packet(b, a, 64))
    a.send(rc_packet(a, fabric.port("a/2"), 64))
    await asyncio.sleep(0.1)
    stop()
    a.send(rc_packet(a, b, 64))
    await asyncio.sleep(0.1)
    assert (every.written, mine.written) == (4, 2)


async def traffic(fabric: Fabric, a: Port, b: Port) -> None:
    """Directed SMPs with their answers, a trap, an SA query with a table over RMPP, and a CM handshake with data."""
    a.bind(0, lambda _: None)
    for path, attribute in (((), 0x11), ((1, 3), 0x12), ((1, 3), 0x19), ((1, 3, 1), 0x15), ((1, 3, 1), 0x16)):
        smp = DirectedRouteSmp(
            method=Method.GET,
            hop_count=len(path),
            transaction_id=77,
            attribute_id=attribute,
            attribute_modifier=1 if attribute == SmpAttribute.PORT_INFO else 0,
            initial_path=directed_path(path),
        )
        a.send(smp_packet(smp))
    b.set_capability(PortCapability.DEVICE_MANAGEMENT, True)
    await asyncio.sleep(0.1)
    record = PathRecord(dgid=b.gid, sgid=a.gid, dlid=b.lid, slid=a.lid, pkey=0xFFFF, mtu=5, rate=7, reversible=1)
    mask = PathRecordMask.DGID | PathRecordMask.SGID
    ask = sa_request(Method.GET, SaAttribute.PATH_RECORD, transaction_id=5, mask=mask, record=record)
    a.send(mad_packet(a, b, ask))
    b.send(mad_packet(b, a, sa_response(ask, record)))
    table = sa_request(Method.GET_TABLE, SaAttribute.PATH_RECORD, transaction_id=6, mask=mask, record=record)
    a.send(mad_packet(a, b, table))
    answer = sa_table(table, [record] * 8)
    for piece in segment(answer[:56], answer[56:]):
        b.send(mad_packet(b, a, piece))
    primary = cm.ConnectionPath(local_lid=a.lid, remote_lid=b.lid, local_gid=a.gid, remote_gid=b.gid, subnet_local=1)
    request = cm.ConnectionRequest(
        local_comm_id=1,
        service_id=0x0002C90300000100,
        local_ca_guid=a.node.node_guid,
        local_qpn=64,
        starting_psn=9,
        pkey=0xFFFF,
        path_mtu=5,
        primary=primary.encode(),
        private_data=bytes(92),
    )
    a.send(mad_packet(a, b, cm.pack_mad(request, 8)))
    reply = cm.ConnectionReply(local_comm_id=2, remote_comm_id=1, local_qpn=65, starting_psn=4)
    b.send(mad_packet(b, a, cm.pack_mad(reply, 8)))
    a.send(mad_packet(a, b, cm.pack_mad(cm.ReadyToUse(local_comm_id=1, remote_comm_id=2), 8)))
    a.send(rc_packet(a, b, 65))
    a.send(mad_packet(a, b, cm.pack_mad(cm.DisconnectRequest(local_comm_id=1, remote_comm_id=2, remote_qpn=65), 9)))
    b.send(mad_packet(b, a, cm.pack_mad(cm.DisconnectReply(local_comm_id=2, remote_comm_id=1), 9)))
    await asyncio.sleep(0.1)


def tshark(path: Path, packets: list[bytes]) -> list[dict[str, str]]:
    with path.open("wb") as stream:
        writer = PcapWriter(stream)
        for number, packet in enumerate(packets):
            writer.write(number * 1e-6, packet)
    command = [
        "tshark",
        "-n",
        "-o",
        USER_DLT,
        "-r",
        str(path),
        "-T",
        "fields",
        "-E",
        "separator=|",
        "--disable-protocol",
        "rpcordma",
    ]
    for field in FIELDS:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return [dict(zip(FIELDS, line.split("|"), strict=True)) for line in done.stdout.splitlines()]


async def captured() -> tuple[list[bytes], Fabric]:
    fabric = make_fabric()
    configure(fabric)
    packets: list[bytes] = []
    fabric.tap(lambda _now, _port, packet: packets.append(packet))
    await traffic(fabric, fabric.port("a/1"), fabric.port("b/1"))
    return packets, fabric


def judge(rows: list[dict[str, str]], packets: list[bytes]) -> list[str]:
    """What tshark finds wrong, or reads otherwise than we meant it."""
    wrong = [f"{len(rows)} rows for {len(packets)} packets"] if len(rows) != len(packets) else []
    for number, (row, packet) in enumerate(zip(rows, packets, strict=False)):
        if row["_ws.malformed"] or row["_ws.expert"]:
            wrong.append(f"{number}: {row['_ws.malformed']} {row['_ws.expert']}")
        if row["infiniband.lrh.pktlen"] != str((len(packet) + 4) // 4):
            wrong.append(f"{number}: PktLen {row['infiniband.lrh.pktlen']}")
        crcs = with_crcs(packet)[-6:]
        for field, value in (("invariant", crcs[:4]), ("variant", crcs[4:])):
            if row[f"infiniband.{field}.crc"] != f"0x{value.hex()}":
                wrong.append(f"{number}: {field} CRC {row[f'infiniband.{field}.crc']}")
        if not any(word in row["_ws.col.Info"] for word in ("Subn", "CM: ", "RC Send")):
            wrong.append(f"{number}: {row['_ws.col.Info']}")
    return wrong


@pytest.mark.outside("tshark")
async def test_tshark_reads_every_packet(tmp_path: Path) -> None:
    packets, fabric = await captured()
    rows = tshark(tmp_path / "all.pcap", packets)
    assert judge(rows, packets) == []
    seen = [row["_ws.col.Info"].split()[-1] for row in rows]
    for name in (
        *("SubnGet(NodeInfo)", "SubnGetResp(NodeInfo)", "SubnGetResp(SwitchInfo)", "SubnGetResp(PortInfo)"),
        *("SubnGetResp(P_KeyTable)", "SubnGetResp(LinearForwardingTable)", "SubnTrap(Notice)"),
        *("SubnAdmGet(PathRecord)", "SubnAdmGetResp(PathRecord)", "SubnAdmGetTableResp(PathRecord)"),
        *("ConnectRequest", "ConnectReply", "ReadyToUse", "DisconnectRequest", "DisconnectReply"),
    ):
        assert name in seen
    guid = next(row for row in rows if "GetResp(NodeInfo)" in row["_ws.col.Info"])["infiniband.nodeinfo.nodeguid"]
    assert int(guid, 16) == fabric.node("a").node_guid
    lid = next(row for row in rows if "GetResp(PortInfo)" in row["_ws.col.Info"])["infiniband.portinfo.lid"]
    assert int(lid, 16) == fabric.port("b/1").lid
    segments = [row["infiniband.rmpp.segmentnumber"] for row in rows if "TableResp" in row["_ws.col.Info"]]
    assert [int(text, 16) for text in segments] == [1, 2, 3]


@pytest.mark.outside("tshark")
@pytest.mark.parametrize("fault", ["cut", "class", "length", "crc"])
async def test_tshark_catches_a_planted_fault(tmp_path: Path, fault: str) -> None:
    packets, _ = await captured()
    broken = list(packets)
    packet = broken[7]
    if fault == "cut":
        broken[7] = packet[:150]
    elif fault == "class":
        broken[7] = packet[:29] + b"\x55" + packet[30:]
    elif fault == "length":
        broken[7] = packet[:4] + (20).to_bytes(2, "big") + packet[6:]
    else:
        broken[7] = packet[:-1] + bytes([packet[-1] ^ 1])
    against = packets if fault == "crc" else broken
    wrong = judge(tshark(tmp_path / "broken.pcap", broken), against)
    assert wrong
    assert all(line.startswith("7: ") for line in wrong)


@pytest.mark.outside("tshark")
async def test_tshark_reads_a_whole_sweep_and_the_queries_after_it(tmp_path: Path) -> None:
    packets: list[bytes] = []
    async with asyncio.TaskGroup() as group:
        subnet = Subnet(two_switches(), group)
        subnet.fabric.tap(lambda _now, _port, packet: packets.append(packet))
        await subnet.start_sm("sm/1")
        a, b = subnet.port("a/1"), subnet.port("b/1")
        record = PathRecord(dgid=b.gid, sgid=a.gid)
        mask = PathRecordMask.DGID | PathRecordMask.SGID
        for method in (Method.GET, Method.GET_TABLE):
            request = sa_request(method, SaAttribute.PATH_RECORD, transaction_id=0, mask=mask, record=record)
            await subnet.gsi["a/1"].transact(MadAddress(lid=a.sm_lid), request, timeout=1, retries=0)
        b.set_capability(PortCapability.DEVICE_MANAGEMENT, True)
        await asyncio.sleep(1)
        await subnet.stop_sm()
    rows = tshark(tmp_path / "sweep.pcap", packets)
    assert judge(rows, packets) == []
    names = {row["_ws.col.Info"].split()[-1] for row in rows}
    assert {"SubnSet(PortInfo)", "SubnSet(LinearForwardingTable)", "SubnAdmGetTableResp(PathRecord)"} <= names
    assert len(packets) > 100
