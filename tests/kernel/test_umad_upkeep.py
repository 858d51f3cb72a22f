"""A port's identity as it changes, and a device that goes and comes."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace
from pathlib import Path

import pytest
from umad_fakes import REPORT, Kernel, add_node, answer, ask, make_port, port_over, running, write_file

from srpha.core.seams import LinkState, MadAddress, MadPortGoneError
from srpha.kernel.umad import UmadPort
from srpha.wire.dm import DmAttribute, dm_request
from srpha.wire.identifiers import Gid
from srpha.wire.mad import Method


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def port(tmp_path: Path, kernel: Kernel) -> UmadPort:
    make_port(tmp_path)
    return port_over(tmp_path, kernel)


class TestIdentity:
    def test_is_read_anew_each_time_without_upkeep(self, port: UmadPort, tmp_path: Path) -> None:
        before = port.identity()
        write_file(tmp_path / "class/infiniband/mlx5_0/ports/1/lid", "0x99\n")
        assert port.identity() == replace(before, lid=0x99)

    async def test_is_read_anew_each_time_again_when_upkeep_has_ended(self, port: UmadPort, tmp_path: Path) -> None:
        async with running(port):
            before = port.identity()
            write_file(tmp_path / "class/infiniband/mlx5_0/ports/1/lid", "0x99\n")
            assert port.identity() == before
        assert port.identity() == replace(before, lid=0x99)

    async def test_a_change_is_hinted_at_and_seen(self, port: UmadPort, tmp_path: Path) -> None:
        folder = tmp_path / "class/infiniband/mlx5_0/ports/1"
        seen: list[object] = []
        port.watch(lambda: seen.append(port.identity()))
        async with running(port):
            before = port.identity()
            assert seen == [before]
            await asyncio.sleep(20)
            assert seen == [before]
            for file, text in (("lid", "0x99"), ("sm_lid", "0x2"), ("gids/0", "fec0:" + "0000:" * 6 + "0011")):
                write_file(folder / file, text + "\n")
                await asyncio.sleep(2.1)
            write_file(folder / "state", "2: INIT\n")
            await asyncio.sleep(2.1)
            assert [(i.lid, i.sm_lid, i.gid.prefix >> 48, i.state) for i in seen] == [  # type: ignore[attr-defined]
                (0x11, 1, 0xFE80, LinkState.ACTIVE),
                (0x99, 1, 0xFE80, LinkState.ACTIVE),
                (0x99, 2, 0xFE80, LinkState.ACTIVE),
                (0x99, 2, 0xFEC0, LinkState.ACTIVE),
                (0x99, 2, 0xFEC0, LinkState.INIT),
            ]

    async def test_the_pkey_table_is_read_with_any_change_when_stirred_and_now_and_then(
        self, port: UmadPort, tmp_path: Path
    ) -> None:
        folder = tmp_path / "class/infiniband/mlx5_0/ports/1"
        async with running(port):
            write_file(folder / "pkeys/0", "0x7fff\n")
            await asyncio.sleep(2.1)
            assert port.identity().pkeys[0] == 0xFFFF
            write_file(folder / "sm_lid", "0x2\n")
            await asyncio.sleep(2.1)
            assert port.identity().pkeys[0] == 0x7FFF
            write_file(folder / "pkeys/0", "0x8002\n")
            port.stir()
            await asyncio.sleep(0.1)
            assert port.identity().pkeys[0] == 0x8002
            write_file(folder / "pkeys/0", "0x8003\n")
            await asyncio.sleep(30.1)
            assert port.identity().pkeys[0] == 0x8003

    async def test_a_port_that_goes_down_ends_what_is_in_flight(
        self, port: UmadPort, kernel: Kernel, tmp_path: Path
    ) -> None:
        kernel.script = lambda _: None
        state = tmp_path / "class/infiniband/mlx5_0/ports/1/state"
        async with running(port):
            task = ask(port, timeout=60)
            await asyncio.sleep(0)
            write_file(state, "1: DOWN\n")
            port.stir()
            with pytest.raises(MadPortGoneError, match="mlx5_0/1: the port is down"):
                await task
            with pytest.raises(MadPortGoneError, match="the port is down"):
                await ask(port)
            assert len(kernel.written) == 1
            write_file(state, "4: ACTIVE\n")
            kernel.script = lambda sent: answer(sent.mad)
            port.stir()
            await asyncio.sleep(0.1)
            await ask(port)
        assert kernel.current.closed

    async def test_a_roce_port_needs_no_lid(self, port: UmadPort, tmp_path: Path) -> None:
        make_port(tmp_path, link_layer="Ethernet", lid="0x0", sm_lid="0x0")
        mad = dm_request(Method.GET, DmAttribute.IO_UNIT_INFO, transaction_id=0)
        async with running(port):
            await port.transact(MadAddress(lid=0, gid=Gid(1, 2)), mad, timeout=1, retries=0)
        make_port(tmp_path, lid="0x0")
        async with running(port):
            with pytest.raises(MadPortGoneError, match="no LID"):
                await ask(port)


class TestADeviceThatGoes:
    @staticmethod
    def remove(root: Path, umad: int) -> None:
        for folder in (root / "class/infiniband/mlx5_0", root / f"class/infiniband_mad/umad{umad}"):
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            folder.rmdir()

    async def test_ends_all_transactions_and_comes_back_under_another_number(
        self, port: UmadPort, kernel: Kernel, tmp_path: Path
    ) -> None:
        kernel.script = lambda _: None
        hints: list[float] = []
        async with running(port):
            port.watch(lambda: hints.append(asyncio.get_running_loop().time()))
            tasks = [ask(port, timeout=60) for _ in range(3)]
            await asyncio.sleep(0)
            self.remove(tmp_path, 0)
            kernel.dead = True
            kernel.current.wake()
            for task in tasks:
                with pytest.raises(MadPortGoneError, match="the device is gone"):
                    await task
            assert kernel.descriptors[0].closed
            await asyncio.sleep(0.1)
            assert hints
            with pytest.raises(MadPortGoneError, match="no such port"):
                port.identity()
            with pytest.raises(MadPortGoneError, match="no user MAD device"):
                await ask(port)
            kernel.dead = False
            kernel.script = lambda sent: answer(sent.mad)
            make_port(tmp_path, umad=None)
            add_node(tmp_path, 3, "mlx5_0", 1)
            hints.clear()
            await asyncio.sleep(2.1)
            assert hints
            assert kernel.opened[-1] == Path("/dev/infiniband/umad3")
            assert port.identity().lid == 0x11
            await ask(port)

    async def test_is_noticed_by_a_write(self, port: UmadPort, kernel: Kernel) -> None:
        await ask(port)
        kernel.write_errors = [errno.EIO]
        with pytest.raises(MadPortGoneError, match="the device is gone"):
            await ask(port)
        await ask(port)
        assert len(kernel.opened) == 2

    async def test_is_not_opened_in_a_frenzy_while_it_goes(self, port: UmadPort, kernel: Kernel) -> None:
        """The node is there still and can be opened, and every read fails at once."""
        async with running(port):
            for _ in range(100):
                kernel.dead = True
                kernel.current.wake()
                await asyncio.sleep(0)
                kernel.dead = False
                await asyncio.sleep(0.1)
            assert len(kernel.opened) <= 8

    async def test_what_is_no_packet_at_all_starts_it_again(self, port: UmadPort, kernel: Kernel) -> None:
        kernel.script = lambda _: None
        task = ask(port)
        await asyncio.sleep(0)
        kernel.current.put(b"")
        kernel.current.queue[0].header = b"short"
        with pytest.raises(MadPortGoneError, match="started again: a user MAD starts with 64 bytes"):
            await task

    async def test_closing_ends_what_is_in_flight(self, port: UmadPort, kernel: Kernel) -> None:
        kernel.script = lambda _: None
        task = ask(port, timeout=60)
        await asyncio.sleep(0)
        port.close()
        port.close()
        with pytest.raises(MadPortGoneError, match="closed"):
            await task
        kernel.script = lambda sent: answer(sent.mad)
        await ask(port)

    async def test_a_receiver_may_close_the_port(self, port: UmadPort, kernel: Kernel) -> None:
        await ask(port)
        port.watch_reports(lambda _: port.close())
        kernel.current.put(REPORT)
        kernel.current.put(REPORT)
        await asyncio.sleep(0)
        assert len(kernel.current.queue) == 1
