from __future__ import annotations

import asyncio
import errno
import os
import pathlib
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.kernel.uevents import Topic, Uevent, UeventListener, open_uevents, parse_uevent
from srpha.wire.errors import DecodeError

PATH_FAILED = (
    b"change@/devices/virtual/block/dm-1\0ACTION=change\0DEVPATH=/devices/virtual/block/dm-1\0SUBSYSTEM=block\0"
    b"DM_TARGET=multipath\0DM_ACTION=PATH_FAILED\0DM_SEQNUM=3\0DM_PATH=8:32\0DM_NR_VALID_PATHS=1\0DM_NAME=mpathb\0"
    b"DM_UUID=mpath-360014050000000000000000000000002\0MAJOR=253\0MINOR=1\0DEVNAME=dm-1\0DEVTYPE=disk\0SEQNUM=4021\0"
)


def message(subsystem: str, devpath: str, action: str = "add", **more: str) -> bytes:
    pairs = {"ACTION": action, "DEVPATH": devpath, "SUBSYSTEM": subsystem, **more, "SEQNUM": "1"}
    return (
        b"\0".join([f"{action}@{devpath}".encode(), *(f"{key}={value}".encode() for key, value in pairs.items())])
        + b"\0"
    )


def test_golden() -> None:
    event = parse_uevent(PATH_FAILED)
    assert (event.action, event.devpath, event.subsystem) == ("change", "/devices/virtual/block/dm-1", "block")
    assert event.properties["DM_PATH"] == "8:32"
    assert event.topic is Topic.MULTIPATH


@pytest.mark.parametrize(
    ("subsystem", "devpath", "topic"),
    [
        ("infiniband", "/devices/pci0000:00/0000:01:00.0/infiniband/mlx5_0", Topic.RDMA),
        ("infiniband_mad", "/devices/pci0000:00/0000:01:00.0/infiniband_mad/umad0", Topic.RDMA),
        ("scsi_host", "/devices/pci0000:00/host4/scsi_host/host4", Topic.SCSI),
        ("scsi_device", "/devices/pci0000:00/host4/target4:0:0/4:0:0:0/scsi_device/4:0:0:0", Topic.SCSI),
        ("srp_remote_ports", "/devices/pci0000:00/host4/port-4:1/srp_remote_ports/port-4:1", Topic.SCSI),
        ("block", "/devices/pci0000:00/host4/target4:0:0/4:0:0:0/block/sdb", Topic.SCSI),
        ("block", "/devices/virtual/block/dm-0", Topic.MULTIPATH),
        ("block", "/devices/virtual/block/loop0", None),
        ("block", "/devices/pci0000:00/0000:02:00.0/nvme/nvme0/nvme0n1", None),
        ("net", "/devices/virtual/net/lo", None),
    ],
)
def test_topics(subsystem: str, devpath: str, topic: Topic | None) -> None:
    assert parse_uevent(message(subsystem, devpath)).topic is topic


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"add",
        b"add@",
        b"add@relative\0",
        b"ADD@/x\0",
        b"@/x\0",
        b"add@/x\0novalue\0",
        b"add@/x\0=value\0",
        b"add@/x\0A-B=1\0",
        b"add@/x\0\0A=1\0",
        b"libudev\0\xfe\xed\xca\xfe",
    ],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_uevent(data)


@given(
    st.sampled_from(["add", "remove", "change", "move", "bind"]),
    st.dictionaries(
        st.from_regex(r"\A[A-Z_]{1,20}\Z"),
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20),
        max_size=5,
    ),
)
def test_round_trip(action: str, properties: dict[str, str]) -> None:
    pairs = "".join(f"{key}={value}\0" for key, value in properties.items())
    assert parse_uevent(f"{action}@/devices/x\0{pairs}".encode()) == Uevent(action, "/devices/x", properties)


@given(st.binary(max_size=200))
def test_any_bytes_give_an_event_or_a_decode_error(data: bytes) -> None:
    try:
        assert parse_uevent(data).devpath.startswith("/")
    except DecodeError:
        return


class Desk:
    """A listener on one end of a socket pair (no netlink needed), and what it was told."""

    def __init__(self) -> None:
        self.kernel, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener = UeventListener(end)
        self.told: list[Topic] = []
        self.unwatch = [
            self.listener.watch(topic, lambda topic=topic: self.told.append(topic))  # type: ignore[misc]
            for topic in Topic
        ]
        self.listener.start()

    async def take(self) -> list[Topic]:
        for _ in range(3):
            await asyncio.sleep(0.002)
        told, self.told[:] = list(self.told), []
        return told

    def close(self) -> None:
        self.listener.close()
        self.listener.close()
        self.kernel.close()


