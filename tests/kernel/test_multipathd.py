from __future__ import annotations

import asyncio
import os
import pathlib
import struct

import pytest
from multipathd_server import ScriptedMultipathd, frame, serving

from srpha.kernel.multipathd import (
    ABSTRACT_SOCKET,
    PATHNAME_SOCKET,
    MultipathdAwayError,
    MultipathdClient,
    MultipathdRefusedError,
    socket_names,
)

pytestmark = pytest.mark.realtime

# `show daemon` and its answer as they go over the socket (facts: multipath 1.7)
SHOW_DAEMON = bytes.fromhex("0c00000000000000 73686f77206461656d6f6e 00")
PID_IDLE = bytes.fromhex("0e00000000000000 706964203831322069646c650a 00")


@pytest.fixture
def place(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "socket")


async def test_golden_bytes_both_ways(place: str) -> None:
    async with serving(place, lambda _: PID_IDLE) as server:
        client = MultipathdClient([place])
        assert await client.show("show daemon") == "pid 812 idle\n"
        assert server.raw == [SHOW_DAEMON]
        await client.close()


async def test_connection_is_kept_and_requests_take_turns(place: str) -> None:
    async with serving(place, lambda command: frame(f"{command}!\n")) as server:
        client = MultipathdClient([place])
        words = [f"show path sd{letter}" for letter in "abcdef"]
        assert await asyncio.gather(*map(client.show, words)) == [f"{word}!\n" for word in words]
        assert server.connections == 1
        await client.close()


async def test_reconnects_after_multipathd_was_restarted(place: str) -> None:
    async with serving(place, lambda _: frame("ok\n")) as server:
        client = MultipathdClient([place])
        await client.act("fail path sda")
        server.hang_up()
        await asyncio.sleep(0.01)
        await client.act("reinstate path sda")
        assert server.connections == 2
        await client.close()


async def test_abstract_name_is_tried_when_the_path_is_not_there(tmp_path: pathlib.Path) -> None:
    abstract = f"@srpha-test-{os.getpid()}-{tmp_path.name}"
    async with serving(abstract, lambda _: frame("ok\n")) as server:
        client = MultipathdClient([str(tmp_path / "absent"), abstract])
        await client.act("reconfigure")
        assert server.commands == ["reconfigure"]
        await client.close()


def test_names_in_their_order() -> None:
    assert socket_names({}) == (PATHNAME_SOCKET, ABSTRACT_SOCKET)
    assert socket_names({"MULTIPATH_SOCKET_NAME": "@x"}) == ("@x",)
    assert socket_names({"MULTIPATH_SOCKET_NAME": ""}) == (PATHNAME_SOCKET, ABSTRACT_SOCKET)


async def test_nobody_there(tmp_path: pathlib.Path) -> None:
    client = MultipathdClient([str(tmp_path / "a"), str(tmp_path / "b")])
    with pytest.raises(MultipathdAwayError, match=r"cannot be reached .*/a: No such file.*/b: No such file"):
        await client.show("show maps json")


async def test_strangers_are_not_believed(place: str) -> None:
    async with serving(place, lambda _: frame("ok\n")) as server:
        client = MultipathdClient([place], trusted_users=[os.geteuid() + 1])
        with pytest.raises(MultipathdAwayError, match=f"user {os.geteuid()} listens there, not root"):
            await client.act("fail path sda")
        assert server.commands == []


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("fail\n", "it gave no reason"),
        ("fail\ndevice not found\n", "device not found"),
        ("fail\nmap or partition in use\n", "map or partition in use"),
        ("permission deny: need to be root\n", "permission deny: need to be root"),
        ("timeout\n", "timeout"),
        ("fial: not found\nmultipath-tools v0.9.4\nCLI commands reference:\n", r"fial: not found \.\.\."),
        ("", "it gave no reason"),
    ],
)
async def test_refusals(place: str, reply: str, reason: str) -> None:
    async with serving(place, lambda _: frame(reply)):
        client = MultipathdClient([place])
        with pytest.raises(MultipathdRefusedError, match=f"refused 'fail path sda': {reason}"):
            await client.act("fail path sda")
        await client.close()


