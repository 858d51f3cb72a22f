"""The MadPort seam over an embedded HCA port: what umad is to the daemon in the kernel world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from srpha.core.seams import LinkState, MadAddress, MadPortGoneError, PortIdentity, ReceivedMad, Unwatch
from srpha.embedded.fabric.ports import Port, PortEvent
from srpha.embedded.mads.gsi import GeneralServices
from srpha.wire.mad import ManagementClass, Method
from srpha.wire.smp import PortState

L = TypeVar("L")

_LINK_STATES: Final = {
    PortState.DOWN: LinkState.DOWN,
    PortState.INIT: LinkState.INIT,
    PortState.ARMED: LinkState.ARMED,
    PortState.ACTIVE: LinkState.ACTIVE,
    PortState.ACTIVE_DEFER: LinkState.ACTIVE,
}


class EmbeddedMadPort:
    """A local HCA port as the daemon sees it; implements :class:`srpha.core.seams.MadPort`.

    ``device_name`` is the name of the device (``mlx5_0``) on the host that the port belongs to.
    Hints come at once, from inside the change: a listener notes them and does its work later.
    """

    def __init__(self, device_name: str, port: Port, gsi: GeneralServices) -> None:
        self._device = device_name
        self._port = port
        self._gsi = gsi
        self._hints: list[Callable[[], None]] = []
        self._receivers: list[Callable[[ReceivedMad], None]] = []
        self._ends = (
            gsi.register(ManagementClass.SUBN_ADM, self._report, (Method.REPORT,)),
            port.watch(self._changed),
        )

    @property
    def name(self) -> str:
        return f"{self._device}/{self._port.number}"

    @property
    def gsi(self) -> GeneralServices:
        """The general services below, for those in the embedded world who need more than the seam."""
        return self._gsi

    def identity(self) -> PortIdentity:
        """The port's identity now; a node without power is a device that is gone."""
        port = self._port
        if not port.node.powered:
            raise MadPortGoneError(f"{self.name}: the device is gone")
        return PortIdentity(
            device=self._device,
            port=port.number,
            node_guid=port.node.node_guid,
            port_guid=port.guid,
            gid=port.gid,
            lid=port.lid,
            sm_lid=port.sm_lid,
            sm_sl=port.sm_sl,
            state=_LINK_STATES[port.state],
            pkeys=tuple(port.pkeys),
        )

    async def transact(self, address: MadAddress, mad: bytes, *, timeout: float, retries: int) -> bytes:
        """See :class:`srpha.core.seams.MadPort`."""
        return await self._gsi.transact(address, mad, timeout=timeout, retries=retries)

    def reply(self, address: MadAddress, mad: bytes) -> None:
        """See :class:`srpha.core.seams.MadPort`."""
        self._gsi.send(address, mad)

    def watch_reports(self, receiver: Callable[[ReceivedMad], None]) -> Unwatch:
        """See :class:`srpha.core.seams.MadPort`."""
        return _join(self._receivers, receiver)

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        """See :class:`srpha.core.seams.MadPort`."""
        return _join(self._hints, hint)

    def close(self) -> None:
        """Let go of the port; listeners hear nothing more."""
        for end in self._ends:
            end()
        self._hints.clear()
        self._receivers.clear()

    def _report(self, received: ReceivedMad) -> None:
        for receiver in tuple(self._receivers):
            receiver(received)

    def _changed(self, event: PortEvent) -> None:
        if event is not PortEvent.CAPABILITY_CHANGE:  # nothing of it is in the identity
            for hint in tuple(self._hints):
                hint()


def _join(listeners: list[L], listener: L) -> Unwatch:
    listeners.append(listener)

    def leave() -> None:
        if listener in listeners:
            listeners.remove(listener)

    return leave
