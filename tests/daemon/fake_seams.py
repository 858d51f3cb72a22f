"""The three seams in memory, for tests of the daemon: everything is a value that a test may change."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from scripted_subnet import SM_LID, ScriptedSubnet
from srpha.core.events import Event, EventKind
from srpha.core.recovery.remote_port import RemotePortState, RemotePortTimers
from srpha.core.seams import (
    AddTargetError,
    CheckerState,
    Connection,
    DeviceInfo,
    DeviceState,
    GroupInfo,
    GroupState,
    InitiatorError,
    MadAddress,
    MadPortGoneError,
    MadTimeoutError,
    MapInfo,
    PathInfo,
    PathManagerError,
    PathState,
    PortIdentity,
    ReceivedMad,
    Unwatch,
)
from srpha.core.targets.add_target import TargetLine, parse_target_line
from srpha.wire.mad import MadHeader, Method
from srpha.wire.notice import Trap, make_notice
from srpha.wire.sa import SaAttribute, sa_request

L = TypeVar("L")


def _join(listeners: list[L], listener: L) -> Unwatch:
    listeners.append(listener)

    def leave() -> None:
        if listener in listeners:
            listeners.remove(listener)

    return leave


class FakeMadPort:
    def __init__(self, identity: PortIdentity, subnet: ScriptedSubnet, latency: float = 0.001) -> None:
        self.current: PortIdentity | None = identity
        self.subnet = subnet
        self.latency = latency
        self.name = identity.name
        self.replies: list[tuple[MadAddress, bytes]] = []
        self.hints: list[Callable[[], None]] = []
        self.receivers: list[Callable[[ReceivedMad], None]] = []

    def identity(self) -> PortIdentity:
        if self.current is None:
            raise MadPortGoneError(f"{self.name}: no such device")
        return self.current

    async def transact(self, address: MadAddress, mad: bytes, *, timeout: float, retries: int) -> bytes:
        identity = self.identity()
        for _ in range(retries + 1):
            up = self.current is not None and self.current.state.value == "active"
            reply = self.subnet.reply(identity.name, address, mad) if up else None
            if reply is not None:
                await asyncio.sleep(self.latency)
                return reply
            await asyncio.sleep(timeout)
        raise MadTimeoutError(f"{self.name}: no answer from LID {address.lid}")

    def reply(self, address: MadAddress, mad: bytes) -> None:
        self.replies.append((address, mad))

    def watch_reports(self, receiver: Callable[[ReceivedMad], None]) -> Unwatch:
        return _join(self.receivers, receiver)

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        return _join(self.hints, hint)

    def change(self, **what: object) -> None:
        """Change the identity and hint."""
        assert self.current is not None
        self.current = replace(self.current, **what)  # type: ignore[arg-type]
        self.subnet.ports = [self.current if item.name == self.name else item for item in self.subnet.ports]
        self.hint()

    def hint(self) -> None:
        for hint in tuple(self.hints):
            hint()

    def notice(self, trap: Trap) -> None:
        """Deliver an SA Report with ``trap``."""
        mad = sa_request(Method.REPORT, SaAttribute.NOTICE, transaction_id=7, record=make_notice(trap))
        self.deliver(mad)

    def deliver(self, mad: bytes) -> None:
        for receiver in tuple(self.receivers):
            receiver(ReceivedMad(MadAddress(SM_LID), mad))

    def subscriptions(self) -> int:
        return sum(1 for port, _, method, what, _ in self.subnet.log if (port, method, what) == (self.name, 2, 3))


@dataclass
class FakeInitiator:
    """ib_srp with its rules for duplicates; logins take ``login_time`` seconds."""

    names: tuple[str, ...]
    login_time: float = 0.01
    removal_time: float = 0.05
    made: list[Connection] = field(default_factory=list)
    lines: list[tuple[float, str, str]] = field(default_factory=list)
    errors: list[AddTargetError | InitiatorError] = field(default_factory=list)
    """Raised by the next logins, one each."""
    always: AddTargetError | None = None
    hangs: set[str] = field(default_factory=set)
    """Local ports whose logins never end."""
    loses: int = 0
    """Logins that succeed and whose connection is gone at once."""
    unreadable: bool = False
    timers_refused: bool = False
    hidden_until: float = -1.0
    """Until then every login gets EEXIST though no connection is to be seen."""
    timer_sets: list[tuple[int, RemotePortTimers]] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    busy: set[str] = field(default_factory=set)
    hints: list[Callable[[], None]] = field(default_factory=list)
    extensions: dict[int, int] = field(default_factory=dict)
    next_host: int = 1
    reads: int = 0

    def ports(self) -> tuple[str, ...]:
        return self.names

    async def add_target(self, port: str, line: str) -> None:
        now = asyncio.get_running_loop().time()
        self.lines.append((now, port, line))
        assert port not in self.busy, "one login at a time per port"
        self.busy.add(port)
        try:
            if port in self.hangs:
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(self.login_time)
            if self.always is not None:
                raise self.always
            if self.errors:
                raise self.errors.pop(0)
            if now < self.hidden_until:
                raise AddTargetError(errno.EEXIST, "already connected")
            self.connect(port, parse_target_line(line))
        finally:
            self.busy.discard(port)

    def connect(self, port: str, line: TargetLine) -> Connection | None:
        for item in self.made:
            same = (item.local_port, item.id_ext, item.ioc_guid) == (port, line.id_ext, line.ioc_guid)
            if same and self.extensions[item.host] == line.initiator_extension:
                raise AddTargetError(errno.EEXIST, "already connected")
        if self.loses:
            self.loses -= 1
            return None
        device, _, number = port.partition("/")
        host = self.next_host
        self.next_host += 1
        assert line.dgid is not None
        name = "sd" + chr(ord("a") + host - 1)
        made = Connection(
            host=host,
            device=device,
            port=int(number),
            id_ext=line.id_ext,
            ioc_guid=line.ioc_guid,
            service_id=line.service_id,
            pkey=line.pkey,
            sgid=line.dgid,
            dgid=line.dgid,
            orig_dgid=line.dgid,
            remote_port=f"port-{host}:1",
            state=RemotePortState.RUNNING,
            timers=RemotePortTimers(),
            failed_reconnects=0,
            req_lim=32,
            zero_req_lim=0,
            ch_count=1,
            devices=(DeviceInfo(name, f"8:{16 * (host - 1)}", f"{host}:0:0:0", DeviceState.RUNNING),),
        )
        self.extensions[host] = line.initiator_extension
        self.made.append(made)
        self.hint()
        return made

    async def connections(self) -> tuple[Connection, ...]:
        self.reads += 1
        if self.unreadable:
            raise InitiatorError("sysfs is not to be read")
        return tuple(sorted(self.made, key=lambda item: item.host))

    async def set_timers(self, host: int, timers: RemotePortTimers) -> None:
        if self.timers_refused:
            raise InitiatorError("refused")
        self.timer_sets.append((host, timers))
        self.edit(host, timers=timers)

    async def remove(self, host: int) -> None:
        self.removed.append(host)
        self.lose(host)

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        return _join(self.hints, hint)

    def edit(self, host: int, **what: object) -> None:
        self.made = [replace(item, **what) if item.host == host else item for item in self.made]  # type: ignore[arg-type]
        self.hint()

    def lose(self, host: int) -> None:
        """Begin the removal of a host, which takes a while."""
        self.edit(host, removing=True)
        asyncio.get_running_loop().call_later(self.removal_time, self.drop, host)

    def drop(self, host: int) -> None:
        self.made = [item for item in self.made if item.host != host]
        self.hint()

    def hint(self) -> None:
        for hint in tuple(self.hints):
            hint()


@dataclass
class FakePathManager:
    """One map over all devices of an initiator."""

    initiator: FakeInitiator
    failed: set[str] = field(default_factory=set)
    calls: list[tuple[float, str, str]] = field(default_factory=list)
    unreadable: bool = False
    hints: list[Callable[[], None]] = field(default_factory=list)

    async def maps(self) -> tuple[MapInfo, ...]:
        if self.unreadable:
            raise PathManagerError("multipathd does not answer")
        paths = tuple(
            PathInfo(
                device=device.name,
                dev_t=device.dev_t,
                hctl=device.hctl,
                state=PathState.FAILED if device.name in self.failed else PathState.ACTIVE,
                checker=CheckerState.READY,
                device_state=device.state,
                priority=1,
                fail_count=0,
            )
            for item in self.initiator.made
            for device in item.devices
        )
        if not paths:
            return ()
        group = GroupInfo(1, "service-time 0", 1, GroupState.ACTIVE, paths)
        return (MapInfo("mpatha", "3600", "dm-0", 1000, 512, "srpha", "unit", True, 0, (group,)),)

    async def fail_path(self, device: str) -> None:
        self.calls.append((asyncio.get_running_loop().time(), "fail", device))
        self.failed.add(device)
        self.hint()

    async def hold_path(self, device: str) -> None:
        self.calls.append((asyncio.get_running_loop().time(), "hold", device))
        self.failed.add(device)
        self.hint()

    async def reinstate_path(self, device: str) -> None:
        self.calls.append((asyncio.get_running_loop().time(), "reinstate", device))
        self.failed.discard(device)
        self.hint()

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        return _join(self.hints, hint)

    def hint(self) -> None:
        for hint in tuple(self.hints):
            hint()


@dataclass
class Log:
    """Events as they come."""

    events: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: EventKind) -> list[Event]:
        return [event for event in self.events if event.kind is kind]

    def kinds(self) -> set[EventKind]:
        return {event.kind for event in self.events}


def is_report_response(mad: bytes) -> bool:
    return MadHeader.decode(mad).method == Method.REPORT_RESP
