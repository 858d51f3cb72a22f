from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.core.multipath.match import excludes, matches


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("SCST", "SCST_FIO", True),
        ("^SCST_(FIO|BIO)", "SCST_BIO", True),
        ("^FIO", "SCST_FIO", False),
        ("scst", "SCST_FIO", False),
        ("*", "anything", True),
        (".", "x", True),
        ("SAN ARRAY$", "SAN ARRAY ALUA", False),
        ("^sd[[:alpha:]]+[[:digit:]]*$", "sdaa1", True),
        ("^sd[^a-c]", "sda", False),
        ("^sd[^a-c]", "sdz", True),
        ("[]x]", "]", True),
        ("[a\\]", "\\", True),
        ("[[a]", "[", True),
        ("[&&||~~]", "~", True),
        ("(", "(", False),
        ("a{9999999999}", "a", False),
    ],
)
def test_posix_expressions(pattern: str, text: str, expected: bool) -> None:
    assert matches(pattern, text) is expected


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("^sd", "sda", True),
        ("!^(sd[a-z]|dasd[a-z]|nvme[0-9])", "sda", False),
        ("!^(sd[a-z]|dasd[a-z]|nvme[0-9])", "zram0", True),
        ("\\!x", "a!x", True),
        ("!(", "x", False),
    ],
)
def test_blacklist_entries(pattern: str, text: str, expected: bool) -> None:
    assert excludes(pattern, text) is expected


@given(st.text(alphabet="ab[]^-:&~|!\\(){}*+?.$1,[:alpha:]", max_size=30))
def test_any_pattern_is_judged(pattern: str) -> None:
    assert excludes(pattern, "sda") in (True, False)
