"""Time of whole processes: commands that a person waits for."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.measure import Results


def measure(results: Results, told: Callable[[str], None], *, quick: bool) -> None:
    """``srpha --help`` and an empty interpreter beside it, in turn."""
    runs = 3 if quick else 9
    commands = {
        "srpha --help": [sys.executable, "-c", "from srpha.cli.main import main; main()", "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            taken[name].append(time.perf_counter() - started)
    for name, values in taken.items():
        results.add(name, "s", values, told)