@pytest.mark.realtime
async def test_listener_rings_by_topic_and_once_per_burst() -> None:
    desk = Desk()
    for number in range(20):
        desk.kernel.send(message("scsi_device", f"/devices/host4/{number}"))
    desk.kernel.send(PATH_FAILED)
    assert await desk.take() == [Topic.SCSI, Topic.MULTIPATH]
    desk.kernel.send(message("net", "/devices/virtual/net/lo"))
    desk.kernel.send(b"rubbish")
    assert await desk.take() == []
    assert desk.listener.malformed == 1
    desk.kernel.send(message("infiniband", "/devices/x/infiniband/mlx5_0", "remove"))
    assert await desk.take() == [Topic.RDMA]
    desk.unwatch[0]()
    desk.kernel.send(message("infiniband", "/devices/x/infiniband/mlx5_0"))
    assert await desk.take() == []
    desk.close()


@pytest.mark.realtime
async def test_message_too_long_is_not_read_as_a_short_one() -> None:
    desk = Desk()
    desk.kernel.send(message("infiniband", "/devices/x", PADDING="x" * 20000))
    assert await desk.take() == []
    assert desk.listener.malformed == 1
    desk.close()


@pytest.mark.realtime
async def test_end_of_the_socket_is_told() -> None:
    desk = Desk()
    desk.kernel.close()
    await desk.take()
    assert desk.listener.trouble == "uevents are not heard any more: end of file"
    desk.close()


class Netlink:
    """Plays recvmsg of a netlink socket: bytes with their sender's port number, or an errno."""

    def __init__(self, script: list[tuple[bytes, int] | int]) -> None:
        self._script = script
        self._pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pair[1].send(b"!")

    def recvmsg(self, _size: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        if not self._script:
            self._pair[0].recv(10)
            raise BlockingIOError
        item = self._script.pop(0)
        if isinstance(item, int):
            raise OSError(item, os.strerror(item))
        return item[0], [], 0, (item[1], 1)

    def fileno(self) -> int:
        return self._pair[0].fileno()

    def setblocking(self, flag: bool) -> None:
        self._pair[0].setblocking(flag)

    def close(self) -> None:
        for end in self._pair:
            end.close()


async def told_by(script: list[tuple[bytes, int] | int]) -> tuple[list[Topic], UeventListener]:
    listener = UeventListener(Netlink(script))  # type: ignore[arg-type]  # what the listener uses of a socket
    told: list[Topic] = []
    for topic in Topic:
        listener.watch(topic, lambda topic=topic: told.append(topic))  # type: ignore[misc]
    listener.start()
    await asyncio.sleep(0.005)
    listener.close()
    return told, listener


@pytest.mark.realtime
async def test_overflow_asks_everybody_to_look_again() -> None:
    told, listener = await told_by([errno.ENOBUFS, (PATH_FAILED, 0)])
    assert told == list(Topic)
    assert (listener.overflows, listener.trouble) == (1, "")


@pytest.mark.realtime
async def test_other_processes_are_not_heard() -> None:
    told, listener = await told_by([(PATH_FAILED, 4711)])
    assert told == []
    assert listener.malformed == 1


@pytest.mark.realtime
async def test_a_broken_socket_is_told_and_not_polled_on() -> None:
    told, listener = await told_by([errno.ECONNRESET, (PATH_FAILED, 0)])
    assert told == list(Topic)
    assert listener.trouble == "uevents are not heard any more: Connection reset by peer"


# --- the kernel's own socket ---


@pytest.fixture
def device() -> pathlib.Path:
    """A block device whose uevent the kernel sends when asked to, which root may."""
    devices = sorted(pathlib.Path("/sys/block").glob("*/uevent"))
    device = next((path for path in devices if os.access(path, os.W_OK)), None)
    if device is None:
        pytest.skip("nobody here may ask the kernel for a uevent")
    return device


def change(device: pathlib.Path) -> None:
    """Have the kernel send one."""
    device.write_text("change\n")


def live(receive_buffer: int) -> socket.socket:
    try:
        return open_uevents(receive_buffer)
    except OSError as error:
        pytest.skip(f"no netlink socket for uevents here: {error}")


class Recording(UeventListener):
    def __init__(self, end: socket.socket) -> None:
        super().__init__(end)
        self.seen: list[bytes] = []
        self.arrived = asyncio.Event()

    def _topic(self, data: bytes, flags: int, sender: object) -> Topic | None:
        self.seen.append(data)
        self.arrived.set()
        return super()._topic(data, flags, sender)


@pytest.mark.realtime
async def test_live_kernel(device: pathlib.Path) -> None:
    listener = Recording(live(1 << 20))
    listener.start()
    change(device)
    async with asyncio.timeout(5):
        await listener.arrived.wait()
    listener.close()
    assert listener.malformed == 0
    event = parse_uevent(listener.seen[0])
    assert event.action == "change"
    assert f"/{device.parent.name}" in event.devpath


@pytest.mark.realtime
async def test_live_overflow_asks_everybody_to_look_again(device: pathlib.Path) -> None:
    listener = Recording(live(1))
    told: list[Topic] = []
    for topic in Topic:
        listener.watch(topic, lambda topic=topic: told.append(topic))  # type: ignore[misc]
    for _ in range(50):
        change(device)
    listener.start()
    async with asyncio.timeout(5):
        await listener.arrived.wait()
    listener.close()
    assert listener.overflows >= 1
    assert set(told) == set(Topic)
