"""``srp_daemon`` and ``ibsrpdm`` in place of the C programs: same flags, same output, same exit codes (facts: srp A).

Where srp_daemon ends with 0 though it could do nothing (no such port, no link layer, a refused login), this ends
with 1. Without ``-e`` nothing is changed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from srpha.cli.dropin_flags import BadValueError, UsageError, parse_flags
from srpha.cli.dropin_output import standard_output

RUN_DIRECTORY: Final = Path("/run")


def dropin_main(program: str, arguments: Sequence[str], run_directory: Path = RUN_DIRECTORY) -> int:
    """Run ``srp_daemon``, ``srp_daemon.sh`` or ``ibsrpdm``; the exit code, or minus the signal that asked it to end.

    Lock files go to ``run_directory``. A command line that is wrong costs no more than its reading.
    """
    try:
        flags = parse_flags(program, arguments)
    except UsageError as error:
        sys.stderr.write("".join(f"{text}\n" for text in [str(error)] if text) + error.usage)
        return 1
    except BadValueError as error:
        standard_output(program, debug=False).error(str(error))
        return 1
    import asyncio  # noqa: PLC0415

    from srpha.cli.dropin_run import run_dropin  # noqa: PLC0415
    from srpha.cli.dropin_world import KernelWorld  # noqa: PLC0415

    output = standard_output(flags.program, debug=flags.debug)
    return asyncio.run(run_dropin(flags, KernelWorld(), output, run_directory))


def run_as_process(program: str, arguments: Sequence[str], run_directory: Path = RUN_DIRECTORY) -> int:
    """:func:`dropin_main` as the whole of a process: signals end it as they end srp_daemon."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever read the output has left: so do we, without a word
    try:
        code = dropin_main(program, arguments, run_directory)
    except KeyboardInterrupt:
        code = -signal.SIGINT
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code
