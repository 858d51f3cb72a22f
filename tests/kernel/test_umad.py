from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from umad_fakes import (
    ENABLE_PKEY,
    HEADER,
    QUESTION,
    REGISTER_AGENT,
    REGISTER_AGENT2,
    REPORT,
    SM,
    Kernel,
    Sent,
    answer,
    ask,
    make_port,
    port_over,
    running,
)

from srpha.core.seams import (
    MadAddress,
    MadError,
    MadPort,
    MadPortGoneError,
    MadTimeoutError,
    ReceivedMad,
)
from srpha.kernel.umad import GUARD_TIME, UmadPort
from srpha.kernel.umad_device import FIRST_BUFFER
from srpha.wire.dm import DmAttribute, dm_request
from srpha.wire.identifiers import Gid
from srpha.wire.mad import Method


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def make(tmp_path: Path, kernel: Kernel) -> Callable[..., UmadPort]:
    make_port(tmp_path)

    def build(device: str = "mlx5_0", port: int = 1) -> UmadPort:
        return port_over(tmp_path, kernel, device, port)

    return build


@pytest.fixture
def port(make: Callable[..., UmadPort]) -> UmadPort:
    return make()


def test_is_a_mad_port(port: UmadPort) -> None:
    seam: MadPort = port
    assert seam.name == "mlx5_0/1"


class TestOpening:
    async def test_happens_with_the_first_transaction_only(self, port: UmadPort, kernel: Kernel) -> None:
        assert kernel.opened == []
        await port.transact(SM, QUESTION, timeout=1, retries=0)
        await port.transact(SM, QUESTION, timeout=1, retries=0)
        assert kernel.opened == [Path("/dev/infiniband/umad0")]

    async def test_pkeys_first_then_an_agent_for_each_class(self, port: UmadPort, kernel: Kernel) -> None:
        await ask(port)
        assert [request for request, _ in kernel.calls] == [ENABLE_PKEY, REGISTER_AGENT2, REGISTER_AGENT2]
        assert kernel.current.agents == [(3, 1), (6, 0)]
        administration, management = (argument for _, argument in kernel.calls[1:])
        assert struct.unpack_from("=2Q", administration, 16) == (1 << 6, 0)
        assert struct.unpack_from("=2Q", management, 16) == (0, 0)
        assert port.hears_reports

    async def test_old_kernels_are_asked_in_the_old_way(self, port: UmadPort, kernel: Kernel) -> None:
        kernel.refusals[REGISTER_AGENT2] = [errno.ENOTTY, errno.ENOTTY]
        await ask(port)
        assert [request for request, _ in kernel.calls[1:]] == [REGISTER_AGENT2, REGISTER_AGENT] * 2
        assert kernel.current.agents == [(3, 1), (6, 0)]

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (errno.EACCES, "run as root"),
            (errno.EPERM, "run as root"),
            (errno.ENOENT, "cannot open /dev/infiniband/umad0"),
        ],
    )
    async def test_a_node_that_cannot_be_opened(self, port: UmadPort, kernel: Kernel, code: int, words: str) -> None:
        kernel.open_error = code
        with pytest.raises(MadPortGoneError, match=words):
            await ask(port)
        kernel.open_error = 0
        await ask(port)

    @pytest.mark.parametrize("request_number", [ENABLE_PKEY, REGISTER_AGENT2])
    @pytest.mark.parametrize("code", [errno.EPIPE, errno.ENOMEM, errno.ENODEV])
    async def test_a_device_that_refuses_agents(
        self, port: UmadPort, kernel: Kernel, request_number: int, code: int
    ) -> None:
        kernel.refusals[request_number] = [code]
        with pytest.raises(MadPortGoneError, match="umad0 refuses to serve"):
            await ask(port)
        assert kernel.current.closed
        await ask(port)

    async def test_without_a_device(self, make: Callable[..., UmadPort]) -> None:
        with pytest.raises(MadPortGoneError, match=r"mlx5_0/2: no user MAD device; .*ib_umad"):
            await ask(make(port=2))

    async def test_the_right_one_of_names_that_begin_alike(
        self, make: Callable[..., UmadPort], kernel: Kernel, tmp_path: Path
    ) -> None:
        make_port(tmp_path, "mlx4_10", 1, 4)
        make_port(tmp_path, "mlx4_1", 1, 5)
        await ask(make("mlx4_1"))
        await ask(make("mlx4_10"))
        assert [path.name for path in kernel.opened] == ["umad5", "umad4"]


