"""Fixtures: the preloads of the ibsim lab, and embedded subnets that programs attach to."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # the folders are on the path once pytest is configured, and this file is read before
    from embedded_subnet import Subnet

    MakeSubnet = Callable[..., AbstractAsyncContextManager[Subnet]]


@pytest.fixture(scope="session")
def shims(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from ibsim_fabric import build_shims

    built = build_shims(tmp_path_factory.mktemp("shims"))
    if len(built) < 2:
        pytest.skip("headers missing: rdma/ib_user_mad.h (linux-libc-dev), infiniband/verbs.h (libibverbs-dev)")
    return built


@pytest.fixture
def subnet_of(shims: dict[str, Path], tmp_path: Path) -> MakeSubnet:
    from embedded_subnet import embedded_subnet

    return partial(embedded_subnet, shims=shims, folder=tmp_path)
