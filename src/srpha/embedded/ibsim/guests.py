"""Guests of a port: programs outside this process that send and receive MADs through an HCA port of the fabric.

A port's QP0 and QP1 may have owners already: an agent, a subnet manager, a host's general services. What those own
stays theirs. A guest's request goes out under a transaction ID that nobody else on the port uses, and the answer to
it comes back under the guest's own. A request that nobody here serves goes to the one guest of the port that takes
requests. To its guests the port is also the RMPP of their kernel (IBA 13.6): they send and get all segments of a
message in a row, windows, acknowledgements and repeats are the port's business.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from srpha.core.seams import MadAddress, ReceivedMad
from srpha.embedded.fabric.forwarding import SMP_OFFSET
from srpha.embedded.fabric.ports import Port
from srpha.embedded.mads.gsi import GeneralServices
from srpha.wire import rc
from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import LID_PERMISSIVE, LID_UNICAST_MAX, PKEY_DEFAULT_FULL
from srpha.wire.mad import MadHeader, ManagementClass, Method, read_header
from srpha.wire.rmpp import SA_HEADER_LENGTH, Reassembler, RmppReceiver, RmppType, read_rmpp, segment
from srpha.wire.smp import DirectedRouteSmp, PortCapability, SmpAttribute, read_smp

V = TypeVar("V")

_SMI_QPN: Final = 0
_SMP_CLASSES: Final = frozenset({ManagementClass.SUBN_LID_ROUTED, ManagementClass.SUBN_DIRECTED_ROUTE})
_FIRST_TID: Final = 0x8000_0000
"""Guests' transaction IDs have this bit: the port's owners count from 1 and do not get there."""
_MOST_REQUESTS: Final = 4096
"""Requests of one port whose answers are still expected; the oldest is forgotten, as after a timeout."""
_MOST_TRANSFERS: Final = 64
"""RMPP messages that one guest sends, and that it receives, at a time."""


class GuestError(Exception):
    """A guest cannot have what it asks for; the message is one line for an operator."""


@dataclass(frozen=True, slots=True)
class GuestMad:
    """A MAD for a guest, or from it. ``qpn`` is 0 for SMPs; of a MAD from a guest, the destination's."""

    lid: int
    qpn: int
    mad: bytes


Delivery = Callable[[GuestMad], None]


@dataclass(frozen=True, slots=True)
class _Request:
    guest: Guest
    tid: bytes
    """The guest's own transaction ID, 8 bytes."""
    key: tuple[Guest, int, int, bytes]
    """By which a repeat is recognised."""


