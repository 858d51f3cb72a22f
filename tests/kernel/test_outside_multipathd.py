"""The real multipathd and multipath: our client against the daemon, our drop-in in front of its parser.

multipathd needs device-mapper. A kernel that has none is made up for by a preloaded library that answers
/dev/mapper/control (fake_device_mapper.c): the daemon is the real one, with no maps. Both tools read only /etc, so
they get one of their own in a mount namespace.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from srpha.core.multipath_conf import parse_conf
from srpha.core.multipath_dropin import SRP_ARRAYS, DropInSettings
from srpha.core.seams import PathManagerError
from srpha.kernel.multipath_files import plan_dropin, write_dropin
from srpha.kernel.multipath_manager import MultipathManager
from srpha.kernel.multipathd import ABSTRACT_SOCKET, MultipathdAwayError, MultipathdClient, MultipathdRefusedError
from srpha.kernel.multipathd_json import PATHS_COMMAND, parse_maps

HERE = pathlib.Path(__file__).parent
HAS_DEVICE_MAPPER = pathlib.Path("/sys/class/misc/device-mapper").exists()
NAMESPACE = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "sh", "-c"]


@pytest.fixture
def etc(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "etc"
    (folder / "multipath/conf.d").mkdir(parents=True)
    probe = subprocess.run([*NAMESPACE, f"mount --bind {folder} /etc"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no mount namespace here: {probe.stderr.strip()}")
    return folder


# --- multipath: the drop-in ---


def dump(etc: pathlib.Path) -> tuple[str, list[str]]:
    """What `multipath -t` makes of the configuration, and what it complains of."""
    run = subprocess.run(
        [*NAMESPACE, f"mount --bind {etc} /etc && exec multipath -t"], capture_output=True, text=True, check=True
    )
    return run.stdout, [line for line in run.stderr.splitlines() if "/conf.d/" in line]


@pytest.mark.outside("multipath", "unshare")
def test_drop_in_is_taken_without_complaint(etc: pathlib.Path) -> None:
    write_dropin(plan_dropin(DropInSettings(no_path_retry=77, eh_deadline=13, find_multipaths="greedy"), etc))
    text, complaints = dump(etc)
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
def test_planted_fault_is_reported(etc: pathlib.Path, right: str, wrong: str, complaint: str) -> None:
    """The judge of the test above must be able to say no."""
    write_dropin(plan_dropin(DropInSettings(), etc))
    path = etc / "multipath/conf.d/90-srpha.conf"
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))
    assert any(complaint in line for line in dump(etc)[1])


@pytest.mark.outside("multipath", "unshare")
def test_later_files_win_as_the_planner_assumes(etc: pathlib.Path) -> None:
    for number, name in enumerate(("10-a.conf", "95-z.conf"), start=1):
        (etc / "multipath/conf.d" / name).write_text(f"defaults {{\npolling_interval {number}\n}}\n")
    (etc / "multipath.conf").write_text("defaults {\npolling_interval 9\n}\n")
    (defaults,) = parse_conf(dump(etc)[0], "multipath -t").all("defaults")
    assert defaults.all("polling_interval")[0].value == "2"


@pytest.mark.outside("multipath", "unshare")
def test_own_configuration_of_multipath_is_read_without_complaint(etc: pathlib.Path) -> None:
    """1 000 lines that multipath wrote itself go through our reader."""
    file = parse_conf(dump(etc)[0], "multipath -t")
    assert file.complaints == ()
    (devices,) = file.all("devices")
    assert len(devices.inside("device")) > 50


# --- multipathd: the socket ---


@asynccontextmanager
async def live_multipathd(etc: pathlib.Path) -> AsyncIterator[MultipathdClient]:
    """The real daemon in the foreground, and a client on its socket."""
    client = MultipathdClient([ABSTRACT_SOCKET])
    library = etc.parent / "fake_device_mapper.so"
    environment = dict(os.environ)
    if not HAS_DEVICE_MAPPER:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no device-mapper in the kernel, and no C compiler for a stand-in")
        source = str(HERE / "fake_device_mapper.c")
        build = await asyncio.create_subprocess_exec(compiler, "-shared", "-fPIC", "-o", str(library), source, "-ldl")
        assert await build.wait() == 0
        environment["LD_PRELOAD"] = str(library)
    try:
        await client.show("show daemon")
    except MultipathdAwayError:
        pass
    else:
        pytest.skip("a multipathd runs on this machine already; it is left alone")
    log = (etc.parent / "multipathd.log").open("wb")
    daemon = await asyncio.create_subprocess_exec(
        *NAMESPACE,
        f"mount --bind {etc} /etc && mount -t tmpfs none /run && exec multipathd -d -s -v3",
        env=environment,
        stdout=log,
        stderr=log,
    )
    try:
        for _ in range(100):
            try:
                await client.show("show daemon")
                break
            except MultipathdAwayError:
                if daemon.returncode is not None:
                    break
                await asyncio.sleep(0.05)
        if daemon.returncode is not None:
            said = (etc.parent / "multipathd.log").read_text(errors="replace")
            pytest.skip(f"multipathd does not run here: {said[-300:]}")
        yield client
    finally:
        await client.close()
        if daemon.returncode is None:
            daemon.terminate()
        await daemon.wait()
        log.close()


@pytest.mark.outside("multipathd", "unshare")
@pytest.mark.realtime
async def test_client_and_manager_against_the_live_daemon(etc: pathlib.Path) -> None:
    write_dropin(plan_dropin(DropInSettings(no_path_retry=77), etc))
    async with live_multipathd(etc) as client:
        assert (await client.show("show daemon")).startswith("pid ")
        raw = await client.show("show maps json")
        assert '"major_version"' in raw
        known = parse_maps(raw)
        assert {item.name for item in await MultipathManager(client).maps()} == {item.name for item in known}
        await client.show(PATHS_COMMAND)
        assert "no_path_retry 77" in await client.show("show config local") + await client.show("show config")
        await client.act("reconfigure")
        with pytest.raises(MultipathdRefusedError, match="refused 'fail path nosuch'"):
            await client.act("fail path nosuch")
        with pytest.raises(PathManagerError, match="refused 'reinstate path nosuch'"):
            await MultipathManager(client).reinstate_path("nosuch")
        with pytest.raises(MultipathdRefusedError, match="refused 'fial path sda'"):
            await client.act("fial path sda")
        assert await client.show("show status")
    with pytest.raises(PathManagerError, match="multipathd cannot be reached"):
        await MultipathManager(client).maps()
