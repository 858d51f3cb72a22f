"""What the keys of srpha's JSON documents mean; a test compares them with the documents of a running lab.

A key is named by its way through the document: ``maps[].name`` is ``name`` in each object of the list ``maps``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from srpha.operate.client import Json
from tools.reference.text import table

_PATH: Final[Mapping[str, str]] = {
    "map": "multipath device, such as `mpatha`",
    "wwid": "its WWID",
    "group": "number of the path group, from 1",
    "group_state": "`active`, `enabled` or `disabled`, as dm-multipath sees it",
    "device": "SCSI disk, such as `sda`",
    "dev_t": "its `major:minor`",
    "hctl": "its `host:channel:target:lun`",
    "host": "its scsi_host number",
    "state": "`active` or `failed`, as dm-multipath sees it",
    "checker": "the path checker's word: `ready`, `faulty`, `shaky`, `ghost`, `i/o pending`, `i/o timeout`, `delayed`, "
    "`undef` before the first check",
    "device_state": "`running`, `blocked`, `transport-offline`, `offline` or `deleted`, as SCSI sees it",
    "fail_count": "how often the path has failed",
    "local_port": "local port of its connection, null when the connection is not known",
    "target_port": "GUID of the target port of its connection, or null",
}

KEYS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "status": {
            "host": "name of the host",
            "time": "when this was so",
            "healthy": "nothing is missing anywhere; `srpha status` exits 1 when this is false for any host",
            "settled": "the first scans are over and no login is due or under way",
            "ports[].name": "local port, `device/port`",
            "ports[].state": "`down`, `init`, `armed`, `active`, or `gone` with its device",
            "ports[].usable": "whether it can log in now",
            "ports[].drained": "whether `srpha drain` has taken it out of service; its paths count as missing",
            "ports[].reason": "why it is not used",
            "ports[].gid": "its GID, or null",
            "ports[].lid": "its LID, or null",
            "ports[].sm_lid": "LID of its subnet manager, or null",
            "ports[].subscribed": "whether the subnet administrator reports ports that come and go to it",
            "connections_known": "false: the host's connections could not be read; what is shown is from before",
            "maps_known": "false: the multipath devices could not be read",
            "maps[].name": "multipath device",
            "maps[].wwid": "its WWID",
            "maps[].dm_name": "its name in the kernel, such as `dm-0`",
            "maps[].size": "bytes",
            "maps[].vendor": "vendor of its unit",
            "maps[].product": "product of its unit",
            "maps[].state": "`optimal`, `degraded`, `queueing` or `failed`",
            "maps[].paths_up": "paths that carry I/O",
            "maps[].paths_expected": "paths that there ought to be",
            "maps[].local_ports": "local ports that these paths use",
            "maps[].target_ports": "target ports that these paths use",
            "maps[].queued": "I/Os that wait because no path can take them",
            "maps[].queueing": "I/O would wait when no path is left",
            "targets": "number of target ports by standing",
            "pairs": "number of pairs of local and target port by status",
        },
        "paths": {
            "host": "name of the host",
            "time": "when this was so",
            "connections_known": "as in `status`",
            "maps_known": "as in `status`",
            "pairs[].local_port": "local port",
            "pairs[].id_ext": "identifier extension of the target port",
            "pairs[].ioc_guid": "its IOC GUID",
            "pairs[].target_port": "GUID of the port it is reached at",
            "pairs[].pkey": "partition of the login",
            "pairs[].status": "status of the pair, see below",
            "pairs[].reason": "why it is so, for a person",
            "pairs[].description": "ID string of the I/O controller",
            "pairs[].line": "the `add_target` line, empty when the rules refuse the target",
            "pairs[].failures": "logins that failed in a row",
            "pairs[].ours": "whether srpha made or adopted the connection",
            "pairs[].host": "scsi_host number, or null",
            "pairs[].state": "remote port state: `running`, `blocked`, `fail-fast`, `lost`, or null",
            "pairs[].timers.reconnect_delay": "seconds, or null for off",
            "pairs[].timers.fast_io_fail_tmo": "seconds, or null for off",
            "pairs[].timers.dev_loss_tmo": "seconds, or null for off; `timers` is null without a connection",
            "pairs[].req_lim": "credits that the initiator has, or null",
            "pairs[].devices[].name": "SCSI disk on the connection",
            "pairs[].devices[].hctl": "its `host:channel:target:lun`",
            "pairs[].devices[].state": "its state, as in `paths[].device_state`",
            **{f"paths[].{key}": meaning for key, meaning in _PATH.items()},
        },
        "plan": {
            "host": "name of the host",
            "time": "when this was so",
            "settled": "as in `status`",
            "connections_known": "as in `status`",
            "ports[].name": "local port",
            "ports[].usable": "whether it can log in now",
            "ports[].drained": "whether it is drained for maintenance",
            "ports[].reason": "why it cannot log in",
            "targets[].target_port": "GUID of a port at which an I/O unit answers",
            "targets[].description": "NodeDescription of its node",
            "targets[].standing": "standing, as in `discover`",
            "targets[].reason": "why it is so, for a person",
            "targets[].services": "number of its SRP services",
            "targets[].unpaired_ports": "local ports that form no pair with it",
            "pairs[].local_port": "local port",
            "pairs[].target_port": "GUID of the target port's port",
            "pairs[].id_ext": "identifier extension of the target port",
            "pairs[].ioc_guid": "its IOC GUID",
            "pairs[].desired": "whether the rules want the connection",
            "pairs[].actual": "remote port state of the connection, `removing`, or null without one",
            "pairs[].met": "whether what is desired is there; `srpha plan` exits 1 when this is false for any pair",
            "pairs[].status": "status of the pair, as in `paths`",
            "pairs[].reason": "why it is so, for a person",
            "pairs[].host": "scsi_host number, or null",
            "pairs[].ours": "whether srpha made or adopted the connection",
            "pairs[].static": "whether the target comes from the configuration, not from discovery",
            "pairs[].failures": "logins that failed in a row",
            "pairs[].next_attempt_in": "seconds until the next login, or null",
            "pairs[].line": "the `add_target` line, empty when the rules refuse the target",
            "others": "connections that belong to no pair: `host`, `reason`, `local_port`, `target_port` of each",
            "troubles": "what cannot be read or done, for a person",
        },
        "discover": {
            "host": "name of the host",
            "time": "when this was so",
            "units[].guid": "GUID of the port at which the I/O unit answers",
            "units[].gid": "its GID",
            "units[].lid": "its LID",
            "units[].description": "NodeDescription of its node, made safe for terminals",
            "units[].standing": "standing, see below",
            "units[].reason": "why it is so, for a person",
            "units[].last_seen": "when its agent answered last",
            "units[].services[].id_ext": "identifier extension of an SRP service",
            "units[].services[].ioc_guid": "GUID of its I/O controller",
            "units[].services[].service_id": "CM service ID to log in to",
            "units[].services[].io_class": "I/O class: `0100` for SRP revision 16a, `ff00` for revision 10",
            "units[].services[].description": "ID string of the I/O controller",
            "units[].refused": "what the unit said that cannot be used, for a person",
            "scans[].time": "when the last scan of a subnet ended",
            "scans[].asker": "the local port that asked what is the same for all",
            "scans[].members": "the local ports in that subnet",
            "scans[].complete": "whether every question to the subnet administrator was answered",
            "scans[].reason": "what was not",
            "scans[].queries": "datagrams that asked something, retries not counted",
            "scans[].timeouts": "questions without an answer",
            "scans[].round_trips": "longest chain of questions of which each needed the answer before",
            "scans[].duration": "seconds",
        },
        "drain": {
            "port": "local port",
            "maps": "multipath devices with paths over it",
            "paths": "SCSI disks that are held now, or offered again",
            "refused": "paths that multipath would not give up or take back, a sentence each; the exit code is 1 then",
        },
        "reload": {
            "source": "the files that are in force now",
            "notes": "what of them counts later or was passed over, a sentence each",
        },
        "shutdown": {
            "dry_run": "true: nothing was done, the rest tells what would be",
            "flushed": "multipath devices that were taken down",
            "kept": "multipath devices that stay, over paths of connections that are not srpha's",
            "removed[].host": "scsi_host number of a connection that was removed",
            "removed[].local_port": "its local port",
            "removed[].id_ext": "identifier extension of its target port",
        },
        "events": {
            "number": "counts from 1 without gaps",
            "time": "when it was noticed",
            "kind": "identifier, see [events](events.md)",
            "severity": "`info`, `notice`, `warning` or `error`",
            "subject": "what it happened to",
            "text": "one sentence for a person",
            "fields": "object with values that explain it, such as `host`, `map`, `line`",
        },
        "demo": {
            "ok": "every step held; the exit code is 0 then, else 1",
            "recovery": "`ofed` or `kernel`",
            "seed": "seed of the run",
            "cable": "the cable that was pulled, by the port at one end",
            "steps[].name": "step of the scenario",
            "steps[].ok": "whether it held",
            "steps[].detail": "what was seen",
            "io.operations": "verified I/Os",
            "io.reads": "reads among them",
            "io.writes": "writes among them",
            "io.bytes": "bytes moved",
            "io.errors": "I/Os that failed",
            "io.mismatches": "blocks that did not hold what was last written",
            "io.max_stall_ms": "longest time one I/O took, in milliseconds",
            "io.fail_over_stall_ms": "the same while the cable was out",
            "io.problems": "sentences about the first errors and mismatches",
            **{
                f"paths_{when}[].{key}": meaning
                for when in ("before", "during", "after")
                for key, meaning in _PATH.items()
            },
            "restored": "connections and multipath devices after the run are as before, compared field by field",
            "duration_s": "seconds on the clock of the run, virtual ones with `--fast`",
        },
    }
)
_COUNTS: Final = ("targets", "pairs", "fields")
"""Objects whose keys are words of their own and stand for themselves."""


def document_keys(name: str) -> str:
    """The table of one document; the three lists of the demo's paths are told once."""
    rows = [
        (f"`{key.replace('paths_before', 'paths_…')}`", meaning)
        for key, meaning in KEYS[name].items()
        if not key.startswith(("paths_during", "paths_after"))
    ]
    return table(("key", "meaning"), rows)


def keys_in(value: Json, way: str = "") -> Iterator[str]:
    """Keys of a real document, named as above, each as often as it occurs. Empty lists and objects name themselves."""
    if isinstance(value, dict) and value and way not in _COUNTS:
        for key, inner in value.items():
            yield from keys_in(inner, f"{way}.{key}" if way else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for inner in value:
            yield from keys_in(inner, f"{way}[]")
    else:
        yield way
