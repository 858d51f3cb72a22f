"""The control socket as others see it before the API is served on it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from srpha.operate.client import ControlError
from srpha.operate.control import listening


def test_a_socket_that_is_seen_takes_calls(tmp_path: Path) -> None:
    """From bind to the server's first turn of the loop there is a while; a caller waits, it is not refused."""
    path = tmp_path / "control.sock"
    with listening(path), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(str(path))
    assert not path.exists()


def test_a_socket_that_is_not_served_yet_is_no_leftover(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with listening(path), pytest.raises(ControlError, match="something runs at"), listening(path):
        pass
    with listening(path):
        assert path.is_socket()


def test_a_leftover_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with listening(path), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.connect(str(path))
