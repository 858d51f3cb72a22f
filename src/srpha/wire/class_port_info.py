"""ClassPortInfo, the attribute every management class has (IBA 13.4.8.1)."""

from __future__ import annotations

from enum import IntFlag

from srpha.wire.identifiers import Gid
from srpha.wire.layout import Structure, gid, structure, uint


class ClassCapability(IntFlag):
    """Capability bits common to all classes (IBA 13.4.8.1)."""

    TRAP = 1 << 0
    GET_SET_NOTICE = 1 << 1


class SaCapability(IntFlag):
    """Class-specific capability bits of subnet administration (IBA 15.2.4.1)."""

    OPTIONAL_RECORDS = 1 << 8
    UD_MULTICAST = 1 << 9
    MULTIPATH = 1 << 10
    REINIT = 1 << 11
    GID_SCOPED_MULTIPATH = 1 << 12
    PORT_INFO_MASK_MATCH = 1 << 13
    """PortInfoRecord queries may match on single bits of CapabilityMask (IBA 15.2.5.3)."""


@structure(length=72)
class ClassPortInfo(Structure):
    """ClassPortInfo, 72 bytes. ``response_time`` is a 5-bit time code, see :func:`srpha.wire.mad.time_value`."""

    base_version: int = uint(0, 8, default=1)
    class_version: int = uint(1, 8, default=1)
    capability_mask: int = uint(2, 16)
    capability_mask2: int = uint(4, 27)
    response_time: int = uint(7, 5, bit=3)
    redirect_gid: Gid = gid(8)
    redirect_traffic_class: int = uint(24, 8)
    redirect_sl: int = uint(25, 4)
    redirect_flow_label: int = uint(25, 20, bit=4)
    redirect_lid: int = uint(28, 16)
    redirect_pkey: int = uint(30, 16)
    redirect_qpn: int = uint(33, 24)
    redirect_qkey: int = uint(36, 32)
    trap_gid: Gid = gid(40)
    trap_traffic_class: int = uint(56, 8)
    trap_sl: int = uint(57, 4)
    trap_flow_label: int = uint(57, 20, bit=4)
    trap_lid: int = uint(60, 16)
    trap_pkey: int = uint(62, 16)
    trap_hop_limit: int = uint(64, 8)
    trap_qpn: int = uint(65, 24)
    trap_qkey: int = uint(68, 32)

    @property
    def matches_capability_bits(self) -> bool:
        """Whether this SA finds ports by a single capability bit; meaningful in an SA's ClassPortInfo only."""
        return bool(self.capability_mask & SaCapability.PORT_INFO_MASK_MATCH)

    @property
    def redirects(self) -> bool:
        """Whether requests should go elsewhere: a redirect GID or LID is given (IBA 13.5.2)."""
        return self.redirect_lid != 0 or self.redirect_gid != Gid(0, 0)
