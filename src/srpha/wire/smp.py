"""Subnet management packets and their attributes (IBA 14.2).

LID-routed SMPs use class 0x01; directed-route SMPs use class 0x81 and carry the route themselves. Both are 256 bytes
with 64 bytes of attribute at offset 64.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

from srpha.wire.dm import display_text
from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.identifiers import LID_PERMISSIVE, Gid
from srpha.wire.layout import Buffer, Structure, raw, structure, uint
from srpha.wire.mad import BASE_VERSION, MAD_LENGTH, ManagementClass, response_method

SMP_DATA: Final = 64
SMP_DATA_LENGTH: Final = 64
PATH_LENGTH: Final = 64
MAX_HOPS: Final = 63
DIRECTION_BIT: Final = 0x8000
"""Top bit of a directed-route SMP's status: set on the way back (IBA 14.2.1.2)."""

PKEYS_PER_BLOCK: Final = 32
GUIDS_PER_BLOCK: Final = 8
LIDS_PER_BLOCK: Final = 64
NO_PORT: Final = 255
"""Port of an unassigned LID in a linear forwarding table (IBA 14.2.5.10)."""


class SmpAttribute(IntEnum):
    """Attributes of the class (IBA 14.2.5, table 139)."""

    NOTICE = 0x0002
    NODE_DESCRIPTION = 0x0010
    NODE_INFO = 0x0011
    SWITCH_INFO = 0x0012
    GUID_INFO = 0x0014
    PORT_INFO = 0x0015
    PKEY_TABLE = 0x0016
    SL_TO_VL_TABLE = 0x0017
    VL_ARBITRATION = 0x0018
    LINEAR_FORWARDING_TABLE = 0x0019
    SM_INFO = 0x0020


class NodeType(IntEnum):
    """Kind of node (IBA 14.2.5.3)."""

    CHANNEL_ADAPTER = 1
    SWITCH = 2
    ROUTER = 3


class PortState(IntEnum):
    """Logical state of a port (IBA 14.2.5.6)."""

    NO_CHANGE = 0
    DOWN = 1
    INIT = 2
    ARMED = 3
    ACTIVE = 4
    ACTIVE_DEFER = 5


class PhysState(IntEnum):
    """Physical state of a port (IBA 14.2.5.6)."""

    NO_CHANGE = 0
    SLEEP = 1
    POLLING = 2
    DISABLED = 3
    TRAINING = 4
    LINK_UP = 5
    LINK_ERROR_RECOVERY = 6
    PHY_TEST = 7


class SmState(IntEnum):
    """State of a subnet manager (IBA 14.2.5.13)."""

    NOT_ACTIVE = 0
    DISCOVERING = 1
    STANDBY = 2
    MASTER = 3


class Mtu(IntEnum):
    """MTU codes; the size in bytes is ``128 << code`` (IBA 14.2.5.6)."""

    BYTES_256 = 1
    BYTES_512 = 2
    BYTES_1024 = 3
    BYTES_2048 = 4
    BYTES_4096 = 5


class LinkWidth(IntFlag):
    """Link widths; ``0xFF`` in LinkWidthEnabled means all supported (IBA 14.2.5.6)."""

    X1 = 1
    X4 = 2
    X8 = 4
    X12 = 8
    X2 = 16


class LinkSpeed(IntFlag):
    """Link speeds per lane of the original field (IBA 14.2.5.6)."""

    SDR = 1
    DDR = 2
    QDR = 4


class LinkSpeedExtended(IntFlag):
    """Link speeds per lane of the extended field (IBA 14.2.5.6)."""

    FDR = 1
    EDR = 2
    HDR = 4
    NDR = 8


class PortCapability(IntFlag):
    """CapabilityMask of PortInfo (IBA 14.2.5.6)."""

    SM = 1 << 1
    NOTICE = 1 << 2
    TRAP = 1 << 3
    OPTIONAL_IPD = 1 << 4
    AUTOMATIC_MIGRATION = 1 << 5
    SL_MAPPING = 1 << 6
    MKEY_NVRAM = 1 << 7
    PKEY_NVRAM = 1 << 8
    LED_INFO = 1 << 9
    SM_DISABLED = 1 << 10
    SYSTEM_IMAGE_GUID = 1 << 11
    PKEY_SWITCH_EXTERNAL_PORT_TRAP = 1 << 12
    CABLE_INFO = 1 << 13
    EXTENDED_SPEEDS = 1 << 14
    CAPABILITY_MASK2 = 1 << 15
    COMMUNICATION_MANAGEMENT = 1 << 16
    SNMP_TUNNELING = 1 << 17
    REINIT = 1 << 18
    DEVICE_MANAGEMENT = 1 << 19
    VENDOR_CLASS = 1 << 20
    DR_NOTICE = 1 << 21
    CAPABILITY_MASK_NOTICE = 1 << 22
    BOOT_MANAGEMENT = 1 << 23
    LINK_ROUND_TRIP_LATENCY = 1 << 24
    CLIENT_REREGISTRATION = 1 << 25
    OTHER_LOCAL_CHANGES_NOTICE = 1 << 26
    LINK_SPEED_WIDTH_PAIRS = 1 << 27
    VENDOR_SPECIFIC_MADS = 1 << 28
    MULTICAST_PKEY_TRAP_SUPPRESSION = 1 << 29
    MULTICAST_FDB_TOP = 1 << 30
    HIERARCHY_INFO = 1 << 31


