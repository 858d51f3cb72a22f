"""Documents drawn as tables for a terminal. Colour repeats what the words say and never says anything alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from srpha.core.connections.reconcile import PairStatus
from srpha.operate.client import Json
from srpha.operate.documents import Document

_SEVERITY: Final = {"info": "", "notice": "cyan", "warning": "yellow", "error": "bold red"}
_GOOD: Final = {"active", "ready", "running", "connected", "optimal", "found", "enabled"}
_BAD: Final = {"failed", "faulty", "lost", "gone", "transport-offline", "fail-fast", "queueing", "offline"}


def word(value: Json) -> Text:
    """A state word with the colour of its meaning."""
    text = "-" if value is None else str(value)
    style = "green" if text in _GOOD else "red" if text in _BAD else "yellow" if text != "-" else "dim"
    return Text(text, style=style)


def event_line(document: Document, start: float = 0.0) -> Text:
    """One event as a line: time, kind, sentence."""
    time = document["time"]
    seconds = (time if isinstance(time, int | float) else 0.0) - start
    severity = str(document["severity"])
    line = Text(f"{seconds:10.3f}  ", style="dim")
    line.append(f"{document['kind']!s:<20} ", style=_SEVERITY.get(severity, "") or "blue")
    line.append(str(document["text"]), style=_SEVERITY.get(severity, ""))
    return line


def paths_table(paths: Sequence[Document], title: str = "Paths") -> Table:
    """Paths of every map: one row per path."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in ("map", "disk", "hctl", "port", "target port", "path", "checker", "device"):
        table.add_column(name, no_wrap=True)
    last = ""
    for path in paths:
        name = str(path["map"])
        table.add_row(
            name if name != last else "",
            str(path["device"]),
            str(path["hctl"]),
            str(path["local_port"] or "-"),
            str(path["target_port"] or "-"),
            word(path["state"]),
            word(path["checker"]),
            word(path["device_state"]),
        )
        last = name
    return table


def pairs_table(pairs: Sequence[Document]) -> Group:
    """Target port by local port, one row each; below them the reasons of those that are not connected.

    The IOC is shown where a target port leads to more than one; ``srpha discover`` shows it always.
    """
    table = Table(title="Connections", title_justify="left", box=None, pad_edge=False, header_style="bold")
    several = len({(pair["target_port"], pair["ioc_guid"]) for pair in pairs}) > len(
        {pair["target_port"] for pair in pairs}
    )
    for name in ("from port", "to target port", *(("IOC",) if several else ())):
        table.add_column(name, no_wrap=True)
    for name in ("status", "host", "remote port", "timers", "credits", "disks"):
        table.add_column(name, no_wrap=True)
    reasons: list[Text] = []
    for pair in pairs:
        timers = pair["timers"]
        devices = pair["devices"]
        host = pair["host"]
        table.add_row(
            str(pair["local_port"]),
            str(pair["target_port"]),
            *((str(pair["ioc_guid"]),) if several else ()),
            word(pair["status"]),
            f"host{host}" if host is not None else "-",
            word(pair["state"]),
            "/".join(_timer(value) for value in timers.values()) if isinstance(timers, dict) else "-",
            str(pair["req_lim"] if pair["req_lim"] is not None else "-"),
            " ".join(str(one["name"]) for one in devices if isinstance(one, dict)) if isinstance(devices, list) else "",
        )
        if pair["status"] != PairStatus.CONNECTED.value and pair["reason"]:
            ends = f"{pair['local_port']} -> {pair['target_port']}: "
            reasons.append(Text(ends, style="dim").append(str(pair["reason"]), style="yellow"))
    return Group(table, "", *reasons) if reasons else Group(table)


def status_view(document: Document) -> Group:
    """The status document: ports, then one line per multipath device.

    ``ports`` counts the local ports and the target ports that its usable paths join.
    """
    maps = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("device", "state", "paths", "ports", "size", "product", "WWID"):
        maps.add_column(name, no_wrap=True)
    for item in documents(document["maps"]):
        size = item["size"]
        maps.add_row(
            str(item["name"]),
            word(item["state"]),
            f"{item['paths_up']} of {item['paths_expected']}",
            f"{item['local_ports']} to {item['target_ports']}",
            _size(size if isinstance(size, int) else 0),
            f"{item['vendor']} {item['product']}",
            str(item["wwid"]),
        )
    ports = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("port", "link", "LID", "SM LID", "notices", ""):
        ports.add_column(name, no_wrap=True)
    for port in documents(document["ports"]):
        ports.add_row(
            str(port["name"]),
            word(port["state"]),
            str(port["lid"] if port["lid"] is not None else "-"),
            str(port["sm_lid"] if port["sm_lid"] is not None else "-"),
            "subscribed" if port["subscribed"] else "-",
            str(port["reason"]),
        )
    healthy = bool(document["healthy"])
    verdict = Text("healthy: every path that should be there is up" if healthy else "degraded: something is missing")
    verdict.stylize("green" if healthy else "yellow")
    unknown = [
        Text(f"{what} could not be read: what is shown may be old or missing", style="red")
        for what, key in (("connections", "connections_known"), ("multipath devices", "maps_known"))
        if not document[key]
    ]
    return Group(Text(f"host {document['host']}: ", style="bold").append_text(verdict), *unknown, "", ports, "", maps)


def discover_view(document: Document) -> Group:
    """The discover document: units, each with its services below it, then what the scans cost."""
    units: list[Text] = []
    for unit in documents(document["units"]):
        head = Text(str(unit["guid"]), style="bold").append(f"  {unit['description']}, LID {unit['lid']}: ", style="")
        units.append(head.append_text(word(unit["standing"])))
        units += [
            Text(
                f"  id_ext {service['id_ext']}, IOC {service['ioc_guid']}, service {service['service_id']}: "
                f"{service['description']}"
            )
            for service in documents(unit["services"])
        ]
        units += [
            Text(f"  {sentence}", style="yellow") for sentence in (unit["reason"], *_list(unit["refused"])) if sentence
        ]
    if not units:
        units.append(Text("no SRP target answers", style="yellow"))
    scans = [
        Text(
            f"scan from {scan['asker']}: {'complete' if scan['complete'] else 'NOT complete: ' + str(scan['reason'])}, "
            f"{scan['queries']} queries, {scan['timeouts']} timeouts, {scan['round_trips']} round trips, "
            f"{float(str(scan['duration'])) * 1000:.1f} ms",
            style="dim" if scan["complete"] else "yellow",
        )
        for scan in documents(document["scans"])
    ]
    return Group(*units, "", *scans)


def steps_panel(document: Document) -> Panel:
    """Verdicts of the scenario's steps and its I/O."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for step in documents(document["steps"]):
        mark = Text("held", style="green") if step["ok"] else Text("FAILED", style="bold red")
        table.add_row(mark, str(step["name"]), str(step["detail"]))
    ok = bool(document["ok"])
    title = "everything held" if ok else "NOT everything held"
    return Panel(table, title=title, title_align="left", border_style="green" if ok else "red")


def _timer(value: Json) -> str:
    return "off" if value is None else str(value)


def _size(count: int) -> str:
    for unit, power in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << power:
            return f"{count / (1 << power):.4g} {unit}"
    return f"{count} B"


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def documents(value: Json) -> list[Document]:
    """The objects in a JSON list; nothing else of it."""
    return [item for item in _list(value) if isinstance(item, dict)]
