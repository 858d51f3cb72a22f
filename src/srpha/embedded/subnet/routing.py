"""Routes through the switches: min-hop linear forwarding tables, balanced over equal paths (IBA 14.2.5.10, 18.2.4.3).

Pure functions of the topology. The answer depends on nothing but the arguments' values: not on dictionary order, not on
what was routed before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from srpha.wire.smp import LIDS_PER_BLOCK, NO_PORT

SwitchLinks = Mapping[int, Mapping[int, int]]
"""Switch node GUID -> {port number: node GUID of the switch at the other end}; links to end nodes are not in it."""

_UNREACHABLE: Final = 1 << 30


@dataclass(frozen=True, slots=True, order=True)
class Destination:
    """A LID and where it is attached: ``port`` of ``switch``; port 0 is the switch itself."""

    lid: int
    switch: int
    port: int


def forwarding_tables(links: SwitchLinks, destinations: Iterable[Destination]) -> dict[int, bytes]:
    """Linear forwarding table of every switch: byte ``lid`` is the output port, 255 when there is no route.

    The length is the same for all switches, a multiple of a block's 64. Among the ports on shortest routes the one that
    carries the fewest end nodes' LIDs so far is taken, the lowest number first; LIDs are placed in ascending order.
    """
    wanted = sorted(destinations)
    size = -(-(wanted[-1].lid + 1) // LIDS_PER_BLOCK) * LIDS_PER_BLOCK if wanted else LIDS_PER_BLOCK
    switches = sorted(links)
    tables = {guid: bytearray([NO_PORT]) * size for guid in switches}
    load = {guid: [0] * 256 for guid in switches}
    choices: dict[int, list[tuple[int, list[int]]]] = {}
    for target in wanted:
        if target.switch not in tables:
            continue
        tables[target.switch][target.lid] = target.port
        nearest = choices.get(target.switch)
        if nearest is None:
            nearest = choices[target.switch] = _next_hops(links, switches, target.switch)
        carries = target.port != 0  # little goes to a switch itself
        for guid, ports in nearest:
            used = load[guid]
            best = ports[0]
            for port in ports:
                if used[port] < used[best]:
                    best = port
            used[best] += carries
            tables[guid][target.lid] = best
    return {guid: bytes(table) for guid, table in tables.items()}


def hop_counts(links: SwitchLinks, start: int) -> dict[int, int]:
    """Links between ``start`` and every switch that it reaches, ``start`` itself included with 0."""
    hops = {start: 0}
    queue = deque([start])
    while queue:
        guid = queue.popleft()
        for peer in links[guid].values():
            if peer in links and peer not in hops:
                hops[peer] = hops[guid] + 1
                queue.append(peer)
    return hops


def _next_hops(links: SwitchLinks, switches: list[int], target: int) -> list[tuple[int, list[int]]]:
    """For every other switch that reaches ``target``: its ports on shortest routes there, ascending."""
    hops = hop_counts(links, target)
    found: list[tuple[int, list[int]]] = []
    for guid in switches:
        if guid == target or guid not in hops:
            continue
        nearer = hops[guid] - 1
        ports = [port for port, peer in sorted(links[guid].items()) if hops.get(peer, _UNREACHABLE) == nearer]
        if ports:
            found.append((guid, ports))
    return found
