"""``srpha lab up`` as a user runs it: the URI that it prints leads to a map."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.realtime

SRPHA = [sys.executable, "-c", "from srpha.cli.main import main; main()", "lab"]


@pytest.mark.outside("nbdinfo")
def test_the_printed_uri_leads_to_a_map(tmp_path: Path) -> None:
    socket = f"--socket={tmp_path / 'control.sock'}"
    with subprocess.Popen([*SRPHA, "up", "--no-load", socket], stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout is not None
        try:
            uri = ""
            for line in lab.stdout:
                if line.startswith("its maps over NBD: "):
                    uri = line.split()[-1]
                if "map-added" in line and "mpatha" in line:
                    break
            done = subprocess.run(["nbdinfo", "--json", uri], capture_output=True, text=True, timeout=20, check=True)
            (export,) = json.loads(done.stdout)["exports"]
            assert export["export-name"] == "mpatha"
            assert export["export-size"] == 64 << 20
            assert export["can_multi_conn"] is True
            subprocess.run([*SRPHA, "down", socket], timeout=20, check=True)
            lab.communicate(timeout=20)
        finally:
            lab.kill()
    assert lab.returncode == 0
    assert [entry.name for entry in tmp_path.iterdir()] == []
