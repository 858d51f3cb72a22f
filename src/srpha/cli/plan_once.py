"""``srpha plan --once``: the plan of this host without a daemon. It scans and looks; it changes nothing."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path
from typing import Final

from srpha.cli.daemon import WorldFactory, kernel_world
from srpha.daemon.snapshot import Snapshot
from srpha.daemon.supervisor import Supervisor
from srpha.operate.client import Json
from srpha.operate.config import ConfigError, LoadedConfig, load_config
from srpha.operate.plan_document import plan_document
from srpha.operate.service import HostWorld

_LIMIT: Final = 60.0
_POLL: Final = 0.05


def plan_once(config: Path | None, world: WorldFactory = kernel_world) -> tuple[Json, str]:
    """The plan, as the control API gives it, or why there is none."""
    try:
        loaded = load_config(config)
    except ConfigError as error:
        return None, str(error)
    snapshot = asyncio.run(look_once(world, loaded))
    return {"hosts": [{"host": socket.gethostname(), **plan_document(snapshot)}]}, ""


async def look_once(world: WorldFactory, loaded: LoadedConfig, limit: float = _LIMIT) -> Snapshot:
    """The state after one scan, or after ``limit`` seconds. Nothing is connected, failed, removed or set."""
    made = world()
    host: HostWorld = made.host
    settings = replace(
        loaded.settings,
        max_imm_data=made.max_imm_data(),
        connect=False,
        timers=None,
        timer_classes=(),
        fail_suspect_paths=False,
        remove_departed=False,
    )
    await host.look()
    ports = [port for port in host.mad_ports() if loaded.wants(port.name)]
    supervisor = Supervisor(ports, host.initiator, host.path_manager, settings, lambda _event: None)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(host.run()), group.create_task(supervisor.run())]
        while not supervisor.snapshot().settled and loop.time() < deadline:
            if supervisor.snapshot().connections is None and supervisor.snapshot().troubles:
                break  # without the connections there is no plan to wait for
            await asyncio.sleep(_POLL)
        snapshot = supervisor.snapshot()
        for task in tasks:
            task.cancel()
    return snapshot
