"""What changed between two readings of connections and maps, as events for operators."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from srpha.core.connections.path_guard import is_healthy
from srpha.core.events import Event, EventKind, Severity
from srpha.core.recovery.remote_port import RemotePortState
from srpha.core.seams import Connection, MapInfo, PathInfo, PathState

_INFO: Final = Severity.INFO
_NOTICE: Final = Severity.NOTICE
_WARNING: Final = Severity.WARNING
_ERROR: Final = Severity.ERROR

_STATE_SEVERITY: Final = {
    RemotePortState.RUNNING: _NOTICE,
    RemotePortState.BLOCKED: _WARNING,
    RemotePortState.FAIL_FAST: _WARNING,
    RemotePortState.LOST: _ERROR,
}


def connection_name(connection: Connection) -> str:
    """A connection in messages: local port and target port."""
    dgid = connection.orig_dgid or connection.dgid
    at = f"@{dgid.guid:016x}" if dgid is not None else ""
    return f"{connection.local_port} -> {connection.id_ext:016x}/{connection.ioc_guid:016x}{at}"


def connection_events(
    old: Sequence[Connection], new: Sequence[Connection], told: Collection[int], now: float
) -> list[Event]:
    """Events between two readings. Hosts in ``told`` are new but have an event of their own (made or adopted)."""
    events: list[Event] = []
    before = {item.host: item for item in old}
    after = {item.host: item for item in new}
    for host, item in before.items():
        if host not in after:
            events.append(_connection(now, EventKind.CONNECTION_REMOVED, _NOTICE, item, f"host{host} is gone"))
            events += [_device(now, EventKind.DEVICE_REMOVED, item, device.name) for device in item.devices]
    for host, item in after.items():
        known = before.get(host)
        if known is None:
            if host not in told:
                text = f"host{host} appeared; it was not made here"
                events.append(_connection(now, EventKind.CONNECTION_STATE, _INFO, item, text))
            events += [_device(now, EventKind.DEVICE_ADDED, item, device.name) for device in item.devices]
            continue
        if known.state is not item.state:
            text = f"host{host} was {known.state.value}, is {item.state.value}"
            severity = _STATE_SEVERITY[item.state]
            events.append(_connection(now, EventKind.CONNECTION_STATE, severity, item, text))
        if item.removing and not known.removing:
            text = f"host{host} is being removed"
            events.append(_connection(now, EventKind.CONNECTION_STATE, _WARNING, item, text))
        names, known_names = {d.name for d in item.devices}, {d.name for d in known.devices}
        events += [_device(now, EventKind.DEVICE_REMOVED, item, d.name) for d in known.devices if d.name not in names]
        events += [
            _device(now, EventKind.DEVICE_ADDED, item, d.name) for d in item.devices if d.name not in known_names
        ]
    return events


def map_events(
    old: Sequence[MapInfo], new: Sequence[MapInfo], connections: Sequence[Connection], now: float
) -> list[Event]:
    """Events between two readings of the maps; ``connections`` tell which ports a path goes over."""
    ports = {item.host: _ports(item) for item in connections}
    events: list[Event] = []
    before = {item.name: item for item in old}
    after = {item.name: item for item in new}
    for name, item in before.items():
        if name not in after:
            events.append(_map(now, EventKind.MAP_REMOVED, _NOTICE, item, f"map {name} is gone"))
    for name, item in after.items():
        known = before.get(name)
        if known is None:
            text = f"map {name} ({item.wwid}) with {_paths(len(item.paths))}"
            events.append(_map(now, EventKind.MAP_ADDED, _INFO, item, text))
        else:
            events += _path_events(known, item, now)
        events += _health_events(known, item, ports, now)
    return events


def _path_events(old: MapInfo, new: MapInfo, now: float) -> Iterator[Event]:
    before = {path.device: path for path in old.paths}
    after = {path.device: path for path in new.paths}
    for device, path in before.items():
        if device not in after or after[device].hctl != path.hctl:
            yield _path(now, EventKind.PATH_REMOVED, _NOTICE, new, path, f"{device} left map {new.name}")
    for device, path in after.items():
        known = before.get(device)
        if known is None or known.hctl != path.hctl:
            yield _path(now, EventKind.PATH_ADDED, _INFO, new, path, f"{device} joined map {new.name}")
        elif known.state is not path.state:
            if path.state is PathState.FAILED:
                yield _path(now, EventKind.PATH_FAILED, _WARNING, new, path, f"{device} of map {new.name} failed")
            else:
                yield _path(now, EventKind.PATH_RESTORED, _NOTICE, new, path, f"{device} of map {new.name} is back")


def _health_events(
    old: MapInfo | None, new: MapInfo, ports: Mapping[int, tuple[str, str]], now: float
) -> Iterator[Event]:
    """Redundancy and queueing. A map that is new has lost nothing, though it may be queueing."""
    usable = _usable(new)
    was_stuck = old is not None and _is_stuck(old)
    if _is_stuck(new) and not was_stuck:
        what = f"I/O waits ({new.queued} held)" if new.queueing else "I/O fails"
        yield _map(now, EventKind.MAP_QUEUEING, _ERROR, new, f"map {new.name} has no usable path: {what}")
    elif was_stuck and not _is_stuck(new):
        yield _map(now, EventKind.MAP_RECOVERED, _NOTICE, new, f"map {new.name} has {_paths(usable)} again")
    if old is None:
        return
    before, after = _single_point(old, ports), _single_point(new, ports)
    if after and not before:
        text = f"map {new.name} hangs on {after}: {usable} of {_paths(len(new.paths))} healthy"
        yield _map(now, EventKind.REDUNDANCY_LOST, _WARNING, new, text)
    elif before and not after:
        text = f"map {new.name} survives the loss of any one port: {_paths(usable)} healthy"
        yield _map(now, EventKind.REDUNDANCY_RESTORED, _NOTICE, new, text)


def _single_point(item: MapInfo, ports: Mapping[int, tuple[str, str]]) -> str:
    """The one port whose loss would take all healthy paths of a map, or nothing when there is none such."""
    ends = [ports.get(path.host, (f"host{path.host}", f"host{path.host}")) for path in item.paths if is_healthy(path)]
    local, remote = {end[0] for end in ends}, {end[1] for end in ends}
    if len(local) > 1 and len(remote) > 1:
        return ""
    if not ends:
        return "no port at all"
    return f"local port {min(local)}" if len(local) == 1 else f"target port {min(remote)}"


def _ports(connection: Connection) -> tuple[str, str]:
    """Local port and target port of a connection; an RDMA/CM connection's target port is told by its number."""
    dgid = connection.orig_dgid or connection.dgid
    return connection.local_port, f"{dgid.guid:016x}" if dgid is not None else f"host{connection.host}"


