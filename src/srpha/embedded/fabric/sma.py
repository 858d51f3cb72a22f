"""Subnet management agent: one per node, answers SMPs and sends traps (IBA volume 1, 14.2.5, 14.3, 13.4.9).

The M_Key is 0 on every port, so every manager may set everything. SMPs that are not well-formed are dropped; a wrong
value in a Set is answered with status 0x001c and changes nothing. Attributes that this hardware does not have (SL to VL
mapping, VL arbitration, multicast tables) are answered with status 0x000c.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from srpha.embedded.fabric.hardware import Fabric
from srpha.embedded.fabric.port_info import PortChange, node_info, port_change, port_info
from srpha.embedded.fabric.ports import LFT_CAPACITY, Node, Port, PortEvent
from srpha.embedded.fabric.topology import NodeKind
from srpha.wire import rc
from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import LID_PERMISSIVE, PKEY_DEFAULT_FULL
from srpha.wire.layout import Structure
from srpha.wire.mad import MadStatus, Method, time_value
from srpha.wire.notice import CapabilityTrap144, LidTrap128, TrapNumber, make_notice
from srpha.wire.smp import (
    LIDS_PER_BLOCK,
    NO_PORT,
    PKEYS_PER_BLOCK,
    SMP_DATA_LENGTH,
    DirectedRouteSmp,
    GuidInfoBlock,
    LidRoutedSmp,
    LinearForwardingTableBlock,
    NodeDescription,
    PkeyTableBlock,
    PortInfo,
    SmpAttribute,
    SwitchInfo,
    read_smp,
)

_SETTLE: Final = 1e-3
"""Seconds between the answer to a Set that breaks the link below it, and the break: the answer gets away."""
_MOST_PATIENT: Final = 16
"""Upper limit of a trap's repeat interval, in subnet timeouts."""

Smp = LidRoutedSmp | DirectedRouteSmp


class _RefusedError(Exception):
    """A request is answered with this status and without effect."""

    def __init__(self, status: MadStatus) -> None:
        super().__init__(status)
        self.status = status


