"""The kernel world of one host: its local ports as they come and go, ib_srp, multipathd, and uevents as their hints."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from srpha.core.hints import Hints
from srpha.core.seams import MadError, MadPort, Unwatch
from srpha.kernel.ib_srp import IbSrpInitiator
from srpha.kernel.multipath_manager import MultipathManager
from srpha.kernel.ports import DEV, SYSFS, PortDescription, find_ports, natural
from srpha.kernel.sysfs import Sysfs
from srpha.kernel.uevents import Topic, UeventListener, open_uevents
from srpha.kernel.umad import Offload, UmadPort
from srpha.kernel.worker import Worker

POLL_INTERVAL: Final = 5.0
"""Seconds between looks for ports when no uevent asks for one."""
DROP_AFTER: Final = 60.0
"""Seconds for which a vanished port is kept: a driver that is loaded anew brings the same one back."""


class HostPort(MadPort, Protocol):
    """A MAD port that keeps itself up to date while it runs."""

    def stir(self) -> None:
        """Something may have changed: look soon."""
        ...

    async def run(self) -> None:
        """Work until cancelled."""
        ...


class KernelHost:
    """Everything the daemon needs of the host that it runs on.

    :meth:`mad_ports` is right once :meth:`look` was awaited, and stays so while :meth:`run` works; who hears by
    :meth:`watch` that it is another hands it to the supervisor's ``set_ports``. A port that has vanished says so itself
    (:class:`srpha.core.seams.MadPortGoneError`) and is in the set for ``drop_after`` seconds yet.
    """

    def __init__(
        self,
        *,
        sysfs: Path = SYSFS,
        dev: Path = DEV,
        initiator: IbSrpInitiator | None = None,
        path_manager: MultipathManager | None = None,
        make_port: Callable[[PortDescription], HostPort] | None = None,
        open_uevents: Callable[[], socket.socket] = open_uevents,
        offload: Offload | None = None,
        poll_interval: float = POLL_INTERVAL,
        drop_after: float = DROP_AFTER,
    ) -> None:
        self.initiator = initiator if initiator is not None else IbSrpInitiator(Sysfs(sysfs))
        self.path_manager = path_manager if path_manager is not None else MultipathManager(sysfs=sysfs)
        self._sysfs = sysfs
        self._dev = dev
        self._make_port = make_port if make_port is not None else self._umad_port
        self._open_uevents = open_uevents
        self._worker = Worker("rdma-ports")
        self._offload = offload if offload is not None else self._worker.call
        self._poll_interval = poll_interval
        self._drop_after = drop_after
        self._ports: dict[str, tuple[PortDescription, HostPort]] = {}
        self._missing: dict[str, float] = {}
        """When a port was first not found, in the loop's time."""
        self._hints = Hints()
        self._stir = asyncio.Event()
        self._listener: UeventListener | None = None
        self._ports_trouble = ""
        self._uevents_trouble = ""

    @property
    def troubles(self) -> tuple[str, ...]:
        """What does not work now, a sentence each."""
        own = tuple(text for text in (self._ports_trouble, self._uevents_trouble) if text)
        return own + self.initiator.troubles

    def mad_ports(self) -> tuple[MadPort, ...]:
        """The local ports, in the natural order of their names."""
        ports = sorted(self._ports.values(), key=lambda item: (natural(item[0].device), item[0].port))
        return tuple(port for _, port in ports)

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        """Hear that :meth:`mad_ports` are others now."""
        return self._hints.add(hint)

    async def look(self) -> None:
        """Look for ports once."""
        try:
            found = await self._offload(lambda: find_ports(self._sysfs, self._dev))
        except MadError as error:
            # what cannot be read is not gone
            self._ports_trouble = str(error)
            return
        self._ports_trouble = "" if found else "no RDMA port has a user MAD device; is the module ib_umad loaded?"
        if self._take(found):
            self._hints.ring()

    async def run(self) -> None:
        """Keep ports, connections and maps true until cancelled. Connections and maps stay when it ends."""
        try:
            async with asyncio.TaskGroup() as group:
                running: dict[str, asyncio.Task[None]] = {}
                while True:
                    self._stir.clear()
                    self._hear()
                    await self.look()
                    for name in [name for name in running if name not in self._ports]:
                        running.pop(name).cancel()
                    for name, (_, port) in self._ports.items():
                        if name not in running:
                            running[name] = group.create_task(port.run())
                    await self._pause()
        finally:
            self._stop_hearing()
            self._worker.close()
            self.initiator.close()
            await self.path_manager.close()

    async def _pause(self) -> None:
        """Until the next look is due: a uevent, the end of a vanished port's time, or the timer."""
        now = asyncio.get_running_loop().time()
        drop = min((since + self._drop_after for since in self._missing.values()), default=math.inf)
        try:
            async with asyncio.timeout_at(min(now + self._poll_interval, drop)):
                await self._stir.wait()
        except TimeoutError:
            return

    def _take(self, found: tuple[PortDescription, ...]) -> bool:
        """Make the ports that are new, drop those whose time is over; whether the set is another now."""
        now = asyncio.get_running_loop().time()
        before = set(self._ports)
        for description in found:
            self._missing.pop(description.name, None)
            if description.name not in self._ports:
                self._ports[description.name] = description, self._make_port(description)
        names = {description.name for description in found}
        for name in before - names:
            if now - self._missing.setdefault(name, now) >= self._drop_after:
                del self._missing[name], self._ports[name]
        return before != set(self._ports)

    def _hear(self) -> None:
        """Have uevents heard, also again after the socket broke; without them everything waits for its timer."""
        if self._listener is not None and not self._listener.trouble:
            return
        self._stop_hearing()
        try:
            listener = UeventListener(self._open_uevents())
        except OSError as error:
            self._uevents_trouble = f"uevents are not heard, changes are noticed later: {error.strerror}"
            return
        self._uevents_trouble = ""
        self._listener = listener
        listener.watch(Topic.RDMA, self._rdma_changed)
        listener.watch(Topic.SCSI, self.initiator.changed)
        listener.watch(Topic.MULTIPATH, self.path_manager.hint)
        listener.start()

    def _stop_hearing(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _rdma_changed(self) -> None:
        for _, port in self._ports.values():
            port.stir()
        self._stir.set()

    def _umad_port(self, description: PortDescription) -> HostPort:
        return UmadPort(description.device, description.port, sysfs=self._sysfs, dev=self._dev)
