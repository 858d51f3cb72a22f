"""The control API: HTTP and JSON over a Unix socket. ``srpha`` commands are its clients.

========  ==================  ===========================================================================
method    resource            what it does
========  ==================  ===========================================================================
GET       /v1/status          ports and multipath devices of every host (``status_document``)
GET       /v1/discover        I/O units and their SRP services; ``?rescan=1`` scans first and waits for it
GET       /v1/paths           pairs of local and target port, and paths (``paths_document``)
GET       /v1/plan            what is desired, what is, and why they differ (``plan_document``)
GET       /v1/events          events after ``?since=NUMBER``
POST      /v1/drain           ``{"port": "mlx5_0/1", "force": ["mpatha"]}`` moves I/O away from a local port
POST      /v1/resume          ``{"port": "mlx5_0/1"}`` uses it again
POST      /v1/reload          reads a daemon's configuration again
POST      /v1/shutdown        ``{"dry_run": true}`` removes a daemon's maps and connections unless one is in use
GET       /v1/load            the verified load of a lab, by host and device
GET       /v1/dm              dm-multipath's table and status line of every map of a lab, by host and map
GET       /v1/faults          the faults that can be injected into a lab, and their arguments
POST      /v1/faults          ``{"fault": "link-down host1-a/1"}`` injects one
POST      /v1/stop            ends a lab
========  ==================  ===========================================================================

An error is ``{"error": "one line per problem"}`` with status 400 (the request is wrong), 404, 405 or 409 (refused).
Draining and resuming take ``"host"`` as well where there are several.
"""

from __future__ import annotations

import asyncio
import grp
import json
import os
import socket
import stat
from collections.abc import Callable, Collection, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from srpha.daemon.drains import DrainRefusedError, DrainReport
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
from srpha.operate.plan_document import plan_document

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_RESCAN_LIMIT: Final = 30.0
_BODY_LIMIT: Final = 65536
_SOCKET_MODE: Final = 0o660
_BACKLOG: Final = 64


class SupervisedHost(Protocol):
    """What the API needs of a daemon: its state, and a scan on request."""

    def snapshot(self) -> Snapshot: ...
    def rescan(self) -> None: ...
    async def drain(self, port: str, force: Collection[str] = ()) -> DrainReport:
        """Move I/O away from a local port; raises :class:`~srpha.daemon.drains.DrainRefusedError`."""
        ...

    async def resume(self, port: str) -> DrainReport:
        """Use it again; raises :class:`~srpha.daemon.drains.DrainRefusedError`."""
        ...


class RefusedError(Exception):
    """What was asked for was not done, for reasons that the message gives, one per line."""


class ServiceControls(Protocol):
    """What a daemon on a real host offers on top."""

    async def reload_document(self) -> Document:
        """Read the configuration again; raises :class:`RefusedError`."""
        ...

    async def shutdown_document(self, *, dry_run: bool) -> Document:
        """Remove maps and connections, then end; raises :class:`RefusedError`."""
        ...


class LabControls(Protocol):
    """What a lab offers on top: faults, its load, its maps as dm-multipath tells them, its end."""

    def fault_usage(self) -> Mapping[str, str]:
        """Kinds of faults and the words after each."""
        ...

    def inject(self, text: str) -> str:
        """Carry a fault out and return its full text; raises ValueError with one line."""
        ...

    def load_document(self) -> Document: ...
    def dm_document(self) -> Document:
        """``{"hosts": {HOST: {MAP: {"table": LINE, "status": LINE}}}}``, maps by name."""
        ...

    def stop(self) -> None: ...