class TestTransactions:
    async def test_what_is_written(self, port: UmadPort, kernel: Kernel) -> None:
        address = MadAddress(lid=0x21, sl=2, pkey_index=1)
        mad = dm_request(Method.GET, DmAttribute.IO_UNIT_INFO, transaction_id=99)
        await port.transact(address, mad, timeout=0.25, retries=4)
        (data,) = kernel.written
        agent, status, timeout_ms, retries, length = struct.unpack_from("=5I", data)
        assert (agent, status, timeout_ms, retries, length) == (1, 0, 250, 4, 320)
        assert data[20:33].hex() == "00000001800100000021020000"
        assert data[56:58] == struct.pack("=H", 1)
        assert data[HEADER:] == mad[:8] + bytes.fromhex("0000000000000001") + mad[16:]

    async def test_the_answer_comes_back_whole_with_the_kernels_half_of_the_id(
        self, port: UmadPort, kernel: Kernel
    ) -> None:
        kernel.script = lambda sent: answer(sent.mad, data=b"abc", status=0x0300)
        reply = await ask(port)
        assert reply[8:16].hex() == "7700000000000001"
        assert (reply[3], reply[4:6], reply[24:27], len(reply)) == (0x92, b"\x03\x00", b"abc", 256)

    async def test_hundreds_in_flight_answered_in_any_order(self, port: UmadPort, kernel: Kernel) -> None:
        kernel.script = lambda _: None
        tasks = [ask(port, QUESTION[:20] + struct.pack(">I", n) + QUESTION[24:]) for n in range(500)]
        await asyncio.sleep(0)
        assert len(kernel.sent) == 500
        assert len({sent.tid for sent in kernel.sent}) == 500
        for sent in sorted(kernel.sent, key=lambda sent: sent.tid[::-1]):
            kernel.current.respond((3, sent.tid), sent.header, answer(sent.mad))
        replies = [await task for task in tasks]
        assert [struct.unpack_from(">I", reply, 20)[0] for reply in replies] == list(range(500))

    async def test_ids_of_zero_and_in_flight_are_left_out(self, port: UmadPort, kernel: Kernel) -> None:
        kernel.script = lambda _: None
        first = ask(port, timeout=9)
        await asyncio.sleep(0)
        port._last_tid = 0xFFFFFFFE
        more = [ask(port, timeout=9) for _ in range(3)]
        await asyncio.sleep(0)
        assert [int.from_bytes(sent.tid[4:], "big") for sent in kernel.sent] == [1, 0xFFFFFFFF, 2, 3]
        for sent in kernel.sent:
            kernel.current.respond((3, sent.tid), sent.header, answer(sent.mad))
        assert [(await task)[15] for task in (first, *more)] == [1, 0xFF, 2, 3]

    async def test_the_kernel_does_the_retries(self, port: UmadPort, kernel: Kernel) -> None:
        kernel.script = lambda sent: answer(sent.mad) if sent.attempt == 2 else None
        began = asyncio.get_running_loop().time()
        await ask(port, timeout=0.5, retries=3)
        assert asyncio.get_running_loop().time() - began == pytest.approx(1.0)
        assert len(kernel.written) == 1
        assert [sent.attempt for sent in kernel.sent] == [0, 1, 2]

    async def test_status_110_is_a_timeout(self, port: UmadPort, kernel: Kernel) -> None:
        kernel.script = lambda _: None
        began = asyncio.get_running_loop().time()
        with pytest.raises(MadTimeoutError, match=r"mlx5_0/1: no answer from LID 1 within 0\.5 s, tried 3 times"):
            await ask(port, timeout=0.5, retries=2)
        assert asyncio.get_running_loop().time() - began == pytest.approx(1.5)

    async def test_another_status_is_an_error(self, port: UmadPort, kernel: Kernel) -> None:
        kernel.script = lambda _: None
        task = ask(port)
        await asyncio.sleep(0)
        kernel.current.put(kernel.sent[0].mad[:24], status=errno.EINVAL)
        with pytest.raises(MadError, match="sending to LID 1 failed: Invalid argument"):
            await task

    async def test_a_request_that_the_kernel_forgets_ends_too(self, port: UmadPort, kernel: Kernel) -> None:
        kernel.drops_requests = True
        began = asyncio.get_running_loop().time()
        with pytest.raises(MadTimeoutError):
            await ask(port, timeout=0.5, retries=1)
        assert asyncio.get_running_loop().time() - began == pytest.approx(1.0 + GUARD_TIME)

    async def test_a_late_timeout_is_not_the_next_questions(self, port: UmadPort, kernel: Kernel) -> None:
        """What loses healthy targets in srp_daemon (facts: srp A.9)."""
        kernel.script = lambda sent: None if sent.mad[15] == 1 else answer(sent.mad)
        silent = ask(port, timeout=1)
        await asyncio.sleep(0.5)
        silent.cancel()
        kernel.script = lambda _: None
        healthy = ask(port, timeout=2)
        await asyncio.sleep(0.6)  # the timeout of the first has come
        assert not kernel.current.queue
        kernel.current.respond((3, kernel.sent[1].tid), kernel.sent[1].header, answer(kernel.sent[1].mad, data=b"ok"))
        assert (await healthy)[24:26] == b"ok"

    @pytest.mark.parametrize(
        "change",
        [
            lambda mad: mad[:1] + b"\x06" + mad[2:],  # another class
            lambda mad: mad[:3] + b"\x12" + mad[4:],  # a request
            lambda mad: mad[:12] + b"\0\0\0\x63" + mad[16:],  # another transaction
            lambda mad: mad[:20],  # no header
        ],
    )
    async def test_what_is_not_its_answer_is_dropped(
        self, port: UmadPort, kernel: Kernel, change: Callable[[bytes], bytes]
    ) -> None:
        kernel.script = lambda _: None
        task = ask(port)
        await asyncio.sleep(0)
        kernel.current.put(change(answer(kernel.sent[0].mad)))
        with pytest.raises(MadTimeoutError):
            await task

    async def test_a_short_answer_of_device_management_is_dropped(self, port: UmadPort, kernel: Kernel) -> None:
        kernel.script = lambda sent: answer(sent.mad)[:100]
        with pytest.raises(MadTimeoutError):
            await ask(port, dm_request(Method.GET, DmAttribute.IO_UNIT_INFO, transaction_id=0))

    async def test_an_id_that_is_in_flight_is_replaced(self, port: UmadPort, kernel: Kernel) -> None:
        kernel.script = lambda _: None
        ask(port, timeout=60).cancel()
        forgotten = ask(port, timeout=60)
        await asyncio.sleep(0)
        forgotten.cancel()
        await asyncio.sleep(0)
        port._last_tid -= 1  # as after four thousand million more
        kernel.script = lambda sent: answer(sent.mad)
        await ask(port)
        first, refused, second = (data[HEADER + 12 : HEADER + 16] for data in kernel.written)
        assert first == refused != second
        assert port._session is not None
        assert port._session.transactions == {}

    async def test_an_address_that_the_kernel_refuses(self, port: UmadPort, kernel: Kernel) -> None:
        kernel.write_errors = [errno.EINVAL, errno.EINVAL]
        with pytest.raises(MadError, match="cannot send to LID 1: Invalid argument") as caught:
            await ask(port)
        assert not isinstance(caught.value, MadPortGoneError | MadTimeoutError)
        await ask(port)

    @pytest.mark.parametrize("code", [errno.ENOMEM, errno.ETIMEDOUT, errno.EHOSTUNREACH])
    async def test_other_errors_of_a_write_end_that_transaction_only(
        self, port: UmadPort, kernel: Kernel, code: int
    ) -> None:
        kernel.write_errors = [code]
        with pytest.raises(MadError, match="cannot send"):
            await ask(port)
        await ask(port)
        assert len(kernel.opened) == 1

    @pytest.mark.parametrize("mad", [QUESTION[:255], answer(QUESTION), b""])
    async def test_only_requests_of_256_bytes(self, port: UmadPort, mad: bytes) -> None:
        with pytest.raises(ValueError, match="request of 256 bytes"):
            await ask(port, mad)

    async def test_only_classes_that_have_an_agent(self, port: UmadPort) -> None:
        with pytest.raises(ValueError, match="class 0x04"):
            await ask(port, b"\x01\x04" + QUESTION[2:])

    async def test_with_a_grh_on_ethernet(self, port: UmadPort, kernel: Kernel) -> None:
        target = Gid(0xFE80 << 48, 0x526B4BFFFEC8C0FA)
        mad = dm_request(Method.GET, DmAttribute.IO_UNIT_INFO, transaction_id=0)
        await port.transact(MadAddress(lid=0, gid=target, gid_index=3), mad, timeout=1, retries=0)
        (data,) = kernel.written
        assert data[28:36].hex() == "0000000001034000"
        assert data[36:52] == target.packed
        kernel.script = lambda _: None
        with pytest.raises(MadTimeoutError, match=f"no answer from GID {target}"):
            await port.transact(MadAddress(lid=0, gid=target), mad, timeout=1, retries=0)

    async def test_an_unreachable_neighbour(self, port: UmadPort, kernel: Kernel) -> None:
        kernel.write_errors = [errno.EHOSTUNREACH]
        mad = dm_request(Method.GET, DmAttribute.IO_UNIT_INFO, transaction_id=0)
        with pytest.raises(MadError, match=r"cannot send to GID .*: No route to host"):
            await port.transact(MadAddress(lid=0, gid=Gid(1, 2)), mad, timeout=1, retries=0)


