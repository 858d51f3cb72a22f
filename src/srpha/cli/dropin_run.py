"""What the drop-in commands do once the command line is read."""

from __future__ import annotations

import os
from pathlib import Path

from srpha.cli.dropin_flags import Flags, configuration_report
from srpha.cli.dropin_output import Output
from srpha.cli.dropin_ports import choose_ports
from srpha.cli.dropin_rules import read_rules
from srpha.cli.dropin_world import DropinWorld, HostError
from srpha.core.targets.rules import RuleSyntaxError


async def run_dropin(flags: Flags, world: DropinWorld, output: Output, run_directory: Path) -> int:
    """The exit code, or minus the signal that ended it. What a mode does not need is not imported."""
    try:
        rules = read_rules(flags, output)
        if not flags.once:
            from srpha.cli.dropin_daemon import serve  # noqa: PLC0415

            return await serve(flags, rules, world, output, run_directory)
        ports = await choose_ports(flags, world)
        if flags.verbose:
            for device, port in ports:
                output.result(configuration_report(flags, device, port, os.getpid()))
        from srpha.cli.dropin_once import scan_once  # noqa: PLC0415

        return 0 if await scan_once(flags, rules, world, ports, output) else 1
    except (HostError, RuleSyntaxError) as error:
        output.error(str(error))
        return 1
