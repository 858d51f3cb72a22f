"""What the embedded initiator takes from its driver's module parameters, and the local ports it works on."""

from __future__ import annotations

from dataclasses import dataclass, field

from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.core.recovery.remote_port import RemotePortTimers
from srpha.core.seams import MadPort
from srpha.embedded.rdma.rdma_port import RdmaPort


@dataclass(frozen=True, slots=True)
class InitiatorPort:
    """A local HCA port as the initiator uses it: datagrams for the path query, verbs for everything else."""

    mad: MadPort
    rdma: RdmaPort


@dataclass(frozen=True, slots=True, kw_only=True)
class InitiatorSettings:
    """Module parameters of ib_srp (facts: srp C.3) with its defaults, and a few times of the embedded world."""

    mode: RecoveryMode = RecoveryMode.KERNEL
    timers: RemotePortTimers = field(default_factory=RemotePortTimers)
    """Timers of new connections."""
    ch_count: int = 1
    queue_size: int = 62
    """Commands outstanding per channel."""
    cmd_sg_entries: int = 12
    use_immediate_data: bool = True
    max_immediate_data: int = 8192
    """Bytes; longer data-out is fetched by the target."""
    tl_retry_count: int = 7
    ack_timeout: int | None = None
    """Exponent n of 4.096 us x 2**n; None: from the path's packet life time."""
    max_cm_retries: int = 15
    cm_response_timeout: int = 20
    """Exponent; ib_srp takes subnet timeout + 2."""
    path_query_timeout: float = 1.0
    path_query_retries: int = 0
    scan_timeout: float = 5.0
    """Seconds for each command of a scan."""
    removal_time: float = 0.05
    """Seconds from the removal of a host until its identity may log in again: the kernel's teardown takes time."""
