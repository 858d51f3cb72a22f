"""PathRecord queries against a subnet's view (IBA volume 1, 15.2.5.16).

One record per pair of ports and P_Key asked for. Without a P_Key in the query it is the first one in the source's table
that both share, as from OpenSM.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from srpha.embedded.subnet.subnet_view import (
    EndPort,
    PathQuality,
    SubnetView,
    rate_speed,
    shared_pkeys,
)
from srpha.wire.identifiers import Gid
from srpha.wire.sa import PathRecord, PathRecordMask, SaStatus

_EXACTLY: Final = 2
_LARGEST: Final = 3
_COMPARE: Final[Mapping[int, Callable[[float, float], bool]]] = MappingProxyType(
    {0: operator.gt, 1: operator.lt, _EXACTLY: operator.eq}
)
"""By selector (IBA 15.2.5.16): more than, less than, exactly. Selector 3 takes the largest there is: always met."""


class RefusedError(Exception):
    """A query is answered with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status:#06x}")
        self.status = status


class PathQuery:
    """One query: the components of ``asked`` that ``mask`` names, from ``requester``'s point of view."""

    def __init__(self, view: SubnetView, requester: EndPort, mask: int, asked: PathRecord) -> None:
        self._view = view
        self._requester = requester
        self._mask = mask
        self._asked = asked

    def records(self, packet_life: int) -> list[PathRecord]:
        """All paths that match. Raises :class:`RefusedError`: no end given, or a GID that is not in the subnet."""
        bits = PathRecordMask
        if not self._mask & (bits.SGID | bits.SLID | bits.DGID | bits.DLID):
            raise RefusedError(SaStatus.INSUFFICIENT_COMPONENTS)
        asked = self._asked
        if self._mask & bits.RAW_TRAFFIC and asked.raw_traffic:
            return []
        if self._mask & bits.SL and asked.sl:
            return []  # everything goes at SL 0
        if self._mask & bits.TRAFFIC_CLASS and asked.traffic_class:
            return []
        if not self._meets(
            bits.PACKET_LIFE_SELECTOR, bits.PACKET_LIFE, asked.packet_life_selector, asked.packet_life, packet_life
        ):
            return []
        sources = self._ends(bits.SGID, asked.sgid, bits.SLID, asked.slid)
        destinations = self._ends(bits.DGID, asked.dgid, bits.DLID, asked.dlid)
        found: list[PathRecord] = []
        for source in sources:
            for destination in destinations:
                record = self._path(source, destination, packet_life)
                if record is not None:
                    found.append(record)
        return found

    def _ends(self, gid_bit: int, gid: Gid, lid_bit: int, lid: int) -> Sequence[EndPort]:
        """Ports that one end of the query names, all visible ones when it names none."""
        ports: Sequence[EndPort] = self._view.end_ports
        if self._mask & gid_bit:
            port = self._view.by_guid.get(gid.guid)
            if port is None or port.gid != gid:
                raise RefusedError(SaStatus.INVALID_GID)
            ports = [port]
        if self._mask & lid_bit:
            ports = [port for port in ports if port.lid == lid]
        return [port for port in ports if port.visible_to(self._requester)]

    def _path(self, source: EndPort, destination: EndPort, packet_life: int) -> PathRecord | None:
        bits, asked = PathRecordMask, self._asked
        pkey = self._pkey(source, destination)
        quality = None if pkey is None else self._view.path(source, destination)
        if pkey is None or quality is None or not self._good_enough(quality):
            return None
        return PathRecord(
            service_id=asked.service_id if self._mask & bits.SERVICE_ID else 0,
            dgid=destination.gid,
            sgid=source.gid,
            dlid=destination.lid,
            slid=source.lid,
            reversible=1,
            pkey=pkey,
            mtu_selector=_EXACTLY,
            mtu=quality.mtu,
            rate_selector=_EXACTLY,
            rate=quality.rate,
            packet_life_selector=_EXACTLY,
            packet_life=packet_life,
        )

    def _pkey(self, source: EndPort, destination: EndPort) -> int | None:
        itself = source.guid == destination.guid
        shared = iter(source.pkeys) if itself else shared_pkeys(source.pkeys, destination.pkeys)
        if not self._mask & PathRecordMask.PKEY:
            return next(shared, None)
        wanted = self._asked.pkey & 0x7FFF
        return next((pkey for pkey in shared if pkey & 0x7FFF == wanted), None)

    def _good_enough(self, quality: PathQuality) -> bool:
        bits, asked = PathRecordMask, self._asked
        if not self._meets(bits.MTU_SELECTOR, bits.MTU, asked.mtu_selector, asked.mtu, quality.mtu):
            return False
        if not self._mask & bits.RATE:
            return True
        wanted, actual = rate_speed(asked.rate), rate_speed(quality.rate)
        if wanted is None or actual is None:
            return False
        return self._meets(bits.RATE_SELECTOR, bits.RATE, asked.rate_selector, wanted, actual)

    def _meets(self, selector_bit: int, bit: int, selector: int, wanted: float, actual: float) -> bool:
        """Whether a selected component is met; a value without a selector means exactly that value."""
        if not self._mask & bit:
            return True
        chosen = selector if self._mask & selector_bit else _EXACTLY
        return chosen == _LARGEST or _COMPARE[chosen](actual, wanted)
