from __future__ import annotations

import io

from rich.console import Console

from srpha.cli.plan_view import plan_view
from srpha.operate.documents import Document


def pair(**changed: object) -> Document:
    made: dict[str, object] = {
        "local_port": "mlx5_0/1",
        "target_port": "0200535250000601",
        "desired": True,
        "actual": "running",
        "status": "connected",
        "reason": "host12 is running",
        "host": 12,
        "next_attempt_in": None,
    }
    return made | changed  # type: ignore[return-value]


def shown(*pairs: Document, columns: int = 160) -> list[str]:
    document: Document = {"ports": [], "targets": [], "pairs": list(pairs), "others": [], "troubles": []}
    console = Console(file=io.StringIO(), width=columns)
    console.print(plan_view(document), soft_wrap=True)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_rows_fit_a_terminal_and_reasons_stand_below() -> None:
    sentence = "login refused: " + "the target has no resources left " * 5
    lines = shown(
        pair(actual="transport-offline", status="target-silent"),
        pair(status="backing-off", actual=None, host=None, reason=sentence.strip(), next_attempt_in=12.4),
        pair(),
    )
    assert max(len(line) for line in lines[:4]) <= 100
    assert [line.split()[0] for line in lines[:4]] == ["from", "mlx5_0/1", "mlx5_0/1", "mlx5_0/1"]
    assert lines[4:] == [
        "",
        "mlx5_0/1 -> 0200535250000601: host12 is running",
        f"mlx5_0/1 -> 0200535250000601: {sentence.strip()}; next try in 12 s",
    ]


def test_nothing_below_when_all_is_connected() -> None:
    assert len(shown(pair(), pair())) == 3
    assert shown() == ["no target port is known to any local port"]
