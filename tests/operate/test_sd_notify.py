from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from srpha.operate.sd_notify import Notifier


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        yield listener


def heard(systemd: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(systemd.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_messages(systemd: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname()})
    notifier.status("1 port,\n 2 maps")
    notifier.status("1 port, 2 maps")
    notifier.ready()
    notifier.reloading(12345)
    notifier.alive()
    notifier.stopping()
    notifier.close()
    notifier.ready()
    assert heard(systemd) == [
        "STATUS=1 port, 2 maps",
        "READY=1",
        "RELOADING=1\nMONOTONIC_USEC=12345",
        "WATCHDOG=1",
        "STOPPING=1",
    ]


def test_abstract_names() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        name = f"srpha-test-{os.getpid()}"
        listener.bind("\0" + name)
        listener.setblocking(False)
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"})
        notifier.ready()
        notifier.close()
        assert heard(listener) == ["READY=1"]


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_systemd_nothing_is_sent(environment: dict[str, str]) -> None:
    notifier = Notifier({**environment, "WATCHDOG_USEC": "1000000"})
    notifier.ready()
    assert notifier.watchdog_interval is None


def test_a_listener_that_is_gone_or_full_does_no_harm(tmp_path: Path, systemd: socket.socket) -> None:
    away = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nothing")})
    away.ready()
    away.close()
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname()})
    for _ in range(5000):
        notifier.alive()
    notifier.close()
    assert heard(systemd)


@pytest.mark.parametrize(
    ("more", "interval"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_pings_come_twice_as_often_as_needed(
    systemd: socket.socket, more: dict[str, str], interval: float | None
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname(), **more})
    assert notifier.watchdog_interval == interval
    notifier.close()
