"""Bringing a discovered subnet into operation by Set SMPs (IBA volume 1, 14.4.4 to 14.4.12).

Steps, each a batch: P_Key tables; LIDs and the address of the subnet manager; forwarding tables; INIT to ARMED; ARMED
to ACTIVE. Only what differs from what the nodes said is set. A node that does not answer a Set, or refuses it, is left
out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from srpha.embedded.subnet.lid_table import LidTable
from srpha.embedded.subnet.routing import Destination, forwarding_tables
from srpha.embedded.subnet.smi import SmpRequest, SubnetManagement
from srpha.embedded.subnet.subnet_view import EndPort, PortKey, SubnetView, build_view, is_up, link_end
from srpha.embedded.subnet.sweep import Found, FoundNode, FoundPort
from srpha.wire.identifiers import DEFAULT_SUBNET_PREFIX, PKEY_DEFAULT_FULL, PKEY_MEMBERSHIP
from srpha.wire.mad import Method
from srpha.wire.smp import (
    LIDS_PER_BLOCK,
    NO_PORT,
    PKEYS_PER_BLOCK,
    DirectedRouteSmp,
    NodeType,
    PhysState,
    PkeyTableBlock,
    PortInfo,
    PortState,
    SmpAttribute,
)

_DEFAULT_PARTITION = PKEY_DEFAULT_FULL & ~PKEY_MEMBERSHIP


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition: its P_Key without the membership bit, and the GUIDs of its members; None means everybody.

    A port in both lists is a full member.
    """

    pkey: int
    full: frozenset[int] | None = None
    limited: frozenset[int] | None = frozenset()

    def __post_init__(self) -> None:
        if not 0 < self.pkey < PKEY_MEMBERSHIP:
            raise ValueError(f"a partition's P_Key is 0x0001..0x7fff, got {self.pkey:#06x}")

    def entry(self, guid: int) -> int:
        """P_Key table entry of a port, 0 for a port that is not in the partition."""
        if self.full is None or guid in self.full:
            return self.pkey | PKEY_MEMBERSHIP
        return self.pkey if self.limited is None or guid in self.limited else 0


EVERYBODY = (Partition(_DEFAULT_PARTITION),)
"""The default partition with everybody as full member."""


@dataclass(frozen=True, slots=True)
class PortSettings:
    """What every port of the subnet is told."""

    prefix: int = DEFAULT_SUBNET_PREFIX
    subnet_timeout: int = 18
    sm_sl: int = 0


@dataclass(slots=True)
class Memory:
    """What a subnet manager remembers from sweep to sweep."""

    lids: LidTable
    tables: dict[int, bytes] = field(default_factory=dict)
    """Forwarding tables as last written, by node GUID."""
    partitioned: set[int] = field(default_factory=set)
    """Port GUIDs whose P_Key table was written since the port came up."""
    silent: frozenset[PortKey] = frozenset()
    """Ports at whose other end nobody answered in the last sweep."""


def partition_table(partitions: Iterable[Partition], guid: int) -> tuple[int, ...]:
    """P_Keys of a port, the default partition first; everybody is at least a limited member of that one.

    Raises ValueError for more than the 32 entries of one block.
    """
    entries = {partition.pkey: partition.entry(guid) for partition in partitions}
    default = entries.pop(_DEFAULT_PARTITION, 0) or _DEFAULT_PARTITION
    table = (default, *(entry for entry in entries.values() if entry))
    if len(table) > PKEYS_PER_BLOCK:
        raise ValueError(f"port {guid:#018x} is in more than {PKEYS_PER_BLOCK} partitions")
    return table


