"""Fixtures of the target's tests: one target of two controllers and two units, without a transport."""

from __future__ import annotations

import pytest

from srpha.embedded.target.spec import IocSpec, TargetSpec, UnitSpec
from srpha.embedded.target.target_device import TargetDevice
from srpha.embedded.target.unit_attention import ScsiNexus

GUID = 0x0002C90300A1B2C3
INITIATOR = bytes.fromhex("00000000000000010002c90300000a01")


def make_spec(**changes: object) -> TargetSpec:
    values: dict[str, object] = {
        "name": "array",
        "iocs": (
            IocSpec(guid=GUID, id_ext=0x200500A0B81146A1, service_id=0x200500A0B81146A1),
            IocSpec(guid=GUID + 1, id_ext=0x200500A0B81146A2, service_id=0x200500A0B81146A2),
        ),
        "units": (UnitSpec(lun=0, blocks=2048), UnitSpec(lun=3, blocks=256, block_size=4096, serial="THREE")),
    }
    return TargetSpec(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def device() -> TargetDevice:
    return TargetDevice(make_spec())


@pytest.fixture
def nexus(device: TargetDevice) -> ScsiNexus:
    """A nexus through the first controller that has heard of everything."""
    opened = device.open_nexus(INITIATOR, 0)
    opened.pending.clear()
    return opened
