"""The control socket as others see it before the API is served on it, and what a daemon does not offer."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from starlette.types import Message

from srpha.operate.client import ControlError
from srpha.operate.control import control_app, listening
from srpha.operate.event_log import EventLog


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


@pytest.mark.parametrize("resource", ["load", "dm", "faults"])
async def test_a_daemon_on_a_real_host_has_nothing_of_a_lab(resource: str) -> None:
    answers: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        answers.append(message)

    scope = {"type": "http", "method": "GET", "path": f"/v1/{resource}", "query_string": b"", "headers": []}
    await control_app({}, EventLog())(scope, receive, send)
    start, body = answers
    assert start["status"] == 404
    assert "not a lab" in json.loads(body["body"])["error"]