@structure(length=MAD_LENGTH)
class LidRoutedSmp(Structure):
    """A LID-routed SMP (IBA 14.2.1.1), 256 bytes."""

    base_version: int = uint(0, 8, default=BASE_VERSION)
    mgmt_class: int = uint(1, 8, default=ManagementClass.SUBN_LID_ROUTED)
    class_version: int = uint(2, 8, default=1)
    method: int = uint(3, 8)
    status: int = uint(4, 16)
    transaction_id: int = uint(8, 64)
    attribute_id: int = uint(16, 16)
    attribute_modifier: int = uint(20, 32)
    m_key: int = uint(24, 64)
    data: bytes = raw(64, SMP_DATA_LENGTH)

    def respond(self, data: Buffer, status: int = 0) -> LidRoutedSmp:
        """The answer to this request with ``data`` as attribute; the M_Key is not given away."""
        return LidRoutedSmp(
            method=response_method(self.method),
            status=status,
            transaction_id=self.transaction_id,
            attribute_id=self.attribute_id,
            attribute_modifier=self.attribute_modifier,
            data=bytes(data),
        )


@structure(length=MAD_LENGTH)
class DirectedRouteSmp(Structure):
    """A directed-route SMP (IBA 14.2.1.2), 256 bytes.

    ``initial_path[n]`` is the port by which hop n leaves, n from 1; ``return_path`` is filled on the way (IBA 14.2.2).
    """

    base_version: int = uint(0, 8, default=BASE_VERSION)
    mgmt_class: int = uint(1, 8, default=ManagementClass.SUBN_DIRECTED_ROUTE)
    class_version: int = uint(2, 8, default=1)
    method: int = uint(3, 8)
    direction: int = uint(4, 1)
    status: int = uint(4, 15, bit=1)
    hop_pointer: int = uint(6, 8)
    hop_count: int = uint(7, 8)
    transaction_id: int = uint(8, 64)
    attribute_id: int = uint(16, 16)
    attribute_modifier: int = uint(20, 32)
    m_key: int = uint(24, 64)
    dr_slid: int = uint(32, 16, default=LID_PERMISSIVE)
    dr_dlid: int = uint(34, 16, default=LID_PERMISSIVE)
    data: bytes = raw(64, SMP_DATA_LENGTH)
    initial_path: bytes = raw(128, PATH_LENGTH)
    return_path: bytes = raw(192, PATH_LENGTH)

    @property
    def route(self) -> tuple[int, ...]:
        """Ports by which the hops leave; raises :class:`DecodeError` for more hops than a path holds."""
        if self.hop_count > MAX_HOPS:
            raise DecodeError(f"a directed route has at most {MAX_HOPS} hops, not {self.hop_count}")
        return tuple(self.initial_path[1 : self.hop_count + 1])

    def respond(self, data: Buffer, status: int = 0) -> DirectedRouteSmp:
        """The answer to this request, at the far end of its route and turned round; the M_Key is not given away."""
        return DirectedRouteSmp(
            method=response_method(self.method),
            direction=1,
            status=status,
            hop_pointer=self.hop_pointer,
            hop_count=self.hop_count,
            transaction_id=self.transaction_id,
            attribute_id=self.attribute_id,
            attribute_modifier=self.attribute_modifier,
            dr_slid=self.dr_slid,
            dr_dlid=self.dr_dlid,
            data=bytes(data),
            initial_path=self.initial_path,
            return_path=self.return_path,
        )


def directed_path(ports: tuple[int, ...]) -> bytes:
    """The ``initial_path`` that leaves by ``ports`` in turn; its hop count is ``len(ports)``."""
    if len(ports) > MAX_HOPS or not all(0 <= port <= 254 for port in ports):
        raise EncodeError(f"no directed route through {ports}")
    return bytes((0, *ports)).ljust(PATH_LENGTH, b"\0")


