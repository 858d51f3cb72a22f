"""The real multipathd and multipath: our client against the daemon, our drop-in in front of its parser.

Both run in a machine of their own (multipath_machine.py), so neither a device-mapper nor SCSI disks are needed, and
none that are there are touched.
"""

from __future__ import annotations

import asyncio
import pathlib
import subprocess

import pytest
from multipath_machine import NAMESPACE, WWID, Machine, multipathd

from srpha.core.multipath.conf import parse_conf
from srpha.core.multipath.dropin import SRP_ARRAYS, DropInSettings
from srpha.core.seams import CheckerState, DeviceState, GroupState, PathManagerError, PathState
from srpha.kernel.multipath_files import plan_dropin, write_dropin
from srpha.kernel.multipath_manager import MultipathManager
from srpha.kernel.multipathd import MultipathdRefusedError
from srpha.kernel.multipathd_json import MAPS_COMMAND, PATHS_COMMAND, parse_maps, parse_paths


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Machine:
    made = Machine(tmp_path / "machine")
    probe = subprocess.run([*NAMESPACE, made.mounts("etc")], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no mount namespace here: {probe.stderr.strip()}")
    return made


# --- multipath: the drop-in ---


def dump(machine: Machine) -> tuple[str, list[str]]:
    """What `multipath -t` makes of the configuration, and what it complains of."""
    run = subprocess.run(
        [*NAMESPACE, f"{machine.mounts('etc')} && exec multipath -t"], capture_output=True, text=True, check=True
    )
    return run.stdout, [line for line in run.stderr.splitlines() if "/conf.d/" in line]


@pytest.mark.outside("multipath", "unshare")
def test_drop_in_is_taken_without_complaint(machine: Machine) -> None:
    write_dropin(plan_dropin(DropInSettings(no_path_retry=77, eh_deadline=13, find_multipaths="greedy"), machine.etc))
    text, complaints = dump(machine)
    assert complaints == []
    merged = parse_conf(text, "multipath -t")
    assert merged.complaints == ()
    (defaults,) = merged.all("defaults")
    assert defaults.all("find_multipaths")[0].value == "greedy"
    (overrides,) = merged.all("overrides")
    (protocol,) = overrides.inside("protocol")
    assert (protocol.options[0].value, protocol.options[1].value) == ("scsi:srp", "13")
    (devices,) = merged.all("devices")
    for array in SRP_ARRAYS:
        ours = [
            {option.keyword: option.value for option in device.options}
            for device in devices.inside("device")
            if (device.options[0].value, device.options[1].value) == (array.vendor, array.product)
        ]
        assert {**dict(array.settings), "no_path_retry": "77"}.items() <= ours[-1].items(), array.title


@pytest.mark.outside("multipath", "unshare")
@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("path_grouping_policy", "path_grouping_polcy", "invalid keyword in the device section: path_grouping_polcy"),
        ('failback "immediate"', 'failback "immediat"', 'invalid value for failback: "immediat"'),
        ("overrides {", "overides {", "invalid keyword: overides"),
    ],
)
def test_planted_fault_is_reported(machine: Machine, right: str, wrong: str, complaint: str) -> None:
    """The judge of the test above must be able to say no."""
    write_dropin(plan_dropin(DropInSettings(), machine.etc))
    path = machine.etc / "multipath/conf.d/90-srpha.conf"
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))
    assert any(complaint in line for line in dump(machine)[1])


@pytest.mark.outside("multipath", "unshare")
def test_later_files_win_as_the_planner_assumes(machine: Machine) -> None:
    for number, name in enumerate(("10-a.conf", "95-z.conf"), start=1):
        (machine.etc / "multipath/conf.d" / name).write_text(f"defaults {{\npolling_interval {number}\n}}\n")
    (machine.etc / "multipath.conf").write_text("defaults {\npolling_interval 9\n}\n")
    (defaults,) = parse_conf(dump(machine)[0], "multipath -t").all("defaults")
    assert defaults.all("polling_interval")[0].value == "2"


