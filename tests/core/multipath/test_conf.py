from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.core.multipath.conf import ConfFile, Option, Section, parse_conf, quote

CONF = """\
# the site's own
defaults {
\tpolling_interval 5   # seconds
\tuser_friendly_names "yes"   ! and this
}

blacklist {
    devnode "^(ram|loop)[0-9]*"
    protocol "scsi:usb"
    device {
        vendor "DELL"
        product ".*"
    }
}
overrides {
    protocol {
        type "scsi:srp"
        eh_deadline 20
    }
}
multipaths {
    multipath {
        wwid 3600
        alias "the ""big"" one"
    }
}
"""


def only(file: ConfFile, keyword: str) -> Section:
    (section,) = file.all(keyword)
    return section


def test_golden() -> None:
    file = parse_conf(CONF, "multipath.conf")
    assert file.complaints == ()
    assert [section.keyword for section in file.sections] == ["defaults", "blacklist", "overrides", "multipaths"]
    assert only(file, "defaults").options == (
        Option("polling_interval", "5", 3),
        Option("user_friendly_names", "yes", 4),
    )
    blacklist = only(file, "blacklist")
    assert blacklist.all("protocol") == (Option("protocol", "scsi:usb", 9),)
    assert blacklist.inside("device") == (
        Section("device", 10, (Option("vendor", "DELL", 11), Option("product", ".*", 12)), ()),
    )
    (protocol,) = only(file, "overrides").inside("protocol")
    assert protocol.get("eh_deadline") == Option("eh_deadline", "20", 18)
    (multipath,) = only(file, "multipaths").inside("multipath")
    assert multipath.get("alias") == Option("alias", 'the "big" one', 24)


def test_the_last_word_counts() -> None:
    file = parse_conf("defaults {\nprio alua\nprio const\n}\n", "f")
    assert only(file, "defaults").get("prio") == Option("prio", "const", 3)
    assert only(file, "defaults").get("failback") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("defaults\n", "f line 1: 'defaults' must be followed by '{'"),
        ("defaults {\n", "f line 1: the section 'defaults' is not closed"),
        ("}\n", "f line 1: '}' closes nothing"),
        ("{\n", "f line 1: '{' has no keyword before it"),
        ("defaults {\nprio\n}\n", "f line 2: 'prio' has no value"),
        ("defaults {\nprio alua const\n}\n", "f line 2: 'const' and what follows on the line is ignored"),
        ("defaults {\n} prio\n", "f line 2: 'prio' and what follows on the line is ignored"),
        ("prio alua\n", "f line 1: 'prio' stands outside of every section"),
        ("# " + "x" * 1022 + "\n", "f line 1: the line is longer than 1023 characters"),
    ],
)
def test_complaints(text: str, complaint: str) -> None:
    assert complaint in parse_conf(text, "f").complaints


def test_one_line_sections_lose_what_is_in_them_as_with_multipath() -> None:
    file = parse_conf("defaults { prio alua }\n}\n", "f")
    assert only(file, "defaults").options == ()
    assert file.complaints == ("f line 1: 'prio' and what follows on the line is ignored",)


def test_braces_and_comments_in_quotes_are_text() -> None:
    file = parse_conf('devices {\ndevice {\nproduct "a{1,2}#!b"\n}\n}\n', "f")
    assert file.complaints == ()
    assert only(file, "devices").inside("device")[0].options == (Option("product", "a{1,2}#!b", 3),)


def test_quote_that_does_not_end_takes_the_rest_of_the_line() -> None:
    assert only(parse_conf('defaults {\nprio "alua\n}\n', "f"), "defaults").options == (Option("prio", "alua", 2),)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_quoted_values_come_back(value: str) -> None:
    file = parse_conf(f"defaults {{\nprio {quote(value)}\n}}\n", "f")
    assert only(file, "defaults").options == (Option("prio", value, 2),)


@given(st.text(alphabet='ab "{}#!\n\t', max_size=200))
def test_any_text_is_read_without_failing(text: str) -> None:
    assert parse_conf(text, "f").path == "f"