def read_smp(mad: Buffer) -> LidRoutedSmp | DirectedRouteSmp:
    """An SMP of either class; raises :class:`DecodeError` for a wrong length, class or version, or too many hops."""
    if len(mad) != MAD_LENGTH:
        raise DecodeError(f"an SMP has {MAD_LENGTH} bytes, got {len(mad)}")
    if mad[0] != BASE_VERSION or mad[2] != 1:
        raise DecodeError(f"SMP versions {mad[0]} and {mad[2]} are not supported")
    if mad[1] == ManagementClass.SUBN_LID_ROUTED:
        return LidRoutedSmp.decode(mad)
    if mad[1] != ManagementClass.SUBN_DIRECTED_ROUTE:
        raise DecodeError(f"class {mad[1]:#04x} is not subnet management")
    smp = DirectedRouteSmp.decode(mad)
    if smp.hop_count > MAX_HOPS or smp.hop_pointer > smp.hop_count + 1:
        raise DecodeError(f"hop pointer {smp.hop_pointer} and count {smp.hop_count} form no directed route")
    return smp


@structure(length=40)
class NodeInfo(Structure):
    """NodeInfo, 40 bytes (IBA 14.2.5.3). ``port_guid`` and ``local_port`` are of the port that received the SMP."""

    base_version: int = uint(0, 8, default=1)
    class_version: int = uint(1, 8, default=1)
    node_type: int = uint(2, 8, default=NodeType.CHANNEL_ADAPTER)
    port_count: int = uint(3, 8)
    system_image_guid: int = uint(4, 64)
    node_guid: int = uint(12, 64)
    port_guid: int = uint(20, 64)
    partition_capacity: int = uint(28, 16)
    device_id: int = uint(30, 16)
    revision: int = uint(32, 32)
    local_port: int = uint(36, 8)
    vendor_id: int = uint(37, 24)


@structure(length=64)
class NodeDescription(Structure):
    """NodeDescription, 64 bytes of UTF-8 (IBA 14.2.5.2)."""

    text: bytes = raw(0, 64)

    @property
    def display(self) -> str:
        return display_text(self.text)


@structure(length=20)
class SwitchInfo(Structure):
    """SwitchInfo, 20 bytes (IBA 14.2.5.4)."""

    linear_fdb_capacity: int = uint(0, 16)
    random_fdb_capacity: int = uint(2, 16)
    multicast_fdb_capacity: int = uint(4, 16)
    linear_fdb_top: int = uint(6, 16)
    default_port: int = uint(8, 8)
    default_multicast_primary_port: int = uint(9, 8)
    default_multicast_not_primary_port: int = uint(10, 8)
    life_time: int = uint(11, 5)
    port_state_change: int = uint(11, 1, bit=5)
    optimized_sl_to_vl: int = uint(11, 2, bit=6)
    lids_per_port: int = uint(12, 16)
    partition_enforcement_capacity: int = uint(14, 16)
    inbound_enforcement: int = uint(16, 1)
    outbound_enforcement: int = uint(16, 1, bit=1)
    filter_raw_inbound: int = uint(16, 1, bit=2)
    filter_raw_outbound: int = uint(16, 1, bit=3)
    enhanced_port0: int = uint(16, 1, bit=4)
    multicast_fdb_top: int = uint(18, 16)


