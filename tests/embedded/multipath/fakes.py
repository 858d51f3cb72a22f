"""Scripted SCSI devices in virtual time: they complete, fail, stall, delay, execute late and answer twice."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from srpha.core.hints import Hints
from srpha.core.scsi_io import DeviceEvent, Nexus, ScsiCommand, ScsiDevice, UnitIdentity
from srpha.core.seams import DeviceState, Unwatch
from srpha.embedded.multipath.engine import EmbeddedPathManager
from srpha.embedded.multipath.settings import MultipathSettings
from srpha.wire.scsi import cdb
from srpha.wire.scsi.alua import AccessState, TargetPortGroup, TargetPortGroups, encode_rtpg
from srpha.wire.scsi.capacity import ReadCapacity16
from srpha.wire.scsi.mode import DEVICE_WRITE_PROTECT, encode_mode_sense
from srpha.wire.scsi.sense import Asc, Sense, SenseKey, encode_fixed
from srpha.wire.scsi.status import HostByte, ScsiStatus
from srpha.wire.scsi.vpd import Designator, DesignatorType, encode_identification

WWID = "36001405" + "0" * 24 + "1"
BLOCK = 512


def identity(wwid: str = WWID, blocks: int = 4096, **others: object) -> UnitIdentity:
    made = UnitIdentity(
        wwid=wwid,
        serial="0001",
        vendor="SRPHA",
        product="DISK",
        revision="1",
        blocks=blocks,
        block_size=BLOCK,
        write_protected=False,
    )
    return replace(made, **others)  # type: ignore[arg-type]


@dataclass
class Result:
    """How a command ends; ``None`` as a script entry executes it in the ordinary way."""

    status: int = ScsiStatus.GOOD
    sense: bytes = b""
    host_byte: HostByte = HostByte.OK
    delivered: bool = True
    execute: bool = False
    residual: int = 0
    twice: bool = False


def check_condition(key: SenseKey, code: Asc) -> Result:
    return Result(ScsiStatus.CHECK_CONDITION, encode_fixed(Sense.of(key, code)))


def host_error(host_byte: HostByte, *, delivered: bool = True) -> Result:
    return Result(host_byte=host_byte, delivered=delivered)


@dataclass
class FakeUnit:
    """The logical unit behind all its devices."""

    blocks: dict[int, bytes] = field(default_factory=dict)
    access: dict[int, AccessState] = field(default_factory=dict)
    log: list[tuple[str, str, int]] = field(default_factory=list)
    """(device, what, LBA) in the order of execution."""

    def execute(self, device: str, command: ScsiCommand) -> None:
        parsed = cdb.parse_rw(command.cdb)
        if parsed is None:
            return
        kind, lba, count, _ = parsed
        self.log.append((device, kind.value, lba))
        for index in range(count):
            piece = slice(index * BLOCK, (index + 1) * BLOCK)
            if kind is cdb.RwKind.WRITE:
                self.blocks[lba + index] = bytes(command.data_out[piece])
            else:
                assert command.data_in is not None
                command.data_in[piece] = self.blocks.get(lba + index, bytes(BLOCK))


class FakeDevice:
    """A path to the unit. Commands take ``latency``; entries of ``script`` decide how media commands end."""

    def __init__(
        self,
        unit: FakeUnit,
        name: str,
        dev_t: str,
        hctl: str,
        *,
        who: UnitIdentity | None = None,
        nexus: Nexus | None = None,
        latency: float = 0.001,
    ) -> None:
        self.unit = unit
        self.name = name
        self.dev_t = dev_t
        self.hctl = hctl
        self.state = DeviceState.RUNNING
        self.identity = who or identity()
        self.truth: UnitIdentity | None = None
        """What the unit answers when it is asked; None: as ``identity``."""
        host = int(hctl.partition(":")[0])
        self.nexus = nexus or Nexus(bytes([host]) * 16, b"target-port-id-1")
        self.latency = latency
        self.script: list[Result | None] = []
        self.check_script: list[Result | None] = []
        """For commands that are no media commands."""
        self.stalled = False
        """Media commands arrive at the target and stay there."""
        self.dead = False
        """Nothing is answered at all, checks neither."""
        self.sent: list[ScsiCommand] = []
        self.checks: list[float] = []
        self.out: list[ScsiCommand] = []
        """Commands that have not been completed."""
        self.at_target: list[ScsiCommand] = []
        """Stalled commands that the target may still execute."""
        self._hints = Hints()

    def submit(self, command: ScsiCommand) -> None:
        loop = asyncio.get_running_loop()
        media = cdb.parse_rw(command.cdb) is not None or command.cdb[0] == 0x35
        (self.sent if media else []).append(command)
        if not media and command.cdb[0] == 0:
            self.checks.append(loop.time())
        if self.state is not DeviceState.RUNNING:
            result = host_error(HostByte.TRANSPORT_DISRUPTED, delivered=False)
            loop.call_soon(self._complete, command, result)
            return
        self.out.append(command)
        if self.dead or (media and self.stalled):
            if media and self.stalled:
                self.at_target.append(command)
            return
        script = self.script if media else self.check_script
        loop.call_later(self.latency, self._end, command, media, script.pop(0) if script else None)

    def watch_state(self, hint: Callable[[], None]) -> Unwatch:
        return self._hints.add(hint)

    # --- what tests do ---

    def set_state(self, state: DeviceState) -> None:
        """Change the state; leaving RUNNING disrupts what is out, which may still be at the target."""
        if state is self.state:
            return
        self.state = state
        self._hints.ring()
        if state is not DeviceState.RUNNING:
            self.disrupt()

    def disrupt(self) -> None:
        """Complete everything that is out with TRANSPORT_DISRUPTED, delivered."""
        out, self.out = self.out, []
        for command in out:
            asyncio.get_running_loop().call_soon(self._complete, command, host_error(HostByte.TRANSPORT_DISRUPTED))

    def execute_late(self) -> int:
        """The target executes what is still in its queue for this device; how many commands that were."""
        late, self.at_target = self.at_target, []
        for command in late:
            self.unit.execute(f"{self.name} late", command)
        return len(late)

    def answer_late(self, command: ScsiCommand, result: Result | None = None) -> None:
        """Complete a command, though its submitter may not wait for it any more."""
        self._complete(command, result or Result(execute=True))

    def set_identity(self, who: UnitIdentity) -> None:
        self.identity = who
        self._hints.ring()

    # --- inside ---

    def _end(self, command: ScsiCommand, media: bool, result: Result | None) -> None:
        if command not in self.out:
            return
        self.out.remove(command)
        if result is None:
            result = Result(execute=True)
        if not media and result.execute:
            self._answer_check(command, result)
        self._complete(command, result)
        if result.twice:
            self._complete(command, result)

    def _complete(self, command: ScsiCommand, result: Result) -> None:
        if result.execute:
            self.unit.execute(self.name, command)
        command.status = ScsiStatus(result.status)
        command.sense = result.sense
        command.host_byte = result.host_byte
        command.delivered = result.delivered
        command.residual = command.residual if result.execute and not result.residual else result.residual
        command.done(command)

    def _answer_check(self, command: ScsiCommand, result: Result) -> None:
        who = self.truth or self.identity
        op = command.cdb[0]
        if op == cdb.Op.INQUIRY:
            data = encode_identification([Designator(DesignatorType.NAA, bytes.fromhex(who.wwid[1:]))])
        elif op == cdb.Op.SERVICE_ACTION_IN_16:
            data = ReadCapacity16(last_lba=who.blocks - 1, block_length=who.block_size).encode()
        elif op == cdb.Op.MODE_SENSE_6:
            data = encode_mode_sense(b"", DEVICE_WRITE_PROTECT if who.write_protected else 0)
        elif op == cdb.Op.MAINTENANCE_IN:
            groups = [TargetPortGroup(number, state) for number, state in sorted(self.unit.access.items())]
            data = encode_rtpg(TargetPortGroups(tuple(groups)))
        else:
            return
        assert command.data_in is not None
        command.data_in[: len(data)] = data
        command.residual = len(command.data_in) - len(data)


class FakeSource:
    """A device source; devices come and go by hand."""

    def __init__(self) -> None:
        self.present: dict[str, ScsiDevice] = {}
        self._receivers: list[DeviceEvent] = []

    def devices(self) -> tuple[ScsiDevice, ...]:
        return tuple(self.present.values())

    def watch_devices(self, receiver: DeviceEvent) -> Unwatch:
        self._receivers.append(receiver)
        return lambda: self._receivers.remove(receiver) if receiver in self._receivers else None

    def add(self, device: FakeDevice) -> FakeDevice:
        self.present[device.hctl] = device
        for receiver in tuple(self._receivers):
            receiver(device, present=True)
        return device

    def remove(self, device: FakeDevice) -> None:
        del self.present[device.hctl]
        device.set_state(DeviceState.DELETED)
        for receiver in tuple(self._receivers):
            receiver(device, present=False)


class FakeFencer:
    """Ends nexuses: what is at the target of a fenced nexus is never executed."""

    def __init__(self, source: FakeSource) -> None:
        self.source = source
        self.calls: list[tuple[float, Nexus, str]] = []
        self.latency = 0.01
        self.refuse: set[str] = set()
        """Devices through which the fence is not confirmed."""
        self.hang: set[str] = set()
        self.known: list[FakeDevice] = []

    async def fence(self, nexus: Nexus, via: ScsiDevice) -> bool:
        loop = asyncio.get_running_loop()
        self.calls.append((loop.time(), nexus, via.name))
        if via.name in self.hang:
            await asyncio.sleep(1e6)
        await asyncio.sleep(self.latency)
        if via.name in self.refuse or via.state is not DeviceState.RUNNING:
            return False
        self.end(nexus)
        return True

    def end(self, nexus: Nexus) -> None:
        for device in self.known:
            if device.nexus == nexus:
                device.at_target.clear()


@dataclass
class Bench:
    """A running manager over fakes."""

    unit: FakeUnit
    source: FakeSource
    fencer: FakeFencer
    manager: EmbeddedPathManager

    def path(self, host: int, lun: int = 0, **how: object) -> FakeDevice:
        letter = chr(ord("a") + len(self.fencer.known))
        device = FakeDevice(
            self.unit,
            f"sd{letter}",
            f"8:{16 * len(self.fencer.known)}",
            f"{host}:0:0:{lun}",
            **how,  # type: ignore[arg-type]
        )
        self.fencer.known.append(device)
        self.source.add(device)
        return device

    def paths_in_use(self) -> list[str]:
        return [path.device.name for path in self.manager.device("mpatha").state.paths if path.usable]


@asynccontextmanager
async def bench(**settings: object):  # type: ignore[no-untyped-def]
    """A manager that runs until the block ends."""
    source = FakeSource()
    fencer = FakeFencer(source)
    manager = EmbeddedPathManager(source, fencer, MultipathSettings(**settings))  # type: ignore[arg-type]
    task = asyncio.get_running_loop().create_task(manager.run())
    await asyncio.sleep(0)
    try:
        yield Bench(FakeUnit(), source, fencer, manager)
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def pattern(number: int, blocks: int = 1) -> bytes:
    """Data that tell writes apart."""
    return struct.pack(">Q", number) * (BLOCK * blocks // 8)
