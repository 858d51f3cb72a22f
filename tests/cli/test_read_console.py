"""Commands that print for long, when whoever reads them leaves."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from srpha.cli.read_console import ReadConsole, ReaderLeftError

SRPHA = [sys.executable, "-c", "from srpha.cli.main import main; main()"]


@pytest.mark.realtime
@pytest.mark.parametrize(
    ("arguments", "code"), [(["lab", "up"], 0), (["demo"], 141), (["demo", "--fast"], 141)], ids=["lab", "demo", "fast"]
)
def test_ends_quietly_when_its_reader_leaves(tmp_path: Path, arguments: list[str], code: int) -> None:
    environment = os.environ | {"SRPHA_SOCKET": str(tmp_path / "control.sock")}
    with subprocess.Popen(
        [*SRPHA, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == ""
            assert process.wait(30) == code
        finally:
            process.kill()
    assert list(tmp_path.iterdir()) == []


def pipe() -> ReadConsole:
    """A console whose reader has left already."""
    reading, writing = os.pipe()
    os.close(reading)
    return ReadConsole(file=os.fdopen(writing, "w"))


async def test_work_is_cancelled_where_it_waits() -> None:
    console = pipe()
    done = []

    async def work() -> None:
        console.print("heard by nobody")
        console.print("nor this")
        try:
            await asyncio.sleep(3600)
        finally:
            done.append("tidied")

    with pytest.raises(ReaderLeftError):
        await console.while_read(work())
    assert done == ["tidied"]
    assert asyncio.get_running_loop().time() < 3600
    console.file.close()


async def test_work_that_prints_last_thing() -> None:
    console = pipe()

    async def work() -> int:
        console.print("heard by nobody")
        return 1

    with pytest.raises(ReaderLeftError):
        await console.while_read(work())
    console.file.close()


async def test_a_reader_who_stays(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as file:
        console = ReadConsole(file=file)

        async def work() -> int:
            console.print("heard")
            return 7

        assert await console.while_read(work()) == 7
        interrupted = asyncio.create_task(console.while_read(asyncio.sleep(3600)))
        await asyncio.sleep(1)
        interrupted.cancel()
        with pytest.raises(asyncio.CancelledError):
            await interrupted
    assert (tmp_path / "out").read_text() == "heard\n"
