"""Which ports are drained, on disk: a drain ends with ``srpha resume`` or a boot, not with the daemon."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

_SIZE_MAX: Final = 1 << 16
_PORT: Final = re.compile(r"[A-Za-z0-9_.:-]{1,63}/[0-9]{1,3}", re.ASCII)


def read_drains(path: Path) -> dict[str, tuple[str, ...]]:
    """Drained ports and the maps that were named with each. Raises ValueError with one line."""
    try:
        raw = path.read_bytes()[: _SIZE_MAX + 1]
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; what was drained is not known") from error
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not what srpha wrote; what was drained is not known") from error
    if not isinstance(found, dict) or not all(
        _PORT.fullmatch(port) and isinstance(maps, list) and all(isinstance(name, str) for name in maps)
        for port, maps in found.items()
    ):
        raise ValueError(f"{path} is not what srpha wrote; what was drained is not known")
    return {port: tuple(maps) for port, maps in found.items()}


def write_drains(path: Path, drained: Mapping[str, Collection[str]]) -> None:
    """Put it down, whole or not at all; nothing drained leaves no file. Raises OSError."""
    if not drained:
        path.unlink(missing_ok=True)
        return
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(json.dumps({port: list(maps) for port, maps in drained.items()}) + "\n", encoding="utf-8")
    os.replace(fresh, path)
