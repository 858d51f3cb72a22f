from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.core.compat.openib_conf import OpenibConf, OpenibConfError, parse_openib_conf

OFED = """\
# Start HCA driver upon boot
ONBOOT=yes

# Load SRP Initiator module
SRP_LOAD=yes

# Enable SRP High Availability daemon
SRPHA_ENABLE=yes
SRP_DAEMON_ENABLE=no
SRP_DEFAULT_TL_RETRY_COUNT=3
NODE_DESC=$(hostname -s)
if [ -f /etc/x ]; then . /etc/x; fi
"""


def parse(text: str) -> OpenibConf:
    return parse_openib_conf(text.splitlines(), "openib.conf")


def test_a_file_of_ofed() -> None:
    conf = parse(OFED)
    assert conf == OpenibConf(srp_load=True, srpha_enable=True, srp_daemon_enable=False, tl_retry_count=3)
    assert conf.enabled is True


def test_an_empty_file_says_nothing() -> None:
    assert parse("") == OpenibConf()
    assert parse("").enabled is None


@pytest.mark.parametrize(
    "line",
    [
        "SRPHA_ENABLE=yes",
        "  SRPHA_ENABLE=yes  # by us",
        'SRPHA_ENABLE="yes"',
        "SRPHA_ENABLE='YES'",
        "export SRPHA_ENABLE=Yes;",
        "SRPHA_ENABLE=1\r",
        "SRPHA_ENABLE=no\nSRPHA_ENABLE=on",
    ],
)
def test_ways_to_say_yes(line: str) -> None:
    assert parse(line).srpha_enable is True


@pytest.mark.parametrize("value", ["no", "NO", "0", "off", "", '""', "# yes"])
def test_ways_to_say_no(value: str) -> None:
    assert parse(f"SRP_DAEMON_ENABLE={value}").enabled is False


@pytest.mark.parametrize("line", ["#SRPHA_ENABLE=yes", "SRPHA_ENABLE = yes", "XSRPHA_ENABLE=yes", "SRPHA_ENABLE yes"])
def test_lines_that_assign_nothing_of_ours(line: str) -> None:
    assert parse(line) == OpenibConf()


def test_no_retry_count_given() -> None:
    assert parse("SRP_DEFAULT_TL_RETRY_COUNT=").tl_retry_count is None


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("SRPHA_ENABLE=perhaps", "openib.conf:2: SRPHA_ENABLE='perhaps': yes or no is needed"),
        (
            "SRP_DEFAULT_TL_RETRY_COUNT=8",
            "openib.conf:2: SRP_DEFAULT_TL_RETRY_COUNT='8': a number from 2 to 7 is needed",
        ),
        (
            "SRP_DEFAULT_TL_RETRY_COUNT=x",
            "openib.conf:2: SRP_DEFAULT_TL_RETRY_COUNT='x': a number from 2 to 7 is needed",
        ),
        (
            "SRPHA_ENABLE=$(cat /etc/x)",
            "openib.conf:2: SRPHA_ENABLE='$(cat /etc/x)': a plain value is needed, not one for a shell to work out",
        ),
        (
            "SRPHA_ENABLE=yes && reboot",
            "openib.conf:2: SRPHA_ENABLE='yes && reboot': a plain value is needed, not one for a shell to work out",
        ),
    ],
)
def test_what_is_wrong(line: str, complaint: str) -> None:
    with pytest.raises(OpenibConfError) as raised:
        parse(f"ONBOOT=yes\n{line}")
    assert str(raised.value) == complaint


@given(st.lists(st.text(max_size=60), max_size=8))
def test_anything_is_read_or_refused(lines: list[str]) -> None:
    with contextlib.suppress(OpenibConfError):
        conf = parse_openib_conf([f"SRPHA_ENABLE={line}" for line in lines], "f")
        assert conf.srpha_enable in (None, True, False)
