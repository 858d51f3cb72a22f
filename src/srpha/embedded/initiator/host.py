"""A scsi_host of the embedded initiator: one connection to one target, its disks, its states and its recovery.

The host carries out what :class:`~srpha.core.recovery.remote_port.RemotePort` decides. Where a command is at any time
is plain: waiting in its unit's queue, outstanding on a channel, stranded (its channel is gone, its fate is not
decided), or done.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable, Sequence
from enum import Enum
from functools import partial
from typing import Final, Protocol

from srpha.core.recovery.error_recovery import TaskManagementOutcome
from srpha.core.recovery.remote_port import RemotePort, RemotePortEffect, RemotePortState, RemotePortTimers
from srpha.core.scsi_io import Nexus, ScsiCommand, UnitIdentity
from srpha.core.seams import AddTargetError, Connection, DeviceInfo, DeviceState
from srpha.core.targets.add_target import TargetLine
from srpha.embedded.initiator.backlog import Backlog, Completions
from srpha.embedded.initiator.channel import Channel
from srpha.embedded.initiator.device import ScsiDisk, UnitQueue
from srpha.embedded.initiator.error_handler import ErrorHandler
from srpha.embedded.initiator.login import Login, log_in
from srpha.embedded.initiator.request import Request
from srpha.embedded.initiator.scan import TransportLostError, UnitRefusedError, identify, report_luns
from srpha.embedded.initiator.settings import InitiatorPort, InitiatorSettings
from srpha.wire.errors import DecodeError
from srpha.wire.scsi.lun import decode_lun
from srpha.wire.scsi.status import HostByte


class HostOwner(Protocol):
    """The initiator, as its hosts see it."""

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` as long as the initiator runs."""
        ...

    def make_disk(self, make: Callable[[str, str], ScsiDisk]) -> ScsiDisk:
        """Name, make and announce a disk; ``make`` gets name and dev_t."""
        ...

    def connection_changed(self) -> None: ...

    def host_going(self, host: ScsiHost) -> None:
        """The host's disks are gone and its commands complete; its removal takes its time from now."""
        ...


class _Gate(Enum):
    """What becomes of a command that is submitted now."""

    OPEN = "open"
    HELD = "held"
    FAILING = "failing"
    GONE = "gone"


_STATES: Final = {
    _Gate.OPEN: DeviceState.RUNNING,
    _Gate.HELD: DeviceState.BLOCKED,
    _Gate.FAILING: DeviceState.TRANSPORT_OFFLINE,
    _Gate.GONE: DeviceState.DELETED,
}
_REFUSALS: Final = {
    _Gate.OPEN: HostByte.NO_CONNECT,
    _Gate.HELD: HostByte.TRANSPORT_DISRUPTED,
    _Gate.FAILING: HostByte.TRANSPORT_FAILFAST,
    _Gate.GONE: HostByte.NO_CONNECT,
}


class _ProbeQueue(UnitQueue):
    """A unit as the scan asks it: past the gate, on whatever channel is open, without waiting."""

    __slots__ = ()

    def submit(self, command: ScsiCommand) -> None:
        host = self._host
        channel = next((item for item in host.channels if item.has_credit), None)
        if channel is None:
            host.refuse(command, HostByte.TRANSPORT_DISRUPTED)
            return
        request = Request(self, command, host.clock() + command.timeout)
        self.active += 1
        channel.transmit(request)
        host.sweep_by(request.deadline)


