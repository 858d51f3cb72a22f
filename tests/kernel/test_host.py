from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import shutil
import socket
from collections.abc import AsyncIterator

import pytest
from fake_seams import FakeInitiator, FakeMadPort, FakePathManager, Log
from test_uevents import PATH_FAILED, message
from umad_fakes import add_node, inline, make_port

from scripted_subnet import ScriptedSubnet, local_port, srp_unit
from srpha.core.connections.pairs import PairStatus
from srpha.core.seams import MadPortGoneError, PathManagerError
from srpha.daemon.settings import Settings
from srpha.daemon.supervisor import Supervisor
from srpha.kernel.host import HostPort, KernelHost
from srpha.kernel.multipath_manager import MultipathManager
from srpha.kernel.multipathd import MultipathdClient
from srpha.kernel.ports import PortDescription
from srpha.kernel.umad import UmadPort


def no_uevents() -> socket.socket:
    raise OSError(93, os.strerror(93))


class Ports:
    """Makes ports that are known by name, and remembers what the host did to them."""

    def __init__(self, subnet: ScriptedSubnet | None = None) -> None:
        self.subnet = subnet or ScriptedSubnet()
        self.made: list[str] = []
        self.running: list[str] = []
        self.stirred: list[str] = []

    def make(self, description: PortDescription) -> HostPort:
        self.made.append(description.name)
        number = int(description.device.rpartition("_")[2]) + 1
        return RunningPort(self, number)


class RunningPort(FakeMadPort):
    def __init__(self, ports: Ports, number: int) -> None:
        super().__init__(local_port(number), ports.subnet)
        self._ports = ports

    def stir(self) -> None:
        self._ports.stirred.append(self.name)

    async def run(self) -> None:
        self._ports.running.append(self.name)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._ports.running.remove(self.name)


@contextlib.asynccontextmanager
async def running(host: KernelHost) -> AsyncIterator[None]:
    task = asyncio.ensure_future(host.run())
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()


def names(host: KernelHost) -> list[str]:
    return [port.name for port in host.mad_ports()]


def make_host(root: pathlib.Path, ports: Ports) -> KernelHost:
    return KernelHost(sysfs=root, dev=root / "dev", make_port=ports.make, open_uevents=no_uevents, offload=inline)


async def test_ports_come_go_and_come_back(tmp_path: pathlib.Path) -> None:
    ports = Ports()
    host = make_host(tmp_path, ports)
    rung: list[list[str]] = []
    host.watch(lambda: rung.append(names(host)))
    async with running(host):
        await asyncio.sleep(1)
        assert names(host) == []
        assert host.troubles == (
            "no RDMA port has a user MAD device; is the module ib_umad loaded?",
            "uevents are not heard, changes are noticed later: Protocol not supported",
        )
        for number, device in enumerate(("mlx5_10", "mlx5_2")):
            add_node(tmp_path, number, device, 1)
        await asyncio.sleep(5)
        assert names(host) == ["mlx5_2/1", "mlx5_10/1"]
        assert sorted(ports.running) == ["mlx5_10/1", "mlx5_2/1"]
        assert host.troubles[0].startswith("uevents")

        first = host.mad_ports()[0]
        shutil.rmtree(tmp_path / "class/infiniband_mad/umad1")
        await asyncio.sleep(50)
        add_node(tmp_path, 7, "mlx5_2", 1)
        await asyncio.sleep(30)
        assert host.mad_ports()[0] is first

        shutil.rmtree(tmp_path / "class/infiniband_mad/umad0")
        await asyncio.sleep(70)
        assert names(host) == ["mlx5_2/1"]
        assert ports.running == ["mlx5_2/1"]
        add_node(tmp_path, 0, "mlx5_10", 1)
        await asyncio.sleep(5)
        assert ports.made == ["mlx5_2/1", "mlx5_10/1", "mlx5_10/1"]
    assert ports.running == []
    assert rung == [["mlx5_2/1", "mlx5_10/1"], ["mlx5_2/1"], ["mlx5_2/1", "mlx5_10/1"]]


async def test_what_cannot_be_read_is_not_gone(tmp_path: pathlib.Path) -> None:
    add_node(tmp_path, 0, "mlx5_0", 1)
    host = make_host(tmp_path, Ports())
    async with running(host):
        await asyncio.sleep(1)
        (tmp_path / "class/infiniband_mad/abi_version").write_text("6\n")
        await asyncio.sleep(200)
        assert names(host) == ["mlx5_0/1"]
        assert "says '6'; this program speaks version 5" in host.troubles[0]


