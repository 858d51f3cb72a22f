"""The real OpenSM manages our hardware: it sweeps, routes and administers, and our own daemon discovers through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from embedded_subnet import Subnet, wait_for
from ibsim_fabric import Flags

from srpha.core.discovery.scan_result import ScanResult, Standing
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.daemon.scanner import Member, scan_subnet
from srpha.embedded.fabric.faults import LinkDown, LinkUp, SmStart
from srpha.embedded.fabric.hardware import Port
from srpha.embedded.fabric.topology import NodeKind, PortRef
from srpha.embedded.worldspec import WorldSpec
from srpha.lab.generate import WorldShape, generate_world
from srpha.wire.smp import PortCapability, PortState

if TYPE_CHECKING:
    from conftest import MakeSubnet

pytestmark = [
    pytest.mark.outside("gcc", "opensm", "ibsrpdm", "ibnetdiscover", "sminfo"),
    pytest.mark.realtime,
]

HOST = "host1-a"
MANAGER = "sm"
OPENSM = Flags(requests=True, fast_fail=False)


class Log:
    """What OpenSM wrote."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def text(self) -> str:
        return self.path.read_text(errors="replace") if self.path.exists() else ""

    @property
    def sweeps(self) -> int:
        """Sweeps that ended well and had something to do."""
        return self.text.count("SUBNET UP")


@asynccontextmanager
async def opensm(subnet: Subnet, folder: Path, *arguments: str) -> AsyncIterator[Log]:
    """OpenSM on the manager's node, from its first sweep on."""
    log = Log(folder / "opensm.log")
    command = ["opensm", "-f", log.path, "-e", "--debug", "2", *arguments]
    async with subnet.start(MANAGER, command, OPENSM):
        await wait_for("OpenSM's first sweep", lambda: log.sweeps > 0)
        yield log


def end_ports(subnet: Subnet) -> list[Port]:
    """Ports that a sweep is to bring up: of powered HCAs, with a cable."""
    nodes = [node for node in subnet.world.fabric.nodes.values() if node.kind is NodeKind.HCA and node.powered]
    return [port for node in nodes for port in node.ports if port.link is not None]


async def scan(subnet: Subnet) -> ScanResult:
    """The daemon's discovery over all ports of the host."""
    (host,) = subnet.world.hosts.values()
    members = [Member(port, port.identity()) for port in host.mad_ports]
    (result,) = await scan_subnet(members, lambda _: {}, ScanSettings(timeout=1.0), lambda _: None)
    return result


@pytest.mark.parametrize("targets", [2, 60])
async def test_opensm_brings_the_subnet_up(subnet_of: MakeSubnet, tmp_path: Path, targets: int) -> None:
    spec = WorldSpec.parse(generate_world(WorldShape(targets, unit_mib=1)))
    async with subnet_of(spec, managed=False) as subnet:
        ports = end_ports(subnet)
        assert {(port.state, port.lid) for port in ports} == {(PortState.INIT, 0)}
        async with opensm(subnet, tmp_path) as log:
            manager = subnet.world.fabric.port(f"{MANAGER}/1")
            assert {port.state for port in ports} == {PortState.ACTIVE}
            assert len({port.lid for port in ports} - {0}) == len(ports)
            assert {port.sm_lid for port in ports} == {manager.lid}
            assert manager.capability_mask & PortCapability.SM
            found, listed, about, drawn = await asyncio.gather(
                scan(subnet),
                subnet.run(HOST, ["ibsrpdm", "-c"]),
                subnet.run(HOST, ["sminfo"]),
                subnet.run(HOST, ["ibnetdiscover"]),
            )
            assert "ERR" not in log.text
        await wait_for("OpenSM's place", lambda: not subnet.server.attached, 5)
        assert not manager.capability_mask & PortCapability.SM
    assert found.complete
    assert [unit.standing for unit in found.units] == [Standing.FOUND] * (2 * targets)
    assert len(listed.lines) == 2 * targets
    assert f"sm lid {manager.lid} " in about.output
    assert "SMINFO_MASTER" in about.output
    assert drawn.output.count("Ca\t") == len({port.node.name for port in ports})


async def test_opensm_hears_traps_and_repairs(subnet_of: MakeSubnet, tmp_path: Path) -> None:
    """A cable that goes and comes: the switch's trap 128 reaches OpenSM, and it is repressed."""
    async with subnet_of(WorldSpec.demo(), managed=False) as subnet:
        port = subnet.world.fabric.port("array1/2")
        async with opensm(subnet, tmp_path) as log:
            swept = log.sweeps
            subnet.world.faults.apply(LinkDown(PortRef("array1", 2)))
            await wait_for("a sweep after the cable went", lambda: log.sweeps > swept)
            assert len((await scan(subnet)).units) == 3
            swept = log.sweeps
            subnet.world.faults.apply(LinkUp(PortRef("array1", 2)))
            await wait_for("a sweep after the cable came", lambda: log.sweeps > swept)
            await wait_for("the port", lambda: port.state is PortState.ACTIVE)
            assert len((await scan(subnet)).units) == 4
            assert log.text.count("num:128") >= 1 or "trap 128" in log.text


async def test_our_manager_takes_over_again(subnet_of: MakeSubnet, tmp_path: Path) -> None:
    async with subnet_of(WorldSpec.demo(), managed=False) as subnet:
        async with opensm(subnet, tmp_path):
            lids = {port.name: port.lid for port in end_ports(subnet)}
        await wait_for("OpenSM's place", lambda: not subnet.server.attached, 5)
        subnet.world.faults.apply(SmStart(None))
        await subnet.world.ready()
        assert subnet.world.subnet_manager is not None
        await subnet.world.subnet_manager.sweep()
        assert {port.name: port.lid for port in end_ports(subnet)} == lids
        assert len((await scan(subnet)).units) == 4


async def test_planted_a_manager_whose_smps_are_lost_brings_nothing_up(subnet_of: MakeSubnet, tmp_path: Path) -> None:
    """What the first test is worth: it is OpenSM that makes the ports active, over our fabric."""
    async with subnet_of(WorldSpec.demo(), managed=False) as subnet:
        subnet.world.faults.apply(LinkDown(PortRef(MANAGER, 1)))
        log = Log(tmp_path / "opensm.log")
        async with subnet.start(MANAGER, ["opensm", "-f", log.path, "-e", "--debug", "2"], OPENSM):
            await wait_for("OpenSM", lambda: "OpenSM 3" in log.text)
            await asyncio.sleep(1.0)
            assert log.sweeps == 0
        assert PortState.ACTIVE not in {port.state for port in end_ports(subnet)}
