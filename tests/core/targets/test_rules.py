from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.core.targets.rules import Rule, Rules, RuleSyntaxError, Verdict, parse_rules
from srpha.core.targets.target_port import TargetPort
from srpha.wire.identifiers import Gid

TARGET = TargetPort(
    id_ext=0x200500A0B81146A1,
    ioc_guid=0x0002C90200402BEC,
    dgid=Gid(0xFE80000000000000, 0x0002C90200402BED),
    service_id=0x200500A0B81146A1,
    pkey=0xFFFF,
)


def rules(text: str, *, default: bool = True) -> Rules:
    return parse_rules(text.splitlines(keepends=True), "/etc/srp_daemon.conf", allow_by_default=default)


def test_the_examples_of_the_manual_page() -> None:
    text = (
        "# comment\n"
        "a id_ext=200500a0b81146a1,ioc_guid=0002c90200402bec,max_cmd_per_lun=32,queue_size=128\n"
        "d pkey=ffff\n"
        "a dgid=fe800000000000000002c90200402bd5 service_id=200400a0b8114527\n"
        "d\n"
    )
    parsed = rules(text)
    assert parsed.rules == (
        Rule(
            True,
            {"id_ext": 0x200500A0B81146A1, "ioc_guid": 0x0002C90200402BEC},
            {"max_cmd_per_lun": 32, "queue_size": 128},
            2,
        ),
        Rule(False, {"pkey": 0xFFFF}, {}, 3),
        Rule(True, {"dgid": 0xFE800000000000000002C90200402BD5, "service_id": 0x200400A0B8114527}, {}, 4),
        Rule(False, {}, {}, 5),
    )
    assert parsed.judge(TARGET) == Verdict(
        True, "allowed by /etc/srp_daemon.conf:2", {"max_cmd_per_lun": 32, "queue_size": 128}
    )


def test_first_match_decides() -> None:
    assert not rules("d pkey=ffff\na\n").judge(TARGET).allowed
    assert rules("a pkey=ffff\nd\n").judge(TARGET).allowed


def test_all_keys_of_a_rule_must_match() -> None:
    assert not rules("d pkey=ffff id_ext=1\nd ioc_guid=2c90200402bec id_ext=200500a0b81146a1\n").judge(TARGET).allowed
    assert rules("d pkey=ffff id_ext=1").judge(TARGET).allowed


@pytest.mark.parametrize(
    "match",
    [
        "id_ext=200500A0B81146A1",
        "ioc_guid=2c90200402bec",
        "dgid=fe800000000000000002c90200402bed",
        "service_id=200500a0b81146a1",
        "pkey=00000ffff",
    ],
)
def test_values_are_numbers(match: str) -> None:
    assert not rules(f"d {match}").judge(TARGET).allowed


def test_default_verdict() -> None:
    assert rules("").judge(TARGET) == Verdict(True, "allowed by default, no rule matches")
    assert rules("", default=False).judge(TARGET) == Verdict(False, "disallowed by default, no rule matches")
    assert Rules().judge(TARGET).allowed


@pytest.mark.parametrize(
    "text",
    [
        "   a   pkey=ffff  \n",
        "\ta\tpkey=ffff\n",
        "a pkey=ffff\r\n",
        "a pkey=ffff",
        "a pkey=ffff # because\n",
        "A pkey=ffff",
        "   \n\t\n\r\na pkey=ffff\n",
    ],
)
def test_what_srp_daemon_stumbles_over(text: str) -> None:
    (rule,) = rules(text).rules
    assert (rule.allow, dict(rule.matches)) == (True, {"pkey": 0xFFFF})


@pytest.mark.parametrize("separator", [",", " ", "\t", ", ", "  ", ",\t "])
def test_separators(separator: str) -> None:
    (rule,) = rules(f"a id_ext=1{separator}pkey=2{separator}queue_size=3").rules
    assert (dict(rule.matches), dict(rule.options)) == ({"id_ext": 1, "pkey": 2}, {"queue_size": 3})


def test_options_keep_their_order() -> None:
    (rule,) = rules("a queue_size=1,ch_count=2,comp_vector=0,allow_ext_sg=1").rules
    assert list(rule.options) == ["queue_size", "ch_count", "comp_vector", "allow_ext_sg"]


@pytest.mark.parametrize(
    ("line", "column", "part"),
    [
        ("x pkey=ffff", 1, "'a' (allow) or 'd'"),
        ("allow", 1, "'a' (allow) or 'd'"),
        ("a pkey", 3, "expected key=value"),
        ("a pkey=", 8, "1 to 9 hex digits"),
        ("a pkey=0xffff", 8, "hex digits without 0x"),
        ("a id_ext=12345678901234567", 10, "1 to 16 hex digits"),
        ("a dgid=fe80", 8, "exactly 32 hex digits are needed, got 4"),
        ("a frobnicate=1", 3, "unknown key 'frobnicate'; known are id_ext"),
        ("a initiator_ext=1", 3, "unknown key"),
        ("d queue_size=1", 3, "options go with 'a' only"),
        ("a queue_size=0", 14, "queue_size=0: at least 1"),
        ("a queue_size=ff", 14, "a decimal number is needed"),
        ("a tl_retry_count=9", 18, "2 to 7"),
        ("a pkey=1,,id_ext=2", 10, "expected key=value"),
        ("a pkey=１", 8, "hex digits"),
    ],
)
def test_errors_tell_where_and_what(line: str, column: int, part: str) -> None:
    with pytest.raises(RuleSyntaxError) as caught:
        rules("# first\n" + line + "\n")
    assert (caught.value.line, caught.value.column) == (2, column)
    assert str(caught.value).startswith(f"/etc/srp_daemon.conf:2:{column}: ")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet=string.printable, max_size=80))
def test_any_text_parses_or_is_refused(text: str) -> None:
    refusal: RuleSyntaxError | None = None
    try:
        rules(text)
    except RuleSyntaxError as error:
        refusal = error
    assert refusal is None or (refusal.line >= 1 and refusal.column >= 1)


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 2**64 - 1), st.integers(0, 0xFFFF), st.integers(1, 1000)), max_size=8
    )
)
def test_round_trip(given_rules: list[tuple[bool, int, int, int]]) -> None:
    lines = [
        f"{'a' if allow else 'd'} id_ext={ext:x},pkey={pkey:x}" + (f",queue_size={size}" if allow else "")
        for allow, ext, pkey, size in given_rules
    ]
    parsed = parse_rules(lines, "x")
    assert [(r.allow, r.matches["id_ext"], r.matches["pkey"]) for r in parsed.rules] == [
        (allow, ext, pkey) for allow, ext, pkey, _ in given_rules
    ]
    assert [r.options.get("queue_size") for r in parsed.rules] == [
        size if allow else None for allow, _, _, size in given_rules
    ]
