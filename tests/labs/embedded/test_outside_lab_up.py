"""``srpha lab up --ibsim``: the C tools on a lab that runs in a process of its own, beside its daemon."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ibsim_fabric import srpha
from ibsim_fabric import wait_for as wait_until

pytestmark = [
    pytest.mark.outside("gcc", "ibsrpdm", "sminfo"),
    pytest.mark.realtime,
]


def test_c_tools_on_a_running_lab(shims: dict[str, Path], tmp_path: Path) -> None:
    name = f"srphal{os.getpid()}"
    own = os.environ | {"SRPHA_SOCKET": str(tmp_path / "lab.sock")}
    tools = own | {
        "IBSIM_SOCKNAME": name,
        "UMAD_SHIM_HOSTS": "host1-a",
        "UMAD_SHIM_TREE": str(tmp_path),
        "LD_PRELOAD": " ".join(map(str, shims.values())),
    }

    def run(environment: dict[str, str], *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30, check=False)
        return done.stdout

    with subprocess.Popen(
        srpha("lab", "up", "--no-load", "--ibsim", name), stdout=subprocess.PIPE, text=True, env=own
    ) as lab:
        try:
            wait_until("the lab's sockets", lambda: f"@{name}:ctl" in Path("/proc/net/unix").read_text())
            wait_until("the subnet", lambda: "SMINFO_MASTER" in run(tools, "sminfo"))
            wait_until("its targets", lambda: len(run(tools, "ibsrpdm", "-c").splitlines()) == 4)
            run(own, *srpha("lab", "fault", "target-join", "array3"))
            wait_until("the late target", lambda: len(run(tools, "ibsrpdm", "-c").splitlines()) == 6)
            run(own, *srpha("lab", "down"))
            assert lab.wait(20) == 0
        finally:
            lab.kill()
        assert lab.stdout is not None
        assert f"IBSIM_SOCKNAME={name}" in lab.stdout.read()
    assert f"@{name}:ctl" not in Path("/proc/net/unix").read_text()


def test_a_name_that_cannot_be_had(tmp_path: Path) -> None:
    own = os.environ | {"SRPHA_SOCKET": str(tmp_path / "lab.sock")}
    done = subprocess.run(
        srpha("lab", "up", "--ibsim", "no/name"), capture_output=True, text=True, env=own, timeout=30, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("srpha lab up: a name space of sockets has")
    assert len(done.stderr.splitlines()) == 1
