from __future__ import annotations

from dataclasses import replace

import pytest

from scripted_subnet import local_port
from srpha.core.discovery.sa_questions import (
    NoAnswer,
    SaQuestions,
    partitions,
    read_class_port_info,
    read_one,
    read_table,
    sa_address,
)
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.wire.class_port_info import ClassPortInfo
from srpha.wire.identifiers import Gid
from srpha.wire.mad import MadHeader, MadStatus
from srpha.wire.sa import (
    NodeRecord,
    PathRecord,
    SaHeader,
    SaStatus,
    decode_record,
    sa_error,
    sa_response,
    sa_table,
)

PORT = local_port(1, pkeys=(0x8001, 0x7FFF))
SA = SaQuestions(PORT, ScanSettings())


def mask_of(mad: bytes) -> int:
    return SaHeader.decode(mad).component_mask


def test_questions_have_the_masks_of_the_specification() -> None:
    assert mask_of(SA.class_port_info().mad) == 0
    assert mask_of(SA.all_nodes().mad) == 0
    assert mask_of(SA.node_by_guid(7).mad) == 1 << 8
    assert mask_of(SA.node_by_lid(7).mad) == 1
    assert mask_of(SA.port_by_lid(7).mad) == 1
    assert mask_of(SA.io_unit_ports(match_bits=True).mad) == 1 << 7
    assert mask_of(SA.io_unit_ports(match_bits=False).mad) == 0
    assert mask_of(SA.all_paths(0x8001).mad) == 1 << 3 | 1 << 12 | 1 << 13
    assert mask_of(SA.path(Gid(1, 2), 0x8001).mad) == 1 << 2 | 1 << 3 | 1 << 12 | 1 << 13


def test_capability_match_asks_for_one_bit() -> None:
    mad = SA.io_unit_ports(match_bits=True).mad
    assert MadHeader.decode(mad).attribute_modifier == 0x80000000
    assert mad[56 + 24 : 56 + 28].hex() == "00080000"


def test_path_question_names_both_ends() -> None:
    record = decode_record(SA.path(Gid(1, 2), 0x8001).mad, PathRecord)
    assert (record.dgid, record.sgid, record.pkey, record.numb_path) == (Gid(1, 2), PORT.gid, 0x8001, 1)


def test_the_subnet_administrator_is_asked_in_the_default_partition() -> None:
    assert sa_address(PORT).pkey_index == 1
    assert sa_address(PORT).lid == PORT.sm_lid
    assert sa_address(replace(PORT, pkeys=(0x8001,))).pkey_index == 0


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ((0xFFFF,), (0xFFFF,)),
        ((0x7FFF, 0x8002, 0, 0x8001), (0x7FFF, 0x8002, 0x8001)),
        ((0x0001, 0x8002, 0x8001), (0x8001, 0x8002)),
        ((0x8001, 0x0001), (0x8001,)),
        ((0, 0x8000), ()),
    ],
)
def test_partitions(table: tuple[int, ...], found: tuple[int, ...]) -> None:
    assert partitions(replace(PORT, pkeys=table)) == found


def test_good_answers() -> None:
    ask = SA.all_nodes().mad
    nodes = (NodeRecord(lid=1), NodeRecord(lid=2))
    assert read_table(sa_table(ask, nodes), NodeRecord) == nodes
    assert read_table(sa_table(ask, ()), NodeRecord) == ()
    single = SA.node_by_lid(1).mad
    assert read_one(sa_response(single, nodes[0]), NodeRecord) == nodes[0]
    info = ClassPortInfo(capability_mask=1 << 13)
    assert read_class_port_info(sa_response(SA.class_port_info().mad, info)) == info


def test_no_records_is_an_answer() -> None:
    ask = SA.node_by_lid(1).mad
    assert read_one(sa_error(ask, SaStatus.NO_RECORDS), NodeRecord) is None
    assert read_table(sa_error(SA.all_nodes().mad, SaStatus.NO_RECORDS), NodeRecord) == ()


@pytest.mark.parametrize(
    ("status", "refused"),
    [
        (SaStatus.REQUEST_INVALID, True),
        (SaStatus.INSUFFICIENT_COMPONENTS, True),
        (SaStatus.TOO_MANY_RECORDS, True),
        (MadStatus.UNSUPPORTED_METHOD_ATTRIBUTE, True),
        (SaStatus.NO_RESOURCES, False),
        (SaStatus.DENIED, False),
        (MadStatus.BUSY, False),
    ],
)
def test_refusals_say_whether_another_form_may_help(status: int, refused: bool) -> None:
    answer = read_table(sa_error(SA.all_nodes().mad, status), NodeRecord)
    assert isinstance(answer, NoAnswer)
    assert answer.refused == refused
    assert answer.reason.startswith("the subnet administrator refuses NodeRecord: ")


def test_silence_another_attribute_and_nonsense() -> None:
    assert read_table(None, NodeRecord) == NoAnswer("no answer from the subnet administrator to NodeRecord")
    other = sa_table(SA.all_paths(0x8001).mad, (PathRecord(),))
    for reader in (read_table, read_one):
        answer = reader(other, NodeRecord)
        assert isinstance(answer, NoAnswer)
        assert "attribute 0x0035" in answer.reason
    crooked = bytearray(sa_table(SA.all_nodes().mad, (NodeRecord(lid=1),)))
    crooked[44:46] = b"\0\1"  # an attribute offset of 8 bytes
    answer = read_table(bytes(crooked), NodeRecord)
    assert isinstance(answer, NoAnswer)
    assert "unreadable" in answer.reason
    assert isinstance(read_one(bytes(crooked)[:60], NodeRecord), NoAnswer)
