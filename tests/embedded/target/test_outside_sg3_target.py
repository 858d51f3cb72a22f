"""sg3_utils as judge of what a unit returns through SRP, and proof that it notices a planted fault."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from srpha.embedded.virtual_time import run_virtual
from srpha.wire.scsi import cdb
from srpha.wire.scsi.alua import AccessState
from tests.embedded.target.bench import TUR, Bench


def ask(command: bytes, *, lun: int = 3, length: int = 252) -> bytes:
    """Data-in of one command of a session on the second controller."""

    async def scene() -> bytes:
        session = await Bench().login(controller=1, ready=True)
        response, data = await session.read(command, length, lun)
        assert response.status == 0
        return data[: length - response.in_residual]

    return run_virtual(scene())


def provoke(command: bytes, state: AccessState | None = None) -> bytes:
    """Sense data of one command that must fail, or of TEST UNIT READY after an access state change."""

    async def scene() -> bytes:
        bench = Bench()
        session = await bench.login(controller=1, ready=True)
        if state is not None:
            bench.target.device.set_access_state(1, state)
            changed = await session.run(TUR)
            return changed.sense if command == TUR else (await session.run(command)).sense
        return (await session.run(command)).sense

    return run_virtual(scene())


def judge(tool: str, *arguments: str, hexfile: Path | None = None, data: bytes = b"") -> str:
    """Output of a tool of sg3_utils that reads ``data`` as hex text."""
    if hexfile is not None:
        hexfile.write_text(data.hex(" ") + "\n")
        arguments = (f"--inhex={hexfile}", *arguments)
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=20, check=False)
    return " ".join((done.stdout + done.stderr).split())


@pytest.mark.outside("sg_inq")
def test_standard_inquiry(tmp_path: Path) -> None:
    said = judge("sg_inq", hexfile=tmp_path / "data", data=ask(cdb.inquiry(96), length=96))
    for text in (
        "PQual=0 PDT=0",
        "version=0x06 [SPC-4]",
        "Resp_data_format=2",
        "TPGS=1",
        "MultiP=1",
        "CmdQue=1",
        "Vendor identification: SRPHA",
        "Product identification: EMBEDDED DISK",
        "Product revision level: 0001",
    ):
        assert text in said


@pytest.mark.outside("sg_vpd")
@pytest.mark.parametrize(
    ("page", "texts"),
    [
        (0x00, ["Supported VPD pages [sv]", "Unit serial number [sn]", "Device identification [di]", "Block limits"]),
        (0x80, ["Unit serial number: THREE"]),
        (
            0x83,
            [
                "designator type: NAA, code set: Binary 0x60002c9300a1b2c30000000000000003",
                "vendor id: SRPHA vendor specific: THREE",
                "transport: SCSI RDMA Protocol (SRP) Relative target port: 0x2",
                "transport: SCSI RDMA Protocol (SRP) Target port group: 0x2",
            ],
        ),
        (0xB0, ["Maximum transfer length: 1024 blocks", "Unmap command not implemented"]),
    ],
)
def test_vpd_pages(tmp_path: Path, page: int, texts: list[str]) -> None:
    said = judge("sg_vpd", f"--page={page:#04x}", hexfile=tmp_path / "data", data=ask(cdb.inquiry(252, page)))
    assert "<<" not in said
    for text in texts:
        assert text in said


@pytest.mark.outside("sg_vpd")
def test_the_judge_notices_a_planted_fault(tmp_path: Path) -> None:
    """An NAA format whose identifiers are half as long."""
    data = ask(cdb.inquiry(252, 0x83))
    planted = data.replace(b"\x01\x03\x00\x10\x60", b"\x01\x03\x00\x10\x50")
    assert planted != data
    said = judge("sg_vpd", "--page=0x83", hexfile=tmp_path / "data", data=planted)
    assert "unexpected NAA 5 identifier length" in said


@pytest.mark.outside("sg_decode_sense")
@pytest.mark.parametrize(
    ("command", "state", "texts"),
    [
        (b"\xff" * 16, None, ["Illegal Request", "Invalid command operation code"]),
        (cdb.read(1 << 20, 1), None, ["Illegal Request", "Logical block address out of range"]),
        (bytes.fromhex("12 01 c9 00 ff 00"), None, ["Invalid field in cdb", "Error in Command: byte 2"]),
        (TUR, AccessState.STANDBY, ["Unit Attention", "Asymmetric access state changed"]),
        (cdb.read(0, 1), AccessState.STANDBY, ["Not Ready", "target port in standby state"]),
        (cdb.read(0, 1), AccessState.TRANSITIONING, ["Not Ready", "asymmetric access state transition"]),
        (bytes.fromhex("1a 08 c8 00 ff 00"), None, ["Illegal Request", "Saving parameters not supported"]),
    ],
)
def test_sense_data(command: bytes, state: AccessState | None, texts: list[str]) -> None:
    said = judge("sg_decode_sense", *provoke(command, state).hex(" ").split())
    assert "Fixed format, current" in said
    for text in texts:
        assert text in said


@pytest.mark.outside("sg_decode_sense")
def test_the_judge_of_sense_notices_a_planted_fault() -> None:
    sense = bytearray(provoke(cdb.read(1 << 20, 1)))
    sense[12] = 0x20
    assert "out of range" not in judge("sg_decode_sense", *sense.hex(" ").split())
