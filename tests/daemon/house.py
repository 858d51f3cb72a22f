"""A host with fake seams and a supervisor over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fake_seams import FakeInitiator, FakeMadPort, FakePathManager, Log

from scripted_subnet import ScriptedSubnet, local_port, srp_unit
from srpha.core.connections.pairs import Pair, PairStatus
from srpha.daemon.settings import Settings
from srpha.daemon.snapshot import Snapshot
from srpha.daemon.supervisor import Supervisor


class House:
    """A host with its seams, and a supervisor over them."""

    def __init__(self, ports: int = 2, targets: int = 2, settings: Settings | None = None) -> None:
        identities = [local_port(number) for number in range(1, ports + 1)]
        self.subnet = ScriptedSubnet(ports=identities, units=[srp_unit(n) for n in range(1, targets + 1)])
        self.ports = [FakeMadPort(identity, self.subnet) for identity in identities]
        self.initiator = FakeInitiator(tuple(port.name for port in self.ports))
        self.paths = FakePathManager(self.initiator)
        self.settings = settings or Settings()
        self.log = Log()
        self.supervisor = self.make()

    def make(self) -> Supervisor:
        return Supervisor(self.ports, self.initiator, self.paths, self.settings, self.log)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Supervisor]:
        task = asyncio.ensure_future(self.supervisor.run())
        try:
            yield self.supervisor
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is not None:
                raise task.exception()  # type: ignore[misc]

    async def until(self, what: Callable[[Snapshot], bool], limit: float = 30.0) -> float:
        """Wait until the snapshot is as wished; how long it took."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        while not what(self.supervisor.snapshot()):
            assert loop.time() - start < limit, self.supervisor.snapshot()
            await asyncio.sleep(0.005)
        return loop.time() - start

    async def connected(self, count: int, limit: float = 30.0) -> float:
        return await self.until(
            lambda seen: statuses(seen).count(PairStatus.CONNECTED) == count and seen.settled, limit
        )


def statuses(seen: Snapshot) -> list[PairStatus]:
    return [pair.status for pair in seen.pairs]


def pair_of(seen: Snapshot, port: str, number: int) -> Pair:
    unit = srp_unit(number)
    return next(p for p in seen.pairs if p.key.local_port == port and p.key.dgid == unit.gid)
