"""The kernel's SRP initiator: ib_srp and scsi_transport_srp behind sysfs (facts: srp C).

Whatever may block is done in threads: one for each local port's logins, one for everything else.
"""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from srpha.core.hints import Hints
from srpha.core.recovery.remote_port import RemotePortState, RemotePortTimers
from srpha.core.seams import AddTargetError, Connection, InitiatorError, Unwatch
from srpha.core.targets.add_target import InvalidLineError, TargetLine, address_gid, parse_target_line
from srpha.core.targets.login_failure import destinations, explain_failure, scan_failure
from srpha.kernel.add_target_worker import AddTargetResult, AddTargetWorker
from srpha.kernel.kernel_log import KernelLog, Kmsg
from srpha.kernel.srp_hosts import HostReading, SrpHosts
from srpha.kernel.sysfs import AttributeGoneError, Sysfs
from srpha.kernel.timers_writer import REMOTE_PORTS, write_timers
from srpha.kernel.worker import Worker
from srpha.wire.identifiers import Gid

LOCAL_PORTS: Final = "class/infiniband_srp"
_LOCAL_PORT: Final = re.compile(r"srp-(.+)-([1-9][0-9]{0,2})", re.ASCII)


class IbSrpInitiator:
    """Implements :class:`srpha.core.seams.Initiator`.

    Connections are seen whoever made them, and outlive this object. :meth:`close` lets the threads end.
    """

    def __init__(
        self, sysfs: Sysfs | None = None, log: KernelLog | None = None, *, full_reading_interval: float = 30.0
    ) -> None:
        """``full_reading_interval`` in seconds: how old may be what is said of a connection that runs undisturbed."""
        self._sysfs = sysfs if sysfs is not None else Sysfs()
        self._log = log if log is not None else Kmsg()
        self._hosts = SrpHosts(self._sysfs, full_reading_interval)
        self._reader = Worker("srp-sysfs")
        self._logins: dict[str, AddTargetWorker] = {}
        self._destinations: dict[int, Gid] | None = None
        self._hints = Hints()
        self.troubles: tuple[str, ...] = ()
        """What the last reading could not make out, a sentence each."""

    def ports(self) -> tuple[str, ...]:
        """Names of the local ports with an ``add_target``, by device and number."""
        return tuple(self._directories())

    def busy(self, port: str) -> bool:
        """A login of this port is under way in the kernel or waits, also one that nobody waits for any more."""
        worker = self._logins.get(port)
        return worker is not None and worker.busy

    async def add_target(self, port: str, line: str) -> None:
        """Log in, and look whether the connection lives; see :meth:`srpha.core.seams.Initiator.add_target`.

        Cancelled, the login goes on in the kernel and the port stays busy until it ends.
        """
        try:
            target = parse_target_line(line)
        except InvalidLineError as error:
            raise AddTargetError(errno.EINVAL, f"{port}: {error}") from error
        directory = self._directories().get(port)
        if directory is None:
            raise AddTargetError(errno.ENODEV, f"{port}: no such port; there are {', '.join(self.ports()) or 'none'}")
        worker = self._logins.setdefault(port, AddTargetWorker(self._sysfs, directory, self._log))
        before = await self._reader.call(self._hosts.numbers)
        try:
            result = await worker.add(line)
        finally:
            self.changed()
        await self._judge(port, target, result, before)

    async def connections(self) -> tuple[Connection, ...]:
        """All SRP connections by host number; see :meth:`srpha.core.seams.Initiator.connections`."""
        now = asyncio.get_running_loop().time()
        reading = await self._reader.call(lambda: self._read(now))
        self.troubles = reading.troubles
        return reading.connections

    async def set_timers(self, host: int, timers: RemotePortTimers) -> None:
        """Set the remote port's timers, each write valid for the kernel. Raises :class:`InitiatorError`."""
        await self._reader.call(lambda: write_timers(self._sysfs, self._remote_port(host), timers))
        self.changed(host)

    async def remove(self, host: int) -> None:
        """Write the remote port's ``delete``; the kernel removes the host by and by."""
        await self._reader.call(lambda: self._delete(host))
        self.changed(host)

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        """Hear that :meth:`connections` may have changed."""
        return self._hints.add(hint)

    def changed(self, host: int | None = None) -> None:
        """Something happened to this host, or to any (a uevent): it is read in full next time, and listeners hear."""
        self._hosts.forget(host)
        self._hints.ring()

    def close(self) -> None:
        """Let the threads end; logins that are under way go on in the kernel."""
        self._reader.close()
        for worker in self._logins.values():
            worker.close()

    def _directories(self) -> dict[str, str]:
        """Directories of the local ports by name."""
        found: dict[tuple[str, int], str] = {}
        try:
            names = self._sysfs.names(LOCAL_PORTS)
        except OSError:
            return {}
        for name in names:
            if match := _LOCAL_PORT.fullmatch(name):
                found[match[1], int(match[2])] = f"{LOCAL_PORTS}/{name}"
        return {f"{device}/{port}": found[device, port] for device, port in sorted(found)}

    # --- in the reader's thread ---

    def _read(self, now: float) -> HostReading:
        if self._destinations is None:
            self._destinations = {}
            self._learn(self._history())
        reading = self._hosts.read(now)
        hosts = {item.host for item in reading.connections}
        self._destinations = {host: gid for host, gid in self._destinations.items() if host in hosts}
        known = self._destinations
        return replace(
            reading,
            connections=tuple(
                replace(item, destination=known[item.host]) if item.host in known and item.dgid is None else item
                for item in reading.connections
            ),
        )

    def _history(self) -> tuple[str, ...]:
        """All that the kernel log still holds."""
        try:
            reader = self._log.open(from_start=True)
        except OSError:
            return ()
        try:
            return reader.lines()
        finally:
            reader.close()

    def _learn(self, log: tuple[str, ...]) -> None:
        """Note which address RDMA/CM connections go to: only the log of their login tells."""
        if self._destinations is not None:
            self._destinations |= {host: address_gid(address) for host, address in destinations(log).items()}

    def _note_destination(self, host: int, gid: Gid) -> None:
        if self._destinations is not None:
            self._destinations[host] = gid

    def _remote_port(self, host: int) -> str:
        try:
            names = self._sysfs.names(REMOTE_PORTS)
        except OSError as error:
            raise InitiatorError(f"the remote ports cannot be listed: {error.strerror or error}") from error
        for name in names:
            if name.startswith(f"port-{host}:"):
                return name
        raise InitiatorError(f"host{host}: it has no SRP remote port (any more)")

    def _delete(self, host: int) -> None:
        name = self._remote_port(host)
        try:
            self._sysfs.write(f"{REMOTE_PORTS}/{name}/delete", "1")
        except AttributeGoneError as error:
            raise InitiatorError(f"host{host}: {name} is gone already") from error
        except OSError as error:
            raise InitiatorError(f"host{host}: {name} could not be deleted: {error.strerror or error}") from error

    # --- what became of a login ---

    async def _judge(self, port: str, line: TargetLine, result: AddTargetResult, before: frozenset[int]) -> None:
        if result.missing:
            raise AddTargetError(errno.ENODEV, f"{port}: the port is gone")
        if result.errno == errno.EEXIST:
            raise AddTargetError(errno.EEXIST, await self._duplicate(port, line, result))
        if result.errno:
            sgid = self._sgid(port)
            failure = explain_failure(result.errno, port, line, result.log, sgid, result.log_trouble)
            raise AddTargetError(failure.errno, failure.text)
        await self._reader.call(lambda: self._learn(result.log))
        await self._verify(port, line, result, before)

    async def _verify(self, port: str, line: TargetLine, result: AddTargetResult, before: frozenset[int]) -> None:
        """The kernel said yes; the host may be on its way out all the same (facts: srp C.1)."""
        failure = scan_failure(port, line, result.log, self._sgid(port))
        if failure is not None:
            raise AddTargetError(failure.errno, failure.text)
        try:
            connections = await self.connections()
        except InitiatorError:
            return  # the kernel's word stands until its state can be read
        made = [item for item in connections if item.host not in before and _is_to(item, port, line)]
        alive = [item for item in made if not item.removing and item.state is not RemotePortState.LOST]
        if not alive:
            host = f"host{made[-1].host} is" if made else "its host was"
            raise AddTargetError(
                errno.ENODEV, f"{port}: logged in, but {host} removed again at once (see the kernel log)"
            )
        if line.dest is not None and len(alive) == 1:
            host_number, gid = alive[0].host, address_gid(line.dest.host)
            await self._reader.call(lambda: self._note_destination(host_number, gid))

    async def _duplicate(self, port: str, line: TargetLine, result: AddTargetResult) -> str:
        """EEXIST, with the hosts that may be in the way: which of them has the initiator_ext is not to be seen."""
        text = explain_failure(errno.EEXIST, port, line, result.log).text
        try:
            connections = await self.connections()
        except InitiatorError:
            return text
        names = [
            f"host{item.host}{' (being removed)' if item.removing else ''}"
            for item in connections
            if (item.local_port, item.id_ext, item.ioc_guid) == (port, line.id_ext, line.ioc_guid)
        ]
        return f"{text}; connected are {', '.join(names)}" if names else f"{text}; an old host is still being removed"

    def _sgid(self, port: str) -> Gid | None:
        """The GID that logins of the port come from: always the first of its table."""
        device, _, number = port.rpartition("/")
        return self._sysfs.gid(f"class/infiniband/{device}/ports/{number}/gids/0")


def _is_to(connection: Connection, port: str, line: TargetLine) -> bool:
    """Whether a login with ``line`` would have made this connection, as far as can be seen."""
    if (connection.local_port, connection.id_ext, connection.ioc_guid) != (port, line.id_ext, line.ioc_guid):
        return False
    dgid = connection.orig_dgid if connection.orig_dgid is not None else connection.dgid
    return dgid == line.dgid
