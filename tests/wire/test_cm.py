import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.wire import cm
from srpha.wire.cm_reject import RejectReason, describe_reject
from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.identifiers import Gid

LOCAL = Gid(0xFE80000000000000, 0x0002C90300001111)
REMOTE = Gid(0xFE80000000000000, 0x0002C90300002222)

PATH = cm.ConnectionPath(
    local_lid=0x0004,
    remote_lid=0x0009,
    local_gid=LOCAL,
    remote_gid=REMOTE,
    flow_label=0xABCDE,
    packet_rate=7,
    traffic_class=0x11,
    hop_limit=0x40,
    service_level=3,
    subnet_local=1,
    local_ack_timeout=19,
)
PATH_HEX = (
    "00040009"
    "fe800000000000000002c90300001111"
    "fe800000000000000002c90300002222"
    "abcde007"  # flow label 20, reserved 6, rate 6
    "1140"
    "38"  # SL 3, subnet local 1
    "98"  # ack timeout 19 << 3
)

REQ = cm.ConnectionRequest(
    local_comm_id=0x01020304,
    service_id=0x0002C90200402BEC,
    local_ca_guid=0x0002C90300001110,
    local_qpn=0x000048,
    responder_resources=4,
    initiator_depth=0,
    remote_cm_response_timeout=20,
    end_to_end_flow_control=1,
    starting_psn=0x123456,
    local_cm_response_timeout=20,
    retry_count=7,
    pkey=0xFFFF,
    path_mtu=4,
    rnr_retry_count=7,
    max_cm_retries=15,
    primary=PATH.encode(),
    private_data=b"\x00" * 91 + b"\x5a",
)
REQ_HEX = (
    "01020304"
    "00000000"
    "0002c90200402bec"
    "0002c90300001110"
    "00000000"
    "00000000"  # Q_Key
    "00004804"  # QPN, responder resources
    "00000000"  # EECN, initiator depth
    "000000a1"  # remote EECN; 20 << 3 | RC << 1 | flow control
    "123456a7"  # PSN; 20 << 3 | retry 7
    "ffff47f0" + PATH_HEX + "00" * 44 + "00" * 91 + "5a"  # P_Key; MTU 4, no RDC, RNR 7; 15 CM retries
)


def test_req_golden() -> None:
    assert PATH.encode().hex() == PATH_HEX
    assert REQ.encode().hex() == REQ_HEX
    assert cm.ConnectionRequest.decode(bytes.fromhex(REQ_HEX)) == REQ
    assert REQ.primary_path == PATH
    assert REQ.alternate_path is None


def test_rep_golden() -> None:
    rep = cm.ConnectionReply(
        local_comm_id=0xA0B0C0D0,
        remote_comm_id=0x01020304,
        local_qpn=0x49,
        starting_psn=0x654321,
        responder_resources=1,
        initiator_depth=4,
        target_ack_delay=15,
        failover_accepted=1,
        end_to_end_flow_control=1,
        rnr_retry_count=7,
        srq=1,
        local_ca_guid=0x0002C90300002220,
        private_data=b"\xc0" + bytes(195),
    )
    text = (
        "a0b0c0d001020304"
        "00000000"
        "0000490000000000"
        "65432100"
        "0104"
        "7b"  # ack delay 15 << 3 | failover 1 << 1 | flow control
        "f0"  # RNR 7 << 5 | SRQ
        "0002c90300002220"
        "c0" + "00" * 195
    )
    assert rep.encode().hex() == text
    assert cm.decode_message(cm.CmAttribute.REP, bytes.fromhex(text)) == rep


def test_rej_golden() -> None:
    rej = cm.ConnectionReject(
        local_comm_id=1,
        remote_comm_id=2,
        message=cm.MessageKind.REQ,
        info_length=2,
        reason=RejectReason.CONSUMER_DEFINED,
        additional_info=b"\x12\x34" + bytes(70),
        private_data=b"\xc2" + bytes(147),
    )
    text = "0000000100000002" + "0004001c" + "1234" + "00" * 70 + "c2" + "00" * 147
    assert rej.encode().hex() == text
    assert cm.decode_message(cm.CmAttribute.REJ, bytes.fromhex(text)) == rej


def test_small_messages_golden() -> None:
    mra = cm.MessageReceiptAck(local_comm_id=1, remote_comm_id=2, message=cm.MessageKind.REP, service_timeout=21)
    assert mra.encode()[:10].hex() == "000000010000000240a8"
    dreq = cm.DisconnectRequest(local_comm_id=1, remote_comm_id=2, remote_qpn=0x49)
    assert dreq.encode()[:12].hex() == "000000010000000200004900"
    for message in (
        cm.ReadyToUse(local_comm_id=1, remote_comm_id=2),
        cm.DisconnectReply(local_comm_id=1, remote_comm_id=2),
    ):
        assert message.encode() == bytes.fromhex("0000000100000002") + bytes(224)


def test_mad_golden() -> None:
    mad = cm.pack_mad(cm.ReadyToUse(local_comm_id=1, remote_comm_id=2), 0x0102030405060708)
    assert mad[:24].hex() == "010702030000000001020304050607080014000000000000"
    assert len(mad) == 256
    assert cm.unpack_mad(mad) == (0x0102030405060708, cm.ReadyToUse(local_comm_id=1, remote_comm_id=2))


@pytest.mark.parametrize("attribute", list(cm.CmAttribute))
@given(data=st.binary(min_size=232, max_size=232))
def test_random_bodies_settle(attribute: cm.CmAttribute, data: bytes) -> None:
    try:
        message = cm.decode_message(attribute, data)
    except DecodeError:
        assert attribute == cm.CmAttribute.REJ
        return
    encoded = message.encode()
    assert cm.decode_message(attribute, encoded) == message
    assert cm.attribute_of(message) == attribute
    assert all(ours & ~theirs == 0 for ours, theirs in zip(encoded, data, strict=True))


@pytest.mark.parametrize("attribute", list(cm.CmAttribute))
@given(length=st.integers(0, 231))
def test_short_body(attribute: cm.CmAttribute, length: int) -> None:
    with pytest.raises(DecodeError):
        cm.decode_message(attribute, bytes(length))


def test_malformed_mads() -> None:
    good = cm.pack_mad(REQ, 1)
    for at, value in ((0, 2), (1, 6), (2, 1), (3, 0x81), (17, 0x20)):
        bad = bytearray(good)
        bad[at] = value
        with pytest.raises(DecodeError):
            cm.unpack_mad(bad)
    with pytest.raises(DecodeError):
        cm.unpack_mad(good[:-1])
    with pytest.raises(DecodeError):
        cm.decode_message(cm.CmAttribute.REJ, bytes(9) + b"\x92" + bytes(222))
    with pytest.raises(EncodeError):
        cm.pack_mad(REQ, 1 << 64)


def test_timeouts() -> None:
    assert cm.timeout_seconds(0) == pytest.approx(4.096e-6)
    assert cm.timeout_seconds(20) == pytest.approx(4.294967296)
    assert cm.timeout_exponent(4.2) == 20
    assert cm.timeout_exponent(0) == 0
    assert cm.timeout_exponent(1e9) == 31
    with pytest.raises(EncodeError):
        cm.timeout_seconds(32)


def test_reject_texts() -> None:
    assert [int(reason) for reason in RejectReason] == list(range(1, 34))
    assert all(reason.text and reason.remedy for reason in RejectReason)
    assert "ch_count" in describe_reject(3)
    assert describe_reject(999) == "CM REJ reason 999: unknown reason"