@pytest.mark.outside("multipath", "unshare")
def test_own_configuration_of_multipath_is_read_without_complaint(machine: Machine) -> None:
    """1 000 lines that multipath wrote itself go through our reader."""
    file = parse_conf(dump(machine)[0], "multipath -t")
    assert file.complaints == ()
    (devices,) = file.all("devices")
    assert len(devices.inside("device")) > 50


# --- multipathd: the socket ---


@pytest.mark.outside("multipathd", "unshare", "cc")
@pytest.mark.realtime
async def test_live_daemon_without_maps(machine: Machine) -> None:
    write_dropin(plan_dropin(DropInSettings(no_path_retry=77), machine.etc))
    async with multipathd(machine, {}) as client:
        assert (await client.show("show daemon")).startswith("pid ")
        assert parse_maps(await client.show(MAPS_COMMAND)) == ()
        assert await client.show(PATHS_COMMAND) == ""
        assert await MultipathManager(client, sysfs=machine.sys).maps() == ()
        assert "no_path_retry 77" in await client.show("show config")
        await client.act("reconfigure")
        with pytest.raises(MultipathdRefusedError, match="refused 'fail path nosuch'"):
            await client.act("fail path nosuch")
        with pytest.raises(PathManagerError, match="refused 'reinstate path nosuch'"):
            await MultipathManager(client).reinstate_path("nosuch")
        with pytest.raises(MultipathdRefusedError, match="refused 'fial path sda'"):
            await client.act("fial path sda")
        assert await client.show("show status")
    with pytest.raises(PathManagerError, match="multipathd cannot be reached"):
        await MultipathManager(client, sysfs=machine.sys).maps()


@pytest.mark.outside("multipathd", "unshare", "cc")
@pytest.mark.realtime
async def test_live_daemon_with_a_map(machine: Machine) -> None:
    machine.plug_disks()
    async with multipathd(machine, {"FAKE_DM_WWID": WWID}) as client:
        assert set(parse_paths(await client.show(PATHS_COMMAND))) == {"8:16", "8:32"}
        manager = MultipathManager(client, sysfs=machine.sys)
        (found,) = await manager.maps()
        assert (found.name, found.wwid, found.dm_name) == ("mpathb", WWID, "dm-1")
        assert (found.blocks, found.block_size, found.vendor, found.product) == (2097152, 512, "LIO-ORG", "disk1")
        assert [group.state for group in found.groups] == [GroupState.ACTIVE, GroupState.ENABLED]
        assert found.groups[0].selector == "service-time 0"
        for path, device, dev_t, host, failures in zip(
            found.paths, ("sdb", "sdc"), ("8:16", "8:32"), (4, 5), (0, 3), strict=True
        ):
            assert (path.device, path.dev_t, path.host, path.fail_count) == (device, dev_t, host, failures)
            assert path.hctl == f"{host}:0:0:0"
            assert path.state is PathState.ACTIVE
            assert path.checker is CheckerState.READY
            assert path.device_state is DeviceState.RUNNING

        await manager.fail_path("sdb")
        await asyncio.sleep(2.2)  # checks are a second apart: one that is failed by command is not checked any more
        (failed,) = await manager.maps()
        assert [path.state for path in failed.paths] == [PathState.FAILED, PathState.ACTIVE]
        await manager.reinstate_path("sdb")
        (back,) = await manager.maps()
        assert [path.state for path in back.paths] == [PathState.ACTIVE, PathState.ACTIVE]


@pytest.mark.outside("multipathd", "unshare", "cc")
@pytest.mark.realtime
async def test_live_daemon_with_a_map_that_lost_its_disks(machine: Machine) -> None:
    """multipathd then shows a map without groups and ``##`` for its vendor."""
    async with multipathd(machine, {"FAKE_DM_WWID": WWID}) as client:
        (found,) = await MultipathManager(client, sysfs=machine.sys).maps()
        assert (found.name, found.groups, found.vendor, found.product) == ("mpathb", (), "", "")
        assert found.queueing
