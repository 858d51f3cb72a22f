"""One-shot discovery for ``srpha discover`` and the drop-in commands."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from srpha.core.connections.attempts import Attempts
from srpha.core.connections.pairs import Pair
from srpha.core.connections.reconcile import Judgements, LocalPort, reconcile
from srpha.core.discovery.inventory import Inventory
from srpha.core.discovery.scan_result import ScanResult
from srpha.core.seams import MadPort, MadPortGoneError, PortIdentity
from srpha.daemon.scanner import Member, scan_subnet, subnets, trouble_of
from srpha.daemon.settings import Settings


@dataclass(frozen=True, slots=True)
class DiscoveryResult:
    """What one look at every subnet found."""

    ports: tuple[PortIdentity, ...]
    unusable: tuple[tuple[str, str], ...]
    """Local ports that could not ask, and why."""
    scans: tuple[ScanResult, ...]
    pairs: tuple[Pair, ...]
    """Every local port with every target port it was judged for, by port; ``status`` is DUE, DISALLOWED, ..."""

    @property
    def complete(self) -> bool:
        """Every usable port's subnet gave a whole answer."""
        return all(scan.complete for scan in self.scans)


async def discover(mad_ports: Sequence[MadPort], settings: Settings) -> DiscoveryResult:
    """Scan the subnets of ``mad_ports`` once. Never raises for what a peer does: the result says what failed.

    Pairs are judged as on a host without connections.
    """
    ports: list[LocalPort] = []
    members: list[Member] = []
    unusable: list[tuple[str, str]] = []
    for port in mad_ports:
        try:
            identity = port.identity()
        except MadPortGoneError as error:
            unusable.append((port.name, str(error)))
            continue
        trouble = trouble_of(identity)
        ports.append(LocalPort(identity, trouble))
        if trouble:
            unusable.append((port.name, trouble))
        else:
            members.append(Member(port, identity))
    async with asyncio.TaskGroup() as group:
        scans = [
            group.create_task(scan_subnet(subnet, lambda _: {}, settings.scan, lambda _: None))
            for subnet in subnets(members)
        ]
    results = tuple(result for scan in scans for result in scan.result())
    now = asyncio.get_running_loop().time()
    inventory = Inventory(settings.probe_interval, settings.scan_interval)
    for result in results:
        inventory.apply(result, now)
    plan = reconcile(ports, inventory, (), Judgements(settings.policy), Attempts(settings.back_off), (), now)
    return DiscoveryResult(tuple(port.identity for port in ports), tuple(unusable), results, plan.pairs)
