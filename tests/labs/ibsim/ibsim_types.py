"""Types of the lab's fixtures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ibsim_fabric import Fabric
from ibsim_targets import Iocs, Targets


class MakeFabric(Protocol):
    """Makes a fabric without a subnet manager, of a topology file or of its text."""

    def __call__(self, topology: Path | str, sm_node: str) -> Fabric: ...


class MakeTargets(Protocol):
    """Puts agents on nodes of a fabric."""

    def __call__(self, fabric: Fabric, nodes: Mapping[str, Iocs]) -> Targets: ...