async def test_ports_are_known_without_running(tmp_path: pathlib.Path) -> None:
    make_port(tmp_path)
    host = KernelHost(sysfs=tmp_path, dev=tmp_path, open_uevents=no_uevents, offload=inline)
    await host.look()
    (port,) = host.mad_ports()
    assert isinstance(port, UmadPort)
    assert port.identity().lid == 0x11
    shutil.rmtree(tmp_path / "class/infiniband")
    await host.look()
    with pytest.raises(MadPortGoneError):
        port.identity()


async def test_supervisor_follows_the_host(tmp_path: pathlib.Path) -> None:
    """An HCA that appears later is connected; a vanished one is let go, its connections are the driver's affair."""
    identities = [local_port(1), local_port(2)]
    ports = Ports(ScriptedSubnet(ports=identities, units=[srp_unit(1)]))
    initiator = FakeInitiator(tuple(item.name for item in identities))
    host = make_host(tmp_path, ports)
    add_node(tmp_path, 0, "mlx5_0", 1)
    await host.look()
    supervisor = Supervisor(host.mad_ports(), initiator, FakePathManager(initiator), Settings(), Log())
    unwatch = host.watch(lambda: supervisor.set_ports(host.mad_ports()))
    async with running(host):
        working = asyncio.ensure_future(supervisor.run())

        def connected() -> list[str]:
            pairs = supervisor.snapshot().pairs
            return [pair.key.local_port for pair in pairs if pair.status is PairStatus.CONNECTED]

        await asyncio.sleep(10)
        assert connected() == ["mlx5_0/1"]
        add_node(tmp_path, 1, "mlx5_1", 1)
        await asyncio.sleep(10)
        assert connected() == ["mlx5_0/1", "mlx5_1/1"]
        shutil.rmtree(tmp_path / "class/infiniband_mad/umad0")
        await asyncio.sleep(70)
        assert connected() == ["mlx5_1/1"]
        assert initiator.removed == []
        unwatch()
        working.cancel()
        await asyncio.wait([working])


# --- uevents, on a socket pair ---


class Heard:
    def __init__(self, root: pathlib.Path, ports: Ports, poll_interval: float = 30.0) -> None:
        self.kernel: list[socket.socket] = []
        self.opened_again = asyncio.Event()
        self.host = KernelHost(
            sysfs=root,
            dev=root,
            make_port=ports.make,
            open_uevents=self.open,
            path_manager=MultipathManager(MultipathdClient([str(root / "none")]), sysfs=root),
            poll_interval=poll_interval,
        )
        self.told: list[str] = []
        self._others = asyncio.Event()
        self.host.watch(self._others.set)
        self.host.initiator.watch(lambda: self.told.append("connections"))
        self.host.path_manager.watch(lambda: self.told.append("maps"))

    def open(self) -> socket.socket:
        kernel, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.append(kernel)
        if len(self.kernel) > 1:
            self.opened_again.set()
        return end

    async def others(self) -> None:
        """Until the set of ports is another; the search for them has a thread of its own."""
        async with asyncio.timeout(5):
            await self._others.wait()
        self._others.clear()

    async def hear(self, data: bytes) -> list[str]:
        self.told.clear()
        self.kernel[-1].send(data)
        await asyncio.sleep(0.01)
        return self.told

    def close(self) -> None:
        for end in self.kernel:
            end.close()


@pytest.mark.realtime
async def test_uevents_reach_the_seam_they_are_about(tmp_path: pathlib.Path) -> None:
    ports = Ports()
    add_node(tmp_path, 0, "mlx5_0", 1)
    heard = Heard(tmp_path, ports)
    async with running(heard.host):
        await heard.others()
        assert await heard.hear(message("srp_remote_ports", "/devices/x/port-4:1")) == ["connections"]
        assert await heard.hear(PATH_FAILED) == ["maps"]
        assert ports.stirred == []
        add_node(tmp_path, 1, "mlx5_1", 1)
        assert await heard.hear(message("infiniband_mad", "/devices/x/umad1")) == []
        await heard.others()
        assert ports.stirred == ["mlx5_0/1"]
        assert names(heard.host) == ["mlx5_0/1", "mlx5_1/1"]
        with pytest.raises(PathManagerError):
            await heard.host.path_manager.maps()
    heard.close()


@pytest.mark.realtime
async def test_uevents_are_heard_again_after_their_socket_broke(tmp_path: pathlib.Path) -> None:
    heard = Heard(tmp_path, Ports(), poll_interval=0.02)
    async with running(heard.host):
        await asyncio.sleep(0)
        heard.kernel[0].close()
        await heard.opened_again.wait()
        assert await heard.hear(PATH_FAILED) == ["maps"]
    heard.close()
