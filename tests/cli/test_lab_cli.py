"""``srpha lab`` and the questions to it, in real time and in processes of their own, over a socket of the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from srpha.core.multipath.table import parse_status, parse_table
from srpha.operate.client import ControlClient

SRPHA = [sys.executable, "-c", "from srpha.cli.main import main; main()"]


class RunningLab:
    def __init__(self, process: subprocess.Popen[str], socket: Path) -> None:
        self.process = process
        self.socket = socket

    def srpha(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"SRPHA_SOCKET": str(self.socket), "COLUMNS": "200"}
        return subprocess.run(
            [*SRPHA, *arguments], capture_output=True, text=True, timeout=30, check=False, env=environment
        )

    def ask(self, *arguments: str) -> dict[str, object]:
        done = self.srpha(*arguments, "--json")
        assert done.stderr == "", done.stderr
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer

    def until(self, condition: Callable[[], bool], limit: float = 60.0) -> None:
        deadline = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < deadline, self.srpha("paths").stdout
            time.sleep(0.05)

    # Waiting asks without a process of its own each time; what the commands print is tested once it is over.

    def healthy(self) -> bool:
        return bool(self._host("status")["healthy"])

    def paths(self) -> list[dict[str, object]]:
        return list(self._host("paths")["paths"])  # type: ignore[call-overload]

    def _host(self, resource: str) -> dict[str, object]:
        answer = ControlClient(self.socket, 10.0).get(resource)
        assert isinstance(answer, dict)
        (host,) = answer["hosts"]  # type: ignore[misc]
        assert isinstance(host, dict)
        return dict(host)


@contextmanager
def lab_of(socket: Path, *options: str) -> Iterator[RunningLab]:
    process = subprocess.Popen(
        [*SRPHA, "lab", "up", "--socket", str(socket), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    running = RunningLab(process, socket)
    try:
        running.until(socket.exists)
        running.until(running.healthy)
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    with lab_of(tmp_path_factory.mktemp("lab") / "control.sock") as running:
        yield running


def test_questions_to_a_healthy_lab(lab: RunningLab) -> None:
    (host,) = lab.ask("paths")["hosts"]  # type: ignore[misc]
    assert len(host["paths"]) == len(lab.paths()) == 12
    (found,) = lab.ask("discover")["hosts"]  # type: ignore[misc]
    assert "0200535250000601" in json.dumps(found)
    table = lab.srpha("discover")
    assert table.returncode == 0
    assert "0200535250000600" in table.stdout
    status = lab.srpha("status")
    assert status.returncode == 0
    assert "mpatha" in status.stdout
    shown = lab.srpha("paths").stdout
    assert "mlx5_0/1" in shown
    assert "mlx5_1/1" in shown


def test_maps_are_shown_as_dmsetup_would(lab: RunningLab) -> None:
    done = lab.srpha("lab", "dm")
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = done.stdout.splitlines()
    assert head == "host host1:"
    assert [line.partition(": ")[0] for line in lines] == ["mpatha", "mpatha", "mpathb", "mpathb", "mpathc", "mpathc"]
    assert lines[0].startswith("mpatha: 0 131072 multipath 1 queue_if_no_path 1 alua 1 1 service-time 0 4 2 8:")
    assert lines[1].startswith("mpatha: 0 131072 multipath 2 0 0 0 1 1 A 0 4 2 8:")
    for table, status in zip(lines[::2], lines[1::2], strict=True):
        (loaded,) = parse_table(table.partition(": ")[2]).groups
        (current,) = parse_status(status.partition(": ")[2]).groups
        assert [path.dev_t for path in loaded.paths] == [path.dev_t for path in current.paths]
        assert all(path.usable for path in current.paths)
    hosts = lab.ask("lab", "dm")["hosts"]
    assert hosts["host1"]["mpatha"]["table"] == lines[0].partition(": ")[2]  # type: ignore[index]
    assert list(hosts["host1"]) == ["mpatha", "mpathb", "mpathc"]  # type: ignore[index]


def test_fault_is_seen_by_status_paths_and_events(lab: RunningLab) -> None:
    last = [json.loads(line)["number"] for line in lab.srpha("events", "--json").stdout.splitlines()][-1]
    assert lab.srpha("lab", "fault", "link-down", "host1-a/1").stdout == "injected: link-down host1-a/1\n"
    lab.until(lambda: not lab.healthy())
    assert lab.srpha("status").returncode == 1
    lab.until(lambda: sum(path["state"] == "active" for path in lab.paths()) == 6)
    assert lab.ask("lab", "fault", "link-up", "host1-a/1") == {"injected": "link-up host1-a/1"}
    lab.until(lab.healthy)
    assert len(lab.paths()) == 12
    events = [json.loads(line) for line in lab.srpha("events", "--since", str(last), "--json").stdout.splitlines()]
    kinds = {event["kind"] for event in events}
    assert {"fault-injected", "port-down", "port-up", "path-failed", "path-restored"} <= kinds
    assert [event["number"] for event in events] == list(range(last + 1, last + 1 + len(events)))
    assert "link-down host1-a/1" in lab.srpha("events").stdout


def test_late_target_joins(lab: RunningLab) -> None:
    assert lab.srpha("lab", "fault", "target-join", "array3").returncode == 0
    lab.until(lambda: len(lab.paths()) == 16)
    lab.until(lab.healthy)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["link-down", "nowhere/1"], "nowhere"),
        (["link-down"], "expected link-down PORT"),
        (["explode"], "possible are link-down"),
        (["target-crash", "nobody"], "there are array1, array2, array3"),
    ],
)
def test_bad_fault_is_one_line_and_exit_2(lab: RunningLab, words: list[str], said: str) -> None:
    done = lab.srpha("lab", "fault", *words)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert said in line


def test_kinds_of_faults_are_listed_without_a_lab(tmp_path: Path) -> None:
    nothing = RunningLab(None, tmp_path / "none.sock")  # type: ignore[arg-type]
    assert "link-down" in nothing.srpha("lab", "fault").stdout
    assert "sm-start" in json.dumps(nothing.ask("lab", "fault"))


def test_second_lab_on_the_same_socket_is_refused(lab: RunningLab) -> None:
    done = lab.srpha("lab", "up")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "something runs at" in line


@pytest.mark.parametrize("command", ["status", "paths", "events", "discover", "lab dm"])
def test_nobody_answers(tmp_path: Path, command: str) -> None:
    done = RunningLab(None, tmp_path / "none.sock").srpha(*command.split())  # type: ignore[arg-type]
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "none.sock" in line


CONFIG = """
[connect]
rules_file = "{rules}"
openib_files = []
initiator_ext = "dgid-swapped"

