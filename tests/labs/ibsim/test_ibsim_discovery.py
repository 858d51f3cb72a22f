"""Discovery through the umad ABI against the real OpenSM: tables, partitions, old and absent subnet managers."""

from __future__ import annotations

import re
import time
from random import Random

import pytest
from ibsim_fabric import SLOW, USUAL, Fabric, Flags, srpha
from ibsim_probes import Message, Probe
from ibsim_targets import Targets, many_services, one_ioc
from ibsim_topologies import Net, wired
from ibsim_types import MakeFabric, MakeTargets

from srpha.core.discovery.scan_settings import ScanSettings

pytestmark = [
    pytest.mark.outside("ibsim", "opensm", "gcc"),
    pytest.mark.realtime,
]

TARGETS = ("t1", "t2", "t3", "t4", "t5")


def small_net() -> Net:
    """Two switches, two hosts, five targets."""
    hcas = [(name, 1) for name in ("host1", "host2", *TARGETS)]
    return wired(["leaf1", "leaf2"], hcas, Random(1))


def guid_of(line: str) -> str:
    found = re.search(r"dgid=[0-9a-f]{16}([0-9a-f]{16})", line)
    assert found is not None
    return found[1]


def found_units(message: Message) -> set[str]:
    return {guid for guid, standing in message["units"].items() if standing == "found"}


def scanned(fabric: Fabric, hosts: list[str], flags: Flags = USUAL) -> list[Message]:
    """One scan by a fresh probe, its ports ready."""
    with Probe(fabric, hosts, flags) as probe:
        probe.ready()
        return probe.scan()


class Subnet:
    """The small net with targets, its subnet manager running."""

    def __init__(self, make_fabric: MakeFabric, make_targets: MakeTargets) -> None:
        net = small_net()
        self.fabric: Fabric = make_fabric(net.text, net.switches[0])
        self.fabric.start_sm()
        self.targets: Targets = make_targets(self.fabric, dict.fromkeys(TARGETS, one_ioc))

    @property
    def guids(self) -> list[str]:
        """Port GUIDs of the targets, sorted."""
        return sorted(f"{self.targets.node_guid(name) + 1:016x}" for name in TARGETS)


@pytest.fixture(scope="module")
def subnet(make_fabric: MakeFabric, make_targets: MakeTargets) -> Subnet:
    return Subnet(make_fabric, make_targets)


class TestTables:
    def test_a_table_of_many_segments_is_whole(self, make_fabric: MakeFabric, make_targets: MakeTargets) -> None:
        """Some 150 node records of 112 bytes are 85 segments; every port must be named in the result."""
        hcas = [(f"h{n}", 1) for n in range(140)]
        net = wired([f"s{n}" for n in range(8)], hcas, Random(2), spare=4)
        fabric = make_fabric(net.text, net.switches[0])
        fabric.start_sm()
        make_targets(fabric, dict.fromkeys(("h1", "h77", "h139"), many_services(2, 6)))
        (found,) = scanned(fabric, ["h0"])
        assert found["complete"]
        assert len(found["units"]) == net.hca_ports == 140
        assert len(found_units(found)) == 3
        assert len(found["lines"]["ibsim0/1"]) == 3 * 2 * 6
        # planted: one port fewer in the fabric is one fewer in the table
        fabric.unlink("h50")
        (fewer,) = scanned(fabric, ["h0"])
        assert len(fewer["units"]) == 139

    def test_an_sa_that_cannot_match_capability_masks(self, subnet: Subnet) -> None:
        (usual,) = scanned(subnet.fabric, ["host1"])
        (found,) = scanned(subnet.fabric, ["host1"], Flags(old_sm=True))
        assert found["complete"]
        assert found["units"] == usual["units"]
        assert found["lines"] == usual["lines"]
        assert [guid_of(line) for line in sorted(found["lines"]["ibsim0/1"])] == subnet.guids

    def test_several_hcas_are_one_subnet_and_ask_once(self, subnet: Subnet) -> None:
        """Names that are prefixes of each other, and one longer than sixteen characters."""
        devices = ["host1=mlx4_1", "host2=mlx4_10", "t1=ibx506b4b0300c8c0fa_with_a_long_name"]
        found = scanned(subnet.fabric, devices[:2])
        assert [message["members"] for message in found] == [["mlx4_1/1", "mlx4_10/1"]]
        both = found[0]
        assert sorted(guid_of(line) for line in both["lines"]["mlx4_1/1"]) == subnet.guids
        assert both["lines"]["mlx4_10/1"] == both["lines"]["mlx4_1/1"]
        (alone,) = scanned(subnet.fabric, devices[:1])
        # the tables of ports and nodes once, one path table for each local port; and a unit without an agent is asked
        # from a second local port too where there is one, as often as from the first
        silent = len(both["units"]) - len(found_units(both))
        assert both["queries"] == alone["queries"] + 1 + silent * (ScanSettings().retries + 1)
        assert both["round_trips"] <= 20
        (long,) = scanned(subnet.fabric, devices[2:])
        assert list(long["lines"]) == ["ibx506b4b0300c8c0fa_with_a_long_name/1"]


