"""A small subnet with an embedded target and the embedded initiator, for tests: two HCAs, two switches, one SM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from managed import Subnet, two_switches

from srpha.core.scsi_io import ScsiCommand
from srpha.embedded.initiator.device import ScsiDisk
from srpha.embedded.initiator.initiator import EmbeddedInitiator
from srpha.embedded.initiator.settings import InitiatorPort, InitiatorSettings
from srpha.embedded.mads.mad_port import EmbeddedMadPort
from srpha.embedded.rdma.rdma_port import RdmaPort
from srpha.embedded.target.spec import IocSpec, TargetSpec, UnitSpec
from srpha.embedded.target.srp_target import SrpTarget
from srpha.embedded.target.transport import Attachment
from srpha.wire.scsi import cdb

IOC = IocSpec(guid=0x0002C90200402BEC, id_ext=0x200500A0B81146A1, service_id=0x200500A0B81146A1)


class World:
    """``a/1`` and ``a/2`` are the initiator's ports ``mlx5_0/1`` and ``mlx5_0/2``; the target is at ``b/1``."""

    def __init__(self, subnet: Subnet, settings: InitiatorSettings, spec: TargetSpec) -> None:
        self.subnet = subnet
        self.target_rdma = RdmaPort(subnet.port("b/1"), subnet.gsi["b/1"])
        self.target = SrpTarget(
            spec, [Attachment(port=subnet.port("b/1"), gsi=subnet.gsi["b/1"], rdma=self.target_rdma)]
        )
        self.target.join()
        ports = {}
        for name in ("a/1", "a/2"):
            mad = EmbeddedMadPort("mlx5_0", subnet.port(name), subnet.gsi[name])
            ports[mad.name] = InitiatorPort(mad, RdmaPort(subnet.port(name), subnet.gsi[name]))
        self.initiator = EmbeddedInitiator(ports, settings)
        self.running = subnet.group.create_task(self.initiator.run())
        self.seen: list[tuple[str, bool]] = []
        self.initiator.watch_devices(lambda device, *, present: self.seen.append((device.name, present)))

    def line(self, extra: str = "", pkey: str = "ffff") -> str:
        gid = self.subnet.port("b/1").gid.hex()
        return (
            f"id_ext={IOC.id_ext:016x},ioc_guid={IOC.guid:016x},dgid={gid},pkey={pkey},"
            f"service_id={IOC.service_id:016x}{extra}"
        )

    async def login(self, port: str = "mlx5_0/1", extra: str = "") -> ScsiDisk:
        """Log in; the last disk that appeared."""
        await self.initiator.add_target(port, self.line(extra))
        disk = self.initiator.devices()[-1]
        assert isinstance(disk, ScsiDisk)
        return disk

    def pull(self, name: str) -> None:
        self.subnet.fabric.set_plugged(name, False)

    def plug(self, name: str) -> None:
        self.subnet.fabric.set_plugged(name, True)


@asynccontextmanager
async def world(settings: InitiatorSettings | None = None, units: int = 1, **unit: float) -> AsyncIterator[World]:
    spec = TargetSpec(
        name="t", iocs=(IOC,), units=tuple(UnitSpec(lun=lun, blocks=2048, **unit) for lun in range(units))
    )
    async with asyncio.TaskGroup() as group:
        subnet = Subnet(two_switches(), group)
        await subnet.start_sm("sm/1")
        made = World(subnet, settings or InitiatorSettings(), spec)
        await asyncio.sleep(0)
        yield made
        made.running.cancel()
        await asyncio.wait([made.running])
        made.target.close()
        await subnet.stop_sm()


class Io:
    """One command and how often it was completed."""

    def __init__(self, command: ScsiCommand, future: asyncio.Future[ScsiCommand]) -> None:
        self.command = command
        self.future = future
        self.completions = 0


def submit(disk: ScsiDisk, block: bytes, **options: object) -> Io:
    future: asyncio.Future[ScsiCommand] = asyncio.get_running_loop().create_future()

    def done(command: ScsiCommand) -> None:
        io.completions += 1
        if not future.done():
            future.set_result(command)

    io = Io(ScsiCommand(block, done, **options), future)  # type: ignore[arg-type]
    disk.submit(io.command)
    assert not io.completions, "completed from inside submit"
    return io


def read(disk: ScsiDisk, lba: int = 0, blocks: int = 8, **options: object) -> Io:
    return submit(disk, cdb.read(lba, blocks), data_in=bytearray(blocks * 512), **options)


def write(disk: ScsiDisk, data: bytes, lba: int = 0, **options: object) -> Io:
    return submit(disk, cdb.write(lba, len(data) // 512), data_out=data, **options)
