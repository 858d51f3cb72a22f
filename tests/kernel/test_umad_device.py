"""The system calls themselves, on descriptors that behave as far as an ordinary user can have them."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest

from srpha.kernel.umad_abi import ENABLE_PKEY, Agent
from srpha.kernel.umad_device import CharacterDevice, UmadDevice


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Opened for both, a FIFO gives back what was written."""
    path = tmp_path / "umad0"
    os.mkfifo(path)
    return path


def test_a_node_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CharacterDevice(tmp_path / "umad0")


def test_what_is_written_can_be_read_and_then_there_is_nothing(fifo: Path) -> None:
    device = UmadDevice(CharacterDevice(fifo))
    device.write(b"packet")
    assert bytes(device.read()) == b"packet"
    with pytest.raises(BlockingIOError):
        device.read()
    device.close()


def test_a_write_that_is_cut_short_is_an_error(fifo: Path) -> None:
    device = UmadDevice(CharacterDevice(fifo))
    with pytest.raises(OSError, match=r"the kernel took \d+ of 1000000 bytes"):
        device.write(bytes(1_000_000))
    device.close()


def test_something_else_than_a_umad_device(fifo: Path) -> None:
    device = UmadDevice(CharacterDevice(fifo))
    for call in (device.enable_pkeys, lambda: device.register(Agent(3, 2))):
        with pytest.raises(OSError, match="Inappropriate ioctl") as caught:
            call()
        assert caught.value.errno == errno.ENOTTY
    device.close()


def test_an_ioctl_without_argument(fifo: Path) -> None:
    descriptor = CharacterDevice(fifo)
    with pytest.raises(OSError, match="Inappropriate"):
        descriptor.ioctl(ENABLE_PKEY, None)
    descriptor.close()


@pytest.mark.realtime
async def test_the_loop_says_when_there_is_something(fifo: Path) -> None:
    device = UmadDevice(CharacterDevice(fifo))
    ready = asyncio.Event()
    device.watch(ready.set)
    device.write(b"x")
    async with asyncio.timeout(5):
        await ready.wait()
    assert bytes(device.read()) == b"x"
    device.close()


def test_a_closed_device_takes_nothing(fifo: Path) -> None:
    descriptor = CharacterDevice(fifo)
    descriptor.close()
    descriptor.close()
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        descriptor.write(b"x")
    assert caught.value.errno == errno.EBADF


def test_a_descriptor_stays_open_while_another_thread_writes(fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be another file's once it is closed."""
    descriptor = CharacterDevice(fifo)
    entered, leave = threading.Event(), threading.Event()
    closed: list[int] = []
    number: list[int] = []
    close = os.close

    def slow_write(target: int, data: bytes) -> int:
        number.append(target)
        entered.set()
        assert leave.wait(5)
        return len(data)

    def note_close(target: int) -> None:
        closed.append(target)
        close(target)

    monkeypatch.setattr(os, "write", slow_write)
    monkeypatch.setattr(os, "close", note_close)
    thread = threading.Thread(target=descriptor.write, args=(b"x",))
    thread.start()
    assert entered.wait(5)
    descriptor.close()
    assert closed == []
    leave.set()
    thread.join(5)
    assert closed == number