[timers]
reconnect_delay = 3
fast_io_fail_tmo = 2
dev_loss_tmo = 50
"""


def test_lab_with_a_configuration(tmp_path: Path) -> None:
    rules = tmp_path / "srp_daemon.conf"
    rules.write_text("d id_ext=0200535250000700\na\n")
    config = tmp_path / "srpha.toml"
    config.write_text(CONFIG.format(rules=rules))
    with lab_of(tmp_path / "control.sock", "--no-load", "--config", str(config)) as running:
        (host,) = running.ask("paths")["hosts"]  # type: ignore[misc]
        running.srpha("lab", "down")
        running.process.communicate(timeout=10)
    denied = {pair["reason"] for pair in host["pairs"] if pair["id_ext"] == "0200535250000700"}
    assert denied == {f"disallowed by {rules}:1"}
    connected = [pair for pair in host["pairs"] if pair["status"] == "connected"]
    assert len(connected) == 4
    for pair in connected:
        assert pair["timers"] == {"reconnect_delay": 3, "fast_io_fail_tmo": 2, "dev_loss_tmo": 50}
        swapped = bytes.fromhex(pair["target_port"])[::-1].hex()
        assert f"initiator_ext={swapped}" in pair["line"]


def test_bad_configuration_is_one_line_per_problem_and_exit_2(tmp_path: Path) -> None:
    config = tmp_path / "srpha.toml"
    config.write_text('[timers]\nspeed = 1\n[connect]\ndefault = "perhaps"\n')
    nothing = RunningLab(None, tmp_path / "none.sock")  # type: ignore[arg-type]
    done = nothing.srpha("lab", "up", "--config", str(config))
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == [f"{config}:2", f"{config}:4"]
    assert not nothing.socket.exists()
    missing = nothing.srpha("lab", "up", "--config", str(tmp_path / "none.toml"))
    assert (missing.returncode, missing.stderr) == (2, f"{tmp_path}/none.toml: there is no such file\n")


def test_lab_ends_when_told(lab: RunningLab) -> None:
    """The last test of the module: it ends the lab of the others."""
    assert lab.srpha("lab", "down").stdout == "stopping\n"
    said, _ = lab.process.communicate(timeout=10)
    assert lab.process.returncode == 0
    assert "Traceback" not in said
    assert not lab.socket.exists()
    assert lab.srpha("status").returncode == 2
