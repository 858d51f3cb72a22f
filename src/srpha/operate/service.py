"""The service: a world below, the supervisor, the control API above, and systemd told of it all.

It starts whether or not there are devices, takes ports up as they appear, and leaves connections alone when it ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from srpha.core.connections.pairs import PairStatus
from srpha.core.events import EventKind, Severity
from srpha.core.seams import Initiator, MadPort, PathManager, Unwatch
from srpha.daemon.settings import Settings
from srpha.daemon.shutdown import BlockDevices, Shutdown, ShutdownRefusedError
from srpha.daemon.snapshot import Snapshot
from srpha.daemon.supervisor import Supervisor
from srpha.operate.config import ConfigError, LoadedConfig
from srpha.operate.control import RefusedError
from srpha.operate.documents import Document
from srpha.operate.drain_file import read_drains, write_drains
from srpha.operate.event_log import EventLog, LoggedEvent
from srpha.operate.sd_notify import Notifier

_LAST_WORDS: Final = 0.2
"""Seconds in which the answer to the request that ends the service goes out."""
_LOGIN_PATIENCE: Final = 5.0
_READY_POLL: Final = 0.1
_STATUS_POLL: Final = 5.0

Say = Callable[[Severity, str], None]
"""Logs one sentence."""
Load = Callable[[Collection[Path]], Awaitable[LoadedConfig]]
"""Reads the configuration; the argument are files that must be there. Raises ConfigError."""
Serve = Callable[["Service"], Awaitable[None]]
"""Serves the control API until cancelled."""


class HostWorld(Protocol):
    """A host: what :class:`srpha.kernel.host.KernelHost` is."""

    @property
    def initiator(self) -> Initiator: ...
    @property
    def path_manager(self) -> PathManager: ...
    @property
    def troubles(self) -> Sequence[str]:
        """What does not work now, a sentence each."""
        ...

    def mad_ports(self) -> Sequence[MadPort]: ...
    def watch(self, hint: Callable[[], None]) -> Unwatch:
        """Hear that :meth:`mad_ports` are others now."""
        ...

    async def look(self) -> None:
        """Look for ports once."""
        ...

    async def run(self) -> None:
        """Work until cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """A configuration was taken into use."""

    source: str
    notes: tuple[str, ...]