class GuestPort:
    """The guests of ``port``, beside those who use ``gsi`` in this process."""

    def __init__(self, port: Port, gsi: GeneralServices) -> None:
        self.port = port
        self.gsi = gsi
        self._guests: list[Guest] = []
        self._next_tid = 0
        self._requests: OrderedDict[int, _Request] = OrderedDict()
        self._known: dict[tuple[Guest, int, int, bytes], int] = {}
        self._psn = 0
        self._ends = (gsi.adopt_strangers(self._stranger), port.divert_smps(self._smp))

    @property
    def guests(self) -> tuple[Guest, ...]:
        return tuple(self._guests)

    def join(self, deliver: Delivery, *, requests: bool) -> Guest:
        """A new guest; :class:`GuestError` when another takes the port's requests already."""
        guest = Guest(self, deliver)
        if requests:
            self.take_requests(guest)
        self._guests.append(guest)
        return guest

    def leave(self, guest: Guest) -> None:
        """Nothing more goes to or comes from this guest."""
        if guest not in self._guests:
            return
        self.set_sm(guest, on=False)
        self._guests.remove(guest)
        for tid in [tid for tid, request in self._requests.items() if request.guest is guest]:
            self._forget(tid)

    def close(self) -> None:
        """The port without guests, as before."""
        for guest in self.guests:
            self.leave(guest)
        for end in self._ends:
            end()

    def take_requests(self, guest: Guest) -> None:
        """Let requests that nobody here serves come to this guest."""
        if any(other.takes_requests for other in self._guests if other is not guest):
            raise GuestError(f"{self.port}: another program takes the requests already")
        guest.takes_requests = True

    def set_sm(self, guest: Guest, *, on: bool) -> None:
        """Say in the port's capabilities that a subnet manager is here, or take that back."""
        if on:
            if self.port.sm_info is not None:
                raise GuestError(f"{self.port}: a subnet manager of this world runs there")
            self.take_requests(guest)
        elif guest.is_sm:
            guest.takes_requests = False
        if guest.is_sm != on:
            guest.is_sm = on
            self.port.set_capability(PortCapability.SM, on=on)

    # -- out of the guests -----------------------------------------------------------------------------------------

    def send_smp(self, guest: Guest, message: GuestMad) -> None:
        """Put an SMP on the wire: along its own path, or to a LID."""
        smp = read_smp(message.mad)
        slid = dlid = LID_PERMISSIVE
        if not isinstance(smp, DirectedRouteSmp):
            slid, dlid = self.port.lid, message.lid
            _need_unicast(dlid)
        mad = self._translated(guest, read_header(message.mad), message)
        self._psn = (self._psn + 1) & rc.PSN_MASK
        route = rc.RcAddress(slid, dlid, _SMI_QPN, PKEY_DEFAULT_FULL, 0, rc.MANAGEMENT_VL)
        self.port.send(rc.pack_datagram(route, self._psn, 0, _SMI_QPN, mad))

    def send_request(self, guest: Guest, header: MadHeader, message: GuestMad) -> None:
        """Send a MAD to a QP1, or to where that was redirected."""
        self.gsi.send(MadAddress(message.lid, message.qpn), self._translated(guest, header, message))

    def _translated(self, guest: Guest, header: MadHeader, message: GuestMad) -> bytes:
        """The MAD under a transaction ID of this port; a repeat under the same. Responses keep theirs."""
        mad = message.mad
        if header.is_response:
            return mad
        known = (guest, header.mgmt_class, message.lid, mad[8:16])
        tid = self._known.get(known)
        if tid is None:
            if len(self._requests) >= _MOST_REQUESTS:
                self._forget(next(iter(self._requests)))
            self._next_tid = (self._next_tid + 1) % _FIRST_TID
            tid = self._known[known] = _FIRST_TID | self._next_tid
            self._requests[tid] = _Request(guest, mad[8:16], known)
        else:
            self._requests.move_to_end(tid)
        return mad[:8] + tid.to_bytes(8, "big") + mad[16:]

    def _forget(self, tid: int) -> None:
        self._finish(tid)
        del self._requests[tid]

    def _finish(self, tid: int) -> None:
        """The request is answered: should the guest use its ID once more, that is another request.

        What answers it is still known, for repeats of the answer.
        """
        key = self._requests[tid].key
        if self._known.get(key) == tid:
            del self._known[key]

    # -- to the guests ---------------------------------------------------------------------------------------------

    def _stranger(self, received: ReceivedMad) -> bool:
        """A MAD to QP1 that nobody in this process waits for or serves."""
        header = read_header(received.mad)
        if not header.is_response:
            return self._request(GuestMad(received.source.lid, received.source.qpn, received.mad))
        request = self._requests.get(header.transaction_id)
        if request is None:
            return False
        if request.guest.answered(request.tid, received):
            self._finish(header.transaction_id)
        return True

    def _request(self, message: GuestMad) -> bool:
        for guest in self._guests:
            if guest.takes_requests:
                guest.deliver(message)
                return True
        return False

    def _smp(self, packet: bytes) -> bool:
        """An SMP that has arrived here: whether it is for a guest."""
        mad = packet[SMP_OFFSET:]
        try:
            header = read_header(mad)
            slid = rc.unpack(packet).slid
        except DecodeError:
            return False
        if header.is_response and header.method != Method.TRAP_REPRESS:
            request = self._requests.get(header.transaction_id)
            if request is None:
                return False
            self._finish(header.transaction_id)
            request.guest.deliver(GuestMad(slid, _SMI_QPN, mad[:8] + request.tid + mad[16:]))
            return True
        if header.method == Method.TRAP:
            return self.port.handler(_SMI_QPN) is None and self._request(GuestMad(slid, _SMI_QPN, mad))
        if header.attribute_id == SmpAttribute.SM_INFO and self.port.sm_info is None:
            return self._request(GuestMad(slid, _SMI_QPN, mad))
        return False


