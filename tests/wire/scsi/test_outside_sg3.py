"""Our SCSI bytes as sg3_utils read them. Every check has a planted fault that the tool must notice."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from srpha.wire.scsi import inquiry, vpd
from srpha.wire.scsi.sense import Asc, Sense, SenseKey, encode_descriptor, encode_fixed

NAA6 = bytes.fromhex("6001405a1b2c3d4e5f60718293a4b5c6")
PAGE_83 = vpd.encode_identification(
    [
        vpd.naa_designator(NAA6),
        vpd.t10_designator("SRPHA", "disk 0"),
        vpd.relative_port_designator(2),
        vpd.port_group_designator(257),
    ]
)


def needs(tool: str) -> list[pytest.MarkDecorator]:
    return [
        pytest.mark.outside(tool),
        pytest.mark.skipif(shutil.which(tool) is None, reason=f"outside tool missing: {tool}"),
    ]


def sg(tool: str, data: bytes, folder: Path, *options: str) -> str:
    """What ``tool`` prints, on both streams, for ``data`` given as a hex file."""
    source = folder / "bytes.hex"
    source.write_text(data.hex(" ") + "\n")
    path = shutil.which(tool)
    assert path is not None
    # sg_decode_sense has another name for the same option
    given = "file" if tool == "sg_decode_sense" else "inhex"
    run = subprocess.run(
        [path, f"--{given}={source}", *options], capture_output=True, text=True, timeout=20, check=False
    )
    return run.stdout + run.stderr


class TestVpd:
    pytestmark = needs("sg_vpd")

    def test_identification(self, tmp_path: Path) -> None:
        text = sg("sg_vpd", PAGE_83, tmp_path, "--page=0x83")
        assert f"0x{NAA6.hex()}" in text
        assert "vendor id: SRPHA" in text
        assert "Relative target port: 0x2" in text
        assert "Target port group: 0x101" in text
        assert "SCSI RDMA" in text
        assert "unexpected" not in text

    def test_catches_naa_of_wrong_length(self, tmp_path: Path) -> None:
        wrong = vpd.encode_page(0x83, bytes.fromhex("01030008") + NAA6[:8])
        text = sg("sg_vpd", wrong, tmp_path, "--page=0x83")
        assert "unexpected" in text
        assert NAA6[:8].hex() not in text.replace(" ", "").replace("0x", "").split("unexpected")[0]

    def test_serial(self, tmp_path: Path) -> None:
        assert "Unit serial number: SRPHA1" in sg("sg_vpd", vpd.encode_serial("SRPHA1"), tmp_path, "--page=0x80")

    def test_catches_cut_serial(self, tmp_path: Path) -> None:
        wrong = bytearray(vpd.encode_serial("SRPHA1"))
        wrong[1] = 0x83
        assert "Unit serial number: SRPHA1" not in sg("sg_vpd", bytes(wrong), tmp_path, "--page=0x80")

    def test_block_limits(self, tmp_path: Path) -> None:
        page = vpd.BlockLimits(max_compare_and_write=1, max_transfer=32768, optimal_transfer=128, max_unmap_blocks=77)
        text = sg("sg_vpd", page.encode(), tmp_path, "--page=0xb0")
        assert "Maximum compare and write length: 1 blocks" in text
        assert "Maximum transfer length: 32768 blocks" in text
        assert "Optimal transfer length: 128 blocks" in text
        assert "Maximum unmap LBA count: 77" in text

    def test_catches_shifted_block_limits(self, tmp_path: Path) -> None:
        page = vpd.BlockLimits(max_transfer=32768).encode()
        text = sg("sg_vpd", page[:8] + b"\0" + page[8:-1], tmp_path, "--page=0xb0")
        assert "Maximum transfer length: " in text
        assert "Maximum transfer length: 32768 blocks" not in text


class TestInquiry:
    pytestmark = needs("sg_inq")

    TOLD = inquiry.StandardInquiry("SRPHA", "embedded disk", "0001", target_port_groups=3, multi_port=True)

    def test_standard(self, tmp_path: Path) -> None:
        text = sg("sg_inq", self.TOLD.encode(), tmp_path, "--descriptors")
        assert "Vendor identification: SRPHA" in text
        assert "Product identification: embedded disk" in text
        assert "Product revision level: 0001" in text
        assert "TPGS=3" in text
        assert "MultiP=1" in text
        assert "CmdQue=1" in text
        assert "SBC-3" in text

    def test_catches_wrong_tpgs(self, tmp_path: Path) -> None:
        wrong = bytearray(self.TOLD.encode())
        wrong[5], wrong[6] = wrong[6], wrong[5]
        text = sg("sg_inq", bytes(wrong), tmp_path)
        assert "SRPHA" in text
        assert "TPGS=3" not in text


class TestSense:
    pytestmark = needs("sg_decode_sense")

    @pytest.mark.parametrize("encode", [encode_fixed, encode_descriptor])
    def test_codes(self, encode: Callable[[Sense], bytes], tmp_path: Path) -> None:
        wrong = []
        for code in Asc:
            text = sg("sg_decode_sense", encode(Sense.of(SenseKey.UNIT_ATTENTION, code)), tmp_path)
            if "Unit Attention" not in text or code.text.lower() not in text.lower():
                wrong.append(f"{code.name}: {text}")
        assert wrong == []

    def test_field_pointer(self, tmp_path: Path) -> None:
        data = encode_fixed(Sense(5, 0x24, 0, information=0x1234, field_pointer=2))
        text = sg("sg_decode_sense", data, tmp_path)
        assert "Illegal Request" in text
        assert "byte 2" in text

    def test_catches_swapped_codes(self, tmp_path: Path) -> None:
        wrong = bytearray(encode_fixed(Sense.of(SenseKey.UNIT_ATTENTION, Asc.ALUA_STATE_CHANGED)))
        wrong[12], wrong[13] = wrong[13], wrong[12]
        text = sg("sg_decode_sense", bytes(wrong), tmp_path)
        assert "Unit Attention" in text
        assert "symmetric access state changed" not in text
