from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from srpha.core.recovery.remote_port import RemotePortState, RemotePortTimers
from srpha.core.seams import DeviceState, InitiatorError
from srpha.kernel.srp_hosts import SrpHosts
from srpha.kernel.sysfs import Sysfs
from srpha.wire.identifiers import Gid
from tests.kernel.srp_tree import DGID_1, DGID_2, GID_A, ID_EXT, SrpTree

RUNNING = RemotePortState.RUNNING


class Unreadable(Sysfs):
    """Refuses to read attributes by the ends of their paths, and to list directories."""

    code = 0
    ends: tuple[str, ...] = ()
    lists = True

    def read(self, path: str) -> str:
        if path.endswith(self.ends):
            raise OSError(self.code, os.strerror(self.code))
        return super().read(path)

    def holds(self, path: str, text: str) -> bool:
        return not path.endswith(self.ends) and super().holds(path, text)

    def names(self, directory: str) -> tuple[str, ...]:
        if not self.lists:
            raise OSError(self.code, os.strerror(self.code))
        return super().names(directory)


@pytest.fixture
def tree(tmp_path: Path) -> SrpTree:
    return SrpTree(tmp_path)


@pytest.fixture
def hosts(tree: SrpTree) -> SrpHosts:
    return SrpHosts(Sysfs(tree.root), refresh=0.0)


def test_a_connection_with_everything(tree: SrpTree, hosts: SrpHosts) -> None:
    tree.host(7, orig_dgid=DGID_2, zero_req_lim="3")
    tree.remote_port(7, fast_io_fail_tmo="5", dev_loss_tmo="off", failed_reconnects="2", state="blocked")
    tree.disk(7, 0, "sdb", "8:16", "blocked")
    tree.disk(7, 10, "sdd", "8:48", "transport-offline")
    tree.disk(7, 2, "sdc", "8:32", "running")
    (found,) = hosts.read(0.0).connections
    assert (found.host, found.local_port, found.remote_port) == (7, "mlx5_0/1", "port-7:1")
    assert found.id_ext == found.ioc_guid == found.service_id == int(ID_EXT, 16)
    assert (found.pkey, found.sgid, found.dgid) == (0xFFFF, Gid.from_hex(GID_A), Gid.from_hex(DGID_1))
    assert found.orig_dgid == Gid.from_hex(DGID_2)
    assert found.state is RemotePortState.BLOCKED
    assert found.timers == RemotePortTimers(10, 5, None)
    assert (found.failed_reconnects, found.req_lim, found.zero_req_lim, found.ch_count) == (2, 61, 3, 4)
    assert [(d.name, d.dev_t, d.hctl) for d in found.devices] == [
        ("sdb", "8:16", "7:0:0:0"),
        ("sdc", "8:32", "7:0:0:2"),
        ("sdd", "8:48", "7:0:0:10"),
    ]
    assert [d.state for d in found.devices] == [
        DeviceState.BLOCKED,
        DeviceState.RUNNING,
        DeviceState.TRANSPORT_OFFLINE,
    ]
    assert not found.removing


def test_rdma_cm_hosts_hide_their_target_port(tree: SrpTree, hosts: SrpHosts) -> None:
    tree.host(3, dgid=None)
    reading = hosts.read(0.0)
    (found,) = reading.connections
    assert (found.service_id, found.pkey, found.dgid, found.orig_dgid) == (None, None, None, None)
    assert reading.troubles == ()


def test_hosts_of_other_drivers_are_none_of_ours(tree: SrpTree, hosts: SrpHosts) -> None:
    tree.put("class/scsi_host/host0/proc_name", "ahci")
    tree.put("class/scsi_host/host1/proc_name", "ib_srpt")
    tree.put("class/scsi_host/host10/proc_name", "ib_srp2")
    tree.put("class/scsi_host/hostile/proc_name", "ib_srp")
    tree.host(2)
    assert [item.host for item in hosts.read(0.0).connections] == [2]
    assert hosts.numbers() == {0, 1, 2, 10}


def test_hosts_come_in_the_order_of_their_numbers(tree: SrpTree, hosts: SrpHosts) -> None:
    for number in (10, 9, 100):
        tree.host(number)
    assert [item.host for item in hosts.read(0.0).connections] == [9, 10, 100]


