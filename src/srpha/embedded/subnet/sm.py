"""The subnet manager: sweeps, sets up and watches the subnet (IBA volume 1, 14.4), and feeds the SA.

It knows nothing but what SMPs told it. A sweep follows a trap, a change of the own link, a request, or the timer;
causes that come while one runs or within the settling time make one further sweep together. LIDs stay with the port
GUIDs as long as the manager lives; a manager that starts on a running subnet takes over the LIDs that it finds.

P_Key tables are written when a port comes up and when the partitions change; what a port holds is read back in every
sweep, and that is what the SA answers from. SMInfo priorities are not negotiated: the world runs one manager at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from srpha.core.seams import Unwatch
from srpha.embedded.fabric.ports import Port, PortEvent
from srpha.embedded.mads.gsi import GeneralServices
from srpha.embedded.subnet.configure import EVERYBODY, Configurator, Memory, Partition, PortSettings
from srpha.embedded.subnet.lid_table import Claim, LidTable
from srpha.embedded.subnet.sa import AdministratorSettings, SubnetAdministrator
from srpha.embedded.subnet.smi import SubnetManagement
from srpha.embedded.subnet.subnet_view import EndPort, SubnetView, empty_view
from srpha.embedded.subnet.sweep import Found, discover
from srpha.wire.notice import CapabilityTrap144, GidTrap, Notice, Trap, TrapNumber, read_trap
from srpha.wire.smp import NodeType, PortCapability, SmInfo, SmState


@dataclass(frozen=True, slots=True)
class SubnetSettings:
    """How a subnet is managed. Times are in seconds."""

    ports: PortSettings = field(default_factory=PortSettings)
    partitions: tuple[Partition, ...] = EVERYBODY
    sweep_interval: float = 10.0
    """Between sweeps that nothing asked for."""
    settle_time: float = 0.02
    """Between a cause and its sweep, so that causes that belong together make one sweep."""
    first_lid: int = 1
    new_lids: bool = False
    """Give every port a new LID in the first sweep, instead of taking over what is there."""
    administrator: AdministratorSettings = field(default_factory=AdministratorSettings)


class SubnetManager:
    """A subnet manager with its SA on ``port``. One object serves one life: to restart, make a new one.

    ``sweeps`` counts finished sweeps, ``failed_sweeps`` those in which not even the own port answered.
    """

    def __init__(
        self, port: Port, smi: SubnetManagement, gsi: GeneralServices, settings: SubnetSettings = SubnetSettings()
    ) -> None:
        self._port = port
        self._smi = smi
        self._settings = settings
        self._partitions = settings.partitions
        self._memory = Memory(LidTable(settings.first_lid))
        self._moving: frozenset[int] | None = frozenset()
        if settings.new_lids:
            self._moving = None
        self._traps: dict[int, Notice] = {}
        self._wake = asyncio.Event()
        self._swept = asyncio.Event()
        self._ends: list[Unwatch] = []
        self._stopped = False
        self._waiters: list[asyncio.Future[None]] = []
        self.view = empty_view(settings.ports.prefix)
        self.administrator = SubnetAdministrator(gsi, settings.administrator)
        self.sweeps = 0
        self.failed_sweeps = 0

    @property
    def silent(self) -> tuple[tuple[int, int], ...]:
        """Ports (node GUID, number) with a live link behind which nobody answered in the last sweep."""
        return tuple(sorted(self._memory.silent))

    async def run(self) -> None:
        """Manage the subnet until cancelled; then the subnet stays as it is, without manager and SA.

        Closing the QP0 below ends the manager's part on the port at once, so that another can start there in the same
        turn of the loop; this method is still to be cancelled.
        """
        self._ends = [
            self._smi.watch_traps(self._trap),
            self._smi.watch_close(self._stop),
            self._port.watch(self._port_changed),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.administrator.run())
                group.create_task(self._sweep_forever())
        finally:
            self._stop()

    def _stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        for end in self._ends:
            end()
        for waiter in self._waiters:
            waiter.cancel()
        self.administrator.stop()
        self._port.sm_info = None
        self._port.set_capability(PortCapability.SM, on=False)

    async def ready(self) -> None:
        """Wait until the first sweep is over."""
        await self._swept.wait()

    async def sweep(self) -> None:
        """Ask for a sweep and wait until one that began after this call is over. Cancelled when no sweep will come."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._wake.set()
        await waiter

    def set_partitions(self, partitions: tuple[Partition, ...]) -> None:
        """Change the partitions; every P_Key table is written anew in the next sweep, which follows soon."""
        self._partitions = partitions
        self._memory.partitioned.clear()
        self._wake.set()

    def reassign_lids(self, guids: Iterable[int] | None = None) -> None:
        """Give the ports of these GUIDs, or all, LIDs that nobody had before, in a sweep that follows soon."""
        if guids is None or self._moving is None:
            self._moving = None
        else:
            self._moving |= frozenset(guids)
        self._wake.set()

    async def _sweep_forever(self) -> None:
        while not self._stopped:
            self._wake.clear()
            waiters, self._waiters = self._waiters, []
            try:
                await self._sweep()
            finally:
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(None)
            try:
                async with asyncio.timeout(self._settings.sweep_interval):
                    await self._wake.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(self._settings.settle_time)

    async def _sweep(self) -> None:
        self._announce()
        traps, self._traps = self._traps, {}
        found = await discover(self._smi, self._memory.silent)
        view: SubnetView | None = None
        if found is not None:
            self._assign_lids(found)
            work = Configurator(self._smi, found, self._memory, self._settings.ports, self._partitions)
            view = await work.configure()
            self._memory.silent = frozenset(found.silent)
        if found is None or view is None or self._stopped:
            self.failed_sweeps += 1
            return
        before, self.view = self.view, view
        self.administrator.publish(view)
        self._tell_changes(before, view, work.activated, traps)
        self.sweeps += 1
        self._swept.set()
        await work.ask_to_register(frozenset(_to_register(before, view)))

    def _announce(self) -> None:
        """Be recognisable as a subnet manager, also after the node lost its registers."""
        self._port.sm_info = SmInfo(guid=self._port.guid, activity_count=self.sweeps, state=SmState.MASTER)
        self._port.set_capability(PortCapability.SM, on=True)

    def _assign_lids(self, found: Found) -> None:
        lids = self._memory.lids
        claims: list[Claim] = []
        for node in found.nodes.values():
            ends = [node.ports[0]] if node.info.node_type == NodeType.SWITCH else node.ports.values()
            claims += [Claim(port.guid, port.info.lid) for port in ends]
        lids.assign(claims)
        if self._moving is None:
            lids.move(claim.guid for claim in claims)
        elif self._moving:
            lids.move(claim.guid for claim in claims if claim.guid in self._moving)
        self._moving = frozenset()

    def _tell_changes(
        self, before: SubnetView, after: SubnetView, activated: set[int], traps: dict[int, Notice]
    ) -> None:
        """Notices of what is different, the departures first."""
        report = self.administrator.report
        for port in before.end_ports:
            if port.guid not in after.by_guid:
                report(GidTrap(TrapNumber.GID_OUT_OF_SERVICE, port.gid), port)
        for port in after.end_ports:
            known = before.by_guid.get(port.guid)
            if known is None or port.guid in activated:
                report(GidTrap(TrapNumber.GID_IN_SERVICE, port.gid), port)
            trap = self._capability_trap(known, port, traps)
            if trap is not None:
                report(trap, port)

    @staticmethod
    def _capability_trap(known: EndPort | None, port: EndPort, traps: dict[int, Notice]) -> Trap | None:
        """What to tell of a port's capabilities: its own trap, or, when that was lost, what the sweep saw."""
        trap = read_trap(traps[port.lid]) if port.lid in traps else None
        if isinstance(trap, CapabilityTrap144):
            return replace(trap, lid=port.lid)  # a port speaks for itself only
        if known is None or known.info.capability_mask == port.info.capability_mask:
            return None
        return CapabilityTrap144(lid=port.lid, capability_mask=port.info.capability_mask)

    def _trap(self, lid: int, notice: Notice) -> None:
        if notice.is_generic and notice.trap_number == TrapNumber.CAPABILITY_CHANGED:
            self._traps[lid] = notice
        self._wake.set()

    def _port_changed(self, event: PortEvent) -> None:
        if event is PortEvent.LINK_CHANGE:
            self._wake.set()


def _to_register(before: SubnetView, after: SubnetView) -> Iterator[int]:
    """GUIDs of the ports whose consumers are to subscribe anew: new ones, and all whose subscriptions got lost."""
    for port in after.end_ports:
        known = before.by_guid.get(port.guid)
        lost = known is None or known.lid != port.lid or before.sm_lid != after.sm_lid
        if lost and port.info.capability_mask & PortCapability.CLIENT_REREGISTRATION:
            yield port.guid