@pytest.mark.parametrize("reply", ["fail\n", "timeout\n", "fail\npermission deny: need to be root\n"])
async def test_show_refused_is_no_text(place: str, reply: str) -> None:
    async with serving(place, lambda _: frame(reply)):
        client = MultipathdClient([place])
        with pytest.raises(MultipathdRefusedError):
            await client.show("show maps json")
        await client.close()


async def test_empty_list_is_answered_with_ok(place: str) -> None:
    async with serving(place, lambda _: frame("ok\n")):
        client = MultipathdClient([place])
        assert await client.show("show paths") == ""
        await client.close()


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (struct.pack("<Q", 0), "reply of 0 bytes"),
        (struct.pack("<Q", (32 << 20) + 1) + b"x", "reply of 33554433 bytes"),
        (b"\xff" * 8, "reply of 18446744073709551615 bytes"),
        (struct.pack("<Q", 3) + b"ok\n", "does not end where its length says"),
        (struct.pack("<Q", 4) + b"o\0\n\0", "does not end where its length says"),
    ],
)
async def test_hostile_framing(place: str, reply: bytes, complaint: str) -> None:
    async with serving(place, lambda _: reply) as server:
        client = MultipathdClient([place])
        with pytest.raises(MultipathdAwayError, match=complaint):
            await client.show("show daemon")
        server.answer = lambda _: PID_IDLE
        assert await client.show("show daemon") == "pid 812 idle\n"  # on a new connection
        assert server.connections == 2
        await client.close()


async def test_hung_up_before_and_within_the_reply(place: str) -> None:
    script = [b"", b"\x10\0\0", struct.pack("<Q", 100) + b"half"]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(SHOW_DAEMON))
        writer.write(script.pop(0))
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, place)
    client = MultipathdClient([place])
    for complaint in ("ended the connection instead of answering", "middle of a reply", "middle of a reply"):
        with pytest.raises(MultipathdAwayError, match=complaint):
            await client.show("show daemon")
    server.close()
    await asyncio.sleep(0.01)


async def test_silence_costs_the_time_limit_and_the_connection(place: str) -> None:
    async with serving(place, lambda _: None) as server:
        client = MultipathdClient([place], timeout=0.05)
        with pytest.raises(MultipathdAwayError, match=r"did not answer 'show daemon' in 0\.05 s"):
            await client.show("show daemon")
        server.answer = lambda _: PID_IDLE
        assert await client.show("show daemon") == "pid 812 idle\n"
        assert server.connections == 2
        await client.close()


async def test_a_reply_nobody_waits_for_is_not_given_to_the_next(place: str) -> None:
    """The one who asked was cancelled; its answer must not become somebody else's."""
    async with serving(place, lambda _: None) as server:
        client = MultipathdClient([place])
        asking = asyncio.ensure_future(client.show("show maps json"))
        await server.arrived.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        server.answer = lambda command: frame(f"answer to {command}\n")
        assert await client.show("show daemon") == "answer to show daemon\n"
        await client.close()


@pytest.mark.parametrize("command", ["", "show\nmaps", "show\0maps", "show m\xe4ps", "x" * 512])
async def test_commands_are_checked(place: str, command: str) -> None:
    with pytest.raises(ValueError, match="no command for multipathd"):
        await MultipathdClient([place]).ask(command)


async def test_odd_bytes_in_a_reply_are_shown(place: str) -> None:
    async with serving(place, lambda _: frame(b"vendor \xff\n")):
        client = MultipathdClient([place])
        assert await client.show("show paths") == "vendor �\n"
        await client.close()


def test_the_script_is_what_it_says() -> None:
    assert frame("show daemon") == SHOW_DAEMON
    assert frame("pid 812 idle\n") == PID_IDLE
    assert ScriptedMultipathd(lambda _: None).commands == []
