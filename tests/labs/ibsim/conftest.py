"""Fixtures of the lab: its programs are built once, a fabric lives for one module or one test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # the folder is on the path once pytest is configured, and this file is read before
    from ibsim_fabric import Fabric
    from ibsim_targets import Iocs, Targets
    from ibsim_types import MakeFabric, MakeTargets


@pytest.fixture(scope="session")
def lab_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ibsim")


@pytest.fixture(scope="session")
def shims(lab_folder: Path) -> dict[str, Path]:
    from ibsim_fabric import build_shims

    built = build_shims(lab_folder)
    if len(built) < 2:
        pytest.skip("headers missing: rdma/ib_user_mad.h (linux-libc-dev), infiniband/verbs.h (libibverbs-dev)")
    return built


@pytest.fixture(scope="session")
def ibsim(lab_folder: Path) -> Path:
    from ibsim_fabric import ibsim_with_agents

    found = shutil.which("ibsim")
    assert found is not None
    return ibsim_with_agents(Path(found), lab_folder)


@pytest.fixture(scope="module")
def make_fabric(tmp_path_factory: pytest.TempPathFactory, shims: dict[str, Path], ibsim: Path) -> Iterator[MakeFabric]:
    """Makes fabrics without a subnet manager; they end with the module."""
    from ibsim_fabric import Fabric

    with ExitStack() as stack:

        def make(topology: Path | str, sm_node: str) -> Fabric:
            folder = tmp_path_factory.mktemp("fabric")
            if isinstance(topology, str):
                (folder / "net").write_text(topology)
                topology = folder / "net"
            fabric = Fabric(folder, ibsim, shims, topology, sm_node)
            stack.callback(fabric.close)
            return fabric

        yield make


@pytest.fixture(scope="module")
def make_targets() -> Iterator[MakeTargets]:
    """Puts agents on nodes of a fabric; they end with the module."""
    from ibsim_targets import Targets

    with ExitStack() as stack:

        def make(fabric: Fabric, nodes: Mapping[str, Iocs]) -> Targets:
            targets = Targets(fabric.name, nodes)
            stack.callback(targets.close)
            return targets

        yield make
