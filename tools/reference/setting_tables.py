"""Settings of the parts, from their dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from srpha.core.recovery.remote_port import RemotePortTimers
from srpha.embedded.initiator.settings import InitiatorSettings
from srpha.embedded.multipath.settings import MultipathSettings
from srpha.embedded.nbd.settings import NbdLimits
from srpha.embedded.subnet.sm import SubnetSettings
from srpha.embedded.world import WorldSettings
from srpha.lab.lab import LabSettings
from srpha.lab.workload import WorkloadSettings
from tools.reference.text import member_docs, table

GROUPS: Final[Mapping[str, type]] = MappingProxyType(
    {
        made.__name__: made
        for made in (
            LabSettings,
            WorkloadSettings,
            WorldSettings,
            SubnetSettings,
            InitiatorSettings,
            MultipathSettings,
            NbdLimits,
            RemotePortTimers,
        )
    }
)

_ELSEWHERE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "LabSettings.recovery": "which ib_srp the initiator behaves like, `kernel` or `ofed`",
        "LabSettings.seed": "seed of everything that is random",
        "LabSettings.daemon": "settings of srpha's own daemon on every host",
        "LabSettings.initiator": "InitiatorSettings, with the times of a fabric in one room",
        "LabSettings.multipath": "MultipathSettings",
        "LabSettings.timers": "remote-port timers of every connection: reconnect_delay/fast_io_fail_tmo/dev_loss_tmo",
        "LabSettings.timer_floor": "delays up to so many seconds cost no timer; commands in real time use 0.001",
        "LabSettings.load": "WorkloadSettings, or none",
        "WorkloadSettings.workers": "workers per multipath device",
        "WorkloadSettings.slots_per_worker": "places that each worker writes to",
        "WorkloadSettings.io_bytes": "bytes per I/O",
        "WorkloadSettings.read_share": "share of reads",
        "WorkloadSettings.mean_pause": "mean pause of a worker between I/Os, in seconds",
        "WorldSettings.timer_floor": "as in LabSettings",
        "WorldSettings.subnet": "SubnetSettings",
        "WorldSettings.initiator": "InitiatorSettings",
        "WorldSettings.multipath": "MultipathSettings",
        "SubnetSettings.ports": "GID prefix and subnet timeout that ports are given",
        "SubnetSettings.partitions": "partitions and their members",
        "SubnetSettings.first_lid": "first LID to give",
        "SubnetSettings.administrator": "how the subnet administrator answers",
        "InitiatorSettings.mode": "as LabSettings.recovery",
        "InitiatorSettings.ch_count": "RDMA channels per connection",
        "InitiatorSettings.cmd_sg_entries": "data descriptors in a command",
        "InitiatorSettings.use_immediate_data": "send short data-out with the command when the target allows it",
        "InitiatorSettings.tl_retry_count": "retries of a packet that is not acknowledged",
        "InitiatorSettings.max_cm_retries": "retries of a CM message",
        "InitiatorSettings.path_query_timeout": "seconds for the path query of a login",
        "InitiatorSettings.path_query_retries": "its retries",
        "MultipathSettings.path_grouping_policy": "how paths form groups",
        "MultipathSettings.path_selector": "which path of a group takes the next I/O",
        "MultipathSettings.prio": "where priorities come from: ALUA where there is any, or always the same",
        "MultipathSettings.failback": "when to go back to the best group",
        "MultipathSettings.polling_interval": "seconds between checks of a path that is not known to be good",
        "MultipathSettings.max_polling_interval": "longest time between checks of a good path",
        "MultipathSettings.busy_delay_max": "longest pause after BUSY",
        "MultipathSettings.fence_policy": "`safe` or `unsafe`, see [fencing](../design/fencing.md)",
        "RemotePortTimers.reconnect_delay": "seconds between tries to reconnect",
        "RemotePortTimers.fast_io_fail_tmo": "seconds from the failure until held I/O fails",
        "RemotePortTimers.dev_loss_tmo": "seconds from the failure until the scsi_host is removed",
    }
)
"""Meanings of settings that have no docstring of their own."""


def settings_of(name: str) -> str:
    """One group: name, default, meaning."""
    made: Any = GROUPS[name]
    docs = member_docs(made)
    rows = [
        (
            f"`{item.name}`",
            _default(getattr(made(), item.name)),
            docs.get(item.name) or _ELSEWHERE[f"{name}.{item.name}"],
        )
        for item in dataclasses.fields(made)
    ]
    return table(("setting", "default", "meaning"), rows)


def _default(value: object) -> str:
    match value:
        case None:
            return "none"
        case Enum():
            return f"`{value.value}`"
        case RemotePortTimers(reconnect, fast, loss):
            return f"`{reconnect}/{fast}/{loss}`"
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return f"{value:g}" if isinstance(value, float) else str(value)
        case tuple():
            return "everybody in ffff" if value else "none"
        case _ if dataclasses.is_dataclass(value):
            return "its own"
        case _:
            return str(value)
