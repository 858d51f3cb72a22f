"""The daemon's state as JSON documents: what ``--json`` prints, the control API serves, and tables are drawn from.

Names and meanings here are srpha's interface to other programs: keys are added, not renamed. GUIDs are 16 hex digits,
times are seconds of the daemon's clock, None means not known or not there.
"""

from __future__ import annotations

from collections.abc import Iterable

from srpha.core.connections.reconcile import Pair, PairStatus
from srpha.core.discovery.scan_result import Standing
from srpha.core.seams import Connection, MapInfo, PathInfo, PathState
from srpha.daemon.snapshot import Snapshot
from srpha.operate.client import Json
from srpha.operate.event_log import LoggedEvent

Document = dict[str, Json]


def event_document(logged: LoggedEvent) -> Document:
    """One event."""
    event = logged.event
    return {
        "number": logged.number,
        "time": round(event.time, 6),
        "kind": event.kind.value,
        "severity": event.severity.value,
        "subject": event.subject,
        "text": event.text,
        "fields": dict(sorted(event.fields.items())),
    }


def status_document(snapshot: Snapshot, host: str) -> Document:
    """Host, ports and one entry per multipath device; ``healthy`` only when nothing is missing anywhere."""
    expected = expected_paths(snapshot)
    maps = [_map_status(item, snapshot, expected) for item in snapshot.maps or ()]
    unconnected = [pair for pair in snapshot.pairs if pair.status not in (PairStatus.CONNECTED, PairStatus.DISALLOWED)]
    healthy = (
        snapshot.settled
        and snapshot.maps is not None
        and snapshot.connections is not None
        and not unconnected
        and all(item["state"] == "optimal" for item in maps)
        and all(port.usable for port in snapshot.ports)
    )
    return {
        "host": host,
        "time": round(snapshot.time, 6),
        "healthy": healthy,
        "settled": snapshot.settled,
        "ports": [
            {
                "name": port.name,
                "state": port.identity.state.value if port.identity else "gone",
                "usable": port.usable,
                "reason": port.reason or ("drained for maintenance" if port.drained else ""),
                "drained": port.drained,
                "gid": str(port.identity.gid) if port.identity else None,
                "lid": port.identity.lid if port.identity else None,
                "sm_lid": port.identity.sm_lid if port.identity else None,
                "subscribed": port.subscribed,
            }
            for port in snapshot.ports
        ],
        "connections_known": snapshot.connections is not None,
        "maps_known": snapshot.maps is not None,
        "maps": list(maps),
        "targets": {
            standing.value: sum(target.standing is standing for target in snapshot.targets) for standing in Standing
        },
        "pairs": {status.value: sum(pair.status is status for pair in snapshot.pairs) for status in PairStatus},
    }


def discover_document(snapshot: Snapshot) -> Document:
    """Every I/O unit and its SRP services, found or not, and what the last scans cost."""
    return {
        "time": round(snapshot.time, 6),
        "units": [
            {
                "guid": f"{target.unit.guid:016x}",
                "gid": str(target.unit.gid),
                "lid": target.unit.lid,
                "description": target.unit.description,
                "standing": target.standing.value,
                "reason": target.unit.reason,
                "last_seen": round(target.last_seen, 6),
                "services": [
                    {
                        "id_ext": service.id_ext_text,
                        "ioc_guid": f"{service.ioc_guid:016x}",
                        "service_id": f"{service.service_id:016x}",
                        "io_class": f"{service.io_class:04x}",
                        "description": service.description,
                    }
                    for service in target.unit.services
                ],
                "refused": list(target.unit.refused),
            }
            for target in snapshot.targets
        ],
        "scans": [
            {
                "time": round(scan.time, 6),
                "asker": scan.asker,
                "members": list(scan.members),
                "complete": scan.complete,
                "reason": scan.reason,
                "queries": scan.statistics.queries,
                "timeouts": scan.statistics.timeouts,
                "round_trips": scan.statistics.round_trips,
                "duration": round(scan.statistics.duration, 6),
            }
            for scan in snapshot.scans
        ],
    }


def paths_document(snapshot: Snapshot) -> Document:
    """Every pair of local port and target port, and every path of every map."""
    connections = {item.host: item for item in snapshot.connections or ()}
    return {
        "time": round(snapshot.time, 6),
        "connections_known": snapshot.connections is not None,
        "maps_known": snapshot.maps is not None,
        "pairs": [_pair(pair, connections) for pair in snapshot.pairs],
        "paths": list(path_documents(snapshot.maps or (), connections.values())),
    }


