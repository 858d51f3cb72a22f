"""``srpha lab`` and the questions to it, in real time and in processes of their own, over a socket of the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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

    def until(self, condition: Callable[[], bool], limit: float = 15.0) -> None:
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


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    socket = tmp_path_factory.mktemp("lab") / "control.sock"
    process = subprocess.Popen(
        [*SRPHA, "lab", "up", "--socket", str(socket)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
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


@pytest.mark.parametrize("command", ["status", "paths", "events", "discover"])
def test_nobody_answers(tmp_path: Path, command: str) -> None:
    done = RunningLab(None, tmp_path / "none.sock").srpha(command)  # type: ignore[arg-type]
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "none.sock" in line


def test_lab_ends_when_told(lab: RunningLab) -> None:
    """The last test of the module: it ends the lab of the others."""
    assert lab.srpha("lab", "down").stdout == "stopping\n"
    said, _ = lab.process.communicate(timeout=10)
    assert lab.process.returncode == 0
    assert "Traceback" not in said
    assert not lab.socket.exists()
    assert lab.srpha("status").returncode == 2
