from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dropin_host import FakeHost, Said

from scripted_subnet import srp_unit
from srpha.cli.dropin_daemon import serve, settings_of, with_tl_retry_count
from srpha.cli.dropin_flags import parse_flags
from srpha.cli.dropin_lock import port_lock
from srpha.cli.dropin_world import HostError
from srpha.core.seams import AddTargetError, LinkLayer, LinkState
from srpha.core.targets.rules import Rules, parse_rules
from srpha.core.targets.target_port import InitiatorExtMode
from srpha.daemon.settings import Settings

HEAD = "id_ext=2005000000000100,ioc_guid=0002c90301000001,dgid=fe800000000000000002c90300000001"
LINE1 = f"{HEAD},pkey=ffff,service_id=0002c90300000001"
LINE2 = LINE1.replace("00000001", "00000002").replace("01000001", "01000002").replace("000100,", "000200,")


class Daemon:
    """A running srp_daemon."""

    def __init__(self, host: FakeHost, words: str, run_directory: Path, rules: Rules | None = None) -> None:
        self.host = host
        self.said = Said()
        self.signals: asyncio.Queue[int] = asyncio.Queue()
        self._work = serve(
            parse_flags("srp_daemon", words.split()),
            rules or Rules(),
            host,
            self.said.output,
            run_directory,
            signals=self.signals,
        )
        self.code: int | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self._work)
        try:
            yield
            if not task.done():
                self.signals.put_nowait(signal.SIGTERM)
            async with asyncio.timeout(100):
                self.code = await task
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def until(self, what: Callable[[], bool], limit: float = 30.0) -> None:
        for _ in range(round(limit / 0.01)):
            if what():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(self.said)


async def test_connects_and_prints_the_lines(tmp_path: Path) -> None:
    host = FakeHost()
    daemon = Daemon(host, "-e -c -n -j mlx5_0:1 -R 60", tmp_path)
    async with daemon.running():
        await daemon.until(lambda: len(host.fake_initiator.made) == 2)
        assert daemon.said.lines == [
            f"{LINE1},initiator_ext=0002c90300000001",
            f"{LINE2},initiator_ext=0002c90300000002",
        ]
        host.subnet.units.append(srp_unit(3))
        await daemon.until(lambda: len(host.fake_initiator.made) == 3, limit=70)
    assert daemon.code == -signal.SIGTERM
    assert len(host.fake_initiator.made) == 3, "connections outlive the daemon"
    assert daemon.said.errors == []


async def test_without_execute_only_looks(tmp_path: Path) -> None:
    host = FakeHost()
    daemon = Daemon(host, "-c -i mlx5_0 -R 10", tmp_path)
    async with daemon.running():
        await daemon.until(lambda: len(daemon.said.lines) == 2)
        assert daemon.said.lines == [LINE1, LINE2]
        await daemon.until(lambda: len(daemon.said.lines) == 4)
        assert daemon.said.lines[2:] == [LINE1, LINE2]
    assert host.fake_initiator.lines == []
    assert host.fake_initiator.timer_sets == []


async def test_prints_the_listing_after_every_scan(tmp_path: Path) -> None:
    daemon = Daemon(FakeHost(), "-v -R 10", tmp_path)
    async with daemon.running():
        await daemon.until(lambda: "".join(daemon.said.results).count("IO Unit Info:\n") == 4)
        text = "".join(daemon.said.results)
        assert text.startswith(" configuration report\n")
        assert text.count("    controller[  1]: present\n") == 4


async def test_connected_targets_are_printed_with_all(tmp_path: Path) -> None:
    host = FakeHost()
    first = Daemon(host, "-e", tmp_path)
    async with first.running():
        await first.until(lambda: len(host.fake_initiator.made) == 2)
    plain, everything = Daemon(host, "-c", tmp_path), Daemon(host, "-c -a", tmp_path)
    async with plain.running():
        await asyncio.sleep(5)
        assert plain.said.lines == []
    async with everything.running():
        await everything.until(lambda: everything.said.lines == [LINE1, LINE2])


async def test_failed_login_is_told_and_tried_again(tmp_path: Path) -> None:
    host = FakeHost(targets=1)
    host.fake_initiator.errors = [AddTargetError(errno.ECONNRESET, "rejected: too many channels")]
    daemon = Daemon(host, "-e", tmp_path)
    async with daemon.running():
        await daemon.until(lambda: len(host.fake_initiator.made) == 1)
    assert "rejected: too many channels; next try in 3 s" in daemon.said.errors[0]


async def test_all_ports_with_one_scan_each_time(tmp_path: Path) -> None:
    host = FakeHost(ports=2)
    daemon = Daemon(host, "-e -n --all-ports", tmp_path)
    async with daemon.running():
        await daemon.until(lambda: len(host.fake_initiator.made) == 4)
    assert sorted(os.listdir(tmp_path)) == ["srp_daemon_mlx5_0_1", "srp_daemon_mlx5_1_1"]


async def test_all_ports_waits_for_the_first(tmp_path: Path) -> None:
    host = FakeHost(targets=1)
    host.hidden = True
    daemon = Daemon(host, "-e --all-ports", tmp_path)
    async with daemon.running():
        await asyncio.sleep(100)
        host.hidden = False
        await daemon.until(lambda: len(host.fake_initiator.made) == 1)


async def test_all_ports_ends_while_it_waits(tmp_path: Path) -> None:
    host = FakeHost()
    host.hidden = True
    daemon = Daemon(host, "-e --all-ports", tmp_path)
    async with daemon.running():
        await asyncio.sleep(1)
        daemon.signals.put_nowait(signal.SIGHUP)
    assert daemon.code == -signal.SIGTERM


