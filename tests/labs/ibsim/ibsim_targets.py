"""Targets' Device Management agents on nodes of an ibsim fabric: the embedded target's own, one thread for all.

ibsim takes ten programs in all: there is room for some six agents beside OpenSM and the programs under test.
"""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from ibsim_client import IbsimClient

from srpha.core.seams import MadAddress, ReceivedMad, Unwatch
from srpha.embedded.target.dm_agent import DeviceManagementAgent
from srpha.embedded.target.io_unit import IoUnit
from srpha.embedded.target.spec import IocSpec, TargetLimits, ioc_of_node

Iocs = Callable[[int], Sequence[IocSpec]]
"""The I/O controllers of a node, by its GUID."""


def one_ioc(node_guid: int) -> Sequence[IocSpec]:
    """As a Linux target has it."""
    return (ioc_of_node(node_guid),)


def many_services(iocs: int, services: int) -> Iocs:
    """Several controllers, each with so many SRP services."""

    def of(node_guid: int) -> Sequence[IocSpec]:
        return tuple(
            IocSpec(
                guid=node_guid + 0x1000 * ioc,
                id_ext=0xA0000000 + 0x1000 * ioc,
                service_id=node_guid + 0x1000 * ioc,
                id_string=f"controller {ioc}",
                services=tuple(
                    (f"SRP.T10:{0xA0000000 + 0x1000 * ioc + n:016x}", node_guid + 0x1000 * ioc + n)
                    for n in range(1, services)
                ),
            )
            for ioc in range(iocs)
        )

    return of


class _Node:
    """One node's agent and what came in for it; an agent's :class:`Datagrams`."""

    def __init__(self, client: IbsimClient, iocs: Iocs) -> None:
        self.client = client
        self.agent = DeviceManagementAgent(self, IoUnit(iocs(client.node_guid), TargetLimits()))
        self.asked: list[bytes] = []
        self.loses_first_tries = False
        self._handlers: dict[int, Callable[[ReceivedMad], None]] = {}
        self.agent.start()

    def register(
        self, mgmt_class: int, handler: Callable[[ReceivedMad], None], methods: Iterable[int] | None = None
    ) -> Unwatch:
        self._handlers[mgmt_class] = handler
        return lambda: None

    def send(self, address: MadAddress, mad: bytes) -> None:
        self.client.send(address.lid, address.qpn, mad)

    def take(self) -> None:
        while (datagram := self.client.receive()) is not None:
            handler = self._handlers.get(datagram.mad[1])
            if handler is not None and not datagram.status and not datagram.mad[3] & 0x80:
                again = any(mad[8:16] == datagram.mad[8:16] for mad in self.asked)
                self.asked.append(datagram.mad)
                if self.loses_first_tries and not again:
                    continue
                handler(ReceivedMad(MadAddress(lid=datagram.slid, qpn=datagram.sqp), datagram.mad))


class Targets:
    """Agents on some nodes; to be closed before the fabric."""

    def __init__(self, base: str, nodes: Mapping[str, Iocs]) -> None:
        self._selector = selectors.DefaultSelector()
        self._bell = os.pipe()
        self._selector.register(self._bell[0], selectors.EVENT_READ)
        self._nodes: dict[str, _Node] = {}
        for name, iocs in nodes.items():
            self._nodes[name] = _Node(IbsimClient(base, name), iocs)
            self._selector.register(self._nodes[name].client.fileno(), selectors.EVENT_READ, self._nodes[name])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def silence(self, name: str, silent: bool = True) -> None:
        """An agent that takes requests and says nothing, as a host that has crashed while its link stays up."""
        self._nodes[name].agent.silent = silent

    def lose_first_tries(self, name: str, lose: bool = True) -> None:
        """A way to the agent on which the first datagram of each transaction is lost."""
        self._nodes[name].loses_first_tries = lose

    def node_guid(self, name: str) -> int:
        return self._nodes[name].client.node_guid

    def close(self) -> None:
        os.write(self._bell[1], b"x")
        self._thread.join(10)
        for node in self._nodes.values():
            node.client.close()
        self._selector.close()
        for end in self._bell:
            os.close(end)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                key.data.take()
