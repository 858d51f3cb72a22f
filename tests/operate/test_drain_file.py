from __future__ import annotations

from pathlib import Path

import pytest

from srpha.operate.drain_file import read_drains, write_drains


def test_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "drained.json"
    assert read_drains(path) == {}
    write_drains(path, {"mlx5_0/1": ("mpatha",), "mlx5_1/1": ()})
    assert read_drains(path) == {"mlx5_0/1": ("mpatha",), "mlx5_1/1": ()}
    write_drains(path, {})
    assert list(tmp_path.iterdir()) == []
    write_drains(path, {})


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", '{"a": []}', '{"mlx5_0/1": "x"}', '{"mlx5_0/1": [1]}', '{"../x/1": []}', "\xff", "[" * 60000],
)
def test_what_srpha_did_not_write_is_not_believed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "drained.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="what was drained is not known"):
        read_drains(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Is a directory"):
        read_drains(tmp_path)
