"""The command lines of srp_daemon and ibsrpdm (facts: srp A.2, A.3), read by getopt's own rules.

The grammar is getopt's, not argparse's: letters combine (``-oecnl3``), the last of several wins, words that are no
options are ignored, ``--sys`` stands for ``--systemd``.
"""

from __future__ import annotations

import getopt
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from srpha.core.discovery.scan_settings import ScanSettings

DEFAULT_RULES: Final = "/etc/srp_daemon.conf"
DEFAULT_TIMEOUT: Final = 5000
DEFAULT_RETRIES: Final = 3
_LETTERS: Final = "caveod:i:j:p:t:r:R:T:l:Vhnf:"
_IBSRPDM_LETTERS: Final = "cd:hv"
_DEVICE_MAX: Final = 63
_PORT_MAX: Final = 255
_MILLISECONDS_MAX: Final = 3_600_000
_SECONDS_MAX: Final = 10_000_000

SRP_DAEMON_USAGE: Final = """\
Usage: srp_daemon [-vVcaeon] [-d <umad device> | -i <infiniband device> [-p <port>] | -j <device>:<port>]
                  [-t <ms>] [-r <retries>] [-R <seconds>] [-T <seconds>] [-l <count>] [-f <rules file>]
-v              verbose: report the settings, list every controller slot
-V              debug: tell what is being done
-c              print connection commands, one line per target
-a              all: print targets that are already connected too
-e              execute the connection commands
-o              once: scan and exit
-d <umad device>  the port of this user MAD device, as in /dev/infiniband/umad0
-i <device>     InfiniBand device
-p <port>       port number of that device (1)
-j <device>:<port>  both in one
-R <seconds>    full rescan this often
-T <seconds>    look at a target that is connected again after this time (20; 0: never)
-l <count>      tl_retry_count of the connections, 2 to 7 (with -e)
-f <rules file> which targets to connect to (/etc/srp_daemon.conf)
-t <ms>         timeout of a management datagram (5000)
-r <retries>    how often a management datagram is sent again (3)
-n              give initiator_ext in connection commands
--systemd       run under systemd
--all-ports     serve every local port (srpha only)

Example: srp_daemon -e -n -i mlx5_0 -p 1 -R 60
"""
IBSRPDM_USAGE: Final = "Usage: ibsrpdm [-vc] [-d <umad device>]\n"


class UsageError(Exception):
    """The command line is not understood; ``str()`` is getopt's complaint, or empty when help was asked for."""

    def __init__(self, usage: str, complaint: str = "") -> None:
        super().__init__(complaint)
        self.usage = usage


class BadValueError(Exception):
    """An option has a value that is not allowed. ``str()`` is one sentence."""


@dataclass(frozen=True, slots=True)
class Flags:
    """What a command line asks for. Times in seconds."""

    program: str = "srp_daemon"
    verbose: bool = False
    debug: bool = False
    commands: bool = False
    """``-c``"""
    everything: bool = False
    """``-a``"""
    execute: bool = False
    once: bool = False
    umad: str | None = None
    device: str | None = None
    port: int = 1
    all_ports: bool = False
    rescan: int | None = None
    """``-R``; None: not given."""
    recheck: int = 20
    """``-T``; 0: never."""
    rules: str | None = DEFAULT_RULES
    """None: no rules file is read (ibsrpdm)."""
    timeout: int | None = None
    """``-t``, in milliseconds; None: not given."""
    retries: int | None = None
    initiator_ext: bool = False
    tl_retry_count: int | None = None
    systemd: bool = False

    @property
    def scan_settings(self) -> ScanSettings:
        """Limits of a scan. ``-t`` is the whole patience with one question, in which it is sent ``-r`` times more.

        So a silent target costs the time that it always did in practice (srp_daemon never sent again), while a lost
        datagram costs a fraction of it. Without both, a target that is silent where others answer is given up early.
        """
        if self.timeout is None and self.retries is None:
            return ScanSettings()
        retries = DEFAULT_RETRIES if self.retries is None else self.retries
        timeout = (self.timeout or DEFAULT_TIMEOUT) / 1000 / (retries + 1)
        return ScanSettings(timeout=timeout, retries=retries, haste=None, sa_timeout=timeout, sa_retries=retries)

    @property
    def listing(self) -> bool:
        """Whether the human listing is wanted: neither ``-c`` nor ``-e``."""
        return not (self.commands or self.execute)


def parse_flags(program: str, arguments: Sequence[str]) -> Flags:
    """Read the command line of ``program``: ``srp_daemon``, ``srp_daemon.sh`` or ``ibsrpdm``.

    Raises :class:`UsageError` and :class:`BadValueError`.
    """
    if program == "ibsrpdm":
        return _parse_ibsrpdm(arguments)
    flags = Flags()
    if program == "srp_daemon.sh":
        # The options that the script gives to the daemon it starts on every port (facts: srp A.13).
        flags = replace(flags, all_ports=True, execute=True, commands=True, initiator_ext=True, rescan=60)
    for name, value in _options(program, arguments, _LETTERS, ["systemd", "all-ports"], SRP_DAEMON_USAGE):
        if name == "-h":
            raise UsageError(SRP_DAEMON_USAGE)
        flags = _SRP_DAEMON[name](flags, value)
    return flags


