"""The real C tools on our own subnet: they find what is there, and no more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from embedded_subnet import Subnet
from ibsim_fabric import SLOW, srpha

from srpha.core.discovery.scan_result import Standing
from srpha.core.targets.add_target import format_target_line
from srpha.daemon.scanner import Member, scan_subnet
from srpha.daemon.settings import Settings
from srpha.embedded.fabric.faults import LinkDown, TargetCrash, TargetJoin
from srpha.embedded.fabric.topology import NodeKind, PortRef, load_topology
from srpha.embedded.worldspec import WorldSpec
from srpha.lab.generate import WorldShape, generate_world
from srpha.wire.smp import PortState

if TYPE_CHECKING:
    from conftest import MakeSubnet

pytestmark = [
    pytest.mark.outside("gcc", "ibsrpdm", "srp_daemon", "saquery", "ibnetdiscover", "smpquery", "sminfo", "ibstat"),
    pytest.mark.realtime,
]

HOST = "host1-a"
FULL_PROGRAM = ["srp_daemon", "-f", "/dev/null", "-o", "-c", "-a", "-n"]
STOCK = next(Path("/usr/lib").glob("*/umad2sim/libumad2sim.so"), Path("libumad2sim.so"))
SMALL = """
[subnet]
sm = "sm"
[[switch]]
name = "sw"
ports = 4
[[hca]]
name = "sm"
[[hca]]
name = "host1-a"
host = "host1"
device = "mlx5_0"
[[hca]]
name = "array"
ports = 2
[[link]]
a = "sm/1"
b = "sw/1"
[[link]]
a = "host1-a/1"
b = "sw/2"
[[link]]
a = "array/1"
b = "sw/3"
[[link]]
a = "array/2"
b = "sw/4"
[[target]]
name = "array"
hcas = ["array"]
[[target.unit]]
lun = 0
size = "1 MiB"
"""


def world(targets: int) -> WorldSpec:
    return WorldSpec.parse(generate_world(WorldShape(targets, unit_mib=1)))


async def own_lines(subnet: Subnet, *, device: str = "mlx5_0") -> list[str]:
    """What the daemon's scan finds from one local port, as ``add_target`` lines."""
    (host,) = subnet.world.hosts.values()
    settings = Settings()
    members = [Member(port, port.identity()) for port in host.mad_ports]
    (result,) = await scan_subnet(members, lambda _: {}, settings.scan, lambda _: None)
    assert result.complete
    (reach,) = [reach for reach in result.reach if reach.local_port.startswith(device)]
    return sorted(
        format_target_line(service.at(unit.gid, pkey).line(settings.initiator_ext))
        for unit in result.units
        if unit.standing is Standing.FOUND
        for pkey in reach.pkeys.get(unit.guid, ())
        for service in unit.services
    )


def values(line: str) -> dict[str, str]:
    return dict(item.split("=") for item in line.split(","))


async def test_srp_daemon_finds_what_the_daemon_finds(subnet_of: MakeSubnet) -> None:
    async with subnet_of(WorldSpec.demo()) as subnet:
        ours = await own_lines(subnet)
        theirs = await subnet.run(HOST, FULL_PROGRAM)
        assert sorted(theirs.lines) == ours
        assert len(ours) == 4
        subnet.world.faults.apply(TargetJoin("array3"))
        assert subnet.world.subnet_manager is not None
        await subnet.world.subnet_manager.sweep()
        joined = await subnet.run(HOST, FULL_PROGRAM)
        assert sorted(joined.lines) == await own_lines(subnet)
        assert len(joined.lines) == 6


@pytest.mark.parametrize("words", ["ibsrpdm", "ibsrpdm -c", "srp_daemon -o -c -a -n"])
async def test_the_drop_in_prints_the_same_in_the_same_run(subnet_of: MakeSubnet, words: str) -> None:
    program, *arguments = words.split()
    command = {"ibsrpdm": "ibsrpdm", "srp_daemon": "srp-daemon"}[program]
    async with subnet_of(world(12)) as subnet:
        theirs = await subnet.run(HOST, [program, *arguments])
        ours = await subnet.run(HOST, srpha(command, *arguments))
    assert sum("id_ext=" in line or "SRP.T10" in line for line in theirs.lines) == 24
    assert sorted(ours.lines) == sorted(theirs.lines)


async def test_targets_with_many_services(subnet_of: MakeSubnet) -> None:
    """More than one ServiceEntries of four each, and a second controller."""
    further = (8, 1)
    text = SMALL
    for ioc, services in enumerate(further):
        text += f"[[target.ioc]]\nguid = 0x{ioc + 0x10:016x}\n"
        for number in range(services):
            text += f'[[target.ioc.service]]\nname = "SRP.T10:{number + 0xA0:016X}"\nid = 0x{number + 0x20:016x}\n'
    async with subnet_of(WorldSpec.parse(text)) as subnet:
        theirs = await subnet.run(HOST, FULL_PROGRAM)
        assert sorted(theirs.lines) == await own_lines(subnet)
    assert len(theirs.lines) == 2 * sum(1 + services for services in further)