class SubnetManagementAgent:
    """The agent of ``node``; takes the node's SMPs from construction on.

    ``malformed`` counts SMPs that were dropped unread.
    """

    def __init__(self, fabric: Fabric, node: Node) -> None:
        self._fabric = fabric
        self._node = node
        self._switch = node.kind is NodeKind.SWITCH
        self._port_state_change = False
        self._life_time = 18
        self._traps: dict[int, _Trap] = {}
        self._next_tid = 0
        self.malformed = 0
        node.agent = self.receive
        for port in node.ports:
            port.watch(self._watcher(port))

    # -- requests -----------------------------------------------------------------------------------------------------

    def receive(self, entry: Port, packet: bytes) -> None:
        """Take an SMP packet that entered by ``entry``; the answer goes out the way it came."""
        try:
            header = rc.unpack(packet)
            smp = read_smp(bytes(header.payload))
        except DecodeError:
            self.malformed += 1
            return
        if smp.method == Method.TRAP_REPRESS:
            for trap in tuple(self._traps.values()):
                trap.repress(smp.transaction_id)
            return
        afterwards: Callable[[], None] | None = None
        try:
            data, afterwards = self._serve(entry, smp)
            answer = smp.respond(data.encode())
        except _RefusedError as refused:
            answer = smp.respond(smp.data, refused.status)
        self._answer(entry, header, answer)
        if afterwards is not None:
            asyncio.get_running_loop().call_later(_SETTLE, afterwards)

    def _answer(self, entry: Port, header: rc.RcPacket, answer: Smp) -> None:
        port = entry
        slid = dlid = LID_PERMISSIVE
        if isinstance(answer, LidRoutedSmp):
            port = self._node.management or entry
            slid, dlid = port.lid, header.slid
        _, source_qp = rc.read_deth(header)
        port.send(_smp_packet(slid, dlid, source_qp, answer))

    def _serve(self, entry: Port, smp: Smp) -> tuple[Structure, Callable[[], None] | None]:
        attribute, modifier = smp.attribute_id, smp.attribute_modifier
        setting = smp.method == Method.SET
        match attribute:
            case SmpAttribute.NODE_INFO if not setting:
                return node_info(self._node, entry), None
            case SmpAttribute.NODE_DESCRIPTION if not setting:
                text = (self._node.description or self._node.name).encode()[:64]
                return NodeDescription(text=text), None
            case SmpAttribute.PORT_INFO:
                return self._port_info(entry, modifier & 0xFF, PortInfo.decode(smp.data) if setting else None)
            case SmpAttribute.PKEY_TABLE:
                return self._pkeys(entry, modifier, PkeyTableBlock.decode(smp.data) if setting else None), None
            case SmpAttribute.GUID_INFO:
                # One GUID per port, fixed in the hardware (GUIDCap 1): a Set changes nothing and tells so.
                return GuidInfoBlock.of((entry.guid,) if modifier == 0 else ()), None
            case SmpAttribute.SWITCH_INFO if self._switch:
                return self._switch_info(SwitchInfo.decode(smp.data) if setting else None), None
            case SmpAttribute.LINEAR_FORWARDING_TABLE if self._switch:
                return self._forwarding(modifier, smp.data if setting else None), None
            case SmpAttribute.SM_INFO if entry.sm_info is not None and not setting:
                return entry.sm_info, None
            case _:
                raise _RefusedError(MadStatus.UNSUPPORTED_METHOD_ATTRIBUTE)

    def _port_info(
        self, entry: Port, number: int, asked: PortInfo | None
    ) -> tuple[Structure, Callable[[], None] | None]:
        port = entry
        if self._switch or number:
            try:
                port = self._node.port(number)
            except KeyError:
                raise _RefusedError(MadStatus.INVALID_FIELD) from None
        if asked is None:
            return port_info(port, entry), None
        if not self._switch and port is not entry:
            raise _RefusedError(MadStatus.INVALID_FIELD)  # a CA port is set through itself (IBA 14.2.5.6)
        change = port_change(port, asked)
        if change is None:
            raise _RefusedError(MadStatus.INVALID_FIELD)
        breaks = self._apply(port, change)
        return port_info(port, entry), breaks

    def _apply(self, port: Port, change: PortChange) -> Callable[[], None] | None:
        """Carry out a checked Set(PortInfo); what breaks the link is returned, to be done after the answer."""
        port.mtu = change.mtu
        if port.subnet_timeout != change.subnet_timeout:
            port.subnet_timeout = change.subnet_timeout
        if change.end_port:
            port.gid_prefix = change.gid_prefix
            port.set_lid(change.lid, change.lmc)
            port.set_sm(change.sm_lid, change.sm_sl)
        if change.state is not None:
            port.set_state(change.state)
        if change.reregister:
            port.reregister()
        if change.enable:
            self._fabric.enable_port(port, enabled=True)
        if change.disable:
            return lambda: self._fabric.enable_port(port, enabled=False)
        if change.bounce:
            return lambda: self._fabric.bounce(port)
        return None

    def _pkeys(self, entry: Port, modifier: int, asked: PkeyTableBlock | None) -> Structure:
        port = entry
        if self._switch:
            if modifier >> 16 or self._node.management is None:
                raise _RefusedError(MadStatus.INVALID_FIELD)  # no enforcement on the outer ports of these switches
            port = self._node.management
        first = (modifier & 0xFFFF) * PKEYS_PER_BLOCK
        if first >= len(port.pkeys):
            raise _RefusedError(MadStatus.INVALID_FIELD)
        if asked is not None:
            port.set_pkeys(first, asked.pkeys)
        return PkeyTableBlock.of(tuple(port.pkeys[first : first + PKEYS_PER_BLOCK]))

    def _switch_info(self, asked: SwitchInfo | None) -> Structure:
        if asked is not None:
            if asked.linear_fdb_top >= LFT_CAPACITY:
                raise _RefusedError(MadStatus.INVALID_FIELD)
            if asked.linear_fdb_top != self._node.lft_top:
                self._node.lft_top = asked.linear_fdb_top
                self._fabric.changed()
            self._life_time = asked.life_time
            if asked.port_state_change:
                self._port_state_change = False  # written as 1 it is cleared (IBA 14.2.5.4)
        return SwitchInfo(
            linear_fdb_capacity=LFT_CAPACITY,
            linear_fdb_top=self._node.lft_top,
            default_port=NO_PORT,
            life_time=self._life_time,
            port_state_change=int(self._port_state_change),
        )

    def _forwarding(self, modifier: int, asked: bytes | None) -> Structure:
        first = modifier * LIDS_PER_BLOCK
        if first >= LFT_CAPACITY:
            raise _RefusedError(MadStatus.INVALID_FIELD)
        block = slice(first, first + LIDS_PER_BLOCK)
        if asked is not None and self._node.lft[block] != asked:
            self._node.lft[block] = asked
            self._fabric.changed()
        return LinearForwardingTableBlock(ports=bytes(self._node.lft[block]))

    # -- traps --------------------------------------------------------------------------------------------------------

    def _watcher(self, port: Port) -> Callable[[PortEvent], None]:
        def heard(event: PortEvent) -> None:
            if self._switch and event is PortEvent.LINK_CHANGE:
                self._port_state_change = True
                self._raise_trap(self._node.port(0), TrapNumber.LINK_STATE_CHANGED)
            elif not self._switch and event is PortEvent.CAPABILITY_CHANGE:
                self._raise_trap(port, TrapNumber.CAPABILITY_CHANGED)

        return heard

    def _raise_trap(self, issuer: Port, number: TrapNumber) -> None:
        """Tell the SM; a newer change of the same port takes the place of one that is still being told."""
        if not self._node.powered or issuer.sm_lid == 0:
            return  # nobody to tell yet: who becomes SM reads everything anyway
        self._next_tid += 1
        previous = self._traps.get(issuer.number)
        if previous is not None:
            previous.stop()
        trap = self._traps[issuer.number] = _Trap(issuer, number, self._next_tid)
        trap.send()


