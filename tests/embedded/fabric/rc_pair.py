"""Two ends of a reliable connection without ports, loop or clock: packets go through queues that a test may rob."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from srpha.embedded.rdma.memory import RegionTable
from srpha.embedded.rdma.rc_outcome import CloseReason
from srpha.embedded.rdma.rc_requester import Requester
from srpha.embedded.rdma.rc_responder import Responder
from srpha.wire.rc import Opcode, RcAddress, unpack

Fate = Callable[[bytes], int]
"""How many copies of a packet arrive."""


def once(_packet: bytes) -> int:
    return 1


class End:
    """One end: its halves, its memory, what it got and how it ended."""

    def __init__(self, pair: Pair, lid: int, peer_lid: int, send_psn: int, receive_psn: int, mtu: int) -> None:
        self.pair = pair
        self.out: deque[bytes] = deque()
        self.fate: Fate = once
        self.sent: list[bytes] = []
        self.regions = RegionTable(lid)
        self.messages: list[bytes] = []
        self.reasons: list[CloseReason] = []
        self.owing: list[Responder] = []
        self.alarm: float | None = None
        address = RcAddress(lid, peer_lid, 0x40 + peer_lid, 0xFFFF)
        self.requester = Requester(
            address,
            send_psn,
            mtu,
            depth=2,
            timeout=1.0,
            retries=7,
            transmit=self.transmit,
            clock=lambda: pair.now,
            arm=self.arm,
            fail=self.fail,
        )
        self.responder = Responder(
            address,
            receive_psn,
            mtu,
            regions=self.regions.regions,
            max_message=100_000,
            transmit=self.transmit,
            schedule=self.owing.append,
            deliver=self.messages.append,
            fail=self.fail,
        )
        self.requester.release()

    def transmit(self, packet: bytes) -> None:
        self.sent.append(packet)
        for _ in range(self.fate(packet)):
            self.out.append(packet)

    def arm(self, deadline: float) -> None:
        assert self.alarm is None
        self.alarm = deadline

    def fail(self, reason: CloseReason) -> None:
        self.reasons.append(reason)
        self.requester.stop()
        self.responder.stop()
        self.alarm = None

    def take(self, data: bytes) -> None:
        if self.reasons:
            return
        packet = unpack(data)
        if packet.opcode <= Opcode.RC_READ_REQUEST:
            self.responder.on_request(packet)
        elif packet.opcode == Opcode.RC_ACKNOWLEDGE:
            self.requester.on_ack(packet.psn, data[packet.extension])
        else:
            self.requester.on_read_response(packet)

    def opcodes(self) -> list[int]:
        return [unpack(packet).opcode for packet in self.sent]


class Pair:
    """Ends ``a`` and ``b``; :meth:`run` moves packets and lets time pass until all is quiet."""

    def __init__(self, *, mtu: int = 256, psn: int = 0xFFFFF0) -> None:
        self.now = 0.0
        self.mtu = mtu
        self.a = End(self, 1, 2, psn, 7, mtu)
        self.b = End(self, 2, 1, 7, psn, mtu)

    def turn(self) -> bool:
        """Deliver what is under way, then what is owed; False when there was nothing."""
        moved = False
        for end, peer in ((self.a, self.b), (self.b, self.a)):
            for _ in range(len(end.out)):
                moved = True
                peer.take(end.out.popleft())
        for end in (self.a, self.b):
            owing = end.owing[:]
            end.owing.clear()
            for responder in owing:
                responder.flush()
        return moved or bool(self.a.out or self.b.out)

    def run(self, *, until: float = 1000.0) -> None:
        while True:
            while self.turn():
                pass
            alarms = [end.alarm for end in (self.a, self.b) if end.alarm is not None]
            if not alarms or min(alarms) > until:
                return
            self.now = min(alarms)
            for end in (self.a, self.b):
                if end.alarm is not None and end.alarm <= self.now:
                    end.alarm = None
                    end.requester.on_timer()
