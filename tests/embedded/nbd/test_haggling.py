"""Option haggling, pure: what each option is answered with."""

from __future__ import annotations

import struct

import pytest
from nbd_bench import MemoryDevice

from srpha.embedded.nbd.export import exports_of
from srpha.embedded.nbd.haggling import Haggling
from srpha.wire.nbd import (
    BlockSizeInfo,
    ExportInfo,
    ExportQuery,
    Info,
    Option,
    OptionReply,
    OptionReplyHeader,
    ServerEntry,
    TextInfo,
    TransmissionFlag,
    decode_information,
    decode_message,
)

FLAGS = 0x01 | 0x04 | 0x08 | 0x40 | 0x100
"""HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_WRITE_ZEROES, CAN_MULTI_CONN."""


def haggling(*devices: MemoryDevice, flags: int = 3) -> Haggling:
    return Haggling(lambda: exports_of(devices), flags)


def replies(data: bytes, option: int) -> list[tuple[int, bytes]]:
    found = []
    while data:
        header = decode_message(OptionReplyHeader, data)
        assert header.option == option
        found.append((header.kind, data[20 : 20 + header.length]))
        data = data[20 + header.length :]
    return found


@pytest.mark.parametrize(("flags", "padding"), [(1, 124), (3, 0), (0, 124)])
def test_export_name_leads_to_transmission(flags: int, padding: int) -> None:
    answer = haggling(MemoryDevice("mpatha"), MemoryDevice("mpathb", blocks=8), flags=flags).answer(1, b"mpathb")
    assert answer.reply == struct.pack(">QH", 4096, FLAGS) + bytes(padding)
    assert answer.export is not None
    assert answer.export.name == "mpathb"


@pytest.mark.parametrize("name", [b"mpathz", b"\xff", b"mpatha\0", None])
def test_export_name_that_cannot_be_had_ends_the_session(name: bytes | None) -> None:
    answer = haggling(MemoryDevice()).answer(1, name)
    assert (answer.reply, answer.export, answer.hang_up) == (b"", None, True)


def test_the_empty_name_is_the_first_export() -> None:
    answer = haggling(MemoryDevice("mpathb"), MemoryDevice("mpatha")).answer(1, b"")
    assert answer.export is not None
    assert answer.export.name == "mpathb"
    assert haggling().answer(1, b"").hang_up


def test_list_names_every_export() -> None:
    option = haggling(MemoryDevice("mpatha"), MemoryDevice("mpathb", write_protected=True)).answer(Option.LIST, b"")
    *servers, last = replies(option.reply, Option.LIST)
    assert [kind for kind, _ in servers] == [OptionReply.SERVER] * 2
    entries = [ServerEntry.decode(data) for _, data in servers]
    assert [entry.name for entry in entries] == ["mpatha", "mpathb"]
    assert entries[1].description.endswith("2048 blocks of 512 bytes, write-protected")
    assert last == (OptionReply.ACK, b"")
    assert replies(haggling().answer(Option.LIST, b"").reply, Option.LIST) == [(OptionReply.ACK, b"")]


@pytest.mark.parametrize("option", [Option.INFO, Option.GO])
def test_information_about_an_export(option: Option) -> None:
    query = ExportQuery("mpatha", (Info.NAME, Info.DESCRIPTION, 0x7777, Info.BLOCK_SIZE))
    answer = haggling(MemoryDevice(block_size=4096, blocks=16)).answer(option, query.encode())
    *told, last = replies(answer.reply, option)
    assert last == (OptionReply.ACK, b"")
    assert {kind for kind, _ in told} == {OptionReply.INFO}
    assert [decode_information(data) for _, data in told] == [
        ExportInfo(size=65536, flags=FLAGS),
        BlockSizeInfo(minimum=4096, preferred=4096, maximum_payload=1 << 25),
        TextInfo(Info.NAME, "mpatha"),
        TextInfo(Info.DESCRIPTION, "3600000000000000000000000000000001, 16 blocks of 4096 bytes"),
    ]
    assert (answer.export is not None) is (option is Option.GO)
    assert not answer.hang_up


@pytest.mark.parametrize("option", [Option.INFO, Option.GO])
def test_block_sizes_are_told_unasked(option: Option) -> None:
    told = replies(haggling(MemoryDevice()).answer(option, ExportQuery("").encode()).reply, option)
    assert [kind for kind, _ in told] == [OptionReply.INFO, OptionReply.INFO, OptionReply.ACK]


def test_flags_of_a_write_protected_device_and_of_structured_replies() -> None:
    one = haggling(MemoryDevice(write_protected=True))
    assert replies(one.answer(Option.STRUCTURED_REPLY, b"").reply, 8) == [(OptionReply.ACK, b"")]
    assert one.structured
    (_, data), *_ = replies(one.answer(Option.INFO, ExportQuery("").encode()).reply, Option.INFO)
    info = decode_information(data)
    assert isinstance(info, ExportInfo)
    assert info.flags == FLAGS | TransmissionFlag.READ_ONLY | TransmissionFlag.SEND_DF


@pytest.mark.parametrize(
    ("option", "data", "kind"),
    [
        (Option.LIST, b"x", OptionReply.ERR_INVALID),
        (Option.STRUCTURED_REPLY, b"x", OptionReply.ERR_INVALID),
        (Option.INFO, b"", OptionReply.ERR_INVALID),
        (Option.GO, bytes.fromhex("ffffffff 0000"), OptionReply.ERR_INVALID),
        (Option.GO, ExportQuery("nobody").encode(), OptionReply.ERR_UNKNOWN),
        (Option.INFO, ExportQuery("ä" * 2048).encode(), OptionReply.ERR_UNKNOWN),
        (Option.GO, None, OptionReply.ERR_TOO_BIG),
        (0x7FFFFFFF, None, OptionReply.ERR_TOO_BIG),
        (Option.STARTTLS, b"", OptionReply.ERR_UNSUP),
        (Option.PEEK_EXPORT, b"mpatha", OptionReply.ERR_UNSUP),
        (Option.LIST_META_CONTEXT, bytes(8), OptionReply.ERR_UNSUP),
        (Option.SET_META_CONTEXT, bytes(8), OptionReply.ERR_UNSUP),
        (11, b"", OptionReply.ERR_UNSUP),
        (0, b"", OptionReply.ERR_UNSUP),
        (0xFFFFFFFF, b"junk", OptionReply.ERR_UNSUP),
    ],
)
def test_refused_options_leave_the_session_alive(option: int, data: bytes | None, kind: OptionReply) -> None:
    answer = haggling(MemoryDevice()).answer(option, data)
    ((got, text),) = replies(answer.reply, option)
    assert got == kind
    assert text.decode()
    assert (answer.export, answer.hang_up) == (None, False)


def test_abort_is_acknowledged_whatever_comes_with_it() -> None:
    for data in (b"", b"bye", None):
        answer = haggling().answer(Option.ABORT, data)
        assert answer.hang_up
        assert replies(answer.reply, Option.ABORT) == [(OptionReply.ACK, b"")]


def test_a_client_of_the_unfixed_style_has_one_option() -> None:
    answer = haggling(MemoryDevice(), flags=2).answer(Option.GO, ExportQuery("").encode())
    assert (answer.reply, answer.hang_up) == (b"", True)


def test_blocks_that_nbd_cannot_express_are_not_exported() -> None:
    assert list(exports_of([MemoryDevice("mpatha", block_size=520), MemoryDevice("mpathb", block_size=1 << 17)])) == []
