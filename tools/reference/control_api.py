"""The control API's resources, from the table in its module."""

from __future__ import annotations

import re

from srpha.operate import control
from tools.reference.text import plain, table


def resources() -> str:
    """Method, resource and meaning."""
    rows = re.findall(r"^(GET|POST)\s+(\S+)\s+(.+)$", control.__doc__ or "", re.MULTILINE)
    return table(
        ("method", "resource", "what it does"), [(method, f"`{path}`", plain(what)) for method, path, what in rows]
    )
