"""A file tree in sysfs's place, and a kernel behind the user MAD device that does what its script says.

The structures are read and written here by offset, from the ABI's description, not with the codec under test.
"""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from srpha.core.seams import MadAddress
from srpha.kernel.umad import UmadPort
from srpha.wire.mad import Method
from srpha.wire.sa import SaAttribute, sa_request

T = TypeVar("T")

HEADER = 64
REGISTER_AGENT, ENABLE_PKEY, REGISTER_AGENT2 = 0xC01C1B01, 0x1B03, 0xC0281B04


def write_file(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="latin-1")


def make_port(root: Path, device: str = "mlx5_0", port: int = 1, umad: int | None = 0, **attributes: str) -> Path:
    """A port as Linux shows it; the folder of its attributes. ``attributes`` replace files, ``/`` written ``__``."""
    folder = root / "class" / "infiniband" / device / "ports" / str(port)
    files = {
        "state": "4: ACTIVE",
        "phys_state": "5: LinkUp",
        "lid": "0x11",
        "sm_lid": "0x1",
        "sm_sl": "0",
        "lid_mask_count": "0",
        "link_layer": "InfiniBand",
        "gids__0": "fe80:0000:0000:0000:0002:c903:0000:0011",
        "pkeys__0": "0xffff",
        "pkeys__1": "0x8001",
        "pkeys__2": "0x0000",
        **attributes,
    }
    for name, text in files.items():
        write_file(folder / name.replace("__", "/"), text + "\n")
    write_file(root / "class" / "infiniband" / device / "node_guid", "0002:c903:0000:0010\n")
    if umad is not None:
        add_node(root, umad, device, port)
    return folder


def add_node(root: Path, umad: int, device: str, port: int) -> None:
    folder = root / "class" / "infiniband_mad"
    write_file(folder / "abi_version", "5\n")
    write_file(folder / f"umad{umad}" / "ibdev", f"{device}\n")
    write_file(folder / f"umad{umad}" / "port", f"{port}\n")


async def inline(work: Callable[[], T], /) -> T:
    """Blocking work done at once: virtual time knows no threads."""
    await asyncio.sleep(0)
    return work()


def fail(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@dataclass(frozen=True)
class Sent:
    """A packet that the kernel put on the wire."""

    header: bytes
    mad: bytes
    attempt: int

    @property
    def tid(self) -> bytes:
        return self.mad[8:16]


@dataclass
class Packet:
    """A packet in the kernel's receive queue; ``segments`` of a reassembled one need a buffer for all of them."""

    header: bytes
    mad: bytes


Script = Callable[[Sent], "bytes | None"]


def answer(mad: bytes, *, data: bytes = b"", status: int = 0) -> bytes:
    """A response to ``mad``: method with the response bit, same IDs; ``data`` from byte 24 on, at least 256 bytes."""
    head = mad[:3] + bytes([0x81 if mad[3] == 0x02 else mad[3] | 0x80]) + struct.pack(">H", status) + mad[6:24]
    return (head + data).ljust(256, b"\0")


@dataclass
class Kernel:
    """The user MAD devices of a host by file name, and the script that answers requests (None: no answer)."""

    script: Script = lambda sent: answer(sent.mad)
    refusals: dict[int, list[int]] = field(default_factory=dict)
    """Errnos that the next calls of an ioctl give, 0 for success."""
    write_errors: list[int] = field(default_factory=list)
    open_error: int = 0
    reports_owned: bool = False
    """Another program has the SA Reports."""
    dead: bool = False
    drops_requests: bool = False
    """Sends fail, and the kernel says nothing."""
    opened: list[Path] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)
    calls: list[tuple[int, bytes]] = field(default_factory=list)
    descriptors: list[FakeDescriptor] = field(default_factory=list)

    def open(self, path: Path) -> FakeDescriptor:
        self.opened.append(path)
        if self.open_error:
            raise fail(self.open_error)
        self.descriptors.append(FakeDescriptor(self))
        return self.descriptors[-1]

    @property
    def current(self) -> FakeDescriptor:
        return self.descriptors[-1]


