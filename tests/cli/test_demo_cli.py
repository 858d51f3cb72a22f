"""``srpha demo`` as its users start it: exit codes, the JSON document, one line for a bad argument."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SRPHA = [sys.executable, "-c", "from srpha.cli.main import main; main()"]
NO_LATE_TARGET = """
[subnet]
sm = "sm"
[[switch]]
name = "leaf"
ports = 5
[[hca]]
name = "sm"
[[hca]]
name = "host"
host = "host"
ports = 2
[[hca]]
name = "array"
ports = 2
[[link]]
a = "sm/1"
b = "leaf/1"
[[link]]
a = "host/1"
b = "leaf/2"
[[link]]
a = "host/2"
b = "leaf/3"
[[link]]
a = "array/1"
b = "leaf/4"
[[link]]
a = "array/2"
b = "leaf/5"
[[target]]
name = "array"
hcas = ["array"]
[[target.unit]]
lun = 0
size = "16 MiB"
"""


def srpha(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SRPHA, *arguments], capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.parametrize("recovery", ["ofed", "kernel"])
def test_fast_demo_holds_and_says_so_in_json(recovery: str) -> None:
    done = srpha("demo", "--fast", "--json", "--recovery", recovery)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["restored"] is True
    assert report["recovery"] == recovery
    assert len(report["steps"]) >= 9
    for step in report["steps"]:
        assert step["ok"] is True, step
        assert isinstance(step["name"], str)
        assert isinstance(step["detail"], str)
    assert report["io"]["operations"] > 1000
    assert report["io"]["errors"] == report["io"]["mismatches"] == 0
    assert report["io"]["max_stall_ms"] >= 0
    before, during, after = (report[f"paths_{when}"] for when in ("before", "during", "after"))
    assert len(before) == len(after) == 16
    assert sum(path["state"] == "active" for path in before) == 16
    assert sum(path["state"] == "active" for path in during) == 8
    assert sum(path["state"] == "active" for path in after) == 16
    hosts = [{path["host"] for path in paths} for paths in (before, after)]
    assert (hosts[0] == hosts[1]) is (recovery == "kernel")


def test_same_seed_says_the_same_and_another_seed_does_not() -> None:
    first, second, other = (srpha("demo", "--fast", "--json", "--seed", seed).stdout for seed in ("3", "3", "4"))
    assert first == second != other


def test_step_that_cannot_hold_fails_the_demo_and_is_named(tmp_path: Path) -> None:
    """The planted fault: a world with neither a target to join late nor a switch port to plug one into."""
    world = tmp_path / "world.toml"
    world.write_text(NO_LATE_TARGET)
    done = srpha("demo", "--fast", "--json", "--topology", str(world))
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert [step["name"] for step in report["steps"] if not step["ok"]] == ["late target"]
    told = srpha("demo", "--fast", "--topology", str(world))
    assert told.returncode == 1
    assert "FAILED late target" in told.stdout


def test_capture_is_written(tmp_path: Path) -> None:
    pcap = tmp_path / "demo.pcap"
    assert srpha("demo", "--fast", "--json", "--capture", str(pcap)).returncode == 0
    assert pcap.read_bytes()[:4] == bytes.fromhex("4d3cb2a1")
    assert pcap.stat().st_size > 100_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recovery", "magic"], "srpha demo: --recovery 'magic': allowed are kernel, ofed"),
        (["--topology", "nowhere.toml"], "srpha demo: nowhere.toml: No such file or directory"),
        (["--topology", "nowhere.net"], "srpha demo: nowhere.net: No such file or directory"),
        (["--capture", "/nowhere/demo.pcap"], "No such file or directory"),
    ],
)
def test_bad_argument_is_one_line_and_exit_2(arguments: list[str], said: str) -> None:
    done = srpha("demo", "--fast", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert said in line


def test_bad_world_names_file_and_key(tmp_path: Path) -> None:
    world = tmp_path / "world.toml"
    world.write_text(NO_LATE_TARGET.replace("ports = 5", "ports = 999"))
    done = srpha("demo", "--fast", "--topology", str(world))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert str(world) in line
    assert "ports" in line


@pytest.mark.parametrize("arguments", [["--seed", "many"], ["--fats"]])
def test_bad_option_is_exit_2(arguments: list[str]) -> None:
    assert srpha("demo", *arguments).returncode == 2
