from __future__ import annotations

import pytest

from srpha.core.targets.add_target import InvalidLineError, address_gid, format_target_line
from srpha.core.targets.static_targets import StaticTarget, conflicts, parse_static_target
from srpha.core.targets.target_port import InitiatorExt, InitiatorExtMode
from srpha.wire.identifiers import Gid

ID = "0002c90300ff0010"
IB = f"id_ext={ID},ioc_guid={ID},dgid=fe800000000000000002c90300ff0011,pkey=8001,service_id={ID}"
RDMA = f"id_ext={ID},ioc_guid={ID},dest=192.0.2.1:5555"
DGID = InitiatorExt()
NONE = InitiatorExt(InitiatorExtMode.NONE)


def test_an_address_stands_as_the_gid_roce_makes_of_it() -> None:
    assert str(address_gid("192.0.2.1")) == "0000:0000:0000:0000:0000:ffff:c000:0201"
    assert str(address_gid("2001:db8::1")) == "2001:0db8:0000:0000:0000:0000:0000:0001"
    with pytest.raises(ValueError, match="does not appear to be"):
        address_gid("example.org")


def test_a_fixed_infiniband_target() -> None:
    static = parse_static_target(IB, ["mlx5_0/1"], "array")
    target = static.target
    assert (target.id_ext, target.service_id, target.pkey) == (int(ID, 16), int(ID, 16), 0x8001)
    assert target.dgid == static.dgid == Gid.from_hex("fe800000000000000002c90300ff0011")
    assert target.description == "array"
    assert format_target_line(static.login(DGID)) == f"{IB},initiator_ext=0002c90300ff0011"
    assert static.key("mlx5_0/1", DGID).initiator_ext == 0x0002C90300FF0011


def test_a_target_over_rdma_cm() -> None:
    static = parse_static_target(f"{RDMA},src=192.0.2.9,tl_retry_count=2")
    assert static.dgid == address_gid("192.0.2.1")
    assert format_target_line(static.login(DGID)) == (
        f"{RDMA},src=192.0.2.9,initiator_ext=0000ffffc0000201,tl_retry_count=2"
    )
    assert format_target_line(static.login(NONE)) == f"{RDMA},src=192.0.2.9,tl_retry_count=2"


def test_an_initiator_ext_of_its_own_goes_first() -> None:
    static = parse_static_target(f"{RDMA},initiator_ext=0000000000000007")
    assert static.login(DGID).initiator_ext == 7
    assert static.key("rxe0/1", DGID).initiator_ext == 7


def test_local_ports_are_compared_exactly() -> None:
    static = parse_static_target(RDMA, ["mlx4_1/1"])
    assert static.fits("mlx4_1/1")
    assert not static.fits("mlx4_10/1")
    assert not static.fits("mlx4_1/10")
    assert parse_static_target(RDMA).fits("anything/9")


@pytest.mark.parametrize(
    ("text", "ports", "message"),
    [
        ("", [], "id_ext missing"),
        (f"{RDMA},surprise=1", [], "unknown parameter"),
        (f"{IB},src=192.0.2.1", [], "src=192.0.2.1 goes with dest only"),
        (f"{RDMA},src=[2001:db8::1]", [], "are not of one address family"),
        (RDMA.removesuffix(":5555"), [], "a port is needed"),
        (RDMA, ["mlx5_0"], "local port 'mlx5_0': a device and a port number"),
        (RDMA, ["mlx5_0/0"], "local port 'mlx5_0/0'"),
        (RDMA, ["/1"], "local port '/1'"),
        (RDMA, ["mlx5_0/\u0661"], "a device and a port number"),
    ],
)
def test_what_cannot_work_is_refused(text: str, ports: list[str], message: str) -> None:
    with pytest.raises(InvalidLineError, match=message):
        parse_static_target(text, ports)


def two(first: list[str], second: list[str], other: str = RDMA.replace("2.1:", "2.2:")) -> tuple[StaticTarget, ...]:
    return parse_static_target(RDMA, first, "one"), parse_static_target(other, second)


def test_targets_that_the_driver_takes_for_one_are_told() -> None:
    assert conflicts(two([], []), DGID) == ()
    (text,) = conflicts(two([], ["rxe0/1"]), NONE)
    assert text.startswith("static target 2 has id_ext, ioc_guid and initiator_ext of static target one")
    assert conflicts(two(["rxe0/1"], ["rxe1/1"]), NONE) == ()
    assert len(conflicts(two(["rxe0/1"], ["rxe0/1", "rxe1/1"], RDMA), DGID)) == 1
