"""An SRP target: its target ports on the HCA ports of its host, logins, and its life (SRP r16a chapters 4 to 6).

A target port is an I/O controller; every HCA port of the target leads to each of them, as with Linux targets. I_T
nexuses therefore belong to the controller, not to the HCA port: a login through another HCA port with the same
initiator port identifier meets the nexus that the first one made.

A single-channel login ends that nexus *before* it is answered: commands aborted, channels disconnected. Whoever gets
the answer knows that nothing sent over the old nexus will be executed any more. Fencing relies on it.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from srpha.core.seams import Unwatch
from srpha.embedded.rdma.cm_connect import ConnectError
from srpha.embedded.target.dm_agent import DeviceManagementAgent
from srpha.embedded.target.hold import Hold, HoldScope
from srpha.embedded.target.io_unit import IoUnit
from srpha.embedded.target.login import LoginRefusedError, LoginTerms, Population, judge_login, read_login
from srpha.embedded.target.spec import IocSpec, SpecError, TargetLimits, TargetSpec
from srpha.embedded.target.srp_channel import ChannelEnd, LogoutReason, SrpChannel, SrpNexus
from srpha.embedded.target.target_device import BackingMaker, TargetDevice, make_backing
from srpha.embedded.target.transport import Attachment, ConnectRequest
from srpha.wire.cm_reject import RejectReason
from srpha.wire.srp import LoginRejectReason

DEVICE_MANAGEMENT_BIT: Final = 1 << 19
"""IsDeviceManagementSupported in a port's capability mask (IBA 14.2.5.6)."""


class TargetState(Enum):
    """Life of a target."""

    AWAY = "away"
    """Not in the fabric: nothing listens, nothing is announced."""
    ONLINE = "online"
    CRASHED = "crashed"
    """The host hangs: its link is up and nobody answers."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One channel as an operator sees it."""

    initiator_port_id: bytes
    ioc_guid: int
    port: str
    """Name of the target's HCA port."""
    channel: int
    """Number within the nexus, oldest first."""
    commands: int
    in_progress: int
    credits: int


@dataclass(slots=True)
class _Refusal:
    """Logins to be refused on purpose."""

    reason: LoginRejectReason | RejectReason
    remaining: int


