"""Notices, traps and subscriptions to them (IBA 13.4.8.2, 13.4.8.3, 14.2.5.1 and 15.2.4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import Gid
from srpha.wire.layout import Structure, gid, raw, structure, uint

LID_RANGE_ALL: Final = 0xFFFF
TRAP_ALL: Final = 0xFFFF
NOTICE_TYPE_ALL: Final = 0xFFFF
PRODUCER_ALL: Final = 0xFFFFFF
NO_GID: Final = Gid(0, 0)


class NoticeType(IntEnum):
    """Severity or kind of a notice (IBA 13.4.8.2)."""

    FATAL = 0
    URGENT = 1
    SECURITY = 2
    SUBNET_MANAGEMENT = 3
    INFORMATIONAL = 4
    EMPTY = 0x7F


class ProducerType(IntEnum):
    """Kind of node that produced a generic notice (IBA 13.4.8.2)."""

    CHANNEL_ADAPTER = 1
    SWITCH = 2
    ROUTER = 3
    CLASS_MANAGER = 4


class TrapNumber(IntEnum):
    """Generic traps of subnet management (IBA 14.2.5.1) and subnet administration (IBA 15.2.4.3), as far as used."""

    GID_IN_SERVICE = 64
    GID_OUT_OF_SERVICE = 65
    MULTICAST_GROUP_CREATED = 66
    MULTICAST_GROUP_DELETED = 67
    LINK_STATE_CHANGED = 128
    CAPABILITY_CHANGED = 144
    SYSTEM_IMAGE_GUID_CHANGED = 145


class LocalChange(IntFlag):
    """What else trap 144 tells (IBA 14.2.5.1, table 144)."""

    NODE_DESCRIPTION = 1 << 0
    LINK_WIDTH_ENABLED = 1 << 1
    LINK_SPEED_ENABLED = 1 << 2
    SM_PRIORITY = 1 << 3
    HIERARCHY_INFO = 1 << 4
    CAPABILITY_MASK2 = 1 << 5


class InformInfoMask(IntFlag):
    """Component mask of InformInfo (IBA 15.2.5.12 names them by their order in the attribute)."""

    GID = 1 << 0
    LID_RANGE_BEGIN = 1 << 1
    LID_RANGE_END = 1 << 2
    IS_GENERIC = 1 << 4
    SUBSCRIBE = 1 << 5
    TYPE = 1 << 6
    TRAP_NUMBER = 1 << 7
    QPN = 1 << 8
    RESPONSE_TIME = 1 << 10
    PRODUCER_TYPE = 1 << 12


@structure(length=36)
class InformInfo(Structure):
    """A subscription to notices or its end (IBA 13.4.8.3), 36 bytes."""

    gid: Gid = gid(0)
    lid_range_begin: int = uint(16, 16)
    lid_range_end: int = uint(18, 16)
    is_generic: int = uint(22, 8)
    subscribe: int = uint(23, 8)
    type: int = uint(24, 16)
    trap_number: int = uint(26, 16)
    qpn: int = uint(28, 24)
    response_time: int = uint(31, 5, bit=3)
    producer_type: int = uint(33, 24)

    def accepts(self, notice: Notice) -> bool:
        """Whether this subscription asks for ``notice`` by kind, number and producer; its source is the SA's matter."""
        if bool(self.is_generic) != notice.is_generic:
            return False
        return (
            self.type in (NOTICE_TYPE_ALL, notice.type)
            and self.trap_number in (TRAP_ALL, notice.trap_number)
            and self.producer_type in (PRODUCER_ALL, notice.producer_type)
        )


@structure(length=80)
class Notice(Structure):
    """A notice as carried by Trap and Report (IBA 13.4.8.2), 80 bytes.

    ``producer_type`` is a vendor ID and ``trap_number`` a device ID when ``generic`` is 0.
    """

    generic: int = uint(0, 1, default=1)
    type: int = uint(0, 7, bit=1)
    producer_type: int = uint(1, 24)
    trap_number: int = uint(4, 16)
    issuer_lid: int = uint(6, 16)
    toggle: int = uint(8, 1)
    count: int = uint(8, 15, bit=1)
    details: bytes = raw(10, 54)
    issuer_gid: Gid = gid(64)

    @property
    def is_generic(self) -> bool:
        return self.generic == 1


@dataclass(frozen=True, slots=True)
class GidTrap:
    """Traps 64 to 67: ``gid`` came into or went out of service, or its multicast group was made or removed."""

    number: TrapNumber
    gid: Gid

    @property
    def in_service(self) -> bool:
        return self.number in (TrapNumber.GID_IN_SERVICE, TrapNumber.MULTICAST_GROUP_CREATED)


@dataclass(frozen=True, slots=True)
class LidTrap128:
    """Trap 128: the link state of a port of the switch at ``lid`` changed."""

    lid: int


@dataclass(frozen=True, slots=True)
class CapabilityTrap144:
    """Trap 144: port ``lid`` changed its CapabilityMask, or what ``changes`` says (:class:`LocalChange` bits)."""

    lid: int
    capability_mask: int
    other_local_changes: bool = False
    changes: int = 0
    capability_mask2: int = 0


@dataclass(frozen=True, slots=True)
class SystemImageTrap145:
    """Trap 145: the node at ``lid`` has another system image GUID."""

    lid: int
    system_image_guid: int


