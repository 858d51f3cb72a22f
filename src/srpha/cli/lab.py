"""``srpha lab``: keep an embedded world running, break it, look at its maps, end it."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
from dataclasses import replace
from pathlib import Path

import typer

from srpha.operate.client import SOCKET_VARIABLE, ControlClient, ControlError, Json, default_socket


def lab_up(
    *,
    file: Path | None,
    config: Path | None,
    recovery: str,
    seed: int,
    load: bool,
    ibsim: str | None,
    socket: Path | None,
) -> int:
    """Run a lab in the foreground; 0 when stopped or when nobody reads its output any more, 2 when it cannot start."""
    from srpha.cli.read_console import ReadConsole, ReaderLeftError  # noqa: PLC0415
    from srpha.cli.render import event_line  # noqa: PLC0415
    from srpha.cli.world_choice import ChoiceError, choose_recovery, choose_world  # noqa: PLC0415
    from srpha.embedded.ibsim.server import IbsimServerError  # noqa: PLC0415
    from srpha.embedded.nbd.server import NbdServer, NbdServerError  # noqa: PLC0415
    from srpha.embedded.worldspec import WorldSpecError  # noqa: PLC0415
    from srpha.lab.keep import keep_lab  # noqa: PLC0415
    from srpha.lab.lab import Lab, LabSettings  # noqa: PLC0415
    from srpha.lab.workload import WorkloadSettings  # noqa: PLC0415
    from srpha.operate.config import ConfigError, load_config  # noqa: PLC0415
    from srpha.operate.documents import event_document  # noqa: PLC0415

    console = ReadConsole(highlight=False)
    path = socket or default_socket()

    def started(lab: Lab, disks: tuple[NbdServer, ...]) -> None:
        hosts = ", ".join(lab.hosts)
        count = len(lab.spec.targets)
        console.print(f"{lab.spec.source} runs: hosts {hosts}; {count} targets; control socket {path}", soft_wrap=True)
        for server in disks:
            console.print(f"its maps over NBD: {server.uri('mpatha')}", soft_wrap=True)
        if ibsim is not None:
            console.print(f"its fabric to programs under an ibsim preload: IBSIM_SOCKNAME={ibsim}", soft_wrap=True)
        if load:
            console.print("verified I/O runs on all maps; with --no-load they are yours to write on")
        console.print(
            "in another terminal: srpha status, paths, events, discover, lab fault; Ctrl-C ends it", soft_wrap=True
        )
        if socket is not None or SOCKET_VARIABLE in os.environ:
            named = f"{SOCKET_VARIABLE}={shlex.quote(str(path))}"
            console.print(f"tell them where it runs: export {named}", soft_wrap=True)
        lab.log.listen(lambda logged: console.print(event_line(event_document(logged)), soft_wrap=True))

    try:
        settings = LabSettings(
            recovery=choose_recovery(recovery),
            seed=seed,
            timer_floor=1e-3,
            load=WorkloadSettings(workers=1, mean_pause=0.02) if load else None,
        )
        if config is not None:
            loaded = load_config(config)
            for note in loaded.notes:
                typer.echo(f"note: {note}", err=True)
            # The initiator starts with the timers too: without, each connection had the lab's own until the daemon's
            # first look at it.
            settings = replace(settings, daemon=loaded.settings, timers=loaded.settings.timers or settings.timers)
        work = keep_lab(choose_world(file), settings, path, started, ibsim=ibsim)
        asyncio.run(console.while_read(work))
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        return 2
    except (ChoiceError, WorldSpecError, ControlError, NbdServerError, IbsimServerError) as error:
        typer.echo(f"srpha lab up: {error}", err=True)
        return 2
    except (KeyboardInterrupt, ReaderLeftError):
        return 0
    return 0


def lab_down(socket: Path | None) -> int:
    """Ask the running lab to end."""
    return _post(socket, "stop", {}, as_json=False, said="stopping")


def lab_fault(words: list[str], *, as_json: bool, socket: Path | None) -> int:
    """Inject the fault that ``words`` spell, or list the kinds."""
    if not words:
        from srpha.embedded.fabric.faults import FAULT_USAGE  # noqa: PLC0415

        if as_json:
            typer.echo(json.dumps({"faults": FAULT_USAGE}, indent=2))
        else:
            for kind, arguments in FAULT_USAGE.items():
                typer.echo(f"{kind:<16} {arguments}".rstrip())
        return 0
    text = shlex.join(words)
    return _post(socket, "faults", {"fault": text}, as_json=as_json, said=f"injected: {text}")


def lab_dm(*, as_json: bool, socket: Path | None) -> int:
    """Table and status line of every map, under its host; the lines are those of ``dmsetup table`` and ``status``."""
    try:
        answer = ControlClient(socket).get("dm")
    except ControlError as error:
        typer.echo(f"srpha: {error}", err=True)
        return 2
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return 0
    for host, maps in _object(_object(answer).get("hosts")).items():
        typer.echo(f"host {host}:")
        for name, lines in _object(maps).items():
            for line in _object(lines).values():
                typer.echo(f"{name}: {line}")
    return 0


def _object(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _post(socket: Path | None, resource: str, body: Json, *, as_json: bool, said: str) -> int:
    try:
        answer = ControlClient(socket).post(resource, body)
    except ControlError as error:
        typer.echo(f"srpha: {error}", err=True)
        return 2
    typer.echo(json.dumps(answer) if as_json else said)
    return 0