def test_no_scsi_at_all_is_no_connection_but_no_sysfs_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    assert SrpHosts(Sysfs(tmp_path), 0.0).read(0.0).connections == ()
    with pytest.raises(InitiatorError, match="there is no sysfs here"):
        SrpHosts(Sysfs(tmp_path / "nowhere"), 0.0).read(0.0)


def test_device_names_that_begin_alike_stay_apart(tree: SrpTree, hosts: SrpHosts) -> None:
    tree.host(1, "mlx4_1", 1)
    tree.host(2, "mlx4_10", 1)
    tree.host(3, "mlx4_1", 10)
    assert [item.local_port for item in hosts.read(0.0).connections] == ["mlx4_1/1", "mlx4_10/1", "mlx4_1/10"]


def test_two_hosts_of_one_identity_are_both_told(tree: SrpTree, hosts: SrpHosts) -> None:
    tree.host(1)
    tree.host(2)
    first, second = hosts.read(0.0).connections
    assert (first.local_port, first.id_ext, first.orig_dgid) == (second.local_port, second.id_ext, second.orig_dgid)


class TestRemoval:
    def test_what_a_host_was_is_remembered_while_it_goes(self, tree: SrpTree, hosts: SrpHosts) -> None:
        tree.host(4)
        (before,) = hosts.read(0.0).connections
        tree.tear_down(4, attributes_only=True)
        (going,) = hosts.read(1.0).connections
        assert going.removing
        assert going.state is RemotePortState.LOST
        assert (going.local_port, going.id_ext, going.orig_dgid) == ("mlx5_0/1", before.id_ext, before.orig_dgid)
        tree.drop("class/srp_remote_ports/port-4:1")
        (going,) = hosts.read(2.0).connections
        assert going.removing
        assert going.remote_port == ""
        tree.drop("class/scsi_host/host4")
        assert hosts.read(3.0).connections == ()

    def test_a_host_first_seen_half_removed_is_told_without_a_local_port(self, tree: SrpTree, hosts: SrpHosts) -> None:
        tree.host(4)
        tree.tear_down(4, attributes_only=True)
        (going,) = hosts.read(0.0).connections
        assert (going.removing, going.local_port) == (True, "/0")
        assert going.id_ext == going.ioc_guid == int(ID_EXT, 16), "from the remote port's port_id"

    def test_and_without_anything_when_the_remote_port_is_gone_too(self, tree: SrpTree, hosts: SrpHosts) -> None:
        tree.put("class/scsi_host/host4/proc_name", "ib_srp")
        (going,) = hosts.read(0.0).connections
        assert (going.removing, going.id_ext, going.remote_port) == (True, 0, "")

    def test_a_remote_port_that_went_first_means_removal_too(self, tree: SrpTree, hosts: SrpHosts) -> None:
        tree.host(4)
        hosts.read(0.0)
        tree.drop("class/srp_remote_ports/port-4:1")
        (going,) = hosts.read(1.0).connections
        assert going.removing

    def test_a_host_that_is_being_made_has_no_remote_port_yet(self, tree: SrpTree, hosts: SrpHosts) -> None:
        tree.host(4)
        tree.drop("class/srp_remote_ports/port-4:1")
        (fresh,) = hosts.read(0.0).connections
        assert (fresh.removing, fresh.state, fresh.remote_port) == (False, RemotePortState.RUNNING, "")

    def test_disks_that_vanish_between_two_looks_are_gone(self, tree: SrpTree, hosts: SrpHosts) -> None:
        tree.host(4)
        tree.disk(4, 0, "sdb", "8:16")
        tree.drop("bus/scsi/devices/4:0:0:0/state")
        (found,) = hosts.read(0.0).connections
        assert [d.state for d in found.devices] == [DeviceState.DELETED]


