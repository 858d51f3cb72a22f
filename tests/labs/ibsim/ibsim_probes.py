"""The test's side of :mod:`ibsim_probe`: a probe attached to nodes of a fabric."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ibsim_fabric import USUAL, Fabric, Flags, LabError

Message = dict[str, Any]
PROBE = Path(__file__).with_name("ibsim_probe.py")


class Probe:
    """A running probe; ``with`` ends it."""

    def __init__(self, fabric: Fabric, hosts: Sequence[str], flags: Flags = USUAL, *options: str) -> None:
        command = [sys.executable, str(PROBE), *options]
        self._process: subprocess.Popen[str] = fabric.start(hosts, command, flags)
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.ports: list[str] = self.wait("ports")["names"]

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            said = self._process.stderr.read()
            self._thread.join(5)
            for stream in (self._process.stdout, self._process.stderr):
                assert stream is not None
                stream.close()
        if kind is None and (self._process.returncode or said):
            raise LabError(f"the probe ended with {self._process.returncode}: {said}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._messages.put(json.loads(line))
        self._messages.put(None)

    def wait(self, kind: str, fits: Callable[[Message], bool] = lambda _: True, seconds: float = 20.0) -> Message:
        """The next message of a kind that fits; those before it are forgotten."""
        try:
            while (message := self._messages.get(timeout=seconds)) is not None:
                if message["kind"] == kind and fits(message):
                    return message
        except queue.Empty:
            raise AssertionError(f"no {kind} within {seconds} s") from None
        assert self._process.stderr is not None
        raise LabError(f"the probe has ended: {self._process.stderr.read()}")

    def ready(self) -> dict[str, Message]:
        """The identities of all ports once each can be used."""
        found: dict[str, Message] = {}
        while len(found) < len(self.ports):
            message = self.wait("identity", lambda message: not message["trouble"])
            found[message["port"]] = message
        return found

    def silent(self, kind: str, seconds: float) -> bool:
        """Whether no message of a kind comes for a while."""
        try:
            self.wait(kind, seconds=seconds)
        except AssertionError:
            return True
        return False

    def tell(self, command: str) -> None:
        """Give the probe a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def scan(self) -> list[Message]:
        """Scan all subnets now."""
        self.tell("scan")
        found = []
        while (message := self._messages.get(timeout=60)) is not None:
            if message["kind"] == "scan":
                found.append(message)
            if message["kind"] == "scanned":
                return found
        raise LabError("the probe ended while it scanned")
