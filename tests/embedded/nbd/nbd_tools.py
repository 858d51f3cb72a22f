"""Running NBD clients that others wrote, always under a time limit: a bad server may leave them waiting for ever."""

from __future__ import annotations

import asyncio
from pathlib import Path

TIMED_OUT = -1


async def run_tool(*command: str, cwd: Path, limit: float = 60.0) -> tuple[int, str]:
    """Exit code and output of a tool; the code is :data:`TIMED_OUT` when it had to be killed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=cwd,
    )
    try:
        async with asyncio.timeout(limit):
            output, _ = await process.communicate()
    except TimeoutError:
        return TIMED_OUT, ""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


def fio(uri: str, *options: str) -> list[str]:
    """fio writing at random, then reading everything back and comparing checksums."""
    return [
        "fio",
        "--name=verify",
        "--ioengine=nbd",
        f"--uri={uri}",
        "--rw=randwrite",
        "--bs=4k",
        "--iodepth=16",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--randseed=1",
        *options,
    ]
