from __future__ import annotations

import pytest

from srpha.core.multipath.conf import ConfFile, parse_conf
from srpha.core.multipath.dropin import (
    SRP_ARRAYS,
    DropInSettings,
    InvalidDropInError,
    SrpArray,
    device_sections,
    make_dropin,
)

ARRAY = SrpArray("Box", "^BOX", "ONE", (("BOX", "ONE A"),), (("prio", "alua"), ("no_path_retry", "30")))

GOLDEN = """\
# Written by srpha for SRP storage; it is written anew, so put nothing of your own here.
# A device section of yours, in /etc/multipath.conf or another file of this folder, takes precedence.

devices {
\tdevice {
\t\t# Box
\t\tvendor "^BOX"
\t\tproduct "ONE"
\t\tprio "alua"
\t\tno_path_retry 30
\t}
}

overrides {
\tprotocol {
\t\ttype "scsi:srp"
\t\teh_deadline 30
\t}
}
"""


def admin(text: str, path: str = "/etc/multipath.conf") -> ConfFile:
    return parse_conf(text, path)


def device(options: str) -> ConfFile:
    return admin(f"devices {{\ndevice {{\n{options}\n}}\n}}\n")


def test_golden() -> None:
    made = make_dropin(DropInSettings(arrays=(ARRAY,)), [])
    assert made.text == GOLDEN
    assert made.left_out == ()


def test_it_reads_back_without_complaint() -> None:
    file = parse_conf(make_dropin(DropInSettings(find_multipaths="on"), []).text, "f")
    assert file.complaints == ()
    (devices,) = file.all("devices")
    assert [section.get("vendor") is not None for section in devices.inside("device")] == [True] * len(SRP_ARRAYS)
    for array in SRP_ARRAYS:
        assert device_sections(file, array), array.title


def test_settings_change_it() -> None:
    text = make_dropin(DropInSettings("queue", None, "greedy", (ARRAY,)), []).text
    assert 'no_path_retry "queue"' in text
    assert "overrides" not in text
    assert 'defaults {\n\tfind_multipaths "greedy"\n}\n' in text
    assert "no_path_retry 6\n" in make_dropin(DropInSettings(6, arrays=(ARRAY,)), []).text


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ('vendor "BOX"\nproduct "ONE"\nno_path_retry fail', False),
        ('vendor ".*"\nno_path_retry 3', False),
        ('product "^ONE"\nno_path_retry 3', False),
        ('vendor "BOX"\nproduct "ONE"\nfailback manual', True),
        ('vendor "OTHER"\nproduct "ONE"\nno_path_retry 3', True),
        ('vendor "BOX"\nproduct "TWO"\nno_path_retry 3', True),
        ("no_path_retry 3", True),
    ],
)
def test_the_administrators_word_stands(options: str, kept: bool) -> None:
    made = make_dropin(DropInSettings("queue", arrays=(ARRAY,)), [device(options)])
    assert ("no_path_retry" in made.text) is kept
    assert "prio" in made.text
    assert bool(made.left_out) is not kept


def test_what_is_left_out_is_told_with_its_place() -> None:
    files = [
        device('vendor "BOX"\nproduct "."\nprio const\nno_path_retry 5'),
        admin('devices {\ndevice {\nvendor "BOX"\nno_path_retry 7\n}\n}\n', "/etc/multipath/conf.d/site.conf"),
        admin('overrides {\nprotocol {\ntype "scsi:srp"\neh_deadline 9\n}\n}\n', "/etc/multipath/conf.d/x.conf"),
        admin("defaults {\nfind_multipaths smart\n}\n"),
    ]
    made = make_dropin(DropInSettings(find_multipaths="on", arrays=(ARRAY,)), files)
    assert made.left_out == (
        "find_multipaths stays as /etc/multipath.conf line 2 has it: smart",
        "Box: prio stays as /etc/multipath.conf line 5 has it: const",
        "Box: no_path_retry stays as /etc/multipath/conf.d/site.conf line 4 has it: 7",
        "SRP: eh_deadline stays as /etc/multipath/conf.d/x.conf line 4 has it: 9",
    )
    assert parse_conf(made.text, "f").sections == ()


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: DropInSettings(no_path_retry=0), "no_path_retry is 0"),
        (lambda: DropInSettings(no_path_retry="forever"), "no_path_retry is 'forever'; give a number"),
        (lambda: DropInSettings(eh_deadline=0), "eh_deadline is 0"),
        (lambda: DropInSettings(find_multipaths='on"\n}'), "find_multipaths is .*allowed are off, on, greedy"),
    ],
)
def test_bad_settings(build: object, complaint: str) -> None:
    assert callable(build)
    with pytest.raises(InvalidDropInError, match=complaint):
        build()
