"""Two HCA ports on one fabric with their RDMA services, and a CM whose messages a test may lose or repeat."""

from __future__ import annotations

from collections.abc import Callable

from by_hand import configure, make_fabric

from srpha.core.seams import MadAddress
from srpha.embedded.fabric.hardware import Port
from srpha.embedded.mads.gsi import GeneralServices
from srpha.embedded.rdma.rdma_port import CloseReason, ConnectOptions, ConnectRequest, RcConnection, RdmaPort
from srpha.wire.cm import CmAttribute, CmMessage, attribute_of, pack_mad, unpack_mad
from srpha.wire.sa import PathRecord

SERVICE = 0x0002C90200402BEC
QUICK = ConnectOptions(cm_response_timeout=18, ack_timeout=18, max_cm_retries=3, retry_count=2)
"""CM timeout and ack timeout 1.07 s."""
TICK = 4.096e-6 * 2**18

Filter = Callable[[CmMessage], int]


class Side:
    """One port: what it said and heard."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.gsi = GeneralServices(port)
        self.send_mad = self.gsi.send
        self.gsi.send = self.filtered  # type: ignore[method-assign]
        self.copies: Filter = lambda _message: 1
        self.said: list[CmAttribute] = []
        self.rdma = RdmaPort(port, self.gsi)
        self.requests: list[ConnectRequest] = []
        self.connections: list[RcConnection] = []
        self.messages: list[bytes] = []
        self.closed: list[CloseReason] = []

    def filtered(self, address: MadAddress, mad: bytes) -> None:
        message = unpack_mad(mad)[1]
        self.said.append(attribute_of(message))
        for _ in range(self.copies(message)):
            self.send_mad(address, mad)

    def say(self, lid: int, message: CmMessage, tid: int = 1) -> None:
        """Send a CM message past the manager."""
        self.send_mad(MadAddress(lid=lid), pack_mad(message, tid))

    def lose_first(self, attribute: CmAttribute, count: int = 1) -> None:
        left = [count]

        def copies(message: CmMessage) -> int:
            if attribute_of(message) is attribute and left[0]:
                left[0] -= 1
                return 0
            return 1

        self.copies = copies

    def adopt(self, connection: RcConnection) -> RcConnection:
        connection.on_receive = self.messages.append
        connection.on_closed = self.closed.append
        self.connections.append(connection)
        return connection

    def serve(self, private_data: bytes = b"", options: ConnectOptions | None = None) -> None:
        def accept(request: ConnectRequest) -> None:
            self.requests.append(request)
            self.adopt(request.accept(private_data, options))

        self.rdma.listen(SERVICE, accept)


class RdmaWorld:
    """HCA ports ``a`` (a/1) and ``b`` (b/1); ``other`` is a/2."""

    def __init__(self, *, timer_floor: float = 0.0) -> None:
        self.fabric = make_fabric(timer_floor=timer_floor)
        configure(self.fabric)
        self.a = Side(self.fabric.port("a/1"))
        self.b = Side(self.fabric.port("b/1"))

    def path(self, source: Port | None = None, dest: Port | None = None, mtu: int = 5) -> PathRecord:
        source, dest = source or self.a.port, dest or self.b.port
        return PathRecord(
            sgid=source.gid,
            dgid=dest.gid,
            slid=source.lid,
            dlid=dest.lid,
            pkey=0xFFFF,
            mtu=mtu,
            rate=3,
            packet_life=18,
        )

    async def connect(self, private_data: bytes = b"", options: ConnectOptions = QUICK) -> RcConnection:
        return self.a.adopt(await self.a.rdma.connect(self.path(), SERVICE, private_data, options))

    async def pair(self, options: ConnectOptions = QUICK) -> tuple[RcConnection, RcConnection]:
        self.b.serve(options=options)
        connection = await self.connect(options=options)
        return connection, self.b.connections[-1]
