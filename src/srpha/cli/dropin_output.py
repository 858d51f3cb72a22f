"""Where the drop-in commands say what: results on standard output, errors where srp_daemon's go."""

from __future__ import annotations

import os
import sys
import syslog
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

_SYSLOG_SOCKET = "/dev/log"


@dataclass(frozen=True, slots=True)
class Output:
    """The three ways to say something. Each takes text without control characters of strangers in it."""

    result: Callable[[str], None]
    """Takes finished text, line ends included; what scripts read."""
    error: Callable[[str], None]
    """Takes one sentence."""
    debug: Callable[[str], None]
    """Takes one sentence; heard with ``-V`` only."""


def to_streams(stdout: TextIO, stderr: TextIO, *, debug: bool, system_log: Callable[[str], None] | None) -> Output:
    """Results and debug text to ``stdout``, errors to ``system_log``, to ``stderr`` too unless it has a reader."""

    def result(text: str) -> None:
        stdout.write(text)
        stdout.flush()

    def error(sentence: str) -> None:
        if system_log is not None:
            system_log(sentence)
        if system_log is None or stderr.isatty():
            stderr.write(sentence + "\n")
            stderr.flush()

    def say_debug(sentence: str) -> None:
        if debug:
            result(sentence + "\n")

    return Output(result, error, say_debug)


def standard_output(program: str, *, debug: bool) -> Output:
    """An error of ibsrpdm goes to standard error, one of srp_daemon to the system log if there is one."""
    system_log = None
    if program != "ibsrpdm" and os.path.exists(_SYSLOG_SOCKET):
        syslog.openlog("srp_daemon", syslog.LOG_PID, syslog.LOG_DAEMON)

        def system_log(sentence: str) -> None:
            syslog.syslog(syslog.LOG_ERR, sentence)

    return to_streams(sys.stdout, sys.stderr, debug=debug, system_log=system_log)
