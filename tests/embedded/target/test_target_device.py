from __future__ import annotations

import pytest

from srpha.embedded.target.spec import SpecError, UnitSpec
from srpha.embedded.target.target_device import TargetDevice
from srpha.embedded.target.unit_attention import Attention, ScsiNexus
from srpha.wire.scsi.alua import AccessState
from tests.embedded.target.conftest import INITIATOR


class Waiting:
    """A task that only waits."""

    def __init__(self, device: TargetDevice, lun: int, nexus: ScsiNexus) -> None:
        self.nexus = nexus
        self.aborted = False
        self._tasks = device.units[lun].tasks
        self._tasks.add(self)

    def abort(self) -> None:
        self.aborted = True
        self._tasks.discard(self)


def test_lun_fields(device: TargetDevice) -> None:
    assert device.unit_at(0) is device.units[0]
    assert device.unit_at(0x0003000000000000) is device.units[3]
    assert device.unit_at(0x4003000000000000) is device.units[3]
    assert device.unit_at(0xD200000300000000) is device.units[3]
    for field in (0x0001000000000000, 0x0003000000000001, 0xC101000000000000, 0x0103000000000000):
        assert device.unit_at(field) is None


def test_first_and_later_nexuses_hear_different_things(device: TargetDevice) -> None:
    first = device.open_nexus(INITIATOR, 0)
    assert first.pending == {0: [Attention.POWER_ON], 3: [Attention.POWER_ON]}
    device.close_nexus(first)
    assert device.open_nexus(INITIATOR, 0).pending == {0: [Attention.NEXUS_LOSS], 3: [Attention.NEXUS_LOSS]}
    assert device.open_nexus(INITIATOR, 1).peek(0) is Attention.POWER_ON
    device.power_on()
    assert device.open_nexus(INITIATOR, 0).peek(0) is Attention.POWER_ON


def test_nexus_loss_aborts_its_commands_only(device: TargetDevice, nexus: ScsiNexus) -> None:
    other = device.open_nexus(INITIATOR, 1)
    mine, theirs = Waiting(device, 0, nexus), Waiting(device, 3, other)
    device.close_nexus(nexus)
    assert (mine.aborted, theirs.aborted) == (True, False)
    device.announce(0, Attention.UNIT_RESET)
    assert not nexus.pending


def test_a_nexus_that_was_replaced_closes_quietly(device: TargetDevice, nexus: ScsiNexus) -> None:
    newer = device.open_nexus(INITIATOR, 0)
    device.close_nexus(nexus)
    newer.pending.clear()
    device.announce(0, Attention.UNIT_RESET)
    assert newer.pending == {0: [Attention.UNIT_RESET]}


def test_unit_reset_reaches_everybody(device: TargetDevice, nexus: ScsiNexus) -> None:
    other = device.open_nexus(INITIATOR, 1)
    task, elsewhere = Waiting(device, 0, other), Waiting(device, 3, other)
    device.reset_unit(0)
    assert (task.aborted, elsewhere.aborted) == (True, False)
    assert nexus.pending == {0: [Attention.UNIT_RESET]}
    assert other.peek(0) is Attention.UNIT_RESET


def test_units_come_and_go(device: TargetDevice, nexus: ScsiNexus) -> None:
    device.add_unit(UnitSpec(lun=1, blocks=8))
    assert device.luns == (0, 1, 3)
    assert nexus.pending == {0: [Attention.LUNS_CHANGED], 3: [Attention.LUNS_CHANGED], 1: [Attention.POWER_ON]}
    nexus.pending.clear()
    task = Waiting(device, 1, nexus)
    device.remove_unit(1)
    assert task.aborted
    assert device.luns == (0, 3)
    assert device.unit_at(0x0001000000000000) is None
    assert nexus.pending == {0: [Attention.LUNS_CHANGED], 3: [Attention.LUNS_CHANGED]}


def test_changes_of_a_unit_are_announced(device: TargetDevice, nexus: ScsiNexus) -> None:
    device.resize_unit(0, 4096)
    device.identify_unit(0, 6 << 124 | 9, "OTHER")
    device.set_access_state(0, AccessState.STANDBY)
    device.set_access_state(0, AccessState.STANDBY)
    assert device.units[0].blocks == 4096
    assert device.units[0].backing.size == 4096 * 512
    assert nexus.pending[0] == [
        Attention.CAPACITY_CHANGED,
        Attention.INQUIRY_CHANGED,
        Attention.ACCESS_STATE_CHANGED,
    ]
    assert nexus.pending[3] == [Attention.ACCESS_STATE_CHANGED]


def test_what_cannot_be_done_changes_nothing(device: TargetDevice, nexus: ScsiNexus) -> None:
    with pytest.raises(SpecError, match="has a LUN 3 already"):
        device.add_unit(UnitSpec(lun=3, blocks=8))
    with pytest.raises(SpecError, match="has no LUN 9"):
        device.remove_unit(9)
    with pytest.raises(SpecError, match="blocks of LUN 0 is 0"):
        device.resize_unit(0, 0)
    with pytest.raises(SpecError, match="identity of LUN 0"):
        device.identify_unit(0, 5, "X")
    assert device.luns == (0, 3)
    assert not nexus.pending


def test_data_survive_power_loss(device: TargetDevice) -> None:
    device.units[0].backing.write(0, b"kept")
    device.power_on()
    assert device.units[0].backing.read(0, 4) == b"kept"
