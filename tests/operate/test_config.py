from __future__ import annotations

from pathlib import Path

import pytest

from srpha.core.multipath.dropin import DropInSettings
from srpha.core.recovery.remote_port import RemotePortTimers
from srpha.core.targets.access import AccessRules
from srpha.core.targets.add_target import InvalidLineError, with_options
from srpha.core.targets.rules import Rules, parse_rules
from srpha.core.targets.static_targets import parse_static_target
from srpha.core.targets.target_port import InitiatorExt, InitiatorExtMode, TargetPort
from srpha.daemon.settings import Settings
from srpha.operate.config import ConfigError, LoadedConfig, load_config, parse_config
from srpha.operate.config_errors import key_lines
from srpha.operate.config_model import OptionsTable
from srpha.wire.identifiers import Gid

TARGET = TargetPort(
    id_ext=0x200500A0B81146A1,
    ioc_guid=0x0002C90200402BEC,
    dgid=Gid(0xFE80000000000000, 0x0002C90200402BED),
    service_id=0x200500A0B81146A1,
    pkey=0xFFFF,
)


class Folder:
    """A configuration with the files that it names, all in one folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.toml = path / "srpha.toml"
        self.rules = path / "srp_daemon.conf"
        self.openib = path / "openib.conf"

    def load(self, text: str = "", *, head: str = "") -> LoadedConfig:
        rules = str(self.rules) if self.rules.exists() else ""
        named = (
            f'rules_file = "{rules}"\nopenib_files = ["{self.openib}"]\n'
            if self.openib.exists()
            else (f'rules_file = "{rules}"\nopenib_files = []\n')
        )
        self.toml.write_text(f"[connect]\n{named}{head}\n{text}")
        return load_config(self.toml)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "srpha.toml")
    return caught.value.problems


def test_an_empty_file_means_the_defaults_of_the_daemon(folder: Folder) -> None:
    loaded = folder.load()
    assert loaded.settings == Settings(rules=AccessRules((), Rules()))
    assert loaded.dropin == DropInSettings()
    assert loaded.wants("mlx5_0/1")
    assert loaded.notes == ()
    assert loaded.files == (folder.toml,)


def test_everything_reaches_the_settings(folder: Folder) -> None:
    loaded = folder.load(
        head='initiator_ext = "dgid-swapped"\ntl_retry_count = 3\ndeadline = 30\nretry_first = 1\nretry_longest = 9.5',
        text="""
[ports]
use = ["mlx5_*"]
exclude = ["mlx5_2", "*/2"]
[timers]
fast_io_fail_tmo = 5
dev_loss_tmo = "off"
[[timer_class]]
name = "arrays"
id_ext = "2005*"
reconnect_delay = 3
fast_io_fail_tmo = 2
dev_loss_tmo = 30
[[static_target]]
name = "roce"
line = "id_ext=1,ioc_guid=2,dest=192.0.2.1:5555"
local_ports = ["rxe0/1"]
[scan]
interval = 10
hold = 0
timeout = 0.5
retries = 1
sa_timeout = 3
sa_retries = 4
window = 16
unit_window = 2
gap = 1
subscription_interval = 100
silent_first = 2
[poll]
interval = 5
removal = 0.5
[multipath]
fail_suspect_paths = false
remove_departed = true
no_path_retry = 12
eh_deadline = "off"
find_multipaths = "greedy"
""",
    )
    settings = loaded.settings
    assert settings.initiator_ext == InitiatorExt(InitiatorExtMode.DGID_SWAPPED)
    assert settings.rules.judge(TARGET, "mlx5_0/1").options == {"tl_retry_count": 3}
    assert (settings.login_deadline, settings.back_off.first, settings.back_off.longest) == (30, 1, 9.5)
    assert settings.timers == RemotePortTimers(10, 5, None)
    assert settings.timers_for(TARGET) == RemotePortTimers(3, 2, 30)
    (static,) = settings.static_targets
    assert (static.name, static.local_ports, static.line.tl_retry_count) == ("roce", ("rxe0/1",), 3)
    scan = settings.scan
    assert (scan.timeout, scan.retries, scan.sa_timeout, scan.sa_retries) == (0.5, 1, 3, 4)
    assert (scan.window, scan.unit_window) == (16, 2)
    assert (settings.scan_interval, settings.scan_hold, settings.scan_gap) == (10, 0, 1)
    assert (settings.subscription_interval, settings.probe_interval) == (100, 2)
    assert (settings.poll_interval, settings.removal_poll) == (5, 0.5)
    assert not settings.fail_suspect_paths
    assert settings.remove_departed
    assert loaded.dropin == DropInSettings(12, None, "greedy")
    ports = ("mlx5_0/1", "mlx5_0/2", "mlx5_2/1", "mlx4_0/1")
    assert [name for name in ports if loaded.wants(name)] == ["mlx5_0/1"]


def test_a_fixed_initiator_extension(folder: Folder) -> None:
    assert folder.load(head='initiator_ext = "ed2b400002c90200"').settings.initiator_ext == InitiatorExt(
        InitiatorExtMode.FIXED, 0xED2B400002C90200
    )


def test_own_rules_come_before_those_of_srp_daemon_conf(folder: Folder) -> None:
    folder.rules.write_text("d id_ext=200500a0b81146a1\n")
    loaded = folder.load(
        head='default = "deny"',
        text="""