class TestOddities:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("id_ext", "0x"),
            ("id_ext", "0x12345678901234567"),
            ("id_ext", "1,ch_count=9999"),
            ("ioc_guid", "\x1b[31mred"),
            ("local_ib_device", "../../etc"),
            ("local_ib_device", "mlx5 0"),
            ("local_ib_port", "0"),
            ("local_ib_port", "eins"),
            ("local_ib_port", "99999999999999999999"),
        ],
    )
    def test_an_identity_that_makes_no_sense_is_unknown(
        self, tree: SrpTree, hosts: SrpHosts, name: str, text: str
    ) -> None:
        tree.host(1)
        tree.host(2)
        tree.put(f"class/scsi_host/host1/{name}", text)
        reading = hosts.read(0.0)
        odd, good = reading.connections
        assert (odd.local_port, odd.removing) == ("/0", False)
        assert good.local_port == "mlx5_0/1"
        assert reading.troubles == ("host1: what it is connected to cannot be read",)

    def test_what_was_known_stays_when_it_cannot_be_read_any_more(self, tree: SrpTree, hosts: SrpHosts) -> None:
        tree.host(1)
        hosts.read(0.0)
        tree.put("class/scsi_host/host1/local_ib_device", "?")
        hosts.forget(1)
        reading = hosts.read(1.0)
        assert reading.connections[0].local_port == "mlx5_0/1"
        assert reading.troubles

    @pytest.mark.parametrize("text", ["walking", "running\x00", "", "r" * 5000])
    def test_a_state_that_makes_no_sense_keeps_the_one_before(self, tree: SrpTree, hosts: SrpHosts, text: str) -> None:
        tree.host(1)
        tree.remote_port(1, state="fail-fast")
        hosts.read(0.0)
        tree.remote_port(1, state=text)
        reading = hosts.read(1.0)
        assert reading.connections[0].state is RemotePortState.FAIL_FAST
        assert reading.troubles == ("port-1:1: its state cannot be read",)

    @pytest.mark.parametrize("timers", [{"dev_loss_tmo": "never"}, {"reconnect_delay": "0"}, {"fast_io_fail_tmo": ""}])
    def test_timers_that_make_no_sense_keep_those_before(
        self, tree: SrpTree, hosts: SrpHosts, timers: dict[str, str]
    ) -> None:
        tree.host(1)
        tree.remote_port(1, fast_io_fail_tmo="3")
        hosts.read(0.0)
        tree.remote_port(1, **timers)
        reading = hosts.read(1.0)
        assert reading.connections[0].timers == RemotePortTimers(10, 3, 600)
        assert len(reading.troubles) == 1

    def test_a_pipe_or_a_directory_in_an_attributes_place_holds_nobody(self, tree: SrpTree, hosts: SrpHosts) -> None:
        tree.host(1)
        tree.drop("class/scsi_host/host1/pkey")
        os.mkfifo(tree.root / "class/scsi_host/host1/pkey")
        tree.drop("class/scsi_host/host1/service_id")
        (tree.root / "class/scsi_host/host1/service_id").mkdir()
        (found,) = hosts.read(0.0).connections
        assert (found.pkey, found.service_id) == (None, None)

    @pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ENOMEM])
    def test_what_may_not_be_read_is_unknown_and_not_gone(self, tree: SrpTree, code: int) -> None:
        tree.host(1)
        tree.disk(1, 0, "sdb", "8:16")
        sysfs = Unreadable(tree.root)
        hosts = SrpHosts(sysfs, refresh=0.0)
        (before,) = hosts.read(0.0).connections
        sysfs.code, sysfs.ends = code, ("id_ext", "state", "fast_io_fail_tmo")
        hosts.forget()
        reading = hosts.read(1.0)
        assert reading.connections == (
            replace(before, devices=(replace(before.devices[0], state=DeviceState.OFFLINE),)),
        )
        assert sorted(reading.troubles) == [
            "1:0:0:0: its state cannot be read",
            "host1: what it is connected to cannot be read",
            "port-1:1: its state cannot be read",
            "port-1:1: its timers cannot be read",
        ]
        sysfs.lists = False
        with pytest.raises(InitiatorError, match="class/scsi_host cannot be listed"):
            hosts.read(2.0)

    def test_odd_disks(self, tree: SrpTree, hosts: SrpHosts) -> None:
        tree.host(1)
        tree.disk(1, 0, "sdb", "not a number")
        tree.disk(1, 1, "sdc", "8:32", "confused")
        tree.put("bus/scsi/devices/1:0:0:2/state", "running")  # a tape, or a disk that sd has not seen yet
        tree.put("bus/scsi/devices/target1:0:0/state", "running")
        reading = hosts.read(0.0)
        assert [(d.name, d.state) for d in reading.connections[0].devices] == [("sdc", DeviceState.OFFLINE)]
        assert reading.troubles == (
            "1:0:0:0: the device number of sdb cannot be read",
            "1:0:0:1: its state cannot be read",
        )

    def test_a_driver_that_cannot_be_read_is_what_it_was(self, tree: SrpTree, hosts: SrpHosts) -> None:
        tree.host(1)
        hosts.read(0.0)
        tree.drop("class/scsi_host/host1/proc_name")
        assert [item.host for item in hosts.read(1.0).connections] == [1]


