"""``srpha discover``, ``status``, ``paths`` and ``events``: questions to the control API, shown as tables or JSON.

Exit codes: 0 all well, 1 (``status`` only) something is degraded or unknown, 2 no answer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from srpha.operate.client import ControlClient, ControlError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from srpha.operate.documents import Document

NO_ANSWER = 2


def show_discover(*, as_json: bool, socket: Path | None) -> int:
    """Scan and show; a scan takes as long as its slowest target."""
    from srpha.cli.render import discover_view  # noqa: PLC0415

    return _show(socket, "discover", discover_view, as_json=as_json, timeout=60.0, rescan=1)


def show_status(*, as_json: bool, socket: Path | None) -> int:
    """Health of every device; the exit code is for monitoring."""
    from srpha.cli.render import status_view  # noqa: PLC0415

    return _show(socket, "status", status_view, as_json=as_json, judge=lambda document: bool(document["healthy"]))


def show_paths(*, as_json: bool, socket: Path | None) -> int:
    """Pairs and paths."""
    from rich.console import Group  # noqa: PLC0415

    from srpha.cli.render import documents, pairs_table, paths_table  # noqa: PLC0415

    def view(document: Document) -> Group:
        return Group(pairs_table(documents(document["pairs"])), "", paths_table(documents(document["paths"])))

    return _show(socket, "paths", view, as_json=as_json)


def show_events(*, since: int, follow: bool, as_json: bool, socket: Path | None) -> int:
    """Events after number ``since``; with ``follow`` until interrupted."""
    from srpha.cli.render import documents, event_line  # noqa: PLC0415

    client = ControlClient(socket)
    console = _console()
    try:
        while True:
            answer = client.get("events", since=since)
            for event in documents(answer["events"] if isinstance(answer, dict) else None):
                since = int(str(event["number"]))
                if as_json:
                    typer.echo(json.dumps(event))
                else:
                    console.print(event_line(event), soft_wrap=True)
            if not follow:
                return 0
            time.sleep(0.5)
    except ControlError as error:
        return _no_answer(error)
    except KeyboardInterrupt:
        return 0


def _show(
    socket: Path | None,
    resource: str,
    view: Callable[[Document], RenderableType],
    *,
    as_json: bool,
    timeout: float = 10.0,
    judge: Callable[[Document], bool] = lambda _document: True,
    **query: int,
) -> int:
    """Ask for ``resource`` and show every host's document; 1 when ``judge`` says no to any."""
    from srpha.cli.render import documents  # noqa: PLC0415

    try:
        answer = ControlClient(socket, timeout).get(resource, **query)
    except ControlError as error:
        return _no_answer(error)
    hosts = documents(answer["hosts"] if isinstance(answer, dict) else None)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    else:
        console = _console()
        for number, document in enumerate(hosts):
            if number:
                console.print()
            console.print(view(document))
    return 0 if all(judge(document) for document in hosts) else 1


def _no_answer(error: ControlError) -> int:
    typer.echo(f"srpha: {error}", err=True)
    return NO_ANSWER


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415

    console = Console(highlight=False)
    # A table must not lose columns in a pipe or a narrow window: rows wrap at the terminal, not in the table.
    console.width = max(console.width, 160)
    return console
