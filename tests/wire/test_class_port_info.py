from __future__ import annotations

from srpha.wire.class_port_info import ClassPortInfo, SaCapability
from srpha.wire.identifiers import Gid

WIRE = bytes.fromhex(
    "01 02 2600"  # versions, capability mask with bits 9, 10, 13
    "00000052"  # capability mask 2 = 2, response time 18
    "fe80000000000000 0002c90300001234"  # redirect GID
    "11 3abcde"  # traffic class, SL, flow label
    "0007 8001 00 000001 80010000"  # LID, P_Key, reserved, QP, Q_Key
    "fe80000000000000 0002c90300005678"  # trap GID
    "22 454321"  # the same for traps
    "0009 ffff 40 123456 80010001"  # LID, P_Key, hop limit, QP, Q_Key
)
VALUE = ClassPortInfo(
    class_version=2,
    capability_mask=0x2600,
    capability_mask2=2,
    response_time=18,
    redirect_gid=Gid(0xFE80000000000000, 0x0002C90300001234),
    redirect_traffic_class=0x11,
    redirect_sl=3,
    redirect_flow_label=0xABCDE,
    redirect_lid=7,
    redirect_pkey=0x8001,
    redirect_qpn=1,
    redirect_qkey=0x80010000,
    trap_gid=Gid(0xFE80000000000000, 0x0002C90300005678),
    trap_traffic_class=0x22,
    trap_sl=4,
    trap_flow_label=0x54321,
    trap_lid=9,
    trap_pkey=0xFFFF,
    trap_hop_limit=0x40,
    trap_qpn=0x123456,
    trap_qkey=0x80010001,
)


def test_both_ways() -> None:
    assert len(WIRE) == 72
    assert VALUE.encode() == WIRE
    assert ClassPortInfo.decode(WIRE) == VALUE


def test_views() -> None:
    assert VALUE.matches_capability_bits
    assert not ClassPortInfo(capability_mask=0xDFFF).matches_capability_bits
    assert int(SaCapability.PORT_INFO_MASK_MATCH) == 0x2000
    assert VALUE.redirects
    assert ClassPortInfo(redirect_gid=Gid(0, 1)).redirects
    assert not ClassPortInfo().redirects