class Guest:
    """One program at a port; :meth:`GuestPort.join` makes it."""

    def __init__(self, home: GuestPort, deliver: Delivery) -> None:
        self._home = home
        self.deliver = deliver
        self.takes_requests = False
        self.is_sm = False
        self._incoming: OrderedDict[bytes, RmppReceiver] = OrderedDict()
        self._outgoing: OrderedDict[bytes, Reassembler] = OrderedDict()

    @property
    def home(self) -> GuestPort:
        return self._home

    def send(self, message: GuestMad) -> None:
        """Send what the program gave; raises :class:`DecodeError` for what no kernel would let it send."""
        header = read_header(message.mad)
        if (message.qpn == _SMI_QPN) != (header.mgmt_class in _SMP_CLASSES):
            raise DecodeError(f"class {header.mgmt_class:#04x} does not go to QP {message.qpn}")
        if message.qpn == _SMI_QPN:
            self._home.send_smp(self, message)
            return
        _need_unicast(message.lid)
        if header.mgmt_class == ManagementClass.SUBN_ADM and read_rmpp(message.mad).is_active:
            self._send_segment(header, message)
        else:
            self._home.send_request(self, header, message)

    def _send_segment(self, header: MadHeader, message: GuestMad) -> None:
        """Collect a long answer; once complete it goes out, at the pace of its receiver."""
        mad = message.mad
        if not header.is_response or read_rmpp(mad).type != RmppType.DATA:
            raise DecodeError("of RMPP a program sends data, in responses; the rest is the port's")
        key = message.lid.to_bytes(2, "big") + message.qpn.to_bytes(3, "big") + mad[1:2] + mad[8:16]
        reassembler = _entry(self._outgoing, key, Reassembler)
        try:
            whole = reassembler.feed(mad)
        except DecodeError:
            del self._outgoing[key]
            raise
        if whole is not None:
            del self._outgoing[key]
            address = MadAddress(message.lid, message.qpn)
            self._home.gsi.send_rmpp(address, whole[:SA_HEADER_LENGTH], whole[SA_HEADER_LENGTH:])

    def answered(self, tid: bytes, received: ReceivedMad) -> bool:
        """Hand over an answer under the program's own transaction ID ``tid``, a long one once all of it is there.

        Says whether it has been handed over.
        """
        mad, source = received.mad, received.source
        messages: tuple[bytes, ...] = (mad,)
        if mad[1] == ManagementClass.SUBN_ADM and read_rmpp(mad).is_active:
            receiver = _entry(self._incoming, source.lid.to_bytes(2, "big") + mad[8:16], RmppReceiver)
            try:
                step = receiver.receive(mad, asyncio.get_running_loop().time())
            except DecodeError:
                return False
            for answer in step.send:
                self._home.gsi.send(source, answer)
            if step.message is None:
                return False
            messages = segment(step.message[:SA_HEADER_LENGTH], step.message[SA_HEADER_LENGTH:])
        for piece in messages:
            self.deliver(GuestMad(source.lid, source.qpn, piece[:8] + tid + piece[16:]))
        return True

    def leave(self) -> None:
        """Leave the port."""
        self._home.leave(self)


def _entry(table: OrderedDict[bytes, V], key: bytes, make: Callable[[], V]) -> V:
    """The entry of a bounded table, made when it is not there."""
    if key not in table:
        if len(table) >= _MOST_TRANSFERS:
            table.popitem(last=False)
        table[key] = make()
    return table[key]


def _need_unicast(lid: int) -> None:
    if not 0 < lid <= LID_UNICAST_MAX:
        raise DecodeError(f"LID {lid:#06x} is not unicast")
