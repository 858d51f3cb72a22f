"""The three seams between srpha's decisions and a world: management datagrams, SRP initiator, path manager.

Everything above these protocols is the same code in the kernel world and in the embedded world. All methods are
called on the event loop and never block it. Every ``watch`` callback is a hint without content unless it says
otherwise: a hint may be lost, doubled or late, and the listener re-reads the state from its source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from srpha.core.recovery.remote_port import RemotePortState, RemotePortTimers
from srpha.wire.identifiers import Gid

GSI_QPN: Final = 1
GSI_QKEY: Final = 0x80010000

Unwatch = Callable[[], None]
"""Ends a watch; calling it twice is harmless."""


class LinkState(Enum):
    """Logical state of a local port (IBA 14.2.5.6 PortState)."""

    DOWN = "down"
    INIT = "init"
    ARMED = "armed"
    ACTIVE = "active"


class LinkLayer(Enum):
    """What runs below the transport."""

    INFINIBAND = "InfiniBand"
    ETHERNET = "Ethernet"


@dataclass(frozen=True, slots=True)
class PortIdentity:
    """What a local HCA port says of itself at one moment."""

    device: str
    port: int
    node_guid: int
    port_guid: int
    gid: Gid
    lid: int
    sm_lid: int
    sm_sl: int
    state: LinkState
    pkeys: tuple[int, ...]
    """The port's P_Key table by index; unused entries are 0."""
    link_layer: LinkLayer = LinkLayer.INFINIBAND

    @property
    def name(self) -> str:
        """``device/port``, the name of the port everywhere in srpha."""
        return f"{self.device}/{self.port}"


@dataclass(frozen=True, slots=True)
class MadAddress:
    """Where a management datagram goes to or came from (IBA 13.5.1). ``gid`` set means: with a GRH."""

    lid: int
    qpn: int = GSI_QPN
    qkey: int = GSI_QKEY
    sl: int = 0
    pkey_index: int = 0
    gid: Gid | None = None
    gid_index: int = 0


@dataclass(frozen=True, slots=True)
class ReceivedMad:
    """An unsolicited management datagram and its sender."""

    source: MadAddress
    mad: bytes


class MadError(Exception):
    """A management transaction got no answer. The message names the port and the destination."""


class MadTimeoutError(MadError):
    """No answer within timeout x (retries + 1)."""


class MadPortGoneError(MadError):
    """The local port cannot send or receive now: device removed, port down, no LID."""


class MadPort(Protocol):
    """One local HCA port's management datagrams."""

    @property
    def name(self) -> str:
        """``device/port``."""
        ...

    def identity(self) -> PortIdentity:
        """The port's identity now; raises :class:`MadPortGoneError` when the device is gone."""
        ...

    async def transact(self, address: MadAddress, mad: bytes, *, timeout: float, retries: int) -> bytes:
        """Send a 256-byte request and return the matching response.

        The port chooses the transaction ID: bytes 8..16 of ``mad`` are overwritten. ``timeout`` is in seconds and per
        try, ``retries`` the number of further tries. A response carried by RMPP comes back reassembled, as the kernel
        does it: the first segment's 56 header bytes, then all data. A response with an error status is returned, not
        raised. Raises :class:`MadTimeoutError` or :class:`MadPortGoneError`. Any number may be in flight.
        """
        ...

    def reply(self, address: MadAddress, mad: bytes) -> None:
        """Send a 256-byte response (a ReportResp) with the transaction ID it carries; never waits, may be lost."""
        ...

    def watch_reports(self, receiver: Callable[[ReceivedMad], None]) -> Unwatch:
        """Hear SA Reports (class 3, method 0x06). Content counts here; losses are made good by rescans."""
        ...

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        """Hear that :meth:`identity` may have changed (state, LID, SM LID, P_Keys, re-registration asked)."""
        ...


class InitiatorError(Exception):
    """The initiator refused or failed; the message is one sentence for an operator."""


class AddTargetError(InitiatorError):
    """``add_target`` failed with the errno the kernel gives (facts: EINVAL, EEXIST, ECONNRESET, ...)."""

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(message)
        self.errno = errno


