"""Which multipath paths to fail before timers do, and which of those to offer again.

A path is failed early only on positive evidence against its connection and only while another path of the same map is
healthy; a last path is left to the driver's timers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from srpha.core.seams import CheckerState, DeviceState, MapInfo, PathInfo, PathState

_GOOD_CHECKS: Final = (CheckerState.READY, CheckerState.GHOST)


@dataclass(frozen=True, slots=True)
class PathVerdict:
    """A path to fail, and why."""

    map_name: str
    device: str
    reason: str


def is_healthy(path: PathInfo) -> bool:
    """Whether every layer says that the path carries I/O."""
    return path.state is PathState.ACTIVE and path.checker in _GOOD_CHECKS and path.device_state is DeviceState.RUNNING


def paths_to_fail(maps: Iterable[MapInfo], suspects: Mapping[int, str]) -> tuple[PathVerdict, ...]:
    """Active paths over suspect connections (reasons by host number) in maps that can do without them."""
    verdicts = []
    for item in maps:
        if not any(is_healthy(path) and path.host not in suspects for path in item.paths):
            continue
        verdicts += [
            PathVerdict(item.name, path.device, suspects[path.host])
            for path in item.paths
            if path.host in suspects and path.state is PathState.ACTIVE
        ]
    return tuple(verdicts)


def paths_to_reinstate(
    maps: Iterable[MapInfo], failed_early: Collection[str], healthy_hosts: Collection[int]
) -> tuple[str, ...]:
    """Devices that were failed early, are still failed, and whose connection and device are healthy again."""
    return tuple(
        path.device
        for item in maps
        for path in item.paths
        if path.device in failed_early
        and path.state is PathState.FAILED
        and path.host in healthy_hosts
        and path.device_state is DeviceState.RUNNING
    )
