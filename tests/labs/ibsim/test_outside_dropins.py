"""The drop-ins beside the C programs that they stand in for, on the same subnet in the same run: equal to the byte."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest
from ibsim_fabric import Fabric, srpha, wait_for
from ibsim_targets import Targets, many_services, one_ioc
from ibsim_types import MakeFabric, MakeTargets

pytestmark = [
    pytest.mark.outside("ibsim", "opensm", "ibsrpdm", "srp_daemon", "gcc"),
    pytest.mark.realtime,
]

TOPOLOGY = """\
Switch 8 "S1"
[1] "init1"[1]
[2] "tgt1"[1]
[3] "tgt2"[1]
[4] "tgt3"[1]

Hca 1 "init1"
[1] "S1"[1]

Hca 1 "tgt1"
[1] "S1"[2]

Hca 1 "tgt2"
[1] "S1"[3]

Hca 1 "tgt3"
[1] "S1"[4]
"""
DEVICE = "srphatest0"
HOST = f"init1={DEVICE}"
NOTHING: Mapping[str, Path] = MappingProxyType({})
LOCK = Path("/run") / f"srp_daemon_{DEVICE}_1"


@pytest.fixture(scope="module")
def fabric(make_fabric: MakeFabric) -> Fabric:
    made = make_fabric(TOPOLOGY, "S1")
    made.start_sm()
    return made


@pytest.fixture(scope="module")
def targets(fabric: Fabric, make_targets: MakeTargets) -> Targets:
    return make_targets(fabric, {"tgt1": one_ioc, "tgt2": many_services(3, 9), "tgt3": one_ioc})


def in_a_tree(command: Sequence[str], entries: Mapping[str, Path]) -> list[str]:
    """``command`` with ``entries`` (paths below /sys/class) linked into the sysfs that it sees."""
    lines = []
    for name, place in entries.items():
        link = f'"$UMAD_SHIM_TREE/$$/sys/class/{name}"'
        lines.append(f"mkdir -p $(dirname {link}) && ln -s {place} {link}")
    return ["sh", "-ec", "\n".join([*lines, 'exec "$@"']), "sh", *command]


def both(
    fabric: Fabric, program: str, *arguments: str, entries: Mapping[str, Path] = NOTHING
) -> tuple[tuple[int, str], tuple[int, str]]:
    """Exit code and output of the C program and of ours."""
    command = {"ibsrpdm": "ibsrpdm", "srp_daemon": "srp-daemon"}[program]
    theirs = fabric.run([HOST], in_a_tree([program, *arguments], entries), code=None)
    ours = fabric.run([HOST], in_a_tree(srpha(command, *arguments), entries), code=None)
    return (theirs.returncode, theirs.stdout), (ours.returncode, ours.stdout)


@pytest.mark.parametrize(
    "words",
    [
        "ibsrpdm",
        "ibsrpdm -c",
        "ibsrpdm -c -d /dev/infiniband/umad0",
        "srp_daemon -o",
        "srp_daemon -o -c",
        "srp_daemon -o -c -a -n",
        "srp_daemon -ocanl3",
        f"srp_daemon -o -c -i {DEVICE}",
        f"srp_daemon -o -c -n -j {DEVICE}:1 -t 2000 -r 2",
    ],
)
def test_same_output_and_exit_code(fabric: Fabric, targets: Targets, words: str) -> None:
    theirs, ours = both(fabric, *words.split())
    assert ours == theirs
    assert theirs[0] == 0
    assert len(theirs[1].splitlines()) > 28


@pytest.mark.parametrize("words", ["-o -v", "-o -v -c -n -T 0 -R 30 -l 4 -a -t 900 -r 7"])
def test_same_report_when_verbose(fabric: Fabric, targets: Targets, words: str) -> None:
    theirs, ours = (
        (code, re.sub(r"(Current pid .*: )[0-9]+", r"\1N", text))
        for code, text in both(fabric, "srp_daemon", *words.split())
    )
    assert ours == theirs
    assert theirs[1].startswith(" configuration report\n")


def test_same_choice_by_rules(fabric: Fabric, targets: Targets, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    guid = targets.node_guid("tgt2")
    rules.write_text(
        f"# one controller with options, the others not\na ioc_guid={guid:x},max_sect=128 queue_size=7\n"
        f"d ioc_guid={guid + 0x1000:016x}\na pkey=ffff\n",
        encoding="ascii",
    )
    theirs, ours = both(fabric, "srp_daemon", "-o", "-c", "-n", "-f", str(rules))
    assert ours == theirs
    assert theirs[1].count("max_sect=128,queue_size=7") == 9


@pytest.mark.parametrize("line", ["x id_ext=1", "a id_ext=zz", "a foo=1", "d max_sect=1", "a id_ext"])
def test_same_refusal_of_bad_rules(fabric: Fabric, targets: Targets, tmp_path: Path, line: str) -> None:
    rules = tmp_path / "rules"
    rules.write_text(f"{line}\n", encoding="ascii")
    assert both(fabric, "srp_daemon", "-o", "-c", "-f", str(rules)) == ((1, ""), (1, ""))


@pytest.mark.parametrize(
    "words", ["-p 0", "-R 0", "-t 0", "-r 0", "-l 1", "-l 8", "-T x", "-j foo", "-d umad0", "-h", "-Z"]
)
def test_same_refusal_of_flags(fabric: Fabric, words: str) -> None:
    assert both(fabric, "srp_daemon", "-o", *words.split()) == ((1, ""), (1, ""))


def test_exit_code_that_is_not_the_same(fabric: Fabric) -> None:
    theirs, ours = both(fabric, "srp_daemon", "-o", "-c", "-i", "nosuch")
    assert (theirs, ours) == ((0, ""), (1, ""))


def test_same_line_to_the_driver(fabric: Fabric, targets: Targets, tmp_path: Path) -> None:
    """The file keeps the last line written; one target is enough to compare it."""
    rules = tmp_path / "rules"
    rules.write_text(f"a ioc_guid={targets.node_guid('tgt3'):x} cmd_sg_entries=255\nd\n", encoding="ascii")
    add_target = tmp_path / "add_target"
    entries = {f"infiniband_srp/srp-{DEVICE}-1/add_target": add_target}
    written = []
    for command in (["srp_daemon"], srpha("srp-daemon")):
        add_target.write_text("", encoding="ascii")
        words = [*command, "-o", "-e", "-n", "-l", "3", "-f", str(rules)]
        fabric.run([HOST], in_a_tree(words, entries), code=None)
        written.append(add_target.read_text(encoding="ascii"))
    assert written[0] == written[1]
    assert written[0].endswith(",tl_retry_count=3,cmd_sg_entries=255")


def test_same_idea_of_what_is_connected(fabric: Fabric, targets: Targets, tmp_path: Path) -> None:
    _, (_, text) = both(fabric, "srp_daemon", "-o", "-c")
    first, *rest = text.splitlines()
    values = dict(item.split("=") for item in first.split(","))
    dgid = ":".join(values["dgid"][at : at + 4] for at in range(0, 32, 4))
    attributes = {key: f"0x{values[key]}" for key in ("id_ext", "ioc_guid", "service_id", "pkey")} | {
        "proc_name": "ib_srp",
        "dgid": dgid,
        "orig_dgid": dgid,
        "sgid": dgid,
        "local_ib_device": DEVICE,
        "local_ib_port": "1",
    }
    for name, value in attributes.items():
        (tmp_path / name).write_text(f"{value}\n", encoding="ascii")
    host = {"scsi_host/host7": tmp_path}
    theirs, ours = both(fabric, "srp_daemon", "-o", "-c", entries=host)
    assert ours == theirs
    assert theirs[1].splitlines() == rest
    theirs, ours = both(fabric, "srp_daemon", "-o", "-c", "-a", entries=host)
    assert ours == theirs
    assert theirs[1].splitlines() == [first, *rest]


@pytest.mark.parametrize("holder", ["ours", "theirs"])
def test_each_keeps_the_other_from_its_port(fabric: Fabric, targets: Targets, holder: str) -> None:
    if not os.access("/run", os.W_OK):
        pytest.skip("the lock files of srp_daemon need a writable /run")
    words = ["-c", "-j", f"{DEVICE}:1"]
    command = srpha("srp-daemon", *words) if holder == "ours" else ["srp_daemon", *words]
    try:
        with fabric.start([HOST], command) as process:
            wait_for("the lock", lambda: _locked(LOCK))
            theirs, ours = both(fabric, "srp_daemon", *words)
            process.terminate()
            process.communicate(timeout=60)
        assert (theirs, ours) == ((1, ""), (1, ""))
        if holder == "ours":
            assert process.returncode == -signal.SIGTERM
    finally:
        LOCK.unlink(missing_ok=True)


def _locked(path: Path) -> bool:
    """Whether a process holds a POSIX lock on ``path``."""
    if not path.exists():
        return False
    inode = f":{path.stat().st_ino} "
    return any(inode in line for line in Path("/proc/locks").read_text(encoding="ascii").splitlines())


def test_planted_fault(fabric: Fabric, targets: Targets) -> None:
    """What the comparison is worth: a target that one of the two does not see makes a difference."""
    theirs, _ = both(fabric, "ibsrpdm", "-c")
    targets.silence("tgt3")
    try:
        ours = fabric.run([HOST], srpha("ibsrpdm", "-c"))
    finally:
        targets.silence("tgt3", silent=False)
    assert ours.stdout != theirs[1]
    assert set(ours.stdout.splitlines()) < set(theirs[1].splitlines())
