"""``srpha demo``: the high-availability scenario, shown while it happens, then judged."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from srpha.cli.read_console import ReadConsole, ReaderLeftError
from srpha.cli.render import event_line, paths_table, steps_panel
from srpha.cli.world_choice import ChoiceError, choose_recovery, choose_world
from srpha.core.events import EventKind
from srpha.embedded.fabric.capture import PcapWriter
from srpha.embedded.roles import with_late_target, with_second_cable
from srpha.embedded.virtual_time import run_virtual
from srpha.embedded.worldspec import WorldSpec, WorldSpecError
from srpha.lab.lab import Lab, LabSettings
from srpha.lab.scenario import Report, Scenario, ScenarioSettings, Step
from srpha.lab.workload import WorkloadSettings
from srpha.operate.documents import event_document, path_documents
from srpha.operate.event_log import LoggedEvent

T = TypeVar("T")

_QUIET_KINDS = frozenset({EventKind.SCAN_FINISHED, EventKind.CONNECTING, EventKind.DEVICE_ADDED})
"""Left out of the live view, where space is short; ``srpha events`` shows them."""
_VIRTUAL_LIMIT = 3600.0
_REAL_TIME_FLOOR = 1e-3


def run_demo(
    *, topology: Path | None, recovery: str, seed: int, as_json: bool, fast: bool, capture: Path | None
) -> int:
    """Run the scenario; the exit code is 0 only if every step held, 2 for arguments that cannot be used."""
    try:
        chosen = choose_world(topology)
        spec = with_late_target(with_second_cable(chosen))
        settings = _settings(recovery, seed, fast)
        console = ReadConsole(stderr=as_json, quiet=as_json, highlight=False)
        opening = _opening(spec, settings) + _added(chosen, spec)
        play = _play(spec, settings, console, opening, live=not fast, capture=capture)
        report = _run(console.while_read(play), fast)
    except (ChoiceError, WorldSpecError, OSError) as error:
        typer.echo(f"srpha demo: {error}", err=True)
        return 2
    except KeyboardInterrupt:
        return 130
    except ReaderLeftError:
        return 141
    if as_json:
        typer.echo(json.dumps(report.document(), indent=2))
    return 0 if report.ok else 1


def _settings(recovery: str, seed: int, fast: bool) -> LabSettings:
    # In real time the load runs as fast as a person can follow; in virtual time each I/O costs real computing time.
    load = WorkloadSettings(workers=2, mean_pause=0.05) if fast else WorkloadSettings(workers=2, mean_pause=0.002)
    return LabSettings(
        recovery=choose_recovery(recovery), seed=seed, load=load, timer_floor=0.0 if fast else _REAL_TIME_FLOOR
    )


def _run(play: Coroutine[None, None, T], fast: bool) -> T:
    return run_virtual(play, limit=_VIRTUAL_LIMIT) if fast else asyncio.run(play)


async def _play(
    spec: WorldSpec, settings: LabSettings, console: Console, opening: str, *, live: bool, capture: Path | None
) -> Report:
    live = live and console.is_terminal and not console.quiet
    with ExitStack() as stack:
        lab = Lab(spec, settings)
        if capture is not None:
            writer = PcapWriter(stack.enter_context(capture.open("wb")), mads_only=True)
            stack.callback(writer.attach(lab.world.fabric))
        start = asyncio.get_running_loop().time()
        if live:
            screen = _Screen(console, lab, start)
            stack.enter_context(screen.live)
            scenario = Scenario(lab, told=screen.tell)
        else:
            stack.callback(lab.log.listen(lambda logged: _print_event(console, logged, start)))
            scenario = Scenario(lab, ScenarioSettings(), lambda step: _print_step(console, step))
        console.print(Text(opening, style="bold"), soft_wrap=True)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(lab.run())
            if live:
                refreshing = group.create_task(screen.keep_fresh())
                report = await scenario.run()
                refreshing.cancel()
            else:
                report = await scenario.run()
            running.cancel()
    _summary(console, report)
    return report


def _opening(spec: WorldSpec, settings: LabSettings) -> str:
    switches = sum(node.kind.value == "switch" for node in spec.topology.nodes)
    host = spec.hosts[0]
    devices = ", ".join(device.device for device in host.devices)
    late = sum(plan.late for plan in spec.targets)
    return (
        f"{spec.source}: {switches} switches, host {host.name} with {devices}, {len(spec.targets)} SRP targets "
        f"({late} joins late); recovery {settings.recovery.value}, seed {settings.seed}"
    )


def _added(chosen: WorldSpec, spec: WorldSpec) -> str:
    """A line about what the demo needs and the chosen world has not; empty when nothing was added."""
    known = chosen.topology.links
    cables = ", ".join(f"{link.a} to {link.b}" for link in spec.topology.links if link not in known)
    return f"\ncabled for this demo, beside what the file says: {cables}" if cables else ""


def _print_event(console: Console, logged: LoggedEvent, start: float) -> None:
    if logged.event.kind not in _QUIET_KINDS:
        console.print(event_line(event_document(logged), start), soft_wrap=True)


def _print_step(console: Console, step: Step) -> None:
    mark = Text("  held ", style="green") if step.ok else Text("FAILED ", style="bold red")
    console.print(mark.append(f"{step.name}: ", style="bold").append(step.detail, style="default"), soft_wrap=True)


def _summary(console: Console, report: Report) -> None:
    document = report.document()
    during = {(str(path["map"]), str(path["device"])) for path in report.paths_during if path["state"] == "active"}
    console.print()
    console.print(paths_table(report.paths_before, "Before: all paths"))
    console.print()
    console.print(
        paths_table(
            [path for path in report.paths_during if (str(path["map"]), str(path["device"])) in during],
            f"While {report.cable} was out: paths that carried I/O",
        )
    )
    console.print()
    console.print(paths_table(report.paths_after, "After: all paths again"))
    console.print()
    console.print(steps_panel(document))
    io = report.io
    console.print(
        f"{io.operations} verified I/Os ({io.bytes_moved / 1e6:.0f} MB), "
        f"{io.errors} errors, {io.mismatches} mismatches; "
        f"longest stall {io.max_stall * 1000:.1f} ms, at the fail-over {report.fail_over_stall * 1000:.1f} ms; "
        f"original state {'restored' if report.restored else 'NOT restored'}",
        soft_wrap=True,
    )


class _Screen:
    """The live view: verdicts, newest events, paths, I/O rate."""

    def __init__(self, console: Console, lab: Lab, start: float) -> None:
        self._lab = lab
        self._start = start
        self._steps: list[Step] = []
        self._lines: deque[Text] = deque(maxlen=14)
        self._paths: Group | Text = Text("no multipath device yet", style="dim")
        self._rate = Text("")
        self._last = (start, 0)
        self.live = Live(console=console, auto_refresh=False, transient=True)
        lab.log.listen(self._heard)

    def tell(self, step: Step) -> None:
        self._steps.append(step)

    async def keep_fresh(self) -> None:
        """Redraw a few times a second until cancelled."""
        host = next(iter(self._lab.hosts.values()))
        while True:
            connections = await host.below.initiator.connections()
            maps = await host.below.path_manager.maps()
            if maps:
                self._paths = Group(paths_table(path_documents(maps, connections), ""))
            self._measure()
            self.live.update(self._picture(), refresh=True)
            await asyncio.sleep(0.2)

    def _heard(self, logged: LoggedEvent) -> None:
        if logged.event.kind not in _QUIET_KINDS:
            self._lines.append(event_line(event_document(logged), self._start))

    def _measure(self) -> None:
        host = next(iter(self._lab.hosts.values()))
        if host.load is None:
            return
        total = host.load.total()
        now = asyncio.get_running_loop().time()
        then, count = self._last
        rate = (total.operations - count) / max(now - then, 1e-6)
        self._last = (now, total.operations)
        self._rate = Text(
            f"{rate:7.0f} verified I/Os per second   {total.operations} in all   {total.errors} errors   "
            f"{total.mismatches} mismatches   longest stall {total.max_stall * 1000:.1f} ms"
        )

    def _picture(self) -> Group:
        steps = Text()
        for step in self._steps:
            steps.append("held   " if step.ok else "FAILED ", style="green" if step.ok else "bold red")
            steps.append(f"{step.name}: ", style="bold").append(f"{step.detail}\n")
        return Group(
            steps,
            Panel(Group(*self._lines), title="events", title_align="left", border_style="dim"),
            Panel(self._paths, title="paths", title_align="left", border_style="dim"),
            self._rate,
        )
