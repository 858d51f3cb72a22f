"""Moving I/O away from a local port before maintenance: which paths to hold, and which maps cannot do without."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from srpha.core.connections.path_guard import is_healthy
from srpha.core.recovery.remote_port import RemotePortState
from srpha.core.seams import Connection, DeviceState, MapInfo, PathState


@dataclass(frozen=True, slots=True)
class DrainAssessment:
    """What holding all paths over some local ports means."""

    maps: tuple[str, ...]
    """Maps with such a path, by name."""
    paths: tuple[str, ...]
    """Devices of those paths, in maps that can do without them."""
    in_use: tuple[str, ...]
    """The ones of ``paths`` that carry I/O now."""
    stranded: tuple[str, ...]
    """Maps without a healthy path over another port: their I/O would have nowhere to go."""


def hosts_of(connections: Iterable[Connection], local_ports: Collection[str]) -> frozenset[int]:
    """The scsi_hosts of connections from these local ports."""
    return frozenset(item.host for item in connections if item.local_port in local_ports)


def assess_drain(maps: Iterable[MapInfo], hosts: Collection[int], forced: Collection[str] = ()) -> DrainAssessment:
    """Look at every map with a path over one of ``hosts``. Maps named in ``forced`` may be left without any path."""
    names: list[str] = []
    paths: list[str] = []
    in_use: list[str] = []
    stranded: list[str] = []
    for item in maps:
        behind = [path for path in item.paths if path.host in hosts]
        if not behind:
            continue
        names.append(item.name)
        spared = any(is_healthy(path) for path in item.paths if path.host not in hosts)
        if spared or item.name in forced:
            paths += [path.device for path in behind]
            in_use += [path.device for path in behind if path.state is PathState.ACTIVE]
        else:
            stranded.append(item.name)
    return DrainAssessment(tuple(names), tuple(paths), tuple(in_use), tuple(stranded))


def held_paths(maps: Iterable[MapInfo], hosts: Collection[int]) -> dict[str, int]:
    """Devices over ``hosts`` that are out of use, and the host of each."""
    return {
        path.device: path.host
        for item in maps
        for path in item.paths
        if path.host in hosts and path.state is PathState.FAILED
    }


def paths_to_reinstate(
    maps: Iterable[MapInfo], connections: Iterable[Connection], owed: Mapping[str, int]
) -> tuple[str, ...]:
    """Of the devices ``owed`` (with their hosts) those that can carry I/O now: connection and device run."""
    running = {item.host for item in connections if item.state is RemotePortState.RUNNING and not item.removing}
    return tuple(
        path.device
        for item in maps
        for path in item.paths
        if owed.get(path.device) == path.host
        and path.host in running
        and path.state is PathState.FAILED
        and path.device_state is DeviceState.RUNNING
    )