class SrpTarget:
    """One target. Made away; :meth:`join` brings it into the fabric. All calls are made on the event loop."""

    def __init__(
        self,
        spec: TargetSpec,
        attachments: Sequence[Attachment],
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        backing_maker: BackingMaker = make_backing,
    ) -> None:
        """``attachments`` are the HCA ports, at least one; raises :class:`SpecError` or a backing's error."""
        if not attachments:
            raise SpecError(f"target {spec.name} has no HCA port")
        self.spec = spec
        self.device = TargetDevice(spec, backing_maker)
        self.io_unit = IoUnit(spec.iocs, spec.limits)
        self.holds: list[Hold] = []
        """Holds in force, oldest first."""
        self._loop = loop or asyncio.get_running_loop()
        self._attachments = tuple(attachments)
        self._agents = [DeviceManagementAgent(attachment.gsi, self.io_unit) for attachment in self._attachments]
        self._enabled = [True] * len(self._attachments)
        self._nexuses: list[dict[bytes, SrpNexus]] = [{} for _ in spec.iocs]
        self._channels = 0
        self._listening: list[Unwatch] = []
        self._refusals: list[_Refusal] = []
        self._unheard: list[tuple[ConnectRequest, Callable[[ConnectRequest], None]]] = []
        """Requests that came while crashed; their senders repeat them, which the CM does not show us."""
        self._state = TargetState.AWAY

    @property
    def state(self) -> TargetState:
        return self._state

    @property
    def limits(self) -> TargetLimits:
        return self.spec.limits

    @property
    def ports(self) -> tuple[str, ...]:
        """Names of the HCA ports; their indices are what the methods below take."""
        return tuple(attachment.port.name for attachment in self._attachments)

    def call_later(self, delay: float, callback: Callable[[], None]) -> TimerHandle:
        return self._loop.call_later(delay, callback)

    # Life

    def join(self) -> None:
        """Come into the fabric: listen, serve Device Management, set IsDM (a trap 144 follows). Again is harmless."""
        if self._state is TargetState.CRASHED:
            raise SpecError(f"target {self.spec.name} has crashed; restart it")
        if self._state is TargetState.ONLINE:
            return
        self._state = TargetState.ONLINE
        self._listen()
        for agent in self._agents:
            agent.start()
        self._announce(True)

    def leave(self) -> None:
        """Leave in order: channels are logged out and disconnected, nobody listens, IsDM is cleared."""
        if self._state is not TargetState.ONLINE:
            return
        for channel in self.channels():
            channel.end(ChannelEnd.TARGET, LogoutReason.NONE)
        self._unlisten()
        for agent in self._agents:
            agent.stop()
        self._announce(False)
        self._state = TargetState.AWAY

    def crash(self) -> None:
        """Hang: every connection is gone without a word, requests of all kinds are swallowed. Data stay."""
        if self._state is not TargetState.ONLINE:
            return
        self._state = TargetState.CRASHED
        for channel in self.channels():
            channel.vanish()
        for nexuses in self._nexuses:
            nexuses.clear()
        self._channels = 0
        self.holds.clear()
        self.device.power_on()
        for agent in self._agents:
            agent.silent = True

    def restart(self) -> None:
        """Come back after a crash, or from being away: initiators that return hear of the power on."""
        if self._state is TargetState.ONLINE:
            self.crash()
        if self._state is TargetState.CRASHED:
            self._unlisten()
            self._state = TargetState.AWAY
        self.device.power_on()
        self.join()
        unheard, self._unheard = self._unheard, []
        for request, greet in unheard:
            if request.waiting:
                greet(request)

    def close(self) -> None:
        """Vanish from the fabric silently and release the backings. The object is of no use afterwards."""
        self.crash()
        self._unlisten()
        for agent in self._agents:
            agent.stop()
        self.device.close()

    def disable_port(self, port: int) -> None:
        """Refuse logins by one HCA port (insufficient resources, as LIO) and end the channels that use it."""
        self._enabled[port] = False
        for channel in self.channels():
            if channel.port == port:
                channel.end(ChannelEnd.TARGET, LogoutReason.NONE)

    def enable_port(self, port: int) -> None:
        self._enabled[port] = True

    def set_controller_present(self, controller: int, present: bool) -> None:
        """Pull an I/O controller out of its slot or put it back: the change ID moves, its channels end."""
        if self.io_unit.present(controller) == present:
            return
        self.io_unit.set_present(controller, present)
        if not present:
            for channel in self._of_controller(controller):
                channel.end(ChannelEnd.TARGET, LogoutReason.NONE)
        if self._state is TargetState.ONLINE:
            self._unlisten()
            self._listen()

    # What tests and faults do to it

    def hold(self, scope: HoldScope | None = None) -> Hold:
        """Hold commands from now on until the result is released; see :mod:`srpha.embedded.target.hold`."""
        hold = Hold(scope or HoldScope(), self._hold_ended)
        self.holds.append(hold)
        return hold

    def refuse_logins(self, reason: LoginRejectReason | RejectReason, count: int = 1) -> None:
        """Refuse the next ``count`` logins: by LOGIN_REJ, or by a bare CM REJ."""
        self._refusals.append(_Refusal(reason, count))

    def channels(self) -> tuple[SrpChannel, ...]:
        """All channels, by controller and login order."""
        return tuple(channel for index in range(len(self._nexuses)) for channel in self._of_controller(index))

    def sessions(self) -> tuple[SessionInfo, ...]:
        """What is logged in now."""
        return tuple(
            SessionInfo(
                nexus.scsi.initiator_port_id,
                self.spec.iocs[index].guid,
                self._attachments[channel.port].port.name,
                number,
                channel.commands,
                len(channel.tasks),
                channel.credits,
            )
            for index, nexuses in enumerate(self._nexuses)
            for nexus in nexuses.values()
            for number, channel in enumerate(nexus.channels)
        )

    def channel_ended(self, channel: SrpChannel, _end: ChannelEnd) -> None:
        """A channel tells that it has ended; with its last one the I_T nexus is lost."""
        nexus = channel.nexus
        nexus.channels.remove(channel)
        self._channels -= 1
        if not nexus.channels:
            self._forget(nexus)

    # Logins

    def _listen(self) -> None:
        for port, attachment in enumerate(self._attachments):
            for index, ioc in enumerate(self.spec.iocs):
                if self.io_unit.present(index):
                    self._listening.append(attachment.rdma.listen(ioc.service_id, self._greeter(port, index, ioc)))

    def _unlisten(self) -> None:
        for unlisten in self._listening:
            unlisten()
        self._listening.clear()

    def _greeter(self, port: int, controller: int, ioc: IocSpec) -> Callable[[ConnectRequest], None]:
        def greet(request: ConnectRequest) -> None:
            if self._state is TargetState.ONLINE:
                self._login(request, port, controller, ioc)
            else:
                self._unheard = [(earlier, way) for earlier, way in self._unheard if earlier.waiting]
                self._unheard.append((request, greet))

        return greet

    def _login(self, request: ConnectRequest, port: int, controller: int, ioc: IocSpec) -> None:
        try:
            terms = self._judge(request, port, controller, ioc)
        except LoginRefusedError as refusal:
            request.reject(RejectReason.CONSUMER_DEFINED, private_data=refusal.reject(self.limits))
            return
        if terms is None:
            return
        nexuses = self._nexuses[controller]
        old = nexuses.get(terms.initiator_port_id)
        if old is not None and terms.ends_nexus:
            for channel in tuple(old.channels):
                channel.end(ChannelEnd.NEW_LOGIN, LogoutReason.MULTICHANNEL)
            old = None
        try:
            connection = request.accept(terms.response(self.limits))
        except ConnectError:
            return  # the port went down under the request
        if old is None:
            old = SrpNexus(self.device.open_nexus(terms.initiator_port_id, controller))
            nexuses[terms.initiator_port_id] = old
        self._channels += 1
        old.channels.append(SrpChannel(self, old, connection, terms, port))

    def _judge(self, request: ConnectRequest, port: int, controller: int, ioc: IocSpec) -> LoginTerms | None:
        """The terms; None when the request was rejected without a LOGIN_REJ."""
        login = read_login(request.private_data)
        reason = self._injected_refusal()
        if isinstance(reason, RejectReason):
            request.reject(reason)
            return None
        if reason is not None:
            raise LoginRefusedError(reason, login.tag)
        nexus = self._nexuses[controller].get(login.initiator_port_id)
        return judge_login(
            login,
            target_port_id=ioc.target_port_id,
            enabled=self._enabled[port],
            limits=self.limits,
            population=Population(0 if nexus is None else len(nexus.channels), self._channels),
        )

    def _injected_refusal(self) -> LoginRejectReason | RejectReason | None:
        if not self._refusals:
            return None
        refusal = self._refusals[0]
        refusal.remaining -= 1
        if refusal.remaining <= 0:
            self._refusals.pop(0)
        return refusal.reason

    def _forget(self, nexus: SrpNexus) -> None:
        nexuses = self._nexuses[nexus.scsi.controller]
        if nexuses.get(nexus.scsi.initiator_port_id) is nexus:
            del nexuses[nexus.scsi.initiator_port_id]
        self.device.close_nexus(nexus.scsi)

    def _of_controller(self, controller: int) -> tuple[SrpChannel, ...]:
        return tuple(channel for nexus in self._nexuses[controller].values() for channel in nexus.channels)

    def _announce(self, present: bool) -> None:
        for attachment in self._attachments:
            attachment.port.set_capability(DEVICE_MANAGEMENT_BIT, present)

    def _hold_ended(self, hold: Hold) -> None:
        if hold in self.holds:
            self.holds.remove(hold)
