"""What we find on a fabric of ibsim under the real OpenSM, beside what the real ibsrpdm and srp_daemon find there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ibsim_fabric import EXAMPLES, Fabric, srpha
from ibsim_probes import Probe
from ibsim_targets import Iocs, Targets, many_services, one_ioc
from ibsim_topologies import DEBIAN, Net, describe, random_net
from ibsim_types import MakeFabric, MakeTargets

from srpha.core.targets.add_target import parse_target_line
from srpha.embedded.fabric.topology import load_topology

pytestmark = [
    pytest.mark.outside("ibsim", "opensm", "ibsrpdm", "srp_daemon", "gcc"),
    pytest.mark.realtime,
]

SEEDS = (1, 2, 3)
PROGRAMS = {
    "ibsrpdm -c": (["ibsrpdm", "-c"], srpha("ibsrpdm", "-c")),
    "srp_daemon -o -c -a -n": (
        ["srp_daemon", "-f", "/dev/null", "-o", "-c", "-a", "-n"],
        srpha("srp-daemon", "-f", "/dev/null", "-o", "-c", "-a", "-n"),
    ),
    "srp_daemon -o -c -a": (
        ["srp_daemon", "-f", "/dev/null", "-o", "-c", "-a"],
        srpha("srp-daemon", "-f", "/dev/null", "-o", "-c", "-a"),
    ),
    "ibsrpdm": (["ibsrpdm"], srpha("ibsrpdm")),
}
"""The real program's command line and the drop-in's."""
SHAPES: Sequence[Iocs] = (one_ioc, many_services(1, 9), many_services(3, 2), one_ioc, many_services(2, 5))


class Scene:
    """A fabric with targets, seen from ``host``."""

    def __init__(self, net: Net, fabric: Fabric, make_targets: MakeTargets) -> None:
        self.fabric = fabric
        self.host, *others = net.hcas
        # in one of Debian's files there is but one host that can be attached to: it then sees itself
        self.target_names = (others or [self.host])[: len(SHAPES)]
        fabric.start_sm()
        self.targets: Targets = make_targets(fabric, dict(zip(self.target_names, SHAPES, strict=False)))

    @property
    def services(self) -> int:
        """SRP services that all targets have together."""
        return sum((1, 9, 6, 1, 10)[: len(self.target_names)])

    def lines(self, program: Sequence[str]) -> list[str]:
        return self.fabric.lines([self.host], program)


@pytest.fixture(scope="module", params=[*DEBIAN, *(f"seed{seed}" for seed in SEEDS)])
def scene(request: pytest.FixtureRequest, make_fabric: MakeFabric, make_targets: MakeTargets) -> Scene:
    topology: Path | str
    if request.param in DEBIAN:
        topology = EXAMPLES / request.param
        net = describe(load_topology(topology))
    else:
        net = random_net(int(request.param.removeprefix("seed")))
        topology = net.text
    return Scene(net, make_fabric(topology, net.switches[0]), make_targets)


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_the_drop_in_prints_what_the_original_prints(scene: Scene, name: str) -> None:
    original, ours = PROGRAMS[name]
    expected = scene.lines(original)
    assert sum("SRP.T10" in line or "id_ext=" in line for line in expected) == scene.services
    assert scene.lines(ours) == expected


def test_target_ports_are_worded_as_the_original_words_them(scene: Scene) -> None:
    """The daemon's own way to the line, without the drop-in; and each line is one that the kernel would take."""
    with Probe(scene.fabric, [scene.host]) as probe:
        probe.ready()
        (found,) = probe.scan()
    lines = found["lines"]["ibsim0/1"]
    assert sorted(lines) == scene.lines(PROGRAMS["srp_daemon -o -c -a -n"][0])
    assert len({parse_target_line(line) for line in lines}) == scene.services


def test_planted_a_target_that_only_one_of_the_two_sees_is_noticed(scene: Scene) -> None:
    """The comparison is worth something: two scans of fabrics that differ in one agent are not equal."""
    original, _ = PROGRAMS["srp_daemon -o -c -a"]
    whole = scene.lines(original)
    scene.targets.silence(scene.target_names[0])
    try:
        partial = scene.lines(srpha("srp-daemon", *original[1:], "-t", "200"))
    finally:
        scene.targets.silence(scene.target_names[0], False)
    assert partial != whole
    assert scene.lines(srpha("srp-daemon", *original[1:], "-t", "200")) == whole
