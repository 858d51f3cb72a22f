"""The drop-ins as processes: names, exit codes, what gets imported, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from srpha.cli.entry import dropin_call

pytestmark = pytest.mark.realtime

MAIN = "import sys; sys.argv = sys.argv[1:]; from srpha.cli.entry import main; sys.exit(main())"
HEAVY = ["starlette", "uvicorn", "pydantic", "typer", "rich", "sqlite3", "structlog", "argparse"]
OURS = ["srpha.embedded", "srpha.operate", "srpha.daemon.supervisor", "srpha.kernel.umad"]


def call(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MAIN, *argv]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """A host with one InfiniBand port that is up, and no device node behind it."""
    root = tmp_path / "sys"
    port = root / "class/infiniband/srpha_test0/ports/1"
    files: Mapping[str, str] = {
        "class/infiniband_mad/abi_version": "5",
        "class/infiniband_mad/umad4000/ibdev": "srpha_test0",
        "class/infiniband_mad/umad4000/port": "1",
        "class/infiniband/srpha_test0/node_guid": "0002:c903:00a0:b0c0",
        f"{port}/link_layer": "InfiniBand",
        f"{port}/state": "4: ACTIVE",
        f"{port}/lid": "0x2",
        f"{port}/sm_lid": "0x1",
        f"{port}/sm_sl": "0",
        f"{port}/gids/0": "fe80:0000:0000:0000:0002:c903:00a0:b0c1",
        f"{port}/pkeys/0": "0xffff",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="ascii")
    return root


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/usr/sbin/srp_daemon", "-o"], ("srp_daemon", ["-o"])),
        (["run_srp_daemon", "-e"], ("srp_daemon", ["-e"])),
        (["./ibsrpdm", "-c"], ("ibsrpdm", ["-c"])),
        (["/usr/sbin/srp_daemon.sh"], ("srp_daemon.sh", [])),
        (["srpha", "srp-daemon", "-h"], ("srp_daemon", ["-h"])),
        (["srpha", "ibsrpdm"], ("ibsrpdm", [])),
        (["srpha", "status"], None),
        (["srpha"], None),
    ],
)
def test_names(argv: list[str], expected: tuple[str, list[str]] | None) -> None:
    assert dropin_call(argv) == expected


@pytest.mark.parametrize("argv", [["srp_daemon"], ["srpha", "srp-daemon"]])
def test_usage(argv: list[str]) -> None:
    done = call(*argv, "-h")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Usage: srp_daemon [-vVcaeon] ")
    done = call(*argv, "-Z")
    assert done.returncode == 1
    assert done.stderr.startswith("srp_daemon: invalid option -- 'Z'\nUsage: srp_daemon ")
    assert call(*argv, "-p", "0").returncode == 1


def test_ibsrpdm_usage() -> None:
    done = call("ibsrpdm", "-h")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Usage: ibsrpdm [-vc] [-d <umad device>]\n")


def test_host_without_infiniband(tmp_path: Path) -> None:
    done = call("ibsrpdm", SYSFS_PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("this host has no active InfiniBand port with a user MAD device")


def test_device_node_that_is_missing(sysfs: Path) -> None:
    done = call("ibsrpdm", "-c", SYSFS_PATH=str(sysfs))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr


def test_help_names_the_dropins() -> None:
    done = call("srpha", "--help")
    assert done.returncode == 0
    assert "srp-daemon" in done.stdout
    assert "ibsrpdm" in done.stdout


def test_once_loads_neither_web_stack_nor_command_line_framework(sysfs: Path) -> None:
    program = (
        "import json, sys\n"
        "from srpha.cli.dropin import dropin_main\n"
        "code = dropin_main('srp_daemon', ['-o', '-c', '-f', '/nonexistent'])\n"
        f"print(json.dumps([code, [name for name in {[*HEAVY, *OURS]!r} if name in sys.modules]]))"
    )
    env = {**os.environ, "SYSFS_PATH": str(sysfs)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, env=env
    )
    assert json.loads(done.stdout) == [1, ["srpha.kernel.umad"]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_by_the_signal_that_asked_for_it(sysfs: Path, tmp_path: Path, number: signal.Signals) -> None:
    """As srp_daemon; systemd takes that for a clean end."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from srpha.cli.dropin import run_as_process\n"
        "words = ['-v', '-e', '-i', 'srpha_test0', '-f', '/nonexistent']\n"
        "sys.exit(run_as_process('srp_daemon', words, Path(sys.argv[1])))"
    )
    env = {**os.environ, "SYSFS_PATH": str(sysfs)}
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True, env=env
    ) as done:
        assert done.stdout is not None
        try:
            assert done.stdout.readline() == " configuration report\n"
            for _ in range(16):
                done.stdout.readline()
            assert done.poll() is None
            done.send_signal(number)
            assert done.wait(20) == -number
        finally:
            done.kill()
    assert (tmp_path / "srp_daemon_srpha_test0_1").exists()
