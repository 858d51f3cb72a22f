"""The SCSI command as it travels from multipath to an initiator, and what a device offers to carry it.

:class:`ScsiCommand` is the only mutable object on the I/O path: the layer that completes it fills it in, exactly once
(SAM-5 5.3), and calls ``done``; whoever submitted the command owns it again then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from srpha.core.seams import DeviceState, Unwatch
from srpha.wire.scsi.status import HostByte, ScsiStatus


class ScsiCommand:
    """One SCSI command with its buffers, its limits and, after completion, its result.

    ``data_out`` is sent to the target, ``data_in`` is filled by it; at most one of them is not empty. ``timeout`` is in
    seconds and starts when the device takes the command. ``fail_fast`` asks that a transport disruption completes the
    command at once, since the submitter has other paths (REQ_FAILFAST_TRANSPORT).
    """

    __slots__ = (
        "cdb",
        "context",
        "data_in",
        "data_out",
        "delivered",
        "done",
        "fail_fast",
        "host_byte",
        "residual",
        "sense",
        "status",
        "timeout",
    )

    def __init__(
        self,
        cdb: bytes,
        done: Callable[[ScsiCommand], None],
        *,
        data_out: bytes | bytearray | memoryview = b"",
        data_in: bytearray | memoryview | None = None,
        timeout: float = 30.0,
        fail_fast: bool = False,
        context: object = None,
    ) -> None:
        self.cdb = cdb
        self.done = done
        self.data_out = data_out
        self.data_in = data_in
        self.timeout = timeout
        self.fail_fast = fail_fast
        self.context = context
        """The submitter's own; no other layer looks at it."""
        self.host_byte = HostByte.OK
        self.status = ScsiStatus.GOOD
        self.sense = b""
        self.residual = 0
        """Bytes not transferred (underflow positive, overflow negative)."""
        self.delivered = False
        """Whether the command may have reached the target: after a failure it may still be executed there."""


@dataclass(frozen=True, slots=True)
class Nexus:
    """An I_T nexus of SRP (SRP 4.2): the two 16-byte port identifiers of a login."""

    initiator_port_id: bytes
    target_port_id: bytes


@dataclass(frozen=True, slots=True)
class UnitIdentity:
    """What a logical unit says of itself: enough to join paths and to refuse a stranger."""

    wwid: str
    """As multipath-tools writes it: designator type digit, then the identifier (facts: multipath 1.6)."""
    serial: str
    vendor: str
    product: str
    revision: str
    blocks: int
    block_size: int
    write_protected: bool
    target_port_group: int | None = None
    """From VPD page 0x83, None where the unit does not support ALUA."""


class ScsiDevice(Protocol):
    """A SCSI disk of an initiator, as multipath sees it."""

    @property
    def name(self) -> str: ...
    @property
    def dev_t(self) -> str: ...
    @property
    def hctl(self) -> str: ...
    @property
    def state(self) -> DeviceState: ...
    @property
    def identity(self) -> UnitIdentity: ...
    @property
    def nexus(self) -> Nexus: ...

    def submit(self, command: ScsiCommand) -> None:
        """Take the command; ``command.done`` is called exactly once, later (never from inside ``submit``)."""
        ...

    def watch_state(self, hint: Callable[[], None]) -> Unwatch:
        """Hear that ``state`` or ``identity`` has changed."""
        ...


class DeviceEvent(Protocol):
    """Receiver of device arrivals and departures."""

    def __call__(self, device: ScsiDevice, *, present: bool) -> None: ...


class DeviceSource(Protocol):
    """Where SCSI devices come from: the embedded initiator, to the embedded multipath engine."""

    def devices(self) -> tuple[ScsiDevice, ...]: ...
    def watch_devices(self, receiver: DeviceEvent) -> Unwatch: ...
