"""What a scenario puts on the wire, read by tshark: every management datagram is one that others understand."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.embedded.fabric.capture import is_mad
from srpha.embedded.worldspec import WorldSpec
from srpha.lab.lab import Lab, LabSettings
from srpha.lab.scenario import Scenario, ScenarioSettings
from srpha.lab.workload import WorkloadSettings
from tests.embedded.fabric.test_capture import tshark

pytestmark = pytest.mark.outside("tshark")


async def mads_of_a_scenario(mode: RecoveryMode) -> list[bytes]:
    lab = Lab(WorldSpec.demo(), LabSettings(recovery=mode, load=WorkloadSettings(workers=1, mean_pause=0.1)))
    packets: list[bytes] = []
    lab.world.fabric.tap(lambda _now, _port, packet: packets.append(packet) if is_mad(packet) else None)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(lab.run())
        report = await Scenario(lab, ScenarioSettings(quiet=0.5, outage=2.5)).run()
        running.cancel()
    assert report.ok
    return packets


DEVICE_MANAGEMENT = "0x06"
"""tshark knows the class and none of its attributes."""


def complaints(rows: list[dict[str, str]]) -> list[str]:
    """What tshark finds wrong, without what it cannot know.

    It does not put RMPP segments together, and takes each one after the first for the beginning of a record: what it
    says of their text fields is void.
    """
    wrong = []
    for number, row in enumerate(rows):
        segment = int(row["infiniband.rmpp.segmentnumber"] or "0", 0)
        trouble = row["_ws.expert"]
        if segment > 1 and trouble.endswith("Trailing stray characters"):
            trouble = ""
        unknown = "nknown" in row["_ws.col.Info"] and row["infiniband.mad.mgmtclass"] != DEVICE_MANAGEMENT
        if row["_ws.malformed"] or trouble or unknown:
            wrong.append(f"{number}: {row['_ws.col.Info']}: {row['_ws.malformed']} {trouble}")
    return wrong


@pytest.mark.parametrize("mode", list(RecoveryMode), ids=lambda mode: mode.value)
async def test_tshark_reads_every_datagram_of_a_scenario(mode: RecoveryMode, tmp_path: Path) -> None:
    packets = await mads_of_a_scenario(mode)
    rows = tshark(tmp_path / "scenario.pcap", packets)
    assert len(rows) == len(packets) > 500
    assert complaints(rows) == []
    told = Counter(row["_ws.col.Info"].split()[-1] for row in rows)
    # Discovery, subscriptions, logins, logouts and what the manager does about a pulled cable have all been seen.
    for what in (
        *("SubnGet(NodeInfo)", "SubnSet(PortInfo)", "SubnSet(LinearForwardingTable)", "SubnTrap(Notice)"),
        *("SubnAdmSet(InformInfo)", "SubnAdmReport(Notice)", "SubnAdmGetTable(PathRecord)", "SubnAdmGet(PathRecord)"),
        *("ConnectRequest", "ConnectReply", "ReadyToUse", "Attribute)"),
    ):
        assert told[what], (what, told)


async def test_tshark_catches_a_planted_fault(tmp_path: Path) -> None:
    packets = await mads_of_a_scenario(RecoveryMode.KERNEL)
    broken = list(packets)
    broken[200] = packets[200][:29] + b"\x55" + packets[200][30:]  # a management class that there is not
    found = complaints(tshark(tmp_path / "broken.pcap", broken))
    assert [text.partition(":")[0] for text in found] == ["200"]
