from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fake_seams import FakeInitiator, FakePathManager
from house import House

from srpha.core.connections.pairs import PairStatus
from srpha.core.connections.shutdown import BlockUse, UseKind
from srpha.core.events import Severity
from srpha.core.hints import Hints
from srpha.core.seams import MadPort, PathManagerError, Unwatch
from srpha.daemon.settings import Settings
from srpha.operate.config import ConfigError, LoadedConfig, load_config
from srpha.operate.control import RefusedError
from srpha.operate.event_log import EventLog
from srpha.operate.sd_notify import Notifier
from srpha.operate.service import Service


class FakeWorld:
    """A host whose ports a test may change."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.ports: list[MadPort] = list(house.ports)
        self.initiator: FakeInitiator = house.initiator
        self.path_manager: FakePathManager = house.paths
        self.troubles: Sequence[str] = ()
        self._hints = Hints()

    def mad_ports(self) -> Sequence[MadPort]:
        return self.ports

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        return self._hints.add(hint)

    def change(self, ports: Sequence[MadPort]) -> None:
        self.ports = list(ports)
        self._hints.ring()

    async def look(self) -> None: ...

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()


class FakeBlocks:
    def __init__(self, paths: FakePathManager) -> None:
        self.paths = paths
        self.used: dict[str, BlockUse] = {}
        self.flushed: list[str] = []
        self.refuses = False

    async def uses(self, devices: Collection[str]) -> dict[str, tuple[BlockUse, ...]]:
        return {device: (self.used[device],) if device in self.used else () for device in devices}

    async def flush(self, name: str) -> None:
        if self.refuses:
            raise PathManagerError("map in use")
        self.flushed.append(name)


class Told(Notifier):
    """What systemd would hear."""

    def __init__(self, watchdog: float | None = None) -> None:
        super().__init__({})
        self.said: list[str] = []
        self._interval = watchdog

    @property
    def watchdog_interval(self) -> float | None:
        return self._interval

    def _send(self, message: str) -> None:
        self.said.append(message.split("\n", maxsplit=1)[0])

    def at(self, word: str) -> int:
        return self.said.index(word)


class Bench:
    """A service over fakes, its configuration in a file."""

    def __init__(self, tmp_path: Path, text: str = "", *, ports: int = 2, watchdog: float | None = None) -> None:
        self.house = House(ports=ports)
        self.world = FakeWorld(self.house)
        self.blocks = FakeBlocks(self.house.paths)
        self.toml = tmp_path / "srpha.toml"
        self.drain_file = tmp_path / "drained.json"
        self.write(text)
        self.said: list[tuple[Severity, str]] = []
        self.told = Told(watchdog)
        self.log = EventLog()
        self.service = self.make()

    def write(self, text: str) -> None:
        self.toml.write_text(f'[connect]\nrules_file = ""\nopenib_files = []\n{text}')

    def make(self) -> Service:
        async def load(needed: Collection[Path]) -> LoadedConfig:
            return load_config(self.toml, needed=needed)

        return Service(
            self.world,
            load_config(self.toml),
            load,
            say=lambda severity, text: self.said.append((severity, text)),
            notifier=self.told,
            log=self.log,
            drain_file=self.drain_file,
            max_imm_data=lambda: 8192,
            block_devices=self.blocks,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Service]:
        async def serve(_service: Service) -> None:
            await asyncio.get_running_loop().create_future()

        task = asyncio.ensure_future(self.service.run(serve))
        try:
            yield self.service
            self.service.stop()
            await task
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def connected(self, count: int) -> None:
        await asyncio.sleep(10)
        statuses = [pair.status for pair in self.service.supervisor.snapshot().pairs]
        assert statuses.count(PairStatus.CONNECTED) == count, statuses

    def sentences(self) -> list[str]:
        return [text for _, text in self.said]


async def test_readiness_is_told_when_everything_is_connected(tmp_path: Path) -> None:
    bench = Bench(tmp_path, watchdog=5.0)
    async with bench.running():
        await bench.connected(4)
        assert bench.told.said.count("READY=1") == 1
        assert "STATUS=2 of 2 ports usable, 4 of 4 connections up, 1 maps" in bench.told.said
        await asyncio.sleep(50)
    assert bench.told.said.count("WATCHDOG=1") >= 12
    assert bench.told.said[-1] == "STOPPING=1"
    assert len(bench.world.initiator.made) == 4


async def test_connections_survive_a_restart(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.running():
        await bench.connected(4)
    made = [item.host for item in bench.world.initiator.made]
    bench.service = bench.make()
    async with bench.running() as service:
        await bench.connected(4)
        assert [item.host for item in bench.world.initiator.made] == made
        assert len(bench.world.initiator.lines) == 4
        assert sorted(service.supervisor.ours) == made


async def test_it_starts_before_devices_and_takes_them_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    ports, bench.world.ports = bench.world.ports, []
    bench.world.troubles = ("no RDMA port has a user MAD device",)
    async with bench.running():
        await asyncio.sleep(1)
        assert "READY=1" in bench.told.said
        assert bench.sentences() == ["no RDMA port has a user MAD device"]
        bench.world.change(ports)
        await bench.connected(4)


async def test_a_silent_subnet_delays_readiness_only_so_long(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "[service]\nready_wait = 20\n")
    for port in bench.house.ports:
        port.current = None
    async with bench.running():
        await asyncio.sleep(19)
        assert "READY=1" not in bench.told.said
        await asyncio.sleep(2)
        assert "READY=1" in bench.told.said


async def test_only_the_configured_ports_are_used(tmp_path: Path) -> None:
    bench = Bench(tmp_path, '[ports]\nexclude = ["mlx5_1"]\n')
    async with bench.running() as service:
        await bench.connected(2)
        bench.write("")
        await service.reload()
        await bench.connected(4)


async def test_reload(tmp_path: Path) -> None:
    bench = Bench(tmp_path, '[[rule]]\naction = "deny"\n')
    async with bench.running() as service:
        await bench.connected(0)
        bench.write('[log]\nlevel = "error"\n')
        report = await service.reload()
        assert report.notes == ("what [log] says now counts from the next start on",)
        await bench.connected(4)
        assert service.loaded.config.log.level == "error"
    assert bench.told.said.index("RELOADING=1") < len(bench.told.said) - bench.told.said[::-1].index("READY=1")


async def test_a_bad_file_leaves_the_one_in_force_and_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.running() as service:
        await bench.connected(4)
        before = service.loaded
        bench.write("[scan]\ninterval = 0\nretries = 99\n")
        with pytest.raises(ConfigError):
            await service.reload()
        assert service.loaded is before
        assert bench.sentences()[-3:] == [
            f"{bench.toml}:5: scan.interval = 0: give a number greater than 0",
            f"{bench.toml}:6: scan.retries = 99: give a number less than or equal to 15",
            f"the configuration in force stays: {bench.toml}",
        ]
        with pytest.raises(RefusedError, match="the configuration in force stays"):
            await service.reload_document()
        bench.toml.unlink()
        with pytest.raises(RefusedError, match="there is no such file"):
            await service.reload_document()
        bench.write("")
        assert await service.reload_document() == {"source": str(bench.toml), "notes": []}
        await bench.connected(4)
    assert bench.told.said.count("RELOADING=1") == 4
    assert bench.told.said.count("READY=1") == 5


async def test_the_driver_s_immediate_data_reach_the_settings(tmp_path: Path) -> None:
    service = Bench(tmp_path).service
    settings: Settings = service._settings(service.loaded)
    assert settings.max_imm_data == 8192


async def test_drained_ports_are_remembered(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.running() as service:
        await bench.connected(4)
        await service.supervisor.drain("mlx5_0/1")
    bench.service = bench.make()
    async with bench.running() as service:
        await asyncio.sleep(1)
        assert "mlx5_0/1 is still drained; 'srpha resume mlx5_0/1' ends that" in bench.sentences()
        await bench.connected(4)
        assert len(bench.house.paths.failed) == 2
        await service.supervisor.resume("mlx5_0/1")
        assert not bench.drain_file.exists()


async def test_a_drain_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.drain_file.mkdir()
    async with bench.running() as service:
        await bench.connected(4)
        await service.supervisor.drain("mlx5_0/1")
    said = bench.sentences()
    assert "what was drained is not known" in said[0]
    assert "a restart will forget what is drained" in said[1]


async def test_shutdown_takes_maps_and_connections_down_and_ends(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with bench.running() as service:
        await bench.connected(4)
        dry = await service.shutdown_document(dry_run=True)
        assert dry["flushed"] == ["mpatha"]
        assert isinstance(dry["removed"], list)
        assert len(dry["removed"]) == 4
        assert bench.blocks.flushed == []
        await bench.connected(4)
        done = await service.shutdown_document(dry_run=False)
        assert {**dry, "dry_run": False} == done
        assert bench.blocks.flushed == ["mpatha"]
        assert bench.world.initiator.made == []
        await asyncio.sleep(100)
        assert bench.world.initiator.made == []
        assert bench.told.said[-1] == "STOPPING=1"


async def test_shutdown_refuses_while_a_map_is_in_use(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.blocks.used["dm-0"] = BlockUse(UseKind.MOUNT, "/data")
    async with bench.running() as service:
        await bench.connected(4)
        for dry_run in (True, False):
            with pytest.raises(RefusedError, match=r"mpatha \(dm-0\) is in use: mounted on /data\nnothing is changed"):
                await service.shutdown_document(dry_run=dry_run)
        bench.blocks.used.clear()
        bench.blocks.refuses = True
        with pytest.raises(RefusedError, match="mpatha could not be flushed: map in use; no connection is removed"):
            await service.shutdown_document(dry_run=False)
        assert len(bench.world.initiator.made) == 4
        bench.world.initiator.drop(bench.world.initiator.made[0].host)
        await bench.connected(4)


async def test_a_part_that_breaks_ends_the_service(tmp_path: Path) -> None:
    bench = Bench(tmp_path)

    async def serve(_service: Service) -> None:
        return

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="the control API ended by itself")):
        await bench.service.run(serve)
