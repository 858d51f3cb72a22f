from __future__ import annotations

from fake_seams import FakeMadPort

from scripted_subnet import ScriptedSubnet, local_port, srp_unit
from srpha.core.connections.pairs import PairStatus
from srpha.core.seams import LinkState
from srpha.core.targets.rules import parse_rules
from srpha.daemon.discover import discover
from srpha.daemon.settings import Settings


def ports(subnet: ScriptedSubnet) -> list[FakeMadPort]:
    return [FakeMadPort(identity, subnet) for identity in subnet.ports]


async def test_one_look_at_everything() -> None:
    subnet = ScriptedSubnet(ports=[local_port(1), local_port(2)], units=[srp_unit(1), srp_unit(2)])
    result = await discover(ports(subnet), Settings(rules=parse_rules([f"d service_id={srp_unit(1).guid:x}"], "x")))
    assert result.complete
    assert [pair.status for pair in result.pairs] == [PairStatus.DISALLOWED, PairStatus.DUE] * 2
    assert len(result.scans) == 1


async def test_ports_that_cannot_ask_are_told() -> None:
    subnet = ScriptedSubnet(
        ports=[local_port(1), local_port(2, state=LinkState.DOWN), local_port(3)], units=[srp_unit(1)]
    )
    given = ports(subnet)
    given[2].current = None
    result = await discover(given, Settings())
    assert result.unusable == (("mlx5_1/1", "the port is down"), ("mlx5_2/1", "mlx5_2/1: no such device"))
    assert [identity.name for identity in result.ports] == ["mlx5_0/1", "mlx5_1/1"]
    assert [pair.status for pair in result.pairs] == [PairStatus.DUE]


async def test_silent_administrator() -> None:
    result = await discover(ports(ScriptedSubnet(ports=[local_port(1)], sa_silent=True)), Settings())
    assert not result.complete
    assert result.pairs == ()


async def test_no_ports() -> None:
    result = await discover([], Settings())
    assert (result.ports, result.scans, result.pairs, result.complete) == ((), (), (), True)
