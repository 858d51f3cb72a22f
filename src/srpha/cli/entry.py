"""Entry point of the installed command. By the name it is called by it is srpha, srp_daemon or ibsrpdm.

The drop-in commands do without typer: ``srp_daemon -o`` runs from scripts that wait for it.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from srpha.cli.dropin import dropin_of, run_as_process

_COMMANDS: Final = {"srp-daemon": "srp_daemon", "ibsrpdm": "ibsrpdm"}


def main() -> int:
    """Run what argv asks for; the exit code."""
    program = dropin_of(os.path.basename(sys.argv[0]))
    if program is not None:
        return run_as_process(program, sys.argv[1:])
    program = _COMMANDS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if program is not None:
        return run_as_process(program, sys.argv[2:])
    from srpha.cli.main import main as srpha_main  # noqa: PLC0415

    srpha_main()
    return 0
