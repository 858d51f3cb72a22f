import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.wire import srp_io
from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.srp_io import BufferFormat, Command, DataBuffer, MemoryDescriptor, Response

TAG = 0x0102030405060708
WRITE_10 = bytes.fromhex("2a000000100000000800")
HEAD = "0200000000"
WRITE_HEX = (
    HEAD + "100000010203040506070800000000000500000000000000000000" + WRITE_10.hex() + "00" * 6
) + "00000000deadb0000000abcd00001000"
GOOD_HEX = "c100000000000001010203040506070800000000" + "00" * 16


def test_direct_golden() -> None:
    data = srp_io.encode_read_write_cmd(TAG, 0x0005 << 48, WRITE_10, True, 0xDEADB000, 0xABCD, 4096)
    assert data.hex() == WRITE_HEX
    command = srp_io.decode_cmd(data)
    assert command == Command(TAG, 0x0005 << 48, WRITE_10 + bytes(6), srp_io.direct_buffer(0xDEADB000, 0xABCD, 4096))
    assert srp_io.encode_cmd(command) == data
    read = srp_io.encode_read_write_cmd(TAG, 0, WRITE_10, False, 1, 2, 3)
    assert read[5] == 0x01
    assert srp_io.decode_cmd(read).data_in == srp_io.direct_buffer(1, 2, 3)


@pytest.mark.parametrize("size", [1, 512, 8192])
def test_immediate_fast_path_writes_the_same_bytes(size: int) -> None:
    data = bytes(index & 0xFF for index in range(size))
    command = Command(TAG, 0x0005 << 48, WRITE_10, data_out=srp_io.immediate_buffer(data))
    assert srp_io.encode_immediate_cmd(TAG, 0x0005 << 48, WRITE_10, memoryview(data)) == srp_io.encode_cmd(command)
    with pytest.raises(EncodeError):
        srp_io.encode_immediate_cmd(TAG, 0, bytes(17), data)
    with pytest.raises(EncodeError):
        srp_io.encode_immediate_cmd(1 << 64, 0, WRITE_10, data)


def test_indirect_golden() -> None:
    buffer = srp_io.indirect_buffer((MemoryDescriptor(0x1000, 1, 512), MemoryDescriptor(0x3000, 1, 512)), 0x9000, 7)
    data = srp_io.encode_cmd(Command(1, 0, bytes(6), data_in=buffer))
    assert data[5:8].hex() == "020002"
    assert data[48:].hex() == (
        "0000000000009000" "00000007" "00000020" "00000400"
        "0000000000001000" "00000001" "00000200"
        "0000000000003000" "00000001" "00000200"
    )  # fmt: skip
    read = srp_io.decode_cmd(data).data_in
    assert read == buffer
    assert read is not None
    assert read.complete


def test_partial_table() -> None:
    buffer = DataBuffer(BufferFormat.INDIRECT, 1024, (MemoryDescriptor(1, 2, 512),), MemoryDescriptor(9, 9, 48))
    read = srp_io.decode_cmd(srp_io.encode_cmd(Command(1, 0, bytes(6), data_out=buffer))).data_out
    assert read == buffer
    assert read is not None
    assert not read.complete


def test_immediate_golden() -> None:
    data = srp_io.encode_cmd(Command(1, 0, WRITE_10, data_out=srp_io.immediate_buffer(b"hello")))
    assert data[5] == 0x30
    assert data[48:52].hex() == "00000005"
    assert data[52:68] == bytes(16)
    assert data[68:] == b"hello"
    read = srp_io.decode_cmd(data).data_out
    assert read == srp_io.immediate_buffer(b"hello")


def test_additional_cdb() -> None:
    cdb = bytes(range(32))
    data = srp_io.encode_cmd(Command(1, 0, cdb, data_in=srp_io.direct_buffer(1, 2, 3), attribute=1))
    assert data[31] == 16
    assert data[29] == 1
    read = srp_io.decode_cmd(data)
    assert read.cdb == cdb
    assert read.data_in == srp_io.direct_buffer(1, 2, 3)


def test_good_response_golden() -> None:
    assert srp_io.encode_good_rsp(TAG).hex() == GOOD_HEX
    assert srp_io.decode_rsp(bytes.fromhex(GOOD_HEX)) == Response(TAG, limit_delta=1)


def test_response_golden() -> None:
    sense = bytes.fromhex("700006000000000a00000000290700000000")
    response = Response(1, 2, 1, sense, b"\0\0\0\x05", out_residual=-3, in_residual=512)
    text = (
        "c1000000" "00000001" "0000000000000001" "0000" "27" "02" "00000003" "00000200" "00000012" "00000004" "00000005"
    )  # fmt: skip
    assert srp_io.encode_rsp(response).hex() == text + sense.hex()
    assert srp_io.decode_rsp(bytes.fromhex(text) + sense) == response
    assert response.response_code == srp_io.ResponseCode.FAILED
    assert Response(1).response_code is None


descriptors = st.builds(MemoryDescriptor, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**20))
buffers = st.one_of(
    st.none(),
    descriptors.map(lambda d: srp_io.direct_buffer(*d)),
    st.lists(descriptors, min_size=1, max_size=8).map(lambda ds: srp_io.indirect_buffer(tuple(ds), 1, 2)),
)
commands = st.builds(
    Command,
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.sampled_from([16, 20, 32]).flatmap(lambda n: st.binary(min_size=n, max_size=n)),
    buffers,
    buffers,
    st.integers(0, 7),
    st.integers(0, 255),
)


