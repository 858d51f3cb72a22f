from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from srpha.core.seams import MadAddress
from srpha.kernel import umad_abi
from srpha.kernel.umad_abi import Agent, packet, read_packet, registered_id, registration, registration2, wanted_length
from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.identifiers import Gid

SA = Agent(0x03, 2, rmpp_version=1, methods=(0x06,))
MAD = bytes(range(256))
LITTLE = pytest.mark.skipif(__import__("sys").byteorder != "little", reason="golden bytes of a little-endian machine")


@LITTLE
class TestGoldenBytes:
    def test_a_request_by_lid(self) -> None:
        address = MadAddress(lid=0x1234, qpn=1, qkey=0x80010000, sl=3, pkey_index=2)
        data = packet(1, address, MAD, timeout_ms=2000, retries=3)
        assert data[:64].hex() == (
            "01000000" "00000000" "d0070000" "03000000" "40010000"  # id, status, timeout, retries, length
            "00000001" "80010000" "1234" "03" "00" "00" "00" "00" "00"  # QPN, Q_Key, LID, SL, path bits, no GRH
            + "00" * 16 + "00000000" "0200" + "00" * 6
        )  # fmt: skip
        assert data[64:] == MAD

    def test_a_request_by_gid_goes_with_a_grh(self) -> None:
        address = MadAddress(lid=0, gid=Gid(0xFE80 << 48, 0x0002C90300000022), gid_index=3)
        data = packet(0, address, MAD, timeout_ms=1, retries=0)
        assert data[28:36].hex() == "0000000001034000"
        assert data[36:52].hex() == "fe800000000000000002c90300000022"

    def test_registrations(self) -> None:
        assert registration2(SA).hex() == (
            "00000000" "01000000" "03" "02" "0000" "00000000" "4000000000000000"
            "0000000000000000" "00000000" "01000000"
        )  # fmt: skip
        assert registration(SA).hex() == (
            "00000000" "40000000000000000000000000000000" "01" "03" "02" "000000" "01" "00"
        )  # fmt: skip

    def test_the_id_that_comes_back(self) -> None:
        assert registered_id(bytearray.fromhex("05000000") + bytes(36)) == 5

    def test_what_is_received(self) -> None:
        header = bytes.fromhex(
            "01000000" "6e000000" "00000000" "00000000" "58000000"
            "00000001" "00000000" "0021" "02" "00" "01" "01" "ff" "00"
            "fe800000000000000002c90300000022" "00000000" "0100" "000000000000"
        )  # fmt: skip
        received = read_packet(header + MAD[:24])
        assert (received.agent_id, received.status, received.mad) == (1, 110, MAD[:24])
        assert received.source == MadAddress(
            lid=0x21, sl=2, pkey_index=1, gid=Gid(0xFE80 << 48, 0x0002C90300000022), gid_index=1
        )
        assert wanted_length(header) == 0x58


def test_a_received_header_without_grh_has_no_gid() -> None:
    data = bytearray(packet(0, MadAddress(lid=5), MAD))
    data[36:52] = b"\xaa" * 16
    data[33] = 7
    assert read_packet(data).source == MadAddress(lid=5)


@pytest.mark.parametrize("length", [0, 1, 63])
def test_a_packet_without_its_header_is_refused(length: int) -> None:
    with pytest.raises(DecodeError, match="64 bytes"):
        read_packet(bytes(length))


@pytest.mark.parametrize(
    "address",
    [
        MadAddress(lid=0x10000),
        MadAddress(lid=-1),
        MadAddress(lid=1, sl=16),
        MadAddress(lid=1, qpn=1 << 24),
        MadAddress(lid=1, pkey_index=0x10000),
        MadAddress(lid=1, gid=Gid(1, 2), gid_index=256),
    ],
)
def test_an_address_that_does_not_fit_is_refused(address: MadAddress) -> None:
    with pytest.raises(EncodeError, match="does not fit"):
        packet(0, address, MAD)


def test_a_method_that_is_no_request_is_refused() -> None:
    with pytest.raises(EncodeError, match="0x86"):
        registration2(Agent(3, 2, methods=(0x86,)))


PROBE = """
#include <stddef.h>
#include <stdio.h>
#include <rdma/ib_user_mad.h>
#define H(f) printf(#f " %zu\\n", offsetof(struct ib_user_mad_hdr, f))
int main(void) {
    printf("sizeof %zu\\n", sizeof(struct ib_user_mad_hdr));
    H(status); H(timeout_ms); H(retries); H(length); H(qpn); H(qkey); H(lid); H(sl); H(path_bits); H(grh_present);
    H(gid_index); H(hop_limit); H(traffic_class); H(gid); H(flow_label); H(pkey_index);
    printf("reg %zu\\n", sizeof(struct ib_user_mad_reg_req));
    printf("rmpp %zu\\n", offsetof(struct ib_user_mad_reg_req, rmpp_version));
    printf("reg2 %zu\\n", sizeof(struct ib_user_mad_reg_req2));
    printf("mask2 %zu\\n", offsetof(struct ib_user_mad_reg_req2, method_mask));
    printf("rmpp2 %zu\\n", offsetof(struct ib_user_mad_reg_req2, rmpp_version));
    printf("REGISTER_AGENT %u\\n", (unsigned)IB_USER_MAD_REGISTER_AGENT);
    printf("ENABLE_PKEY %u\\n", (unsigned)IB_USER_MAD_ENABLE_PKEY);
    printf("REGISTER_AGENT2 %u\\n", (unsigned)IB_USER_MAD_REGISTER_AGENT2);
    printf("ABI_VERSION %u\\n", (unsigned)IB_USER_MAD_ABI_VERSION);
    return 0;
}
"""


LAYOUT = {
    "sizeof": "64",
    "status": "4",
    "timeout_ms": "8",
    "retries": "12",
    "length": "16",
    "qpn": "20",
    "qkey": "24",
    "lid": "28",
    "sl": "30",
    "path_bits": "31",
    "grh_present": "32",
    "gid_index": "33",
    "hop_limit": "34",
    "traffic_class": "35",
    "gid": "36",
    "flow_label": "52",
    "pkey_index": "56",
    "reg": "28",
    "rmpp": "26",
    "reg2": "40",
    "mask2": "16",
    "rmpp2": "36",
}


@pytest.mark.outside("gcc")
def test_against_the_kernels_own_header(tmp_path: Path) -> None:
    """What the C compiler makes of Linux's header, asked for field by field."""
    source, program = tmp_path / "probe.c", tmp_path / "probe"
    source.write_text(PROBE)
    built = subprocess.run(["gcc", "-o", program, source], capture_output=True, text=True, check=False)
    if "No such file" in built.stderr:
        pytest.skip("the kernel's headers are not installed")
    assert built.returncode == 0, built.stderr
    shown = dict(
        line.split()
        for line in subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    )
    names = ("REGISTER_AGENT", "ENABLE_PKEY", "REGISTER_AGENT2", "ABI_VERSION")
    assert shown == LAYOUT | {name: str(getattr(umad_abi, name)) for name in names}
