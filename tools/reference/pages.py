"""Which part of a page comes from where, and the pages with their parts made anew."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tools.reference.command_line import commands, configuration, configuration_keys, drop_in_usage
from tools.reference.control_api import resources
from tools.reference.facts import events, fault_kinds, pair_statuses, severities, standings
from tools.reference.json_keys import KEYS, document_keys
from tools.reference.machines import error_ladder, remote_port_diagram, remote_port_table
from tools.reference.setting_tables import GROUPS, settings_of
from tools.reference.world_keys import world_keys

DOCS: Final = Path(__file__).parents[2] / "docs"
_PART: Final = re.compile(r"(<!-- from the program: ([^>]+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

PARTS: Final[Mapping[str, Callable[[], str]]] = MappingProxyType(
    {
        "commands": commands,
        "usage of srp_daemon": partial(drop_in_usage, "srp_daemon"),
        "usage of ibsrpdm": partial(drop_in_usage, "ibsrpdm"),
        "configuration": configuration,
        "configuration keys": configuration_keys,
        "control resources": resources,
        "faults": fault_kinds,
        "events": events,
        "severities": severities,
        "standings": standings,
        "pair statuses": pair_statuses,
        "world keys": world_keys,
        "error ladder": error_ladder,
        "remote port, kernel": partial(remote_port_table, "kernel"),
        "remote port, ofed": partial(remote_port_table, "ofed"),
        **{f"keys of {name}": partial(document_keys, name) for name in KEYS},
        **{f"settings of {name}": partial(settings_of, name) for name in GROUPS},
    }
)


def drawn(text: str) -> str:
    """A page's text with its parts made anew. KeyError for a part of a name that is not known."""
    return _PART.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[4]}", text)


def files(docs: Path = DOCS) -> dict[Path, str]:
    """What every page and picture with something from the program should hold."""
    wanted = {
        page: drawn(text)
        for page in sorted(docs.rglob("*.md"))
        if "_build" not in page.parts and _PART.search(text := page.read_text(encoding="utf-8"))
    }
    for mode in ("kernel", "ofed"):
        wanted[docs / "design" / f"remote-port-{mode}.svg"] = remote_port_diagram(mode)
    return wanted


def stale(docs: Path = DOCS) -> list[Path]:
    """Pages and pictures that do not hold what they should."""
    return [path for path, text in files(docs).items() if not path.exists() or path.read_text(encoding="utf-8") != text]