def path_documents(maps: Iterable[MapInfo], connections: Iterable[Connection]) -> tuple[Document, ...]:
    """One entry per path of every map, in table order."""
    by_host = {item.host: item for item in connections}
    return tuple(
        {
            "map": item.name,
            "wwid": item.wwid,
            "group": group.number,
            "group_state": group.state.value,
            "device": path.device,
            "dev_t": path.dev_t,
            "hctl": path.hctl,
            "host": path.host,
            "state": path.state.value,
            "checker": path.checker.value,
            "device_state": path.device_state.value,
            "fail_count": path.fail_count,
            **_endpoints(path, by_host),
        }
        for item in maps
        for group in item.groups
        for path in group.paths
    )


def expected_paths(snapshot: Snapshot) -> dict[tuple[int, int], int]:
    """Paths that a unit of target ``(id_ext, ioc_guid)`` ought to have: its pairs that the rules allow.

    A pair that cannot be connected now (port down, target silent) counts: that is what is missing.
    """
    counted: dict[tuple[int, int], int] = {}
    for pair in snapshot.pairs:
        if pair.status not in (PairStatus.DISALLOWED, PairStatus.OCCUPIED, PairStatus.TARGET_LEFT):
            key = pair.key.id_ext, pair.key.ioc_guid
            counted[key] = counted.get(key, 0) + 1
    return counted


def usable_paths(item: MapInfo) -> tuple[PathInfo, ...]:
    """Paths of a map that carry I/O now."""
    return tuple(path for path in item.paths if path.state is PathState.ACTIVE and path.device_state.value == "running")


def _map_status(item: MapInfo, snapshot: Snapshot, expected: dict[tuple[int, int], int]) -> Document:
    connections = {connection.host: connection for connection in snapshot.connections or ()}
    served = [connections[path.host] for path in item.paths if path.host in connections]
    targets = {(connection.id_ext, connection.ioc_guid) for connection in served}
    wanted = max([len(item.paths), *(expected.get(target, 0) for target in targets)])
    usable = usable_paths(item)
    live = [connections[path.host] for path in usable if path.host in connections]
    if not usable:
        state = "queueing" if item.queueing else "failed"
    elif len(usable) < wanted:
        state = "degraded"
    else:
        state = "optimal"
    return {
        "name": item.name,
        "wwid": item.wwid,
        "dm_name": item.dm_name,
        "size": item.blocks * item.block_size,
        "vendor": item.vendor,
        "product": item.product,
        "state": state,
        "paths_up": len(usable),
        "paths_expected": wanted,
        "local_ports": len({connection.local_port for connection in live}),
        "target_ports": len({connection.orig_dgid for connection in live}),
        "queued": item.queued,
        "queueing": item.queueing,
    }


def _pair(pair: Pair, connections: dict[int, Connection]) -> Document:
    connection = connections.get(pair.host) if pair.host is not None else None
    document: Document = {
        "local_port": pair.key.local_port,
        "id_ext": f"{pair.key.id_ext:016x}",
        "ioc_guid": f"{pair.key.ioc_guid:016x}",
        "target_port": f"{pair.key.dgid.guid:016x}",
        "pkey": f"{pair.target.pkey:04x}",
        "status": pair.status.value,
        "reason": pair.reason,
        "description": pair.target.description,
        "line": pair.line,
        "failures": pair.failures,
        "ours": pair.ours,
        "host": pair.host,
        "state": None,
        "timers": None,
        "req_lim": None,
        "devices": [],
    }
    if connection is not None:
        timers = connection.timers
        document["state"] = connection.state.value
        document["timers"] = {
            "reconnect_delay": timers.reconnect_delay,
            "fast_io_fail_tmo": timers.fast_io_fail_tmo,
            "dev_loss_tmo": timers.dev_loss_tmo,
        }
        document["req_lim"] = connection.req_lim
        document["devices"] = [
            {"name": device.name, "hctl": device.hctl, "state": device.state.value} for device in connection.devices
        ]
    return document


def _endpoints(path: PathInfo, connections: dict[int, Connection]) -> Document:
    connection = connections.get(path.host)
    if connection is None:
        return {"local_port": None, "target_port": None}
    target = connection.orig_dgid
    return {
        "local_port": connection.local_port,
        "target_port": f"{target.guid:016x}" if target is not None else None,
    }
