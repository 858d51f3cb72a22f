"""Subscriptions to notices, and Reports to the subscribers (IBA volume 1, 13.4.11, 15.2.5.12 and 15.4.3).

Each subscriber, a queue pair at a LID, gets its Reports one after another; each is repeated until its ReportResp comes.
A subscriber that leaves several in a row unanswered loses its subscriptions. None waits for another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from srpha.core.seams import MadAddress, MadError
from srpha.embedded.mads.gsi import GeneralServices
from srpha.embedded.subnet.subnet_view import EndPort, SubnetView, share_partition
from srpha.wire.identifiers import Gid
from srpha.wire.mad import Method
from srpha.wire.notice import LID_RANGE_ALL, InformInfo, Notice, TrapNumber
from srpha.wire.sa import SaAttribute, SaStatus, sa_request

_NO_GID: Final = Gid(0, 0)


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """How Reports are sent: ``timeout`` in seconds per try, ``retries`` further tries."""

    timeout: float = 1.0
    retries: int = 3
    failures: int = 2
    """Reports left unanswered in a row after which a subscriber is dropped."""
    most_waiting: int = 256
    """Reports waiting for one subscriber; the oldest give way."""
    most_subscriptions: int = 64
    """Subscriptions of one subscriber."""


@dataclass(slots=True)
class _Subscriber:
    """A queue pair that subscribed, what to, and what waits for it."""

    address: MadAddress
    subscriptions: dict[InformInfo, None] = field(default_factory=dict)
    waiting: deque[bytes] = field(default_factory=deque)
    failures: int = 0
    busy: bool = False


class Subscriptions:
    """The table of an SA. :meth:`run` delivers; nothing is delivered while it does not run.

    ``delivered`` and ``undelivered`` count Reports.
    """

    def __init__(self, gsi: GeneralServices, settings: ReportSettings) -> None:
        self._gsi = gsi
        self._settings = settings
        self._subscribers: dict[tuple[int, int], _Subscriber] = {}
        self._group: asyncio.TaskGroup | None = None
        self.delivered = 0
        self.undelivered = 0

    def __len__(self) -> int:
        return sum(len(subscriber.subscriptions) for subscriber in self._subscribers.values())

    async def run(self, started: Callable[[], None]) -> None:
        """Deliver until cancelled; ``started`` is called when Reports can be taken."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                started()
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            self._subscribers.clear()

    def set(self, source: MadAddress, info: InformInfo) -> int:
        """Enter or end a subscription; the status of the answer. Doing it twice is doing it once."""
        if info.subscribe not in (0, 1) or info.is_generic not in (0, 1):
            return SaStatus.REQUEST_INVALID
        if info.lid_range_begin != LID_RANGE_ALL and info.lid_range_end < info.lid_range_begin:
            return SaStatus.REQUEST_INVALID
        key = (source.lid, source.qpn)
        wanted = _essence(info)
        subscriber = self._subscribers.get(key)
        if not info.subscribe:
            if subscriber is None or wanted not in subscriber.subscriptions:
                return SaStatus.REQUEST_INVALID
            del subscriber.subscriptions[wanted]
            if not subscriber.subscriptions:
                del self._subscribers[key]
            return 0
        if subscriber is None:
            subscriber = self._subscribers[key] = _Subscriber(source)
        if wanted not in subscriber.subscriptions:
            if len(subscriber.subscriptions) >= self._settings.most_subscriptions:
                return SaStatus.NO_RESOURCES
            subscriber.subscriptions[wanted] = None
        subscriber.address = source
        subscriber.failures = 0
        return 0

    def keep_only(self, view: SubnetView) -> None:
        """Drop the subscribers whose port is not in the subnet any more."""
        for key in [key for key in self._subscribers if key[0] not in view.by_lid]:
            del self._subscribers[key]

    def report(self, notice: Notice, about: EndPort, view: SubnetView) -> None:
        """Send ``notice``, which concerns the port ``about``, to all who subscribed and may know of that port."""
        mad = sa_request(Method.REPORT, SaAttribute.NOTICE, transaction_id=0, record=notice)
        for subscriber in self._subscribers.values():
            port = view.by_lid.get(subscriber.address.lid)
            if port is None or not any(_matches(info, notice) for info in subscriber.subscriptions):
                continue
            if _concerns_gid(notice) and not share_partition(port.pkeys, about.pkeys):
                continue
            if len(subscriber.waiting) == self._settings.most_waiting:
                subscriber.waiting.popleft()
                self.undelivered += 1
            subscriber.waiting.append(mad)
            if not subscriber.busy and self._group is not None:
                subscriber.busy = True
                self._group.create_task(self._deliver(subscriber))

    async def _deliver(self, subscriber: _Subscriber) -> None:
        settings = self._settings
        key = (subscriber.address.lid, subscriber.address.qpn)
        while subscriber.waiting and self._subscribers.get(key) is subscriber:
            mad = subscriber.waiting.popleft()
            try:
                await self._gsi.transact(subscriber.address, mad, timeout=settings.timeout, retries=settings.retries)
            except MadError:
                self.undelivered += 1
                subscriber.failures += 1
                if subscriber.failures >= settings.failures and self._subscribers.get(key) is subscriber:
                    del self._subscribers[key]
            else:
                self.delivered += 1
                subscriber.failures = 0
        subscriber.busy = False


def _essence(info: InformInfo) -> InformInfo:
    """What tells one subscription of a queue pair from another; the LID range's end means nothing for all LIDs."""
    end = 0 if info.lid_range_begin == LID_RANGE_ALL else info.lid_range_end
    return replace(info, subscribe=1, lid_range_end=end, qpn=0, response_time=0)


def _matches(info: InformInfo, notice: Notice) -> bool:
    if not info.accepts(notice):
        return False
    if info.gid != _NO_GID:
        return info.gid == notice.issuer_gid
    return info.lid_range_begin == LID_RANGE_ALL or (info.lid_range_begin <= notice.issuer_lid <= info.lid_range_end)


def _concerns_gid(notice: Notice) -> bool:
    return TrapNumber.GID_IN_SERVICE <= notice.trap_number <= TrapNumber.MULTICAST_GROUP_DELETED
