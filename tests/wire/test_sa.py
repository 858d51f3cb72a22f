from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import pattern, structures

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.identifiers import Gid
from srpha.wire.mad import Method
from srpha.wire.notice import InformInfo
from srpha.wire.rmpp import RmppHeader
from srpha.wire.sa import (
    MATCH_CAPABILITY_BITS,
    NodeRecord,
    NodeRecordMask,
    PathRecord,
    PathRecordMask,
    PortInfoRecord,
    PortInfoRecordMask,
    SaAttribute,
    SaHeader,
    SaStatus,
    decode_record,
    decode_table,
    sa_error,
    sa_request,
    sa_response,
    sa_table,
)
from srpha.wire.smp import NodeInfo, PortInfo

HEADER = bytes.fromhex(
    "01 03 02 92 0000 0000 0000000000000042 0011 0000 00000000"  # common
    "01 01 ff 00 00000001 00000084"  # RMPP
    "0000000000000009 000e 0000 0000000000000001"  # SM_Key, attribute offset, reserved, mask
)
PATH = bytes.fromhex(
    "1000000000000001"
    "fe80000000000000 0002c90300001234"
    "fe80000000000000 0002c90300005678"
    "0007 0008"  # DLID, SLID
    "8abcde 40"  # raw, flow label, hop limit
    "11 81 8001"  # traffic class, reversible|number, P_Key
    "1235 85 c7"  # QoS class|SL, MTU, rate
    "92 03 000000000000"  # life, preference
)
PATH_VALUE = PathRecord(
    service_id=0x1000000000000001,
    dgid=Gid(0xFE80000000000000, 0x0002C90300001234),
    sgid=Gid(0xFE80000000000000, 0x0002C90300005678),
    dlid=7,
    slid=8,
    raw_traffic=1,
    flow_label=0xABCDE,
    hop_limit=0x40,
    traffic_class=0x11,
    reversible=1,
    numb_path=1,
    pkey=0x8001,
    qos_class=0x123,
    sl=5,
    mtu_selector=2,
    mtu=5,
    rate_selector=3,
    rate=7,
    packet_life_selector=2,
    packet_life=18,
    preference=3,
)
GET_TABLE = sa_request(Method.GET_TABLE, SaAttribute.NODE_RECORD, transaction_id=0x42)


def reply(attribute: int, offset: int, body: bytes, status: int = 0) -> bytes:
    return (
        bytes.fromhex("01030292")
        + status.to_bytes(2, "big")
        + bytes(10)
        + attribute.to_bytes(2, "big")
        + bytes(26)
        + offset.to_bytes(2, "big")
        + bytes(10)
        + body
    )


def test_header_both_ways() -> None:
    value = SaHeader.decode(HEADER)
    assert (value.sm_key, value.attribute_offset, value.component_mask) == (9, 14, 1)
    assert value.rmpp == RmppHeader(version=1, type=1, response_time=31, flags=7, segment=1, length_or_window=0x84)
    assert value.mad.method == Method.GET_TABLE_RESP
    assert value.encode() == HEADER


@pytest.mark.parametrize(("at", "value"), [(0, 2), (1, 6), (2, 1)])
def test_header_of_another_class(at: int, value: int) -> None:
    broken = bytearray(HEADER)
    broken[at] = value
    with pytest.raises(DecodeError):
        SaHeader.decode(broken)
    with pytest.raises(DecodeError):
        SaHeader.decode(HEADER[:-1])


def test_path_record_both_ways() -> None:
    assert len(PATH) == 64
    assert PATH_VALUE.encode() == PATH
    assert PathRecord.decode(PATH) == PATH_VALUE


def test_node_record_both_ways() -> None:
    info = NodeInfo(node_type=1, port_count=2, node_guid=0x10, port_guid=0x11, local_port=1, vendor_id=0x2C9)
    wire = bytes.fromhex("0007 0000 01010102 0000000000000000 0000000000000010 0000000000000011 0000 0000 00000000")
    wire += bytes.fromhex("01 0002c9") + b"host1 HCA-1".ljust(64, b"\0")
    record = NodeRecord.of(7, info, b"host1 HCA-1")
    assert record.encode() == wire
    read = NodeRecord.decode(wire)
    assert read.lid == 7
    assert read.info == info
    assert read.description_text == "host1 HCA-1"


def test_port_info_record_both_ways() -> None:
    info = PortInfo(gid_prefix=0xFE80000000000000, lid=7, sm_lid=1, capability_mask=1 << 19)
    wire = bytes.fromhex("0007 01 00 0000000000000000 fe80000000000000 0007 0001 00080000") + bytes(40)
    record = PortInfoRecord.of(7, 1, info)
    assert record.encode() == wire
    assert PortInfoRecord.decode(wire).info == info


def test_request_for_ports_with_device_management() -> None:
    record = PortInfoRecord.of(0, 0, PortInfo(capability_mask=1 << 19))
    wire = sa_request(
        Method.GET_TABLE,
        SaAttribute.PORT_INFO_RECORD,
        transaction_id=0x42,
        mask=PortInfoRecordMask.CAPABILITY_MASK,
        record=record,
        modifier=MATCH_CAPABILITY_BITS,
    )
    assert wire == (
        bytes.fromhex("01 03 02 12 0000 0000 0000000000000042 0012 0000 80000000")
        + bytes.fromhex("01 01 00 00 00000000 00000000")
        + bytes.fromhex("0000000000000000 0000 0000 0000000000000080")
        + bytes(24)
        + bytes.fromhex("00080000")
        + bytes(172)
    )


