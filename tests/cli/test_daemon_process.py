"""``srpha daemon`` as a process on a host without RDMA: start, reload, refusals, end; and what commands import."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.realtime

MAIN = "import sys; sys.argv = sys.argv[1:]; from srpha.cli.entry import main; sys.exit(main())"
CONFIG = '[connect]\nrules_file = ""\nopenib_files = []\n[service]\nready_wait = 1\n'


class Daemon:
    """A daemon with its own folder; systemd's end of its notifications is ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "srpha.toml"
        self.socket = folder / "run" / "control.sock"
        self.environment = {
            **os.environ,
            "SYSFS_PATH": str(folder / "sys"),
            "MULTIPATH_SOCKET_NAME": str(folder / "multipathd"),
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": "1000000",
            "SRPHA_SOCKET": str(self.socket),
        }
        self.config.write_text(CONFIG)
        (folder / "sys" / "class").mkdir(parents=True)
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.systemd.bind(self.environment["NOTIFY_SOCKET"])
        self.systemd.settimeout(30)
        self.process: subprocess.Popen[str] | None = None

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", MAIN, "srpha", "daemon", "--config", str(self.config), *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment
        )
        return self.process

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", MAIN, "srpha", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=self.environment)

    def hear(self, wanted: str) -> None:
        """Wait for a notification."""
        while wanted not in self.systemd.recv(4096).decode():
            pass


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.communicate()
    made.systemd.close()


def test_a_life(daemon: Daemon) -> None:
    process = daemon.start("--log", "json")
    daemon.hear("READY=1")
    daemon.hear("WATCHDOG=1")
    assert daemon.call("status").returncode == 1
    answer = daemon.call("plan", "--json")
    assert answer.returncode == 1
    (host,) = json.loads(answer.stdout)["hosts"]
    assert host["pairs"] == []
    refused = daemon.call("drain", "mlx5_0/1")
    assert refused.returncode == 1
    assert refused.stderr.startswith("srpha: nothing is changed: multipathd cannot be reached")
    assert daemon.call("shutdown", "--dry-run").returncode == 1
    assert daemon.call("lab", "fault", "link-down", "x/1").returncode == 2

    daemon.config.write_text(CONFIG + "[scan]\ninterval = 0\n")
    bad = daemon.call("reload")
    assert bad.returncode == 1
    assert bad.stderr == (
        f"srpha: {daemon.config}:7: scan.interval = 0: give a number greater than 0\n"
        "srpha: the configuration in force stays\n"
    )
    daemon.hear("RELOADING=1")
    daemon.hear("READY=1")
    process.send_signal(signal.SIGHUP)
    daemon.hear("RELOADING=1")
    daemon.hear("READY=1")
    daemon.config.write_text(CONFIG + "[scan]\ninterval = 30\n")
    assert daemon.call("reload").stdout == f"in force: {daemon.config}\n"

    process.send_signal(signal.SIGTERM)
    daemon.hear("STOPPING=1")
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    lines = [json.loads(line) for line in said.splitlines()]
    texts = [line["event"] for line in lines]
    assert texts[0] == f"srpha starts with {daemon.config}; control socket {daemon.socket}"
    assert texts.count(f"{daemon.config}:7: scan.interval = 0: give a number greater than 0") == 2
    assert texts.count(f"the configuration in force stays: {daemon.config}") == 2
    assert texts[-2:] == [
        f"the configuration was read again: {daemon.config}",
        "srpha ends; connections and maps stay as they are",
    ]
    assert not daemon.socket.exists()


def test_a_second_one_does_not_start(daemon: Daemon) -> None:
    daemon.start()
    daemon.hear("READY=1")
    second = daemon.call("daemon", "--config", str(daemon.config))
    assert second.returncode == 1
    assert "something runs at" in second.stderr


