"""The SA's data: links, rates, paths, partitions."""

from __future__ import annotations

import pytest

from srpha.embedded.subnet.subnet_view import (
    EndPort,
    LinkEnd,
    PathQuality,
    build_view,
    empty_view,
    link_end,
    link_speed,
    rate_code,
    rate_speed,
    share_partition,
    shared_pkeys,
)
from srpha.wire.smp import LinkSpeed, LinkSpeedExtended, LinkWidth, NodeInfo, NodeType, PortInfo


@pytest.mark.parametrize(
    ("width", "speed", "extended", "gigabits", "code"),
    [
        (LinkWidth.X4, LinkSpeed.QDR, 0, 40.0, 7),
        (LinkWidth.X1, LinkSpeed.SDR, 0, 2.5, 2),
        (LinkWidth.X4, LinkSpeed.SDR, 0, 10.0, 3),
        (LinkWidth.X12, LinkSpeed.QDR, 0, 120.0, 10),
        (LinkWidth.X4, LinkSpeed.QDR, LinkSpeedExtended.FDR, 56.0, 12),
        (LinkWidth.X4, LinkSpeed.QDR, LinkSpeedExtended.EDR, 100.0, 16),
        (LinkWidth.X4, LinkSpeed.QDR, LinkSpeedExtended.HDR, 200.0, 17),
        (LinkWidth.X2, LinkSpeed.QDR, LinkSpeedExtended.EDR, 50.0, 20),
        (0, 0, 0, 2.5, 2),
    ],
)
def test_rates(width: int, speed: int, extended: int, gigabits: float, code: int) -> None:
    info = PortInfo(link_width_active=width, link_speed_active=speed, link_speed_ext_active=extended)
    assert link_speed(info) == gigabits
    assert rate_code(gigabits) == code
    assert rate_speed(code) == gigabits


def test_rate_codes_of_the_specification() -> None:
    assert {code: rate_speed(code) for code in (2, 3, 4, 5, 9, 15, 18, 22)} == {
        2: 2.5,
        3: 10.0,
        4: 30.0,
        5: 5.0,
        9: 80.0,
        15: 25.0,
        18: 300.0,
        22: 600.0,
    }
    assert rate_speed(0) is rate_speed(1) is rate_speed(23) is rate_speed(63) is None
    assert rate_code(99.0) == 9


def test_partitions() -> None:
    assert list(shared_pkeys((0xFFFF, 0x8012, 0x0013), (0x7FFF, 0x8013, 0x0012))) == [0xFFFF, 0x8012, 0x0013]
    assert not share_partition((0x0012,), (0x0012,))
    assert not share_partition((), (0xFFFF,))


def port(lid: int, guid: int, node: int, kind: NodeType, number: int) -> EndPort:
    info = PortInfo(lid=lid, mtu_cap=5, link_width_active=LinkWidth.X4, link_speed_active=LinkSpeed.QDR)
    return EndPort(lid, guid, number, 0xFE80 << 48, NodeInfo(node_type=kind, node_guid=node), b"", info, (0xFFFF,))


def test_paths_follow_the_tables() -> None:
    a, b = port(1, 101, 100, NodeType.CHANNEL_ADAPTER, 1), port(2, 201, 200, NodeType.CHANNEL_ADAPTER, 1)
    left, right = port(3, 10, 10, NodeType.SWITCH, 0), port(4, 20, 20, NodeType.SWITCH, 0)
    fast, slow = 40.0, 10.0
    links = {
        (100, 1): LinkEnd((10, 1), 5, fast),
        (10, 1): LinkEnd((100, 1), 5, fast),
        (10, 2): LinkEnd((20, 2), 4, slow),
        (20, 2): LinkEnd((10, 2), 4, slow),
        (200, 1): LinkEnd((20, 1), 5, fast),
        (20, 1): LinkEnd((200, 1), 5, fast),
    }
    tables = {10: bytes([255, 1, 2, 0, 2]), 20: bytes([255, 2, 1, 2, 0])}
    view = build_view(prefix=0, sm_lid=1, end_ports=(b, a, right, left), switch_ports={}, links=links, tables=tables)
    assert [end.lid for end in view.end_ports] == [1, 2, 3, 4]
    assert view.path(a, b) == view.path(b, a) == PathQuality(4, 3, 3)
    assert view.path(a, left) == PathQuality(5, 7, 1)
    assert view.path(left, a) == PathQuality(5, 7, 1)
    assert view.path(left, right) == PathQuality(4, 3, 1)
    assert view.path(a, a) == PathQuality(5, 7, 0)
    assert view.path(left, left) == PathQuality(5, 7, 0)
    looping = build_view(
        prefix=0,
        sm_lid=1,
        end_ports=(a, b),
        switch_ports={},
        links=links,
        tables={10: bytes([255, 1, 2]), 20: bytes([255, 2, 2])},
    )
    assert looping.path(a, b) is None
    cut = build_view(prefix=0, sm_lid=1, end_ports=(a, b), switch_ports={}, links={}, tables=tables)
    assert cut.path(a, b) is None
    none = build_view(prefix=0, sm_lid=1, end_ports=(a, b), switch_ports={}, links=links, tables={10: b"", 20: b""})
    assert none.path(a, b) is None


def test_link_carries_what_both_ends_can() -> None:
    near = PortInfo(mtu_cap=5, link_width_active=LinkWidth.X4, link_speed_active=LinkSpeed.QDR)
    far = PortInfo(mtu_cap=4, link_width_active=LinkWidth.X1, link_speed_active=LinkSpeed.QDR)
    assert link_end((1, 2), near, far) == LinkEnd((1, 2), 4, 10.0)


def test_empty_view() -> None:
    view = empty_view(7)
    assert (view.end_ports, view.sm_lid, view.prefix) == ((), 0, 7)
