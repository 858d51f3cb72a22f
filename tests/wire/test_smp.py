from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import pattern

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.identifiers import Gid
from srpha.wire.smp import (
    DirectedRouteSmp,
    GuidInfoBlock,
    LidRoutedSmp,
    LinearForwardingTableBlock,
    NodeDescription,
    NodeInfo,
    NodeType,
    PkeyTableBlock,
    PortCapability,
    PortInfo,
    PortState,
    SmInfo,
    SmState,
    SwitchInfo,
    directed_path,
    read_smp,
)

NODE_INFO = bytes.fromhex(
    "01 01 01 02"
    "0002c90300001230 0002c90300001231 0002c90300001232"  # system image, node, port GUID
    "0080 1017 00000001"  # partitions, device, revision
    "01 0002c9"  # local port, vendor
)
NODE = NodeInfo(
    node_type=NodeType.CHANNEL_ADAPTER,
    port_count=2,
    system_image_guid=0x0002C90300001230,
    node_guid=0x0002C90300001231,
    port_guid=0x0002C90300001232,
    partition_capacity=128,
    device_id=0x1017,
    revision=1,
    local_port=1,
    vendor_id=0x0002C9,
)

PORT_INFO = bytes.fromhex(
    "1122334455667788 fe80000000000000"  # M_Key, prefix
    "0005 0001 025908ea 0102 0304"  # LID, SM LID, capabilities, diag, lease
    "01 03 07 02"  # local port, widths enabled, supported, active
    "74 52 83 47"  # speed supported|state, phys|default, protect bits|LMC, speed active|enabled
    "51 82 04 08"  # neighbour MTU|SM SL, VL cap|init type, VL high limit, arbitration high
    "0a 35 6f 4a"  # arbitration low, init reply|MTU, stall|HOQ, VLs|in, out, raw in, raw out
    "0011 0022 0033"  # M_Key, P_Key, Q_Key violations
    "20 b2 12 a5"  # GUID cap, reregister|suppress|timeout, response time, errors
    "0044 00 123456"  # credit hint, reserved, latency
    "0016 12 03"  # capability mask 2, extended active|supported, enabled
)
PORT = PortInfo(
    m_key=0x1122334455667788,
    gid_prefix=0xFE80000000000000,
    lid=5,
    sm_lid=1,
    capability_mask=0x025908EA,
    diag_code=0x0102,
    m_key_lease_period=0x0304,
    local_port=1,
    link_width_enabled=3,
    link_width_supported=7,
    link_width_active=2,
    link_speed_supported=7,
    state=4,
    phys_state=5,
    link_down_default_state=2,
    m_key_protect_bits=2,
    lmc=3,
    link_speed_active=4,
    link_speed_enabled=7,
    neighbor_mtu=5,
    sm_sl=1,
    vl_cap=8,
    init_type=2,
    vl_high_limit=4,
    vl_arbitration_high_cap=8,
    vl_arbitration_low_cap=10,
    init_type_reply=3,
    mtu_cap=5,
    vl_stall_count=3,
    hoq_life=15,
    operational_vls=4,
    partition_enforcement_inbound=1,
    partition_enforcement_outbound=0,
    filter_raw_inbound=1,
    filter_raw_outbound=0,
    m_key_violations=0x11,
    p_key_violations=0x22,
    q_key_violations=0x33,
    guid_cap=0x20,
    client_reregister=1,
    multicast_pkey_trap_suppression=1,
    subnet_timeout=18,
    response_time=18,
    local_phy_errors=10,
    overrun_errors=5,
    max_credit_hint=0x44,
    link_round_trip_latency=0x123456,
    capability_mask2=0x0016,
    link_speed_ext_active=1,
    link_speed_ext_supported=2,
    link_speed_ext_enabled=3,
)


def test_node_info_both_ways() -> None:
    assert NODE.encode() == NODE_INFO
    assert NodeInfo.decode(NODE_INFO) == NODE


def test_port_info_both_ways() -> None:
    assert len(PORT_INFO) == 64
    assert PORT.encode() == PORT_INFO
    assert PortInfo.decode(PORT_INFO) == PORT
    assert PORT.state == PortState.ACTIVE


def test_port_capabilities() -> None:
    assert PORT.is_device_management_supported
    assert PortCapability.DEVICE_MANAGEMENT in PORT.capabilities
    assert int(PortCapability.DEVICE_MANAGEMENT) == 0x00080000
    assert not PortInfo(capability_mask=0xFFF7FFFF).is_device_management_supported
    assert PortInfo(capability_mask=0xFFFFFFFF).capabilities == 0xFFFFFFFE


