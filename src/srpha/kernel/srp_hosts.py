"""SRP connections as sysfs shows them: scsi_hosts of ib_srp, their remote ports and disks (facts: srp C.2, C.4).

Whoever made a connection, it is seen. Its attributes vanish before the host does when it is removed, so what a host was
is remembered: it still blocks a login of the same identity. Reading blocks for moments; it is done off the loop.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar, cast

from srpha.core.recovery.remote_port import InvalidTimersError, RemotePortState, RemotePortTimers
from srpha.core.seams import Connection, DeviceInfo, DeviceState, InitiatorError
from srpha.kernel.sysfs import AttributeGoneError, Sysfs, numbered
from srpha.kernel.timers_writer import REMOTE_PORTS, read_timers
from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import Gid

L = TypeVar("L")

SCSI_HOSTS: Final = "class/scsi_host"
SCSI_DEVICES: Final = "bus/scsi/devices"
DRIVER: Final = "ib_srp"

_AGED_AT_ONCE: Final = 64
"""Undisturbed hosts read in full in one reading, so that a thousand of them do not come due together."""
_AGED_SOONER: Final = 128
"""Undisturbed hosts that come due in the time set; when there are more it takes longer in proportion."""
_LOOKED_AT: Final = 256
"""Undisturbed hosts whose state is looked at in one reading, by turns, as long as nothing is amiss with any."""
_REMOTE_PORT: Final = re.compile(r"port-(\d{1,9}):(\d{1,9})", re.ASCII)
_HCTL: Final = re.compile(r"(\d{1,9}):\d{1,9}:\d{1,9}:\d{1,20}", re.ASCII)
_DEV_T: Final = re.compile(r"\d{1,7}:\d{1,7}", re.ASCII)
_NOBODY: Final = Gid(0, 0)
_DEVICE_STATES: Final = {
    "created": DeviceState.RUNNING,
    "running": DeviceState.RUNNING,
    "quiesce": DeviceState.RUNNING,
    "blocked": DeviceState.BLOCKED,
    "created-blocked": DeviceState.BLOCKED,
    "transport-offline": DeviceState.TRANSPORT_OFFLINE,
    "offline": DeviceState.OFFLINE,
    "cancel": DeviceState.DELETED,
    "deleted": DeviceState.DELETED,
}
"""All states of the SCSI mid-layer (drivers/scsi/scsi_sysfs.c) in the words of the seam."""
_PORT_STATES: Final = {state.value: state for state in RemotePortState}


@dataclass(frozen=True, slots=True)
class HostReading:
    """All SRP connections by host number, and what of them could not be read, a sentence each."""

    connections: tuple[Connection, ...]
    troubles: tuple[str, ...]


@dataclass(slots=True)
class _Seen:
    """What is remembered of a host from reading to reading."""

    connection: Connection
    read_at: float
    identified: bool
    doubtful: bool = False
    """Something was done to it since."""


class SrpHosts:
    """Reads the connections again and again, for one caller at a time.

    A connection that ran and still runs is read in full only every ``refresh`` seconds, and a few such at a time; in
    between its state alone is looked at, because a thousand connections have tens of thousands of attributes. With
    hundreds of connections they are looked at by turns: what breaks one breaks others, so that one that does not run
    has all looked at.
    """

    def __init__(self, sysfs: Sysfs, refresh: float) -> None:
        self._sysfs = sysfs
        self._refresh = refresh
        self._seen: dict[int, _Seen] = {}
        self._foreign: set[int] = set()
        self._doubtful: deque[int | None] = deque()
        self._turn = 0
        """The lowest host number whose turn it is to be looked at."""
        self._before: tuple[frozenset[int], Mapping[int, str]] = frozenset(), {}
        """The hosts and remote ports of the reading before."""
        self._listed: dict[str, tuple[tuple[str, ...], object]] = {}

    def forget(self, host: int | None = None) -> None:
        """Read this host, or all, in full next time: something was done to it. May be called in any thread."""
        self._doubtful.append(host)

    def numbers(self) -> frozenset[int]:
        """Numbers of all scsi_hosts there are, whatever their driver. Raises :class:`InitiatorError`."""
        return self._parsed(SCSI_HOSTS, lambda names: frozenset(number for number, _ in numbered(names, "host")))

    def read(self, now: float) -> HostReading:
        """Read all connections; ``now`` in seconds. Raises :class:`InitiatorError` when sysfs cannot be listed."""
        if not self._sysfs.exists("class"):
            raise InitiatorError(f"{self._sysfs.root}: there is no sysfs here")
        hosts = self.numbers()
        if hosts != self._before[0]:
            self._seen = {number: seen for number, seen in self._seen.items() if number in hosts}
            self._foreign &= hosts
        self._take_doubts()
        ports = self._remote_ports()
        disks: Mapping[int, tuple[str, ...]] | None = None
        troubles: list[str] = []
        undisturbed = self._undisturbed(hosts, ports)
        due = now - self._refresh * max(1.0, len(undisturbed) / _AGED_SOONER)
        aged = _AGED_AT_ONCE
        for number in sorted(hosts - self._foreign):
            same = number in undisturbed
            if same and (self._seen[number].read_at > due or aged == 0):
                continue
            port = ports.get(number, "")
            if not same and not self._is_srp(number):
                continue
            aged -= same
            if disks is None:
                disks = self._disks()
            self._read_host(number, port, disks.get(number, ()), now, troubles, same=same)
        return HostReading(tuple(self._seen[number].connection for number in sorted(self._seen)), tuple(troubles))

    def _take_doubts(self) -> None:
        """What is doubted while a reading runs counts for the next one as well: it may have been read before that."""
        for _ in range(len(self._doubtful)):
            host = self._doubtful.popleft()
            for number, seen in self._seen.items():
                if host in (None, number):
                    seen.doubtful = True

    def _names(self, directory: str) -> tuple[str, ...]:
        try:
            return self._sysfs.names(directory)
        except OSError as error:
            raise InitiatorError(f"{directory} cannot be listed: {error.strerror or error}") from error

    def _parsed(self, directory: str, parse: Callable[[tuple[str, ...]], L]) -> L:
        """What ``parse`` makes of a directory's names; the same as last time while those are."""
        names = self._names(directory)
        known = self._listed.get(directory)
        if known is not None and known[0] == names:
            return cast("L", known[1])
        parsed = parse(names)
        self._listed[directory] = names, parsed
        return parsed

    def _remote_ports(self) -> Mapping[int, str]:
        """The first remote port of each host; ib_srp makes one."""
        return self._parsed(REMOTE_PORTS, _remote_ports)

    def _disks(self) -> Mapping[int, tuple[str, ...]]:
        """``H:C:T:L`` of all SCSI devices by host."""
        return self._parsed(SCSI_DEVICES, _disks)

    def _undisturbed(self, hosts: frozenset[int], ports: Mapping[int, str]) -> frozenset[int]:
        """Hosts that ran, and run as far as is looked, and to which nothing is known to have been done."""
        calm = [number for number in sorted(self._seen) if _is_calm(self._seen[number], ports.get(number, ""))]
        same_as_before = (hosts, ports) == self._before
        self._before = hosts, ports
        looked_at = calm
        if len(calm) > _LOOKED_AT and len(calm) == len(self._seen) and same_as_before:
            first = bisect_left(calm, self._turn) % len(calm)
            looked_at = [*calm[first:], *calm[:first]][:_LOOKED_AT]
            self._turn = looked_at[-1] + 1
        amiss = {number for number in looked_at if not self._runs(ports[number])}
        if amiss and len(looked_at) < len(calm):
            amiss = {number for number in calm if not self._runs(ports[number])}
        return frozenset(calm) - amiss

    def _runs(self, port: str) -> bool:
        return self._sysfs.holds(f"{REMOTE_PORTS}/{port}/state", "running")

    def _is_srp(self, number: int) -> bool:
        """Whether the host belongs to ib_srp. One that cannot be asked is taken for what it was before."""
        driver = self._sysfs.text(f"{SCSI_HOSTS}/host{number}/proc_name")
        if driver is None:
            return number in self._seen
        if driver != DRIVER:
            self._foreign.add(number)
        return driver == DRIVER

    def _read_host(
        self, number: int, port: str, disks: tuple[str, ...], now: float, troubles: list[str], *, same: bool
    ) -> None:
        """Read one host; of one that is the ``same`` what cannot have changed is not read again."""
        before = self._seen.get(number)
        base = f"{SCSI_HOSTS}/host{number}"
        try:
            self._sysfs.read(f"{base}/id_ext")
            vanished = False
        except AttributeGoneError:
            vanished = True
        except OSError:
            vanished = False
        identity: Connection | None = None
        if not vanished:
            identity = before.connection if same and before is not None else self._identity(number)
        if identity is None and not vanished:
            troubles.append(f"host{number}: what it is connected to cannot be read")
        known = before.connection if before is not None else None
        connection = identity or known or self._stranger(number, port)
        # The remote port comes a moment after the attributes, and goes a moment after them.
        going = vanished or (not port and known is not None and known.remote_port != "")
        integer = self._sysfs.integer
        timers, failed = connection.timers, connection.failed_reconnects
        state = RemotePortState.LOST if going else RemotePortState.RUNNING
        if port:
            timers = self._timers(port, known, troubles)
            failed = integer(f"{REMOTE_PORTS}/{port}/failed_reconnects") or 0
            state = self._state(port, known, troubles)
        connection = replace(
            connection,
            remote_port=port,
            state=RemotePortState.LOST if going else state,
            timers=timers,
            failed_reconnects=failed,
            req_lim=integer(f"{base}/req_lim") or 0,
            zero_req_lim=integer(f"{base}/zero_req_lim") or 0,
            ch_count=integer(f"{base}/ch_count") or (known.ch_count if known is not None else 0),
            devices=self._devices(disks, troubles),
            removing=going,
        )
        identified = identity is not None or (before is not None and before.identified)
        self._seen[number] = _Seen(connection, now, identified)

    def _identity(self, number: int) -> Connection | None:
        """The attributes that name the two ports; None when one that is always there is not."""
        base = f"{SCSI_HOSTS}/host{number}"
        sysfs = self._sysfs
        id_ext, ioc_guid = sysfs.hexadecimal(f"{base}/id_ext", 64), sysfs.hexadecimal(f"{base}/ioc_guid", 64)
        device, port = sysfs.name(f"{base}/local_ib_device"), sysfs.integer(f"{base}/local_ib_port")
        if id_ext is None or ioc_guid is None or device is None or port is None or not 0 < port < 256:
            return None
        return Connection(
            host=number,
            device=device,
            port=port,
            id_ext=id_ext,
            ioc_guid=ioc_guid,
            service_id=sysfs.hexadecimal(f"{base}/service_id", 64),
            pkey=sysfs.hexadecimal(f"{base}/pkey", 16),
            sgid=sysfs.gid(f"{base}/sgid") or _NOBODY,
            dgid=sysfs.gid(f"{base}/dgid"),
            orig_dgid=sysfs.gid(f"{base}/orig_dgid"),
            remote_port="",
            state=RemotePortState.RUNNING,
            timers=RemotePortTimers(),
            failed_reconnects=0,
            req_lim=0,
            zero_req_lim=0,
            ch_count=0,
            devices=(),
        )

    def _stranger(self, number: int, port: str) -> Connection:
        """A host about which hardly anything can be known; its local port has the name ``/0``, which no port has."""
        id_ext = ioc_guid = 0
        text = self._sysfs.text(f"{REMOTE_PORTS}/{port}/port_id") if port else None
        if text is not None:
            try:
                identifier = Gid.from_hex(text)  # it looks like a GID: 16 bytes in hex
            except DecodeError:
                identifier = _NOBODY
            id_ext, ioc_guid = identifier.prefix, identifier.guid
        return Connection(
            host=number,
            device="",
            port=0,
            id_ext=id_ext,
            ioc_guid=ioc_guid,
            service_id=None,
            pkey=None,
            sgid=_NOBODY,
            dgid=None,
            orig_dgid=None,
            remote_port=port,
            state=RemotePortState.RUNNING,
            timers=RemotePortTimers(),
            failed_reconnects=0,
            req_lim=0,
            zero_req_lim=0,
            ch_count=0,
            devices=(),
        )

    def _state(self, port: str, known: Connection | None, troubles: list[str]) -> RemotePortState:
        text = self._sysfs.text(f"{REMOTE_PORTS}/{port}/state")
        state = _PORT_STATES.get(text or "")
        if state is not None:
            return state
        troubles.append(f"{port}: its state cannot be read")
        return known.state if known is not None else RemotePortState.RUNNING

    def _timers(self, port: str, known: Connection | None, troubles: list[str]) -> RemotePortTimers:
        values = read_timers(self._sysfs, port)
        if values is not None:
            try:
                return RemotePortTimers(*values)
            except InvalidTimersError as error:
                troubles.append(f"{port}: {error}")
        else:
            troubles.append(f"{port}: its timers cannot be read")
        return known.timers if known is not None else RemotePortTimers()

    def _devices(self, disks: tuple[str, ...], troubles: list[str]) -> tuple[DeviceInfo, ...]:
        """The disks among a host's devices: those with a block device."""
        found: list[DeviceInfo] = []
        for hctl in disks:
            base = f"{SCSI_DEVICES}/{hctl}"
            try:
                names = self._sysfs.names(f"{base}/block")
            except OSError:
                names = ()
            for name in names[:1]:
                dev_t = self._sysfs.text(f"{base}/block/{name}/dev") or ""
                if not _DEV_T.fullmatch(dev_t):
                    troubles.append(f"{hctl}: the device number of {name} cannot be read")
                    continue
                found.append(DeviceInfo(name, dev_t, hctl, self._device_state(hctl, troubles)))
        return tuple(found)

    def _device_state(self, hctl: str, troubles: list[str]) -> DeviceState:
        try:
            text = self._sysfs.read(f"{SCSI_DEVICES}/{hctl}/state")
        except AttributeGoneError:
            return DeviceState.DELETED
        except OSError:
            text = ""
        state = _DEVICE_STATES.get(text)
        if state is None:
            troubles.append(f"{hctl}: its state cannot be read")
            return DeviceState.OFFLINE
        return state


def _remote_ports(names: tuple[str, ...]) -> dict[int, str]:
    found: dict[int, tuple[int, str]] = {}
    for name in names:
        if match := _REMOTE_PORT.fullmatch(name):
            host, number = int(match[1]), int(match[2])
            found[host] = min(found.get(host, (number, name)), (number, name))
    return {host: name for host, (_, name) in found.items()}


def _disks(names: tuple[str, ...]) -> dict[int, tuple[str, ...]]:
    found: dict[int, list[str]] = {}
    for name in names:
        if match := _HCTL.fullmatch(name):
            found.setdefault(int(match[1]), []).append(name)
    return {host: tuple(sorted(hctls, key=_by_number)) for host, hctls in found.items()}


def _is_calm(seen: _Seen, port: str) -> bool:
    """Whether a host ran when it was last read, has its remote port still, and nothing was done to it since."""
    known = seen.connection
    if not seen.identified or seen.doubtful or known.removing or known.state is not RemotePortState.RUNNING:
        return False
    return bool(port) and port == known.remote_port


def _by_number(hctl: str) -> tuple[int, ...]:
    return tuple(int(part) for part in hctl.split(":"))
