"""Return to the original state, as a property that can be checked: two states compared field by field.

A repaired path may have a new scsi_host number and new disk names; all else must be as it was. So a state is taken down
under names that survive (local port, target port, WWID, LUN) with every value that must survive, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from srpha.core.seams import Connection, MapInfo, PathInfo


@dataclass(frozen=True, slots=True)
class StateRecord:
    """A host's storage state under durable names: what was, by name, in sorted order."""

    facts: tuple[tuple[str, str], ...]

    def as_dict(self) -> dict[str, str]:
        return dict(self.facts)


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact that is not what it was; ``before`` or ``after`` is None where the fact did not exist."""

    name: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        return f"{self.name}: was {self.before or 'absent'}, is {self.after or 'absent'}"


def record_state(connections: Iterable[Connection], maps: Iterable[MapInfo]) -> StateRecord:
    """Take down connections and maps under durable names."""
    facts: dict[str, str] = {}
    endpoint_of: dict[int, str] = {}
    for connection in connections:
        target = connection.orig_dgid.hex() if connection.orig_dgid is not None else "rdma-cm"
        name = f"{connection.local_port} -> {connection.id_ext:016x}/{connection.ioc_guid:016x} at {target}"
        if connection.removing:
            name += f" (removing, host{connection.host})"
        endpoint_of[connection.host] = name
        timers = connection.timers
        facts[f"connection {name}"] = (
            f"{connection.state.value}, pkey {connection.pkey}, service {connection.service_id}, "
            f"channels {connection.ch_count}, timers {timers.reconnect_delay}/{timers.fast_io_fail_tmo}/"
            f"{timers.dev_loss_tmo}"
        )
        for device in connection.devices:
            facts[f"device {name} lun {device.hctl.rpartition(':')[2]}"] = device.state.value
    for item in maps:
        facts[f"map {item.name}"] = (
            f"{item.wwid}, {item.blocks} x {item.block_size}, {item.vendor}/{item.product}, "
            f"queueing {item.queueing}, queued {item.queued}"
        )
        for group in item.groups:
            # Which group is in use is part of the state; its number is not, since a map may be loaded anew.
            members = ", ".join(sorted(_endpoint(path, endpoint_of) for path in group.paths))
            facts[f"group {item.name} of [{members}]"] = (
                f"{group.selector}, priority {group.priority}, {group.state.value}"
            )
            for path in group.paths:
                facts[f"path {item.name} over {_endpoint(path, endpoint_of)}"] = (
                    f"{path.state.value}, {path.checker.value}, {path.device_state.value}, priority {path.priority}"
                )
    return StateRecord(tuple(sorted(facts.items())))


def differences(before: StateRecord, after: StateRecord) -> tuple[Difference, ...]:
    """All facts in which two states differ, by name."""
    old, new = before.as_dict(), after.as_dict()
    return tuple(
        Difference(name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    )


def _endpoint(path: PathInfo, endpoint_of: dict[int, str]) -> str:
    return f"{endpoint_of.get(path.host, 'unknown connection')} lun {path.hctl.rpartition(':')[2]}"
