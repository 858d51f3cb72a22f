import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.wire import crc, rc
from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.identifiers import Gid

ADDRESS = rc.RcAddress(slid=0x0004, dlid=0x0009, dest_qp=0x49, pkey=0xFFFF, service_level=3)

# LRH: VL 0, LVer 0, SL 3, LNH 2, DLID, PktLen, SLID; BTH: opcode, SE/M/pad/TVer, P_Key, QP, A, PSN
SEND_HEX = "003200090007000404d0ffff0000004980123456aabbcc00"
WRITE_HEX = "00320009000b00040a40ffff0000004900000005001122334455667789abcdef0000000401020304"
ACK_HEX = "00320009000700041140ffff00000049001234561f000007"
MAD_HEX = "f002ffff004800046440ffff00000000000000018001000000000001" + "01" * 256


def test_send_golden() -> None:
    packet = rc.pack_send(ADDRESS, rc.Opcode.RC_SEND_ONLY, 0x123456, b"\xaa\xbb\xcc", ack_request=True, solicited=True)
    assert packet.hex() == SEND_HEX
    read = rc.unpack(packet)
    assert read == rc.RcPacket(4, 0x123456, 0x49, 4, 9, 0xFFFF, True, True, 20, b"\xaa\xbb\xcc", packet)
    assert rc.peek_route(packet) == (0, 4, 9, rc.LNH_LOCAL)
    assert rc.LocalRouteHeader.decode(packet) == rc.LocalRouteHeader(service_level=3, dlid=9, packet_length=7, slid=4)
    bth = rc.BaseTransportHeader.decode(packet, 8)
    assert (bth.pad_count, bth.migration, bth.ack_request, bth.psn) == (1, 1, 1, 0x123456)


def test_rdma_golden() -> None:
    packet = rc.pack_rdma(ADDRESS, rc.Opcode.RC_WRITE_ONLY, 5, 0x0011223344556677, 0x89ABCDEF, 4, b"\1\2\3\4")
    assert packet.hex() == WRITE_HEX
    read = rc.unpack(packet)
    assert rc.read_reth(read) == (0x0011223344556677, 0x89ABCDEF, 4)
    assert read.payload == b"\1\2\3\4"
    assert rc.RdmaHeader.decode(packet, read.extension).r_key == 0x89ABCDEF


def test_ack_golden() -> None:
    packet = rc.pack_ack(ADDRESS, rc.Opcode.RC_ACKNOWLEDGE, 0x123456, rc.ack_syndrome(), 7)
    assert packet.hex() == ACK_HEX
    read = rc.unpack(packet)
    assert rc.read_aeth(read) == (0x1F, 7)
    assert rc.AckHeader.decode(packet, 20) == rc.AckHeader(kind=rc.AckKind.ACK, value=31, msn=7)
    assert rc.split_syndrome(rc.nak_syndrome(rc.NakCode.REMOTE_ACCESS_ERROR)) == (rc.AckKind.NAK, 2)
    assert rc.split_syndrome(rc.rnr_syndrome(14)) == (rc.AckKind.RNR_NAK, 14)
    assert rc.RNR_TIMER_MS[14] == 1.28
    assert len(rc.RNR_TIMER_MS) == 32


def test_datagram_golden() -> None:
    smp = rc.RcAddress(slid=4, dlid=0xFFFF, dest_qp=0, pkey=0xFFFF, virtual_lane=rc.MANAGEMENT_VL)
    packet = rc.pack_datagram(smp, 1, rc.GSI_Q_KEY, 1, b"\1" * 256)
    assert packet.hex() == MAD_HEX
    read = rc.unpack(packet)
    assert rc.read_deth(read) == (rc.GSI_Q_KEY, 1)
    assert read.payload == b"\1" * 256
    assert rc.read_grh(read) is None
    assert rc.DatagramHeader.decode(packet, 20).source_qp == 1


