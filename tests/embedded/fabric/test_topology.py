from __future__ import annotations

import contextlib
import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.embedded.fabric.topology import (
    LinkSpec,
    NodeKind,
    NodeSpec,
    PortRef,
    Topology,
    TopologyError,
    format_topology,
    load_topology,
    parse_topology,
)
from srpha.embedded.worldspec import WorldSpec

DEBIAN_EXAMPLES = Path("/usr/share/doc/ibsim-utils/net-examples")

IBNETDISCOVER = """\
#
# Topology file: generated on Thu Nov 19 10:00:00 2026
#
# Initiated from node 5254000000000010 port 5254000000000011

vendid=0x2c9
devid=0xb924
sysimgguid=0x5254000000000103
switchguid=0x5254000000000100(5254000000000100)
Switch	36 "S-5254000000000100"		# "Edge switch; 1" enhanced port 0 lid 3 lmc 0
[1]	"H-5254000000000010"[1](5254000000000011) 		# "host1 mlx5_0" lid 1 4xEDR
[36][ext 2]	"S-5254000000000200"[36][ext 2]		# "Edge switch 2" lid 4 4xEDR

vendid=0x2c9
devid=0xb924
switchguid=0x5254000000000200(5254000000000200)
Switch	36 "S-5254000000000200"		# "Edge switch 2" base port 0 lid 4 lmc 0
[36]	"S-5254000000000100"[36]		# "Edge switch; 1" lid 3 4xEDR

vendid=0x2c9
devid=0x1017
sysimgguid=0x5254000000000010
caguid=0x5254000000000010
Ca	2 "H-5254000000000010"		# "host1 mlx5_0"
[1](5254000000000011) 	"S-5254000000000100"[1]		# lid 1 lmc 0 "Edge switch; 1" lid 3 4xEDR
"""


@pytest.mark.outside("ibsim")
@pytest.mark.parametrize(
    ("name", "nodes", "links"),
    [
        ("net", 4, 4),
        ("net.1", 3, 2),
        ("net.2sw2path", 4, 4),
        ("net.2sw2path4hca", 6, 6),
        ("net.2sw2path4hca2port", 4, 6),
    ],
)
def test_debian_example_loads(name: str, nodes: int, links: int) -> None:
    path = DEBIAN_EXAMPLES / name
    topology = load_topology(path)
    assert (len(topology.nodes), len(topology.links)) == (nodes, links)


@pytest.mark.outside("ibsim")
def test_debian_example_with_a_planted_fault_is_refused(tmp_path: Path) -> None:
    path = DEBIAN_EXAMPLES / "net"
    broken = tmp_path / "net"
    broken.write_text(path.read_text().replace('[2]\t"Hca2"[2]', '[2]\t"Hca2"[3]'))
    with pytest.raises(TopologyError, match=r"net:\d+: Switch1/2 is cabled to Hca2/3, but 'Hca2' has ports 1 to 2"):
        load_topology(broken)


def test_ibnetdiscover_output() -> None:
    topology = parse_topology(IBNETDISCOVER)
    switch, _, hca = topology.nodes
    assert (switch.kind, switch.ports, switch.node_guid) == (NodeKind.SWITCH, 36, 0x5254000000000100)
    assert (switch.description, switch.vendor_id, switch.device_id) == ("Edge switch; 1", 0x2C9, 0xB924)
    assert switch.system_guid == 0x5254000000000103
    assert hca.port_guids == (0x5254000000000011, 0x5254000000000012)
    assert topology.links == (
        LinkSpec(PortRef("S-5254000000000100", 1), PortRef("H-5254000000000010", 1)),
        LinkSpec(PortRef("S-5254000000000100", 36), PortRef("S-5254000000000200", 36)),
    )


def test_port_without_guid_gets_one_nobody_has() -> None:
    text = 'caguid=0x10\nCa 2 "a"\n[1](11) "b"[1]\n\ncaguid=0x12\nCa 1 "b"\n[1](13) "a"[1]'
    first, second = parse_topology(text).nodes
    assert second.node_guid == 0x12
    assert len({first.node_guid, *first.port_guids, second.node_guid, *second.port_guids}) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "net: no node in the file"),
        ("hello", "net:1: neither node, port, key=value nor comment: 'hello'"),
        ("include other.net", "net:1: 'include' is a command for ibsim"),
        ("do Link a 1", "net:1: 'do' is a command for ibsim"),
        ("colour=0x1", "net:1: unknown key 'colour'"),
        ('[1] "a"[1]', "net:1: a port line outside a node"),
        ('Hca 0 "a"', "net:1: node 'a' has 0 ports; 1 to 254 are possible"),
        ('Hca 255 "a"', "net:1: node 'a' has 255 ports"),
        ('Rt 2 "r"', "net:1: 'r' is a router"),
        ('Hca 1 "a"\nHca 1 "a"', "net:2: node 'a' is there already, since line 1"),
        ('Hca 1 "a"\n[x] "b"[1]', "net:2: not a port line"),
        ('Hca 1 "a"\n[2] "b"[1]', "net:2: 'a' has ports 1 to 1, not 2"),
        ('Hca 1 "a"\n[1] "b"[1]', "net:2: a/1 is cabled to 'b', which is not in the file"),
        ('Hca 1 "a"\n[1] "a"[1]', "net:2: a/1 is cabled to itself"),
        ('Hca 1 "a"\n[1] "b"[1]\n[1] "b"[1]', "net:3: port a/1 is there already, in line 2"),
        ('Hca 1 "a"\n[1] "b"[2]\n\nHca 1 "b"', "net:2: a/1 is cabled to b/2, but 'b' has ports 1 to 1"),
        (
            'Hca 1 "a"\n[1] "b"[1]\n\nHca 2 "b"\n[1] "c"[1]\n\nHca 1 "c"',
            "net:2: a/1 is cabled to b/1, but line 5 has b/1 cabled to c/1",
        ),
        ('Hca 2 "a"\n[1] "b"[1]\n[2] "b"[1]\n\nHca 1 "b"', "net:3: b/1 has a second cable, from a/2"),
        ('caguid=0x5\nHca 1 "a"\n\ncaguid=0x5\nHca 1 "b"', "net: nodes 'a' and 'b' share GUID"),
        (
            'Switch 2 "s"\n[1] "a"[1](7)\n\nHca 1 "a"\n[1](8) "s"[1]',
            "net:2: a/1 has GUID 0x0000000000000007 here and 0x0000000000000008 elsewhere",
        ),
    ],
)
def test_faults_are_told_with_file_and_line(text: str, message: str) -> None:
    with pytest.raises(TopologyError) as caught:
        parse_topology(text, "net")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="No such file"):
        load_topology(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"Hca 1 \xff")
    with pytest.raises(TopologyError, match="not UTF-8 text at byte 6"):
        load_topology(tmp_path / "binary")


