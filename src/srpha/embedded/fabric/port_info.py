"""NodeInfo and PortInfo of the embedded hardware, and the checks of a Set(PortInfo) (IBA volume 1, 14.2.5.3, 14.2.5.6).

Every port is a 4x QDR port with one data VL and an MTU of 4096 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from srpha.embedded.fabric.ports import LFT_CAPACITY, PKEY_CAPACITY, Node, Port
from srpha.embedded.fabric.topology import NodeKind
from srpha.wire.identifiers import LID_UNICAST_MAX
from srpha.wire.smp import LinkSpeed, LinkWidth, Mtu, NodeInfo, NodeType, PhysState, PortInfo, PortState

_VL0: Final = 1
_RESPONSE_TIME: Final = 8
"""Time code of 1 ms: this agent answers at once."""
_POLLING_BY_DEFAULT: Final = 2
_LMC_MAX: Final = 7
_WIDTHS: Final = LinkWidth.X1 | LinkWidth.X4
_SPEEDS: Final = LinkSpeed.SDR | LinkSpeed.DDR | LinkSpeed.QDR


@dataclass(frozen=True, slots=True)
class PortChange:
    """What a legal Set(PortInfo) asks for. The link breaks with ``disable`` and with ``bounce``."""

    end_port: bool
    """Whether the port has addresses of its own: not so a switch's outer ports, whose address fields are ignored."""
    gid_prefix: int
    lid: int
    lmc: int
    sm_lid: int
    sm_sl: int
    mtu: int
    subnet_timeout: int
    state: PortState | None
    reregister: bool
    enable: bool
    disable: bool
    bounce: bool


def node_info(node: Node, entry: Port) -> NodeInfo:
    """NodeInfo as seen by an SMP that entered by ``entry``."""
    switch = node.kind is NodeKind.SWITCH
    return NodeInfo(
        node_type=NodeType.SWITCH if switch else NodeType.CHANNEL_ADAPTER,
        port_count=len(node.ports),
        system_image_guid=node.spec.system_guid or node.node_guid,
        node_guid=node.node_guid,
        port_guid=entry.guid,
        partition_capacity=PKEY_CAPACITY,
        device_id=node.spec.device_id,
        local_port=entry.number,
        vendor_id=node.spec.vendor_id,
    )


def port_info(port: Port, entry: Port) -> PortInfo:
    """PortInfo of ``port``; ``entry`` is the port the question came in by."""
    trained = port.trained or port.number == 0
    return PortInfo(
        gid_prefix=port.gid_prefix,
        lid=port.lid,
        sm_lid=port.sm_lid,
        capability_mask=port.capability_mask,
        local_port=entry.number,
        link_width_enabled=_WIDTHS,
        link_width_supported=_WIDTHS,
        link_width_active=LinkWidth.X4 if trained else 0,
        link_speed_supported=_SPEEDS,
        link_speed_enabled=_SPEEDS,
        link_speed_active=LinkSpeed.QDR if trained else 0,
        state=port.state,
        phys_state=port.phys_state,
        link_down_default_state=_POLLING_BY_DEFAULT,
        lmc=port.lmc,
        neighbor_mtu=port.mtu,
        sm_sl=port.sm_sl,
        vl_cap=_VL0,
        operational_vls=_VL0,
        mtu_cap=Mtu.BYTES_4096,
        p_key_violations=min(port.pkey_violations, 0xFFFF),
        guid_cap=1,
        subnet_timeout=port.subnet_timeout,
        response_time=_RESPONSE_TIME,
    )


def port_change(port: Port, asked: PortInfo) -> PortChange | None:
    """The checked content of a Set(PortInfo), ``None`` when a field has a value it must not have (status 0x001c)."""
    end_port = port.number == 0 or port.node.kind is NodeKind.HCA
    if end_port and not (
        0 < asked.lid <= LID_UNICAST_MAX
        and 0 < asked.sm_lid <= LID_UNICAST_MAX
        and asked.lid % (1 << asked.lmc) == 0
        and asked.lid + (1 << asked.lmc) <= LFT_CAPACITY
    ):
        return None
    if asked.neighbor_mtu not in (0, *Mtu) or asked.operational_vls not in (0, _VL0) or asked.lmc > _LMC_MAX:
        return None
    if asked.phys_state not in (PhysState.NO_CHANGE, PhysState.POLLING, PhysState.DISABLED):
        return None
    state: PortState | None = None
    bounce = False
    if port.number == 0:
        if asked.phys_state != PhysState.NO_CHANGE:
            return None  # there is no cable; the state of a switch's own port is not used and stays ACTIVE
    elif asked.state == PortState.DOWN:
        bounce = port.trained
    elif asked.state != PortState.NO_CHANGE:
        if (port.state, asked.state) not in _MOVES:
            return None
        state = PortState(asked.state)
    return PortChange(
        end_port=end_port,
        gid_prefix=asked.gid_prefix,
        lid=asked.lid,
        lmc=asked.lmc,
        sm_lid=asked.sm_lid,
        sm_sl=asked.sm_sl,
        mtu=asked.neighbor_mtu or port.mtu,
        subnet_timeout=asked.subnet_timeout,
        state=state,
        reregister=bool(asked.client_reregister),
        enable=asked.phys_state == PhysState.POLLING,
        disable=asked.phys_state == PhysState.DISABLED,
        bounce=bounce and asked.phys_state != PhysState.DISABLED,
    )


_MOVES: Final = frozenset(
    {
        (PortState.INIT, PortState.ARMED),
        (PortState.ARMED, PortState.ARMED),
        (PortState.ARMED, PortState.ACTIVE),
        (PortState.ACTIVE, PortState.ACTIVE),
    }
)
"""Moves of the port state that a manager may ask for (IBA 14.3.9, table 163 in part)."""