def control_app(
    hosts: Mapping[str, SupervisedHost],
    log: EventLog,
    lab: LabControls | None = None,
    service: ServiceControls | None = None,
) -> Starlette:
    """The API over the daemons ``hosts`` (by host name), their events, and the controls of a lab or of a service."""

    def snapshots(render: Callable[[Snapshot, str], Document]) -> JSONResponse:
        documents: list[Json] = [render(host.snapshot(), name) for name, host in hosts.items()]
        return JSONResponse({"hosts": documents})

    async def status(_request: Request) -> JSONResponse:
        return snapshots(status_document)

    async def paths(_request: Request) -> JSONResponse:
        return snapshots(lambda snapshot, name: {"host": name, **paths_document(snapshot)})

    async def plan(_request: Request) -> JSONResponse:
        return snapshots(lambda snapshot, name: {"host": name, **plan_document(snapshot)})

    async def drain(request: Request) -> JSONResponse:
        body = await _body(request)
        force = body.get("force", [])
        if not isinstance(force, list) or not all(isinstance(name, str) for name in force):
            raise HTTPException(400, "force must be a list of names of maps")
        return _drain_answer(await _host(hosts, body).drain(_port(body), [str(name) for name in force]))

    async def resume(request: Request) -> JSONResponse:
        body = await _body(request)
        return _drain_answer(await _host(hosts, body).resume(_port(body)))

    async def reload(_request: Request) -> JSONResponse:
        return JSONResponse(await _service(service).reload_document())

    async def shutdown(request: Request) -> JSONResponse:
        dry_run = (await _body(request)).get("dry_run", False)
        if not isinstance(dry_run, bool):
            raise HTTPException(400, "dry_run must be true or false")
        return JSONResponse(await _service(service).shutdown_document(dry_run=dry_run))

    async def discover(request: Request) -> JSONResponse:
        if _number(request, "rescan"):
            await asyncio.gather(*(_rescan(host) for host in hosts.values()))
        return snapshots(lambda snapshot, name: {"host": name, **discover_document(snapshot)})

    async def events(request: Request) -> JSONResponse:
        found: list[Json] = [event_document(logged) for logged in log.since(_number(request, "since"))]
        return JSONResponse({"last": log.last, "events": found})

    async def load(_request: Request) -> JSONResponse:
        return JSONResponse(_lab(lab).load_document())

    async def dm(_request: Request) -> JSONResponse:
        return JSONResponse(_lab(lab).dm_document())

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

    async def refused(_request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 409)

    return Starlette(
        routes=[
            Route("/v1/status", status),
            Route("/v1/discover", discover),
            Route("/v1/paths", paths),
            Route("/v1/plan", plan),
            Route("/v1/events", events),
            Route("/v1/drain", drain, methods=["POST"]),
            Route("/v1/resume", resume, methods=["POST"]),
            Route("/v1/reload", reload, methods=["POST"]),
            Route("/v1/shutdown", shutdown, methods=["POST"]),
            Route("/v1/load", load),
            Route("/v1/dm", dm),
            Route("/v1/faults", faults, methods=["GET"]),
            Route("/v1/faults", inject, methods=["POST"]),
            Route("/v1/stop", stop, methods=["POST"]),
        ],
        exception_handlers={HTTPException: failed, DrainRefusedError: refused, RefusedError: refused},
    )


async def serve_control(app: Starlette, listener: socket.socket) -> None:
    """Serve ``app`` on a socket from :func:`listening` until cancelled."""
    server = _Server(uvicorn.Config(app, log_level="warning", lifespan="off", access_log=False, date_header=False))
    try:
        await server.serve(sockets=[listener])
    finally:
        # Cancelled, uvicorn leaves its listener in the loop, where the next socket of that number would go unheard.
        for listening_server in getattr(server, "servers", ()):
            listening_server.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process's own loop decides when to end. Nor does it tick while idle."""

    async def main_loop(self) -> None:
        """Until cancelled; the ticks are for limits and a Date header that a Unix socket does without."""
        await asyncio.get_running_loop().create_future()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@contextmanager
def listening(path: Path, group: str | None = None) -> Iterator[socket.socket]:
    """A Unix socket at ``path`` with mode 0660; a leftover of a dead process is replaced, a live one is not.

    ``group`` may use it as well. Raises :class:`ControlError` when it cannot be had.
    """
    try:
        number = -1 if group is None else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise ControlError(f"{path}: there is no group {group!r} to give the control socket to") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if group is None else 0o755)
        _clear_leftover(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o777 & ~_SOCKET_MODE)
        try:
            listener.bind(str(path))
            os.chown(path, -1, number)
            # At once: whoever sees the path may call, and a socket that nobody listens on looks like a leftover.
            listener.listen(_BACKLOG)
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


def _host(hosts: Mapping[str, SupervisedHost], body: Mapping[str, Json]) -> SupervisedHost:
    """The host that a request means: the only one unless it names one."""
    name = body.get("host")
    if name is None and len(hosts) == 1:
        return next(iter(hosts.values()))
    if not isinstance(name, str) or name not in hosts:
        raise HTTPException(400, f"host must name one of {', '.join(hosts)}")
    return hosts[name]


def _port(body: Mapping[str, Json]) -> str:
    port = body.get("port")
    if not isinstance(port, str):
        raise HTTPException(400, 'the body must be {"port": "DEVICE/PORT"}')
    return port


def _drain_answer(report: DrainReport) -> JSONResponse:
    return JSONResponse(
        {
            "port": report.port,
            "maps": list(report.maps),
            "paths": list(report.paths),
            "refused": list(report.refused),
        }
    )


def _service(service: ServiceControls | None) -> ServiceControls:
    if service is None:
        raise HTTPException(
            404, "this is a lab, not a daemon on a real host: end it with 'srpha lab down'; it has no configuration"
        )
    return service


def _lab(lab: LabControls | None) -> LabControls:
    if lab is None:
        raise HTTPException(
            404, "this is a daemon on a real host, not a lab: it has no faults and no load; dmsetup shows its maps"
        )
    return lab
