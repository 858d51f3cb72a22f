"""A local port and a target port: the pair that a connection joins, and how the two stand to each other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from srpha.core.seams import Connection
from srpha.core.targets.target_port import TargetPort
from srpha.wire.identifiers import Gid


class PairStatus(Enum):
    """How a local port and a target port stand to each other."""

    CONNECTED = "connected"
    RECOVERING = "recovering"
    """The connection exists, its remote port is blocked or fails fast, and the driver reconnects by itself."""
    REMOVING = "removing"
    """An old connection is on its way out; the login follows at once when it is gone."""
    DUE = "due"
    """To be connected now."""
    CONNECTING = "connecting"
    BACKING_OFF = "backing-off"
    """A login failed; the next one is at ``next_attempt``."""
    DISALLOWED = "disallowed"
    """The rules say no."""
    OCCUPIED = "occupied"
    """A connection that is not ours stands where ours would."""
    UNREACHABLE = "unreachable"
    """No path from this local port: no shared partition, no route, or not known yet."""
    DRAINED = "drained"
    """The local port is drained for maintenance: there is no login until it is resumed."""
    PORT_DOWN = "port-down"
    TARGET_SILENT = "target-silent"
    TARGET_LEFT = "target-left"


ConnectionIdentity: TypeAlias = tuple[str, int, int, Gid | None]
"""Local port, id_ext, ioc_guid and target port GID, as far as a connection shows them."""


def identity_of(connection: Connection) -> ConnectionIdentity:
    """The identity a connection shows: its target port is the one it was first made to.

    Over RDMA/CM the GID of the target's address stands for the target port, where it is known.
    """
    dgid = connection.orig_dgid if connection.orig_dgid is not None else connection.dgid
    if dgid is None:
        dgid = connection.destination
    return connection.local_port, connection.id_ext, connection.ioc_guid, dgid


@dataclass(frozen=True, slots=True, order=True)
class PairKey:
    """Identity of a connection (facts: srp C.1): what the driver tells connections apart by, and the target port."""

    local_port: str
    id_ext: int
    ioc_guid: int
    dgid: Gid
    initiator_ext: int

    @property
    def driver_key(self) -> tuple[str, int, int, int]:
        """What must be unique for the driver, which answers EEXIST otherwise."""
        return self.local_port, self.id_ext, self.ioc_guid, self.initiator_ext

    @property
    def connection_identity(self) -> ConnectionIdentity:
        """What its connection shows; ``initiator_ext`` is not to be seen from outside."""
        return self.local_port, self.id_ext, self.ioc_guid, self.dgid

    def names(self, connection: Connection) -> bool:
        """Whether ``connection`` joins the same ports."""
        return identity_of(connection) == self.connection_identity


@dataclass(frozen=True, slots=True)
class Pair:
    """One local port and one target port: what is, why, and which connection stands for it."""

    key: PairKey
    status: PairStatus
    reason: str
    """One sentence for a person."""
    target: TargetPort
    line: str
    """The ``add_target`` line for it; empty when it must not be connected."""
    host: int | None = None
    failures: int = 0
    next_attempt: float | None = None
    ours: bool = False
    """The connection was made or adopted by this daemon."""
    static: bool = False
    """The configuration names the target: it is connected whatever discovery says."""

    @property
    def name(self) -> str:
        return f"{self.key.local_port} -> {self.target.name}"


@dataclass(frozen=True, slots=True)
class OtherConnection:
    """A connection that belongs to no pair; it is left alone."""

    host: int
    reason: str
