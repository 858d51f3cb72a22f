"""A lab that is kept running under the control API: what ``srpha lab up`` does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

from srpha.embedded.fabric.faults import FAULT_USAGE, format_fault, parse_fault
from srpha.embedded.ibsim.server import IbsimServer
from srpha.embedded.nbd.export import exports_of
from srpha.embedded.nbd.server import NbdServer
from srpha.embedded.worldspec import WorldSpec
from srpha.lab.lab import Lab, LabHost, LabSettings
from srpha.operate.client import Json
from srpha.operate.control import control_app, listening, serve_control
from srpha.operate.documents import Document


class KeptLab:
    """A running lab's controls, as the control API wants them."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._stopped = asyncio.Event()

    def fault_usage(self) -> Mapping[str, str]:
        return FAULT_USAGE

    def inject(self, text: str) -> str:
        fault = parse_fault(text)
        self._lab.world.faults.apply(fault)
        return format_fault(fault)

    def load_document(self) -> Document:
        hosts: dict[str, Json] = {}
        for name, host in self._lab.hosts.items():
            statistics = host.load.by_map if host.load is not None else {}
            hosts[name] = {
                device: {
                    "reads": one.reads,
                    "writes": one.writes,
                    "bytes": one.bytes_moved,
                    "errors": one.errors,
                    "mismatches": one.mismatches,
                    "max_stall_ms": round(one.max_stall * 1000, 3),
                    "problems": list(one.problems),
                }
                for device, one in statistics.items()
            }
        return {"hosts": hosts}

    def dm_document(self) -> Document:
        hosts: dict[str, Json] = {}
        for name, host in self._lab.hosts.items():
            manager = host.below.path_manager
            hosts[name] = {
                info.name: {"table": manager.table_line(info.name), "status": manager.status_line(info.name)}
                for info in manager.snapshot()
            }
        return {"hosts": hosts}

    def stop(self) -> None:
        self._stopped.set()

    async def stopped(self) -> None:
        """Wait until somebody asks for the end."""
        await self._stopped.wait()


async def keep_lab(
    spec: WorldSpec,
    settings: LabSettings,
    path: Path,
    started: Callable[[Lab, tuple[NbdServer, ...]], None],
    *,
    ibsim: str | None = None,
) -> None:
    """Run a lab, its control socket and beside it one NBD socket per host, ``HOST.nbd``, until stopped or cancelled.

    ``ibsim`` names the sockets by which programs attach to the fabric. ``started`` is called once all are there. Raises
    :class:`~srpha.operate.client.ControlError`, :class:`~srpha.embedded.nbd.server.NbdServerError` or
    :class:`~srpha.embedded.ibsim.server.IbsimServerError` when a socket cannot be had.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(listening(path))
        lab = Lab(spec, settings)
        disks = tuple(_nbd_server(host, path.parent) for host in lab.hosts.values())
        for server in disks:
            stack.callback(server.close)
            server.open()
        fabric: IbsimServer | None = None
        if ibsim is not None:
            fabric = IbsimServer(lab.world.fabric, lab.world.general_services, ibsim)
            stack.callback(fabric.close)
            fabric.open()
        kept = KeptLab(lab)
        app = control_app({name: host.supervisor for name, host in lab.hosts.items()}, lab.log, kept)
        async with asyncio.TaskGroup() as group:
            serving = [group.create_task(server.run()) for server in disks]
            if fabric is not None:
                serving.append(group.create_task(fabric.run()))
            serving.append(group.create_task(serve_control(app, listener)))
            running = group.create_task(lab.run())
            started(lab, disks)
            await kept.stopped()
            # The answer to the request that stops us must still go out.
            await asyncio.sleep(0.1)
            running.cancel()
            for task in serving:
                task.cancel()


def _nbd_server(host: LabHost, directory: Path) -> NbdServer:
    """Every map of a host, as it comes up."""
    maps = host.below.path_manager
    return NbdServer(directory / f"{quote(host.name, safe=' ')}.nbd", lambda: exports_of(maps.devices()))
