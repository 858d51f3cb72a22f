"""``srpha daemon``: the service in the foreground, as systemd runs it.

SIGHUP reads the configuration again, SIGTERM and SIGINT end it; connections and maps stay. Exit codes: 0 ended as told,
1 it could not go on, 78 (EX_CONFIG) the configuration cannot be used.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket as sockets
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from srpha.core.events import Severity
from srpha.daemon.shutdown import BlockDevices
from srpha.operate.client import SOCKET_VARIABLE, ControlError
from srpha.operate.config import ConfigError, LoadedConfig, load_config
from srpha.operate.control import control_app, listening, serve_control
from srpha.operate.event_log import EventLog
from srpha.operate.event_logging import EventLogger
from srpha.operate.sd_notify import Notifier
from srpha.operate.service import HostWorld, Service

BAD_CONFIG: Final = 78
"""EX_CONFIG of sysexits.h: systemd does not try again on its own."""
DRAIN_FILE: Final = "drained.json"
_SIGNALS: Final = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class DaemonWorld:
    """What the daemon needs of the host."""

    host: HostWorld
    block_devices: BlockDevices
    max_imm_data: Callable[[], int | None]
    """Size of the initiator's immediate data in bytes, None when it uses none."""


WorldFactory = Callable[[], DaemonWorld]


def kernel_world() -> DaemonWorld:
    """The host that this runs on. ``SYSFS_PATH`` moves the root of sysfs."""
    from srpha.cli.dropin_world import KernelWorld  # noqa: PLC0415
    from srpha.kernel.block_uses import KernelBlockDevices  # noqa: PLC0415
    from srpha.kernel.host import KernelHost  # noqa: PLC0415

    sysfs = Path(os.environ.get("SYSFS_PATH") or "/sys")
    return DaemonWorld(KernelHost(sysfs=sysfs), KernelBlockDevices(sysfs=sysfs), KernelWorld(sysfs).max_imm_data)


def run_daemon(
    *, config: Path | None, socket: Path | None, log_format: str | None, world: WorldFactory = kernel_world
) -> int:
    """Work until told to end; the exit code."""
    try:
        loaded = load_config(config)
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(f"srpha daemon: {problem}", err=True)
        return BAD_CONFIG
    path = socket or Path(os.environ.get(SOCKET_VARIABLE) or loaded.config.control.socket)
    form = loaded.config.log.format
    match log_format:
        case "auto" | "console" | "json" | "journal":
            form = log_format
        case None:
            pass
        case _:
            typer.echo(f"srpha daemon: --log {log_format}: give auto, console, json or journal", err=True)
            return 2
    logger = EventLogger(form, Severity(loaded.config.log.level))
    try:
        with listening(path, loaded.config.control.group) as listener:
            asyncio.run(_run(config, loaded, listener, path, logger, world))
    except ControlError as error:
        typer.echo(f"srpha daemon: {error}", err=True)
        return 1
    finally:
        logger.close()
    return 0


async def _run(
    config: Path | None,
    loaded: LoadedConfig,
    listener: sockets.socket,
    path: Path,
    logger: EventLogger,
    world: WorldFactory,
) -> None:
    made = world()
    log = EventLog()
    log.listen(logger)

    async def load(needed: Collection[Path]) -> LoadedConfig:
        return await asyncio.to_thread(load_config, config, needed=needed)

    service = Service(
        made.host,
        loaded,
        load,
        say=logger.say,
        notifier=Notifier(),
        log=log,
        drain_file=path.with_name(DRAIN_FILE),
        max_imm_data=made.max_imm_data,
        block_devices=made.block_devices,
    )

    async def serve(service: Service) -> None:
        app = control_app({sockets.gethostname(): service.supervisor}, log, service=service)
        await serve_control(app, listener)

    logger.say(Severity.NOTICE, f"srpha starts with {loaded.source}; control socket {path}")
    async with _signals() as queue, asyncio.TaskGroup() as group:
        obeying = group.create_task(_obey(queue, service))
        await service.run(serve)
        obeying.cancel()
    logger.say(Severity.NOTICE, "srpha ends; connections and maps stay as they are")


async def _obey(queue: asyncio.Queue[int], service: Service) -> None:
    while True:
        number = await queue.get()
        if number != signal.SIGHUP:
            service.stop()
            continue
        try:
            await service.reload()
        except ConfigError:
            continue  # the service has told what is wrong, and that the configuration in force stays


@asynccontextmanager
async def _signals() -> AsyncGenerator[asyncio.Queue[int], None]:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[int] = asyncio.Queue()
    for number in _SIGNALS:
        loop.add_signal_handler(number, queue.put_nowait, number)
    try:
        yield queue
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
