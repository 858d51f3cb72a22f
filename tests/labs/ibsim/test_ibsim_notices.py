"""Notices 64 and 65 of the real OpenSM, heard on QP1 through the umad ABI, and answered."""

from __future__ import annotations

from random import Random

import pytest
from ibsim_fabric import USUAL, Fabric, Flags
from ibsim_probes import Probe
from ibsim_topologies import wired
from ibsim_types import MakeFabric

from srpha.embedded.fabric.topology import default_node_guid

pytestmark = [
    pytest.mark.outside("ibsim", "opensm", "gcc"),
    pytest.mark.realtime,
]

GUID = default_node_guid(3) + 1
"""Port GUID of t1, the fourth node."""


@pytest.fixture(scope="module")
def fabric(make_fabric: MakeFabric) -> Fabric:
    net = wired(["leaf1", "leaf2"], [("host1", 1), ("t1", 1), ("t2", 1)], Random(3))
    made = make_fabric(net.text, "leaf1")
    made.start_sm()
    return made


def test_a_target_leaves_and_comes_back(fabric: Fabric) -> None:
    with Probe(fabric, ["host1"], Flags(requests=True), "--subscribe") as probe:
        probe.wait("subscribed")
        for _ in range(2):
            fabric.console('Unlink "t1"')
            assert probe.wait("trap")["number"] == 65
            fabric.console('ReLink "t1"')
            trap = probe.wait("trap", lambda message: message["number"] == 64)
            assert trap == {"kind": "trap", "port": "ibsim0/1", "number": 64, "guid": GUID}


def test_answered_reports_are_not_repeated(fabric: Fabric) -> None:
    """OpenSM repeats a report until it hears a ReportResp."""
    with Probe(fabric, ["host1"], Flags(requests=True), "--subscribe") as probe:
        probe.wait("subscribed")
        fabric.console('Unlink "t1"')
        assert probe.wait("trap")["guid"] == GUID
        assert probe.silent("trap", 1.0)
        fabric.console('ReLink "t1"')
        probe.wait("trap")


def test_planted_unanswered_reports_are_repeated(fabric: Fabric) -> None:
    with Probe(fabric, ["host1"], Flags(requests=True), "--subscribe", "--mute") as probe:
        probe.wait("subscribed")
        fabric.console('Unlink "t1"')
        first = probe.wait("trap")
        assert probe.wait("trap", seconds=3.0) == first
        fabric.console('ReLink "t1"')
        probe.wait("trap", lambda message: message["number"] == 64)


def test_planted_a_port_without_reports_hears_nothing(fabric: Fabric) -> None:
    with Probe(fabric, ["host1"], USUAL, "--subscribe") as probe:
        probe.wait("subscribed")
        fabric.unlink("t2")
        assert probe.silent("trap", 0.5)
        fabric.relink("t2")


def test_a_subscription_is_renewed_with_another_subnet_manager(fabric: Fabric) -> None:
    with Probe(fabric, ["host1"], Flags(requests=True), "--subscribe") as probe:
        first = probe.wait("identity")
        probe.wait("subscribed")
        fabric.stop_sm()
        fabric.sm_node = "leaf2"
        fabric.start_sm()
        probe.wait("identity", lambda message: message["sm_lid"] != first["sm_lid"])
        probe.wait("subscribed")
        fabric.console('Unlink "t1"')
        assert probe.wait("trap")["number"] == 65
        fabric.console('ReLink "t1"')
        assert probe.wait("trap", lambda message: message["number"] == 64)["guid"] == GUID
