"""Settings of the daemon, as values; files and command lines are read elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from srpha.core.connections.attempts import BackOff
from srpha.core.connections.reconcile import Policy, TargetRules
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.core.recovery.remote_port import RemotePortTimers
from srpha.core.targets.rules import Rules
from srpha.core.targets.static_targets import StaticTarget
from srpha.core.targets.target_port import InitiatorExt, TargetPort


class TargetChoice(Protocol):
    """A choice of target ports: a rule or a mask."""

    def fits(self, target: TargetPort) -> bool:
        """Whether it speaks of ``target``."""
        ...


@dataclass(frozen=True, slots=True)
class TimerClass:
    """Remote-port timers for the targets that ``rule`` fits."""

    name: str
    rule: TargetChoice
    timers: RemotePortTimers


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the daemon can be told. Times in seconds."""

    rules: TargetRules = field(default_factory=Rules)
    initiator_ext: InitiatorExt = field(default_factory=InitiatorExt)
    scan: ScanSettings = field(default_factory=ScanSettings)
    scan_interval: float = 60.0
    """Time between full scans; notices and port events come on top."""
    scan_hold: float = 0.2
    """A hint waits this long before the scan it asks for, so that a burst of hints costs one scan."""
    scan_gap: float = 2.0
    """Least time between two scans that hints ask for."""
    poll_interval: float = 2.0
    """Time between re-reads of connections and maps when no hint comes."""
    removal_poll: float = 0.25
    """The same while a host is on its way out."""
    subscription_interval: float = 300.0
    """Renewal of the subscriptions to notices."""
    probe_interval: float = 3.0
    """First delay before a silent unit is asked again; it doubles up to ``scan_interval``."""
    probe_timeout: float = 0.5
    """Per try of the question whether one target port is alive."""
    probe_retries: int = 2
    login_deadline: float = 90.0
    """A login that takes longer is no longer waited for; the local port stays busy until the kernel lets go."""
    back_off: BackOff = field(default_factory=BackOff)
    timers: RemotePortTimers | None = None
    """Timers for targets of no class; None leaves the driver's defaults."""
    timer_classes: tuple[TimerClass, ...] = ()
    """First that fits decides."""
    fail_suspect_paths: bool = True
    """Fail paths in multipath as soon as a port or target is known to be gone, if another path is healthy."""
    remove_departed: bool = False
    """Remove connections to a target that a positive answer says has left; else dev_loss_tmo decides."""
    max_imm_data: int | None = None
    """ib_srp's immediate-data size when it uses any, in bytes; targets that take less get ``max_it_iu_size``."""
    static_targets: tuple[StaticTarget, ...] = ()
    """Targets to be connected beside those that discovery finds."""
    connect: bool = True
    """False: only look and report (a dry run)."""

    @property
    def policy(self) -> Policy:
        """The part that the reconciler needs."""
        return Policy(self.rules, self.initiator_ext, self.max_imm_data, self.static_targets)

    def timers_for(self, target: TargetPort) -> RemotePortTimers | None:
        """The timers for ``target``, or None when they are left as they are."""
        for item in self.timer_classes:
            if item.rule.fits(target):
                return item.timers
        return self.timers
