"""The embedded SRP initiator: the Initiator seam and the source of SCSI devices of the embedded world."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine, Mapping

from srpha.core.hints import Hints
from srpha.core.recovery.remote_port import RemotePortTimers
from srpha.core.scsi_io import DeviceEvent, Nexus, ScsiDevice
from srpha.core.seams import AddTargetError, Connection, InitiatorError, MadPortGoneError, Unwatch
from srpha.core.targets.add_target import InvalidLineError, TargetLine, parse_target_line
from srpha.embedded.initiator.device import ScsiDisk
from srpha.embedded.initiator.host import ScsiHost
from srpha.embedded.initiator.login import log_in
from srpha.embedded.initiator.names import DiskNumbers, disk_dev_t, disk_name
from srpha.embedded.initiator.settings import InitiatorPort, InitiatorSettings


class EmbeddedInitiator:
    """ib_srp and the SCSI mid-layer of one embedded host.

    Implements :class:`srpha.core.seams.Initiator`, :class:`srpha.core.scsi_io.DeviceSource` and, with :meth:`fence`,
    what multipath asks before it sends a write again. :meth:`run` must run while it is used; when that ends the host
    has crashed: connections vanish without a word, and what is submitted completes DID_NO_CONNECT.
    """

    def __init__(self, ports: Mapping[str, InitiatorPort], settings: InitiatorSettings | None = None) -> None:
        """``ports`` by name (``device/port``), in the order in which they are shown."""
        self._ports = dict(ports)
        self._settings = settings or InitiatorSettings()
        self._locks = {name: asyncio.Lock() for name in self._ports}
        self._hosts: dict[int, ScsiHost] = {}
        self._next_host = 0
        self._disk_numbers = DiskNumbers()
        self._disks: dict[ScsiDisk, int] = {}
        self._hints = Hints()
        self._receivers: list[DeviceEvent] = []
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Carry reconnects and removals until cancelled."""
        if self._group is not None:
            raise InitiatorError("the initiator runs already")
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            for host in tuple(self._hosts.values()):
                host.crash()
            self._hosts.clear()

    # Initiator

    def ports(self) -> tuple[str, ...]:
        """Names of the local ports whose device is there."""
        present: list[str] = []
        for name, port in self._ports.items():
            try:
                port.mad.identity()
            except MadPortGoneError:
                continue
            present.append(name)
        return tuple(present)

    async def add_target(self, port: str, line: str) -> None:
        """Log in and scan; see :meth:`srpha.core.seams.Initiator.add_target` and :mod:`.login` for the errors."""
        local = self._ports.get(port)
        if local is None:
            raise AddTargetError(errno.ENODEV, f"{port}: no such port; there are {', '.join(self._ports) or 'none'}")
        try:
            target = parse_target_line(line)
        except InvalidLineError as error:
            raise AddTargetError(errno.EINVAL, f"{port}: {error}") from error
        async with self._locks[port]:
            if self._group is None:
                raise AddTargetError(errno.ENODEV, f"{port}: the initiator does not run")
            self._refuse_duplicate(port, target)
            login = await log_in(local, target, self._settings)
            host = ScsiHost(self._next_host, local, target, self._settings, login, self)
            self._next_host += 1
            self._hosts[host.number] = host
            self.connection_changed()
            try:
                await host.scan()
            except asyncio.CancelledError:
                host.delete()
                raise

    async def connections(self) -> tuple[Connection, ...]:
        """All connections by host number, those on their way out too."""
        return tuple(host.info() for host in self._hosts.values())

    async def set_timers(self, host: int, timers: RemotePortTimers) -> None:
        """Set a remote port's timers. They were checked when made, and are set together: no step in between shows."""
        self._host(host).set_timers(timers)

    async def remove(self, host: int) -> None:
        """Write to the remote port's ``delete``: commands complete at once, the host goes a little later."""
        self._host(host).delete()

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        """Hear, from inside the change, that :meth:`connections` may have changed."""
        return self._hints.add(hint)

    # DeviceSource

    def devices(self) -> tuple[ScsiDevice, ...]:
        """The disks that exist, in the order they came."""
        return tuple(self._disks)

    def watch_devices(self, receiver: DeviceEvent) -> Unwatch:
        """Hear of every disk that comes or goes; those that exist already are not told."""
        self._receivers.append(receiver)

        def leave() -> None:
            if receiver in self._receivers:
                self._receivers.remove(receiver)

        return leave

    # Fencing

    async def fence(self, nexus: Nexus, via: ScsiDevice) -> bool:
        """Have the target end ``nexus`` and its commands; True when it has confirmed.

        A login with the initiator port identifier of ``nexus`` over the path of ``via`` makes the target end the old
        nexus before it answers (SRP 5.4.2, single RDMA channel operation). A host of ours that has logged in again as
        ``nexus`` meanwhile has done the same. False: not confirmed, so the caller must wait the quiesce time out.
        """
        disk = next((item for item in self._disks if item is via), None)
        if disk is None or disk.nexus == nexus or disk.nexus.target_port_id != nexus.target_port_id:
            return False
        if self._logged_in_again(nexus):
            return True
        host = disk.host
        try:
            login = await log_in(
                host.port, host.line, self._settings, initiator_port_id=nexus.initiator_port_id, only_one=True
            )
        except AddTargetError:
            return self._logged_in_again(nexus)
        for channel in login.channels:
            channel.close()
        return True

    # What hosts ask

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` as long as the initiator runs."""
        if self._group is None:
            work.close()
            raise InitiatorError("the initiator does not run")
        return self._group.create_task(work, name=name)

    def make_disk(self, make: Callable[[str, str], ScsiDisk]) -> ScsiDisk:
        """Name, make and announce a disk."""
        number = self._disk_numbers.allocate()
        disk = make(disk_name(number), disk_dev_t(number))
        self._disks[disk] = number
        self._announce(disk, present=True)
        return disk

    def connection_changed(self) -> None:
        """Tell those who watch."""
        self._hints.ring()

    def host_going(self, host: ScsiHost) -> None:
        """The host's disks go now, the host itself after the time a removal takes."""
        numbers = []
        for disk in host.disks.values():
            numbers.append(self._disks.pop(disk))
            self._announce(disk, present=False)
        loop = asyncio.get_running_loop()
        loop.call_later(self._settings.removal_time, self._forget, host, tuple(numbers))

    def _forget(self, host: ScsiHost, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            self._disk_numbers.release(number)
        self._hosts.pop(host.number, None)
        self.connection_changed()

    def _announce(self, disk: ScsiDisk, *, present: bool) -> None:
        self.connection_changed()
        for receiver in tuple(self._receivers):
            receiver(disk, present=present)

    def _host(self, number: int) -> ScsiHost:
        host = self._hosts.get(number)
        if host is None:
            raise InitiatorError(f"host{number}: no such SRP host")
        return host

    def _logged_in_again(self, nexus: Nexus) -> bool:
        return any(host.nexus == nexus and host.connected for host in self._hosts.values())

    def _refuse_duplicate(self, port: str, target: TargetLine) -> None:
        """EEXIST for the same id_ext, ioc_guid and initiator_ext on one local port (facts: srp C.1)."""
        wanted = (target.id_ext, target.ioc_guid, target.initiator_extension)
        for host in self._hosts.values():
            line = host.line
            if host.port.mad.name == port and (line.id_ext, line.ioc_guid, line.initiator_extension) == wanted:
                going = ", which is being removed" if host.removing else ""
                raise AddTargetError(
                    errno.EEXIST,
                    f"{port}: already connected to id_ext={target.id_ext:016x}, ioc_guid={target.ioc_guid:016x} "
                    f"as host{host.number}{going}; another connection needs another initiator_ext",
                )
