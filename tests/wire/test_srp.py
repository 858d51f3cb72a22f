import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.wire import srp
from srpha.wire.errors import DecodeError

INITIATOR = bytes.fromhex("ed2b400002c902000002c90300001111")
TARGET = bytes.fromhex("200500a0b81146a10002c90200402bec")
LOGIN_REQ_HEX = (
    "00" + "00" * 7 + "0102030405060708" + "00000114" + "00000000" + "0006" + "80" + "00" + "0044" + "0000"
) + (INITIATOR + TARGET).hex()
LOGIN_RSP_HEX = "c00000000000004001020304050607080000011400000114000682" + "00" * 25
LOGIN_REJ_HEX = "c2000000000100060102030405060708" + "00" * 8 + "0006" + "00" * 6
TAG = 0x0102030405060708


def test_login_golden() -> None:
    request = srp.LoginRequest(
        tag=TAG,
        requested_it_iu_length=276,
        flags=srp.IMMEDIATE_REQUESTED | srp.MultichannelAction.SINGLE,
        immediate_offset=68,
        initiator_port_id=INITIATOR,
        target_port_id=TARGET,
    )
    assert request.encode().hex() == LOGIN_REQ_HEX
    assert srp.decode_login_request(bytes.fromhex(LOGIN_REQ_HEX) + bytes(28)) == request
    assert request.multichannel_action == srp.MultichannelAction.SINGLE

    response = srp.LoginResponse(limit_delta=64, tag=TAG, max_it_iu_length=276, max_ti_iu_length=276, flags=0x82)
    assert response.encode().hex() == LOGIN_RSP_HEX
    assert srp.decode_login_response(bytes.fromhex(LOGIN_RSP_HEX)) == response
    assert response.multichannel_result == srp.MultichannelResult.MAINTAINED

    reject = srp.LoginReject(reason=srp.LoginRejectReason.CHANNEL_LIMIT, tag=TAG)
    assert reject.encode().hex() == LOGIN_REJ_HEX
    assert srp.decode_login_reject(bytes.fromhex(LOGIN_REJ_HEX)) == reject


def test_rdma_cm_login_golden() -> None:
    request = srp.LoginRequestRdmaCm(
        tag=TAG,
        requested_it_iu_length=276,
        initiator_port_id=INITIATOR,
        target_port_id=TARGET,
        immediate_offset=68,
        flags=1,
    )
    text = "01020304050607080006010000000114" + (INITIATOR + TARGET).hex() + "0044" + "00" * 6
    assert request.encode().hex() == text
    assert srp.LoginRequestRdmaCm.decode(bytes.fromhex(text)) == request


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        (
            srp.TaskManagement(tag=1, lun=0x0005 << 48, function=srp.TaskFunction.ABORT_TASK, task_tag=9),
            "01" + "00" * 7 + "0000000000000001000000000005000000000000000001000000000000000009" + "00" * 8,
        ),
        (srp.InitiatorLogout(tag=7), "03000000000000000000000000000007"),
        (srp.TargetLogout(tag=7, reason=2), "80000000000000020000000000000007"),
        (srp.CreditRequest(tag=7, limit_delta=3), "81000000000000030000000000000007"),
        (srp.CreditResponse(tag=7), "41000000000000000000000000000007"),
        (srp.EventResponse(tag=7), "42000000000000000000000000000007"),
    ],
)
def test_small_units_golden(unit: srp.InformationUnit, text: str) -> None:
    assert not isinstance(unit, (tuple, srp.Command, srp.Response))
    assert unit.encode().hex() == text
    assert srp.decode_iu(bytes.fromhex(text)) == unit


def test_event_golden() -> None:
    data = srp.encode_event(5, 1 << 48, b"\x70\0\6", limit_delta=1)
    assert data.hex() == "820000000000000100000000000000050000000000010000000000000000000300000000700006"
    header, sense = srp.decode_event(data)
    assert (header.tag, header.lun, sense) == (5, 1 << 48, b"\x70\0\6")
    assert srp.decode_iu(data) == (header, sense)
    with pytest.raises(DecodeError):
        srp.decode_event(data[:-1])


@given(st.binary(max_size=120))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        srp.decode_iu(data)
    except DecodeError:
        return


@given(st.sampled_from(list(srp.Opcode)), st.integers(0, 15))
def test_every_unit_has_a_least_length(opcode: srp.Opcode, length: int) -> None:
    with pytest.raises(DecodeError):
        srp.decode_iu((bytes([opcode]) + bytes(length))[:length])


@pytest.mark.parametrize(
    "kind",
    [
        srp.LoginRequest,
        srp.LoginRequestRdmaCm,
        srp.LoginResponse,
        srp.LoginReject,
        srp.TaskManagement,
        srp.TargetLogout,
        srp.CreditRequest,
        srp.EventRequestHeader,
    ],
)
@given(data=st.binary(min_size=64, max_size=64))
def test_structures_settle(kind: type[srp.LoginRequest], data: bytes) -> None:
    value = kind.decode(data)
    encoded = value.encode()
    assert len(encoded) == kind.LENGTH
    assert kind.decode(encoded) == value
    assert all(ours & ~theirs == 0 for ours, theirs in zip(encoded, data, strict=False))


def test_wrong_opcode_in_private_data() -> None:
    for decode in (srp.decode_login_request, srp.decode_login_response, srp.decode_login_reject, srp.decode_event):
        with pytest.raises(DecodeError):
            decode(b"\x02" + bytes(63))
        with pytest.raises(DecodeError):
            decode(b"")
    with pytest.raises(DecodeError):
        srp.decode_iu(b"\x55" + bytes(63))


def test_texts_and_deltas() -> None:
    assert all(reason.text and reason.remedy for reason in srp.LoginRejectReason)
    assert "ACL" in srp.describe_login_reject(0x00010006)
    assert srp.describe_login_reject(1) == "SRP_LOGIN_REJ reason 0x00000001: unknown reason"
    assert srp.signed_delta(0xFFFFFFFF) == -1
    assert srp.signed_delta(5) == 5
