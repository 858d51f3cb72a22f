"""The plan document drawn for a terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from srpha.cli.render import documents, word
from srpha.core.connections.pairs import PairStatus
from srpha.operate.documents import Document


def plan_view(document: Document) -> Group:
    """Local ports and target ports that cannot be used, then every pair, and why it is not connected."""
    parts: list[Table | Text] = []
    for port in documents(document["ports"]):
        if port["drained"] or not port["usable"]:
            what = "is drained" if port["drained"] else f"cannot be used: {port['reason']}"
            parts.append(Text(f"{port['name']} {what}", style="yellow"))
    parts += [
        Text(f"{target['target_port']} is {target['standing']}: {target['reason']}", style="yellow")
        for target in documents(document["targets"])
        if target["standing"] != "found"
    ]
    pairs = documents(document["pairs"])
    if pairs:
        parts += [_pairs(pairs), *_reasons(pairs)]
    else:
        parts.append(Text("no target port is known to any local port"))
    for other in documents(document["others"]):
        ends = f"{other['local_port'] or '?'} -> {other['target_port'] or '?'}"
        parts.append(Text(f"host{other['host']} ({ends}) is left alone: {other['reason']}", style="dim"))
    troubles = document["troubles"]
    parts += [Text(str(trouble), style="red") for trouble in (troubles if isinstance(troubles, list) else [])]
    return Group(*parts)


def _pairs(pairs: list[Document]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("from port", "to target port", "desired", "actual", "status"):
        table.add_column(name, no_wrap=True)
    for pair in pairs:
        table.add_row(
            str(pair["local_port"]),
            str(pair["target_port"]),
            "yes" if pair["desired"] else "no",
            f"host{pair['host']} {pair['actual']}" if pair["host"] is not None else "-",
            word(pair["status"]),
        )
    return table


def _reasons(pairs: list[Document]) -> list[Text]:
    """Why a pair is not connected, a line each."""
    reasons: list[Text] = []
    for pair in pairs:
        if pair["status"] != PairStatus.CONNECTED.value and pair["reason"]:
            wait = pair["next_attempt_in"]
            later = f"; next try in {wait:.0f} s" if isinstance(wait, int | float) else ""
            ends = f"{pair['local_port']} -> {pair['target_port']}: "
            reasons.append(Text(ends, style="dim").append(f"{pair['reason']}{later}", style="yellow"))
    return reasons and [Text(), *reasons]
