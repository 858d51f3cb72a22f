from __future__ import annotations

import pytest

from srpha.cli.dropin_flags import (
    IBSRPDM_USAGE,
    SRP_DAEMON_USAGE,
    BadValueError,
    Flags,
    UsageError,
    configuration_report,
    parse_flags,
)
from srpha.core.discovery.scan_settings import ScanSettings

REPORT = """\
 configuration report
 ------------------------------------------------
 Current pid                \t\t: 28717
 Device name                \t\t: "ibsim0"
 IB port                    \t\t: 1
 Mad Retries                \t\t: 3
 Number of outstanding WR   \t\t: 10
 Mad timeout (msec)\t     \t\t: 5000
 Prints add target command  \t\t: 0
 Executes add target command\t\t: 1
 Print also connected targets \t\t: 0
 Report current targets and stop \t: 1
 Reads rules from \t\t\t: /etc/srp_daemon.conf
 Print initiator_ext
 Performs full target rescan every 30 seconds
 Do not retry to connect to existing targets
 ------------------------------------------------
"""
"""Printed by srptools 44 for ``srp_daemon -o -v -R 30 -T 0 -n -l 3 -e``."""


def flags(*arguments: str) -> Flags:
    return parse_flags("srp_daemon", arguments)


def line(text: str) -> Flags:
    return flags(*text.split())


class TestSrpDaemon:
    def test_defaults(self) -> None:
        assert flags() == Flags()
        assert flags().listing

    def test_every_flag(self) -> None:
        given = line(
            "-v -V -c -a -e -o -n -i mlx5_0 -p 2 -d /dev/infiniband/umad1 -R 60 -T 5 -l 3 -f x -t 100 -r 7"
            " --systemd --all-ports"
        )
        assert given == Flags(
            verbose=True,
            debug=True,
            commands=True,
            everything=True,
            execute=True,
            once=True,
            umad="/dev/infiniband/umad1",
            device="mlx5_0",
            port=2,
            all_ports=True,
            rescan=60,
            recheck=5,
            rules="x",
            timeout=100,
            retries=7,
            initiator_ext=True,
            tl_retry_count=3,
            systemd=True,
        )
        assert not given.listing

    def test_letters_combine_and_take_their_value_at_once(self) -> None:
        assert flags("-oecnl3") == flags("-o", "-e", "-c", "-n", "-l", "3")

    def test_the_last_one_wins(self) -> None:
        assert (flags("-j", "foo:2", "-p", "3", "-i", "bar").device, flags("-j", "foo:2", "-p", "3").port) == ("bar", 3)
        late = flags("-i", "bar", "-j", "foo:2")
        assert (late.device, late.port) == ("foo", 2)

    def test_long_option_may_be_shortened(self) -> None:
        assert flags("--sys").systemd

    def test_other_words_are_ignored_wherever_they_stand(self) -> None:
        assert flags("foo", "-o", "bar", "-c") == flags("-o", "-c")

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["-h"], ""),
            (["-Z"], "srp_daemon: invalid option -- 'Z'"),
            (["-oZ"], "srp_daemon: invalid option -- 'Z'"),
            (["-i"], "srp_daemon: option requires an argument -- 'i'"),
            (["--help"], "srp_daemon: unrecognized option '--help'"),
        ],
    )
    def test_what_is_not_understood(self, arguments: list[str], complaint: str) -> None:
        with pytest.raises(UsageError) as raised:
            flags(*arguments)
        assert (str(raised.value), raised.value.usage) == (complaint, SRP_DAEMON_USAGE)

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            ("-p 0", "-p: bad port number '0': a number from 1 to 255 is needed"),
            ("-p 256", "-p: bad port number '256': a number from 1 to 255 is needed"),
            ("-p x", "-p: bad port number 'x': a number from 1 to 255 is needed"),
            ("-R 0", "-R: bad rescan time '0': a number from 1 to 10000000 is needed"),
            ("-R -5", "-R: bad rescan time '-5': a number from 1 to 10000000 is needed"),
            ("-t 0", "-t: bad timeout '0': a number from 1 to 3600000 is needed"),
            ("-r 0", "-r: bad number of retries '0': a number from 1 to 100 is needed"),
            ("-r x", "-r: bad number of retries 'x': a number from 1 to 100 is needed"),
            ("-T x", "-T: bad retry time 'x': a number from 0 to 10000000 is needed"),
            ("-l 1", "-l: bad tl_retry_count '1': a number from 2 to 7 is needed"),
            ("-l 8", "-l: bad tl_retry_count '8': a number from 2 to 7 is needed"),
            ("-j foo", "-j 'foo': a device and a port are needed, as in mlx5_0:1"),
            ("-j foo:", "-j 'foo:': a device and a port are needed, as in mlx5_0:1"),
            ("-j :1", "-j ':1': a device and a port are needed, as in mlx5_0:1"),
            ("-j foo:x", "-j 'foo:x': port 'x': a number from 1 to 255 is needed"),
            ("-i ../../etc", "-i '../../etc': that is no name of an InfiniBand device"),
            ("-i ..", "-i '..': that is no name of an InfiniBand device"),
            ("-j a/b:1", "-j 'a/b': that is no name of an InfiniBand device"),
            (f"-i {'x' * 64}", f"-i '{'x' * 64}': that is no name of an InfiniBand device"),
        ],
    )
    def test_values_that_are_not_allowed(self, arguments: str, complaint: str) -> None:
        with pytest.raises(BadValueError) as raised:
            line(arguments)
        assert str(raised.value) == complaint

    def test_retry_time_0_switches_it_off(self) -> None:
        assert flags("-T", "0").recheck == 0

    def test_names_longer_than_15_characters_are_whole(self) -> None:
        assert flags("-j", "ibx0002c90300a0b0c0:1").device == "ibx0002c90300a0b0c0"

    def test_the_script_serves_all_ports_with_its_own_options(self) -> None:
        given = parse_flags("srp_daemon.sh", ["-l", "2"])
        expected = Flags(all_ports=True, execute=True, commands=True, initiator_ext=True, rescan=60, tl_retry_count=2)
        assert given == expected


