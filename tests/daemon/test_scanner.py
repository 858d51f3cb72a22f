from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from fake_seams import FakeMadPort

from scripted_subnet import ScriptedSubnet, local_port, srp_unit
from srpha.core.discovery.scan_result import ScanResult, Standing
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.core.seams import LinkLayer, LinkState
from srpha.daemon.scanner import Member, check_unit, scan_subnet, subnets, trouble_of

SETTINGS = ScanSettings()


def members(subnet: ScriptedSubnet) -> tuple[Member, ...]:
    return tuple(Member(FakeMadPort(identity, subnet), identity) for identity in subnet.ports)


async def scan(group: tuple[Member, ...], told: list[ScanResult] | None = None) -> tuple[ScanResult, ...]:
    heard: list[ScanResult] = [] if told is None else told
    return await scan_subnet(group, lambda _: {}, SETTINGS, heard.append)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, ""),
        ({"link_layer": LinkLayer.ETHERNET}, "its link layer is Ethernet, not InfiniBand"),
        ({"state": LinkState.INIT}, "the port is init"),
        ({"lid": 0}, "it has no LID"),
        ({"lid": 0xC000}, "it has no LID"),
        ({"sm_lid": 0}, "it has no subnet manager"),
        ({"pkeys": (0, 0)}, "its P_Key table is empty"),
    ],
)
def test_trouble(change: dict[str, object], text: str) -> None:
    assert trouble_of(replace(local_port(1), **change)) == text  # type: ignore[arg-type]


def test_ports_are_grouped_by_prefix_manager_and_partitions() -> None:
    one, two, three, four = (local_port(n) for n in (1, 2, 3, 4))
    three = replace(three, sm_lid=9)
    four = replace(four, pkeys=(0xFFFF, 0x8001))
    groups = subnets(members(ScriptedSubnet(ports=[one, two, three, four])))
    assert [[member.identity.name for member in group] for group in groups] == [
        ["mlx5_0/1", "mlx5_1/1"],
        ["mlx5_2/1"],
        ["mlx5_3/1"],
    ]


async def test_each_unit_is_told_once_while_the_scan_goes_on() -> None:
    subnet = ScriptedSubnet(ports=[local_port(1)], units=[srp_unit(n) for n in range(1, 9)])
    subnet.units[0].silent = True
    told: list[ScanResult] = []
    (result,) = await scan(members(subnet), told)
    units = [unit for part in told for unit in part.units]
    assert sorted(unit.guid for unit in units) == [unit.guid for unit in subnet.units]
    assert [unit.standing for unit in units].count(Standing.SILENT) == 1
    assert units[-1].standing is Standing.SILENT
    assert result.complete


async def test_another_member_takes_over() -> None:
    subnet = ScriptedSubnet(ports=[local_port(1), local_port(2)], units=[srp_unit(1)])
    subnet.sa_silent_to.add("mlx5_0/1")
    (result,) = await scan(members(subnet))
    assert (result.asker, result.complete) == ("mlx5_1/1", True)


async def test_strangers_get_their_own_scan() -> None:
    here = ScriptedSubnet(ports=[local_port(1)], units=[srp_unit(1)])
    there = ScriptedSubnet(ports=[local_port(2)], units=[srp_unit(2)])
    results = await scan((*members(here), *members(there)))
    assert [result.members for result in results] == [("mlx5_0/1",), ("mlx5_1/1",)]
    assert [[unit.guid for unit in result.units] for result in results] == [[srp_unit(1).guid], [srp_unit(2).guid]]


async def test_port_that_goes_away_is_no_answer() -> None:
    subnet = ScriptedSubnet(ports=[local_port(1)], units=[srp_unit(1)])
    group = members(subnet)
    port = group[0].port
    assert isinstance(port, FakeMadPort)
    port.current = None
    (result,) = await scan(group)
    assert (result.complete, result.reason) == (False, "no answer from the subnet administrator")


async def test_busy_administrator_is_waited_for() -> None:
    subnet = ScriptedSubnet(ports=[local_port(1)], units=[srp_unit(1)], sa_busy=3)
    start = asyncio.get_running_loop().time()
    (result,) = await scan(members(subnet))
    assert result.complete
    assert 0.1 <= asyncio.get_running_loop().time() - start < 1


async def test_check_of_one_unit() -> None:
    subnet = ScriptedSubnet(ports=[local_port(1), local_port(2)], units=[srp_unit(1), srp_unit(2)])
    subnet.sa_silent_to.add("mlx5_0/1")
    result = await check_unit(members(subnet), {}, SETTINGS, guid=srp_unit(2).guid)
    assert (result.asker, [unit.guid for unit in result.units]) == ("mlx5_1/1", [srp_unit(2).guid])
