"""State machines out of their tables: as Markdown tables and as SVG."""

from __future__ import annotations

from html import escape
from typing import Final

from srpha.core.recovery import error_recovery, remote_port
from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.core.recovery.remote_port import RemotePortEvent, RemotePortState
from tools.reference.text import table

_WIDTH: Final = 860
_STEP: Final = 220
_BOX: Final = (120, 40)
_LINE: Final = 14


def remote_port_table(mode: str) -> str:
    """Rows are events, columns states; a cell is the next state and the steps to it, empty where illegal."""
    states = {state: rows for state, rows in _table(mode).items() if rows}
    lines = [
        (f"`{event.value}`", *(_cell(state, rows.get(event)) for state, rows in states.items()))
        for event in RemotePortEvent
        if any(event in rows for rows in states.values())
    ]
    return table(("event", *(f"in `{state.value}`" for state in states)), lines)


def error_ladder() -> str:
    """The rungs of error recovery."""
    rows = [
        (f"`{rung.value}`", f"`{outcome.value}`", verdict.value)
        for (rung, outcome), verdict in error_recovery._TABLE.items()
    ]
    return table(("rung", "answer", "what follows"), rows)


def remote_port_diagram(mode: str) -> str:
    """States in a row; arrows above lead on, arrows below lead back, labelled with their events."""
    rows = _table(mode)
    states = [state for state in RemotePortState if rows[state]]
    place = {state: 90 + number * _STEP for number, state in enumerate(states)}
    edges: dict[tuple[RemotePortState, RemotePortState], list[str]] = {}
    for state in states:
        for event, (to, _) in rows[state].items():
            if to is not state:
                edges.setdefault((state, to), []).append(event.value)
    spans = {edge: abs(states.index(edge[0]) - states.index(edge[1])) for edge in edges}
    above = max([spans[edge] for edge in edges if place[edge[0]] < place[edge[1]]], default=0)
    below = max([spans[edge] for edge in edges if place[edge[0]] > place[edge[1]]], default=0)
    middle = _rise(above) // 2 + 60
    height = middle + 45 + 25 * below
    parts = [_arrow(place[a], place[b], middle, labels) for (a, b), labels in edges.items()]
    parts += [_box(place[state], middle, state.value) for state in states]
    width = place[states[-1]] + 90
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="DejaVu Sans, Arial, sans-serif" font-size="11">\n'
        f"<title>Remote port, {mode} mode</title>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#456"/></marker></defs>\n'
        f'<rect width="{width}" height="{height}" rx="8" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _table(mode: str) -> dict[RemotePortState, dict[RemotePortEvent, tuple[RemotePortState, tuple[object, ...]]]]:
    rows = remote_port._TABLES[RecoveryMode(mode)]
    return {state: {event: (to, tuple(steps)) for event, (to, steps) in line.items()} for state, line in rows.items()}


def _cell(state: RemotePortState, row: tuple[RemotePortState, tuple[object, ...]] | None) -> str:
    if row is None:
        return ""
    to, steps = row
    words = ", ".join(str(getattr(step, "value", step)) for step in steps)
    if to is state:
        return words or "nothing"
    return f"**{to.value}**" + (f": {words}" if words else "")


def _box(x: int, y: int, name: str) -> str:
    width, height = _BOX
    return (
        f'<rect x="{x - width // 2}" y="{y - height // 2}" width="{width}" height="{height}" rx="6" fill="#eef3f8" '
        'stroke="#456"/>'
        f'<text x="{x}" y="{y + 5}" text-anchor="middle" font-size="14" fill="#123">{escape(name)}</text>'
    )


def _rise(span: int) -> int:
    """Height of the middle control point of an arc above; the arc itself rises to half of it, clear of lower labels."""
    return 70 + 160 * (span - 1)


def _arrow(start: int, end: int, y: int, labels: list[str]) -> str:
    """An arc from box to box with its labels on it."""
    on = start < end
    span = abs(end - start) // _STEP
    edge = y - _BOX[1] // 2 if on else y + _BOX[1] // 2
    lift = _rise(span) if on else 50 * span
    apex = edge - lift if on else edge + lift
    shift = 14 * span
    a, b = (start + shift, end - shift) if on else (start - shift, end + shift)
    peak = (edge + apex) / 2
    text_y = peak - 4 - _LINE * (len(labels) - 1) if on else peak + 13
    words = "".join(
        f'<text x="{(a + b) // 2}" y="{text_y + number * _LINE:g}" text-anchor="middle" fill="#234" stroke="#fff" '
        f'stroke-width="3" paint-order="stroke">{escape(label)}</text>'
        for number, label in enumerate(labels)
    )
    path = f'<path d="M{a} {edge}Q{(a + b) // 2} {apex} {b} {edge}" fill="none" stroke="#456" marker-end="url(#tip)"/>'
    return path + words