class TestTimes:
    def test_nothing_given_leaves_discovery_its_own(self) -> None:
        assert flags().scan_settings == ScanSettings()

    def test_the_timeout_is_shared_by_all_tries(self) -> None:
        settings = flags("-t", "400").scan_settings
        assert (settings.timeout, settings.retries) == (0.1, 3)
        assert (settings.sa_timeout, settings.sa_retries) == (0.1, 3)

    def test_retries_alone_split_the_usual_timeout(self) -> None:
        settings = flags("-r", "9").scan_settings
        assert (settings.timeout, settings.retries) == (0.5, 9)


class TestIbsrpdm:
    def test_shows_everything_once_and_reads_no_rules(self) -> None:
        assert parse_flags("ibsrpdm", []) == Flags("ibsrpdm", everything=True, once=True, rules=None)

    def test_flags(self) -> None:
        given = parse_flags("ibsrpdm", ["-vcd", "/dev/infiniband/umad0"])
        assert (given.debug, given.verbose, given.commands, given.umad) == (True, False, True, "/dev/infiniband/umad0")

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["-h"], ""),
            (["-k", "ffff"], "ibsrpdm: invalid option -- 'k'"),
            (["-e"], "ibsrpdm: invalid option -- 'e'"),
            (["-d"], "ibsrpdm: option requires an argument -- 'd'"),
            (["--systemd"], "ibsrpdm: unrecognized option '--systemd'"),
        ],
    )
    def test_usage(self, arguments: list[str], complaint: str) -> None:
        with pytest.raises(UsageError) as raised:
            parse_flags("ibsrpdm", arguments)
        assert (str(raised.value), raised.value.usage) == (complaint, IBSRPDM_USAGE)


class TestReport:
    def test_is_srp_daemons(self) -> None:
        given = line("-o -v -R 30 -T 0 -n -l 3 -e")
        assert configuration_report(given, "ibsim0", 1, 28717) == REPORT

    def test_with_the_other_choices(self) -> None:
        text = configuration_report(flags("-vc", "-t", "100", "-r", "7", "-f", "/x"), "a", 2, 3)
        assert "Mad Retries                \t\t: 7\n" in text
        assert "Mad timeout (msec)\t     \t\t: 100\n" in text
        assert "Reads rules from \t\t\t: /x\n" in text
        assert " Do not print initiator_ext\n No full target rescan\n" in text
        assert " Retries to connect to existing target after 20 seconds\n" in text
