"""The scenario in fabrics that others drew (Debian's examples for ibsim) and in generated ones."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.embedded.fabric.topology import PortRef
from srpha.embedded.roles import with_late_target, with_second_cable, world_of_topology
from srpha.embedded.worldspec import WorldSpec
from srpha.lab.cables import parts_without
from srpha.lab.generate import WorldShape, generate_world
from srpha.lab.lab import Lab, LabSettings
from srpha.lab.scenario import Report, Scenario, ScenarioSettings
from srpha.lab.workload import WorkloadSettings

MODES = pytest.mark.parametrize("mode", list(RecoveryMode), ids=lambda mode: mode.value)
DEBIAN_EXAMPLES = Path("/usr/share/doc/ibsim-utils/net-examples")
EXAMPLES = ("net", "net.1", "net.2sw2path", "net.2sw2path4hca", "net.2sw2path4hca2port")


async def play(spec: WorldSpec, mode: RecoveryMode, pause: float) -> tuple[Report, Lab]:
    lab = Lab(spec, LabSettings(recovery=mode, load=WorkloadSettings(workers=1, mean_pause=pause)))
    settings = ScenarioSettings(quiet=10 * pause, outage=20 * pause, flaps=(0.03,), settle_limit=20.0)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(lab.run())
        report = await Scenario(lab, settings).run()
        running.cancel()
    return report, lab


def judge(report: Report, lab: Lab) -> None:
    steps = [f"{step.name}: {step.detail}" for step in report.steps if not step.ok]
    events = [f"{logged.event.time:.3f} {logged.event.text}" for logged in list(lab.log)[-40:]]
    assert report.ok, "\n".join([report.cable, *steps, *events])
    assert report.restored


@MODES
@pytest.mark.outside("ibsim")
@pytest.mark.parametrize("name", EXAMPLES)
async def test_scenario_in_debians_examples(name: str, mode: RecoveryMode) -> None:
    """As the demo plays them: where the file gives the host one cable only, it gets a second one."""
    spec = with_late_target(with_second_cable(world_of_topology(DEBIAN_EXAMPLES / name)))
    report, lab = await play(spec, mode, 0.1)
    judge(report, lab)


@MODES
@pytest.mark.outside("ibsim")
@pytest.mark.parametrize("name", EXAMPLES[:3])
async def test_examples_without_a_second_path(name: str, mode: RecoveryMode) -> None:
    """One cable per HCA: no other path can carry the I/O, which waits, and has no errors when the cable returns."""
    spec = with_late_target(world_of_topology(DEBIAN_EXAMPLES / name))
    report, _lab = await play(spec, mode, 0.1)
    assert [step.name for step in report.steps if not step.ok] == ["fail-over"]
    assert report.restored


@pytest.mark.outside("ibsim")
def test_all_of_debians_examples_are_here() -> None:
    assert sorted(path.name for path in DEBIAN_EXAMPLES.glob("net*")) == list(EXAMPLES)


@MODES
@pytest.mark.parametrize(
    "shape",
    [WorldShape(targets=2, late=1), WorldShape(targets=8, late=3, units=2), WorldShape(targets=40, late=1, unit_mib=1)],
    ids=str,
)
async def test_scenario_in_generated_worlds(shape: WorldShape, mode: RecoveryMode) -> None:
    spec = WorldSpec.parse(generate_world(shape))
    report, lab = await play(spec, mode, 0.05 * shape.targets * shape.units)
    judge(report, lab)


async def test_two_hosts_share_the_targets() -> None:
    """The scenario is the first host's; the second one's state does not change for it."""
    spec = WorldSpec.parse(generate_world(WorldShape(targets=2, hosts=2)))
    spec = replace(spec, targets=(spec.targets[0], replace(spec.targets[1], late=True)))
    lab = Lab(spec, LabSettings(load=None))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(lab.run())
        report = await Scenario(lab, ScenarioSettings(quiet=0.1, outage=0.1)).run()
        other = lab.hosts["host2"]
        await asyncio.sleep(3)
        assert len(await other.below.initiator.connections()) == 8
        running.cancel()
    # Without load nobody can say that I/O went on; all other steps hold.
    assert [step.name for step in report.steps if not step.ok] == ["initiator identities", "verified I/O"]


def test_parts_of_a_fabric_without_a_cable() -> None:
    spec = WorldSpec.demo()
    parts = parts_without(spec.topology, PortRef.parse("host1-a/1"))
    assert Counter(Counter(parts.values()).values()) == {1: 1, len(parts) - 1: 1}
    parts = parts_without(spec.topology, PortRef.parse("leaf-b/8"))
    assert parts[PortRef("host1-a", 1)] == parts[PortRef("array1", 1)] == parts[PortRef("leaf-a", 3)]
    assert parts[PortRef("host1-b", 1)] == parts[PortRef("array1", 2)] == parts[PortRef("leaf-b", 8)]
    assert parts[PortRef("host1-a", 1)] != parts[PortRef("array1", 2)], "an HCA forwards nothing between its ports"