class TestTables:
    async def test_the_buffer_grows_to_what_is_needed_and_shrinks_again(self, port: UmadPort, kernel: Kernel) -> None:
        table = bytes(range(250)) * 4000
        kernel.script = lambda sent: answer(sent.mad, data=bytes(32) + table)
        reply = await ask(port)
        assert reply[56:] == table
        needed = HEADER + 56 + len(table)
        assert kernel.current.buffers[:2] == [FIRST_BUFFER, needed]
        kernel.current.buffers.clear()
        kernel.script = lambda sent: answer(sent.mad)
        await ask(port)
        await ask(port)
        assert kernel.current.buffers[-1] == FIRST_BUFFER

    async def test_a_length_that_lies_still_grows(self, port: UmadPort, kernel: Kernel) -> None:
        kernel.script = lambda _: None
        task = ask(port)
        await asyncio.sleep(0)
        kernel.current.put(answer(kernel.sent[0].mad, data=bytes(20000)))
        packet = kernel.current.queue[0]
        packet.header = packet.header[:16] + bytes(4) + packet.header[20:]
        assert len(await task) == 24 + 20000

    async def test_a_table_without_end_costs_the_session_not_the_memory(self, port: UmadPort, kernel: Kernel) -> None:
        kernel.script = lambda _: None
        task = ask(port)
        await asyncio.sleep(0)
        kernel.current.put(answer(kernel.sent[0].mad, data=bytes(20000)))
        packet = kernel.current.queue[0]
        packet.header = packet.header[:16] + b"\xff\xff\xff\xff" + packet.header[20:]
        with pytest.raises(MadPortGoneError, match="a table of 4294967295 bytes"):
            await task
        assert kernel.current.closed
        kernel.script = lambda sent: answer(sent.mad)
        await ask(port)


