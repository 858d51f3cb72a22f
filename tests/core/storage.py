"""Connections and maps for tests of the pure parts."""

from __future__ import annotations

from srpha.core.recovery.remote_port import RemotePortState, RemotePortTimers
from srpha.core.seams import (
    CheckerState,
    Connection,
    DeviceInfo,
    DeviceState,
    GroupInfo,
    GroupState,
    MapInfo,
    PathInfo,
    PathState,
)
from srpha.wire.identifiers import Gid


def connection(host: int, *, local: int = 0, remote: int = 1, **what: object) -> Connection:
    """Connection ``host`` from ``mlx5_<local>/1`` to target port ``remote`` with one disk."""
    gid = Gid(0xFE80 << 48, 0x100 + remote)
    disk = DeviceInfo(disk_name(host), f"8:{host * 16}", f"{host}:0:0:0", DeviceState.RUNNING)
    values: dict[str, object] = {
        "host": host,
        "device": f"mlx5_{local}",
        "port": 1,
        "id_ext": 1,
        "ioc_guid": 2,
        "service_id": 3,
        "pkey": 0xFFFF,
        "sgid": Gid(0, 9),
        "dgid": gid,
        "orig_dgid": gid,
        "remote_port": f"port-{host}:1",
        "state": RemotePortState.RUNNING,
        "timers": RemotePortTimers(),
        "failed_reconnects": 0,
        "req_lim": 1,
        "zero_req_lim": 0,
        "ch_count": 1,
        "devices": (disk,),
    }
    return Connection(**{**values, **what})  # type: ignore[arg-type]


def disk_name(host: int) -> str:
    return "sd" + chr(ord("a") + host)


def path(host: int, *, state: PathState = PathState.ACTIVE, device: DeviceState = DeviceState.RUNNING) -> PathInfo:
    """The path over connection ``host``."""
    checker = CheckerState.READY if state is PathState.ACTIVE else CheckerState.FAULTY
    return PathInfo(disk_name(host), f"8:{host * 16}", f"{host}:0:0:0", state, checker, device, 1, 0)


def mapping(*paths: PathInfo, name: str = "mpatha", queueing: bool = True, queued: int = 0) -> MapInfo:
    """A map with one group."""
    group = GroupInfo(1, "service-time 0", 1, GroupState.ACTIVE, paths)
    return MapInfo(name, f"3{name}", "dm-0", 1000, 512, "srpha", "unit", queueing, queued, (group,))
