"""Settings of the embedded multipath engine, named after multipath.conf where it has the same thing."""

from __future__ import annotations

from dataclasses import dataclass

from srpha.core.multipath.fencing import FencePolicy
from srpha.core.multipath.policy import (
    Failback,
    GroupingPolicy,
    MapPolicy,
    NoPathRetry,
    Prioritizer,
    SelectorKind,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipathSettings:
    """Times in seconds. A value out of range raises :class:`ValueError` that names it."""

    path_grouping_policy: GroupingPolicy = GroupingPolicy.GROUP_BY_PRIO
    path_selector: SelectorKind = SelectorKind.SERVICE_TIME
    prio: Prioritizer = Prioritizer.DETECT
    failback: Failback | float = Failback.IMMEDIATE
    no_path_retry: NoPathRetry | int = 12
    """Polling intervals that I/O is queued without any path; or fail at once, or queue for ever."""
    polling_interval: float = 5.0
    max_polling_interval: float = 20.0
    checker_timeout: float = 30.0
    """A checker without an answer for so long marks its path ``i/o timeout`` and fails it."""
    io_timeout: float = 30.0
    """Timeout of each command, enforced by the initiator."""
    retries: int = 5
    """Counted retries on the same path; all retries there end after (retries + 1) x io_timeout."""
    busy_delay: float = 0.01
    """First pause after BUSY or TASK SET FULL; doubled up to :attr:`busy_delay_max`."""
    busy_delay_max: float = 0.5
    not_ready_delay: float = 1.0
    """Pause before a unit that is becoming ready is asked again."""
    give_up_delay: float = 0.1
    """How long a device that stopped running may keep the commands it has before multipath goes on without them."""
    fence_policy: FencePolicy = FencePolicy.SAFE
    fence_timeout: float = 10.0
    """A fence without an answer for so long is tried through another path."""
    quiesce_time: float = 60.0
    """After so long since it was given up a command is held to be gone from the target even without a fence."""
    max_io_bytes: int = 1 << 20
    """Longest single command; :meth:`MultipathDevice.read` and ``write`` split longer transfers."""

    def __post_init__(self) -> None:
        positive = ("polling_interval", "checker_timeout", "io_timeout", "busy_delay", "not_ready_delay")
        for name in (*positive, "fence_timeout", "max_io_bytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("retries", "give_up_delay", "quiesce_time"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.max_polling_interval < self.polling_interval:
            raise ValueError(
                f"max_polling_interval {self.max_polling_interval} is below polling_interval {self.polling_interval}"
            )
        if self.busy_delay_max < self.busy_delay:
            raise ValueError(f"busy_delay_max {self.busy_delay_max} is below busy_delay {self.busy_delay}")
        if not isinstance(self.failback, Failback) and self.failback < 0:
            raise ValueError(f"a failback delay must not be negative, got {self.failback}")
        if not isinstance(self.no_path_retry, NoPathRetry) and self.no_path_retry < 1:
            raise ValueError(f"no_path_retry counts from 1, or is fail or queue, got {self.no_path_retry}")

    @property
    def map_policy(self) -> MapPolicy:
        """The part that a map's state machine needs."""
        return MapPolicy(
            grouping=self.path_grouping_policy,
            selector=self.path_selector,
            failback=self.failback,
            no_path_retry=self.no_path_retry,
            polling_interval=self.polling_interval,
        )