def test_five_hundred_questions_in_flight_on_one_descriptor(subnet: Subnet) -> None:
    """Each gets its own answer; LIDs that are not in use are those without one."""
    with Probe(subnet.fabric, ["host1"]) as probe:
        probe.ready()
        probe.tell("burst")
        told = probe.wait("burst", seconds=60.0)
    assert told["right"] == list(range(1, 10))  # two switches, two hosts, five targets
    assert told["absent"] == 491


class TestLoss:
    OPTIONS = ("-f", "/dev/null", "-o", "-c", "-a", "-t", "200")

    def test_retries_reach_a_target_that_loses_every_first_try(self, subnet: Subnet) -> None:
        subnet.targets.lose_first_tries("t2")
        try:
            lines = subnet.fabric.lines(["host1"], srpha("srp-daemon", *self.OPTIONS))
        finally:
            subnet.targets.lose_first_tries("t2", False)
        assert sorted(guid_of(line) for line in lines) == subnet.guids

    @pytest.mark.outside("srp_daemon")
    def test_planted_without_retries_it_is_lost(self, subnet: Subnet) -> None:
        """The original has none, whatever -r says (facts: srp A.9)."""
        subnet.targets.lose_first_tries("t2")
        try:
            lines = subnet.fabric.lines(["host1"], ["srp_daemon", *self.OPTIONS, "-r", "5"])
        finally:
            subnet.targets.lose_first_tries("t2", False)
        assert f"{subnet.targets.node_guid('t2') + 1:016x}" not in [guid_of(line) for line in lines]


class TestSilence:
    @pytest.mark.parametrize("silent", TARGETS)
    def test_one_silent_target_never_hides_a_healthy_one(self, subnet: Subnet, silent: str) -> None:
        subnet.targets.silence(silent)
        try:
            began = time.monotonic()
            program = srpha("srp-daemon", "-f", "/dev/null", "-o", "-c", "-a", "-t", "300")
            lines = subnet.fabric.lines(["host1"], program)
            spent = time.monotonic() - began
        finally:
            subnet.targets.silence(silent, False)
        expected = [guid for guid in subnet.guids if guid != f"{subnet.targets.node_guid(silent) + 1:016x}"]
        assert sorted(guid_of(line) for line in lines) == expected
        assert spent < 5

    def test_silence_costs_its_own_timeout_only(self, subnet: Subnet) -> None:
        """Also with ports of other hosts that have no agent at all and time out as hardware does."""
        subnet.targets.silence("t3")
        try:
            (found,) = scanned(subnet.fabric, ["host1"], SLOW)
        finally:
            subnet.targets.silence("t3", False)
        silent = [guid for guid, standing in found["units"].items() if standing == "silent"]
        assert f"{subnet.targets.node_guid('t3') + 1:016x}" in silent
        assert sorted(found_units(found)) == [guid for guid in subnet.guids if guid not in silent]
        assert len(found_units(found)) == 4
        # all silent ports at the same time, and sooner than three tries of a second, since others answered at once
        assert 0.4 < found["duration"] < 2.9

    def test_planted_two_silent_targets_are_two_lines_fewer(self, subnet: Subnet) -> None:
        for name in ("t1", "t2"):
            subnet.targets.silence(name)
        try:
            (found,) = scanned(subnet.fabric, ["host1"])
        finally:
            for name in ("t1", "t2"):
                subnet.targets.silence(name, False)
        assert len(found["lines"]["ibsim0/1"]) == len(subnet.guids) - 2


class TestSubnetManagers:
    def test_without_one_the_port_cannot_be_used_and_nothing_is_called_empty(
        self, make_fabric: MakeFabric, make_targets: MakeTargets
    ) -> None:
        net = small_net()
        fabric = make_fabric(net.text, net.switches[0])
        done = fabric.run(["host1"], srpha("srp-daemon", "-f", "/dev/null", "-o", "-c", "-a"), code=1)
        assert done.stdout == ""
        assert "no active InfiniBand port" in done.stderr
        with Probe(fabric, ["host1"]) as probe:
            assert probe.wait("identity")["trouble"] == "the port is init"
            assert probe.scan() == []
            # planted: with a subnet manager the same probe finds what is there
            fabric.start_sm()
            make_targets(fabric, {"t1": one_ioc})
            assert probe.wait("identity", lambda message: not message["trouble"])["sm_lid"] > 0
            (found,) = probe.scan()
            assert len(found["lines"]["ibsim0/1"]) == 1

    def test_a_restart_is_survived_also_on_another_node(
        self, make_fabric: MakeFabric, make_targets: MakeTargets
    ) -> None:
        net = small_net()
        fabric = make_fabric(net.text, "leaf1")
        fabric.start_sm()
        make_targets(fabric, dict.fromkeys(TARGETS, one_ioc))
        with Probe(fabric, ["host1"], SLOW, "--brisk") as probe:
            first = probe.wait("identity", lambda message: not message["trouble"])
            (before,) = probe.scan()
            fabric.stop_sm()
            (without,) = probe.scan()
            assert not without["complete"]
            assert without["reason"] == "no answer from the subnet administrator"
            fabric.sm_node = "leaf2"
            fabric.start_sm()
            moved = probe.wait("identity", lambda message: message["sm_lid"] != first["sm_lid"])
            assert (moved["lid"], moved["trouble"]) == (first["lid"], "")
            (after,) = probe.scan()
            assert after["complete"]
            assert after["lines"] == before["lines"]


