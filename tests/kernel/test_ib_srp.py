"""The kernel's initiator against a file tree and scripted kernels, with real threads."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from srpha.core.recovery.remote_port import RemotePortState, RemotePortTimers
from srpha.core.seams import AddTargetError, Initiator, InitiatorError
from srpha.core.targets.add_target import address_gid
from srpha.kernel.ib_srp import IbSrpInitiator
from srpha.kernel.sysfs import Sysfs
from tests.kernel.srp_tree import (
    DGID_1,
    DGID_2,
    GID_A,
    ID_EXT,
    RDMA_LINE,
    FakeLog,
    KernelTimers,
    ScriptedSysfs,
    SrpTree,
    login_line,
    refusal,
)

pytestmark = pytest.mark.realtime

P1, P2 = "mlx5_0/1", "mlx5_0/2"
ADD_1, ADD_2 = "srp-mlx5_0-1/add_target", "srp-mlx5_0-2/add_target"


@pytest.fixture
def tree(tmp_path: Path) -> SrpTree:
    tree = SrpTree(tmp_path)
    tree.local_port("mlx5_0", 1)
    tree.local_port("mlx5_0", 2)
    return tree


@pytest.fixture
def sysfs(tree: SrpTree) -> ScriptedSysfs:
    return ScriptedSysfs(tree.root)


@pytest.fixture
def log() -> FakeLog:
    return FakeLog()


@pytest.fixture
def srp(sysfs: ScriptedSysfs, log: FakeLog) -> Generator[IbSrpInitiator]:
    initiator = IbSrpInitiator(sysfs, log)
    yield initiator
    initiator.close()


async def refused(srp: Initiator, port: str = P1, line: str = "") -> AddTargetError:
    with pytest.raises(AddTargetError) as caught:
        await srp.add_target(port, line or login_line())
    assert "\n" not in str(caught.value)
    return caught.value


def test_it_is_an_initiator(srp: IbSrpInitiator) -> None:
    seam: Initiator = srp
    assert seam.ports() == (P1, P2)


def test_ports_whose_names_begin_alike(tree: SrpTree, srp: IbSrpInitiator) -> None:
    tree.local_port("mlx5_01", 1)
    tree.local_port("ibp0s12-f4", 2)
    tree.put("class/infiniband_srp/srp-/ibdev", "")
    tree.put("class/infiniband_srp/srp-mlx5_9-0/ibdev", "")
    tree.put("class/infiniband_srp/other-mlx5_9-1/ibdev", "")
    assert srp.ports() == ("ibp0s12-f4/2", P1, P2, "mlx5_01/1")


def test_without_the_driver_there_are_no_ports(tmp_path: Path, log: FakeLog) -> None:
    assert IbSrpInitiator(Sysfs(tmp_path), log).ports() == ()


class TestLogin:
    async def test_the_line_goes_to_the_port_as_it_is(
        self, tree: SrpTree, sysfs: ScriptedSysfs, srp: IbSrpInitiator, log: FakeLog
    ) -> None:
        sysfs.scripts[ADD_1] = lambda _: tree.host(4)
        await srp.add_target(P1, login_line())
        assert sysfs.written == [("class/infiniband_srp/srp-mlx5_0-1/add_target", login_line())]
        (found,) = await srp.connections()
        assert (found.host, found.local_port) == (4, P1)
        assert log.open_readers == 0

    async def test_into_a_real_file(self, tree: SrpTree, log: FakeLog) -> None:
        srp = IbSrpInitiator(Sysfs(tree.root), log)
        error = await refused(srp)
        assert error.errno == errno.ENODEV
        assert "its host was removed again at once" in str(error)
        written = (tree.root / "class/infiniband_srp/srp-mlx5_0-1/add_target").read_text()
        assert written.startswith(login_line())
        srp.close()

    async def test_listeners_hear_of_it_either_way(
        self, tree: SrpTree, sysfs: ScriptedSysfs, srp: IbSrpInitiator
    ) -> None:
        rings: list[int] = []
        leave = srp.watch(lambda: rings.append(1))
        sysfs.scripts[ADD_1] = lambda _: tree.host(4)
        await srp.add_target(P1, login_line())
        heard = len(rings)
        assert heard
        sysfs.scripts[ADD_1] = refusal(errno.ECONNRESET)
        await refused(srp, line=login_line(DGID_2))
        assert len(rings) > heard
        leave()
        heard = len(rings)
        srp.changed()
        assert len(rings) == heard

    async def test_success_is_not_live(self, tree: SrpTree, sysfs: ScriptedSysfs, srp: IbSrpInitiator) -> None:
        def half(_: str) -> None:
            tree.host(4)
            tree.tear_down(4, attributes_only=True)

        sysfs.scripts[ADD_1] = half
        assert (await refused(srp)).errno == errno.ENODEV

    async def test_lost_counts_as_gone(self, tree: SrpTree, sysfs: ScriptedSysfs, srp: IbSrpInitiator) -> None:
        def lost(_: str) -> None:
            tree.host(4)
            tree.remote_port(4, state="lost")

        sysfs.scripts[ADD_1] = lost
        error = await refused(srp)
        assert "logged in, but host4 is removed again at once" in str(error)

    async def test_a_scan_that_failed_counts_as_gone_though_the_host_still_stands(
        self, tree: SrpTree, sysfs: ScriptedSysfs, srp: IbSrpInitiator, log: FakeLog
    ) -> None:
        def scan(_: str) -> None:
            tree.host(4)
            log.say("scsi host4: ib_srp: SCSI scan failed - removing SCSI host")

        sysfs.scripts[ADD_1] = scan
        error = await refused(srp)
        assert error.errno == errno.ENODEV
        assert "lost channels during the SCSI scan" in str(error)

    async def test_a_blocked_connection_is_one(self, tree: SrpTree, sysfs: ScriptedSysfs, srp: IbSrpInitiator) -> None:
        def blocked(_: str) -> None:
            tree.host(4)
            tree.remote_port(4, state="blocked")

        sysfs.scripts[ADD_1] = blocked
        await srp.add_target(P1, login_line())
        assert (await srp.connections())[0].state is RemotePortState.BLOCKED

    async def test_a_host_of_before_or_of_another_target_is_not_the_new_one(
        self, tree: SrpTree, sysfs: ScriptedSysfs, srp: IbSrpInitiator
    ) -> None:
        tree.host(3)
        sysfs.scripts[ADD_1] = lambda _: tree.host(4, dgid=DGID_2)
        assert (await refused(srp)).errno == errno.ENODEV


class TestRefusals:
    @pytest.mark.parametrize(
        "code",
        [
            errno.EINVAL,
            errno.ENOMEM,
            errno.ENOENT,
            errno.ETIMEDOUT,
            errno.ECONNRESET,
            errno.ENODEV,
            errno.ENXIO,
            errno.EHOSTUNREACH,
            errno.EINTR,
            errno.EACCES,
        ],
    )
    async def test_the_kernels_errno_comes_back_with_a_sentence(
        self, sysfs: ScriptedSysfs, srp: IbSrpInitiator, code: int, log: FakeLog
    ) -> None:
        sysfs.scripts[ADD_1] = refusal(code)
        error = await refused(srp)
        assert error.errno == code
        assert str(error).startswith(f"{P1} to {DGID_1}: {errno.errorcode[code]}, ")
        assert log.open_readers == 0

    async def test_the_reason_is_taken_from_the_log_of_this_login_only(
        self, sysfs: ScriptedSysfs, srp: IbSrpInitiator, log: FakeLog
    ) -> None:
        log.say("scsi host1:   REJ reason 0x8", f"scsi host1: ib_srp: Connection 0/4 to {DGID_1} failed")

        def reject(_: str) -> None:
            log.say("scsi host2: ib_srp: REJ received", "scsi host2:   REJ reason 0x3")
            raise OSError(errno.ECONNRESET, "")

        sysfs.scripts[ADD_1] = reject
        text = str(await refused(srp))
        assert "CM REJ reason 3: no resources available" in text
        assert "ch_count" in text
        assert "reason 8" not in text

    async def test_a_log_that_may_not_be_read_is_said(
        self, sysfs: ScriptedSysfs, srp: IbSrpInitiator, log: FakeLog
    ) -> None:
        log.refuse = errno.EPERM
        sysfs.scripts[ADD_1] = refusal(errno.ECONNRESET)
        assert "the kernel log could not be read: Operation not permitted" in str(await refused(srp))

    async def test_a_duplicate_names_the_hosts_in_the_way(
        self, tree: SrpTree, sysfs: ScriptedSysfs, srp: IbSrpInitiator
    ) -> None:
        tree.host(4)
        tree.host(5, port=2)
        sysfs.scripts[ADD_1] = refusal(errno.EEXIST)
        error = await refused(srp)
        assert error.errno == errno.EEXIST
        assert str(error).endswith("another initiator_ext; connected are host4")

    async def test_also_when_it_is_being_removed(
        self, tree: SrpTree, sysfs: ScriptedSysfs, srp: IbSrpInitiator
    ) -> None:
        tree.host(4)
        await srp.connections()
        tree.tear_down(4, attributes_only=True)
        sysfs.scripts[ADD_1] = refusal(errno.EEXIST)
        assert str(await refused(srp)).endswith("connected are host4 (being removed)")
        tree.drop("class/srp_remote_ports/port-4:1")
        tree.drop("class/scsi_host/host4")
        assert str(await refused(srp)).endswith("an old host is still being removed")

    @pytest.mark.parametrize(
        "line",
        [
            "",
            "id_ext=1",
            login_line(ch_count="0"),
            login_line(id_ext="1;reboot"),
            login_line() + "\0",
            login_line(surprise="1"),
            login_line() + " " * 5000,
        ],
    )
    async def test_a_bad_line_never_reaches_the_kernel(
        self, sysfs: ScriptedSysfs, srp: IbSrpInitiator, line: str
    ) -> None:
        with pytest.raises(AddTargetError) as caught:
            await srp.add_target(P1, line)
        assert caught.value.errno == errno.EINVAL
        assert sysfs.written == []

    async def test_ports_that_are_not_there(self, tree: SrpTree, sysfs: ScriptedSysfs, srp: IbSrpInitiator) -> None:
        for port in ("mlx5_0/3", "mlx5_0", "", "../x/1", "mlx5/1"):
            error = await refused(srp, port)
            assert error.errno == errno.ENODEV
            assert "there are mlx5_0/1, mlx5_0/2" in str(error)
        tree.drop("class/infiniband_srp/srp-mlx5_0-1/add_target")
        assert str(await refused(srp)) == f"{P1}: the port is gone"
        assert sysfs.written == []


class TestBlocking:
    async def test_one_at_a_time_per_port_and_other_ports_go_on(
        self, tree: SrpTree, sysfs: ScriptedSysfs, srp: IbSrpInitiator
    ) -> None:
        let_go = threading.Event()
        inside: list[int] = []

        def slow(line: str) -> None:
            inside.append(1)
            assert sum(inside) == 1
            let_go.wait(60)
            inside.pop()
            tree.host(4 if DGID_1.replace(":", "") in line else 5, dgid=DGID_1 if "0011" in line else DGID_2)

        sysfs.scripts[ADD_1] = slow
        sysfs.scripts[ADD_2] = lambda _: tree.host(9, port=2)
        first = asyncio.create_task(srp.add_target(P1, login_line()))
        second = asyncio.create_task(srp.add_target(P1, login_line(DGID_2)))
        await srp.add_target(P2, login_line())
        assert srp.busy(P1)
        assert not first.done()
        assert not second.done()
        assert [item.host for item in await srp.connections()] == [9]
        let_go.set()
        await asyncio.gather(first, second)
        assert [item.host for item in await srp.connections()] == [4, 5, 9]
        assert not srp.busy(P1)

    async def test_a_login_behind_a_fifo_that_blocks_for_70_s_outlives_its_caller(
        self, tree: SrpTree, log: FakeLog
    ) -> None:
        """Opening a FIFO for writing blocks in the kernel, as add_target does, until somebody reads."""
        place = tree.root / "class/infiniband_srp/srp-mlx5_0-1/add_target"
        place.unlink()
        os.mkfifo(place)
        srp = IbSrpInitiator(Sysfs(tree.root), log)
        task = asyncio.create_task(srp.add_target(P1, login_line()))
        while not srp.busy(P1):  # noqa: ASYNC110  # the thread has nothing to be waited for before it blocks
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 0.01)  # the caller's deadline, not the kernel's
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert srp.busy(P1), "the kernel has not let go"
        assert await srp.connections() == (), "and reading goes on"
        queued = asyncio.create_task(srp.add_target(P1, login_line(DGID_2)))
        await asyncio.sleep(0)
        await srp.connections()  # so that the second login has looked at the hosts before
        assert await asyncio.to_thread(_serve, place, tree) == login_line() + login_line(DGID_2)
        await queued
        assert not srp.busy(P1)
        assert [str(item.dgid) for item in await srp.connections()] == [DGID_1, DGID_2]
        srp.close()


def _serve(fifo: Path, tree: SrpTree) -> str:
    """A kernel that reads two lines; the hosts are there before the writers are told."""
    tree.host(0, dgid=DGID_1)
    tree.host(1, dgid=DGID_2)
    wanted = len(login_line() + login_line(DGID_2))
    received = b""
    reader = os.open(fifo, os.O_RDONLY)
    try:
        while len(received) < wanted:
            received += os.read(reader, wanted)
    finally:
        os.close(reader)
    return received.decode("ascii")


class TestAdoption:
    async def test_connections_are_seen_whoever_made_them(self, tree: SrpTree, srp: IbSrpInitiator) -> None:
        tree.host(1)
        tree.host(2, "mlx4_10", 1)
        tree.put("class/scsi_host/host0/proc_name", "ahci")
        assert [(c.host, c.local_port) for c in await srp.connections()] == [(1, P1), (2, "mlx4_10/1")]
        assert srp.troubles == ()

    async def test_what_could_not_be_read_is_told(self, tree: SrpTree, srp: IbSrpInitiator) -> None:
        tree.host(1, id_ext="?")
        await srp.connections()
        assert srp.troubles == ("host1: what it is connected to cannot be read",)

    async def test_unknown_is_not_empty(self, tree: SrpTree, srp: IbSrpInitiator) -> None:
        tree.host(1)
        await srp.connections()
        tree.drop("class")
        with pytest.raises(InitiatorError, match="there is no sysfs here"):
            await srp.connections()


class TestRdmaCm:
    async def test_the_destination_is_learnt_from_the_login(
        self, tree: SrpTree, sysfs: ScriptedSysfs, srp: IbSrpInitiator, log: FakeLog
    ) -> None:
        await srp.connections()

        def login(_: str) -> None:
            tree.host(4, dgid=None)
            log.say(f"scsi host4: ib_srp: new target: id_ext {ID_EXT} ioc_guid {ID_EXT} sgid {GID_A} dest 192.0.2.1")

        sysfs.scripts[ADD_1] = login
        await srp.add_target(P1, RDMA_LINE)
        (found,) = await srp.connections()
        assert str(found.destination) == "0000:0000:0000:0000:0000:ffff:c000:0201"
        assert found.dgid is None

    async def test_also_when_the_log_may_not_be_read(
        self, tree: SrpTree, sysfs: ScriptedSysfs, srp: IbSrpInitiator, log: FakeLog
    ) -> None:
        log.refuse = errno.EPERM
        tree.host(3, dgid=None)
        sysfs.scripts[ADD_1] = lambda _: tree.host(4, dgid=None)
        await srp.add_target(P1, RDMA_LINE)
        assert [item.destination for item in await srp.connections()] == [None, address_gid("192.0.2.1")]

    async def test_of_older_connections_from_the_log_of_before(
        self, tree: SrpTree, srp: IbSrpInitiator, log: FakeLog
    ) -> None:
        tree.host(4, dgid=None)
        tree.host(5, dgid=None)
        tree.host(6)
        new = f"ib_srp: new target: id_ext {ID_EXT} ioc_guid {ID_EXT} sgid {GID_A} dest"
        log.say(f"scsi host4: {new} 192.0.2.1", f"scsi host6: {new} 192.0.2.6", f"scsi host7: {new} 192.0.2.7")
        assert [item.destination for item in await srp.connections()] == [address_gid("192.0.2.1"), None, None]

    async def test_no_log_no_destination(self, tree: SrpTree, srp: IbSrpInitiator, log: FakeLog) -> None:
        tree.host(4, dgid=None)
        log.refuse = errno.EPERM
        assert (await srp.connections())[0].destination is None


class TestRemovalAndTimers:
    async def test_delete_is_written_to_the_hosts_own_remote_port(
        self, tree: SrpTree, sysfs: ScriptedSysfs, srp: IbSrpInitiator
    ) -> None:
        tree.host(1)
        tree.host(10)
        sysfs.scripts["port-1:1/delete"] = lambda _: tree.tear_down(1)
        await srp.remove(1)
        assert [path for path, _ in sysfs.written] == ["class/srp_remote_ports/port-1:1/delete"]
        assert [item.host for item in await srp.connections()] == [10]

    async def test_there_must_be_something_to_remove(
        self, tree: SrpTree, sysfs: ScriptedSysfs, srp: IbSrpInitiator
    ) -> None:
        tree.put("class/scsi_host/host0/proc_name", "ahci")
        for host in (0, 5):
            with pytest.raises(InitiatorError, match=f"host{host}: it has no SRP remote port"):
                await srp.remove(host)
        tree.host(5)
        sysfs.scripts["delete"] = refusal(errno.EACCES)
        with pytest.raises(InitiatorError, match="port-5:1 could not be deleted: Permission denied"):
            await srp.remove(5)

    async def test_timers_are_set_and_read_back(self, tree: SrpTree, sysfs: ScriptedSysfs, srp: IbSrpInitiator) -> None:
        tree.host(7)
        KernelTimers(tree, sysfs, 7)
        await srp.connections()
        await srp.set_timers(7, RemotePortTimers(3, 2, 5))
        assert (await srp.connections())[0].timers == RemotePortTimers(3, 2, 5)
        with pytest.raises(InitiatorError, match="host8: it has no SRP remote port"):
            await srp.set_timers(8, RemotePortTimers())
