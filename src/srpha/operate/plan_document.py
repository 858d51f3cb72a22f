"""Desired, actual, and why they differ, as a JSON document: what ``srpha plan`` prints."""

from __future__ import annotations

from typing import Final

from srpha.core.connections.pairs import Pair, PairStatus
from srpha.core.seams import Connection
from srpha.daemon.snapshot import Snapshot
from srpha.operate.client import Json

_UNWANTED: Final = (PairStatus.DISALLOWED, PairStatus.OCCUPIED, PairStatus.TARGET_LEFT)


def plan_document(snapshot: Snapshot) -> dict[str, Json]:
    """Local ports, target ports, every pair of the two, and connections that belong to no pair."""
    connections = {item.host: item for item in snapshot.connections or ()}
    paired = {(pair.key.local_port, pair.key.dgid.guid) for pair in snapshot.pairs}
    return {
        "time": round(snapshot.time, 6),
        "settled": snapshot.settled,
        "connections_known": snapshot.connections is not None,
        "ports": [
            {"name": port.name, "usable": port.usable, "drained": port.drained, "reason": port.reason}
            for port in snapshot.ports
        ],
        "targets": [
            {
                "target_port": f"{target.unit.guid:016x}",
                "description": target.unit.description,
                "standing": target.standing.value,
                "reason": target.unit.reason,
                "services": len(target.unit.services),
                "unpaired_ports": [port.name for port in snapshot.ports if (port.name, target.unit.guid) not in paired],
            }
            for target in snapshot.targets
        ],
        "pairs": [_pair(pair, connections, snapshot.time) for pair in snapshot.pairs],
        "others": [
            {"host": other.host, "reason": other.reason, **_ends(connections.get(other.host))}
            for other in snapshot.others
        ],
        "troubles": list(snapshot.troubles),
    }


def fulfilled(document: dict[str, Json]) -> bool:
    """Whether everything desired is there."""
    pairs = document["pairs"]
    known = bool(document["connections_known"]) and not document["troubles"]
    return known and isinstance(pairs, list) and all(isinstance(pair, dict) and pair["met"] for pair in pairs)


def _pair(pair: Pair, connections: dict[int, Connection], now: float) -> dict[str, Json]:
    desired = pair.status not in _UNWANTED
    connection = connections.get(pair.host) if pair.host is not None else None
    wait = None if pair.next_attempt is None else round(max(0.0, pair.next_attempt - now), 3)
    return {
        "local_port": pair.key.local_port,
        "target_port": f"{pair.key.dgid.guid:016x}",
        "id_ext": f"{pair.key.id_ext:016x}",
        "ioc_guid": f"{pair.key.ioc_guid:016x}",
        "desired": desired,
        "actual": None if connection is None else "removing" if connection.removing else connection.state.value,
        "met": not desired or pair.status is PairStatus.CONNECTED,
        "status": pair.status.value,
        "reason": pair.reason,
        "host": pair.host,
        "ours": pair.ours,
        "static": pair.static,
        "failures": pair.failures,
        "next_attempt_in": wait,
        "line": pair.line,
    }


def _ends(connection: Connection | None) -> dict[str, Json]:
    if connection is None:
        return {"local_port": None, "target_port": None}
    target = connection.orig_dgid or connection.dgid or connection.destination
    return {
        "local_port": connection.local_port,
        "target_port": f"{target.guid:016x}" if target is not None else None,
    }
