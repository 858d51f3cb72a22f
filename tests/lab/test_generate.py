"""Generated worlds are valid world files of the size that was asked for."""

from __future__ import annotations

import pytest

from srpha.embedded.worldspec import WorldSpec
from srpha.lab.generate import WorldShape, generate_world


@pytest.mark.parametrize("targets", [1, 4, 33, 34, 35, 128, 512])
def test_sizes(targets: int) -> None:
    spec = WorldSpec.parse(generate_world(WorldShape(targets)))
    assert len(spec.targets) == targets
    assert [len(plan.devices) for plan in spec.hosts] == [2]
    switches = sum(node.kind.value == "switch" for node in spec.topology.nodes)
    assert switches == 2 * (1 + -(-(targets + 2) // 35))


def test_late_targets_and_units() -> None:
    spec = WorldSpec.parse(generate_world(WorldShape(5, hosts=3, late=2, units=4)))
    assert [plan.late for plan in spec.targets] == [False, False, False, True, True]
    assert {len(plan.units) for plan in spec.targets} == {4}
    assert len(spec.hosts) == 3


@pytest.mark.parametrize("shape", [(0, 1), (1001, 1), (1, 0), (1000, 101)])
def test_impossible_sizes_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="targets"):
        WorldShape(*shape)


def test_more_late_targets_than_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="late"):
        WorldShape(2, late=3)