def test_switch_info_both_ways() -> None:
    wire = bytes.fromhex("c000 0000 4000 00ff 01 02 03 95 0000 0040 c8 00 c001")
    value = SwitchInfo(
        linear_fdb_capacity=0xC000,
        multicast_fdb_capacity=0x4000,
        linear_fdb_top=0xFF,
        default_port=1,
        default_multicast_primary_port=2,
        default_multicast_not_primary_port=3,
        life_time=18,
        port_state_change=1,
        optimized_sl_to_vl=1,
        partition_enforcement_capacity=64,
        inbound_enforcement=1,
        outbound_enforcement=1,
        enhanced_port0=1,
        multicast_fdb_top=0xC001,
    )
    assert value.encode() == wire
    assert SwitchInfo.decode(wire) == value


def test_sm_info_both_ways() -> None:
    wire = bytes.fromhex("0002c90300000001 0000000000000002 00000003 e3")
    value = SmInfo(guid=0x0002C90300000001, sm_key=2, activity_count=3, priority=14, state=SmState.MASTER)
    assert value.encode() == wire
    assert SmInfo.decode(wire) == value


def test_tables() -> None:
    pkeys = PkeyTableBlock.of((0xFFFF, 0x8001))
    assert pkeys.encode() == b"\xff\xff\x80\x01" + bytes(60)
    assert pkeys.pkeys == (0xFFFF, 0x8001) + (0,) * 30
    guids = GuidInfoBlock.of((1, 0, 2))
    assert guids.encode() == bytes(7) + b"\x01" + bytes(15) + b"\x02" + bytes(40)
    assert guids.gids(0xFE80000000000000) == (Gid(0xFE80000000000000, 1), Gid(0xFE80000000000000, 2))
    assert LinearForwardingTableBlock(ports=pattern(64)).encode() == pattern(64)
    for bad in ((0,) * 33, (0x10000,), (-1,)):
        with pytest.raises(EncodeError):
            PkeyTableBlock.of(bad)
    with pytest.raises(EncodeError):
        GuidInfoBlock.of((0,) * 9)


def test_description_is_safe_to_show() -> None:
    assert NodeDescription(text=b"mlx5_0 \x1b[31mHCA\0junk").display == "mlx5_0 ?[31mHCA"


LID_ROUTED = bytes.fromhex("01 01 01 01 0000 0000 0000000100000002 0015 0000 00000001 00000000000000ff") + bytes(32)


def test_lid_routed_both_ways() -> None:
    value = LidRoutedSmp(
        method=1, transaction_id=0x100000002, attribute_id=0x15, attribute_modifier=1, m_key=0xFF, data=PORT_INFO
    )
    wire = LID_ROUTED + PORT_INFO + bytes(128)
    assert value.encode() == wire
    assert read_smp(wire) == value
    answer = value.respond(NODE_INFO, 0x001C)
    assert answer.encode() == (
        bytes.fromhex("01 01 01 81 001c 0000 0000000100000002 0015 0000 00000001")
        + bytes(40)
        + NODE_INFO
        + bytes(24 + 128)
    )


DIRECTED = (
    bytes.fromhex("01 81 01 01 0000 01 02 0000000000000007 0011 0000 00000000 0000000000000000 ffff ffff")
    + bytes(28 + 64)
    + bytes.fromhex("00 01 05")
    + bytes(61 + 64)
)


def test_directed_route_both_ways() -> None:
    value = DirectedRouteSmp(
        method=1, hop_pointer=1, hop_count=2, transaction_id=7, attribute_id=0x11, initial_path=directed_path((1, 5))
    )
    assert value.encode() == DIRECTED
    assert read_smp(DIRECTED) == value
    assert value.route == (1, 5)
    answer = value.respond(NODE_INFO).encode()
    assert answer[:8] == bytes.fromhex("01 81 01 81 8000 01 02")
    assert answer[64:104] == NODE_INFO
    assert answer[128:131] == b"\x00\x01\x05"


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 2), (1, 0x03), (2, 2), (7, 64), (6, 4)],
    ids=["base version", "class", "class version", "hop count", "hop pointer"],
)
def test_bad_smps_are_refused(at: int, value: int) -> None:
    broken = bytearray(DIRECTED)
    broken[at] = value
    with pytest.raises(DecodeError):
        read_smp(broken)


def test_lengths_are_checked() -> None:
    for bad in (DIRECTED[:-1], DIRECTED + b"\0", b""):
        with pytest.raises(DecodeError):
            read_smp(bad)
    with pytest.raises(DecodeError):
        _ = DirectedRouteSmp(hop_count=64).route
    for route in ((1,) * 64, (255,)):
        with pytest.raises(EncodeError):
            directed_path(route)
    assert DirectedRouteSmp(hop_count=63, initial_path=directed_path((7,) * 63)).route == (7,) * 63


@given(st.binary(min_size=250, max_size=260))
def test_any_bytes_are_read_or_refused(wire: bytes) -> None:
    try:
        read_smp(wire)
    except DecodeError:
        return
    assert len(wire) == 256
