"""Repeated measurements and how they are told: median with the spread, and what the machine is."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure measured several times; ``unit`` says of what."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        spread = f"{min(self.values):.4g} to {max(self.values):.4g}" if len(self.values) > 1 else "one run"
        return f"{self.name:<58} {self.median:>12.4g} {self.unit:<8} ({spread}, {len(self.values)} runs)"


@dataclass(slots=True)
class Results:
    """All figures of a run of the benchmarks."""

    figures: list[Figure] = field(default_factory=list)

    def add(self, name: str, unit: str, values: Sequence[float], told: Callable[[str], None]) -> Figure:
        """Keep a figure and tell it."""
        figure = Figure(name, unit, tuple(values))
        self.figures.append(figure)
        told(str(figure))
        return figure

    def write(self, path: Path) -> None:
        """Write everything as JSON, with what the machine is."""
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "machine": {
                "python": platform.python_version(),
                "processor": platform.machine(),
                "cores": os.cpu_count(),
                "load": os.getloadavg(),
            },
            "figures": [{**asdict(figure), "median": figure.median} for figure in self.figures],
        }
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
