"""Partitions and P_Key tables; the rest of bringing up a subnet is tested with the subnet manager."""

from __future__ import annotations

import pytest

from srpha.embedded.subnet.configure import EVERYBODY, Partition, partition_table

A, B, C = 0xA, 0xB, 0xC


def test_membership() -> None:
    partition = Partition(0x12, full=frozenset({A}), limited=frozenset({A, B}))
    assert [partition.entry(guid) for guid in (A, B, C)] == [0x8012, 0x0012, 0]
    assert Partition(0x12).entry(C) == 0x8012
    assert Partition(0x12, full=frozenset(), limited=None).entry(C) == 0x0012


def test_default_partition_comes_first_and_has_everybody() -> None:
    assert partition_table(EVERYBODY, A) == (0xFFFF,)
    assert partition_table((), A) == (0x7FFF,)
    only_b = Partition(0x7FFF, full=frozenset({B}))
    storage = Partition(0x12, full=frozenset({A}))
    assert partition_table((storage, only_b), A) == (0x7FFF, 0x8012)
    assert partition_table((storage, only_b), B) == (0xFFFF,)


def test_one_block_is_the_limit() -> None:
    partitions = tuple(Partition(number) for number in range(1, 33))
    with pytest.raises(ValueError, match="more than 32 partitions"):
        partition_table(partitions, A)
    assert len(partition_table(partitions[:31], A)) == 32


@pytest.mark.parametrize("pkey", [0, 0x8000, 0x8012, 0xFFFF, -1])
def test_pkey_without_membership_bit(pkey: int) -> None:
    with pytest.raises(ValueError, match="P_Key"):
        Partition(pkey)
