"""Telling systemd how the service is: sd_notify(3) and sd_watchdog_enabled(3), spoken directly."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

_STATUS_MAX: Final = 256


class Notifier:
    """Sends to ``$NOTIFY_SOCKET``; without one it does nothing. A message that cannot be sent is lost: none matters."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        self._address = ("\0" + name[1:] if name.startswith("@") else name) if name[:1] in ("/", "@") else ""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if self._address else None
        if self._socket is not None:
            self._socket.setblocking(False)
        self._watchdog = _watchdog(environment)
        self._status = ""

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between pings, half of what systemd allows; None: it wants none."""
        return None if self._watchdog is None or self._socket is None else self._watchdog / 2

    def ready(self) -> None:
        """The service works, or works again with what was reloaded."""
        self._send("READY=1")

    def reloading(self, now_usec: int) -> None:
        """The configuration is being read again. ``now_usec`` is CLOCK_MONOTONIC."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_usec}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        """The event loop turns."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; the same line is sent once."""
        line = " ".join(text.split())[:_STATUS_MAX]
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError:
            return  # systemd is not listening; whoever started us will notice by its own timeouts


def _watchdog(environment: Mapping[str, str]) -> float | None:
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not (usec.isascii() and usec.isdecimal() and int(usec) > 0) or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6
