"""Memory and idle processor time of the daemon with 8 local ports and every connection made.

The daemon's parts run in a process of their own, as ``srpha daemon`` would load them: supervisor, ib_srp's initiator
over a tree of files that stands in for sysfs, no multipath. The subnet is this process's; datagrams go between the two
over a socket. What the user MAD devices and multipathd's socket cost is therefore not in the figures.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measure import Results
from srpha.core.connections.pairs import Pair, PairStatus
from srpha.core.seams import MadAddress, MadError, MadPort, MadTimeoutError, PortIdentity, ReceivedMad, Unwatch
from srpha.daemon.discover import discover
from srpha.daemon.settings import Settings
from srpha.daemon.supervisor import Supervisor
from srpha.kernel.ib_srp import IbSrpInitiator
from srpha.kernel.kernel_log import LogReader
from srpha.kernel.sysfs import Sysfs

_LOCAL_PORTS = 8
_LIMIT = 300.0
_LENGTH = 4


def measure(results: Results, told: Callable[[str], None], *, quick: bool) -> None:
    """128 target ports and 128 targets of two ports, on every local port; one quiet minute that has one rescan."""
    idle = 5.0 if quick else 61.0
    for targets in (4,) if quick else (64, 128):
        figures = asyncio.run(_measure(targets, idle))
        name = f"{_LOCAL_PORTS} ports, {targets} targets of two ports, {figures['connections']:.0f} connections"
        results.add(f"{name}: imports alone", "MB", [figures["bare"]], told)
        results.add(f"{name}: resident memory", "MB", [figures["resident"]], told)
        results.add(f"{name}: at most", "MB", [figures["peak"]], told)
        results.add(f"{name}: processor until settled", "s", [figures["start"]], told)
        results.add(f"{name}: processor when idle", "%", [figures["idle"]], told)


# --- the process with the subnet ---


async def _measure(targets: int, idle: float) -> dict[str, float]:
    from srpha.embedded.world import World, WorldSettings  # noqa: PLC0415 - the daemon's process does without
    from srpha.embedded.worldspec import WorldSpec  # noqa: PLC0415
    from srpha.lab.generate import WorldShape, generate_world  # noqa: PLC0415

    spec = WorldSpec.parse(generate_world(WorldShape(targets, hosts=_LOCAL_PORTS // 2, unit_mib=1)))
    world = World(spec, random.Random(1), WorldSettings(timer_floor=1e-3))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.run())
        await world.ready()
        await asyncio.sleep(1.0)
        below = [port for host in world.hosts.values() for port in host.mad_ports]
        ports = [_Renamed(port, f"mlx5_{number}") for number, port in enumerate(below)]
        with tempfile.TemporaryDirectory() as folder:
            tree, address = Path(folder) / "sys", Path(folder) / "socket"
            found = await discover(ports, Settings())
            _grow(tree, ports, [pair for pair in found.pairs if pair.status is PairStatus.DUE])
            server = await asyncio.start_unix_server(lambda r, w: _serve(ports, r, w), address)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.footprint", str(tree), str(address), str(idle)),
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                async with asyncio.timeout(_LIMIT):
                    output, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
                server.close()
        running.cancel()
    figures: dict[str, float] = json.loads(output)
    return figures


@dataclass(frozen=True, slots=True)
class _Renamed:
    """A port of the subnet as the host's device ``device``: the names of several hosts' ports become one host's."""

    below: MadPort
    device: str

    @property
    def name(self) -> str:
        return self.identity().name

    def identity(self) -> PortIdentity:
        return replace(self.below.identity(), device=self.device)

    async def transact(self, address: MadAddress, mad: bytes, *, timeout: float, retries: int) -> bytes:
        return await self.below.transact(address, mad, timeout=timeout, retries=retries)

    def reply(self, address: MadAddress, mad: bytes) -> None:
        self.below.reply(address, mad)

    def watch_reports(self, receiver: Callable[[ReceivedMad], None]) -> Unwatch:
        return self.below.watch_reports(receiver)

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        return self.below.watch(hint)


def _grow(tree: Path, ports: Sequence[_Renamed], pairs: Sequence[Pair]) -> None:
    """The files of a host on which every one of ``pairs`` is connected and has one disk."""
    gids = {}
    for port in ports:
        identity = port.identity()
        gids[identity.name] = str(identity.gid)
        _put(tree, f"class/infiniband_srp/srp-{identity.device}-{identity.port}", {"add_target": ""})
    for number, pair in enumerate(pairs):
        target, (device, _, port_number) = pair.target, pair.key.local_port.rpartition("/")
        own, theirs = gids[pair.key.local_port], str(target.dgid)
        attributes = {
            "proc_name": "ib_srp",
            "local_ib_device": device,
            "local_ib_port": port_number,
            "ch_count": "4",
            "id_ext": f"0x{target.id_ext:016x}",
            "ioc_guid": f"0x{target.ioc_guid:016x}",
            "service_id": f"0x{target.service_id:016x}",
            "pkey": f"0x{target.pkey:04x}",
            "sgid": own,
            "dgid": theirs,
            "orig_dgid": theirs,
            "req_lim": "61",
            "zero_req_lim": "0",
        }
        _put(tree, f"class/scsi_host/host{number}", attributes)
        remote = {"state": "running", "fast_io_fail_tmo": "15", "dev_loss_tmo": "600", "reconnect_delay": "10"}
        _put(tree, f"class/srp_remote_ports/port-{number}:1", {**remote, "failed_reconnects": "0", "delete": ""})
        _put(tree, f"bus/scsi/devices/{number}:0:0:0", {"state": "running"})
        _put(tree, f"bus/scsi/devices/{number}:0:0:0/block/sd{number}", {"dev": f"65:{number}"})