class ScsiHost:
    """One connection; made from a successful login, which it takes over. Implements the channels' owner protocol."""

    def __init__(
        self,
        number: int,
        port: InitiatorPort,
        line: TargetLine,
        settings: InitiatorSettings,
        login: Login,
        owner: HostOwner,
    ) -> None:
        self.number = number
        self.line = line
        self.nexus = Nexus(line.initiator_port_id(login.sgid), line.target_port_id)
        self.port = port
        self.disks: dict[int, ScsiDisk] = {}
        """By 8-byte LUN field."""
        self.last_error = ""
        """Why the transport broke or the last reconnect failed, for an operator."""
        self.open_channels: tuple[Channel, ...] = ()
        """Channels that commands may go to now; empty unless the host runs."""
        self.next_sweep = math.inf
        """Loop time of the next look for commands whose time is over."""
        self._settings = settings
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.clock: Callable[[], float] = self._loop.time
        self._remote = RemotePort(settings.mode, settings.timers)
        self._errors = ErrorHandler(self, self._loop)
        self._gate = _Gate.OPEN
        self._login = login
        self._channels: tuple[Channel, ...] = ()
        self._generation = 0
        self._stranded: list[Request] = []
        self._backlog = Backlog()
        self.queued = self._backlog.units
        """Units with waiting commands; empty: none waits."""
        self._completions = Completions(self._loop)
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._remote_timer: asyncio.TimerHandle | None = None
        self._reconnect_task: asyncio.Task[None] | None = None
        self._zero_req_lim = 0
        self._effects: dict[RemotePortEffect, Callable[[], None]] = {
            RemotePortEffect.BLOCK: self._block,
            RemotePortEffect.UNBLOCK: self._unblock,
            RemotePortEffect.FAIL_IO: self._fail_io,
            RemotePortEffect.RECONNECT: self._start_reconnect,
            RemotePortEffect.CANCEL_RECONNECT: self._cancel_reconnect,
            RemotePortEffect.REMOVE_HOST: self._remove,
        }
        self._take_channels(login)
        if self._gate is _Gate.OPEN:
            self.open_channels = self._channels

    # What the initiator asks

    @property
    def state(self) -> RemotePortState:
        """State of the remote port."""
        return self._remote.state

    @property
    def channels(self) -> Sequence[Channel]:
        """The channels of the last login, open or not."""
        return self._channels

    @property
    def connected(self) -> bool:
        """Whether commands are carried."""
        return bool(self.open_channels)

    @property
    def removing(self) -> bool:
        """Whether the host is on its way out."""
        return self._gate is _Gate.GONE

    def info(self) -> Connection:
        """The connection as sysfs would show it."""
        disks = () if self.removing else tuple(self.disks.values())
        return Connection(
            host=self.number,
            device=self.port.mad.name.rpartition("/")[0],
            port=int(self.port.mad.name.rpartition("/")[2]),
            id_ext=self.line.id_ext,
            ioc_guid=self.line.ioc_guid,
            service_id=self.line.service_id,
            pkey=self.line.pkey,
            sgid=self._login.sgid,
            dgid=self._login.dgid,
            orig_dgid=self.line.dgid,
            remote_port=f"port-{self.number}:1",
            state=self._remote.state,
            timers=self._remote.timers,
            failed_reconnects=self._remote.failed_reconnects,
            req_lim=sum(channel.req_lim for channel in self._channels),
            zero_req_lim=self._zero_req_lim + sum(channel.zero_req_lim for channel in self._channels),
            ch_count=len(self._login.channels),
            devices=tuple(DeviceInfo(disk.name, disk.dev_t, disk.hctl, disk.state) for disk in disks),
            removing=self.removing,
        )

    def set_timers(self, timers: RemotePortTimers) -> None:
        """Set the remote port's timers."""
        self._remote.set_timers(timers, self.clock())
        self._arm_remote_timer()
        self._owner.connection_changed()

    def delete(self) -> None:
        """Write to the remote port's ``delete``; a host that is going already stays as it is."""
        self._perform(self._remote.delete(self.clock()))

    def reset(self) -> None:
        """Host reset: reconnect the remote port."""
        self._perform(self._remote.host_reset(self.clock()))

    async def scan(self) -> None:
        """Find the target's disks. A unit that refuses is left out; a lost transport ends in the host's removal."""
        timeout = self._settings.scan_timeout
        found = True
        try:
            for lun_field in await report_luns(self._probe(0, 0), timeout):
                try:
                    lun = decode_lun(lun_field)
                    identity = await identify(self._probe(lun, lun_field), timeout)
                except (UnitRefusedError, DecodeError) as error:
                    self.last_error = str(error)
                    continue
                if identity is not None and self._gate is _Gate.OPEN:
                    self._owner.make_disk(partial(self._make_disk, lun, lun_field, identity))
            found = self._gate is _Gate.OPEN
        except TransportLostError as error:
            self.last_error = str(error)
            found = False
        if not found:
            self.delete()

    def crash(self) -> None:
        """Be gone without a word to the target; every command completes DID_NO_CONNECT."""
        for channel in self._channels:
            self._strand(channel.destroy())
        self.delete()

    # What units and channels ask

    def defer(self, request: Request) -> None:
        """Take a command that cannot be sent at once."""
        command = request.command
        if self._gate is _Gate.HELD and not command.fail_fast:
            self._backlog.add(request)
        elif self._gate is not _Gate.OPEN:
            self.refuse(command)
        elif len(command.cdb) > 16 and not all(channel.fits(len(command.cdb)) for channel in self._channels):
            self.refuse(command, HostByte.ERROR)
        else:
            self._backlog.add(request)
            self.sweep_by(request.deadline)
            self.drain()

    def refuse(self, command: ScsiCommand, host_byte: HostByte | None = None) -> None:
        """Complete a command soon without having sent it, by default as the state of the host demands."""
        self._completions.add(command, _REFUSALS[self._gate] if host_byte is None else host_byte)

    def drain(self) -> None:
        """Send waiting commands while there are credits."""
        if self._gate is _Gate.OPEN:
            self._backlog.drain(self.open_channels)

    def late_response(self, request: Request) -> None:
        """A command that had timed out was answered."""
        self._errors.answered_late(request)

    def task_management_answered(self, tag: int, outcome: TaskManagementOutcome) -> None:
        """A response to task management came."""
        self._errors.task_management_answered(tag, outcome)

    def channel_lost(self, channel: Channel, reason: str) -> None:
        """A channel broke: that is a transport error of the whole host."""
        if channel not in self._channels:
            return
        self.last_error = reason
        self._strand(channel.close())
        self._perform(self._remote.transport_error(self.clock()))
        if not self.removing:
            self._fail_fast_commands()

    def hold_unit(self, lun_field: int, *, held: bool) -> None:
        """Send nothing more to a unit while it is being reset."""
        disk = self.disks.get(lun_field)
        if disk is not None:
            disk.held = held
            if not held:
                self.drain()

    def finish_outstanding(self, channel: Channel, tags: Sequence[int], host_byte: HostByte) -> None:
        """Complete commands that the target has confirmed to be rid of."""
        self._completions.finish(channel.withdraw(tags), host_byte)
        self.drain()

    def sweep_by(self, deadline: float) -> None:
        """See to it that the commands are looked at by ``deadline``: one timer serves them all."""
        if deadline < self.next_sweep:
            self.next_sweep = deadline
            if self._sweep_timer is not None:
                self._sweep_timer.cancel()
            self._sweep_timer = self._loop.call_at(deadline, self._sweep)

    # Effects of the remote port

    def _perform(self, effects: Iterable[RemotePortEffect]) -> None:
        for effect in effects:
            self._effects[effect]()
        self._arm_remote_timer()
        self._owner.connection_changed()

    def _block(self) -> None:
        self._shut(_Gate.HELD)
        self._fail_fast_commands()

    def _unblock(self) -> None:
        self._completions.finish(self._take_stranded(), HostByte.RESET)
        now = self.clock()
        for request in self._backlog.requests():
            request.deadline = now + request.command.timeout
            self.sweep_by(request.deadline)
        self.open_channels = self._channels
        self._set_gate(_Gate.OPEN)
        self.drain()

    def _fail_io(self) -> None:
        # The channels, if any, are those of a reconnect under way: it may still succeed.
        self._set_gate(_Gate.FAILING)
        self._completions.finish((*self._take_stranded(), *self._backlog.take_all()), HostByte.TRANSPORT_FAILFAST)

    def _remove(self) -> None:
        self._shut(_Gate.GONE)
        self._completions.finish((*self._take_stranded(), *self._backlog.take_all()), HostByte.NO_CONNECT)
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        self._owner.host_going(self)

    def _start_reconnect(self) -> None:
        self._reconnect_task = self._owner.spawn(self._reconnect(), f"reconnect host{self.number}")

    def _cancel_reconnect(self) -> None:
        if self._reconnect_task is not None:
            self._reconnect_task.cancel()
            self._reconnect_task = None

    async def _reconnect(self) -> None:
        """Log in with the parameters of the first login, and look whether the units are still the same."""
        self._close_channels()
        try:
            login = await log_in(self.port, self.line, self._settings)
            self._take_channels(login)
            await self._identify_again()
        except (AddTargetError, TransportLostError) as error:
            self.last_error = str(error)
            self._close_channels()
            self._fail_fast_commands()
            self._perform(self._remote.reconnect_failed(self.clock()))
        else:
            self.last_error = ""
            self._perform(self._remote.reconnected(self.clock()))

    async def _identify_again(self) -> None:
        """Refresh what each disk says of itself; one that does not say it is taken offline until the next login."""
        for lun_field, disk in tuple(self.disks.items()):
            try:
                identity = await identify(self._probe(disk.lun, lun_field), self._settings.scan_timeout)
            except UnitRefusedError as error:
                self.last_error = str(error)
                identity = None
            disk.trusted = identity is not None
            if identity is not None:
                disk.set_identity(identity)
        if not self._channels or not all(channel.is_open for channel in self._channels):
            raise TransportLostError("the new channels were lost while the units were looked at")

    # Housekeeping

    def _make_disk(self, lun: int, lun_field: int, identity: UnitIdentity, name: str, dev_t: str) -> ScsiDisk:
        limit = self.line.max_cmd_per_lun or self.line.queue_size or self._settings.queue_size
        disk = ScsiDisk(self, lun, lun_field, limit, name=name, dev_t=dev_t, identity=identity)
        self.disks[lun_field] = disk
        return disk

    def _probe(self, lun: int, lun_field: int) -> _ProbeQueue:
        return _ProbeQueue(self, lun, lun_field, 1)

    def _take_channels(self, login: Login) -> None:
        self._zero_req_lim += sum(channel.zero_req_lim for channel in self._channels)
        self._login = login
        self._channels = login.channels
        for channel in login.channels:
            self._generation += 1
            channel.adopt(self, self._generation)

    def _shut(self, gate: _Gate) -> None:
        """Close the gate: first nothing more is sent, then the channels go, then the listeners hear."""
        self.open_channels = ()
        self._gate = gate
        self._close_channels()
        self._set_gate(gate)

    def _set_gate(self, gate: _Gate) -> None:
        self._gate = gate
        for disk in tuple(self.disks.values()):
            usable = disk.trusted or gate is not _Gate.OPEN
            disk.set_state(_STATES[gate] if usable else DeviceState.OFFLINE)

    def _close_channels(self) -> None:
        for channel in self._channels:
            self._strand(channel.close())
        self._errors.transport_finished()
        for disk in self.disks.values():
            disk.held = False

    def _strand(self, requests: dict[int, Request]) -> None:
        for request in requests.values():
            request.unit.active -= 1
            self._stranded.append(request)

    def _take_stranded(self) -> list[Request]:
        taken, self._stranded = self._stranded, []
        return taken

    def _fail_fast_commands(self) -> None:
        """Complete what need not wait for this path: commands whose submitter has others."""
        held = [request for request in self._stranded if not request.command.fail_fast]
        gone = [request for request in self._stranded if request.command.fail_fast]
        self._stranded = held
        for request in self._backlog.take_all():
            if request.command.fail_fast:
                gone.append(request)
            else:
                self._backlog.add(request)
        self._completions.finish(gone, HostByte.TRANSPORT_DISRUPTED)

    def _sweep(self) -> None:
        """Find commands whose time is over. While the transport is broken only the remote port's timers count."""
        self._sweep_timer = None
        self.next_sweep = math.inf
        now = self.clock()
        running = self._gate is _Gate.OPEN
        starved = self._backlog.take_expired(now) if running else []
        expired: list[tuple[Channel, Request]] = []
        pending: list[float] = [request.deadline for request in self._backlog.requests()] if running else []
        for channel in self._channels:
            for request in channel.requests.values():
                if request.expired:
                    continue
                if request.deadline > now:
                    pending.append(request.deadline)
                else:
                    request.expired = True
                    expired.append((channel, request))
        if pending:
            self.sweep_by(min(pending))
        self._completions.finish(starved, HostByte.TIME_OUT)
        for channel, request in expired:
            if running:
                self._errors.timed_out(request)
            else:
                channel.fail(f"LUN {request.unit.lun} did not answer the scan")
        if starved and not any(channel.requests for channel in self._channels):
            self.reset()  # no answer is to come that could bring a credit

    def _arm_remote_timer(self) -> None:
        if self._remote_timer is not None:
            self._remote_timer.cancel()
            self._remote_timer = None
        deadline = self._remote.deadline
        if deadline is not None:
            self._remote_timer = self._loop.call_at(deadline, self._expire_remote)

    def _expire_remote(self) -> None:
        self._remote_timer = None
        self._perform(self._remote.expire(self.clock()))