class Service:
    """One daemon on one host. Make it inside a running loop."""

    def __init__(
        self,
        host: HostWorld,
        loaded: LoadedConfig,
        load: Load,
        *,
        say: Say,
        notifier: Notifier,
        log: EventLog,
        drain_file: Path | None = None,
        max_imm_data: Callable[[], int | None] = lambda: None,
        block_devices: BlockDevices,
    ) -> None:
        self.host = host
        self.log = log
        self._loaded = loaded
        self._load = load
        self._say = say
        self._notifier = notifier
        self._drain_file = drain_file
        self._max_imm_data = max_imm_data
        self._block_devices = block_devices
        self._shutting_down = False
        self._reload_turn = asyncio.Lock()
        self._stopped = asyncio.Event()
        self.supervisor = Supervisor((), host.initiator, host.path_manager, self._settings(loaded), log)
        log.listen(self._keep_drains)

    @property
    def loaded(self) -> LoadedConfig:
        """The configuration in force."""
        return self._loaded

    async def run(self, serve: Serve) -> None:
        """Work until :meth:`stop` or cancelled. An exception of any part ends it all."""
        self._restore_drains()
        for note in self._loaded.notes:
            self._say(Severity.WARNING, note)
        try:
            async with asyncio.TaskGroup() as group:
                await self.host.look()
                self._take_ports()
                unwatch = self.host.watch(self._take_ports)
                tasks = [
                    group.create_task(self.host.run()),
                    group.create_task(self.supervisor.run()),
                    group.create_task(_forever(serve(self))),
                    group.create_task(self._ping()),
                    group.create_task(self._tell()),
                ]
                await self._stopped.wait()
                self._notifier.stopping()
                unwatch()
                for task in tasks:
                    task.cancel()
        finally:
            self._notifier.close()

    def stop(self) -> None:
        """End; connections stay."""
        self._stopped.set()

    async def reload(self) -> ReloadReport:
        """Read the configuration again and use it. Raises :class:`ConfigError`: then the one in force stays."""
        async with self._reload_turn:
            self._notifier.reloading(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
            try:
                loaded = await self._load(self._loaded.files)
            except ConfigError as error:
                for problem in error.problems:
                    self._say(Severity.ERROR, problem)
                self._say(Severity.ERROR, f"the configuration in force stays: {self._loaded.source}")
                raise
            finally:
                self._notifier.ready()
            notes = (*loaded.notes, *self._at_next_start(loaded))
            self._loaded = loaded
            self.supervisor.apply(self._settings(loaded))
            self._take_ports()
            self._say(Severity.NOTICE, f"the configuration was read again: {loaded.source}")
            for note in notes:
                self._say(Severity.WARNING, note)
            return ReloadReport(loaded.source, notes)

    async def reload_document(self) -> Document:
        """For the control API; raises :class:`RefusedError`."""
        try:
            report = await self.reload()
        except ConfigError as error:
            raise RefusedError(f"{error}\nthe configuration in force stays") from error
        return {"source": report.source, "notes": list(report.notes)}

    async def shutdown_document(self, *, dry_run: bool) -> Document:
        """For the control API; raises :class:`RefusedError`. When it was done the service ends."""
        shutdown = Shutdown(self.host.initiator, self.host.path_manager, self._block_devices)
        self._shutting_down = not dry_run
        # No login may come between: what is not there any more would be made again.
        self.supervisor.apply(self._settings(self._loaded))
        try:
            if not dry_run:
                await self._let_logins_end()
            report = await shutdown.run(self.supervisor.ours, dry_run=dry_run)
        except ShutdownRefusedError as error:
            self._shutting_down = False
            self.supervisor.apply(self._settings(self._loaded))
            raise RefusedError(str(error)) from error
        if not dry_run:
            self._say(Severity.NOTICE, f"shut down: {len(report.plan.flush)} maps, {len(report.removed)} connections")
            asyncio.get_running_loop().call_later(_LAST_WORDS, self.stop)
        return {
            "dry_run": dry_run,
            "flushed": list(report.plan.flush),
            "kept": list(report.plan.keep),
            "removed": [
                {"host": item.host, "local_port": item.local_port, "id_ext": f"{item.id_ext:016x}"}
                for item in report.removed
            ],
        }

    async def _let_logins_end(self) -> None:
        """What is being logged in is not there yet to be removed. Raises :class:`ShutdownRefusedError`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LOGIN_PATIENCE
        while busy := [pair for pair in self.supervisor.snapshot().pairs if pair.status is PairStatus.CONNECTING]:
            if loop.time() >= deadline:
                raise ShutdownRefusedError(f"nothing is changed: {busy[0].name} is being logged in; try again")
            await asyncio.sleep(_READY_POLL)

    def _settings(self, loaded: LoadedConfig) -> Settings:
        connect = loaded.settings.connect and not self._shutting_down
        return replace(loaded.settings, max_imm_data=self._max_imm_data(), connect=connect)

    def _at_next_start(self, loaded: LoadedConfig) -> tuple[str, ...]:
        old, new = self._loaded.config, loaded.config
        return tuple(
            f"what [{name}] says now counts from the next start on"
            for name in ("control", "log")
            if getattr(old, name) != getattr(new, name)
        )

    def _take_ports(self) -> None:
        self.supervisor.set_ports([port for port in self.host.mad_ports() if self._loaded.wants(port.name)])

    # --- drained ports ---

    def _restore_drains(self) -> None:
        if self._drain_file is None:
            return
        try:
            drained = read_drains(self._drain_file)
        except ValueError as error:
            self._say(Severity.ERROR, str(error))
            return
        self.supervisor.restore_drains(drained)
        for port in drained:
            self._say(Severity.WARNING, f"{port} is still drained; 'srpha resume {port}' ends that")

    def _keep_drains(self, logged: LoggedEvent) -> None:
        if self._drain_file is None or logged.event.kind not in (EventKind.PORT_DRAINED, EventKind.PORT_RESUMED):
            return
        try:
            write_drains(self._drain_file, self.supervisor.drained)
        except OSError as error:
            reason = error.strerror or str(error)
            self._say(Severity.ERROR, f"{self._drain_file}: a restart will forget what is drained: {reason}")

    # --- systemd ---

    async def _ping(self) -> None:
        interval = self._notifier.watchdog_interval
        if interval is None:
            return
        while True:
            self._notifier.alive()
            await asyncio.sleep(interval)

    async def _tell(self) -> None:
        """Tell readiness once, then how things are."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._loaded.config.service.ready_wait
        while loop.time() < deadline and not _at_rest(self.supervisor.snapshot()):
            self._notifier.status(summary(self.supervisor.snapshot(), self.host.troubles))
            await asyncio.sleep(_READY_POLL)
        self._notifier.ready()
        troubles: tuple[str, ...] = ()
        while True:
            self._notifier.status(summary(self.supervisor.snapshot(), self.host.troubles))
            now = tuple(self.host.troubles)
            for trouble in now:
                if trouble not in troubles:
                    self._say(Severity.WARNING, trouble)
            troubles = now
            await asyncio.sleep(_STATUS_POLL)


async def _forever(serving: Awaitable[None]) -> None:
    """What serves must not end by itself: a daemon that nobody can ask is started anew."""
    await serving
    raise RuntimeError("the control API ended by itself")


def _at_rest(snapshot: Snapshot) -> bool:
    """Whether waiting would bring nothing more: ports that are not there yet may never come."""
    return snapshot.settled and (not snapshot.ports or any(port.usable for port in snapshot.ports))


def summary(snapshot: Snapshot, troubles: Sequence[str] = ()) -> str:
    """The state in one line."""
    usable = sum(port.usable for port in snapshot.ports)
    drained = [port.name for port in snapshot.ports if port.drained]
    wanted = [pair for pair in snapshot.pairs if pair.status is not PairStatus.DISALLOWED]
    connected = sum(pair.status is PairStatus.CONNECTED for pair in wanted)
    parts = [
        f"{usable} of {len(snapshot.ports)} ports usable",
        f"{connected} of {len(wanted)} connections up",
        "maps unknown" if snapshot.maps is None else f"{len(snapshot.maps)} maps",
    ]
    if drained:
        parts.append(f"drained: {', '.join(drained)}")
    return "; ".join([", ".join(parts), *troubles[:1]])
