from __future__ import annotations

from srpha.core.targets.access import AccessRule, AccessRules
from srpha.core.targets.rules import Verdict, parse_rules
from srpha.core.targets.target_mask import TargetMask, parse_mask, parse_port_masks
from srpha.core.targets.target_port import TargetPort
from srpha.wire.identifiers import Gid

TARGET = TargetPort(
    id_ext=0x200500A0B81146A1,
    ioc_guid=0x0002C90200402BEC,
    dgid=Gid(0xFE80000000000000, 0x0002C90200402BED),
    service_id=0x200500A0B81146A1,
    pkey=0xFFFF,
)
MATCHING = TargetMask({"id_ext": parse_mask("2005*", 16)})
OTHER = TargetMask({"id_ext": parse_mask("3005*", 16)})
FILE = parse_rules(["a queue_size=64"], "/etc/srp_daemon.conf")


def test_first_of_the_own_rules_that_fits_decides() -> None:
    rules = AccessRules(
        (
            AccessRule(True, OTHER, where="srpha.toml: rule 1"),
            AccessRule(False, MATCHING, where="srpha.toml: rule 2"),
            AccessRule(True, MATCHING, where="srpha.toml: rule 3"),
        ),
        FILE,
    )
    assert rules.judge(TARGET, "mlx5_0/1") == Verdict(False, "disallowed by srpha.toml: rule 2")


def test_rules_of_srp_daemon_conf_follow_and_then_the_default() -> None:
    assert AccessRules((AccessRule(False, OTHER),), FILE).judge(TARGET) == Verdict(
        True, "allowed by /etc/srp_daemon.conf:1", {"queue_size": 64}
    )
    closed = parse_rules([], "no rules file", allow_by_default=False)
    assert not AccessRules((), closed).judge(TARGET).allowed


def test_a_rule_for_one_local_port_says_nothing_of_others() -> None:
    rule = AccessRule(False, MATCHING, parse_port_masks(["mlx5_0/1"]), where="srpha.toml: rule 1")
    assert not AccessRules((rule,)).judge(TARGET, "mlx5_0/1").allowed
    assert AccessRules((rule,)).judge(TARGET, "mlx5_1/1").allowed


def test_options_of_the_rule_go_before_those_for_all() -> None:
    rules = AccessRules((), FILE, {"tl_retry_count": 3, "queue_size": 32})
    assert rules.judge(TARGET).options == {"tl_retry_count": 3, "queue_size": 64}
    own = AccessRule(True, MATCHING, options={"ch_count": 2}, where="srpha.toml: rule 1")
    assert AccessRules((own,), FILE, {"tl_retry_count": 3}).judge(TARGET).options == {
        "tl_retry_count": 3,
        "ch_count": 2,
    }
    refused = AccessRules((), parse_rules(["d"], "f"), {"tl_retry_count": 3}).judge(TARGET)
    assert refused.options == {}