@given(commands)
def test_command_round_trip(command: Command) -> None:
    data = srp_io.encode_cmd(command)
    assert srp_io.decode_cmd(data) == command
    assert srp_io.encode_cmd(srp_io.decode_cmd(data)) == data


@given(commands, st.data())
def test_truncated_command(command: Command, data: st.DataObject) -> None:
    whole = srp_io.encode_cmd(command)
    end = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DecodeError):
        srp_io.decode_cmd(whole[:end])


@given(
    st.builds(
        Response,
        st.integers(0, 2**64 - 1),
        st.integers(0, 255),
        st.integers(-(2**31), 2**31 - 1),
        st.binary(max_size=40),
        st.binary(max_size=8),
        st.integers(-1000, 1000),
        st.integers(-1000, 1000),
        st.integers(0, 255),
    )
)
def test_response_round_trip(response: Response) -> None:
    data = srp_io.encode_rsp(response)
    assert srp_io.decode_rsp(data) == response
    with pytest.raises(DecodeError):
        srp_io.decode_rsp(data[:-1])


@given(st.binary(min_size=48, max_size=160))
def test_random_commands(tail: bytes) -> None:
    try:
        command = srp_io.decode_cmd(b"\x02" + tail)
    except DecodeError:
        return
    assert srp_io.decode_cmd(srp_io.encode_cmd(command)) == command


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (0, "c1", "not an SRP_CMD"),
        (5, "40", "unknown buffer format"),
        (5, "03", "immediate data-in"),
        (31, "20", "additional CDB"),
    ],
)
def test_bad_commands(at: int, value: str, why: str) -> None:
    data = bytearray.fromhex(WRITE_HEX)
    data[at] = int(value, 16)
    with pytest.raises(DecodeError, match=why):
        srp_io.decode_cmd(bytes(data))


@pytest.mark.parametrize(
    ("table", "total", "why"),
    [(16, 512, "table of 16 bytes"), (40, 1024, "table of 40"), (32, 1000, "for a buffer of 1000"), (32, 2048, "2048")],
)
def test_inconsistent_descriptors(table: int, total: int, why: str) -> None:
    pieces = (MemoryDescriptor(0, 1, 512), MemoryDescriptor(512, 1, 512))
    bad = DataBuffer(BufferFormat.INDIRECT, total, pieces, MemoryDescriptor(0, 1, table))
    with pytest.raises(DecodeError, match=why):
        srp_io.decode_cmd(srp_io.encode_cmd(Command(1, 0, bytes(6), data_in=bad)))


def test_bad_immediate() -> None:
    data = srp_io.encode_cmd(Command(1, 0, WRITE_10, data_out=srp_io.immediate_buffer(b"hello")))
    with pytest.raises(DecodeError, match="past its end"):
        srp_io.decode_cmd(data[:-1])
    with pytest.raises(DecodeError, match="past the immediate data"):
        srp_io.decode_cmd(data, immediate_offset=48)


@pytest.mark.parametrize("flags", [0x0C, 0x30])
def test_contradicting_residuals(flags: int) -> None:
    data = bytearray.fromhex(GOOD_HEX)
    data[18] = flags
    with pytest.raises(DecodeError):
        srp_io.decode_rsp(bytes(data))


def test_bad_responses() -> None:
    with pytest.raises(DecodeError):
        srp_io.decode_rsp(bytes(36))
    huge = bytearray.fromhex(GOOD_HEX)
    huge[18] = 2
    huge[28:32] = b"\xff" * 4
    with pytest.raises(DecodeError):
        srp_io.decode_rsp(bytes(huge))


def test_our_mistakes() -> None:
    with pytest.raises(EncodeError):
        srp_io.encode_read_write_cmd(1, 0, bytes(17), True, 0, 0, 0)
    with pytest.raises(EncodeError):
        srp_io.encode_read_write_cmd(1 << 64, 0, bytes(6), True, 0, 0, 0)
    with pytest.raises(EncodeError):
        srp_io.encode_good_rsp(-1)
    with pytest.raises(EncodeError):
        srp_io.encode_rsp(Response(1, status=256))
    bad_buffers = [
        DataBuffer(BufferFormat.DIRECT, 1),
        DataBuffer(BufferFormat.INDIRECT, 1),
        DataBuffer(BufferFormat.IMMEDIATE, 1),
        DataBuffer(BufferFormat.NONE, 1),
        srp_io.direct_buffer(0, 1 << 32, 0),
    ]
    for buffer in bad_buffers:
        with pytest.raises(EncodeError):
            srp_io.encode_cmd(Command(1, 0, bytes(6), data_out=buffer))
    with pytest.raises(EncodeError):
        srp_io.encode_cmd(Command(1, 0, bytes(6), data_in=srp_io.immediate_buffer(b"x")))
    with pytest.raises(EncodeError):
        srp_io.encode_cmd(Command(1, 0, bytes(6), attribute=256))
    with pytest.raises(EncodeError):
        srp_io.encode_cmd(Command(1, 0, bytes(16 + 256)))
    with pytest.raises(EncodeError):
        srp_io.encode_cmd(Command(1, 0, bytes(64), data_out=srp_io.immediate_buffer(b"x")))
