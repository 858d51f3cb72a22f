"""Ordered shutdown: which maps to flush, which connections to remove, and what stands against it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from srpha.core.connections.path_guard import is_healthy
from srpha.core.seams import Connection, MapInfo


class UseKind(Enum):
    """How a block device is used."""

    HOLDER = "held by"
    """Another block device stands on it."""
    MOUNT = "mounted on"
    SWAP = "swap space"
    OPEN = "opened by a process"


@dataclass(frozen=True, slots=True)
class BlockUse:
    """One use of a block device. ``what`` is a device, a mount point, or empty."""

    kind: UseKind
    what: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value} {self.what}".rstrip()


@dataclass(frozen=True, slots=True)
class ShutdownPlan:
    """What an ordered shutdown does. With anything ``refused`` it does nothing."""

    flush: tuple[str, ...]
    """Maps to take down, by name."""
    keep: tuple[str, ...]
    """Maps that live on over paths that are not ours."""
    remove: tuple[int, ...]
    """Hosts of connections to remove."""
    refused: tuple[str, ...]
    """Why not, a sentence each."""


def devices_to_ask_for(maps: Iterable[MapInfo], connections: Iterable[Connection], ours: Collection[int]) -> list[str]:
    """Names of the block devices whose users :func:`plan_shutdown` must know."""
    names = [item.dm_name for item in maps if any(path.host in ours for path in item.paths)]
    names += [device.name for item in connections if item.host in ours for device in item.devices]
    return names


def plan_shutdown(
    maps: Sequence[MapInfo],
    connections: Sequence[Connection],
    ours: Collection[int],
    uses: Mapping[str, Sequence[BlockUse]],
) -> ShutdownPlan:
    """Plan it. ``uses`` by name of the block device, for all of :func:`devices_to_ask_for`."""
    flush: list[str] = []
    keep: list[str] = []
    refused: list[str] = []
    above: dict[str, str] = {}
    for item in maps:
        behind = [path for path in item.paths if path.host in ours]
        if not behind:
            continue
        above |= {path.device: item.dm_name for path in behind}
        used = ", ".join(str(use) for use in uses[item.dm_name])
        if len(behind) == len(item.paths):
            if used:
                refused.append(f"{item.name} ({item.dm_name}) is in use: {used}")
            flush.append(item.name)
            continue
        keep.append(item.name)
        if used and not any(is_healthy(path) for path in item.paths if path.host not in ours):
            refused.append(f"{item.name} ({item.dm_name}) would lose its last healthy path, and is in use: {used}")
    for connection in connections:
        for device in connection.devices if connection.host in ours else ():
            used = ", ".join(
                str(use)
                for use in uses[device.name]
                # "dm-0 (mpatha)": the map that the disk is a path of
                if use.kind is not UseKind.HOLDER or use.what.partition(" ")[0] != above.get(device.name)
            )
            if used:
                refused.append(f"{device.name} on host{connection.host} is in use: {used}")
    remove = tuple(item.host for item in connections if item.host in ours and not item.removing)
    return ShutdownPlan(tuple(flush), tuple(keep), remove, tuple(refused))
