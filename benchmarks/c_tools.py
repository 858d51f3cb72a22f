"""The C tools and srpha on the same embedded subnet in the same run: one scan, whole and with one silent target.

The C programs and the drop-ins are processes at a node of the subnet, attached through the lab's umad shim; times are
theirs from start to end. Beside them stands the scan of the daemon in this process, without start-up and sockets. The
simulated fabric answers all of them from one Python process.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter

from benchmarks.discovery import time_scan
from benchmarks.measure import Results
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.embedded.fabric.faults import Delay, Direction, TargetCrash
from srpha.embedded.fabric.topology import PortRef
from srpha.embedded.ibsim.server import IbsimServer
from srpha.embedded.world import World, WorldSettings
from srpha.embedded.worldspec import WorldSpec
from srpha.lab.generate import WorldShape, generate_world

_SHIMS = Path(__file__).parents[1] / "tests" / "labs" / "ibsim"
_TOOLS = ("ibsrpdm", "srp_daemon", "gcc")
_HOST = "host1-a"
_LIMIT = 300.0
_ANSWER_TIME = 1e-3
_SCAN = "the daemon's scan"
_FOUND = "the daemon's scan until all that answer are found"
_PROGRAMS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "ibsrpdm -c": (("ibsrpdm", "-c"), ("ibsrpdm", "-c")),
    "srp_daemon -o -c -a -n": (
        ("srp_daemon", "-f", "/dev/null", "-o", "-c", "-a", "-n"),
        ("srp-daemon", "-f", "/dev/null", "-o", "-c", "-a", "-n"),
    ),
}
"""The C program's command line and the drop-in's."""


class _MissingError(Exception):
    """Something that the C tools need is not there."""


def measure(results: Results, told: Callable[[str], None], *, quick: bool) -> None:
    """128 and 512 targets with two ports each; the C program, the drop-in and the daemon's scan take turns.

    First the targets answer at once, then each answer takes a millisecond, then one target is silent as well.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            shims = _build(Path(folder))
            for targets in (16,) if quick else (128, 512):
                asyncio.run(_measure(targets, _Programs(shims, Path(folder)), results, told, runs=2 if quick else 3))
    except _MissingError as error:
        told(f"not measured: {error}")


def _build(folder: Path) -> tuple[Path, ...]:
    """The preloads through which programs see a user MAD device."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    missing = [tool for tool in _TOOLS if shutil.which(tool, path=path) is None]
    if missing:
        raise _MissingError(f"no {', '.join(missing)} here (see tools/debian-packages.txt)")
    os.environ["PATH"] = path
    built = tuple(folder / f"{name}.so" for name in ("umad_shim", "verbs_shim"))
    for library in built:
        source = _SHIMS / f"{library.stem}.c"
        command = ["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl", "-lpthread"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise _MissingError(f"{source.name} cannot be built: {done.stderr.partition(chr(10))[0]}")
    return built


class _Programs:
    """Starts programs at the host's node."""

    def __init__(self, shims: tuple[Path, ...], folder: Path) -> None:
        self._environment = os.environ | {
            "UMAD_SHIM_HOSTS": _HOST,
            "UMAD_SHIM_TREE": str(folder),
            "LD_PRELOAD": " ".join(map(str, shims)),
        }

    async def run(self, base: str, command: Sequence[str]) -> tuple[float, set[str]]:
        """Seconds from start to end, and the lines of its output. With a silent target the exit code is 1."""
        started = perf_counter()
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=self._environment | {"IBSIM_SOCKNAME": base},
        )
        try:
            async with asyncio.timeout(_LIMIT):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return perf_counter() - started, set(output.decode().splitlines())


async def _measure(
    targets: int, programs: _Programs, results: Results, told: Callable[[str], None], *, runs: int
) -> None:
    spec = WorldSpec.parse(generate_world(WorldShape(targets, unit_mib=1)))
    world = World(spec, random.Random(1), WorldSettings(timer_floor=1e-3))
    server = IbsimServer(world.fabric, world.general_services, f"srpha-bench-{os.getpid()}")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(world.run()), group.create_task(server.run())]
        await world.ready()
        await asyncio.sleep(1.0)
        await _compare(f"{targets} targets", world, server.base, programs, 2 * targets, results, told, runs)
        for plan in spec.targets:
            for hca in plan.hcas:
                for port in world.fabric.node(hca).ports:
                    world.faults.apply(Delay(PortRef(hca, port.number), _ANSWER_TIME, Direction.TX))
        name = f"{targets} targets, 1 ms to an answer"
        await _compare(name, world, server.base, programs, 2 * targets, results, told, runs)
        world.faults.apply(TargetCrash(spec.targets[0].name))
        name += ", one silent"
        await _compare(name, world, server.base, programs, 2 * targets - 2, results, told, runs)
        for task in tasks:
            task.cancel()


async def _compare(
    name: str,
    world: World,
    base: str,
    programs: _Programs,
    healthy: int,
    results: Results,
    told: Callable[[str], None],
    runs: int,
) -> None:
    """The contestants in turn, so that the machine's other work meets all of them."""
    taken: dict[str, list[float]] = {_SCAN: [], _FOUND: []}
    lost: dict[str, list[float]] = {}
    for _ in range(runs):
        scan = await time_scan(world, healthy, ScanSettings())
        taken[_SCAN].append(scan.seconds)
        taken[_FOUND].append(scan.last_found)
        for words, (theirs, ours) in _PROGRAMS.items():
            for who, command in ((f"C {words}", theirs), (f"srpha {words}", _srpha(ours))):
                seconds, lines = await programs.run(base, command)
                taken.setdefault(who, []).append(seconds)
                lost.setdefault(who, []).append(healthy - len(lines))
    figures = {who: results.add(f"{name}: {who}", "s", values, told) for who, values in taken.items()}
    for who, values in lost.items():
        if any(values):
            results.add(f"{name}: {who}: healthy target ports not listed", "", values, told)
    for words in _PROGRAMS:
        c = figures[f"C {words}"].median
        for who in (f"srpha {words}", _SCAN, _FOUND):
            results.add(f"{name}: C {words} / {who}", "times", [c / figures[who].median], told)


def _srpha(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-c", "import sys; from srpha.cli.entry import main; sys.exit(main())", *arguments]