@structure(length=64)
class PortInfo(Structure):
    """PortInfo, 64 bytes (IBA 14.2.5.6). Time values are 5-bit codes, see :func:`srpha.wire.mad.time_value`."""

    m_key: int = uint(0, 64)
    gid_prefix: int = uint(8, 64)
    lid: int = uint(16, 16)
    sm_lid: int = uint(18, 16)
    capability_mask: int = uint(20, 32)
    diag_code: int = uint(24, 16)
    m_key_lease_period: int = uint(26, 16)
    local_port: int = uint(28, 8)
    link_width_enabled: int = uint(29, 8)
    link_width_supported: int = uint(30, 8)
    link_width_active: int = uint(31, 8)
    link_speed_supported: int = uint(32, 4)
    state: int = uint(32, 4, bit=4)
    phys_state: int = uint(33, 4)
    link_down_default_state: int = uint(33, 4, bit=4)
    m_key_protect_bits: int = uint(34, 2)
    lmc: int = uint(34, 3, bit=5)
    link_speed_active: int = uint(35, 4)
    link_speed_enabled: int = uint(35, 4, bit=4)
    neighbor_mtu: int = uint(36, 4)
    sm_sl: int = uint(36, 4, bit=4)
    vl_cap: int = uint(37, 4)
    init_type: int = uint(37, 4, bit=4)
    vl_high_limit: int = uint(38, 8)
    vl_arbitration_high_cap: int = uint(39, 8)
    vl_arbitration_low_cap: int = uint(40, 8)
    init_type_reply: int = uint(41, 4)
    mtu_cap: int = uint(41, 4, bit=4)
    vl_stall_count: int = uint(42, 3)
    hoq_life: int = uint(42, 5, bit=3)
    operational_vls: int = uint(43, 4)
    partition_enforcement_inbound: int = uint(43, 1, bit=4)
    partition_enforcement_outbound: int = uint(43, 1, bit=5)
    filter_raw_inbound: int = uint(43, 1, bit=6)
    filter_raw_outbound: int = uint(43, 1, bit=7)
    m_key_violations: int = uint(44, 16)
    p_key_violations: int = uint(46, 16)
    q_key_violations: int = uint(48, 16)
    guid_cap: int = uint(50, 8)
    client_reregister: int = uint(51, 1)
    multicast_pkey_trap_suppression: int = uint(51, 2, bit=1)
    subnet_timeout: int = uint(51, 5, bit=3)
    response_time: int = uint(52, 5, bit=3)
    local_phy_errors: int = uint(53, 4)
    overrun_errors: int = uint(53, 4, bit=4)
    max_credit_hint: int = uint(54, 16)
    link_round_trip_latency: int = uint(57, 24)
    capability_mask2: int = uint(60, 16)
    link_speed_ext_active: int = uint(62, 4)
    link_speed_ext_supported: int = uint(62, 4, bit=4)
    link_speed_ext_enabled: int = uint(63, 5, bit=3)

    @property
    def capabilities(self) -> PortCapability:
        return PortCapability(self.capability_mask & ~1)

    @property
    def is_device_management_supported(self) -> bool:
        """Whether a Device Management agent answers here: the mark of an I/O unit (IBA 16.3)."""
        return bool(self.capability_mask & PortCapability.DEVICE_MANAGEMENT)


@structure(length=64)
class PkeyTableBlock(Structure):
    """A block of 32 P_Keys (IBA 14.2.5.7); the attribute modifier's low half is the block number."""

    block: bytes = raw(0, 64)

    @property
    def pkeys(self) -> tuple[int, ...]:
        return tuple(int.from_bytes(self.block[i : i + 2], "big") for i in range(0, 64, 2))

    @classmethod
    def of(cls, pkeys: tuple[int, ...]) -> PkeyTableBlock:
        """The block of up to 32 ``pkeys``; the rest is invalid (0)."""
        return cls(block=_join(pkeys, 2, PKEYS_PER_BLOCK))


@structure(length=64)
class GuidInfoBlock(Structure):
    """A block of 8 GUIDs (IBA 14.2.5.5); the attribute modifier is the block number."""

    block: bytes = raw(0, 64)

    @property
    def guids(self) -> tuple[int, ...]:
        return tuple(int.from_bytes(self.block[i : i + 8], "big") for i in range(0, 64, 8))

    def gids(self, prefix: int) -> tuple[Gid, ...]:
        """GIDs that the assigned GUIDs form with ``prefix``."""
        return tuple(Gid(prefix, guid) for guid in self.guids if guid)

    @classmethod
    def of(cls, guids: tuple[int, ...]) -> GuidInfoBlock:
        return cls(block=_join(guids, 8, GUIDS_PER_BLOCK))


@structure(length=64)
class LinearForwardingTableBlock(Structure):
    """Output ports of 64 LIDs (IBA 14.2.5.10); the attribute modifier is the block number, LID // 64."""

    ports: bytes = raw(0, LIDS_PER_BLOCK)


@structure(length=21)
class SmInfo(Structure):
    """SMInfo, 21 bytes (IBA 14.2.5.13)."""

    guid: int = uint(0, 64)
    sm_key: int = uint(8, 64)
    activity_count: int = uint(16, 32)
    priority: int = uint(20, 4)
    state: int = uint(20, 4, bit=4)


def _join(values: tuple[int, ...], size: int, most: int) -> bytes:
    if len(values) > most or not all(0 <= value < 1 << 8 * size for value in values):
        raise EncodeError(f"not a block of at most {most} numbers of {size} bytes: {values}")
    return b"".join(value.to_bytes(size, "big") for value in values).ljust(most * size, b"\0")
