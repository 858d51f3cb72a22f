from __future__ import annotations

import pytest

from srpha.core.multipath.conf import parse_conf
from srpha.core.multipath.conflicts import Finding, FindingKind, find_conflicts

QUIET = "defaults {\nfind_multipaths off\n}\n"


def conflicts(*texts: str) -> list[str]:
    files = [parse_conf(text, f"{number}.conf") for number, text in enumerate((QUIET, *texts))]
    return [item.text for item in find_conflicts(files) if item.kind is FindingKind.CONFLICT]


def test_nothing_to_say() -> None:
    assert find_conflicts([parse_conf(QUIET, "f")]) == ()
    assert conflicts('blacklist {\ndevnode "!^(sd[a-z]|nvme[0-9])"\nprotocol "scsi:(fcp|usb)"\nwwid 35000\n}\n') == []


@pytest.mark.parametrize(
    ("entry", "effect"),
    [
        ('protocol "scsi:srp"', "the blacklist's protocol 'scsi:srp' hides every SRP disk from multipath"),
        ('protocol "scsi:.*"', "the blacklist's protocol 'scsi:.*' hides every SRP disk"),
        ('devnode "^sd[a-z]"', "the blacklist's devnode '^sd[a-z]' hides SCSI disks"),
        ('devnode ".*"', "hides SCSI disks"),
        ('devnode "!^nvme"', "hides SCSI disks"),
        ('wwid ".*"', "hides disks by WWID: only those in blacklist_exceptions are used"),
        ("wwid *", "hides disks by WWID"),
        ('device {\nvendor "SCST"\n}', "hides SCST from multipath (vendor 'SCST_FIO', product 'disk0')"),
        ('device {\nvendor ".*"\nproduct "^SFA"\n}', "hides DDN SFA, S2A and EF3015"),
    ],
)
def test_blacklists_that_hide_srp(entry: str, effect: str) -> None:
    found = conflicts(f"blacklist {{\n{entry}\n}}\n")
    assert any(text.startswith("1.conf line ") and effect in text for text in found), found


@pytest.mark.parametrize(
    ("entry", "exception"),
    [
        ('protocol "scsi:.*"', 'protocol "scsi:srp"'),
        ('devnode ".*"', 'devnode "^sd"'),
        ('device {\nvendor "SCST"\n}', 'device {\nvendor "SCST_(FIO|BIO)"\nproduct "."\n}'),
    ],
)
def test_exceptions_take_it_back(entry: str, exception: str) -> None:
    assert conflicts(f"blacklist {{\n{entry}\n}}\n", f"blacklist_exceptions {{\n{exception}\n}}\n") == []


def test_exception_of_another_kind_does_not_take_it_back() -> None:
    assert conflicts('blacklist {\nprotocol "scsi"\n}\n', 'blacklist_exceptions {\ndevnode "sda"\n}\n') != []


def test_overrides_beat_device_sections() -> None:
    assert conflicts("overrides {\nno_path_retry fail\nuser_friendly_names yes\n}\n") == [
        "1.conf line 2: no_path_retry 'fail' in overrides beats what is set for SRP devices"
    ]


def test_timers_that_multipathd_does_not_set() -> None:
    (text,) = conflicts('overrides {\nprotocol {\ntype "scsi:srp"\nfast_io_fail_tmo 5\neh_deadline 3\n}\n}\n')
    assert text.startswith("1.conf line 4: fast_io_fail_tmo has no effect for SRP")
    assert conflicts('overrides {\nprotocol {\ntype "scsi:fcp"\nfast_io_fail_tmo 5\n}\n}\n') == []


def test_complaints_of_the_syntax_are_passed_on() -> None:
    assert conflicts("devices {\ndevice {\n") == [
        "1.conf line 2: the section 'device' is not closed",
        "1.conf line 1: the section 'devices' is not closed",
    ]


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("", "find_multipaths is not set"),
        ("defaults {\nfind_multipaths strict\n}\n", "until its WWID is known"),
        ("defaults {\nfind_multipaths yes\n}\n", "while it has a single path"),
        ("defaults {\nfind_multipaths greedy\n}\n", None),
    ],
)
def test_find_multipaths(text: str, note: str | None) -> None:
    found = find_conflicts([parse_conf(text, "f")])
    if note is None:
        assert found == ()
    else:
        (only,) = found
        assert isinstance(only, Finding)
        assert only.kind is FindingKind.NOTE
        assert note in only.text