class TestReports:
    async def test_reach_every_receiver_with_their_sender(self, port: UmadPort, kernel: Kernel) -> None:
        first: list[ReceivedMad] = []
        second: list[ReceivedMad] = []
        port.watch_reports(first.append)
        leave = port.watch_reports(second.append)
        await ask(port)
        header = (
            bytes(20) + struct.pack(">IIHBBBBBB16sI", 1, 0, 0x21, 2, 0, 0, 0, 0, 0, bytes(16), 0) + b"\1\0" + bytes(6)
        )
        kernel.current.put(REPORT, header=header)
        await asyncio.sleep(0)
        leave()
        leave()
        kernel.current.put(REPORT, header=header)
        await asyncio.sleep(0)
        expected = ReceivedMad(MadAddress(lid=0x21, sl=2, pkey_index=struct.unpack("=H", b"\1\0")[0]), REPORT)
        assert (first, second) == ([expected] * 2, [expected])

    async def test_a_reply_keeps_its_transaction_id_and_awaits_nothing(self, port: UmadPort, kernel: Kernel) -> None:
        await ask(port)
        kernel.written.clear()
        response = answer(REPORT)
        port.reply(MadAddress(lid=0x21, pkey_index=1), response)
        (data,) = kernel.written
        assert struct.unpack_from("=5I", data) == (0, 0, 0, 0, 320)
        assert data[HEADER:] == response
        assert data[HEADER + 8 : HEADER + 16].hex() == "1122334455667788"

    async def test_a_reply_that_cannot_go_is_lost(self, port: UmadPort, kernel: Kernel) -> None:
        port.reply(SM, answer(REPORT))
        assert kernel.opened == []
        await ask(port)
        kernel.write_errors = [errno.ENOMEM]
        port.reply(SM, answer(REPORT))
        assert not kernel.current.closed
        kernel.write_errors = [errno.EIO]
        port.reply(SM, answer(REPORT))
        assert kernel.current.closed

    async def test_a_request_is_no_reply(self, port: UmadPort) -> None:
        with pytest.raises(ValueError, match="response of 256 bytes"):
            port.reply(SM, REPORT)

    async def test_of_a_port_whose_reports_another_program_has(self, port: UmadPort, kernel: Kernel) -> None:
        kernel.reports_owned = True
        async with running(port):
            assert not port.hears_reports
            await ask(port)
            kernel.reports_owned = False
            port.stir()
            await asyncio.sleep(0.1)
            assert port.hears_reports
            assert len(kernel.opened) == 1
            await ask(port)


def test_the_script_of_a_sent_packet_is_what_the_kernel_saw() -> None:
    """The fake itself: a request's high half is the kernel's."""
    kernel = Kernel()

    async def send() -> Sent:
        descriptor = kernel.open(Path("x"))
        descriptor.ioctl(ENABLE_PKEY, None)
        descriptor.ioctl(REGISTER_AGENT2, bytearray(4) + struct.pack("=IBBH", 1, 3, 2, 0) + bytes(28))
        descriptor.write(struct.pack("=5I", 0, 0, 10, 0, 320) + bytes(44) + QUESTION)
        return kernel.sent[0]

    assert asyncio.run(send()).tid.hex() == "770000000000dead"
