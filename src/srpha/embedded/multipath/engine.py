"""The embedded path manager: maps out of SCSI devices, checkers, fences, and events as hints.

It is to the embedded initiator what multipathd and dm-multipath are to the kernel's (facts: multipath 1.3 to 1.6, 7.4).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from srpha.core.hints import Hints
from srpha.core.multipath.checker import USABLE, difference
from srpha.core.multipath.disposition import SideEffect
from srpha.core.multipath.fencing import Fencer
from srpha.core.multipath.path_check import PathCheck
from srpha.core.scsi_io import DeviceSource, Nexus, ScsiDevice, UnitIdentity
from srpha.core.seams import CheckerState, DeviceState, MapInfo, PathManagerError, Unwatch
from srpha.embedded.multipath.checker import PathChecker
from srpha.embedded.multipath.describe import map_info, status_line, table_line
from srpha.embedded.multipath.device import MultipathDevice
from srpha.embedded.multipath.fences import FenceCoordinator, FenceCounters
from srpha.embedded.multipath.path import DevicePath
from srpha.embedded.multipath.settings import MultipathSettings

_TRANSPORT_DOWN = frozenset({DeviceState.BLOCKED, DeviceState.TRANSPORT_OFFLINE})


@dataclass(frozen=True, slots=True)
class KeptOut:
    """A path that answers but may not be used. ``map_name`` is empty for a device that no map can be named for."""

    device: str
    hctl: str
    map_name: str
    reason: str


@dataclass(slots=True)
class _Attachment:
    """A device taken up as a path."""

    map: MultipathDevice
    path: DevicePath
    state: DeviceState
    checker: PathChecker
    unwatch: Unwatch
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    """Who waits for the result of a check."""
    held: bool = False
    """Out of use until it is reinstated, whatever its checker finds."""


class EmbeddedPathManager:
    """Implements :class:`srpha.core.seams.PathManager` for the devices of an embedded initiator.

    A map appears with the first device of a WWID and stays, with its name, for the manager's life; without any path it
    queues or fails I/O as ``no_path_retry`` says.
    """

    def __init__(self, source: DeviceSource, fencer: Fencer, settings: MultipathSettings) -> None:
        self._source = source
        self._settings = settings
        self._fences = FenceCoordinator(
            fencer,
            quiesce_time=settings.quiesce_time,
            fence_timeout=settings.fence_timeout,
            retry_interval=settings.polling_interval,
        )
        self._maps: dict[str, MultipathDevice] = {}
        """By WWID, in the order they appeared."""
        self._attached: dict[str, _Attachment] = {}
        """By H:C:T:L, which is never used again while the initiator lives."""
        self._nameless: dict[str, ScsiDevice] = {}
        self._hosts: dict[Nexus, int] = {}
        """The youngest host seen of a nexus."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._hints = Hints()
        self._lun_hints = Hints()
        self._ringing = False

    async def run(self) -> None:
        """Take up the source's devices, check paths and fence nexuses until cancelled."""
        unwatch = self._source.watch_devices(self._device_event)
        try:
            for device in self._source.devices():
                self._add(device)
            await self._fences.run()
        finally:
            unwatch()
            for attachment in self._attached.values():
                attachment.unwatch()
                attachment.checker.stop()
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    # --- what is ---

    def devices(self) -> tuple[MultipathDevice, ...]:
        """All maps in the order they appeared."""
        return tuple(self._maps.values())

    def device(self, name: str) -> MultipathDevice:
        """The map called ``name`` (``mpatha`` or ``dm-0``) or with that WWID; KeyError when there is none."""
        for wwid, device in self._maps.items():
            if name in (device.name, device.dm_name, wwid):
                return device
        raise KeyError(f"there is no multipath device {name!r}")

    def snapshot(self) -> tuple[MapInfo, ...]:
        """All maps by name, without waiting."""
        return tuple(
            sorted((map_info(device) for device in self._maps.values()), key=lambda info: _name_key(info.name))
        )

    async def maps(self) -> tuple[MapInfo, ...]:
        return self.snapshot()

    def kept_out(self) -> tuple[KeptOut, ...]:
        """Paths that answer but may not be used, with the reason."""
        known = [
            KeptOut(item.path.device.name, hctl, item.map.name, item.path.kept_out)
            for hctl, item in self._attached.items()
            if item.path.kept_out
        ]
        unnamed = [
            KeptOut(device.name, hctl, "", "the unit has no WWID to join paths by")
            for hctl, device in self._nameless.items()
        ]
        return (*known, *unnamed)

    def table_line(self, name: str) -> str:
        """dm-multipath's table line of a map, as ``dmsetup table`` prints it (without the blank at its end)."""
        return table_line(self.device(name), self._settings.prio).format()

    def status_line(self, name: str) -> str:
        """dm-multipath's status line of a map, as ``dmsetup status`` prints it (without the blank at its end)."""
        return status_line(self.device(name)).format()

    @property
    def fence_counters(self) -> FenceCounters:
        """What fences have come to."""
        return self._fences.counters

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        """Hear, after the fact and once for changes of one moment, that :meth:`maps` may have changed."""
        return self._hints.add(hint)

    def watch_luns(self, hint: Callable[[], None]) -> Unwatch:
        """Hear that a target has said that its LUNs have changed: a rescan would tell."""
        return self._lun_hints.add(hint)

    # --- messages ---

    async def fail_path(self, device: str) -> None:
        """Take a path out of use at once and go on without its commands; its checker may bring it back later."""
        item = self._named(device)
        item.map.state.fail(item.path, self._now(), pending=False)
        item.map.give_up(item.path)
        item.checker.soon()
        self._after(item.map)

    async def hold_path(self, device: str) -> None:
        """Take a path out of use at once and keep it out until it is reinstated."""
        self._named(device).held = True
        await self.fail_path(device)

    async def reinstate_path(self, device: str) -> None:
        """Check a path now and take it into use; PathManagerError with the reason when the check refuses."""
        item = self._named(device)
        item.held = False
        if item.path.usable:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        item.waiters.append(waiter)
        item.checker.check(verify=True)
        await waiter
        if not item.path.usable:
            why = item.path.kept_out or f"its checker says {item.path.checker_state.value}"
            raise PathManagerError(f"path {device} of {item.map.name} cannot be reinstated: {why}")

    def disable_group(self, name: str, number: int) -> None:
        """Bypass a path group. Raises KeyError, ValueError."""
        self._bypass(name, number, True)

    def enable_group(self, name: str, number: int) -> None:
        """End the bypass of a path group. Raises KeyError, ValueError."""
        self._bypass(name, number, False)

    def switch_group(self, name: str, number: int) -> None:
        """Have the next I/O use a path group if it can. Raises KeyError, ValueError."""
        device = self.device(name)
        device.state.switch_group(number)
        self._after(device)

    # --- devices come, change and go ---

    def _device_event(self, device: ScsiDevice, *, present: bool) -> None:
        if present:
            self._add(device)
        else:
            self._remove(device)

    def _add(self, device: ScsiDevice) -> None:
        if device.hctl in self._attached or device.hctl in self._nameless:
            return
        identity = device.identity
        if not identity.wwid:
            self._nameless[device.hctl] = device
            return
        host = int(device.hctl.partition(":")[0])
        last_host = self._hosts.get(device.nexus)
        self._hosts[device.nexus] = host
        target = self._maps.get(identity.wwid) or self._make_map(identity)
        path = DevicePath(device)
        path.kept_out = difference(target.identity, identity) or ""
        path.usable = path.running and not path.kept_out
        path.pending = device.state is DeviceState.BLOCKED
        checker = PathChecker(path, self._settings, self._report)
        item = _Attachment(target, path, device.state, checker, device.watch_state(lambda: self._state_event(item)))
        self._attached[device.hctl] = item
        target.state.add(path, self._now())
        if path.kept_out:
            self._admit(item, identity, news=True)
        if last_host is not None and host != last_host:
            # The initiator has logged in anew under the same identifiers, which has ended the old nexus.
            self._fences.renewed(device.nexus)
        self._fences.paths_changed()
        self._after(target)
        checker.check()

    def _make_map(self, identity: UnitIdentity) -> MultipathDevice:
        number = len(self._maps)
        device = MultipathDevice(
            f"mpath{_suffix(number)}",
            f"dm-{number}",
            identity,
            self._settings,
            self._fences,
            self._notice,
            self._changed,
        )
        self._maps[identity.wwid] = device
        return device

    def _remove(self, device: ScsiDevice) -> None:
        self._nameless.pop(device.hctl, None)
        item = self._attached.pop(device.hctl, None)
        if item is None:
            return
        item.unwatch()
        item.checker.stop()
        self._answer_waiters(item)
        item.map.state.remove(item.path, self._now())
        item.path.usable = False
        if item.path.active:
            asyncio.get_running_loop().call_later(self._settings.give_up_delay, item.map.give_up, item.path)
        self._after(item.map)

    def _state_event(self, item: _Attachment) -> None:
        """The device's state or identity has changed (from inside the change)."""
        before, item.state = item.state, item.path.device.state
        state = item.map.state
        if item.state is DeviceState.RUNNING:
            if before is DeviceState.RUNNING:
                item.checker.check(verify=True)
                return
            if before in _TRANSPORT_DOWN:
                self._fences.renewed(item.path.device.nexus)
            state.fail(item.path, self._now(), pending=True)
        else:
            state.fail(item.path, self._now(), pending=item.state is DeviceState.BLOCKED)
            if before is DeviceState.RUNNING:
                delay = self._settings.give_up_delay
                asyncio.get_running_loop().call_later(delay, self._give_up_if_down, item)
        item.checker.device_changed()
        self._after(item.map)

    def _give_up_if_down(self, item: _Attachment) -> None:
        if not item.path.running and item.path.active:
            item.map.give_up(item.path)

    # --- checks ---

    def _report(self, path: DevicePath, check: PathCheck) -> None:
        item = self._attached[path.device.hctl]
        state = item.map.state
        before = _view(path)
        path.checker_state = check.state or CheckerState.UNDEF
        if check.state in USABLE:
            self._take_good(item, check)
        elif check.state is not CheckerState.PENDING:
            state.fail(path, self._now(), pending=False)
            if check.state is CheckerState.TIMEOUT:
                item.map.give_up(path)
        if check.verified or check.state not in USABLE:
            self._answer_waiters(item)
        if check.effects:
            self._notice(path, check.effects)
        if before != _view(path):
            self._after(item.map)

    def _take_good(self, item: _Attachment, check: PathCheck) -> None:
        path, state = item.path, item.map.state
        if check.verified:
            self._admit(item, check.identity, news=check.identity.blocks != path.identity.blocks)
        if check.priority is not None:
            state.set_priority(path, check.priority, self._now())
        if path.usable or path.kept_out or item.held or not path.running:
            if path.kept_out or item.held:
                path.pending = False
            return
        if check.verified:
            state.reinstate(path, self._now())
            self._fences.paths_changed()
        else:
            # The path failed while the check was under way, which has not asked who it is.
            item.checker.soon()

    def _admit(self, item: _Attachment, identity: UnitIdentity, *, news: bool) -> None:
        """Decide whether a path with this identity may be used. ``news``: other paths may not know its capacity yet."""
        path, target = item.path, item.map
        path.identity = identity
        reason = difference(target.identity, identity)
        if reason is None:
            path.kept_out = ""
            return
        grown = replace(target.identity, blocks=max(identity.blocks, target.blocks))
        if difference(grown, identity) is None:
            path.kept_out = "" if path.usable else reason
            self._grow(item, identity, ask=news)
            return
        path.kept_out = reason
        state = target.state
        if path.usable:
            state.fail(path, self._now())
        # What is out on it may come back from another unit, or from another place of this one.
        target.give_up(path)

    def _grow(self, item: _Attachment, identity: UnitIdentity, *, ask: bool) -> None:
        """Resize the map when all paths that can tell agree on the larger capacity; else ask the others."""
        target = item.map
        telling = [
            other
            for other in self._attached.values()
            if other.map is target and (other.path.usable or other.path.kept_out or other is item)
        ]
        behind = [other for other in telling if other.path.identity.blocks != identity.blocks]
        if behind:
            for other in behind if ask else ():
                other.checker.check(verify=True)
            return
        target.resize(identity.blocks, replace(target.identity, blocks=identity.blocks))
        for other in telling:
            if other.path.kept_out:
                other.path.kept_out = difference(target.identity, other.path.identity) or ""
                if other is not item:
                    other.checker.check(verify=True)
        self._changed()

    def _answer_waiters(self, item: _Attachment) -> None:
        waiters, item.waiters = item.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _notice(self, path: DevicePath, effects: SideEffect) -> None:
        """A command has failed its path, or a unit attention has told something."""
        item = self._attached.get(path.device.hctl)
        if item is None:
            return
        if not path.usable:
            item.checker.soon()
        if effects & SideEffect.INQUIRY_CHANGED:
            # It may be another unit now: nothing more is sent before it has said that it is not.
            item.map.state.fail(path, self._now(), pending=True)
            item.checker.check(verify=True)
        if effects & SideEffect.LUNS_CHANGED:
            item.checker.check(verify=True)
            self._lun_hints.ring()
        if effects & (SideEffect.CAPACITY_CHANGED | SideEffect.ACCESS_STATE_CHANGED):
            verify = bool(effects & SideEffect.CAPACITY_CHANGED)
            for other in self._attached.values():
                if other.map is item.map:
                    other.checker.check(verify=verify)
        self._arm(item.map)
        self._changed()

    # --- housekeeping ---

    def _named(self, name: str) -> _Attachment:
        for item in self._attached.values():
            if item.path.device.name == name:
                return item
        raise PathManagerError(f"no multipath device has a path {name!r}")

    def _bypass(self, name: str, number: int, bypassed: bool) -> None:
        device = self.device(name)
        device.state.bypass_group(number, bypassed)
        self._after(device)

    def _after(self, device: MultipathDevice) -> None:
        """The state of a map has changed."""
        device.settle()
        self._arm(device)
        self._changed()

    def _arm(self, device: MultipathDevice) -> None:
        timer = self._timers.pop(device.wwid, None)
        if timer is not None:
            timer.cancel()
        deadline = device.state.next_deadline()
        if deadline < math.inf:
            self._timers[device.wwid] = asyncio.get_running_loop().call_at(deadline, self._tick, device)

    def _tick(self, device: MultipathDevice) -> None:
        device.state.tick(self._now())
        self._after(device)

    def _changed(self) -> None:
        if not self._ringing:
            self._ringing = True
            asyncio.get_running_loop().call_soon(self._ring)

    def _ring(self) -> None:
        self._ringing = False
        self._hints.ring()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _view(path: DevicePath) -> tuple[CheckerState, bool, bool, int, str]:
    return path.checker_state, path.usable, path.pending, path.priority, path.kept_out


def _suffix(number: int) -> str:
    """``a``, ``b`` ... ``z``, ``aa``, as multipath-tools names its maps."""
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        text = chr(ord("a") + digit) + text
    return text


def _name_key(name: str) -> tuple[int, str]:
    return len(name), name
