"""``srp_daemon`` and ``ibsrpdm`` in place of the C programs: same flags, same output, same exit codes (facts: srp A).

Where srp_daemon ends with 0 though it could do nothing (no such port, no link layer, a refused login), this ends
with 1. Without ``-e`` nothing is changed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from srpha.cli.dropin_flags import BadValueError, Flags, UsageError, configuration_report, parse_flags
from srpha.cli.dropin_lock import RUN_DIRECTORY
from srpha.cli.dropin_output import Output, standard_output
from srpha.cli.dropin_ports import choose_ports
from srpha.cli.dropin_rules import read_rules
from srpha.cli.dropin_world import DropinWorld, HostError, KernelWorld, WorldFactory
from srpha.core.rules import RuleSyntaxError


def dropin_main(
    program: str,
    arguments: Sequence[str],
    make_world: WorldFactory = KernelWorld,
    run_directory: Path = RUN_DIRECTORY,
) -> int:
    """Run ``srp_daemon``, ``srp_daemon.sh`` or ``ibsrpdm``; the exit code, or minus the signal that asked it to end."""
    try:
        flags = parse_flags(program, arguments)
    except UsageError as error:
        sys.stderr.write("".join(f"{text}\n" for text in [str(error)] if text) + error.usage)
        return 1
    except BadValueError as error:
        standard_output(program, debug=False).error(str(error))
        return 1
    output = standard_output(flags.program, debug=flags.debug)
    return asyncio.run(run_dropin(flags, make_world(), output, run_directory))


async def run_dropin(flags: Flags, world: DropinWorld, output: Output, run_directory: Path = RUN_DIRECTORY) -> int:
    """Everything after the command line; see :func:`dropin_main`. What a mode does not need is not imported."""
    try:
        rules = read_rules(flags, output)
        if not flags.once:
            from srpha.cli.dropin_daemon import serve  # noqa: PLC0415

            return await serve(flags, rules, world, output, run_directory=run_directory)
        ports = await choose_ports(flags, world)
        if flags.verbose:
            for device, port in ports:
                output.result(configuration_report(flags, device, port, os.getpid()))
        from srpha.cli.dropin_once import scan_once  # noqa: PLC0415

        return 0 if await scan_once(flags, rules, world, ports, output) else 1
    except (HostError, RuleSyntaxError) as error:
        output.error(str(error))
        return 1


def run_as_process(program: str, arguments: Sequence[str], run_directory: Path = RUN_DIRECTORY) -> int:
    """:func:`dropin_main` as the whole of a process: signals end it as they end srp_daemon."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever read the output has left: so do we, without a word
    try:
        code = dropin_main(program, arguments, run_directory=run_directory)
    except KeyboardInterrupt:
        code = -signal.SIGINT
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code
