"""What every structure of the management classes has in common: length, reserved bits, round trips, short input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import masked, reserved_count, structures, used_bits

from srpha.wire import class_port_info, dm, mad, notice, rmpp, sa, smp
from srpha.wire.errors import DecodeError
from srpha.wire.layout import Structure

# structure, length in bytes, number of reserved bits, both counted in the specification's tables
TABLE: list[tuple[type[Structure], int, int]] = [
    (mad.MadHeader, 24, 16),
    (rmpp.RmppHeader, 12, 0),
    (class_port_info.ClassPortInfo, 72, 8),
    (notice.InformInfo, 36, 16 + 3 + 8),
    (notice.Notice, 80, 0),
    (smp.LidRoutedSmp, 256, 16 + 16 + 32 * 8 + 128 * 8),
    (smp.DirectedRouteSmp, 256, 16 + 28 * 8),
    (smp.NodeInfo, 40, 0),
    (smp.NodeDescription, 64, 0),
    (smp.SwitchInfo, 20, 3 + 8),
    (smp.PortInfo, 64, 3 + 3 + 8 + 3),
    (smp.PkeyTableBlock, 64, 0),
    (smp.GuidInfoBlock, 64, 0),
    (smp.LinearForwardingTableBlock, 64, 0),
    (smp.SmInfo, 21, 0),
    (dm.IoUnitInfo, 132, 6),
    (dm.IoControllerProfile, 128, 8 + 16 + 8 + 8 + 9 * 8),
    (dm.ServiceEntry, 48, 0),
    (dm.ServiceEntries, 192, 0),
    (sa.NodeRecord, 108, 16),
    (sa.PortInfoRecord, 68, 0),
    (sa.PathRecord, 64, 3 + 6 * 8),
]
CLASSES = [row[0] for row in TABLE]


@pytest.mark.parametrize(("cls", "length", "reserved"), TABLE)
def test_length_and_reserved_bits(cls: type[Structure], length: int, reserved: int) -> None:
    assert length == cls.LENGTH
    assert len(cls.decode(bytes(length)).encode()) == length
    assert reserved_count(cls) == reserved


@pytest.mark.parametrize("cls", CLASSES)
@given(data=st.data())
def test_bytes_survive_outside_reserved_bits(cls: type[Structure], data: st.DataObject) -> None:
    wire = data.draw(st.binary(min_size=cls.LENGTH, max_size=cls.LENGTH))
    assert cls.decode(wire).encode() == masked(wire, used_bits(cls))


@pytest.mark.parametrize("cls", CLASSES)
@given(data=st.data())
def test_values_survive(cls: type[Structure], data: st.DataObject) -> None:
    value = data.draw(structures(cls))
    lead = data.draw(st.integers(0, 9))
    assert cls.decode(bytes(lead) + value.encode() + b"\xff", lead) == value


@pytest.mark.parametrize("cls", CLASSES)
def test_short_input_is_refused(cls: type[Structure]) -> None:
    for buffer, offset in ((b"", 0), (bytes(cls.LENGTH - 1), 0), (bytes(cls.LENGTH), 1), (bytes(cls.LENGTH), -1)):
        with pytest.raises(DecodeError):
            cls.decode(buffer, offset)
