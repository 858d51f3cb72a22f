"""Client of the control API on its Unix socket, with nothing but the standard library, so that commands start fast."""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

SOCKET_VARIABLE: Final = "SRPHA_SOCKET"
_ANSWER_LIMIT: Final = 64 * 1024 * 1024


class ControlError(Exception):
    """The daemon or lab cannot be reached, or refused; the message is one line with the remedy."""


def default_socket() -> Path:
    """Where the control socket is: ``$SRPHA_SOCKET``, else the run-time directory of the system or of the user."""
    named = os.environ.get(SOCKET_VARIABLE)
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return Path("/run/srpha/control.sock")
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/srpha-{os.geteuid()}"  # noqa: S108 - per user, mode 0700
    return Path(runtime) / "srpha" / "control.sock"


class ControlRefusedError(ControlError):
    """It answered, and refused; the message has one line per reason."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class ControlClient:
    """Requests to one control socket; each opens its own connection. Blocking, for command-line use."""

    def __init__(self, path: Path | None = None, timeout: float = 10.0) -> None:
        self.path = path or default_socket()
        self._timeout = timeout

    def get(self, resource: str, **query: str | int) -> Json:
        """GET ``/v1/<resource>``; raises :class:`ControlError`."""
        suffix = f"?{urlencode(query)}" if query else ""
        return self._request("GET", f"/v1/{quote(resource)}{suffix}", None)

    def post(self, resource: str, body: Json) -> Json:
        """POST a JSON body to ``/v1/<resource>``; raises :class:`ControlError`."""
        return self._request("POST", f"/v1/{quote(resource)}", json.dumps(body).encode())

    def _request(self, method: str, target: str, body: bytes | None) -> Json:
        connection = _UnixConnection(self.path, self._timeout)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            raw = response.read(_ANSWER_LIMIT)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ControlError(
                f"nothing runs at {self.path}: start srpha daemon or srpha lab up first, or give --socket"
            ) from error
        except PermissionError as error:
            raise ControlError(f"{self.path}: no permission; use sudo or join the socket's group") from error
        except TimeoutError as error:
            raise ControlError(f"{self.path}: no answer within {self._timeout:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise ControlError(f"{self.path}: {error or type(error).__name__}") from error
        finally:
            connection.close()
        try:
            answer: Json = json.loads(raw)
        except ValueError as error:
            raise ControlError(f"{self.path}: the answer to {method} {target} is not JSON") from error
        if response.status >= http.client.BAD_REQUEST:
            detail = answer.get("error") if isinstance(answer, dict) else None
            raise ControlRefusedError(str(detail or f"{method} {target}: status {response.status}"))
        return answer
