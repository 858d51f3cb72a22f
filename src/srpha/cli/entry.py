"""Entry point of the installed command. By the name it is called by it is srpha, srp_daemon or ibsrpdm.

The drop-in commands do without typer: ``srp_daemon -o`` runs from scripts that wait for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

_NAMES: Final = {
    "ibsrpdm": "ibsrpdm",
    "srp_daemon": "srp_daemon",
    "run_srp_daemon": "srp_daemon",
    "srp_daemon.sh": "srp_daemon.sh",
}
"""Names of the command (argv[0]) and what they stand for."""
_COMMANDS: Final = {"srp-daemon": "srp_daemon", "ibsrpdm": "ibsrpdm"}


def dropin_call(argv: Sequence[str]) -> tuple[str, Sequence[str]] | None:
    """The drop-in program that ``argv`` calls and its arguments; None when it calls srpha itself."""
    program = _NAMES.get(os.path.basename(argv[0]))
    if program is not None:
        return program, argv[1:]
    program = _COMMANDS.get(argv[1]) if len(argv) > 1 else None
    return None if program is None else (program, argv[2:])


def main() -> int:
    """Run what argv asks for; the exit code."""
    call = dropin_call(sys.argv)
    if call is not None:
        from srpha.cli.dropin import run_as_process  # noqa: PLC0415

        return run_as_process(*call)
    from srpha.cli.main import main as srpha_main  # noqa: PLC0415

    srpha_main()
    return 0
