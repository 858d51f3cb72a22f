"""``srpha multipath``: the drop-in for multipath, looked at before it is written.

Exit codes: 0 nothing to change, or written; 1 it would change (``--write`` does), 2 it cannot be made or written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import typer

DIFFERENT: Final = 1
IMPOSSIBLE: Final = 2


def multipath_dropin(config: Path | None, *, diff: bool, write: bool, etc: Path = Path("/etc")) -> int:
    """Print the drop-in or how it would change, what was left out of it and what stands against it; write if told."""
    from srpha.kernel.multipath_files import MultipathFilesError, plan_dropin, write_dropin  # noqa: PLC0415
    from srpha.operate.config import ConfigError, load_config  # noqa: PLC0415

    try:
        plan = plan_dropin(load_config(config).dropin, etc)
        written = write_dropin(plan) if write else False
    except (ConfigError, MultipathFilesError) as error:
        for line in str(error).splitlines():
            typer.echo(f"srpha multipath: {line}", err=True)
        return IMPOSSIBLE
    for sentence in plan.left_out:
        typer.echo(f"left to the administrator: {sentence}", err=True)
    for finding in plan.findings:
        typer.echo(f"{finding.kind.value}: {finding.text}", err=True)
    if diff:
        typer.echo(plan.diff(), nl=False)
    elif not write:
        typer.echo(plan.wanted, nl=False)
    if written:
        typer.echo(f"{plan.path} is written; multipathd reads it at its next 'multipathd reconfigure'", err=True)
    return DIFFERENT if plan.changed and not written else 0
