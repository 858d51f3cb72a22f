from __future__ import annotations

import array
import itertools

import pytest

from srpha.embedded.rdma.memory import RegionTable


def test_regions_never_touch_and_keys_never_repeat() -> None:
    table = RegionTable(5)
    regions = [table.register(bytearray(size)) for size in (0, 1, 4095, 4096, 4097, 100_000) * 20]
    ends = [(region.address, region.address + region.length) for region in regions]
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(ends))
    assert len({region.rkey for region in regions}) == len(regions)
    for region in regions:
        table.deregister(region)
        table.deregister(region)
    assert not table.regions
    assert table.register(b"").rkey not in {region.rkey for region in regions}


def test_a_region_is_its_buffer() -> None:
    table = RegionTable()
    buffer = bytearray(b"0123456789")
    region = table.register(memoryview(buffer)[2:6])
    region.view[:] = b"abcd"
    assert buffer == b"01abcd6789"
    assert table.register(b"fixed").view.readonly


def test_a_view_of_numbers_counts_in_bytes() -> None:
    region = RegionTable().register(memoryview(array.array("I", [1, 2])))
    assert (region.length, len(region.view)) == (8, 8)


def test_a_scattered_view_is_refused() -> None:
    with pytest.raises(TypeError):
        RegionTable().register(memoryview(bytearray(10))[::2])
