from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from srpha.embedded.target.backing import Backing, BackingError, FileBacking, MemoryBacking

Maker = Callable[[int], Backing]


@pytest.fixture(params=["memory", "file"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Maker:
    if request.param == "memory":
        return MemoryBacking
    return lambda size: FileBacking(tmp_path / "disk", size)


def test_fresh_backing_reads_zeros(make: Maker) -> None:
    backing = make(8192)
    assert backing.size == 8192
    assert backing.read(0, 8192) == bytes(8192)
    backing.close()


def test_reads_what_was_written_and_nothing_else_moves(make: Maker) -> None:
    backing = make(4096)
    backing.write(100, b"hello")
    backing.write(105, memoryview(b" world"))
    backing.flush()
    assert backing.read(99, 13) == b"\0hello world\0"
    backing.close()


def test_a_read_is_a_copy(make: Maker) -> None:
    backing = make(512)
    before = backing.read(0, 4)
    backing.write(0, b"late")
    assert before == bytes(4)
    backing.close()


@pytest.mark.parametrize("size", [1024, 16384])
def test_resize_keeps_what_fits(make: Maker, size: int) -> None:
    backing = make(4096)
    backing.write(1000, b"abc")
    backing.resize(size)
    assert backing.size == size
    assert backing.read(1000, 3) == b"abc"
    assert backing.read(size - 1, 1) == b"\0"
    backing.close()


def test_file_survives_its_backing(tmp_path: Path) -> None:
    first = FileBacking(tmp_path / "disk", 1024)
    first.write(512, b"kept")
    first.close()
    second = FileBacking(tmp_path / "disk", 1024)
    assert second.read(512, 4) == b"kept"
    second.close()


def test_a_larger_file_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(4096) + b"beyond")
    FileBacking(path, 4096).close()
    assert path.read_bytes().endswith(b"beyond")


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackingError, match="missing/disk: cannot back a logical unit of 512 bytes: No such file"):
        FileBacking(tmp_path / "missing" / "disk", 512)


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_backing_is_refused(make: Maker, size: int) -> None:
    with pytest.raises(BackingError, match="at least 1 byte"):
        make(size)