class FakeDescriptor:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.queue: deque[Packet] = deque()
        self.agents: list[tuple[int, int]] = []
        """(class, RMPP version) by ID."""
        self.pkeys_enabled = False
        self.closed = False
        self.in_flight: dict[tuple[int, bytes], asyncio.TimerHandle] = {}
        self.buffers: list[int] = []
        self._ready: Callable[[], None] | None = None
        self._woken = False

    def ioctl(self, request: int, argument: bytearray | None) -> None:
        self.kernel.calls.append((request, bytes(argument or b"")))
        code = (self.kernel.refusals.get(request) or [0]).pop(0) if self.kernel.refusals.get(request) else 0
        if code:
            raise fail(code)
        if self.kernel.dead:
            raise fail(errno.EPIPE)
        if request == ENABLE_PKEY:
            if self.agents:
                raise fail(errno.EINVAL)
            self.pkeys_enabled = True
            return
        assert argument is not None
        if request == REGISTER_AGENT2:
            assert len(argument) == 40
            qpn, mgmt_class, _, _, flags = struct.unpack_from("=IBBHI", argument, 4)
            mask, rmpp = struct.unpack_from("=Q", argument, 16)[0], argument[36]
        else:
            assert request == REGISTER_AGENT
            assert len(argument) == 28
            qpn, mgmt_class, flags, rmpp = argument[20], argument[21], 0, argument[26]
            mask = struct.unpack_from("=Q", argument, 4)[0]
        assert (qpn, flags) == (1, 0)
        if mask and self.kernel.reports_owned:
            raise fail(errno.EINVAL)
        struct.pack_into("=I", argument, 0, len(self.agents))
        self.agents.append((mgmt_class, rmpp))

    def write(self, data: bytes) -> int:
        assert not self.closed
        assert self.pkeys_enabled
        self.kernel.written.append(data)
        if self.kernel.write_errors and (code := self.kernel.write_errors.pop(0)):
            raise fail(code)
        if self.kernel.dead:
            raise fail(errno.EIO)
        header, mad = data[:HEADER], data[HEADER:]
        agent, _, timeout_ms, retries, length = struct.unpack_from("=5I", header)
        assert length == len(data) == HEADER + 256
        if agent >= len(self.agents):
            raise fail(errno.EINVAL)
        if mad[3] & 0x80:
            self.kernel.sent.append(Sent(header, mad, 0))
            return len(data)
        mad = mad[:8] + struct.pack(">I", 0x77000000 + agent) + mad[12:]
        if (mad[1], mad[8:16]) in self.in_flight:
            raise fail(errno.EINVAL)
        if not self.kernel.drops_requests:
            self._transmit(header, mad, timeout_ms / 1000, retries, 0)
        return len(data)

    def _transmit(self, header: bytes, mad: bytes, timeout: float, retries: int, attempt: int) -> None:
        loop = asyncio.get_running_loop()
        sent = Sent(header, mad, attempt)
        self.kernel.sent.append(sent)
        key = (mad[1], mad[8:16])

        def expire() -> None:
            if attempt < retries:
                self._transmit(header, mad, timeout, retries, attempt + 1)
            else:
                del self.in_flight[key]
                self.put(mad[:24], status=110, header=header)

        self.in_flight[key] = loop.call_later(timeout, expire)
        reply = self.kernel.script(sent)
        if reply is not None:
            loop.call_soon(self.respond, key, header, reply)

    def respond(self, key: tuple[int, bytes], header: bytes, reply: bytes) -> None:
        timer = self.in_flight.pop(key, None)
        if timer is not None:
            timer.cancel()
            self.put(reply, header=header)

    def put(self, mad: bytes, *, status: int = 0, header: bytes = bytes(HEADER), agent: int | None = None) -> None:
        """Queue a packet, its addresses from ``header``."""
        number = struct.unpack_from("=I", header)[0] if agent is None else agent
        first = struct.pack("=5I", number, status, 0, 0, HEADER + len(mad))
        self.queue.append(Packet(first + header[20:], mad))
        self.wake()

    def wake(self) -> None:
        """Call the reader as the loop's selector does: again and again while there is something."""
        if not self._woken and not self.closed:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._run_reader)

    def _run_reader(self) -> None:
        self._woken = False
        if self.closed or self._ready is None or not (self.queue or self.kernel.dead):
            return
        self._ready()
        self.wake()

    def read_into(self, buffer: bytearray) -> int:
        self.buffers.append(len(buffer))
        if self.kernel.dead:
            raise fail(errno.EIO)
        if not self.queue:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        packet = self.queue[0]
        if len(buffer) < HEADER + min(len(packet.mad), 256):
            raise fail(errno.EINVAL)
        whole = packet.header + packet.mad
        if len(whole) > len(buffer):
            buffer[: HEADER + 256] = whole[: HEADER + 256]
            raise fail(errno.ENOSPC)
        self.queue.popleft()
        buffer[: len(whole)] = whole
        return len(whole)

    def watch(self, ready: Callable[[], None]) -> None:
        self._ready = ready

    def close(self) -> None:
        self.closed = True
        for timer in self.in_flight.values():
            timer.cancel()
        self.in_flight.clear()


SM = MadAddress(lid=1)
QUESTION = sa_request(Method.GET_TABLE, SaAttribute.NODE_RECORD, transaction_id=0xDEAD)
REPORT = sa_request(Method.REPORT, SaAttribute.NOTICE, transaction_id=0x1122334455667788)


def port_over(root: Path, kernel: Kernel, device: str = "mlx5_0", port: int = 1) -> UmadPort:
    """A port whose sysfs is ``root`` and whose kernel is ``kernel``."""
    return UmadPort(device, port, sysfs=root, open_device=kernel.open, offload=inline)


@asynccontextmanager
async def running(port: UmadPort) -> AsyncIterator[None]:
    """The port with its upkeep, first look done."""
    task = asyncio.create_task(port.run())
    await asyncio.sleep(0.1)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def ask(port: UmadPort, mad: bytes = QUESTION, timeout: float = 1.0, retries: int = 0) -> asyncio.Task[bytes]:
    return asyncio.create_task(port.transact(SM, mad, timeout=timeout, retries=retries))
