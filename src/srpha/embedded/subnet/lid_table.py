"""LIDs of a subnet: which port has which, and the next free one (IBA volume 1, 14.4.4, 4.1.3).

A port keeps its LID as long as the table lives, present or not. A table that is new takes over what ports already have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from srpha.embedded.fabric.ports import LFT_CAPACITY
from srpha.wire.identifiers import LID_UNICAST_MAX

_LAST: Final = min(LID_UNICAST_MAX, LFT_CAPACITY - 1)


@dataclass(frozen=True, slots=True)
class Claim:
    """A port, by its GUID, and the LID it says it has; 0 for none."""

    guid: int
    lid: int


class LidTable:
    """LIDs by port GUID. ``first`` is the lowest one given away."""

    def __init__(self, first: int = 1) -> None:
        self._first = first
        self._lids: dict[int, int] = {}
        self._owners: dict[int, int] = {}
        self._used_up = first - 1
        """No LID above this one was ever given or taken over."""

    def lid(self, guid: int) -> int | None:
        """LID of a port, None for one without."""
        return self._lids.get(guid)

    def assign(self, claims: Iterable[Claim]) -> None:
        """Give every claimed port a LID: the one it has in the table, else the one it claims, else the lowest free one.

        Of two ports that claim one LID the first in order gets it. A port stays without when no LID is left.
        """
        claims = tuple(claims)
        for claim in claims:
            if claim.guid not in self._lids and 0 < claim.lid <= _LAST and claim.lid not in self._owners:
                self._take(claim.guid, claim.lid)
        free = self._first
        for claim in claims:
            if claim.guid in self._lids:
                continue
            while free in self._owners:
                free += 1
            if free > _LAST:
                return
            self._take(claim.guid, free)

    def move(self, guids: Iterable[int]) -> None:
        """Give ports LIDs that nobody ever had in this table, ascending; they keep theirs when none is left."""
        for guid in guids:
            if self._used_up == _LAST:
                return
            old = self._lids.pop(guid, None)
            if old is not None:
                del self._owners[old]
            self._take(guid, self._used_up + 1)

    def _take(self, guid: int, lid: int) -> None:
        self._lids[guid] = lid
        self._owners[lid] = guid
        self._used_up = max(self._used_up, lid)