def _put(tree: Path, directory: str, attributes: dict[str, str]) -> None:
    place = tree / directory
    place.mkdir(parents=True)
    for name, text in attributes.items():
        (place / name).write_text(f"{text}\n", encoding="ascii")


async def _serve(ports: Sequence[_Renamed], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry out the daemon's transactions; first it is told who its ports are."""
    _send(writer, tuple(port.identity() for port in ports))

    async def answer(number: int, index: int, address: MadAddress, mad: bytes, timeout: float, retries: int) -> None:
        try:
            reply: bytes | None = await ports[index].transact(address, mad, timeout=timeout, retries=retries)
        except MadError:
            reply = None
        _send(writer, (number, reply))

    try:
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(answer(*await _receive(reader)))
    except* (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def _send(writer: asyncio.StreamWriter, message: tuple[object, ...]) -> None:
    data = pickle.dumps(message)
    writer.write(len(data).to_bytes(_LENGTH, "big") + data)


async def _receive(reader: asyncio.StreamReader) -> tuple:  # type: ignore[type-arg]
    length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
    message: tuple = pickle.loads(await reader.readexactly(length))  # type: ignore[type-arg]  # noqa: S301 - our own
    return message


# --- the daemon's process ---


class _Wire:
    """The daemon's end of the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[bytes | None]] = {}
        self._last = 0

    async def run(self) -> None:
        while True:
            number, reply = await _receive(self._reader)
            if (future := self._waiting.get(number)) is not None and not future.done():
                future.set_result(reply)

    async def ask(self, index: int, address: MadAddress, mad: bytes, timeout: float, retries: int) -> bytes | None:
        self._last += 1
        number = self._last
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        _send(self._writer, (number, index, address, mad, timeout, retries))
        try:
            return await future
        finally:
            del self._waiting[number]


@dataclass(frozen=True, slots=True)
class _FarPort:
    """A local port whose datagrams go over the socket; nothing ever happens to it."""

    wire: _Wire
    index: int
    own: PortIdentity

    @property
    def name(self) -> str:
        return self.own.name

    def identity(self) -> PortIdentity:
        return self.own

    async def transact(self, address: MadAddress, mad: bytes, *, timeout: float, retries: int) -> bytes:
        reply = await self.wire.ask(self.index, address, mad, timeout, retries)
        if reply is None:
            raise MadTimeoutError(f"{self.name}: no answer from LID {address.lid}")
        return reply

    def reply(self, address: MadAddress, mad: bytes) -> None:
        pass

    def watch_reports(self, receiver: Callable[[ReceivedMad], None]) -> Unwatch:
        return _nothing

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        return _nothing


class _NoLog:
    """A kernel log that cannot be read."""

    def open(self, *, from_start: bool = False) -> LogReader:
        raise PermissionError


def _nothing() -> None:
    pass


async def _live(tree: Path, address: str, idle: float) -> dict[str, float]:
    bare = _resident("VmRSS")
    reader, writer = await asyncio.open_unix_connection(address)
    identities = await _receive(reader)
    wire = _Wire(reader, writer)
    ports = [_FarPort(wire, index, identity) for index, identity in enumerate(identities)]
    supervisor = Supervisor(ports, IbSrpInitiator(Sysfs(tree), _NoLog()), None, Settings(), lambda _event: None)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(wire.run()), group.create_task(supervisor.run())]
        while not (connected := _connected(supervisor)):  # noqa: ASYNC110 - nothing tells when it is settled
            await asyncio.sleep(0.2)
        await asyncio.sleep(3.0)
        start = time.process_time()
        began = time.perf_counter()
        await asyncio.sleep(idle)
        used = (time.process_time() - start) / (time.perf_counter() - began)
        figures = {
            "connections": connected,
            "bare": bare,
            "start": start,
            "idle": used * 100,
            "resident": _resident("VmRSS"),
            "peak": _resident("VmHWM"),
        }
        for task in tasks:
            task.cancel()
    return figures


def _connected(supervisor: Supervisor) -> int:
    """How many connections there are; 0 until every one is known for what it is."""
    snapshot = supervisor.snapshot()
    statuses = {pair.status for pair in snapshot.pairs}
    return len(snapshot.pairs) if snapshot.settled and statuses == {PairStatus.CONNECTED} else 0


def _resident(field: str) -> float:
    """Megabytes, from the kernel's account of this process."""
    return next(_fields(field)) / 1000


def _fields(field: str) -> Iterator[float]:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            yield float(value.split()[0]) * 1.024


def _main() -> int:
    import srpha.cli.daemon  # noqa: F401, PLC0415 - what the daemon's process has loaded

    tree, address, idle = sys.argv[1:]
    print(json.dumps(asyncio.run(_live(Path(tree), address, float(idle)))))
    sys.stdout.flush()
    os._exit(0)  # the reader's thread may sleep


if __name__ == "__main__":
    sys.exit(_main())
