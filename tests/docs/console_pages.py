"""Commands in Markdown pages: ``console`` blocks found, run in order, and their output compared with what a page shows.

A comment before a block says how it runs; the parts are separated by ``;``::

    <!-- run: skip, REASON -->            not at all
    <!-- run: needs TOOL TOOL -->         only with these programs
    <!-- run: in the background -->       left running; goes on when ``srpha status`` says that all is well
    <!-- run: exit 1 -->                  the last command ends with this code
    <!-- run: file NAME -->               no commands: the block is the content of that file

A line of output counts as shown when a line of the real output is the same but for digits, disk names and blanks; a
line of three dots stands for any others. Commands that only look are repeated for a while until they show it.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_BLOCK: Final = re.compile(
    r"^(?:<!-- run: (?P<how>[^\n]+?) -->\n+)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_LOOKS: Final = ("srpha status", "srpha paths", "srpha events", "srpha discover", "srpha lab dm")
_PATIENCE: Final = 20.0
_LIMIT: Final = 60.0
_TOLD: Final = 3000
"""Characters of an output that is not as shown."""


class CommandError(AssertionError):
    """A page is wrong: the command failed, or printed something else."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command line and the output that the page shows below it."""

    line: str
    shown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a page."""

    language: str
    text: str
    how: tuple[str, ...]

    def said(self, word: str) -> str | None:
        """What follows ``word`` in the comment, None when it is not there."""
        for part in self.how:
            if part == word or part.startswith((f"{word} ", f"{word},")):
                return part[len(word) :].lstrip(" ,")
        return None

    @property
    def commands(self) -> tuple[Command, ...]:
        """The commands of a console block."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found:
                found[-1][1].append(line)
            else:
                raise CommandError(f"output before the first command: {line!r}")
        return tuple(Command(line, tuple(shown)) for line, shown in found)


def blocks_of(text: str) -> tuple[Block, ...]:
    """The blocks of a page that are run or become files, in order."""
    return tuple(
        Block(found["language"], found["text"], how)
        for found in _BLOCK.finditer(text)
        if (how := tuple(part.strip() for part in (found["how"] or "").split(";") if part.strip()))
        or found["language"] == "console"
    )


class Stage:
    """A directory in which the blocks of one page run, and the processes that they leave running."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: list[subprocess.Popen[bytes]] = []
        scripts = str(Path(sys.executable).parent)
        self._environment = {
            **os.environ,
            "PATH": os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)]),
            "SRPHA_SOCKET": "lab.sock",
            "COLUMNS": "100",
            "NO_COLOR": "1",
        }

    def run(self, block: Block) -> None:
        """Run a block. Raises :class:`CommandError`."""
        name = block.said("file")
        if name is not None:
            (self._directory / name).write_text(block.text, encoding="utf-8")
            return
        commands = block.commands
        code = int(block.said("exit") or 0)
        for number, command in enumerate(commands):
            if block.said("in the background") is not None:
                self._start(command)
            else:
                self._run(command, code if number == len(commands) - 1 else 0)

    def close(self) -> None:
        """End what still runs."""
        for process in self._running:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _run(self, command: Command, code: int) -> None:
        patience = time.monotonic() + (_PATIENCE if command.line.startswith(_LOOKS) and command.shown else 0.0)
        while True:
            done = subprocess.run(
                ["bash", "-c", command.line],
                cwd=self._directory,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=_LIMIT,
                check=False,
            )
            output = done.stdout + done.stderr
            missing = _missing(command.shown, output)
            if done.returncode == code and not missing:
                return
            if time.monotonic() > patience:
                break
            time.sleep(0.3)
        if done.returncode != code:
            raise CommandError(f"$ {command.line}\nended with {done.returncode}, not {code}:\n{output}")
        raise CommandError(f"$ {command.line}\ndoes not show {missing!r} but:\n{output[-_TOLD:]}")

    def _start(self, command: Command) -> None:
        shown = self._directory / f"output-{len(self._running)}"
        with shown.open("wb") as output:
            process = subprocess.Popen(
                shlex.split(command.line),
                cwd=self._directory,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._running.append(process)
        self._run(Command("srpha status", ("...",)), 0)
        missing = _missing(command.shown, shown.read_text(encoding="utf-8"))
        if missing:
            raise CommandError(f"$ {command.line}\ndoes not show {missing!r} but:\n{shown.read_text(encoding='utf-8')}")


def _missing(shown: tuple[str, ...], output: str) -> str:
    """The first line shown that the output does not have."""
    real = {_alike(line) for line in output.splitlines()}
    return next((line for line in shown if line.strip() not in ("", "...") and _alike(line) not in real), "")


def _alike(line: str) -> str:
    line = re.sub(r"\bsd[a-z]+\b", "sdX", line)
    return " ".join(re.sub(r"\d+(\.\d+)?", "0", line).split())
