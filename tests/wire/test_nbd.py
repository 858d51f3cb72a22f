"""The NBD codec against bytes written out by hand from doc/proto.md."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import structures

from srpha.wire import nbd
from srpha.wire.errors import DecodeError, EncodeError

STRINGS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200)

GOLDEN = [
    pytest.param(nbd.Greeting(flags=3), "4e42444d41474943 49484156454f5054 0003", id="greeting"),
    pytest.param(nbd.ClientFlags(flags=3), "00000003", id="client flags"),
    pytest.param(nbd.OptionHeader(option=7, length=6), "49484156454f5054 00000007 00000006", id="option"),
    pytest.param(
        nbd.OptionReplyHeader(option=7, kind=nbd.OptionReply.ERR_UNKNOWN, length=2),
        "0003e889045565a9 00000007 80000006 00000002",
        id="option reply",
    ),
    pytest.param(
        nbd.ExportReply(size=0x4000000, flags=0x16D), "0000000004000000 016d", id="answer to NBD_OPT_EXPORT_NAME"
    ),
    pytest.param(nbd.ExportInfo(size=0x4000000, flags=0x16D), "0000 0000000004000000 016d", id="NBD_INFO_EXPORT"),
    pytest.param(
        nbd.BlockSizeInfo(minimum=512, preferred=4096, maximum_payload=1 << 25),
        "0003 00000200 00001000 02000000",
        id="NBD_INFO_BLOCK_SIZE",
    ),
    pytest.param(
        nbd.Request(flags=1, command=nbd.Command.WRITE, cookie=0x0102030405060708, offset=0x10000, length=512),
        "25609513 0001 0001 0102030405060708 0000000000010000 00000200",
        id="request",
    ),
    pytest.param(nbd.SimpleReply(error=5, cookie=0x42), "67446698 00000005 0000000000000042", id="simple reply"),
    pytest.param(
        nbd.ChunkHeader(flags=1, kind=nbd.ChunkType.ERROR, cookie=0x42, length=6),
        "668e33ef 0001 8001 0000000000000042 00000006",
        id="chunk",
    ),
    pytest.param(
        nbd.DataChunkHeader(cookie=0x42, length=520, offset=0x10000),
        "668e33ef 0001 0001 0000000000000042 00000208 0000000000010000",
        id="data chunk",
    ),
    pytest.param(nbd.Hole(offset=512, size=1024), "0000000000000200 00000400", id="hole"),
]


@pytest.mark.parametrize(("value", "text"), GOLDEN)
def test_golden_structures_both_ways(value: Any, text: str) -> None:
    data = bytes.fromhex(text)
    assert value.encode() == data
    assert type(value).decode(data) == value


@pytest.mark.parametrize(("value", "text"), GOLDEN)
def test_a_short_structure_is_refused(value: Any, text: str) -> None:
    with pytest.raises(DecodeError):
        type(value).decode(bytes.fromhex(text)[:-1])


@pytest.mark.parametrize(
    "cls",
    [
        nbd.ClientFlags,
        nbd.ExportReply,
        nbd.ExportInfo,
        nbd.BlockSizeInfo,
        nbd.Request,
        nbd.SimpleReply,
        nbd.ChunkHeader,
        nbd.DataChunkHeader,
        nbd.Hole,
        nbd.OptionHeader,
        nbd.OptionReplyHeader,
        nbd.Greeting,
    ],
)
@given(data=st.data())
def test_structures_round_trip(cls: Any, data: st.DataObject) -> None:
    value = data.draw(structures(cls))
    encoded = value.encode()
    assert len(encoded) == cls.LENGTH
    assert cls.decode(encoded) == value


@pytest.mark.parametrize(
    "value",
    [
        nbd.Greeting(flags=3),
        nbd.OptionHeader(option=1),
        nbd.OptionReplyHeader(option=1),
        nbd.Request(),
        nbd.SimpleReply(),
        nbd.ChunkHeader(),
        nbd.DataChunkHeader(),
    ],
)
def test_every_bit_of_a_magic_number_counts(value: Any) -> None:
    data = bytearray(value.encode())
    assert nbd.decode_message(type(value), data) == value
    size = 16 if isinstance(value, nbd.Greeting) else 8 if isinstance(value.magic, bytes) or value.magic >> 32 else 4
    for bit in range(8 * size):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecodeError):
            nbd.decode_message(type(value), data)
        data[bit // 8] ^= 1 << bit % 8


def test_historic_request_magic_is_refused() -> None:
    with pytest.raises(DecodeError, match="0x12560953"):
        nbd.decode_request(bytes.fromhex("12560953") + bytes(24))
    assert nbd.decode_request(nbd.Request(command=3).encode()).command == nbd.Command.FLUSH


# --- information ---


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (nbd.ExportQuery("mpatha", (3, 1)), "00000006 6d7061746861 0002 0003 0001"),
        (nbd.ExportQuery(""), "00000000 0000"),
        (nbd.ServerEntry("mpatha", "64 MiB"), "00000006 6d7061746861 3634204d6942"),
        (nbd.ServerEntry("é"), "00000002 c3a9"),
    ],
)
def test_golden_option_data_both_ways(value: nbd.ExportQuery | nbd.ServerEntry, text: str) -> None:
    data = bytes.fromhex(text)
    assert value.encode() == data
    assert type(value).decode(data) == value


@given(name=STRINGS, wanted=st.lists(st.integers(0, 0xFFFF), max_size=20))
def test_queries_round_trip(name: str, wanted: list[int]) -> None:
    query = nbd.ExportQuery(name, tuple(wanted))
    data = query.encode()
    assert nbd.ExportQuery.decode(data) == query
    for malformed in (data[:-1], data + b"\0", data[1:]):
        with pytest.raises(DecodeError):
            nbd.ExportQuery.decode(malformed)


@given(name=STRINGS, description=STRINGS)
def test_entries_round_trip(name: str, description: str) -> None:
    entry = nbd.ServerEntry(name, description)
    assert nbd.ServerEntry.decode(memoryview(entry.encode())) == entry


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0000000000",  # no room for the count
        "00000001 0000",  # the name would take the count's place
        "ffffffff 0000",
        "00000000 0001",  # a request is announced and missing
        "00000000 0000 0003",  # a request too many
        "00000001 00 0000",  # NUL
        "00000001 ff 0000",  # not UTF-8
    ],
)
def test_malformed_queries_are_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        nbd.ExportQuery.decode(bytes.fromhex(text))


@pytest.mark.parametrize("text", ["", "000000", "00000001", "ffffffff61", "0000000100", "00000001 61 80"])
def test_malformed_entries_are_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        nbd.ServerEntry.decode(bytes.fromhex(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0000 0000000004000000 016d", nbd.ExportInfo(size=0x4000000, flags=0x16D)),
        (
            "0003 00000200 00001000 02000000",
            nbd.BlockSizeInfo(minimum=512, preferred=4096, maximum_payload=1 << 25),
        ),
        ("0001 6d7061746861", nbd.TextInfo(nbd.Info.NAME, "mpatha")),
        ("0002", nbd.TextInfo(nbd.Info.DESCRIPTION, "")),
        ("7777 0102", nbd.UnknownInfo(0x7777, b"\1\2")),
    ],
)
def test_golden_information_both_ways(text: str, value: nbd.Information) -> None:
    data = bytes.fromhex(text)
    assert nbd.decode_information(data) == value
    assert value.encode() == data


@pytest.mark.parametrize(
    "text",
    ["", "00", "0000 0000000004000000 01", "0000 0000000004000000 016d 00", "0003 00000200", "0001 00", "0002 80"],
)
def test_malformed_information_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        nbd.decode_information(bytes.fromhex(text))


# --- whole replies ---


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (nbd.option_reply(3, nbd.OptionReply.ACK), "0003e889045565a9 00000003 00000001 00000000"),
        (nbd.option_reply(3, nbd.OptionReply.ERR_UNSUP, b"no"), "0003e889045565a9 00000003 80000001 00000002 6e6f"),
        (nbd.simple_reply(7), "67446698 00000000 0000000000000007"),
        (nbd.simple_reply(7, nbd.NbdError.ENOSPC), "67446698 0000001c 0000000000000007"),
        (nbd.data_chunk(7, 512, 1024), "668e33ef 0001 0001 0000000000000007 00000408 0000000000000200"),
        (nbd.none_chunk(7), "668e33ef 0001 0000 0000000000000007 00000000"),
        (
            nbd.error_chunk(7, nbd.ErrorChunk(nbd.NbdError.EIO, "bad")),
            "668e33ef 0001 8001 0000000000000007 00000009 00000005 0003 626164",
        ),
        (
            nbd.error_chunk(7, nbd.ErrorChunk(nbd.NbdError.EIO, "", 512)),
            "668e33ef 0001 8002 0000000000000007 0000000e 00000005 0000 0000000000000200",
        ),
    ],
)
def test_golden_replies(data: bytes, text: str) -> None:
    assert data == bytes.fromhex(text)


@given(
    error=st.integers(1, 0xFFFFFFFF), message=STRINGS, offset=st.none() | st.integers(0, 2**64 - 1), junk=st.binary()
)
def test_error_chunks_round_trip(error: int, message: str, offset: int | None, junk: bytes) -> None:
    chunk = nbd.ErrorChunk(error, message, offset)
    data = chunk.encode()
    assert nbd.ErrorChunk.decode(chunk.kind, data) == chunk
    assert nbd.ErrorChunk.decode(0x80FF, data + junk) == nbd.ErrorChunk(error, message)
    with pytest.raises(DecodeError):
        nbd.ErrorChunk.decode(chunk.kind, data[:-1])


@pytest.mark.parametrize("text", ["", "00000000 0000", "00000005 0001", "00000005 ffff 00"])
def test_malformed_error_chunks_are_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        nbd.ErrorChunk.decode(nbd.ChunkType.ERROR, bytes.fromhex(text))


# --- strings and limits ---


def test_the_limit_of_strings() -> None:
    longest = "é" * 2048
    assert nbd.decode_string(nbd.encode_string(longest)) == longest
    with pytest.raises(EncodeError):
        nbd.encode_string(longest + "x")
    with pytest.raises(DecodeError):
        nbd.decode_string(b"x" * 4097)
    for text in ("a\0b", "\ud800"):
        with pytest.raises(EncodeError):
            nbd.encode_string(text)


@given(text=st.text(max_size=3000))
def test_clipped_text_is_always_a_string(text: str) -> None:
    clipped = nbd.clipped(text * 3)
    assert len(nbd.encode_string(clipped)) <= nbd.STRING_LIMIT


@pytest.mark.parametrize(
    "value",
    [
        nbd.Request(offset=1 << 64),
        nbd.Request(length=1 << 32),
        nbd.Request(flags=-1),
        nbd.ErrorChunk(0),
        nbd.ErrorChunk(5, offset=1 << 64),
        nbd.ExportQuery("x", (1 << 16,)),
    ],
)
def test_values_that_do_not_fit_are_ours(value: Any) -> None:
    with pytest.raises(EncodeError):
        value.encode()
