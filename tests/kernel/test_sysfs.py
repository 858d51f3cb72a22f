from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.kernel.sysfs import AttributeGoneError, Sysfs, numbered, parse_integer
from srpha.wire.identifiers import Gid


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


def put(sysfs: Sysfs, text: str | bytes) -> None:
    (sysfs.root / "a").write_bytes(text if isinstance(text, bytes) else text.encode())


def test_a_line_is_read_without_its_end(sysfs: Sysfs) -> None:
    put(sysfs, "4: ACTIVE\n")
    assert sysfs.read("a") == sysfs.text("a") == "4: ACTIVE"
    assert sysfs.holds("a", "4: ACTIVE")
    assert not sysfs.holds("a", "4: ACT")


@pytest.mark.parametrize("data", [b"", b"\n", b"two\nlines\n", b"a\x1b[2Jb", b"\xff\xfe", b"a\0b", "\u00e4".encode()])
def test_what_is_no_line_of_plain_text_is_unknown(sysfs: Sysfs, data: bytes) -> None:
    put(sysfs, data)
    assert sysfs.text("a") is None
    with pytest.raises(OSError, match="not a line of plain text"):
        sysfs.read("a")


def test_absent_is_something_else_than_unreadable(sysfs: Sysfs) -> None:
    with pytest.raises(AttributeGoneError):
        sysfs.read("nowhere")
    with pytest.raises(AttributeGoneError):
        sysfs.write("nowhere", "x")
    (sysfs.root / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        sysfs.read("directory")
    assert sysfs.text("nowhere") is sysfs.text("directory") is None
    assert not sysfs.holds("nowhere", "x")
    assert not sysfs.holds("directory", "x")


@pytest.mark.parametrize("code", [errno.ENODEV, errno.ENXIO, errno.ENOENT])
def test_an_attribute_that_vanishes_while_it_is_read_is_gone(
    sysfs: Sysfs, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(sysfs, "x\n")

    def read(descriptor: int, size: int) -> bytes:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "read", read)
    with pytest.raises(AttributeGoneError):
        sysfs.read("a")
    assert not sysfs.holds("a", "x")


def test_a_pipe_holds_nobody(sysfs: Sysfs) -> None:
    os.mkfifo(sysfs.root / "a")
    assert sysfs.text("a") is None


@pytest.mark.parametrize(
    ("text", "bits", "value"),
    [("0xffff", 16, 0xFFFF), ("ffff", 16, 0xFFFF), ("0x10000", 16, None), ("0x", 16, None), ("-1", 16, None),
     ("0x" + "f" * 16, 64, (1 << 64) - 1), ("f" * 17, 64, None), ("\u0661", 16, None), ("1,2", 16, None)],
)  # fmt: skip
def test_hexadecimal(sysfs: Sysfs, text: str, bits: int, value: int | None) -> None:
    put(sysfs, text + "\n")
    assert sysfs.hexadecimal("a", bits) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("-1", -1), ("007", 7), ("2147483647", 2147483647), ("2147483648", None), ("-2147483648", -2147483648),
     ("1.5", None), ("", None), (None, None), ("\u0661", None), ("1_0", None)],
)  # fmt: skip
def test_integers(text: str | None, value: int | None) -> None:
    assert parse_integer(text) == value


def test_names_and_gids(sysfs: Sysfs) -> None:
    put(sysfs, "mlx5_0\n")
    assert sysfs.name("a") == "mlx5_0"
    put(sysfs, "../mlx5_0\n")
    assert sysfs.name("a") is None
    put(sysfs, "fe80:0000:0000:0000:0002:c903:00a1:0001\n")
    assert sysfs.gid("a") == Gid(0xFE80000000000000, 0x0002C90300A10001)
    put(sysfs, "fe80::1\n")
    assert sysfs.gid("a") is None


def test_directories_give_only_names_the_kernel_could_have_given(sysfs: Sysfs) -> None:
    for name in ("host1", "host10", "port-1:1", ".hidden", "with blank", "x" * 100, "\u00fc"):
        (sysfs.root / name).mkdir()
    assert sysfs.names(".") == ("host1", "host10", "port-1:1")
    assert sysfs.names("nowhere") == ()
    put(sysfs, "x")
    assert sysfs.names("a") == ()


def test_numbers_order_as_numbers() -> None:
    names = ("host1", "host10", "host9", "hosts", "host", "host1x", "other3", "host" + "9" * 12)
    assert list(numbered(names, "host")) == [(1, "host1"), (9, "host9"), (10, "host10")]


def test_writes_go_in_one_piece(sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    put(sysfs, "")
    sysfs.write("a", "off")
    assert (sysfs.root / "a").read_text() == "off"
    monkeypatch.setattr(os, "write", lambda descriptor, data: len(data) - 1)
    with pytest.raises(OSError, match="only 2 of 3 bytes"):
        sysfs.write("a", "off")


@given(st.binary(max_size=200))
def test_any_content_is_safe(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    sysfs = Sysfs(tmp_path_factory.mktemp("sys", numbered=True))
    put(sysfs, data)
    text = sysfs.text("a")
    assert text is None or (text.isascii() and text.isprintable() and text == text.strip())