async def test_ibnetdiscover_draws_our_topology(subnet_of: MakeSubnet, tmp_path: Path) -> None:
    async with subnet_of(world(40)) as subnet:
        drawn = await subnet.run(HOST, ["ibnetdiscover"])
        topology = subnet.world.spec.topology
    path = tmp_path / "drawn.net"
    path.write_text(drawn.output)
    seen = load_topology(path)
    names = {node.node_guid: node.name for node in topology.nodes}
    guids = {node.name: node.node_guid for node in seen.nodes}

    def cables(links: Iterable[tuple[PortRef, PortRef]]) -> list[list[tuple[str, int]]]:
        return sorted(sorted((ref.node, ref.port) for ref in link) for link in links)

    def ours(ref: PortRef) -> PortRef:
        return PortRef(names[guids[ref.node]], ref.port)

    assert {(names[n.node_guid], n.kind, n.ports, n.description) for n in seen.nodes} == {
        (n.name, n.kind, n.ports, n.description) for n in topology.nodes
    }
    assert cables((ours(link.a), ours(link.b)) for link in seen.links) == cables(
        (link.a, link.b) for link in topology.links
    )
    hcas = [node for node in topology.nodes if node.kind is NodeKind.HCA]
    assert all(f"({node.port_guid(1):x})" in drawn.output for node in hcas)


async def test_ibnetdiscover_misses_a_cable_that_was_pulled(subnet_of: MakeSubnet) -> None:
    """What the comparison is worth: it sees the fabric as it is, not as the file says."""
    async with subnet_of(WorldSpec.demo()) as subnet:
        before = await subnet.run(HOST, ["ibnetdiscover"])
        subnet.world.faults.apply(LinkDown(PortRef("array1", 2)))
        after = await subnet.run(HOST, ["ibnetdiscover"])
    assert len(re.findall(r'^\[\d+\].*"array1"', before.output, re.MULTILINE)) == 2
    assert len(re.findall(r'^\[\d+\].*"array1"', after.output, re.MULTILINE)) == 1


async def test_saquery_reads_every_kind_of_record(subnet_of: MakeSubnet) -> None:
    async with subnet_of(world(12)) as subnet:
        node_records = await subnet.run(HOST, ["saquery", "NR"])
        ports = await subnet.run(HOST, ["saquery", "PIR"])
        port = subnet.world.fabric.port("array3/2")
        paths = await subnet.run(HOST, ["saquery", "PR", "--sgid-to-dgid", f"{_gid(subnet, HOST)}-{port.gid}"])
        by_lid = await subnet.run(HOST, ["saquery", "NR", str(port.lid)])
        about = await subnet.run(HOST, ["saquery", "-c"])
        ends = [p for n in subnet.world.fabric.nodes.values() for p in n.all_ports() if p.lid]
    assert sorted(int(lid) for lid in re.findall(r"\blid\.+(\d+)", node_records.output)) == sorted(p.lid for p in ends)
    guids = re.findall(r"port_guid\.+(0x[0-9a-f]+)", node_records.output)
    assert sorted(int(guid, 16) for guid in guids) == sorted(p.guid for p in ends)
    assert set(re.findall(r"EndPortLid\.+(\d+)", ports.output)) >= {str(p.lid) for p in ends}
    assert re.search(rf"dlid\.+{port.lid}$", paths.output, re.MULTILINE)
    assert re.search(r"pkey\.+0xFFFF", paths.output)
    assert by_lid.output.count("NodeRecord dump") == 1
    assert "array3" in by_lid.output
    assert re.search(r"Capability mask\.+0x2", about.output)


def _gid(subnet: Subnet, node: str) -> object:
    return subnet.world.fabric.port(f"{node}/1").gid


async def test_saquery_of_what_is_not_there(subnet_of: MakeSubnet) -> None:
    async with subnet_of(WorldSpec.demo()) as subnet:
        done = await subnet.run(HOST, ["saquery", "NR", "999"], code=None)
    assert "NodeRecord dump" not in done.output


