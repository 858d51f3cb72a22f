"""``make bench``, or ``python -m benchmarks [--quick] [NAME]...``: measure, print, and write ``bench-results/``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import c_tools, discovery, fail_over, footprint, stack_io, start_up
from benchmarks.measure import Results

_ALL = {
    "start-up": start_up.measure,
    "discovery": discovery.measure,
    "c-tools": c_tools.measure,
    "io": stack_io.measure,
    "fail-over": fail_over.measure,
    "footprint": footprint.measure,
}


def main() -> int:
    """Run the benchmarks that were named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(_ALL)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer runs and smaller worlds")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in _ALL]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(_ALL)}")
    results = Results()
    for name in arguments.names or _ALL:
        print(f"\n{name}")
        _ALL[name](results, print, quick=arguments.quick)
    path = Path("bench-results") / "latest.json"
    results.write(path)
    print(f"\nwritten to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