async def test_port_that_is_down_is_waited_for(tmp_path: Path) -> None:
    host = FakeHost(targets=1)
    port = host.mad_ports["mlx5_0/1"]
    port.change(state=LinkState.DOWN)
    daemon = Daemon(host, "-e -i mlx5_0", tmp_path)
    async with daemon.running():
        await asyncio.sleep(20)
        assert host.fake_initiator.lines == []
        port.change(state=LinkState.ACTIVE)
        await daemon.until(lambda: len(host.fake_initiator.made) == 1)


async def test_hangup_reads_the_rules_again(tmp_path: Path) -> None:
    path = tmp_path / "rules"
    path.write_text("d\n", encoding="ascii")
    host = FakeHost()
    rules = parse_rules(["d"], str(path))
    daemon = Daemon(host, f"-e -f {path}", tmp_path, rules)
    async with daemon.running():
        await asyncio.sleep(5)
        path.write_text("x\n", encoding="ascii")
        daemon.signals.put_nowait(signal.SIGHUP)
        await daemon.until(lambda: daemon.said.errors != [])
        assert daemon.said.errors[0].startswith(f"{path}:1:1: ")
        assert daemon.said.errors[0].endswith("; the rules in force stay")
        assert host.fake_initiator.lines == []
        path.write_text("a ioc_guid=0002c90301000002\nd\n", encoding="ascii")
        daemon.signals.put_nowait(signal.SIGHUP)
        await daemon.until(lambda: len(host.fake_initiator.made) == 1)
        await asyncio.sleep(5)
    assert [line for _, _, line in host.fake_initiator.lines] == [LINE2]


async def test_usr1_asks_for_a_scan(tmp_path: Path) -> None:
    host = FakeHost(targets=1)
    daemon = Daemon(host, "-e -R 10000", tmp_path)
    async with daemon.running():
        await daemon.until(lambda: len(host.fake_initiator.made) == 1)
        await asyncio.sleep(10)
        host.subnet.units.append(srp_unit(2))
        daemon.signals.put_nowait(signal.SIGUSR1)
        await daemon.until(lambda: len(host.fake_initiator.made) == 2)


class TestFailures:
    async def failure(self, host: FakeHost, words: str, tmp_path: Path) -> str:
        daemon = Daemon(host, words, tmp_path)
        with pytest.raises(HostError) as raised:
            async with daemon.running():
                await asyncio.sleep(1)
        return str(raised.value)

    async def test_no_such_port(self, tmp_path: Path) -> None:
        text = await self.failure(FakeHost(), "-e -i xx", tmp_path)
        assert text.startswith("port 1 of xx cannot be used: ")

    async def test_wrong_link_layer(self, tmp_path: Path) -> None:
        host = FakeHost()
        host.mad_ports["mlx5_0/1"].change(link_layer=LinkLayer.ETHERNET)
        text = await self.failure(host, "-e -i mlx5_0", tmp_path)
        assert text == "port 1 of mlx5_0 has link layer Ethernet, not InfiniBand"

    async def test_no_port(self, tmp_path: Path) -> None:
        host = FakeHost()
        host.hidden = True
        assert (await self.failure(host, "-e", tmp_path)).startswith("this host has no active InfiniBand port")

    async def test_run_directory_that_is_none(self, tmp_path: Path) -> None:
        text = await self.failure(FakeHost(), "-e", tmp_path / "none")
        assert text == f"{tmp_path}/none/srp_daemon_mlx5_0_1 cannot be opened: No such file or directory"


class TestSettings:
    def test_of_flags(self) -> None:
        flags = parse_flags("srp_daemon", ["-en", "-R30", "-t400", "-r1"])
        settings = settings_of(flags, Rules(), 8192)
        assert (settings.scan_interval, settings.scan.timeout, settings.scan.retries) == (30.0, 0.2, 1)
        assert (settings.initiator_ext.mode, settings.max_imm_data) == (InitiatorExtMode.DGID, 8192)
        assert settings.connect

    def test_defaults(self) -> None:
        settings = settings_of(parse_flags("srp_daemon", []), Rules(), None)
        assert settings.initiator_ext.mode is InitiatorExtMode.NONE
        assert settings.scan_interval == Settings().scan_interval
        assert not settings.connect

    def test_tl_retry_count_goes_with_every_login_but_a_rules_own_counts_more(self) -> None:
        rules = parse_rules(["a pkey=8001 tl_retry_count=5", "a pkey=8002 max_sect=9", "d pkey=8003"], "conf")
        made = with_tl_retry_count(rules, 3)
        assert [rule.options for rule in made.rules] == [
            {"tl_retry_count": 5},
            {"tl_retry_count": 3, "max_sect": 9},
            {},
            {"tl_retry_count": 3},
        ]
        assert with_tl_retry_count(rules, None) == rules


def test_the_lock_file_stays_and_follows_no_link(tmp_path: Path) -> None:
    with port_lock("mlx5_0", 1, tmp_path):
        pass
    path = tmp_path / "srp_daemon_mlx5_0_1"
    assert path.stat().st_mode & 0o777 == 0o644
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="cannot be opened"), port_lock("mlx5_0", 1, tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_one_daemon_for_each_port(tmp_path: Path) -> None:
    """The lock is a POSIX one, as srp_daemon's: another process holds it."""
    path = tmp_path / "srp_daemon_mlx5_0_1"
    program = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program, path], stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(HostError) as raised, port_lock("mlx5_0", 1, tmp_path):
            pass
        assert str(raised.value) == f"{path} is locked: another srp_daemon serves port 1 of mlx5_0"
        with port_lock("mlx5_0", 2, tmp_path):
            pass
        holder.communicate(b"\n")
    with port_lock("mlx5_0", 1, tmp_path):
        pass
