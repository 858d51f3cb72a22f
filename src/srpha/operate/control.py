"""The control API: HTTP and JSON over a Unix socket. ``srpha`` commands are its clients.

========  ==================  ===========================================================================
method    resource            what it does
========  ==================  ===========================================================================
GET       /v1/status          ports and multipath devices of every host (``status_document``)
GET       /v1/discover        I/O units and their SRP services; ``?rescan=1`` scans first and waits for it
GET       /v1/paths           pairs of local and target port, and paths (``paths_document``)
GET       /v1/events          events after ``?since=NUMBER``
GET       /v1/load            the verified load of a lab, by host and device
GET       /v1/faults          the faults that can be injected into a lab, and their arguments
POST      /v1/faults          ``{"fault": "link-down host1-a/1"}`` injects one
POST      /v1/stop            ends a lab
========  ==================  ===========================================================================

An error is ``{"error": "one sentence"}`` with status 400 (the request is wrong), 404 or 405.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from srpha.daemon.snapshot import Snapshot
from srpha.operate.client import ControlError, Json
from srpha.operate.documents import (
    Document,
    discover_document,
    event_document,
    paths_document,
    status_document,
)
from srpha.operate.event_log import EventLog

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_RESCAN_LIMIT: Final = 30.0
_BODY_LIMIT: Final = 65536
_SOCKET_MODE: Final = 0o660


class SupervisedHost(Protocol):
    """What the API needs of a daemon: its state, and a scan on request."""

    def snapshot(self) -> Snapshot: ...
    def rescan(self) -> None: ...


class LabControls(Protocol):
    """What a lab offers on top: faults, its load, its end."""

    def fault_usage(self) -> Mapping[str, str]:
        """Kinds of faults and the words after each."""
        ...

    def inject(self, text: str) -> str:
        """Carry a fault out and return its full text; raises ValueError with one line."""
        ...

    def load_document(self) -> Document: ...
    def stop(self) -> None: ...


def control_app(hosts: Mapping[str, SupervisedHost], log: EventLog, lab: LabControls | None = None) -> Starlette:
    """The API over the daemons ``hosts`` (by host name), their events, and a lab's controls."""

    def snapshots(render: Callable[[Snapshot, str], Document]) -> JSONResponse:
        documents: list[Json] = [render(host.snapshot(), name) for name, host in hosts.items()]
        return JSONResponse({"hosts": documents})

    async def status(_request: Request) -> JSONResponse:
        return snapshots(status_document)

    async def paths(_request: Request) -> JSONResponse:
        return snapshots(lambda snapshot, name: {"host": name, **paths_document(snapshot)})

    async def discover(request: Request) -> JSONResponse:
        if _number(request, "rescan"):
            await asyncio.gather(*(_rescan(host) for host in hosts.values()))
        return snapshots(lambda snapshot, name: {"host": name, **discover_document(snapshot)})

    async def events(request: Request) -> JSONResponse:
        found: list[Json] = [event_document(logged) for logged in log.since(_number(request, "since"))]
        return JSONResponse({"last": log.last, "events": found})

    async def load(_request: Request) -> JSONResponse:
        return JSONResponse(_lab(lab).load_document())

    async def faults(_request: Request) -> JSONResponse:
        return JSONResponse({"faults": dict(_lab(lab).fault_usage())})

    async def inject(request: Request) -> JSONResponse:
        controls = _lab(lab)
        body = await _body(request)
        text = body.get("fault")
        if not isinstance(text, str):
            raise HTTPException(400, 'the body must be {"fault": "KIND ARGUMENTS"}')
        try:
            return JSONResponse({"injected": controls.inject(text)})
        except ValueError as error:
            raise HTTPException(400, str(error)) from error

    async def stop(_request: Request) -> JSONResponse:
        _lab(lab).stop()
        return JSONResponse({"stopping": True})

    async def failed(_request: Request, error: Exception) -> JSONResponse:
        status = error.status_code if isinstance(error, HTTPException) else 500
        detail = error.detail if isinstance(error, HTTPException) else "internal error; see the log"
        return JSONResponse({"error": detail}, status)

    return Starlette(
        routes=[
            Route("/v1/status", status),
            Route("/v1/discover", discover),
            Route("/v1/paths", paths),
            Route("/v1/events", events),
            Route("/v1/load", load),
            Route("/v1/faults", faults, methods=["GET"]),
            Route("/v1/faults", inject, methods=["POST"]),
            Route("/v1/stop", stop, methods=["POST"]),
        ],
        exception_handlers={HTTPException: failed},
    )


async def serve_control(app: Starlette, listener: socket.socket) -> None:
    """Serve ``app`` on a socket from :func:`listening` until cancelled."""
    server = _Server(uvicorn.Config(app, log_level="warning", lifespan="off", access_log=False))
    try:
        await server.serve(sockets=[listener])
    finally:
        # Cancelled, uvicorn leaves its listener in the loop, where the next socket of that number would go unheard.
        for listening_server in getattr(server, "servers", ()):
            listening_server.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process's own loop decides when to end."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A Unix socket at ``path`` with mode 0660; a leftover of a dead process is replaced, a live one is not.

    Raises :class:`ControlError` when it cannot be had.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _clear_leftover(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o777 & ~_SOCKET_MODE)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
    except OSError as error:
        raise ControlError(f"{path}: the control socket cannot be made: {error.strerror or error}") from error
    listener.setblocking(False)
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


def _clear_leftover(path: Path) -> None:
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise ControlError(f"{path} exists and is no socket; name another with --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise ControlError(f"something runs at {path} already; stop it, or name another socket with --socket")


async def _rescan(host: SupervisedHost) -> None:
    before = host.snapshot().totals.scans
    host.rescan()
    deadline = asyncio.get_running_loop().time() + _RESCAN_LIMIT
    # A scan is over when the snapshot says so; there is no other sign.
    while host.snapshot().totals.scans == before and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def _body(request: Request) -> dict[str, Json]:
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > _BODY_LIMIT:
            raise HTTPException(413, f"the body is longer than {_BODY_LIMIT} bytes")
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return body


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "0")
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise HTTPException(400, f"{name}={text[:32]!r}: a number from 0 up is expected")
    return int(text)


def _lab(lab: LabControls | None) -> LabControls:
    if lab is None:
        raise HTTPException(404, "this is a daemon on a real host, not a lab: it has no faults and no load")
    return lab