class Configurator:
    """One sweep's work on what discovery found; ``found`` loses whoever does not take part."""

    def __init__(
        self,
        smi: SubnetManagement,
        found: Found,
        memory: Memory,
        settings: PortSettings,
        partitions: tuple[Partition, ...],
    ) -> None:
        self._smi = smi
        self._found = found
        self._memory = memory
        self._settings = settings
        self._partitions = partitions
        self.activated: set[int] = set()
        """GUIDs of end ports that this sweep brought to ACTIVE."""

    async def configure(self) -> SubnetView | None:
        """Bring everything up; the subnet as it is then, None when the manager's own port took no part."""
        found, memory = self._found, self._memory
        root = found.nodes[found.root[0]].ports[found.root[1]]
        sm_lid = memory.lids.lid(root.guid)
        if sm_lid is None:
            return None
        for key, port in list(self._end_ports()):
            if memory.lids.lid(port.guid) is None:
                found.forget(key)
        self._forget_restarted()
        await self._set_partitions()
        await self._set_addresses(sm_lid)
        tables = await self._set_routes()
        await self._move(PortState.INIT, PortState.ARMED)
        await self._move(PortState.ARMED, PortState.ACTIVE)
        if not self._takes_part(found.root):
            return None
        return self._view(sm_lid, tables)

    async def ask_to_register(self, guids: frozenset[int]) -> None:
        """Ask the consumers on these ports to subscribe anew (ClientReregister)."""
        wanted = [
            (key, self._set(port, replace(_unchanged(port.info), client_reregister=1)))
            for key, port in self._end_ports()
            if port.guid in guids
        ]
        await self._smi.exchange([request for _, request in wanted])

    def _end_ports(self) -> Iterable[tuple[PortKey, FoundPort]]:
        for node in self._found.nodes.values():
            if node.info.node_type == NodeType.SWITCH:
                yield (node.guid, 0), node.ports[0]
            else:
                for number, port in node.ports.items():
                    yield (node.guid, number), port

    def _forget_restarted(self) -> None:
        """What lost its state is written from scratch."""
        for node in self._found.nodes.values():
            if node.switch is not None and node.switch.linear_fdb_top == 0:
                self._memory.tables.pop(node.guid, None)
        for _, port in self._end_ports():
            if not is_up(port.info):
                self._memory.partitioned.discard(port.guid)

    async def _apply(
        self,
        wanted: list[tuple[PortKey, SmpRequest]],
        done: Callable[[PortKey, DirectedRouteSmp], None],
    ) -> None:
        """Send a batch; who does not answer, or refuses, is left out of the subnet."""
        answers = await self._smi.exchange([request for _, request in wanted])
        for (key, _), answer in zip(wanted, answers, strict=True):
            if answer is not None and answer.status == 0:
                if self._takes_part(key):
                    done(key, answer)
                continue
            peer = self._found.links.get(key)
            self._found.forget(key)
            self._memory.tables.pop(key[0], None)
            if peer is not None and answer is None:
                self._found.silent.append(peer)

    async def _set_partitions(self) -> None:
        wanted: list[tuple[PortKey, SmpRequest]] = []
        for key, port in self._end_ports():
            if port.guid in self._memory.partitioned:
                continue
            block = PkeyTableBlock.of(partition_table(self._partitions, port.guid))
            if block.pkeys == port.pkeys:
                self._memory.partitioned.add(port.guid)
            else:
                wanted.append((key, SmpRequest(port.path, Method.SET, SmpAttribute.PKEY_TABLE, 0, block.encode())))

        def written(key: PortKey, answer: DirectedRouteSmp) -> None:
            self._memory.partitioned.add(self._port(key).guid)
            self._port(key).pkeys = PkeyTableBlock.decode(answer.data).pkeys

        await self._apply(wanted, written)

    async def _set_addresses(self, sm_lid: int) -> None:
        settings = self._settings
        wanted: list[tuple[PortKey, SmpRequest]] = []
        for key, port in self._end_ports():
            info, lid = port.info, self._memory.lids.lid(port.guid) or 0
            told = (lid, 0, sm_lid, settings.sm_sl, settings.prefix, settings.subnet_timeout)
            if told == (info.lid, info.lmc, info.sm_lid, info.sm_sl, info.gid_prefix, info.subnet_timeout):
                continue
            asked = replace(
                _unchanged(info),
                lid=lid,
                lmc=0,
                sm_lid=sm_lid,
                sm_sl=settings.sm_sl,
                gid_prefix=settings.prefix,
                subnet_timeout=settings.subnet_timeout,
            )
            wanted.append((key, self._set(port, asked)))
        await self._apply(wanted, self._learn)

    async def _set_routes(self) -> dict[int, bytes]:
        tables = self._routes()
        written = self._memory.tables
        wanted: list[tuple[PortKey, SmpRequest]] = []
        for guid, table in tables.items():
            node = self._found.nodes[guid]
            if node.switch is None:
                continue
            wanted += (((guid, 0), request) for request in _block_requests(node, written.get(guid), table))
            top = len(table) - 1
            if node.switch.linear_fdb_top != top or node.switch.port_state_change:
                info = replace(node.switch, linear_fdb_top=top, port_state_change=1)
                request = SmpRequest(node.path, Method.SET, SmpAttribute.SWITCH_INFO, 0, info.encode())
                wanted.append(((guid, 0), request))
            written[guid] = table
        await self._apply(wanted, lambda _key, _answer: None)
        return {guid: table for guid, table in tables.items() if guid in self._found.nodes}

    def _routes(self) -> dict[int, bytes]:
        found = self._found
        links: dict[int, dict[int, int]] = {
            node.guid: {} for node in found.nodes.values() if node.info.node_type == NodeType.SWITCH
        }
        for (guid, number), (peer, _) in found.links.items():
            if guid in links and peer in links and guid != peer:
                links[guid][number] = peer
        destinations: list[Destination] = []
        for key, port in self._end_ports():
            lid = self._memory.lids.lid(port.guid)
            switch, out = key if key[0] in links else found.links.get(key, (0, 0))
            if lid is not None and switch in links:
                destinations.append(Destination(lid, switch, out))
        return forwarding_tables(links, destinations)

    async def _move(self, before: PortState, after: PortState) -> None:
        """Bring the ports at both ends of every link one state further."""
        wanted: list[tuple[PortKey, SmpRequest]] = []
        for key, peer in self._found.links.items():
            port, other = self._port(key), self._port(peer)
            if port.info.state == before:
                mtu = min(port.info.mtu_cap, other.info.mtu_cap)
                asked = replace(_unchanged(port.info), state=after, neighbor_mtu=mtu)
                wanted.append((key, self._set(port, asked)))
        await self._apply(wanted, self._learn)
        if after is PortState.ACTIVE:
            raised = {key for key, _ in wanted}
            self.activated |= {port.guid for key, port in self._end_ports() if key in raised and is_up(port.info)}

    def _learn(self, key: PortKey, answer: DirectedRouteSmp) -> None:
        self._port(key).info = PortInfo.decode(answer.data)

    def _takes_part(self, key: PortKey) -> bool:
        node = self._found.nodes.get(key[0])
        return node is not None and key[1] in node.ports

    def _port(self, key: PortKey) -> FoundPort:
        return self._found.nodes[key[0]].ports[key[1]]

    @staticmethod
    def _set(port: FoundPort, info: PortInfo) -> SmpRequest:
        return SmpRequest(port.path, Method.SET, SmpAttribute.PORT_INFO, port.number, info.encode())

    def _view(self, sm_lid: int, tables: dict[int, bytes]) -> SubnetView:
        """The subnet as configured, without what cannot be reached from the manager's port."""
        found = self._found
        links = {
            key: link_end(peer, self._port(key).info, self._port(peer).info)
            for key, peer in found.links.items()
            if is_up(self._port(key).info) and is_up(self._port(peer).info)
        }
        ends: list[EndPort] = []
        for (guid, number), port in self._end_ports():
            node = found.nodes[guid]
            if is_up(port.info):
                ends.append(
                    EndPort(
                        lid=port.info.lid,
                        guid=port.guid,
                        number=number,
                        prefix=port.info.gid_prefix,
                        node=replace(node.info, port_guid=port.guid, local_port=number),
                        description=node.description,
                        info=port.info,
                        pkeys=tuple(pkey for pkey in port.pkeys if pkey),
                    )
                )
        outer = {
            node.guid: tuple(node.ports[number].info for number in sorted(node.ports) if number)
            for node in found.nodes.values()
            if node.info.node_type == NodeType.SWITCH
        }
        whole = build_view(
            prefix=self._settings.prefix,
            sm_lid=sm_lid,
            end_ports=ends,
            switch_ports=outer,
            links=links,
            tables=tables,
        )
        root = whole.by_lid.get(sm_lid)
        reached = [end for end in ends if root is not None and whole.path(root, end) is not None]
        return build_view(
            prefix=whole.prefix,
            sm_lid=sm_lid,
            end_ports=reached,
            switch_ports=outer,
            links=links,
            tables=tables,
        )


def _unchanged(info: PortInfo) -> PortInfo:
    """A PortInfo to set that leaves the port's states as they are."""
    return replace(info, state=PortState.NO_CHANGE, phys_state=PhysState.NO_CHANGE, client_reregister=0)


def _block_requests(node: FoundNode, old: bytes | None, new: bytes) -> list[SmpRequest]:
    """Sets of the table's blocks that differ from what was written before; all of them when nothing is known."""
    requests: list[SmpRequest] = []
    size = max(len(new), len(old or b""))
    for first in range(0, size, LIDS_PER_BLOCK):
        block = new[first : first + LIDS_PER_BLOCK].ljust(LIDS_PER_BLOCK, bytes([NO_PORT]))
        if old is None or old[first : first + LIDS_PER_BLOCK] != block:
            number = first // LIDS_PER_BLOCK
            requests.append(SmpRequest(node.path, Method.SET, SmpAttribute.LINEAR_FORWARDING_TABLE, number, block))
    return requests