def test_global_packet() -> None:
    grh = rc.GlobalRouteHeader(payload_length=24 + 4 + 4, hop_limit=1, sgid=Gid(1, 2), dgid=Gid(3, 4))
    body = rc.BaseTransportHeader(opcode=0x64, pkey=0xFFFF, dest_qp=1, psn=9).encode()
    body += rc.DatagramHeader(q_key=rc.GSI_Q_KEY, source_qp=1).encode() + b"data"
    lrh = rc.LocalRouteHeader(next_header=rc.LNH_GLOBAL, dlid=9, packet_length=(8 + 40 + 24 + 4) // 4, slid=4)
    packet = lrh.encode() + grh.encode() + body
    read = rc.unpack(packet)
    assert rc.read_grh(read) == grh
    assert read.payload == b"data"
    assert (read.dest_qp, read.psn) == (1, 9)


@given(
    opcode=st.sampled_from([op for op in rc.Opcode if op is not rc.Opcode.UD_SEND_ONLY]),
    psn=st.integers(0, rc.PSN_MASK),
    payload=st.binary(max_size=300),
    ack=st.booleans(),
)
def test_round_trip(opcode: rc.Opcode, psn: int, payload: bytes, ack: bool) -> None:
    if opcode in rc.WITH_RETH:
        packet = rc.pack_rdma(ADDRESS, opcode, psn, 1, 2, 3, payload, ack)
    elif opcode in rc.WITH_AETH:
        ack = False
        packet = rc.pack_ack(ADDRESS, opcode, psn, 0x1F, 0, payload)
    else:
        packet = rc.pack_send(ADDRESS, opcode, psn, payload, ack)
    assert len(packet) % 4 == 0
    read = rc.unpack(packet)
    assert (read.opcode, read.psn, read.payload, read.ack_request) == (opcode, psn, payload, ack)


@given(st.binary(max_size=80))
def test_random_bytes_never_crash(data: bytes) -> None:
    try:
        read = rc.unpack(data)
    except DecodeError:
        return
    assert len(read.payload) <= len(data) - 20


@pytest.mark.parametrize("text", [SEND_HEX, WRITE_HEX, ACK_HEX, MAD_HEX])
def test_truncated(text: str) -> None:
    packet = bytes.fromhex(text)
    for end in range(len(packet)):
        with pytest.raises(DecodeError):
            rc.unpack(packet[:end])
    with pytest.raises(DecodeError):
        rc.unpack(packet + b"\0\0\0\0")


@pytest.mark.parametrize(("at", "value"), [(0, 0x01), (1, 0x30), (8, 0x05), (8, 0xFF), (9, 0xD1)])
def test_bad_fields(at: int, value: int) -> None:
    packet = bytearray.fromhex(SEND_HEX)
    packet[at] = value
    with pytest.raises(DecodeError):
        rc.unpack(bytes(packet))


def test_padding_without_payload() -> None:
    packet = bytearray.fromhex(ACK_HEX)
    packet[9] |= 0x30
    with pytest.raises(DecodeError):
        rc.unpack(bytes(packet))


def test_short_route() -> None:
    with pytest.raises(DecodeError):
        rc.peek_route(bytes(7))


def test_psn_arithmetic() -> None:
    assert rc.psn_add(0xFFFFFF, 1) == 0
    assert rc.psn_add(0, -1) == 0xFFFFFF
    assert rc.psn_diff(1, 0xFFFFFF) == 2
    assert rc.psn_diff(0xFFFFFF, 1) == -2
    assert rc.psn_diff(0x800000, 0) == -0x800000


@given(st.integers(0, rc.PSN_MASK), st.integers(-0x800000, 0x7FFFFF))
def test_psn_inverse(psn: int, step: int) -> None:
    assert rc.psn_diff(rc.psn_add(psn, step), psn) == step


def test_address_check() -> None:
    assert ADDRESS.checked() is ADDRESS
    with pytest.raises(EncodeError):
        ADDRESS._replace(dest_qp=1 << 24).checked()


def _crc_by_bits(data: bytes, width: int, polynomial: int) -> int:
    """CRC by long division, bit for bit, least significant bit of each byte first; independent of any table."""
    register = (1 << width) - 1
    for byte in data:
        for bit in range(8):
            top = register >> width - 1 ^ byte >> bit & 1
            register = register << 1 & (1 << width) - 1
            if top:
                register ^= polynomial
    register ^= (1 << width) - 1
    return int(f"{register:0{width}b}"[::-1], 2)


def test_icrc_masks_what_switches_change() -> None:
    packet = bytes.fromhex(SEND_HEX)
    masked = bytearray(packet)
    masked[0] |= 0xF0
    masked[12] = 0xFF
    assert crc.icrc(packet) == _crc_by_bits(bytes(masked), 32, 0x04C11DB7)
    other_lane = bytes([packet[0] | 0x50]) + packet[1:]
    assert crc.icrc(other_lane) == crc.icrc(packet)
    congested = packet[:12] + b"\xc0" + packet[13:]
    assert crc.icrc(congested) == crc.icrc(packet)
    assert crc.icrc(packet[:-1] + b"\1") != crc.icrc(packet)


def test_vcrc_by_long_division() -> None:
    full = crc.with_crcs(bytes.fromhex(SEND_HEX))
    assert full[:-6].hex() == SEND_HEX
    assert full[-6:-2] == crc.icrc(full[:-6]).to_bytes(4, "little")
    assert int.from_bytes(full[-2:], "little") == _crc_by_bits(full[:-2], 16, 0x100B)


def test_icrc_of_global_packet() -> None:
    lrh = rc.LocalRouteHeader(next_header=rc.LNH_GLOBAL, dlid=9, packet_length=16, slid=4).encode()
    grh = rc.GlobalRouteHeader(payload_length=16, hop_limit=1, flow_label=5, sgid=Gid(1, 2), dgid=Gid(3, 4))
    bth = rc.BaseTransportHeader(opcode=4, pkey=0xFFFF, dest_qp=1, psn=9).encode()
    routed = rc.GlobalRouteHeader(payload_length=16, hop_limit=0, flow_label=9, sgid=Gid(1, 2), dgid=Gid(3, 4))
    assert crc.icrc(lrh + grh.encode() + bth) == crc.icrc(b"\xf0" + lrh[1:] + routed.encode() + bth)
    expected = b"\xff" * 8 + b"\x6f\xff\xff\xff" + grh.encode()[4:7] + b"\xff" + grh.encode()[8:]
    expected += bth[:4] + b"\xff" + bth[5:]
    assert crc.icrc(lrh + grh.encode() + bth) == _crc_by_bits(expected, 32, 0x04C11DB7)


def test_crc_of_short_packets() -> None:
    with pytest.raises(DecodeError):
        crc.icrc(bytes(19))
    with pytest.raises(DecodeError):
        crc.icrc(b"\0\3" + bytes(50))
