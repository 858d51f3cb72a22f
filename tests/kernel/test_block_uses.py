from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from multipathd_server import frame, serving

from srpha.core.connections.shutdown import BlockUse, UseKind
from srpha.core.seams import PathManagerError
from srpha.kernel.block_uses import KernelBlockDevices
from srpha.kernel.dm_ioctl import DM_DEV_STATUS, open_count, open_count_of, status_request
from srpha.kernel.multipathd import MultipathdClient

MOUNT, HOLDER, SWAP, OPEN = UseKind.MOUNT, UseKind.HOLDER, UseKind.SWAP, UseKind.OPEN


class Tree:
    """sysfs and /proc with one map of two disks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.opens = 0
        self.block("dm-0", "253:0", name="mpatha", uuid="mpath-36001")
        for name, number in (("sda", "8:0"), ("sdb", "8:16")):
            self.block(name, number, holders=["dm-0"])
        self.proc("self/mountinfo", "22 1 8:33 / / rw,relatime shared:1 - ext4 /dev/sdc1 rw\n")
        self.proc("swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")

    def put(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def proc(self, path: str, text: str) -> None:
        self.put(f"proc/{path}", text)

    def block(
        self, device: str, number: str, *, name: str = "", uuid: str = "", holders: list[str] | None = None
    ) -> None:
        folder = f"sys/class/block/{device}"
        self.put(f"{folder}/dev", f"{number}\n")
        if name:
            self.put(f"{folder}/dm/name", f"{name}\n")
            self.put(f"{folder}/dm/uuid", f"{uuid}\n")
        self.hold(device, *(holders or ()))

    def hold(self, device: str, *holders: str) -> None:
        folder = self.root / f"sys/class/block/{device}/holders"
        folder.mkdir(parents=True, exist_ok=True)
        for holder in holders:
            (folder / holder).touch()

    def mount(self, number: str, place: str, source: str) -> None:
        path = self.root / "proc/self/mountinfo"
        path.write_text(f"{path.read_text()}40 22 {number} / {place} rw - ext4 {source} rw\n")

    def uses(self, *devices: str) -> dict[str, Sequence[BlockUse]]:
        made = KernelBlockDevices(
            sysfs=self.root / "sys", proc=self.root / "proc", count_opens=lambda _name: self.opens
        )
        return dict(asyncio.run(made.uses(devices)))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_nobody(tree: Tree) -> None:
    held = (BlockUse(HOLDER, "dm-0 (mpatha)"),)
    assert tree.uses("dm-0", "sda", "sdb") == {"dm-0": (), "sda": held, "sdb": held}


@pytest.mark.parametrize(
    ("number", "source"), [("253:0", "/dev/mapper/mpatha"), ("0:41", "/dev/mapper/mpatha"), ("0:41", "/dev/dm-0")]
)
def test_mounts_by_number_and_by_name(tree: Tree, number: str, source: str) -> None:
    tree.opens = 1
    tree.mount(number, "/my\\040data", source)
    assert tree.uses("dm-0")["dm-0"] == (BlockUse(MOUNT, "/my data"),)


def test_nothing_a_terminal_would_obey_comes_through(tree: Tree) -> None:
    tree.mount("253:0", "/a\\033[31m", "/dev/dm-0")
    assert tree.uses("dm-0")["dm-0"] == (BlockUse(MOUNT, "/a?[31m"),)


def test_holders_and_swap(tree: Tree) -> None:
    tree.block("dm-5", "253:5", name="vg-data", uuid="LVM-abc")
    tree.hold("dm-0", "dm-5", "md0")
    tree.proc("swaps", "Filename Type Size Used Priority\n/dev/dm-0 partition 1 0 -2\n")
    assert tree.uses("dm-0")["dm-0"] == (
        BlockUse(SWAP),
        BlockUse(HOLDER, "dm-5 (vg-data)"),
        BlockUse(HOLDER, "md0"),
    )


def test_what_uses_a_partition_uses_its_map(tree: Tree) -> None:
    tree.block("dm-1", "253:1", name="mpatha-part1", uuid="part1-mpath-36001")
    tree.hold("dm-0", "dm-1")
    assert tree.uses("dm-0")["dm-0"] == ()
    tree.mount("253:1", "/boot", "/dev/mapper/mpatha-part1")
    assert tree.uses("dm-0")["dm-0"] == (BlockUse(MOUNT, "/boot"),)


def test_what_uses_a_partition_of_a_disk_uses_the_disk(tree: Tree) -> None:
    tree.block("sda1", "8:1")
    tree.put("sys/class/block/sda/sda1/partition", "1\n")
    tree.mount("8:1", "/mnt", "/dev/sda1")
    assert BlockUse(MOUNT, "/mnt") in tree.uses("sda")["sda"]


def test_a_process_that_has_the_map_open(tree: Tree) -> None:
    tree.opens = 1
    assert tree.uses("dm-0")["dm-0"] == (BlockUse(OPEN),)
    tree.block("dm-1", "253:1", name="mpatha-part1", uuid="part1-mpath-36001")
    tree.hold("dm-0", "dm-1")
    tree.opens = 0
    assert tree.uses("dm-0")["dm-0"] == ()


def test_opens_that_may_not_be_counted_are_left_to_multipathd(tree: Tree) -> None:
    def forbidden(_name: str) -> int:
        raise PermissionError(1, "Operation not permitted")

    made = KernelBlockDevices(sysfs=tree.root / "sys", proc=tree.root / "proc", count_opens=forbidden)
    assert asyncio.run(made.uses(["dm-0"])) == {"dm-0": ()}


def test_unknown_is_not_unused(tree: Tree) -> None:
    with pytest.raises(
        PathManagerError, match=r"who uses the disks cannot be told: .* does not tell the device's number"
    ):
        tree.uses("dm-9")
    tree.proc("self/mountinfo", "nonsense\n")
    with pytest.raises(PathManagerError, match="has a line of another form"):
        tree.uses("dm-0")
    (tree.root / "proc/self/mountinfo").unlink()
    with pytest.raises(PathManagerError, match="No such file"):
        tree.uses("dm-0")


@pytest.mark.realtime
async def test_flush_is_multipathd_s_affair(tmp_path: Path) -> None:
    place = str(tmp_path / "multipathd")
    replies = {"del map mpatha": "ok\n", "del map mpathb": "fail\nmap in use\n"}
    async with serving(place, lambda command: frame(replies[command])) as server:
        made = KernelBlockDevices(client=MultipathdClient([place]))
        await made.flush("mpatha")
        with pytest.raises(PathManagerError, match="map in use"):
            await made.flush("mpathb")
        for name in ("", "a b", "x\ny", "-" * 200):
            with pytest.raises(PathManagerError, match="is no name of a map"):
                await made.flush(name)
        assert server.commands == list(replies)


def test_the_ioctl_as_the_kernel_lays_it_out() -> None:
    assert DM_DEV_STATUS == (3 << 30) | (312 << 16) | (0xFD << 8) | 7
    request = status_request("mpatha")
    assert request[:24] == bytes.fromhex("040000000000000000000000380100003801000000000000")
    assert request[24:48] == bytes(24)
    assert request[48:55] == b"mpatha\0"
    assert len(request) == 312
    assert open_count_of(request[:24] + b"\x03\0\0\0" + request[28:]) == 3
    with pytest.raises(ValueError, match="counts -1 opens"):
        open_count_of(request[:24] + b"\xff\xff\xff\xff" + request[28:])
    with pytest.raises(ValueError, match="has 10 bytes"):
        open_count_of(bytes(10))
    for name in ("", "x" * 128):
        with pytest.raises(ValueError, match="is no name"):
            status_request(name)


def test_without_device_mapper(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_count("mpatha", tmp_path / "control")