def test_component_masks_match_the_fact_file() -> None:
    assert PathRecordMask.DLID | PathRecordMask.SLID | PathRecordMask.PKEY == 1 << 4 | 1 << 5 | 1 << 13
    assert int(PathRecordMask.SERVICE_ID) == 3
    assert PathRecordMask.PREFERENCE == 1 << 22
    assert NodeRecordMask.PORT_GUID == 1 << 8
    assert NodeRecordMask.NODE_DESCRIPTION == 1 << 14
    assert PortInfoRecordMask.PORT_STATE == 1 << 15


def test_single_exchange() -> None:
    request = sa_request(
        Method.GET,
        SaAttribute.PATH_RECORD,
        transaction_id=1,
        mask=PathRecordMask.PKEY,
        record=PathRecord(pkey=0xFFFF),
        sm_key=5,
    )
    assert request[24:36] == bytes(12)
    assert request[36:44] == bytes(7) + b"\x05"
    answer = sa_response(request, PATH_VALUE)
    assert len(answer) == 256
    assert answer[3] == 0x81
    assert answer[36:46] == bytes(10)
    assert answer[56:120] == PATH
    assert decode_record(answer, PathRecord) == PATH_VALUE
    with pytest.raises(DecodeError):
        decode_record(answer[:119], PathRecord)


def test_error_repeats_the_request() -> None:
    answer = sa_error(GET_TABLE, SaStatus.DENIED)
    assert answer[:8] == bytes.fromhex("01 03 02 92 0700 0000")
    assert answer[8:] == GET_TABLE[8:]


def test_set_is_answered_by_get_response() -> None:
    request = sa_request(Method.SET, SaAttribute.INFORM_INFO, transaction_id=1, mask=1, record=InformInfo(subscribe=1))
    assert sa_response(request, InformInfo(subscribe=1))[3] == 0x81


def test_record_too_long_for_one_mad() -> None:
    from srpha.wire.mad import MAD_LENGTH
    from srpha.wire.smp import LidRoutedSmp

    assert MAD_LENGTH == LidRoutedSmp.LENGTH
    with pytest.raises(EncodeError):
        sa_request(Method.GET, 1, transaction_id=1, record=LidRoutedSmp())


def test_table_layout() -> None:
    records = [NodeRecord(lid=n) for n in (1, 2)]
    message = sa_table(GET_TABLE, records)
    assert len(message) == 56 + 2 * 112
    assert message[44:46] == b"\x00\x0e"
    assert message[56:58] == b"\x00\x01"
    assert message[168:170] == b"\x00\x02"
    assert decode_table(message, NodeRecord) == tuple(NodeRecord.decode(record.encode()) for record in records)


def test_empty_table() -> None:
    message = sa_table(GET_TABLE, [])
    assert len(message) == 56
    assert message[44:46] == bytes(2)
    assert decode_table(message, NodeRecord) == ()
    assert decode_table(reply(0x11, 0, bytes(200)), NodeRecord) == ()


def test_impossible_strides() -> None:
    for stride in (104, 109):
        with pytest.raises(EncodeError):
            sa_table(GET_TABLE, [NodeRecord()], stride=stride)
    with pytest.raises(EncodeError):
        sa_table(GET_TABLE, [NodeRecord(), PathRecord()])
    for offset in (1, 13):
        with pytest.raises(DecodeError):
            decode_table(reply(0x11, offset, bytes(224)), NodeRecord)


def test_old_and_future_records() -> None:
    old = pattern(58) + bytes(6)
    found = decode_table(reply(0x12, 8, old * 2), PortInfoRecord)
    assert len(found) == 2
    assert found[0].encode() == pattern(58) + bytes(10)
    future = (pattern(108) + b"\xee" * 12) * 3
    assert [r.lid for r in decode_table(reply(0x11, 15, future), NodeRecord)] == [0x0102] * 3


def test_padding_is_not_a_record() -> None:
    assert len(decode_table(reply(0x11, 14, bytes(112 + 111)), NodeRecord)) == 1
    assert decode_table(reply(0x11, 0xFFFF, bytes(500)), NodeRecord) == ()


def test_wrong_tables_are_refused() -> None:
    with pytest.raises(DecodeError):
        decode_table(reply(0x12, 14, bytes(112)), NodeRecord)
    with pytest.raises(DecodeError):
        decode_table(reply(0x11, 14, bytes(112), status=0x0300), NodeRecord)
    with pytest.raises(DecodeError):
        decode_table(reply(0x11, 14, b"")[:-1], NodeRecord)


@given(st.lists(structures(PathRecord), max_size=5), st.integers(8, 40))
def test_tables_survive_any_stride(records: list[PathRecord], words: int) -> None:
    request = sa_request(Method.GET_TABLE, SaAttribute.PATH_RECORD, transaction_id=1)
    assert decode_table(sa_table(request, records, stride=8 * words), PathRecord) == tuple(records)


@given(st.binary(max_size=600))
def test_any_reply_is_read_or_refused(data: bytes) -> None:
    for attempt in (data, reply(0x11, 0, b"")[:44] + data):
        try:
            records = decode_table(attempt, NodeRecord)
        except DecodeError:
            continue
        assert len(records) * 108 <= len(attempt)