Trap = GidTrap | LidTrap128 | CapabilityTrap144 | SystemImageTrap145


@structure(length=54)
class _GidDetails(Structure):
    gid: Gid = gid(6)


@structure(length=54)
class _LidDetails(Structure):
    lid: int = uint(0, 16)


@structure(length=54)
class _CapabilityDetails(Structure):
    lid: int = uint(2, 16)
    other_local_changes: int = uint(5, 1, bit=7)
    capability_mask: int = uint(6, 32)
    changes: int = uint(10, 16)
    capability_mask2: int = uint(12, 16)


@structure(length=54)
class _SystemImageDetails(Structure):
    lid: int = uint(2, 16)
    system_image_guid: int = uint(6, 64)


def read_trap(notice: Notice) -> Trap | None:
    """The typed view of a generic notice, or None for a vendor's notice or a trap that has no view here."""
    if not notice.is_generic:
        return None
    match notice.trap_number:
        case 64 | 65 | 66 | 67:
            return GidTrap(TrapNumber(notice.trap_number), _GidDetails.decode(notice.details).gid)
        case TrapNumber.LINK_STATE_CHANGED:
            return LidTrap128(_LidDetails.decode(notice.details).lid)
        case TrapNumber.CAPABILITY_CHANGED:
            seen = _CapabilityDetails.decode(notice.details)
            return CapabilityTrap144(
                seen.lid,
                seen.capability_mask,
                bool(seen.other_local_changes),
                seen.changes,
                seen.capability_mask2,
            )
        case TrapNumber.SYSTEM_IMAGE_GUID_CHANGED:
            image = _SystemImageDetails.decode(notice.details)
            return SystemImageTrap145(image.lid, image.system_image_guid)
        case _:
            return None


def read_notice(data: bytes | bytearray | memoryview, offset: int) -> Notice:
    """A notice at ``offset``; raises :class:`DecodeError` for the empty notice, which means that none is queued."""
    notice = Notice.decode(data, offset)
    if notice.type == NoticeType.EMPTY:
        raise DecodeError("the notice is empty")
    return notice


def make_notice(
    trap: Trap,
    *,
    issuer_lid: int = 0,
    issuer_gid: Gid = NO_GID,
    producer: ProducerType = ProducerType.CHANNEL_ADAPTER,
) -> Notice:
    """The notice that carries ``trap``.

    Type and producer follow the specification's tables; ``producer`` is used by trap 145 only, which CAs, switches and
    routers all send.
    """
    match trap:
        case GidTrap():
            number, details = int(trap.number), _GidDetails(gid=trap.gid).encode()
            kind, producer = NoticeType.SUBNET_MANAGEMENT, ProducerType.CLASS_MANAGER
        case LidTrap128():
            number, details = 128, _LidDetails(lid=trap.lid).encode()
            kind, producer = NoticeType.URGENT, ProducerType.SWITCH
        case CapabilityTrap144():
            number, kind = 144, NoticeType.INFORMATIONAL
            details = _CapabilityDetails(
                lid=trap.lid,
                other_local_changes=int(trap.other_local_changes),
                capability_mask=trap.capability_mask,
                changes=trap.changes,
                capability_mask2=trap.capability_mask2,
            ).encode()
        case SystemImageTrap145():
            number, kind = 145, NoticeType.INFORMATIONAL
            details = _SystemImageDetails(lid=trap.lid, system_image_guid=trap.system_image_guid).encode()
    return Notice(
        type=kind,
        producer_type=producer,
        trap_number=number,
        issuer_lid=issuer_lid,
        details=details,
        issuer_gid=issuer_gid,
    )


def gid_subscription(trap: TrapNumber, *, subscribe: bool = True, qpn: int = 0) -> tuple[InformInfo, InformInfoMask]:
    """InformInfo and component mask to subscribe to one of the traps 64 to 67 from every source, or to stop.

    The end of a subscription names the queue pair, since the SA tells subscriptions apart by it.
    """
    return _subscription(trap, NoticeType.SUBNET_MANAGEMENT, ProducerType.CLASS_MANAGER, subscribe=subscribe, qpn=qpn)


def capability_subscription(*, subscribe: bool = True, qpn: int = 0) -> tuple[InformInfo, InformInfoMask]:
    """InformInfo and component mask to subscribe to trap 144 of channel adapters, or to stop."""
    return _subscription(
        TrapNumber.CAPABILITY_CHANGED,
        NoticeType.INFORMATIONAL,
        ProducerType.CHANNEL_ADAPTER,
        subscribe=subscribe,
        qpn=qpn,
    )


def _subscription(
    trap: TrapNumber, kind: NoticeType, producer: ProducerType, *, subscribe: bool, qpn: int
) -> tuple[InformInfo, InformInfoMask]:
    mask = (
        InformInfoMask.LID_RANGE_BEGIN
        | InformInfoMask.IS_GENERIC
        | InformInfoMask.SUBSCRIBE
        | InformInfoMask.TYPE
        | InformInfoMask.TRAP_NUMBER
        | InformInfoMask.PRODUCER_TYPE
    )
    if not subscribe:
        mask |= InformInfoMask.QPN
    info = InformInfo(
        lid_range_begin=LID_RANGE_ALL,
        is_generic=1,
        subscribe=int(subscribe),
        type=kind,
        trap_number=trap,
        qpn=qpn,
        producer_type=producer,
    )
    return info, mask