class TestReadingLess:
    @pytest.fixture
    def lazy(self, tree: SrpTree) -> SrpHosts:
        return SrpHosts(Sysfs(tree.root), refresh=30.0)

    def test_an_undisturbed_connection_is_read_in_full_now_and_then(self, tree: SrpTree, lazy: SrpHosts) -> None:
        tree.host(1)
        lazy.read(0.0)
        tree.put("class/scsi_host/host1/req_lim", "5")
        assert lazy.read(29.9).connections[0].req_lim == 61
        assert lazy.read(30.0).connections[0].req_lim == 5

    @pytest.mark.parametrize("host", [1, None])
    def test_or_when_something_was_done_to_it(self, tree: SrpTree, lazy: SrpHosts, host: int | None) -> None:
        tree.host(1)
        lazy.read(0.0)
        tree.put("class/scsi_host/host1/req_lim", "5")
        lazy.forget(host)
        assert lazy.read(1.0).connections[0].req_lim == 5

    def test_its_state_is_always_looked_at(self, tree: SrpTree, lazy: SrpHosts) -> None:
        tree.host(1)
        lazy.read(0.0)
        tree.remote_port(1, state="blocked")
        assert lazy.read(1.0).connections[0].state is RemotePortState.BLOCKED
        tree.remote_port(1, state="running")
        tree.put("class/scsi_host/host1/req_lim", "5")
        found = lazy.read(2.0).connections[0]
        assert (found.state, found.req_lim) == (RemotePortState.RUNNING, 5)

    def test_many_do_not_come_due_together(self, tree: SrpTree, lazy: SrpHosts) -> None:
        for number in range(100):
            tree.host(number)
        lazy.read(0.0)
        for number in range(100):
            tree.put(f"class/scsi_host/host{number}/req_lim", "5")
        assert [item.req_lim for item in lazy.read(30.0).connections].count(5) == 64
        assert [item.req_lim for item in lazy.read(30.1).connections].count(5) == 100

    def test_hundreds_are_looked_at_by_turns_until_one_does_not_run(self, tree: SrpTree, lazy: SrpHosts) -> None:
        for number in range(300):
            tree.host(number)
        for time in range(3):
            lazy.read(float(time))
        lazy.forget(None)
        lazy.read(3.0)
        lazy.read(4.0)  # 0 to 255, or those after: turns go on from where they were
        tree.remote_port(7, state="blocked")
        tree.remote_port(290, state="blocked")
        states = [{item.host for item in lazy.read(5.0 + n).connections if item.state is not RUNNING} for n in range(2)]
        assert states[1] == {7, 290}
        assert states[0] in (set(), {7, 290}), "all of them or none"

    def test_hundreds_are_read_in_full_less_often(self, tree: SrpTree, lazy: SrpHosts) -> None:
        for number in range(256):
            tree.host(number)
        lazy.read(0.0)
        tree.put("class/scsi_host/host0/req_lim", "5")
        assert lazy.read(59.9).connections[0].req_lim == 61
        assert lazy.read(60.0).connections[0].req_lim == 5

    def test_removal_shows_at_once(self, tree: SrpTree, lazy: SrpHosts) -> None:
        tree.host(1)
        tree.host(2)
        lazy.read(0.0)
        tree.drop("class/srp_remote_ports/port-1:1")
        tree.tear_down(2)
        (found,) = lazy.read(1.0).connections
        assert (found.host, found.removing) == (1, True)
