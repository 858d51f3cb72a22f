"""Bare topologies become worlds: a host, targets, a subnet manager, and somebody who joins late."""

from __future__ import annotations

from pathlib import Path

import pytest

from srpha.embedded.roles import with_late_target, with_second_cable, world_of_topology
from srpha.embedded.worldspec import WorldSpec, WorldSpecError

PAIRS = """\
Switch 4 "s1"
[1] "h1"[1]
[2] "h2"[1]

Switch 4 "s2"
[1] "h3"[1]
[2] "h4"[1]
[3] "s1"[3]

Hca 2 "h1"
Hca 2 "h2"
Hca 2 "h3"
Hca 2 "h4"
Hca 2 "dark"
"""


def test_roles_for_a_bare_topology(tmp_path: Path) -> None:
    path = tmp_path / "net"
    path.write_text(PAIRS)
    world = world_of_topology(path)
    assert [device.hca for device in world.hosts[0].devices] == ["h1", "h3"]
    assert [target.hcas for target in world.targets] == [("h2", "h4")]
    assert world.sm == "sm"
    assert world.topology.links[-1].a.node == "s1"
    assert world_of_topology(path, most_targets=0).sm == "h2"
    path.write_text('Switch 2 "s"\n[1] "a"[1]\n[2] "b"[1]\n\nHca 1 "a"\nHca 1 "b"\n')
    small = world_of_topology(path)
    assert (small.sm, [target.hcas for target in small.targets]) == ("a", [("b",)])
    path.write_text('Switch 2 "s"\n[1] "a"[1]\n\nHca 1 "a"\n')
    with pytest.raises(WorldSpecError, match="at least two HCAs"):
        world_of_topology(path)


def test_the_last_of_several_targets_joins_late(tmp_path: Path) -> None:
    path = tmp_path / "net"
    path.write_text(PAIRS.replace('Hca 2 "dark"', 'Hca 2 "h5"').replace('"s1"[3]\n', '"s1"[3]\n[4] "h5"[1]\n', 1))
    spec = with_late_target(world_of_topology(path))
    assert [plan.late for plan in spec.targets] == [False, True]
    assert with_late_target(spec) is spec


def test_a_single_target_gets_company_on_free_switch_ports(tmp_path: Path) -> None:
    path = tmp_path / "net"
    path.write_text(PAIRS.replace("Switch 4", "Switch 8"))
    spec = with_late_target(world_of_topology(path))
    assert [(plan.name, plan.late) for plan in spec.targets] == [("target1", False), ("late-target", True)]
    late = spec.topology.node("late-target")
    switches = [link.a.node for link in spec.topology.links if link.b.node == "late-target"]
    assert late.ports == len(switches) == len(set(switches)) == 2
    assert len({plan.iocs[0].guid for plan in spec.targets}) == 2


def test_without_a_free_switch_port_nobody_joins_late(tmp_path: Path) -> None:
    path = tmp_path / "net"
    path.write_text('Switch 2 "s"\n[1] "a"[1]\n[2] "b"[1]\n\nHca 1 "a"\nHca 1 "b"\n')
    spec = world_of_topology(path)
    assert with_late_target(spec) is spec


def test_a_world_with_a_late_target_stays_as_it_is() -> None:
    spec = WorldSpec.demo()
    assert with_late_target(spec) is spec


ONE_EACH = 'Switch 4 "s1"\n[1] "a"[1]\n[2] "s2"[1]\n\nSwitch 4 "s2"\n[2] "b"[1]\n\nHca 2 "a"\nHca 2 "b"\n'


def test_a_host_with_one_cable_gets_a_second_one_on_another_switch(tmp_path: Path) -> None:
    path = tmp_path / "net"
    path.write_text(ONE_EACH)
    before = world_of_topology(path)
    spec = with_second_cable(before)
    (cable,) = [link for link in spec.topology.links if link not in before.topology.links]
    assert (str(cable.a), str(cable.b)) == ("s2/3", "a/2")
    assert with_second_cable(spec) is spec


@pytest.mark.parametrize(("old", "new"), [('Hca 2 "a"', 'Hca 1 "a"'), ('[2] "b"[1]', '[2] "b"[1]\n[3] "a"[2]')])
def test_a_host_with_two_cables_or_no_free_port_gets_none(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "net"
    path.write_text(ONE_EACH.replace(old, new))
    spec = world_of_topology(path)
    assert with_second_cable(spec) is spec