def _parse_ibsrpdm(arguments: Sequence[str]) -> Flags:
    flags = Flags("ibsrpdm", everything=True, once=True, rules=None)
    for name, value in _options("ibsrpdm", arguments, _IBSRPDM_LETTERS, [], IBSRPDM_USAGE):
        match name:
            case "-c":
                flags = replace(flags, commands=True)
            case "-d":
                flags = replace(flags, umad=value)
            case "-v":
                flags = replace(flags, debug=True)
            case _:
                raise UsageError(IBSRPDM_USAGE)
    return flags


def _options(
    program: str, arguments: Sequence[str], letters: str, words: list[str], usage: str
) -> list[tuple[str, str]]:
    try:
        options, _ = getopt.gnu_getopt(list(arguments), letters, words)
    except getopt.GetoptError as error:
        what = error.opt or ""
        long = what not in letters.replace(":", "") or len(what) != 1
        if "requires argument" in error.msg:
            complaint = f"{program}: option requires an argument -- '{what}'"
        elif long and len(what) > 1:
            complaint = f"{program}: unrecognized option '--{what}'"
        else:
            complaint = f"{program}: invalid option -- '{what}'"
        raise UsageError(usage, complaint) from None
    return options


def _number(value: str, low: int, high: int, complaint: str) -> int:
    """A decimal number in a range; raises :class:`BadValueError` with ``complaint``, the value and the range."""
    if not re.fullmatch(r"\+?[0-9]{1,9}", value.strip(), re.ASCII) or not low <= int(value) <= high:
        raise BadValueError(f"{complaint} {value[:40]!r}: a number from {low} to {high} is needed")
    return int(value)


def _device(value: str, option: str) -> str:
    """A device name that may become part of a path."""
    if not re.fullmatch(r"(?!\.)[A-Za-z0-9_.-]+", value, re.ASCII) or len(value) > _DEVICE_MAX:
        raise BadValueError(f"{option} {value[:80]!r}: that is no name of an InfiniBand device")
    return value


def _device_and_port(flags: Flags, value: str) -> Flags:
    device, _, port = value.rpartition(":")
    if not device or not port:
        raise BadValueError(f"-j {value[:80]!r}: a device and a port are needed, as in mlx5_0:1")
    return replace(flags, device=_device(device, "-j"), port=_number(port, 1, _PORT_MAX, f"-j {value[:80]!r}: port"))


def _tl_retry_count(flags: Flags, value: str) -> Flags:
    return replace(flags, tl_retry_count=_number(value, 2, 7, "-l: bad tl_retry_count"))


_SRP_DAEMON: Final[dict[str, Callable[[Flags, str], Flags]]] = {
    "-c": lambda flags, _: replace(flags, commands=True),
    "-a": lambda flags, _: replace(flags, everything=True),
    "-v": lambda flags, _: replace(flags, verbose=True),
    "-V": lambda flags, _: replace(flags, debug=True),
    "-e": lambda flags, _: replace(flags, execute=True),
    "-o": lambda flags, _: replace(flags, once=True),
    "-n": lambda flags, _: replace(flags, initiator_ext=True),
    "-d": lambda flags, value: replace(flags, umad=value),
    "-i": lambda flags, value: replace(flags, device=_device(value, "-i")),
    "-p": lambda flags, value: replace(flags, port=_number(value, 1, _PORT_MAX, "-p: bad port number")),
    "-j": _device_and_port,
    "-t": lambda flags, value: replace(flags, timeout=_number(value, 1, _MILLISECONDS_MAX, "-t: bad timeout")),
    "-r": lambda flags, value: replace(flags, retries=_number(value, 1, 100, "-r: bad number of retries")),
    "-R": lambda flags, value: replace(flags, rescan=_number(value, 1, _SECONDS_MAX, "-R: bad rescan time")),
    "-T": lambda flags, value: replace(flags, recheck=_number(value, 0, _SECONDS_MAX, "-T: bad retry time")),
    "-l": _tl_retry_count,
    "-f": lambda flags, value: replace(flags, rules=value),
    "--systemd": lambda flags, _: replace(flags, systemd=True),
    "--all-ports": lambda flags, _: replace(flags, all_ports=True),
}


def configuration_report(flags: Flags, device: str, port: int, pid: int) -> str:
    """The settings that ``-v`` prints at start, in srp_daemon's words and columns."""
    rule = " " + "-" * 48
    extension = "Print" if flags.initiator_ext else "Do not print"
    rescan = "No full target rescan"
    if flags.rescan is not None:
        rescan = f"Performs full target rescan every {flags.rescan} seconds"
    recheck = "Do not retry to connect to existing targets"
    if flags.recheck:
        recheck = f"Retries to connect to existing target after {flags.recheck} seconds"
    lines = [
        " configuration report",
        rule,
        f" Current pid                \t\t: {pid}",
        f' Device name                \t\t: "{device}"',
        f" IB port                    \t\t: {port}",
        f" Mad Retries                \t\t: {DEFAULT_RETRIES if flags.retries is None else flags.retries}",
        # A constant of srp_daemon that means nothing here; scripts may count lines.
        " Number of outstanding WR   \t\t: 10",
        f" Mad timeout (msec)\t     \t\t: {DEFAULT_TIMEOUT if flags.timeout is None else flags.timeout}",
        f" Prints add target command  \t\t: {flags.commands:d}",
        f" Executes add target command\t\t: {flags.execute:d}",
        f" Print also connected targets \t\t: {flags.everything:d}",
        f" Report current targets and stop \t: {flags.once:d}",
        f" Reads rules from \t\t\t: {flags.rules}",
        f" {extension} initiator_ext",
        f" {rescan}",
        f" {recheck}",
        rule,
    ]
    return "\n".join(lines) + "\n"
