from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.embedded.rdma.rc_outcome import CloseReason
from srpha.embedded.target.data_buffers import BadBufferError, Fetch, check_buffer, place, read_table
from srpha.wire.identifiers import Gid
from srpha.wire.srp_io import BufferFormat, DataBuffer, MemoryDescriptor, direct_buffer, immediate_buffer

Data = bytes | bytearray | memoryview


class Memory:
    """A channel to one piece of memory; reads are answered when the test says so, last one first."""

    remote_gid = Gid(0, 0)
    on_receive: Callable[[bytes], None]
    on_closed: Callable[[CloseReason], None]

    def __init__(self, size: int) -> None:
        self.bytes = bytearray(size)
        self.reads: list[tuple[int, int, Callable[[bytes], None]]] = []
        self.writes: list[int] = []

    def rdma_read(self, address: int, rkey: int, length: int, done: Callable[[bytes], None]) -> None:
        assert rkey == 1
        assert length > 0
        self.reads.append((address, length, done))

    def rdma_write(self, address: int, rkey: int, data: Data, done: Callable[[], None] | None = None) -> None:
        assert rkey == 1
        self.writes.append(len(data))
        self.bytes[address : address + len(data)] = data

    def answer(self) -> None:
        for address, length, done in reversed(self.reads):
            done(bytes(self.bytes[address : address + length]))

    def send(self, message: bytes) -> None:
        raise AssertionError("nothing is sent here")

    disconnect = destroy = lambda self: None


def pieces_of(lengths: list[int]) -> tuple[MemoryDescriptor, ...]:
    return tuple(MemoryDescriptor(sum(lengths[:index]), 1, length) for index, length in enumerate(lengths))


@given(st.lists(st.integers(0, 50), max_size=6))
def test_pieces_are_joined_in_their_order(lengths: list[int]) -> None:
    memory = Memory(300)
    memory.bytes[:] = bytes(number % 251 for number in range(300))
    got: list[bytes] = []
    Fetch(memory, pieces_of(lengths), got.append)
    memory.answer()
    assert got == [bytes(memory.bytes[: sum(lengths)])]


@given(st.lists(st.integers(0, 50), max_size=6), st.binary(max_size=300))
def test_data_fill_the_pieces_as_far_as_both_go(lengths: list[int], data: bytes) -> None:
    memory = Memory(400)
    place(memory, pieces_of(lengths), data)
    placed = data[: sum(lengths)]
    assert memory.bytes[: len(placed)] == placed
    assert not any(memory.bytes[len(placed) :])
    assert sum(memory.writes) == len(placed)


def test_a_table_golden() -> None:
    data = bytes.fromhex("00000000000010000000abcd0000020000000000000050000000abce00000e00")
    assert read_table(data, 0x1000) == (
        MemoryDescriptor(0x1000, 0xABCD, 0x200),
        MemoryDescriptor(0x5000, 0xABCE, 0xE00),
    )


@pytest.mark.parametrize("total", [0, 0xFFF, 0x1001])
def test_a_table_that_does_not_add_up(total: int) -> None:
    with pytest.raises(BadBufferError, match="a table of 4096 bytes"):
        read_table(bytes(12) + (4096).to_bytes(4, "big"), total)


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        (direct_buffer(0, 1, 4097), "4097 bytes, the target takes 4096"),
        (immediate_buffer(b"x"), "immediate data"),
        (DataBuffer(BufferFormat.INDIRECT, 16, (), MemoryDescriptor(0, 1, 16)), "indirect descriptors"),
    ],
)
def test_buffers_that_are_refused(buffer: DataBuffer, message: str) -> None:
    with pytest.raises(BadBufferError, match=message):
        check_buffer(buffer, 4096, indirect=False, immediate=False)
    if buffer.length <= 4096:
        check_buffer(buffer, 4096, indirect=True, immediate=True)


def test_a_huge_table_is_refused() -> None:
    with pytest.raises(BadBufferError, match="table of 65552 bytes"):
        check_buffer(
            DataBuffer(BufferFormat.INDIRECT, 16, (), MemoryDescriptor(0, 1, 16 * 4097)),
            4096,
            indirect=True,
            immediate=True,
        )