[[rule]]
name = "site"
action = "allow"
id_ext = "2005*"
local_ports = ["mlx5_0"]
options = { ch_count = 4 }
""",
    )
    rules = loaded.settings.rules
    verdict = rules.judge(TARGET, "mlx5_0/1")
    assert (verdict.allowed, verdict.options) == (True, {"ch_count": 4})
    assert verdict.reason == f"allowed by {folder.toml}: rule 1 (site)"
    assert rules.judge(TARGET, "mlx5_1/1").reason == f"disallowed by {folder.rules}:1"
    other = TargetPort(1, 2, TARGET.dgid, 3, 0xFFFF)
    assert rules.judge(other, "mlx5_0/1").reason == "disallowed by default, no rule matches"
    assert loaded.files == (folder.toml, folder.rules)


def test_rules_of_srp_daemon_conf_are_what_the_grammar_says(folder: Folder) -> None:
    text = "a id_ext=200500a0b81146a1 ,queue_size=64  # array\n\nd\n"
    folder.rules.write_text(text)
    rules = folder.load().settings.rules
    assert isinstance(rules, AccessRules)
    assert rules.rules == parse_rules(text.split("\n"), str(folder.rules))


@pytest.mark.parametrize(
    ("said", "own", "connect"),
    [
        ("SRPHA_ENABLE=yes\n", "", True),
        ("SRPHA_ENABLE=no\n", "", False),
        ("SRP_DAEMON_ENABLE=no\n", "", False),
        ("SRPHA_ENABLE=no\nSRP_DAEMON_ENABLE=yes\n", "", True),
        ("SRPHA_ENABLE=no\n", "enable = true", True),
        ("SRPHA_ENABLE=yes\n", "enable = false", False),
        ("SRP_LOAD=yes\n", "", True),
    ],
)
def test_switches_of_openib_conf(folder: Folder, said: str, own: str, connect: bool) -> None:
    folder.openib.write_text(said)
    loaded = folder.load(head=own)
    assert loaded.settings.connect is connect
    assert bool(loaded.notes) is (not connect and not own)


def test_retry_count_of_openib_conf_is_for_all_who_do_not_say_otherwise(folder: Folder) -> None:
    folder.openib.write_text('SRP_DEFAULT_TL_RETRY_COUNT="5"\n')
    static = '[[static_target]]\nline = "id_ext=1,ioc_guid=2,dest=192.0.2.1:5555"\n'
    settings = folder.load(static).settings
    assert settings.rules.judge(TARGET, "").options == {"tl_retry_count": 5}
    assert settings.static_targets[0].line.tl_retry_count == 5
    assert folder.load(head="tl_retry_count = 2").settings.rules.judge(TARGET, "").options == {"tl_retry_count": 2}


def test_timers_are_judged_together_with_no_path_retry(folder: Folder) -> None:
    text = "[timers]\nreconnect_delay = 10\nfast_io_fail_tmo = 5\ndev_loss_tmo = 30\n[multipath]\nno_path_retry = 12\n"
    loaded = folder.load(text)
    assert loaded.settings.timers == RemotePortTimers(10, 5, 30)
    assert any("dev_loss_tmo 30 s removes disks" in note for note in loaded.notes)
    adjusted = folder.load(text + "adjust_timers = true\n")
    assert adjusted.settings.timers == RemotePortTimers(10, 5, 61)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = 1", "srpha.toml:1: x: unknown key; possible here: ports, connect, rule, static_target, timers, "),
        ("[ports]\nfoo = 1", "srpha.toml:2: ports.foo: unknown key; possible here: use, exclude"),
        ('[ports]\n\nuse = ["a b"]', "srpha.toml:3: ports.use[1] = 'a b': 'a b' names no local port; a device"),
        ('[connect]\ndefault = "maybe"', "srpha.toml:2: connect.default = 'maybe': give 'allow' or 'deny'"),
        ("[connect]\ninitiator_ext = 5", "srpha.toml:2: connect.initiator_ext = 5: give a valid string"),
        ('[connect]\ninitiator_ext = "12"', "connect.initiator_ext = '12': give dgid, dgid-swapped, none, or 16 hex"),
        ("[connect]\nretry_first = -1", "srpha.toml:2: connect.retry_first = -1: give a number greater than 0"),
        ("[connect]\nretry_first = 61", "srpha.toml:1: connect: retry_longest 60 must be at least retry_first 61"),
        ("[connect]\nenable = 1", "connect.enable = 1: give a valid boolean"),
        ('[connect]\nrules_file = "x"', "connect.rules_file = 'x': give an absolute path"),
        (
            '[[rule]]\naction = "deny"\n[[rule]]\naction = "deny"\nid_ext = "x"',
            "srpha.toml:5: rule[2].id_ext = 'x': hex",
        ),
        ('[[rule]]\nname = "a"', "srpha.toml:1: rule[1].action: missing"),
        ('[[rule]]\naction = "deny"\n[rule.options]\nch_count = 2', "rule[1]: options stand in a rule that denies"),
        (
            '[[rule]]\naction = "allow"\n[rule.options]\nch_count = 0',
            "srpha.toml:4: rule[1].options.ch_count = 0: give",
        ),
        ('[timers]\nfast_io_fail_tmo = "never"', "timers.fast_io_fail_tmo = 'never': give whole seconds, or \"off\""),
        ("[timers]\nfast_io_fail_tmo = true", 'timers.fast_io_fail_tmo = True: give whole seconds, or "off"'),
        ("[timers]\ndev_loss_tmo = 15", "timers: fast_io_fail_tmo 15 must be smaller than dev_loss_tmo 15"),
        ('[[static_target]]\nline = "id_ext=1"', "srpha.toml:1: static_target[1]: ioc_guid missing"),
        ("[scan]\ninterval = true", "srpha.toml:2: scan.interval = True: give a number of seconds"),
        ("[scan]\ninterval = nan", "srpha.toml:2: scan.interval = nan: give a number less than or equal to 86400"),
        ("[scan]\ninterval = inf", "srpha.toml:2: scan.interval = inf: give a number less than or equal to 86400"),
        ("[multipath]\nno_path_retry = 0", 'multipath.no_path_retry = 0: give "queue", "fail", or a number of checks'),
        ("[multipath]\neh_deadline = 0", 'multipath.eh_deadline = 0: give whole seconds from 1, or "off"'),
        ('[control]\nsocket = "control.sock"', "control.socket = 'control.sock': give an absolute path"),
        ("rule = 3", "srpha.toml:1: rule = 3: give a valid list"),
        ("[x\n", "srpha.toml:1:3: not TOML: expected ']' at the end of a table declaration"),
        ("a = ", "srpha.toml: at its end: not TOML: invalid value"),
    ],
)
def test_a_problem_is_one_line_with_place_value_and_remedy(text: str, problem: str) -> None:
    (line,) = problems(text)
    assert problem in line
    assert line.startswith("srpha.toml")
    assert "\n" not in line


def test_all_problems_are_told_at_once() -> None:
    found = problems("x = 1\n[scan]\ninterval = 0\nretries = 99\n[poll]\ninterval = 0\n")
    assert [line.split(":")[1] for line in found] == ["1", "3", "4", "6"]


def test_a_long_value_is_shortened() -> None:
    (line,) = problems(f'[connect]\ndefault = "{"x" * 500}"')
    assert len(line) < 150


def test_targets_that_the_driver_would_take_for_one_are_refused(folder: Folder) -> None:
    one = '[[static_target]]\nline = "id_ext=1,ioc_guid=2,dest=192.0.2.1:5555,initiator_ext=7"\n'
    with pytest.raises(ConfigError, match="static target 2 has id_ext, ioc_guid and initiator_ext of static target 1"):
        folder.load(one + one.replace("192.0.2.1", "192.0.2.2"))


def test_two_classes_of_one_name_are_refused(folder: Folder) -> None:
    with pytest.raises(ConfigError, match="every class needs a name of its own"):
        folder.load('[[timer_class]]\nname = "a"\n' * 2)


def test_problems_of_the_named_files_are_told_like_those_of_the_own(folder: Folder) -> None:
    folder.rules.write_text("a\nx\n")
    with pytest.raises(ConfigError, match=r"srp_daemon\.conf:2:1: a rule starts with"):
        folder.load()
    folder.rules.unlink()
    folder.openib.write_text("SRPHA_ENABLE=maybe\n")
    with pytest.raises(ConfigError, match=r"openib\.conf:1: SRPHA_ENABLE='maybe': yes or no is needed"):
        folder.load()


def test_files_that_cannot_be_read(folder: Folder) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        load_config(folder.toml)
    folder.toml.mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(folder.toml)
    folder.toml.rmdir()
    folder.toml.write_bytes(b"# a\n# \xff\n")
    with pytest.raises(ConfigError, match=r"srpha\.toml:2: byte 0xff is not UTF-8"):
        load_config(folder.toml)
    folder.toml.write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(ConfigError, match="longer than 1048576 bytes"):
        load_config(folder.toml)


def test_a_rules_file_that_is_named_must_be_there(folder: Folder) -> None:
    folder.toml.write_text('[connect]\nrules_file = "/nowhere/rules"\n')
    with pytest.raises(ConfigError, match="/nowhere/rules: there is no such file"):
        load_config(folder.toml)


def test_what_was_read_before_must_still_be_there(folder: Folder) -> None:
    folder.openib.write_text("SRPHA_ENABLE=no\n")
    loaded = folder.load()
    folder.openib.unlink()
    with pytest.raises(ConfigError, match=r"openib\.conf: there is no such file"):
        load_config(folder.toml, needed=loaded.files)
    load_config(folder.toml)


def test_options_have_the_limits_of_add_target() -> None:
    line = parse_static_target("id_ext=1,ioc_guid=2,dest=192.0.2.1:5555").line
    for name, schema in OptionsTable.model_json_schema()["properties"].items():
        for branch in schema["anyOf"]:
            values = branch.get("enum") or [branch.get("minimum"), branch.get("maximum")]
            for value in values:
                if value is None:
                    continue
                with_options(line, {name: value})
            if "enum" not in branch and branch.get("type") == "integer":
                for value in (branch["minimum"] - 1, branch["maximum"] + 1):
                    with pytest.raises(InvalidLineError):
                        with_options(line, {name: value})


def test_lines_of_keys() -> None:
    text = 'a = 1\n[t]\nb.c = 2\n[[r]]\nx = 1\n[[r]] # two\n"y" = 1\n[r.s]\nz = 1\n'
    assert key_lines(text) == {
        ("a",): 1,
        ("t",): 2,
        ("t", "b", "c"): 3,
        ("r", 0): 4,
        ("r", 0, "x"): 5,
        ("r", 1): 6,
        ("r", 1, "y"): 7,
        ("r", 1, "s"): 8,
        ("r", 1, "s", "z"): 9,
    }