async def test_smpquery_by_lid_and_by_directed_route(subnet_of: MakeSubnet) -> None:
    async with subnet_of(WorldSpec.demo()) as subnet:
        port = subnet.world.fabric.port("array2/2")
        by_lid = await subnet.run(HOST, ["smpquery", "portinfo", str(port.lid), "2"])
        node = await subnet.run(HOST, ["smpquery", "nodeinfo", str(port.lid)])
        routed = await subnet.run(HOST, ["smpquery", "-D", "nodeinfo", "0,1,8,3"])
        described = await subnet.run(HOST, ["smpquery", "-D", "nodedesc", "0,1"])
        pkeys = await subnet.run(HOST, ["smpquery", "pkeys", str(port.lid), "2"])
        nowhere = await subnet.run(HOST, ["smpquery", "-t", "100", "-D", "nodeinfo", "0,1,4"], SLOW, code=None)
    assert re.search(rf"^Lid:\.+{port.lid}$", by_lid.output, re.MULTILINE)
    assert re.search(r"^LinkState:\.+Active$", by_lid.output, re.MULTILINE)
    assert "IsDeviceManagementSupported" in by_lid.output
    told = [line for line in node.lines if re.match(r"(Guid|PortGuid|LocalPort):", line)]
    assert told == [line for line in routed.lines if re.match(r"(Guid|PortGuid|LocalPort):", line)]
    assert f"PortGuid:........................{port.guid:#018x}" in told
    assert described.output.rstrip().endswith("leaf-a")
    assert "0xffff" in pkeys.output
    assert nowhere.code != 0


async def test_sminfo_and_ibstat(subnet_of: MakeSubnet) -> None:
    async with subnet_of(WorldSpec.demo()) as subnet:
        fabric = subnet.world.fabric
        manager, host = fabric.port("sm/1"), fabric.port(f"{HOST}/1")
        about = await subnet.run(HOST, ["sminfo"])
        state = await subnet.run(f"{HOST}=mlx5_0", ["ibstat"])
        host.set_state(PortState.INIT)
        later = await subnet.run(f"{HOST}=mlx5_0", ["ibstat"])
    assert f"sm lid {manager.lid} sm guid {manager.guid:#x}" in about.output
    assert "SMINFO_MASTER" in about.output
    assert "CA 'mlx5_0'" in state.output
    assert f"Base lid: {host.lid}" in state.output
    assert f"Port GUID: {host.guid:#018x}" in state.output
    assert "State: Active" in state.output
    assert "State: Initializing" in later.output


async def test_from_the_manager_s_own_node(subnet_of: MakeSubnet) -> None:
    """The programs share QP0 and QP1 with our subnet manager, which goes on managing."""
    async with subnet_of(WorldSpec.demo()) as subnet:
        manager = subnet.world.subnet_manager
        assert manager is not None
        drawn, lines = await asyncio.gather(subnet.run("sm", ["ibnetdiscover"]), subnet.run("sm", FULL_PROGRAM))
        sweeps = manager.sweeps
        await manager.sweep()
        assert manager.sweeps > sweeps
        assert manager.failed_sweeps == 0
    assert drawn.output.count("Ca\t") == 5
    assert len(lines.lines) == 4


async def test_many_at_once_on_one_port(subnet_of: MakeSubnet) -> None:
    """They use the same transaction IDs, and each gets its own answers."""
    async with subnet_of(world(12)) as subnet:
        commands = [FULL_PROGRAM, ["ibsrpdm", "-c"], ["saquery", "NR"], ["ibnetdiscover"]] * 3
        done = await asyncio.gather(*(subnet.run(HOST, command) for command in commands))
        assert subnet.server.refused == 0
    for first, other in zip(done, done[4:], strict=False):
        assert [line for line in other.lines if not line.startswith("# ")] == [
            line for line in first.lines if not line.startswith("# ")
        ]


@pytest.mark.skipif(not STOCK.exists(), reason="outside tool missing: libumad2sim.so (libumad2sim0)")
@pytest.mark.parametrize("words", ["ibnetdiscover", "sminfo", "smpquery nodeinfo 1", "ibstat", "saquery -c"])
async def test_ibsim_s_own_preload(subnet_of: MakeSubnet, words: str) -> None:
    """The same answers as through our shim."""
    keep = re.compile(
        r"^(\[|Switch|Ca\t|sminfo|Guid|PortGuid|NumPorts|\s+(State|Base lid|Port GUID|Capability mask)\b)"
    )
    async with subnet_of(WorldSpec.demo()) as subnet:
        stock = await subnet.run(HOST, words.split(), stock=STOCK)
        shim = await subnet.run(HOST, words.split())
    kept = [line for line in stock.lines if keep.match(line)]
    assert kept
    assert kept == [line for line in shim.lines if keep.match(line)]


async def test_planted_a_silent_target_is_missed_and_the_others_are_found(subnet_of: MakeSubnet) -> None:
    """The comparison is worth something: with one agent dead the listings differ from those of before."""
    async with subnet_of(world(3)) as subnet:
        before = await own_lines(subnet)
        subnet.world.faults.apply(TargetCrash("array2"))
        ours = await subnet.run(HOST, srpha("srp-daemon", *FULL_PROGRAM[1:], "-t", "1000"), code=None)
        theirs = await subnet.run(HOST, [*FULL_PROGRAM, "-t", "1000"], SLOW, code=None)
        guid = subnet.world.fabric.node("array2").node_guid
    dead = {line for line in before if values(line)["ioc_guid"] == f"{guid:016x}"}
    assert len(dead) == 2
    assert set(ours.lines) == set(before) - dead
    assert set(theirs.lines) <= set(ours.lines)
