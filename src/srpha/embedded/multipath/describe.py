"""A map as others see it: the PathManager seam's description, dm-multipath's table line and status line."""

from __future__ import annotations

from srpha.core.multipath.map_state import PathGroup
from srpha.core.multipath.policy import Prioritizer
from srpha.core.multipath.table import (
    SECTOR,
    GroupLetter,
    StatusGroup,
    StatusLine,
    StatusPath,
    TableGroup,
    TableLine,
    TablePath,
)
from srpha.core.seams import GroupInfo, GroupState, MapInfo, PathInfo, PathState
from srpha.embedded.multipath.device import MultipathDevice
from srpha.embedded.multipath.path import DevicePath


def map_info(device: MultipathDevice) -> MapInfo:
    """The map as the daemon sees it."""
    state = device.state
    return MapInfo(
        name=device.name,
        wwid=device.wwid,
        dm_name=device.dm_name,
        blocks=device.blocks,
        block_size=device.block_size,
        vendor=device.identity.vendor,
        product=device.identity.product,
        queueing=state.queueing,
        queued=device.queued,
        groups=tuple(_group_info(group, group is state.current) for group in state.groups),
    )


def table_line(device: MultipathDevice, prio: Prioritizer) -> TableLine:
    """What ``dmsetup table`` says."""
    state = device.state
    alua = prio is not Prioritizer.CONST and any(path.target_port_group is not None for path in state.paths)
    groups = tuple(
        TableGroup(
            group.selector.kind.value,
            tuple(TablePath(path.dev_t, group.selector.table_words(path)) for path in group.paths),
        )
        for group in state.groups
    )
    return TableLine(
        sectors=device.size // SECTOR,
        groups=groups,
        features=("queue_if_no_path",) if state.queueing else (),
        handler=("alua",) if alua else (),
        first_group=_current_number(device),
    )


def status_line(device: MultipathDevice) -> StatusLine:
    """What ``dmsetup status`` says."""
    state = device.state
    groups = tuple(
        StatusGroup(
            _letter(group, group is state.current),
            tuple(
                StatusPath(path.dev_t, path.usable, path.fail_count, group.selector.status_words(path))
                for path in group.paths
            ),
        )
        for group in state.groups
    )
    return StatusLine(device.size // SECTOR, groups, _current_number(device), queueing_io=device.queued > 0)


def _current_number(device: MultipathDevice) -> int:
    current = device.state.current
    if current is not None:
        return current.number
    return 1 if device.state.groups else 0


def _letter(group: PathGroup[DevicePath], current: bool) -> GroupLetter:
    if group.bypassed:
        return GroupLetter.BYPASSED
    return GroupLetter.CURRENT if current else GroupLetter.ENABLED


def _group_info(group: PathGroup[DevicePath], current: bool) -> GroupInfo:
    states = {
        GroupLetter.BYPASSED: GroupState.DISABLED,
        GroupLetter.CURRENT: GroupState.ACTIVE,
        GroupLetter.ENABLED: GroupState.ENABLED,
    }
    return GroupInfo(
        number=group.number,
        selector=f"{group.selector.kind.value} 0",
        priority=group.priority,
        state=states[_letter(group, current)],
        paths=tuple(_path_info(path) for path in group.paths),
    )


def _path_info(path: DevicePath) -> PathInfo:
    device = path.device
    return PathInfo(
        device=device.name,
        dev_t=device.dev_t,
        hctl=device.hctl,
        state=PathState.ACTIVE if path.usable else PathState.FAILED,
        checker=path.checker_state,
        device_state=device.state,
        priority=path.priority,
        fail_count=path.fail_count,
    )
