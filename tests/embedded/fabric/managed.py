"""A fabric with a running subnet manager, for tests of general services, SM and SA."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from srpha.core.seams import MadAddress
from srpha.embedded.fabric.build import build_fabric
from srpha.embedded.fabric.hardware import Fabric, Port
from srpha.embedded.fabric.topology import LinkSpec, NodeKind, NodeSpec, PortRef, Topology, default_node_guid
from srpha.embedded.mads.gsi import GeneralServices
from srpha.embedded.subnet.sm import SubnetManager, SubnetSettings
from srpha.embedded.subnet.smi import SmpSettings, SubnetManagement
from srpha.wire.layout import Structure
from srpha.wire.mad import Method
from srpha.wire.sa import SaHeader, sa_request


def two_switches() -> Topology:
    """HCA ``a`` on both switches, ``b`` and ``sm`` on one each; two cables between the switches."""
    return _topology(
        [("left", NodeKind.SWITCH, 6), ("right", NodeKind.SWITCH, 6)],
        [("sm", 1), ("a", 2), ("b", 1)],
        [
            ("sm/1", "left/1"),
            ("a/1", "left/2"),
            ("a/2", "right/2"),
            ("b/1", "right/1"),
            ("left/5", "right/5"),
            ("left/6", "right/6"),
        ],
    )


def fat_tree(hcas: int, *, per_leaf: int = 16, spines: int = 4) -> Topology:
    """One-port HCAs ``h0``, ``h1``, ... on leaf switches that are all joined to all spines."""
    leaves = -(-hcas // per_leaf)
    switches = [(f"leaf{n}", NodeKind.SWITCH, per_leaf + spines) for n in range(leaves)]
    switches += [(f"spine{n}", NodeKind.SWITCH, max(leaves, 1)) for n in range(spines)]
    cables = [(f"h{n}/1", f"leaf{n // per_leaf}/{n % per_leaf + 1}") for n in range(hcas)]
    cables += [
        (f"leaf{leaf}/{per_leaf + spine + 1}", f"spine{spine}/{leaf + 1}")
        for leaf in range(leaves)
        for spine in range(spines)
    ]
    return _topology(switches, [(f"h{n}", 1) for n in range(hcas)], cables)


def _topology(
    switches: list[tuple[str, NodeKind, int]], hcas: list[tuple[str, int]], cables: list[tuple[str, str]]
) -> Topology:
    kinds = switches + [(name, NodeKind.HCA, ports) for name, ports in hcas]
    nodes = tuple(
        NodeSpec(name=name, kind=kind, ports=ports, node_guid=default_node_guid(position), description=name)
        for position, (name, kind, ports) in enumerate(kinds)
    )
    return Topology(nodes, tuple(LinkSpec(PortRef.parse(a), PortRef.parse(b)) for a, b in cables))


class Subnet:
    """A fabric, the general services of all HCA ports, and the subnet manager that runs."""

    def __init__(self, topology: Topology, group: asyncio.TaskGroup) -> None:
        self.fabric: Fabric = build_fabric(topology, rng=random.Random(1))
        self.group = group
        self.gsi = {
            port.name: GeneralServices(port)
            for node in self.fabric.nodes.values()
            if node.management is None
            for port in node.ports
        }
        self.sm: SubnetManager
        self.smi: SubnetManagement
        self._running: asyncio.Task[None] | None = None

    def port(self, name: str) -> Port:
        return self.fabric.port(name)

    async def start_sm(
        self, place: str, settings: SubnetSettings | None = None, patience: SmpSettings | None = None
    ) -> None:
        self.smi = SubnetManagement(self.port(place), patience or SmpSettings())
        self.sm = SubnetManager(self.port(place), self.smi, self.gsi[place], settings or SubnetSettings())
        self._running = self.group.create_task(self.sm.run())
        await self.sm.ready()

    async def stop_sm(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
            self._running = None
            self.smi.close()

    def sa(self, name: str) -> MadAddress:
        return MadAddress(lid=self.port(name).sm_lid)

    async def ask(
        self,
        name: str,
        method: Method,
        attribute: int,
        record: Structure | None = None,
        mask: int = 0,
        modifier: int = 0,
        retries: int = 3,
    ) -> bytes:
        """The SA's answer to a question of the port ``name``."""
        mad = sa_request(method, attribute, transaction_id=0, mask=mask, record=record, modifier=modifier)
        return await self.gsi[name].transact(self.sa(name), mad, timeout=1.0, retries=retries)

    async def status(
        self, name: str, method: Method, attribute: int, record: Structure | None = None, mask: int = 0
    ) -> int:
        return SaHeader.decode(await self.ask(name, method, attribute, record, mask)).mad.status


@asynccontextmanager
async def managed(
    topology: Topology, place: str, settings: SubnetSettings | None = None, patience: SmpSettings | None = None
) -> AsyncIterator[Subnet]:
    """A subnet after its first sweep, managed from the port ``place``."""
    async with asyncio.TaskGroup() as group:
        subnet = Subnet(topology, group)
        await subnet.start_sm(place, settings, patience)
        yield subnet
        await subnet.stop_sm()
