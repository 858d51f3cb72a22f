"""The unit as systemd reads it, with planted faults that it must find."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from srpha.cli.daemon import BAD_CONFIG
from srpha.operate.config_model import CONTROL_SOCKET, Config

pytestmark = [pytest.mark.outside("systemd-analyze"), pytest.mark.realtime]

UNIT = Path(__file__).parent.parent.parent / "dist/systemd/srpha.service"
EXPOSURE = 30
"""Tenths of systemd's scale of 0 to 10: what the unit may be exposed to at most."""


def verify(folder: Path, text: str) -> str:
    """What systemd-analyze says of a unit whose program exists."""
    program = folder / "srpha"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = folder / "srpha.service"
    unit.write_text(text.replace("/usr/bin/srpha", str(program)))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


def test_systemd_has_nothing_to_say_of_the_unit(tmp_path: Path) -> None:
    assert verify(tmp_path, UNIT.read_text()) == ""


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("ProtectSystem=strict", "ProtectSytem=strict"),
        ("Type=notify", "Type=notyfi"),
        ("WatchdogSec=60", "WatchdogSec=a minute or so"),
        ("SystemCallFilter=@system-service", "SystemCallFilter=@sytem-service"),
        ("DeviceAllow=char-231 rw", "DeviceAllow=umad rw"),
        ("ExecStart=/usr/bin/srpha", "ExecStart=/nowhere/srpha"),
    ],
)
def test_planted_faults_are_found(tmp_path: Path, good: str, bad: str) -> None:
    text = UNIT.read_text()
    assert good in text
    assert verify(tmp_path, text.replace(good, bad, 1)) != ""


def test_the_service_is_not_exposed_more_than_it_must_be() -> None:
    command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={EXPOSURE}", "--json=short", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout
    loose = [item["json_field"] for item in json.loads(done.stdout) if not item["set"] and "json_field" in item]
    assert "PrivateNetwork" in loose


def test_the_unit_and_the_program_agree() -> None:
    text = UNIT.read_text()
    assert f"RestartPreventExitStatus={BAD_CONFIG}" in text
    assert Path(CONTROL_SOCKET).parent == Path("/run") / text.partition("RuntimeDirectory=")[2].split()[0]
    start = re.search(r"^TimeoutStartSec=(\d+)$", text, re.MULTILINE)
    assert start is not None
    assert Config().service.ready_wait * 2 < int(start[1])
