"""``srpha plan``, ``reload``, ``drain``, ``resume`` and ``shutdown``: what is asked of a running daemon.

Exit codes: 0 done, 1 refused (``plan``: something desired is not there), 2 no answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import typer

from srpha.operate.client import ControlClient, ControlError, ControlRefusedError, Json

REFUSED: Final = 1
NO_ANSWER: Final = 2
_SHUTDOWN_LIMIT: Final = 120.0
_ROW: Final = 160
"""Columns that a row may take before a value is cut short; the terminal wraps what is longer than itself."""


def show_plan(*, as_json: bool, socket: Path | None, once: bool, config: Path | None) -> int:
    """Desired, actual, and why they differ; from the daemon, or from a look of its own."""
    if once:
        from srpha.cli.plan_once import plan_once  # noqa: PLC0415

        answer, problem = plan_once(config)
        if problem:
            typer.echo(f"srpha plan: {problem}", err=True)
            return NO_ANSWER
    else:
        try:
            answer = ControlClient(socket).get("plan")
        except ControlError as error:
            return _said(error)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    return _judge(answer, quiet=as_json)


def ask_reload(socket: Path | None, *, as_json: bool) -> int:
    """Have the daemon read its configuration again."""

    def tell(answer: dict[str, Json]) -> str:
        notes = answer["notes"] if isinstance(answer["notes"], list) else []
        return "\n".join([f"in force: {answer['source']}", *(f"note: {note}" for note in notes)])

    return _post(socket, "reload", {}, tell, as_json=as_json)


def ask_drain(port: str, force: list[str], host: str | None, socket: Path | None, *, as_json: bool) -> int:
    """Move I/O away from a local port."""
    body: dict[str, Json] = {"port": port, "force": list(force), **({} if host is None else {"host": host})}
    return _post(socket, "drain", body, lambda answer: _paths(answer, "drained", "held"), as_json=as_json)


def ask_resume(port: str, host: str | None, socket: Path | None, *, as_json: bool) -> int:
    """Use a drained port again."""
    body: dict[str, Json] = {"port": port, **({} if host is None else {"host": host})}
    return _post(socket, "resume", body, lambda answer: _paths(answer, "resumed", "offered again"), as_json=as_json)


def ask_shutdown(*, dry_run: bool, socket: Path | None, as_json: bool) -> int:
    """Take down maps and connections in order, unless a map is in use."""

    def tell(answer: dict[str, Json]) -> str:
        flushed, kept, removed = (_list(answer, name) for name in ("flushed", "kept", "removed"))
        hosts = [f"host{item['host']} ({item['local_port']})" for item in removed if isinstance(item, dict)]
        would = "would be " if dry_run else ""
        lines = [
            f"maps {would}flushed: {', '.join(map(str, flushed)) or 'none'}",
            f"connections {would}removed: {', '.join(hosts) or 'none'}",
        ]
        if kept:
            lines.append(f"maps that stay, over paths of others: {', '.join(map(str, kept))}")
        return "\n".join(lines)

    return _post(socket, "shutdown", {"dry_run": dry_run}, tell, as_json=as_json, timeout=_SHUTDOWN_LIMIT)


def _post(
    socket: Path | None,
    resource: str,
    body: Json,
    tell: Callable[[dict[str, Json]], str],
    *,
    as_json: bool,
    timeout: float = 60.0,
) -> int:
    try:
        answer = ControlClient(socket, timeout).post(resource, body)
    except ControlError as error:
        return _said(error)
    if not isinstance(answer, dict):
        typer.echo(f"srpha: an answer of another form: {answer!r:.80}", err=True)
        return NO_ANSWER
    typer.echo(json.dumps(answer, indent=2) if as_json else tell(answer))
    return REFUSED if answer.get("refused") else 0


def _said(error: ControlError) -> int:
    for line in str(error).splitlines():
        typer.echo(f"srpha: {line}", err=True)
    return REFUSED if isinstance(error, ControlRefusedError) else NO_ANSWER


def _paths(answer: dict[str, Json], word: str, done: str) -> str:
    maps, paths, refused = (_list(answer, name) for name in ("maps", "paths", "refused"))
    lines = [f"{answer['port']} is {word}; paths {done}: {' '.join(map(str, paths)) or 'none'}"]
    if maps:
        lines.append(f"maps with paths over it: {' '.join(map(str, maps))}")
    lines += [f"not done: {sentence}" for sentence in refused]
    return "\n".join(lines)


def _list(answer: dict[str, Json], name: str) -> list[Json]:
    value = answer.get(name)
    return value if isinstance(value, list) else []


def _judge(answer: Json, *, quiet: bool) -> int:
    """Show every host's plan; 1 when something desired is not there."""
    from rich.console import Console  # noqa: PLC0415

    from srpha.cli.plan_view import plan_view  # noqa: PLC0415
    from srpha.cli.render import documents  # noqa: PLC0415
    from srpha.operate.plan_document import fulfilled  # noqa: PLC0415

    hosts = documents(answer["hosts"] if isinstance(answer, dict) else None)
    if not quiet:
        console = Console(highlight=False)
        console.width = max(console.width, _ROW)
        for document in hosts:
            console.print(plan_view(document), soft_wrap=True)
    return 0 if all(fulfilled(document) for document in hosts) else REFUSED
