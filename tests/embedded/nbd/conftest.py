from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a server's socket is to be."""
    return tmp_path / "host.nbd"