def _usable(item: MapInfo) -> int:
    return sum(1 for path in item.paths if is_healthy(path))


def _is_stuck(item: MapInfo) -> bool:
    return not any(path.state is PathState.ACTIVE for path in item.paths)


def _paths(count: int) -> str:
    return f"{count} path" if count == 1 else f"{count} paths"


def _connection(now: float, kind: EventKind, severity: Severity, item: Connection, text: str) -> Event:
    fields: dict[str, str | int | float | bool] = {"host": item.host, "state": item.state.value}
    return Event(now, kind, severity, connection_name(item), f"{connection_name(item)}: {text}", fields)


def _device(now: float, kind: EventKind, item: Connection, name: str) -> Event:
    word = "appeared on" if kind is EventKind.DEVICE_ADDED else "is gone from"
    return Event(now, kind, _INFO, name, f"{name} {word} host{item.host}", {"host": item.host})


def _map(now: float, kind: EventKind, severity: Severity, item: MapInfo, text: str) -> Event:
    fields: dict[str, str | int | float | bool] = {"wwid": item.wwid, "usable": _usable(item), "paths": len(item.paths)}
    return Event(now, kind, severity, item.name, text, fields)


def _path(now: float, kind: EventKind, severity: Severity, item: MapInfo, path: PathInfo, text: str) -> Event:
    fields: dict[str, str | int | float | bool] = {"map": item.name, "hctl": path.hctl, "checker": path.checker.value}
    return Event(now, kind, severity, path.device, text, fields)
