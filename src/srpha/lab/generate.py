"""World files of any size: hosts with two HCAs and targets with two ports, on two rails of leaf switches.

A rail is a tree: leaf switches below one spine; the two spines are joined, so that each port reaches each other one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_LEAF_PORTS: Final = 36
_UPLINK: Final = 36
_RAILS: Final = ("a", "b")


@dataclass(frozen=True, slots=True)
class WorldShape:
    """Size of a world. ``late`` of the targets join late; ``unit_mib`` is the size of each logical unit."""

    targets: int
    hosts: int = 1
    late: int = 0
    units: int = 1
    unit_mib: int = 16

    def __post_init__(self) -> None:
        limit = (_LEAF_PORTS - 1) * (_LEAF_PORTS - 1)
        if not 1 <= self.targets <= 1000 or not 1 <= self.hosts <= 100 or self.targets + self.hosts + 1 > limit:
            raise ValueError(f"1 to 1000 targets and 1 to 100 hosts are possible, not {self.targets} and {self.hosts}")
        if not 0 <= self.late <= self.targets or not 1 <= self.units <= 256 or self.unit_mib < 1:
            raise ValueError("late is 0 to the number of targets, units 1 to 256, unit_mib at least 1")


def generate_world(shape: WorldShape) -> str:
    """The TOML text of a world of this shape; :meth:`WorldSpec.parse` reads it."""
    return "\n".join(_lines(shape)) + "\n"


def _lines(shape: WorldShape) -> Iterator[str]:
    hosts = [f"host{number}" for number in range(1, shape.hosts + 1)]
    targets = [f"array{number}" for number in range(1, shape.targets + 1)]
    places = len(hosts) + len(targets) + 1
    leaves = -(-places // (_LEAF_PORTS - 1))
    yield from ("[subnet]", 'sm = "sm"', "")
    for rail in _RAILS:
        yield from ("[[switch]]", f'name = "spine-{rail}"', f"ports = {leaves + 1}", "")
        for leaf in range(1, leaves + 1):
            yield from ("[[switch]]", f'name = "leaf-{rail}{leaf}"', f"ports = {_LEAF_PORTS}", "")
            yield from _link(f"leaf-{rail}{leaf}/{_UPLINK}", f"spine-{rail}/{leaf}")
    yield from _link(f"spine-a/{leaves + 1}", f"spine-b/{leaves + 1}")
    yield from ("[[hca]]", 'name = "sm"', "")
    yield from _link("sm/1", _leaf_port("a", 0))
    for place, host in enumerate(hosts, start=1):
        for number, rail in enumerate(_RAILS):
            yield from ("[[hca]]", f'name = "{host}-{rail}"', f'host = "{host}"', f'device = "mlx5_{number}"', "")
            yield from _link(f"{host}-{rail}/1", _leaf_port(rail, place))
    for place, target in enumerate(targets, start=1 + len(hosts)):
        yield from ("[[hca]]", f'name = "{target}"', "ports = 2", "")
        for number, rail in enumerate(_RAILS, start=1):
            yield from _link(f"{target}/{number}", _leaf_port(rail, place))
        late = ["late = true"] if place > len(hosts) + len(targets) - shape.late else []
        yield from ("[[target]]", f'name = "{target}"', f'hcas = ["{target}"]', *late, "")
        for lun in range(shape.units):
            yield from ("[[target.unit]]", f"lun = {lun}", f'size = "{shape.unit_mib} MiB"', "")


def _leaf_port(rail: str, place: int) -> str:
    leaf, port = divmod(place, _LEAF_PORTS - 1)
    return f"leaf-{rail}{leaf + 1}/{port + 1}"


def _link(a: str, b: str) -> tuple[str, ...]:
    return ("[[link]]", f'a = "{a}"', f'b = "{b}"', "")
