"""The rules file of ``-f``."""

from __future__ import annotations

from pathlib import Path

from srpha.cli.dropin_flags import Flags
from srpha.cli.dropin_output import Output
from srpha.cli.dropin_world import HostError
from srpha.core.targets.rules import Rules, parse_rules


def read_rules(flags: Flags, output: Output) -> Rules:
    """The rules. A file that does not exist allows everything, as with srp_daemon.

    Raises :class:`srpha.core.targets.rules.RuleSyntaxError`, and :class:`HostError` for a file that cannot be read.
    """
    if flags.rules is None:
        return Rules()
    try:
        text = Path(flags.rules).read_text(encoding="ascii", errors="surrogateescape")
    except FileNotFoundError:
        output.debug(f"there is no rules file {flags.rules}: every target is allowed")
        return Rules()
    except OSError as error:
        raise HostError(f"rules file {flags.rules} cannot be read: {error.strerror}") from error
    return parse_rules(text.split("\n"), flags.rules)