def test_a_configuration_that_cannot_be_used(daemon: Daemon) -> None:
    daemon.config.write_text("x = 1\n[scan]\ninterval = 0\n")
    done = daemon.call("daemon", "--config", str(daemon.config))
    assert done.returncode == 78
    assert [line.split(" ")[2] for line in done.stderr.splitlines()] == [f"{daemon.config}:1:", f"{daemon.config}:3:"]
    checked = daemon.call("config", "check", str(daemon.config))
    assert checked.returncode == 1
    assert len(checked.stderr.splitlines()) == 2


def test_no_daemon(daemon: Daemon) -> None:
    for command in (["plan"], ["reload"], ["drain", "mlx5_0/1"], ["resume", "mlx5_0/1"], ["shutdown"]):
        done = daemon.call(*command)
        assert done.returncode == 2
        assert done.stderr.startswith("srpha: nothing runs at ")


def test_plan_without_a_daemon(daemon: Daemon) -> None:
    done = daemon.call("plan", "--once", "--config", str(daemon.config), "--json")
    assert done.returncode == 1
    (host,) = json.loads(done.stdout)["hosts"]
    assert host["connections_known"] is True
    assert any("multipathd cannot be reached" in trouble for trouble in host["troubles"])
    daemon.config.write_text("x = 1\n")
    assert daemon.call("plan", "--once", "--config", str(daemon.config)).returncode == 2


WEB = ["starlette", "uvicorn", "structlog", "sqlite3"]
"""typer itself loads pydantic when it runs a command that has parameters."""


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], [*WEB, "srpha.operate", "srpha.core"]),
        (["--version"], [*WEB, "pydantic", "srpha.operate", "srpha.core"]),
        (["reload"], [*WEB, "srpha.operate.config", "srpha.core", "srpha.kernel", "srpha.embedded"]),
        (["drain", "a/1"], [*WEB, "srpha.operate.config", "srpha.core", "srpha.kernel", "srpha.embedded"]),
        (["plan"], [*WEB, "srpha.operate.config", "srpha.kernel", "srpha.embedded"]),
        (["config", "check"], [*WEB, "srpha.kernel", "srpha.embedded"]),
    ],
)
def test_commands_load_what_they_need(tmp_path: Path, arguments: list[str], absent: list[str]) -> None:
    program = (
        "import json, sys\n"
        "from srpha.cli.entry import main\n"
        f"sys.argv = ['srpha', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('\\n' + json.dumps(sorted(sys.modules)))\n"
    )
    environment = {**os.environ, "SRPHA_SOCKET": str(tmp_path / "none")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert [name for name in absent if name in loaded] == []


@contextmanager
def lab(folder: Path) -> Iterator[dict[str, str]]:
    """A lab that runs, and the environment of its clients."""
    environment = {**os.environ, "SRPHA_SOCKET": str(folder / "control.sock")}
    command = [sys.executable, "-c", MAIN, "srpha", "lab", "up"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "map-added" in line and "mpathb" in line:
                    break
            yield environment
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
        finally:
            process.kill()


def test_drain_and_resume_in_a_lab(tmp_path: Path) -> None:
    with lab(tmp_path) as environment:

        def call(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-c", MAIN, "srpha", *arguments]
            return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)

        for _ in range(20):
            if call("plan").returncode == 0:
                break
        drained = call("drain", "mlx5_0/1", "--json")
        assert drained.returncode == 0, drained.stderr
        report = json.loads(drained.stdout)
        assert report["maps"][:2] == ["mpatha", "mpathb"]
        assert "mlx5_0/1" in call("plan").stdout.splitlines()[0]
        other = call("drain", "mlx5_1/1")
        assert other.returncode == 1
        assert "--force mpatha" in other.stderr
        assert call("resume", "mlx5_0/1").stdout.startswith("mlx5_0/1 is resumed; paths offered again: sd")
        assert call("resume", "mlx5_0/1").returncode == 1
        assert call("reload").stderr == (
            "srpha: this is a lab, not a daemon on a real host: end it with 'srpha lab down'; it has no configuration\n"
        )