class DeviceState(Enum):
    """SCSI device states that matter to paths, in the kernel's words."""

    RUNNING = "running"
    BLOCKED = "blocked"
    TRANSPORT_OFFLINE = "transport-offline"
    OFFLINE = "offline"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A SCSI disk on a connection."""

    name: str
    """Kernel name, ``sda``."""
    dev_t: str
    """``major:minor``."""
    hctl: str
    """``host:channel:target:lun``."""
    state: DeviceState


@dataclass(frozen=True, slots=True)
class Connection:
    """One SRP connection: a scsi_host of ib_srp with its remote port and devices.

    For RDMA/CM connections ``service_id``, ``pkey``, ``dgid`` and ``orig_dgid`` are None, as the kernel hides them;
    ``destination`` stands for the target port.
    """

    host: int
    """scsi_host number; never reused while the process of the kernel lives."""
    device: str
    port: int
    id_ext: int
    ioc_guid: int
    service_id: int | None
    pkey: int | None
    sgid: Gid
    dgid: Gid | None
    orig_dgid: Gid | None
    remote_port: str
    """Name of the srp_remote_port, ``port-<host>:1``; empty while it does not exist (any more)."""
    state: RemotePortState
    timers: RemotePortTimers
    failed_reconnects: int
    req_lim: int
    zero_req_lim: int
    ch_count: int
    devices: tuple[DeviceInfo, ...]
    removing: bool = False
    """The host is on its way out: it still blocks a new login of the same identity but carries no I/O."""
    destination: Gid | None = None
    """IP address of an RDMA/CM target as a GID (IPv4 mapped, RFC 4291 2.5.5.2), where it is known."""

    @property
    def local_port(self) -> str:
        """``device/port`` of the local HCA port."""
        return f"{self.device}/{self.port}"


class Initiator(Protocol):
    """What ib_srp is to the daemon."""

    def ports(self) -> tuple[str, ...]:
        """Names (``device/port``) of the local ports that take ``add_target`` now, in a stable order."""
        ...

    async def add_target(self, port: str, line: str) -> None:
        """Hand the ``add_target`` line to one port and wait until the kernel has logged in and scanned.

        One at a time per port (callers on other ports are not delayed). Raises :class:`AddTargetError`. Success does
        not mean that the connection still lives: re-read :meth:`connections`.
        """
        ...

    async def connections(self) -> tuple[Connection, ...]:
        """All SRP connections of this host, whoever made them, by host number. Raises :class:`InitiatorError`."""
        ...

    async def set_timers(self, host: int, timers: RemotePortTimers) -> None:
        """Set the remote port's timers, in an order that is valid at each step. Raises :class:`InitiatorError`."""
        ...

    async def remove(self, host: int) -> None:
        """Remove a connection (the remote port's ``delete``); returns when removal is queued."""
        ...

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        """Hear that :meth:`connections` may have changed."""
        ...


class PathState(Enum):
    """dm-multipath's view of a path."""

    ACTIVE = "active"
    FAILED = "failed"


class CheckerState(Enum):
    """The path checker's view, in multipathd's words."""

    READY = "ready"
    FAULTY = "faulty"
    SHAKY = "shaky"
    GHOST = "ghost"
    PENDING = "i/o pending"
    TIMEOUT = "i/o timeout"
    DELAYED = "delayed"
    UNDEF = "undef"


class GroupState(Enum):
    """dm-multipath's view of a path group (status letters A, E, D)."""

    ACTIVE = "active"
    ENABLED = "enabled"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class PathInfo:
    """A path of a map: one SCSI device and the states the layers give it."""

    device: str
    dev_t: str
    hctl: str
    state: PathState
    checker: CheckerState
    device_state: DeviceState
    priority: int
    fail_count: int

    @property
    def host(self) -> int:
        """scsi_host number out of ``hctl``; it joins the path to its :class:`Connection`. -1: no SCSI device."""
        return int(self.hctl.partition(":")[0] or -1)


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A path group of a map."""

    number: int
    selector: str
    priority: int
    state: GroupState
    paths: tuple[PathInfo, ...]


@dataclass(frozen=True, slots=True)
class MapInfo:
    """A multipath device."""

    name: str
    wwid: str
    dm_name: str
    """``dm-0``."""
    blocks: int
    block_size: int
    vendor: str
    product: str
    queueing: bool
    """I/O would be (or is) queued when no path is left."""
    queued: int
    """I/Os waiting now because no path can take them."""
    groups: tuple[GroupInfo, ...]

    @property
    def paths(self) -> tuple[PathInfo, ...]:
        """Paths of all groups in table order."""
        return tuple(path for group in self.groups for path in group.paths)


class PathManagerError(Exception):
    """multipath refused or cannot be reached; the message is one sentence for an operator."""


class PathManager(Protocol):
    """What dm-multipath and multipathd are to the daemon."""

    async def maps(self) -> tuple[MapInfo, ...]:
        """All multipath devices by name. Raises :class:`PathManagerError`: unknown is not empty."""
        ...

    async def fail_path(self, device: str) -> None:
        """Take a path (``sda``) out of use at once. Raises :class:`PathManagerError`.

        Whether its checker may bring it back is the path manager's affair.
        """
        ...

    async def hold_path(self, device: str) -> None:
        """Take a path out of use at once and until it is reinstated. Raises :class:`PathManagerError`."""
        ...

    async def reinstate_path(self, device: str) -> None:
        """Offer a path for use again. Raises :class:`PathManagerError`."""
        ...

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        """Hear that :meth:`maps` may have changed."""
        ...
