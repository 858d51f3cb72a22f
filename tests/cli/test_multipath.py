from __future__ import annotations

from pathlib import Path

import pytest

from srpha.cli.multipath import DIFFERENT, IMPOSSIBLE, multipath_dropin


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "srpha.toml"
    path.write_text('[connect]\nrules_file = ""\nopenib_files = []\n[multipath]\nno_path_retry = 7\n')
    return path


def test_looked_at_then_written(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "multipath/conf.d/90-srpha.conf"
    assert multipath_dropin(config, diff=False, write=False, etc=tmp_path) == DIFFERENT
    text = capsys.readouterr().out
    assert "no_path_retry 7" in text
    assert multipath_dropin(config, diff=True, write=False, etc=tmp_path) == DIFFERENT
    assert capsys.readouterr().out.startswith("--- /dev/null\n")
    assert not target.exists()

    assert multipath_dropin(config, diff=False, write=True, etc=tmp_path) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1] == f"{target} is written; multipathd reads it at its next 'multipathd reconfigure'"
    assert target.read_text() == text
    assert multipath_dropin(config, diff=True, write=True, etc=tmp_path) == 0
    assert capsys.readouterr().out == ""


def test_what_an_administrator_has_said_is_told(
    tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "multipath.conf").write_text(
        'devices {\n\tdevice {\n\t\tvendor "DDN"\n\t\tproduct "SFA"\n\t\tno_path_retry queue\n\t}\n}\n'
    )
    multipath_dropin(config, diff=False, write=False, etc=tmp_path)
    assert "left to the administrator: DDN SFA, S2A and EF3015: no_path_retry stays as" in capsys.readouterr().err


def test_what_cannot_be(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "multipath.conf").mkdir()
    assert multipath_dropin(config, diff=False, write=True, etc=tmp_path) == IMPOSSIBLE
    assert "is no plain file" in capsys.readouterr().err
    config.write_text("[multipath]\nno_path_retry = 0\n")
    assert multipath_dropin(config, diff=False, write=True, etc=tmp_path) == IMPOSSIBLE
    assert "srpha.toml:2: multipath.no_path_retry = 0: give" in capsys.readouterr().err