class TestPartitions:
    """P_Keys that OpenSM gives out by its partition file."""

    SHARED = frozenset({("t1", "8001"), ("t2", "8001"), ("t2", "8002"), ("t3", "8002")})
    """What host1 shares with targets beside the default partition."""
    ORIGINAL = ("srp_daemon", "-f", "/dev/null", "-o", "-c", "-a", "-n")
    OURS = tuple(srpha("srp-daemon", *ORIGINAL[1:]))

    @staticmethod
    def conf(fabric_guids: dict[str, int], default: str) -> str:
        def members(*names: str) -> str:
            return ", ".join(f"{fabric_guids[name] + 1:#x}=full" for name in names)

        return (
            f"Default=0x7fff, ipoib: {default}, SELF=full;\n"
            f"Storage=0x0001: {members('host1', 't1', 't2')};\n"
            f"Backup=0x0002: {members('host1', 'host2', 't2', 't3')};\n"
        )

    @staticmethod
    def found(lines: list[str], guids: dict[str, int]) -> set[tuple[str, str]]:
        names = {f"{guid + 1:016x}": name for name, guid in guids.items()}
        return {(names[guid_of(line)], line.partition("pkey=")[2][:4]) for line in lines}

    @pytest.fixture
    def parted(self, make_fabric: MakeFabric, make_targets: MakeTargets) -> tuple[Fabric, dict[str, int]]:
        net = small_net()
        fabric = make_fabric(net.text, net.switches[0])
        targets = make_targets(fabric, dict.fromkeys(TARGETS, one_ioc))
        guids = {name: targets.node_guid(name) for name in TARGETS}
        guids |= {"host1": guids["t1"] - 0x200, "host2": guids["t1"] - 0x100}  # nodes are numbered as the file has them
        return fabric, guids

    def test_a_target_is_found_in_every_shared_partition(self, parted: tuple[Fabric, dict[str, int]]) -> None:
        fabric, guids = parted
        fabric.start_sm(partitions=self.conf(guids, "ALL=full"))
        with Probe(fabric, ["host1"]) as probe:
            identity = probe.wait("identity", lambda message: not message["trouble"])
            assert identity["guid"] == guids["host1"] + 1
            assert sorted(identity["pkeys"]) == [0x8001, 0x8002, 0xFFFF]
            (found,) = probe.scan()
        default = {(name, "ffff") for name in TARGETS}
        assert self.found(found["lines"]["ibsim0/1"], guids) == default | self.SHARED
        # planted: the other host is not in the first partition
        (other,) = scanned(fabric, ["host2"])
        assert self.found(other["lines"]["ibsim0/1"], guids) == default | {("t2", "8002"), ("t3", "8002")}

    @pytest.mark.outside("srp_daemon")
    def test_as_the_original_finds_it_where_all_is_shared(self, parted: tuple[Fabric, dict[str, int]]) -> None:
        fabric, _ = parted
        fabric.start_sm(partitions="Default=0x7fff: ALL=full, SELF=full;\nStorage=0x0001: ALL=full;\n")
        original = fabric.lines(["host1"], self.ORIGINAL)
        assert len(original) == 2 * len(TARGETS)
        assert fabric.lines(["host1"], self.OURS) == original

    @pytest.mark.outside("srp_daemon")
    def test_the_original_does_not_heed_what_the_sa_says_of_partitions(
        self, parted: tuple[Fabric, dict[str, int]]
    ) -> None:
        """It takes "no records match" for a shared partition (facts: srp A.11); ours are the lines that hold."""
        fabric, guids = parted
        fabric.start_sm(partitions=self.conf(guids, "ALL=full"))
        original = self.found(fabric.lines(["host1"], self.ORIGINAL), guids)
        ours = self.found(fabric.lines(["host1"], self.OURS), guids)
        assert original == {(name, pkey) for name in TARGETS for pkey in ("ffff", "8001", "8002")}
        assert ours == {(name, "ffff") for name in TARGETS} | self.SHARED

    def test_limited_members_meet_only_where_one_is_full(self, parted: tuple[Fabric, dict[str, int]]) -> None:
        fabric, guids = parted
        fabric.start_sm(partitions=self.conf(guids, "ALL=limited"))
        (found,) = scanned(fabric, ["host1"])
        assert self.found(found["lines"]["ibsim0/1"], guids) == self.SHARED
