from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.embedded.fabric.topology import NodeKind, format_topology
from srpha.embedded.worldspec import DevicePlan, HostPlan, IocPlan, UnitPlan, WorldSpec, WorldSpecError

SMALL = """\
[subnet]
prefix = "fec0000000000001"
sm = "h"

[[switch]]
name = "s"
ports = 4

[[hca]]
name = "h"
host = "host1"

[[hca]]
name = "t"
ports = 2
node_guid = "0x0002c90300000100"

[[link]]
a = "h/1"
b = "s/1"

[[link]]
a = "t/1"
b = "s/2"
latency_us = 5

[[target]]
name = "array"
hcas = ["t"]

[[target.unit]]
lun = 0
size = "1 MiB"
file = "disk0"
service_time_ms = 2
"""


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(WorldSpecError) as caught:
        WorldSpec.parse(text, "w.toml")
    assert all("\n" not in line for line in caught.value.problems)
    return caught.value.problems


def test_small_world(tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_text(SMALL)
    world = WorldSpec.load(path)
    assert (world.prefix, world.sm, world.source) == (0xFEC0000000000001, "h", str(path))
    assert world.hosts == (HostPlan("host1", (DevicePlan("mlx5_0", "h"),)),)
    (target,) = world.targets
    guid = 0x0002C90300000100
    assert target.iocs == (IocPlan(guid, guid, guid),)
    assert target.units == (UnitPlan(0, 1 << 20, file=tmp_path / "disk0", service_time=0.002),)
    assert [link.latency for link in world.topology.links] == [pytest.approx(1e-6), pytest.approx(5e-6)]


def test_demo_world() -> None:
    world = WorldSpec.demo()
    assert world.sm == "sm"
    assert [device.device for device in world.hosts[0].devices] == ["mlx5_0", "mlx5_1"]
    assert [(target.name, target.late, len(target.units)) for target in world.targets] == [
        ("array1", False, 2),
        ("array2", False, 1),
        ("array3", True, 1),
    ]
    assert sum(node.kind is NodeKind.SWITCH for node in world.topology.nodes) == 2
    guids = [guid for node in world.topology.nodes for guid in (node.node_guid, node.port_guid(1))]
    assert len(guids) - len(set(guids)) == 2  # a switch and its port share one
    assert WorldSpec.demo() == world


def test_topology_file_with_roles_on_top(tmp_path: Path) -> None:
    (tmp_path / "net").write_text(format_topology(WorldSpec.parse(SMALL).topology))
    path = tmp_path / "w.toml"
    path.write_text(
        'topology = "net"\n[[hca]]\nname = "h"\nhost = "x"\ndevice = "mlx4_0"\n'
        '[[target]]\nname = "array"\nhcas = ["t"]\nunit = [{lun = 0, size = 1048576}]\n'
    )
    world = WorldSpec.load(path)
    assert world.hosts == (HostPlan("x", (DevicePlan("mlx4_0", "h"),)),)
    assert len(world.topology.links) == 2
    path.write_text('topology = "net"\n[[hca]]\nname = "h"\nports = 2\n')
    with pytest.raises(WorldSpecError, match="leave out ports"):
        WorldSpec.load(path)
    path.write_text('topology = "none"\n')
    with pytest.raises(WorldSpecError, match="No such file"):
        WorldSpec.load(path)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("ports = 4", "ports = 0", "switch[0].ports: 0 is not possible: input should be greater than or equal to 1"),
        ("ports = 4", 'ports = "4"', "switch[0].ports: '4' is not possible: input should be a valid integer"),
        ("ports = 4", "port = 4", "switch[0].port: unknown key; possible here: name, ports, node_guid, description"),
        ("[subnet]", "[subnets]", "subnets: unknown key; possible here: topology, subnet, switch, hca, link, host"),
        ("lun = 0", "luns = 0", "target[0].unit[0].luns: unknown key; possible here: lun, size, block_size"),
        ('name = "s"\n', "", "switch[0].name: missing"),
        ('"1 MiB"', '"1 MB"', "target[0].unit[0].size: '1 MB' is not possible: give bytes as a number"),
        ('"1 MiB"', "1000", "target[0].unit[0].size: 1000 bytes are no multiple of block_size 512"),
        ("0x0002c90300000100", "xyz", "hca[1].node_guid: 'xyz' is not possible: give hex digits"),
        ('sm = "h"', 'sm = "s"', "subnet.sm: there is no HCA 's'; there are 'h', 't'"),
        ('name = "h"', 'name = "s"', "hca[0].name: 's' is the name of another switch or HCA already"),
        ('a = "h/1"', 'a = "h/2"', "link[0].a: 'h/2': 'h' has ports 1 to 1"),
        ('a = "h/1"', 'a = "x/1"', "link[0].a: 'x/1': there is no switch or HCA 'x'"),
        ('a = "h/1"', 'a = "h"', "link[0].a: 'h' is no port"),
        ('b = "s/2"', 'b = "s/1"', "fabric: s/1: two cables in one port"),
        ("latency_us = 5", "latency_us = -1", "link[1].latency_us: -1 is not possible"),
        ('hcas = ["t"]', 'hcas = ["h"]', "target[0].hcas: HCA 'h' belongs to host 'host1' already"),
        ('hcas = ["t"]', 'hcas = ["s"]', "target[0].hcas: there is no HCA 's'"),
        ('hcas = ["t"]', "hcas = []", "target[0].hcas: [] is not possible"),
        ('host = "host1"', 'device = "mlx5_0"', "hca[0].device: 'mlx5_0' needs a host"),
        ('host = "host1"', 'host = "h\\n"', "hca[0].host: 'h\\n' is not possible: give printable characters"),
        ("lun = 0", "lun = 16384", "target[0].unit[0].lun: 16384 is not possible"),
    ],
)
def test_problems_name_file_key_value_and_remedy(old: str, new: str, line: str) -> None:
    assert old in SMALL
    found = problems(SMALL.replace(old, new, 1))
    assert any(problem.startswith(f"w.toml: {line}") for problem in found), found