@pytest.mark.parametrize("text", ["", "a", "/1", "a/", "a/x", "a/-1", "a/255", "a/1234", "a/²"])
def test_bad_port_references(text: str) -> None:
    with pytest.raises(TopologyError):
        PortRef.parse(text)


def test_port_reference_splits_at_the_last_slash() -> None:
    assert PortRef.parse("rack 1/leaf/3") == PortRef("rack 1/leaf", 3)
    assert str(PortRef("rack 1/leaf", 3)) == "rack 1/leaf/3"


def test_topology_checks_itself() -> None:
    a = NodeSpec("a", NodeKind.HCA, 1, 0x100)
    b = NodeSpec("b", NodeKind.HCA, 1, 0x200)
    for nodes, links, what in (
        ((a, a), (), "two nodes"),
        ((a, NodeSpec("b", NodeKind.HCA, 1, 0x101)), (), "share GUID"),
        ((a, b), (LinkSpec(PortRef("a", 2), PortRef("b", 1)),), "no such port"),
        ((a, b), (LinkSpec(PortRef("a", 1), PortRef("a", 1)),), "two cables"),
    ):
        with pytest.raises(TopologyError, match=what):
            Topology(nodes, links)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Switches in a chain with HCAs on them, some ports dark."""
    nodes: list[NodeSpec] = []
    links: list[LinkSpec] = []
    switches = draw(st.integers(1, 4))
    for number in range(switches):
        nodes.append(NodeSpec(f"S-{number}", NodeKind.SWITCH, 8, 0x1000 + number, (), f"switch {number}", 0x2C9, 1, 7))
        if number:
            links.append(LinkSpec(PortRef(f"S-{number - 1}", 8), PortRef(f"S-{number}", 7)))
    for number in range(draw(st.integers(0, 6))):
        ports = draw(st.integers(1, 2))
        guid = 0x20000 + number * 16
        nodes.append(
            NodeSpec(f"H {number}/x", NodeKind.HCA, ports, guid, tuple(guid + 1 + p for p in range(ports)), "hca")
        )
        links.append(LinkSpec(PortRef(f"S-{number % switches}", 1 + number // switches), PortRef(f"H {number}/x", 1)))
    return Topology(tuple(nodes), tuple(links))


@given(topologies())
def test_written_files_read_back(topology: Topology) -> None:
    read = parse_topology(format_topology(topology))
    assert read.nodes == topology.nodes
    assert {frozenset((link.a, link.b)) for link in read.links} == {
        frozenset((link.a, link.b)) for link in topology.links
    }


@given(st.text(alphabet='Hca Switch"[]()#=0123456789\nab', max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(TopologyError):
        assert parse_topology(text).nodes


def ask_ibsim(path: Path) -> str:
    """What ibsim says to a topology file: warnings, and all nodes with their cables."""
    done = subprocess.run(
        ["ibsim", "-s", str(path)],
        input="dump\nquit\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "IBSIM_SOCKNAME": f"srpha-test-{os.getpid()}"},
    )
    return done.stdout + done.stderr


@pytest.mark.outside("ibsim")
def test_ibsim_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "demo.net"
    topology = WorldSpec.demo().topology
    path.write_text(format_topology(topology))
    said = ask_ibsim(path)
    assert "ibwarn" not in said
    cables = re.findall(r"^(\w+)\t\[(\d+)\]\t\"([^\"]+)\"\[(\d+)\]", said, re.MULTILINE)
    guids = {node.port_guid(number): node for node in topology.nodes for number in range(1, node.ports + 1)}
    seen = {
        frozenset(((guids[int(guid, 16)].name, int(port)), (peer, int(far))))
        for guid, port, peer, far in cables
        if peer != "Sma Port"
    }
    assert seen == {frozenset(((link.a.node, link.a.port), (link.b.node, link.b.port))) for link in topology.links}


@pytest.mark.outside("ibsim")
def test_ibsim_catches_a_planted_fault(tmp_path: Path) -> None:
    path = tmp_path / "broken.net"
    path.write_text(format_topology(WorldSpec.demo().topology).replace('"leaf-b"[8]', '"leaf-b"[99]'))
    said = ask_ibsim(path)
    assert "ibwarn" in said or "ready" not in said
    with pytest.raises(TopologyError, match="leaf-b/99"):
        load_topology(path)