class _Trap:
    """One trap on its way: repeated, ever more slowly, until the SM represses it (IBA 13.4.9)."""

    def __init__(self, issuer: Port, number: TrapNumber, tid: int) -> None:
        self._issuer = issuer
        self._number = number
        self._tid = tid
        self._tries = 0
        self._timer: asyncio.TimerHandle | None = None

    def send(self) -> None:
        issuer = self._issuer
        if not issuer.node.powered or issuer.sm_lid == 0:
            return
        issuer.send(_smp_packet(issuer.lid, issuer.sm_lid, 0, self._smp()))
        wait = time_value(issuer.subnet_timeout) * min(1 << self._tries, _MOST_PATIENT)
        self._tries += 1
        self._timer = asyncio.get_running_loop().call_later(wait, self.send)

    def _smp(self) -> LidRoutedSmp:
        issuer = self._issuer
        trap = (
            LidTrap128(issuer.lid)
            if self._number == TrapNumber.LINK_STATE_CHANGED
            else CapabilityTrap144(issuer.lid, issuer.capability_mask)
        )
        notice = make_notice(trap, issuer_lid=issuer.lid, issuer_gid=issuer.gid)
        return LidRoutedSmp(
            method=Method.TRAP,
            transaction_id=self._tid,
            attribute_id=SmpAttribute.NOTICE,
            data=notice.encode()[:SMP_DATA_LENGTH],
        )

    def repress(self, tid: int) -> None:
        if tid == self._tid:
            self.stop()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _smp_packet(slid: int, dlid: int, dest_qp: int, smp: Smp) -> bytes:
    address = rc.RcAddress(slid, dlid, dest_qp, PKEY_DEFAULT_FULL, 0, rc.MANAGEMENT_VL)
    return rc.pack_datagram(address, 0, 0, 0, smp.encode())
