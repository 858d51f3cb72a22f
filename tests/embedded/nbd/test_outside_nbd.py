"""NBD clients of others as judges of the server, and a planted fault that each of them must see."""

from __future__ import annotations

import asyncio
import json
import random
import re
from pathlib import Path

import pytest
from nbd_bench import MemoryDevice, serving, until
from nbd_tools import TIMED_OUT, fio, run_tool

from srpha.embedded.multipath.io import IoKind
from srpha.wire import nbd

pytestmark = pytest.mark.realtime

MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """16 MiB that tell their position, with holes."""
    rng = random.Random(7)
    place = tmp_path / "image"
    place.write_bytes(b"".join(rng.randbytes(MIB) if n % 3 else bytes(MIB) for n in range(16)))
    return place


def large() -> MemoryDevice:
    return MemoryDevice(blocks=16 * MIB // 512)


def same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


# --- nbdinfo: negotiation ---


@pytest.mark.outside("nbdinfo")
async def test_nbdinfo_reads_what_is_advertised(path: Path) -> None:
    devices = [large(), MemoryDevice("mpathb", block_size=4096, write_protected=True)]
    async with serving(path, *devices) as server:
        code, said = await run_tool("nbdinfo", "--json", "--list", server.uri(), cwd=path.parent)
    assert code == 0, said
    told = json.loads(said)
    assert told["protocol"] == "newstyle-fixed"
    assert told["structured"] is True
    first, second = told["exports"]
    expected = {
        "export-name": "mpatha",
        "description": f"{devices[0].wwid}, 32768 blocks of 512 bytes",
        "export-size": 16 * MIB,
        "is_rotational": False,
        "is_read_only": False,
        "can_cache": False,
        "can_df": True,
        "can_fast_zero": False,
        "can_flush": True,
        "can_fua": True,
        "can_multi_conn": True,
        "can_trim": False,
        "can_zero": True,
        "block_size_minimum": 512,
        "block_size_preferred": 4096,
        "block_size_maximum": 32 * MIB,
    }
    assert {name: first.get(name) for name in expected} == expected
    assert second["export-name"] == "mpathb"
    assert second["is_read_only"] is True
    assert second["block_size_minimum"] == 4096


@pytest.mark.outside("nbdinfo")
async def test_nbdinfo_sees_a_wrong_magic_number(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(option: int, kind: nbd.OptionReply, data: bytes = b"") -> bytes:
        reply = nbd.option_reply(option, kind, data)
        return reply[:7] + bytes([reply[7] ^ 1]) + reply[8:]

    monkeypatch.setattr("srpha.embedded.nbd.haggling.option_reply", wrong)
    async with serving(path, large()) as server:
        code, said = await run_tool("nbdinfo", "--json", server.uri(), cwd=path.parent, limit=10)
    assert code not in (0, TIMED_OUT)
    assert "magic" in said


# --- nbdcopy, cmp and qemu-img: whole devices ---


@pytest.mark.outside("nbdcopy", "cmp")
@pytest.mark.parametrize("connections", [1, 4])
async def test_nbdcopy_out_and_back(path: Path, image: Path, connections: int) -> None:
    device = large()
    back = image.with_name("back")
    async with serving(path, device) as server:
        options = ["--flush", f"--connections={connections}"]
        assert await run_tool("nbdcopy", *options, str(image), server.uri("mpatha"), cwd=path.parent) == (0, "")
        assert await run_tool("nbdcopy", *options, server.uri("mpatha"), str(back), cwd=path.parent) == (0, "")
        assert await run_tool("cmp", str(image), str(back), cwd=path.parent) == (0, "")
        assert device.log[-1][0] is IoKind.READ
        assert IoKind.FLUSH in {kind for kind, *_ in device.log}
        device.corrupt_reads = True
        assert (await run_tool("nbdcopy", server.uri("mpatha"), str(back), cwd=path.parent))[0] == 0
        code, said = await run_tool("cmp", str(image), str(back), cwd=path.parent)
    assert code == 1
    assert re.search(r"differ: (byte|char) 1,", said)  # the word depends on the locale


@pytest.mark.outside("nbdcopy")
async def test_nbdcopy_sees_a_wrong_cookie(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(cookie: int, offset: int, length: int) -> bytes:
        return nbd.data_chunk(cookie ^ 0x8000, offset, length)

    monkeypatch.setattr("srpha.embedded.nbd.connection.data_chunk", wrong)
    async with serving(path, large()) as server:
        code, said = await run_tool("nbdcopy", server.uri(), "null:", cwd=path.parent, limit=20)
    assert code not in (0, TIMED_OUT), said


@pytest.mark.outside("nbdcopy")
async def test_nbdcopy_is_told_of_an_error(path: Path) -> None:
    device = large()
    device.failing = lambda io: 5 if io.lba == 1024 else 0
    async with serving(path, device) as server:
        code, said = await run_tool("nbdcopy", server.uri(), "null:", cwd=path.parent, limit=20)
    assert code not in (0, TIMED_OUT)
    assert "mpatha: read at 1024: planted" in said or "Input/output error" in said


@pytest.mark.outside("qemu-img", "nbdcopy")
async def test_qemu_img_compares(path: Path, image: Path) -> None:
    device = large()
    async with serving(path, device) as server:
        convert = ["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(image), server.uri("mpatha")]
        code, said = await run_tool(*convert, cwd=path.parent)
        assert code == 0, said
        compare = ["qemu-img", "compare", "-f", "raw", "-F", "raw", str(image), server.uri("mpatha")]
        assert await run_tool(*compare, cwd=path.parent) == (0, "Images are identical.\n")
        device.data[9 * MIB + 17] ^= 0x10
        code, said = await run_tool(*compare, cwd=path.parent)
    assert code == 1
    assert f"Content mismatch at offset {9 * MIB}" in said


# --- qemu-io: patterns ---

PATTERNS = [
    "write -P 0x5a 0 1M",
    "write -f -P 0xa5 1M 64k",
    "write -P 0x33 4096000 512",
    "read -P 0x5a 0 1M",
    "read -P 0xa5 1M 64k",
    "flush",
    "write -z 64k 128k",
    "read -P 0 64k 128k",
    "read -P 0x5a 192k 4k",
    "aio_write -P 0x77 8M 2M",
    "aio_flush",
    "read -P 0x77 8M 2M",
    "read -P 0x33 4096000 512",
    "read -P 0 4096512 512",
]


def qemu_io(uri: str, commands: list[str]) -> list[str]:
    return ["qemu-io", "-f", "raw", "-t", "none", *[word for text in commands for word in ("-c", text)], uri]


@pytest.mark.outside("qemu-io")
async def test_qemu_io_patterns(path: Path) -> None:
    device = large()
    async with serving(path, device) as server:
        code, said = await run_tool(*qemu_io(server.uri("mpatha"), PATTERNS), cwd=path.parent)
    assert code == 0, said
    assert "failed" not in said.lower(), said
    assert any(fua for kind, _, _, fua in device.log if kind is IoKind.WRITE)


@pytest.mark.outside("qemu-io")
async def test_qemu_io_sees_a_corrupted_read(path: Path) -> None:
    device = large()
    device.corrupt_reads = True
    async with serving(path, device) as server:
        code, said = await run_tool(*qemu_io(server.uri("mpatha"), PATTERNS), cwd=path.parent)
    assert code == 1
    assert "Pattern verification failed" in said


# --- fio: checksums ---


@pytest.mark.outside("fio")
@pytest.mark.parametrize("options", [["--size=8m"], ["--size=8m", "--bsrange=512-256k", "--fsync=16", "--numjobs=1"]])
async def test_fio_verifies(path: Path, options: list[str]) -> None:
    device = large()
    async with serving(path, device) as server:
        code, said = await run_tool(*fio(server.uri("mpatha"), *options), cwd=path.parent)
        assert code == 0, said
        assert "err= 0" in said
        device.corrupt_reads = True
        code, said = await run_tool(*fio(server.uri("mpatha"), *options), cwd=path.parent)
    assert code not in (0, TIMED_OUT)
    assert "verify" in said


# --- nbdsh: requests that a well-behaved client never makes ---

NBDSH = ["env", "PATH=/usr/bin:/bin", "nbdsh", "-c"]
"""nbdsh belongs to Debian's Python, whichever Python comes first elsewhere."""

CATALOGUE = """
import errno, json
h.set_strict_mode(0)
h.connect_uri(URI)
size = h.get_size()
zero = bytearray(512)
found = {}
def attempt(name, call):
    try:
        call()
        found[name] = "ok"
    except nbd.Error as error:
        found[name] = error.errno
attempt("read past the end", lambda: h.pread(512, size))
attempt("read across the end", lambda: h.pread(1024, size - 512))
attempt("unaligned read", lambda: h.pread(511, 1))
attempt("oversize read", lambda: h.pread(33554432 + 512, 0))
attempt("write past the end", lambda: h.pwrite(zero, size))
attempt("unaligned write", lambda: h.pwrite(zero, 1))
attempt("zero past the end", lambda: h.zero(512, size))
attempt("fast zero", lambda: h.zero(512, 0, nbd.CMD_FLAG_FAST_ZERO))
attempt("trim", lambda: h.trim(512, 0))
attempt("cache", lambda: h.cache(512, 0))
attempt("block status", lambda: h.block_status(512, 0, lambda *_: 0))
attempt("unknown flag on flush", lambda: h.flush(1 << 15))
attempt("flag of another command", lambda: h.pwrite(zero, 0, nbd.CMD_FLAG_NO_HOLE))
attempt("read of nothing", lambda: h.pread(0, 0))
attempt("write of nothing", lambda: h.pwrite(b"", 0))
attempt("flush", lambda: h.flush())
h.shutdown()
print(json.dumps(found))
"""


@pytest.mark.outside("nbdsh")
async def test_libnbd_without_its_own_checks(path: Path) -> None:
    device = MemoryDevice(blocks=48 * MIB // 512)  # an oversize read must not be one past the end
    async with serving(path, device) as server:
        script = CATALOGUE.replace("URI", repr(server.uri("mpatha")))
        code, said = await run_tool(*NBDSH, script, cwd=path.parent)
    assert code == 0, said
    assert json.loads(said) == {
        "read past the end": "EINVAL",
        "read across the end": "EINVAL",
        "unaligned read": "EINVAL",
        "oversize read": "EOVERFLOW",
        "write past the end": "ENOSPC",
        "unaligned write": "EINVAL",
        "zero past the end": "ENOSPC",
        "fast zero": "EINVAL",
        "trim": "EINVAL",
        "cache": "EINVAL",
        "block status": "EINVAL",
        "unknown flag on flush": "EINVAL",
        "flag of another command": "EINVAL",
        "read of nothing": "ok",
        "write of nothing": "ok",
        "flush": "ok",
    }
    assert not any(device.data)


@pytest.mark.outside("nbdsh")
async def test_flush_and_fua_reach_the_device(path: Path) -> None:
    device = large()
    script = """
h.connect_uri(URI)
h.pwrite(b"a" * 512, 0)
h.pwrite(b"b" * 512, 512, nbd.CMD_FLAG_FUA)
h.zero(512, 1024, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)
h.flush()
assert h.pread(1536, 0) == b"a" * 512 + b"b" * 512 + bytes(512)
h.shutdown()
"""
    async with serving(path, device) as server:
        script = script.replace("URI", repr(server.uri("mpatha")))
        code, said = await run_tool(*NBDSH, script, cwd=path.parent)
    assert code == 0, said
    assert device.log[:4] == [
        (IoKind.WRITE, 0, 512, False),
        (IoKind.WRITE, 512, 512, True),
        (IoKind.WRITE, 1024, 512, True),
        (IoKind.FLUSH, 0, 0, False),
    ]


@pytest.mark.outside("nbdcopy")
async def test_clients_killed_in_the_middle_leave_nothing(path: Path) -> None:
    device = large()
    async with serving(path, device) as server:
        for _ in range(5):
            process = await asyncio.create_subprocess_exec("nbdcopy", server.uri("mpatha"), "null:")
            await until(lambda: bool(device.log))
            process.kill()
            await process.wait()
            device.log.clear()
        await until(lambda: server.connections == 0)