def test_every_problem_is_told_at_once() -> None:
    text = SMALL.replace('a = "h/1"', 'a = "x/1"').replace('hcas = ["t"]', 'hcas = ["q", "h"]')
    assert len(problems(text)) == 3


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ('[[host]]\nname = "h2"\n', "hca[0].host: there is no [[host]] 'host1'; there are 'h2'"),
        ('[[host]]\nname = "host1"\n[[host]]\nname = "host1"\n', "host[1].name: 'host1' is there twice"),
        ('[[hca]]\nname = "i"\nhost = "host1"\ndevice = "mlx5_0"\n', "hca[2].device: host 'host1' has two devices"),
        ('[[hca]]\nname = "i"\nhost = "host2"\ndevice = "a/b"\n', "hca[2].device: 'a/b' is no device name"),
        ('[[hca]]\nname = "i"\nport_guids = ["1", "2"]\n', "hca[2].port_guids: 2 GUIDs for 1 ports"),
        ("[[target.unit]]\nlun = 0\nsize = 512\n", "target[0].unit[1].lun: 0 is there twice in target 'array'"),
        ("[[target.ioc]]\n[[target.ioc]]\n", "target[0].ioc[1].guid: missing"),
        ('[[target.ioc]]\n[[target.ioc]]\nguid = "2c90300000100"\n', "target[0].ioc[1].guid: 0002c90300000100 is the"),
        (
            '[[target]]\nname = "b"\nhcas = ["t"]\nunit = [{lun = 0, size = 512}]\n',
            "target[1].hcas: HCA 't' belongs to target 'array' already",
        ),
        (
            '[[hca]]\nname = "u"\n[[target]]\nname = "b"\nhcas = ["u"]\nunit = [{lun = 0, size = 512}]\n'
            'ioc = [{guid = "2c90300000100"}]\n',
            "target: 'array' and 'b' share IOC GUID 0002c90300000100",
        ),
    ],
)
def test_problems_between_tables(more: str, line: str) -> None:
    found = problems(SMALL + more)
    assert any(problem.startswith(f"w.toml: {line}") for problem in found), found


def test_no_toml_at_all(tmp_path: Path) -> None:
    assert problems("a = ")[0].startswith("w.toml: not TOML: ")
    assert problems("") == ("w.toml: hca: missing: a world needs an HCA at least, for its subnet manager",)
    with pytest.raises(WorldSpecError, match="No such file"):
        WorldSpec.load(tmp_path / "none.toml")
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(WorldSpecError, match="not UTF-8"):
        WorldSpec.load(tmp_path / "binary")


@given(st.text(alphabet='[]{}="hcatrgeswiuniknlo_015/.\n ', max_size=120))
def test_any_text_is_a_world_or_refused(text: str) -> None:
    with pytest.raises(WorldSpecError):
        WorldSpec.parse(text)
