"""A machine for the real multipathd to run in: file trees in place of /etc, /sys, /dev and /run, and a device-mapper
of our own (fake_device_mapper.c). The daemon never sees the devices of the machine that the tests run on.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from srpha.kernel.multipathd import ABSTRACT_SOCKET, MultipathdAwayError, MultipathdClient

NAMESPACE = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--mount", "sh", "-c"]
NAA = "60014050000000000000000000000002"
WWID = f"3{NAA}"
SOURCE = pathlib.Path(__file__).parent / "fake_device_mapper.c"
DISKS = {"sdb": (4, 16), "sdc": (5, 32)}
"""Host and minor number by kernel name."""

CONF = """\
defaults {
    find_multipaths "off"
    user_friendly_names "yes"
    polling_interval 1
    max_polling_interval 1
}
overrides {
    path_checker "none"
    detect_checker "no"
    detect_prio "no"
    prio "const"
    path_grouping_policy "failover"
}
"""
"""No checker that would send SCSI commands to a plain file; it never fails a path by itself."""


class Machine:
    """The trees; ``etc`` is multipath's."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.etc, self.sys = root / "etc", root / "sys"
        (self.etc / "multipath/conf.d").mkdir(parents=True)
        self.put("run/udev/control", "")
        self.put("dev/null", "")
        (self.sys / "block").mkdir(parents=True)

    def put(self, path: str, content: str | bytes) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())

    def link(self, path: str, target: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(self.root / target, place.parent))

    def plug_disks(self) -> None:
        """Two SCSI disks on two hosts, paths to the same unit, and the map over them as sysfs has it."""
        for disk, (host, minor) in DISKS.items():
            self._plug(disk, host, minor)
        self.put("etc/multipath.conf", CONF)
        self.put("etc/multipath/bindings", f"mpathb {WWID}")
        self.put("etc/multipath/wwids", f"/{WWID}/")
        self.put("sys/devices/virtual/block/dm-1/size", "2097152")
        self.put("sys/devices/virtual/block/dm-1/queue/logical_block_size", "512")
        self.put("sys/devices/virtual/block/dm-1/dm/name", "mpathb")
        self.put("sys/devices/virtual/block/dm-1/dm/uuid", f"mpath-{WWID}")
        self.link("sys/block/dm-1", "sys/devices/virtual/block/dm-1")

    def _plug(self, disk: str, host: int, minor: int) -> None:
        base = f"sys/devices/pci0000:00/0000:0{host}:00.0/host{host}"
        target = f"{base}/target{host}:0:0"
        device = f"{target}/{host}:0:0:0"
        block = f"{device}/block/{disk}"
        for folder, kind in ((base, "scsi_host"), (target, "scsi_target"), (device, "scsi_device")):
            self.put(f"{folder}/uevent", f"DEVTYPE={kind}")
            self.link(f"{folder}/subsystem", "sys/bus/scsi")
        attributes = {
            "vendor": "LIO-ORG ",
            "model": "disk1           ",
            "rev": "4.0 ",
            "state": "running",
            "type": "0",
            "queue_depth": "32",
            "timeout": "30",
            "eh_timeout": "10",
        }
        for name, text in attributes.items():
            self.put(f"{device}/{name}", text)
        self.put(f"{device}/vpd_pg83", bytes.fromhex("0083001401030010" + NAA))
        self.put(f"{block}/uevent", f"MAJOR=8\nMINOR={minor}\nDEVNAME={disk}\nDEVTYPE=disk")
        for name, text in {"dev": f"8:{minor}", "size": "2097152", "ro": "0", "removable": "0"}.items():
            self.put(f"{block}/{name}", text)
        self.put(f"{block}/queue/logical_block_size", "512")
        (self.root / block / "holders").mkdir()
        self.link(f"{block}/subsystem", "sys/class/block")
        self.link(f"{block}/device", device)
        for place in (f"sys/class/block/{disk}", f"sys/block/{disk}", f"sys/dev/block/8:{minor}"):
            self.link(place, block)
        self.put(f"dev/{disk}", "")
        self.put(f"run/udev/data/b8:{minor}", f"I:1\nE:ID_SERIAL={WWID}\nE:ID_WWN=0x{NAA[:16]}\nE:ID_TYPE=disk\nV:1")

    def mounts(self, *names: str) -> str:
        """Shell words that put the trees in place."""
        return " && ".join(f"mount --bind {self.root / name} /{name}" for name in names)


@asynccontextmanager
async def multipathd(machine: Machine, environment: Mapping[str, str]) -> AsyncIterator[MultipathdClient]:
    """The real daemon in the foreground, and a client on its socket."""
    client = MultipathdClient([ABSTRACT_SOCKET])
    if await _answers(client):
        await client.close()
        pytest.skip("a multipathd runs on this machine already; it is left alone")
    library = machine.root / "fake_device_mapper.so"
    build = await asyncio.create_subprocess_exec("cc", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl")
    assert await build.wait() == 0
    null = f"mount --bind /dev/null {machine.root / 'dev/null'}"
    script = f"{null} && {machine.mounts('etc', 'run', 'sys', 'dev')} && exec multipathd -d -s -v3"
    with (machine.root / "log").open("wb") as log:
        daemon = await asyncio.create_subprocess_exec(
            *NAMESPACE,
            script,
            env={
                **os.environ,
                **environment,
                "LD_PRELOAD": str(library),
                "SYSTEMD_DEVICE_VERIFY_SYSFS": "0",  # libudev otherwise wants a real sysfs
            },
            stdout=log,
            stderr=log,
        )
    try:
        for _ in range(100):
            if daemon.returncode is not None or await _answers(client):
                break
            await asyncio.sleep(0.05)
        assert daemon.returncode is None, _said(machine)
        yield client
    finally:
        await client.close()
        if daemon.returncode is None:
            daemon.terminate()
            try:
                async with asyncio.timeout(10):
                    await daemon.wait()
            except TimeoutError:
                daemon.kill()
        await daemon.wait()


async def _answers(client: MultipathdClient) -> bool:
    try:
        await client.show("show daemon")
    except MultipathdAwayError:
        return False
    return True


def _said(machine: Machine) -> str:
    return (machine.root / "log").read_text(errors="replace")[-2000:]
