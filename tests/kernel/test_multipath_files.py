from __future__ import annotations

import os
import pathlib

import pytest

from srpha.core.multipath.conflicts import FindingKind
from srpha.core.multipath.dropin import DropInSettings
from srpha.kernel.multipath_files import MultipathFilesError, plan_dropin, read_files, write_dropin


@pytest.fixture
def etc(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "multipath/conf.d").mkdir(parents=True)
    return tmp_path


def test_files_come_in_the_order_multipath_reads_them(etc: pathlib.Path) -> None:
    (etc / "multipath.conf").write_text("defaults {\nprio alua\n}\n")
    for name in ("99-z.conf", "10-a.conf", "90-srpha.conf", "note.txt", "10-a.conf.bak"):
        (etc / "multipath/conf.d" / name).write_text("defaults {\n}\n")
    names = [pathlib.Path(file.path).name for file in read_files(etc)]
    assert names == ["multipath.conf", "10-a.conf", "99-z.conf"]


def test_no_configuration_at_all(tmp_path: pathlib.Path) -> None:
    assert read_files(tmp_path) == ()
    plan = plan_dropin(DropInSettings(), tmp_path)
    assert plan.present is None
    assert write_dropin(plan)
    assert (tmp_path / "multipath/conf.d/90-srpha.conf").read_text() == plan.wanted


def test_diff_then_write_then_nothing_to_do(etc: pathlib.Path) -> None:
    plan = plan_dropin(DropInSettings(no_path_retry=5), etc)
    path = etc / "multipath/conf.d/90-srpha.conf"
    assert plan.changed
    assert plan.diff().startswith(f"--- /dev/null\n+++ {path}\n@@ -0,0 +1,")
    assert not path.exists()
    assert write_dropin(plan)
    assert (path.read_text(), path.stat().st_mode & 0o777) == (plan.wanted, 0o644)
    again = plan_dropin(DropInSettings(no_path_retry=5), etc)
    assert (again.changed, again.diff(), write_dropin(again)) == (False, "", False)
    other = plan_dropin(DropInSettings(no_path_retry=6), etc)
    assert "\n-\t\tno_path_retry 5\n+\t\tno_path_retry 6\n" in other.diff()
    assert sorted(os.listdir(path.parent)) == ["90-srpha.conf"]


def test_diff_of_a_file_without_a_last_newline(etc: pathlib.Path) -> None:
    path = etc / "multipath/conf.d/90-srpha.conf"
    path.write_text("old")
    assert "-old\n\\ No newline at end of file\n" in plan_dropin(DropInSettings(), etc).diff()


def test_administrators_files_count_and_stay(etc: pathlib.Path) -> None:
    text = 'blacklist {\nprotocol "scsi:srp"\n}\ndevices {\ndevice {\nvendor "SCST"\nno_path_retry fail\n}\n}\n'
    (etc / "multipath.conf").write_text(text)
    plan = plan_dropin(DropInSettings(), etc)
    assert plan.left_out == (f"SCST: no_path_retry stays as {etc}/multipath.conf line 7 has it: fail",)
    conflicts = [item.text for item in plan.findings if item.kind is FindingKind.CONFLICT]
    assert conflicts == [
        f"{etc}/multipath.conf line 2: the blacklist's protocol 'scsi:srp' hides every SRP disk from multipath"
    ]
    write_dropin(plan)
    assert (etc / "multipath.conf").read_text() == text


def test_a_drop_in_that_changed_meanwhile_is_not_overwritten(etc: pathlib.Path) -> None:
    plan = plan_dropin(DropInSettings(), etc)
    plan.path.write_text("somebody else's\n")
    with pytest.raises(MultipathFilesError, match="has changed since it was looked at"):
        write_dropin(plan)
    assert plan.path.read_text() == "somebody else's\n"


def test_failing_write_leaves_the_old_file_and_no_litter(etc: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = etc / "multipath/conf.d/90-srpha.conf"
    path.write_text("old\n")
    plan = plan_dropin(DropInSettings(), etc)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MultipathFilesError, match="cannot be written: No space left on device"):
        write_dropin(plan)
    assert path.read_text() == "old\n"
    assert os.listdir(path.parent) == ["90-srpha.conf"]


def test_odd_files_are_refused(etc: pathlib.Path) -> None:
    os.mkfifo(etc / "multipath.conf")
    with pytest.raises(MultipathFilesError, match="is no plain file"):
        read_files(etc)
    (etc / "multipath.conf").unlink()
    (etc / "multipath.conf").write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(MultipathFilesError, match="is no plain file of at most"):
        read_files(etc)
    (etc / "multipath.conf").unlink()
    (etc / "multipath.conf").mkdir()
    with pytest.raises(MultipathFilesError):
        read_files(etc)


def test_any_character_set_in_comments(etc: pathlib.Path) -> None:
    (etc / "multipath.conf").write_bytes(b"# gr\xfc\xdfe\ndefaults {\nprio alua\n}\n")
    (file,) = read_files(etc)
    assert file.complaints == ()
