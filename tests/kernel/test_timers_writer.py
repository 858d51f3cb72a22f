from __future__ import annotations

import errno
import itertools
from pathlib import Path

import pytest

from srpha.core.recovery.remote_port import InvalidTimersError, RemotePortTimers
from srpha.core.seams import InitiatorError
from srpha.kernel.timers_writer import read_timers, write_timers
from tests.kernel.srp_tree import KernelTimers, ScriptedSysfs, SrpTree, refusal


@pytest.fixture
def tree(tmp_path: Path) -> SrpTree:
    tree = SrpTree(tmp_path)
    tree.host(7)
    return tree


@pytest.fixture
def sysfs(tree: SrpTree) -> ScriptedSysfs:
    return ScriptedSysfs(tree.root)


def test_every_write_is_valid_for_the_kernel(tree: SrpTree, sysfs: ScriptedSysfs) -> None:
    KernelTimers(tree, sysfs, 7)
    values = (None, 1, 15, 16, 600, 700)
    count = 0
    for wanted in itertools.product(values, values, values):
        try:
            timers = RemotePortTimers(*wanted)
        except InvalidTimersError:
            continue
        write_timers(sysfs, "port-7:1", timers)  # from whatever the last round left
        assert read_timers(sysfs, "port-7:1") == wanted
        count += 1
    assert count > 60


def test_nothing_is_written_when_all_is_right(sysfs: ScriptedSysfs) -> None:
    write_timers(sysfs, "port-7:1", RemotePortTimers(10, 15, 600))
    assert sysfs.written == []


def test_minus_one_is_off_as_well(tree: SrpTree, sysfs: ScriptedSysfs) -> None:
    tree.remote_port(7, dev_loss_tmo="-1")
    assert read_timers(sysfs, "port-7:1") == (10, 15, None)


@pytest.mark.parametrize("text", ["", "never", "1e3", "99999999999"])
def test_unknown_present_timers_are_not_written_over(tree: SrpTree, sysfs: ScriptedSysfs, text: str) -> None:
    tree.remote_port(7, reconnect_delay=text)
    with pytest.raises(InitiatorError, match="port-7:1: its present timers could not be read"):
        write_timers(sysfs, "port-7:1", RemotePortTimers(10, 2, 600))
    assert sysfs.written == []


def test_what_the_kernel_refuses_is_named(sysfs: ScriptedSysfs) -> None:
    sysfs.scripts["fast_io_fail_tmo"] = refusal(errno.EINVAL)
    with pytest.raises(InitiatorError, match="port-7:1: fast_io_fail_tmo could not be set to 2: Invalid argument"):
        write_timers(sysfs, "port-7:1", RemotePortTimers(10, 2, 600))


def test_a_remote_port_that_goes_meanwhile(tree: SrpTree, sysfs: ScriptedSysfs) -> None:
    sysfs.scripts["fast_io_fail_tmo"] = lambda _: tree.drop("class/srp_remote_ports/port-7:1")
    with pytest.raises(InitiatorError, match="dev_loss_tmo could not be set to 5: the remote port is gone"):
        write_timers(sysfs, "port-7:1", RemotePortTimers(10, 2, 5))


def test_someone_else_who_writes_the_same_timers_is_noticed(tree: SrpTree, sysfs: ScriptedSysfs) -> None:
    sysfs.scripts["fast_io_fail_tmo"] = lambda _: tree.remote_port(7, fast_io_fail_tmo="99")
    with pytest.raises(InitiatorError, match="do not read back as they were written"):
        write_timers(sysfs, "port-7:1", RemotePortTimers(10, 2, 600))


def test_timers_beyond_the_kernels_integers(sysfs: ScriptedSysfs) -> None:
    with pytest.raises(InitiatorError, match="port-7:1: dev_loss_tmo is 9999999999"):
        write_timers(sysfs, "port-7:1", RemotePortTimers(10, 15, 9999999999))
