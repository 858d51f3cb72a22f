from __future__ import annotations

import pytest

from srpha.wire.dm import DmStatus
from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.mad import (
    MadHeader,
    MadStatus,
    ManagementClass,
    Method,
    build_mad,
    describe_status,
    is_response_method,
    read_header,
    response_method,
    status_response,
    time_value,
    transaction_key,
)
from srpha.wire.sa import SaStatus

WIRE = bytes.fromhex(
    "01 03 02 92"  # base version, class, class version, method
    "0300 0000"  # status, class specific
    "00000007 deadbeef"  # transaction ID
    "0012 0000"  # attribute ID, reserved
    "80000000"  # attribute modifier
)
HEADER = MadHeader(
    mgmt_class=ManagementClass.SUBN_ADM,
    class_version=2,
    method=Method.GET_TABLE_RESP,
    status=0x0300,
    transaction_id=0x7DEADBEEF,
    attribute_id=0x0012,
    attribute_modifier=0x80000000,
)


def test_header_both_ways() -> None:
    assert HEADER.encode() == WIRE
    assert MadHeader.decode(WIRE) == HEADER


def test_transaction_key_is_the_low_half() -> None:
    assert transaction_key(WIRE) == 0xDEADBEEF
    with pytest.raises(DecodeError):
        transaction_key(WIRE[:-1])


def test_responses() -> None:
    pairs = {0x01: 0x81, 0x02: 0x81, 0x05: 0x07, 0x06: 0x86, 0x12: 0x92, 0x13: 0x92, 0x14: 0x94, 0x15: 0x95}
    for request, response in pairs.items():
        assert response_method(request) == response
        assert is_response_method(response)
        assert not is_response_method(request)
    for without in (Method.SEND, Method.GET_RESP, Method.TRAP_REPRESS):
        with pytest.raises(EncodeError):
            response_method(without)
    assert HEADER.is_response


def test_read_header_checks_length_and_version() -> None:
    whole = WIRE + bytes(232)
    assert read_header(whole) == HEADER
    for bad in (whole[:-1], whole + b"\0", b"\x02" + whole[1:], b""):
        with pytest.raises(DecodeError):
            read_header(bad)


def test_build_mad() -> None:
    assert build_mad(HEADER, b"\xaa\xbb") == WIRE + b"\xaa\xbb" + bytes(230)
    assert build_mad(HEADER, b"\xaa", at=64) == WIRE + bytes(40) + b"\xaa" + bytes(191)
    for body, at in ((bytes(233), 24), (b"\0", 256), (b"", 23)):
        with pytest.raises(EncodeError):
            build_mad(HEADER, body, at=at)


def test_status_response_keeps_the_request() -> None:
    request = bytes.fromhex("01060101 0000 0000 0000000000000009 0010 0000 00000001") + b"\x55" * 232
    answer = status_response(request, MadStatus.UNSUPPORTED_METHOD_ATTRIBUTE)
    assert answer == bytes.fromhex("01060181 000c 0000 0000000000000009 0010 0000 00000001") + b"\x55" * 232


@pytest.mark.parametrize(
    ("mgmt_class", "status", "text"),
    [
        (0x03, 0x0000, "ok"),
        (0x03, 0x0001, "busy, try again later"),
        (0x06, 0x0002, "redirected to another port"),
        (0x06, 0x0004, "class or base version not supported"),
        (0x06, 0x0008, "method not supported"),
        (0x06, 0x000C, "attribute not supported with this method"),
        (0x06, 0x001C, "invalid value in the attribute or its modifier"),
        (0x06, 0x0010, "invalid request (reserved code 4)"),
        (0x03, 0x0300, "no records match (SA status 3)"),
        (0x06, 0x0100, "no such I/O controller (DM status 0x01)"),
        (0x04, 0x0100, "class status 0x01"),
        (0x81, 0x8000, "ok"),
        (0x03, 0x0021, "busy, try again later, reserved bits 0x0020"),
        (0x03, 0xFF00, "class error (SA status 255)"),
    ],
)
def test_describe_status(mgmt_class: int, status: int, text: str) -> None:
    assert describe_status(mgmt_class, status) == text


def test_every_named_status_has_its_own_text() -> None:
    sa_texts = [describe_status(ManagementClass.SUBN_ADM, status) for status in SaStatus]
    dm_texts = [describe_status(ManagementClass.DEVICE_MGMT, status) for status in DmStatus]
    for texts in (sa_texts, dm_texts):
        assert len(set(texts)) == len(texts)
        assert not any("class error" in text for text in texts)


def test_time_value() -> None:
    assert time_value(0) == 4.096e-6
    assert time_value(18) == pytest.approx(1.0737, abs=1e-4)
    for bad in (-1, 32):
        with pytest.raises(EncodeError):
            time_value(bad)
