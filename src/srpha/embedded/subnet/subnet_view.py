"""What a subnet manager knows of its subnet after a sweep: the data of the SA's answers (IBA volume 1, 15.2.5).

A view is a value: a new sweep makes a new one, and nothing in an old one moves. All of it was learnt by SMPs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from srpha.wire.identifiers import Gid, pkeys_match
from srpha.wire.smp import NO_PORT, NodeInfo, PortInfo, PortState

PortKey = tuple[int, int]
"""Node GUID and port number."""

_MOST_HOPS: Final = 64
_LANES: Final = {1: 1.0, 2: 4.0, 4: 8.0, 8: 12.0, 16: 2.0}
_GIGABITS: Final = {1: 2.5, 2: 5.0, 4: 10.0}
_GIGABITS_EXTENDED: Final = {1: 14.0, 2: 25.0, 4: 50.0, 8: 100.0}
_RATES: Final = (
    *(2.5, 10.0, 30.0, 5.0, 20.0, 40.0, 60.0, 80.0, 120.0, 14.0, 56.0, 112.0, 168.0),
    *(25.0, 100.0, 200.0, 300.0, 28.0, 50.0, 400.0, 600.0),
)
"""Gb/s by rate code, from code 2 on (IBA 15.2.5.16)."""
_FIRST_RATE: Final = 2
_SLOWEST: Final = 2.5


@dataclass(frozen=True, slots=True)
class EndPort:
    """A port with a LID: of a channel adapter, or port 0 of a switch."""

    lid: int
    guid: int
    number: int
    prefix: int
    node: NodeInfo
    description: bytes
    info: PortInfo
    pkeys: tuple[int, ...]
    """Entries of the P_Key table that are in use."""

    @property
    def gid(self) -> Gid:
        """GID index 0."""
        return Gid(self.prefix, self.guid)

    def visible_to(self, requester: EndPort) -> bool:
        """Whether ``requester`` may know of this port: it is itself, or shares a partition with it."""
        return requester.guid == self.guid or share_partition(requester.pkeys, self.pkeys)

    @property
    def key(self) -> PortKey:
        return self.node.node_guid, self.number


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """The other end of a port's link, and what the link carries: MTU code and Gb/s."""

    peer: PortKey
    mtu: int
    speed: float


@dataclass(frozen=True, slots=True)
class PathQuality:
    """What the route between two ports allows: MTU code, rate code (IBA 15.2.5.16) and number of links."""

    mtu: int
    rate: int
    links: int


@dataclass(frozen=True, slots=True)
class SubnetView:
    """The subnet: end ports by LID, outer ports of switches, links, and the switches' forwarding tables."""

    prefix: int
    sm_lid: int
    end_ports: tuple[EndPort, ...]
    switch_ports: Mapping[int, tuple[PortInfo, ...]]
    """Node GUID -> PortInfo of ports 1, 2, ..."""
    links: Mapping[PortKey, LinkEnd]
    tables: Mapping[int, bytes]
    by_lid: Mapping[int, EndPort]
    by_guid: Mapping[int, EndPort]

    def path(self, source: EndPort, destination: EndPort) -> PathQuality | None:
        """Quality of the route that the tables give, None when they give none."""
        mtu, speed = _own_limits(source)
        if source.guid == destination.guid:
            return PathQuality(mtu, rate_code(speed), 0)
        at: PortKey = source.key
        for links in range(_MOST_HOPS):
            guid, number = at
            if guid in self.tables and (number != 0 or links == 0):
                table = self.tables[guid]
                out = table[destination.lid] if destination.lid < len(table) else NO_PORT
                if out == 0 and guid == destination.node.node_guid:
                    return PathQuality(mtu, rate_code(speed), links)
                at = (guid, out)
            elif at == destination.key:
                return PathQuality(mtu, rate_code(speed), links)
            elif links > 0:
                return None
            end = self.links.get(at)
            if end is None:
                return None
            mtu, speed = min(mtu, end.mtu), min(speed, end.speed)
            at = end.peer
        return None


def build_view(
    *,
    prefix: int,
    sm_lid: int,
    end_ports: Iterable[EndPort],
    switch_ports: Mapping[int, tuple[PortInfo, ...]],
    links: Mapping[PortKey, LinkEnd],
    tables: Mapping[int, bytes],
) -> SubnetView:
    """A view with its indexes; end ports in the order of their LIDs."""
    ordered = tuple(sorted(end_ports, key=lambda port: port.lid))
    return SubnetView(
        prefix=prefix,
        sm_lid=sm_lid,
        end_ports=ordered,
        switch_ports=switch_ports,
        links=links,
        tables=tables,
        by_lid={port.lid: port for port in ordered},
        by_guid={port.guid: port for port in ordered},
    )


def empty_view(prefix: int) -> SubnetView:
    """What is known before the first sweep."""
    return build_view(prefix=prefix, sm_lid=0, end_ports=(), switch_ports={}, links={}, tables={})


def share_partition(left: Iterable[int], right: Iterable[int]) -> bool:
    """Whether two P_Key tables let their ports talk at all."""
    return next(shared_pkeys(left, right), None) is not None


def shared_pkeys(source: Iterable[int], destination: Iterable[int]) -> Iterator[int]:
    """P_Keys by which ``source`` may talk to ``destination``, as they stand in the source's table and in its order."""
    theirs = tuple(destination)
    return (own for own in source if any(pkeys_match(own, other) for other in theirs))


def link_end(peer: PortKey, near: PortInfo, far: PortInfo) -> LinkEnd:
    """What the link between two ports carries, as the ports describe it."""
    return LinkEnd(peer, min(near.mtu_cap, far.mtu_cap), min(link_speed(near), link_speed(far)))


def link_speed(info: PortInfo) -> float:
    """Gb/s of a port's link, 2.5 when it does not say."""
    lane = _GIGABITS_EXTENDED.get(info.link_speed_ext_active) or _GIGABITS.get(info.link_speed_active, 0.0)
    return lane * _LANES.get(info.link_width_active, 0.0) or _SLOWEST


def rate_code(speed: float) -> int:
    """The path record's code of a rate in Gb/s; the next lower one when there is no code for it."""
    return _RATES.index(max((known for known in _RATES if known <= speed), default=_SLOWEST)) + _FIRST_RATE


def rate_speed(code: int) -> float | None:
    """Gb/s of a rate code, None for a code that is not one."""
    index = code - _FIRST_RATE
    return _RATES[index] if 0 <= index < len(_RATES) else None


def is_up(info: PortInfo) -> bool:
    """Whether a port carries more than SMPs."""
    return info.state == PortState.ACTIVE


def _own_limits(port: EndPort) -> tuple[int, float]:
    return port.info.mtu_cap or 1, link_speed(port.info)
