"""The embedded fabric behind ibsim's sockets: programs started with one of its preloads attach to a node of ours.

The programs are guests (:mod:`srpha.embedded.ibsim.guests`) of a port: the first cabled one of an HCA, a switch's
management port, or the one that ``node/port`` names. Abstract socket names belong to nobody in the file system; so only
processes of the same user, and root's, may connect. A packet that makes no sense is dropped and counted; a MAD that
cannot be delivered is lost without a word, as on a cable, and its sender's timeout tells.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from srpha.embedded.fabric.hardware import Fabric
from srpha.embedded.fabric.port_info import node_info, port_info
from srpha.embedded.fabric.ports import Node, Port
from srpha.embedded.fabric.topology import PortRef, TopologyError
from srpha.embedded.ibsim.guests import Guest, GuestError, GuestMad, GuestPort
from srpha.embedded.mads.gsi import GeneralServices
from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.ibsim import (
    CONTROL_DATA,
    CONTROL_LENGTH,
    DATAGRAM_LENGTH,
    ConnectData,
    ControlKind,
    ControlPacket,
    SimDatagram,
    check_base,
    client_data_name,
    control_name,
    port_data,
    read_word,
    server_data_name,
    vendor_data,
)
from srpha.wire.smp import PKEYS_PER_BLOCK, PkeyTableBlock

DEFAULT_LIMIT: Final = 64
"""Programs at a time. ibsim itself takes 10."""
_PROBE_INTERVAL: Final = 1.0
"""Seconds between looks for programs that died without a word."""
_BATCH: Final = 64
"""Packets taken from one socket before others get their turn."""
_MOST_QUEUED: Final = 8192
"""Datagrams held for a program that does not read."""
_CREDENTIALS: Final = struct.Struct("3i")
_GONE: Final = frozenset({errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE})


class IbsimServerError(Exception):
    """The sockets cannot be had; the message is one line for an operator."""


class IbsimServer:
    """Serves ``fabric`` to the programs that look for ibsim under the name ``base`` (IBSIM_SOCKNAME).

    ``services`` gives a port's general services. ``refused`` counts packets that were dropped: malformed, from a
    stranger, or not to be sent by a program.
    """

    def __init__(
        self, fabric: Fabric, services: Callable[[Port], GeneralServices], base: str, *, limit: int = DEFAULT_LIMIT
    ) -> None:
        try:
            self.base = check_base(base)
        except EncodeError as error:
            raise IbsimServerError(str(error)) from None
        self._fabric = fabric
        self._services = services
        self._limit = limit
        self._control: socket.socket | None = None
        self._ports: dict[str, GuestPort] = {}
        self._programs: dict[int, _Program] = {}
        self.refused = 0

    @property
    def attached(self) -> tuple[str, ...]:
        """The ports that programs are attached to, as ``node/port``, in the order of the programs' numbers."""
        return tuple(program.guest.home.port.name for _, program in sorted(self._programs.items()))

    def open(self) -> None:
        """Take the control socket; raises :class:`IbsimServerError` when the name is taken."""
        if self._control is not None:
            return
        control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        control.setblocking(False)
        control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        try:
            control.bind(control_name(self.base))
        except OSError as error:
            control.close()
            raise IbsimServerError(f"an ibsim named {self.base!r} runs already: {error.strerror}") from error
        self._control = control

    async def run(self) -> None:
        """Serve until cancelled; then the programs are cut off. Raises what :meth:`open` does."""
        self.open()
        assert self._control is not None
        loop = asyncio.get_running_loop()
        loop.add_reader(self._control, self._controls)
        try:
            while True:
                await asyncio.sleep(_PROBE_INTERVAL)
                self._reclaim()
        finally:
            loop.remove_reader(self._control)
            self.close()

    def close(self) -> None:
        """Give the sockets back."""
        for program in tuple(self._programs.values()):
            self._detach(program)
        for port in self._ports.values():
            port.close()
        self._ports.clear()
        if self._control is not None:
            self._control.close()
            self._control = None

    # -- control -------------------------------------------------------------------------------------------------

    def _controls(self) -> None:
        assert self._control is not None
        for _ in range(_BATCH):
            try:
                data, ancillary, _, sender = self._control.recvmsg(
                    CONTROL_LENGTH + 1, socket.CMSG_SPACE(_CREDENTIALS.size)
                )
            except (BlockingIOError, InterruptedError):
                return
            try:
                if not _may_connect(ancillary) or not isinstance(sender, bytes):
                    raise DecodeError("a stranger")
                answer = self._answer(ControlPacket.decode(data), sender)
            except DecodeError:
                self.refused += 1
                continue
            try:
                self._control.sendto(answer.encode(), sender)
            except OSError:
                continue  # who asked is gone, or does not read: it is its own loss

    def _answer(self, asked: ControlPacket, sender: bytes) -> ControlPacket:
        """The answer; ERROR where ibsim gives one. Raises :class:`DecodeError` for what gets none."""
        try:
            if asked.kind == ControlKind.CONNECT:
                number, data = self._connect(ConnectData.decode(asked.data), sender)
                return ControlPacket(number, ControlKind.CONNECT, data)
            program = self._programs.get(asked.client)
            if program is None or control_name(self.base, program.identifier) != sender:
                raise GuestError(f"no program {asked.client} at this socket")
            return ControlPacket(asked.client, asked.kind, self._asked(program, asked))
        except GuestError:
            return ControlPacket(asked.client, ControlKind.ERROR)

    def _connect(self, asked: ConnectData, sender: bytes) -> tuple[int, bytes]:
        if control_name(self.base, asked.identifier) != sender:
            raise DecodeError(f"a program that calls itself {asked.identifier} has another socket")
        for program in tuple(self._programs.values()):
            if program.identifier == asked.identifier:
                self._detach(program)  # its number went to another process, or it begins anew
        if len(self._programs) >= self._limit:
            self._reclaim()
        number = next((number for number in range(self._limit) if number not in self._programs), None)
        if number is None:
            raise GuestError(f"there are {self._limit} programs already")
        port = self._find(asked.node)
        home = self._ports.get(port.name)
        if home is None:
            home = self._ports[port.name] = GuestPort(port, self._services(port))
        program = _Program(self, number, asked.identifier)
        try:
            program.open(home, requests=asked.requests)
        finally:
            self._vacate(home)
        self._programs[number] = program
        return number, ConnectData(number, port.node.name, asked.requests, asked.qp).encode()

    def _find(self, name: str) -> Port:
        """The port that a program means: of a node, by its name or description, or ``node/port``."""
        nodes = self._fabric.nodes
        if not name:
            return _first_port(next(iter(nodes.values())))
        node = nodes.get(name) or next((node for node in nodes.values() if node.description == name), None)
        if node is not None:
            return _first_port(node)
        try:
            return self._fabric.port(PortRef.parse(name))
        except TopologyError as error:
            raise GuestError(str(error)) from None

    def _asked(self, program: _Program, asked: ControlPacket) -> bytes:
        guest = program.guest
        port = guest.home.port
        match asked.kind:
            case ControlKind.DISCONNECT:
                self._detach(program)
                return b""
            case ControlKind.GET_PORT:
                return port_data(port.lid, port.state)
            case ControlKind.GET_VENDOR:
                return vendor_data(port.node.spec.vendor_id, port.node.spec.device_id, 0, 1)
            case ControlKind.GET_GID:
                return port.gid.packed
            case ControlKind.GET_GUID:
                return port.guid.to_bytes(8, "big")
            case ControlKind.GET_NODE_INFO:
                return node_info(port.node, port).encode().ljust(CONTROL_DATA, b"\0")
            case ControlKind.GET_PORT_INFO:
                return port_info(_other_port(port, asked.data), port).encode()
            case ControlKind.SET_ISSM:
                guest.home.set_sm(guest, on=read_word(asked.data) != 0)
                return asked.data
            case ControlKind.GET_PKEYS:
                return PkeyTableBlock.of(tuple(port.pkeys[:PKEYS_PER_BLOCK])).encode()
            case _:
                raise GuestError(f"control packets of kind {asked.kind} are not known")

    # -- programs ------------------------------------------------------------------------------------------------

    def _reclaim(self) -> None:
        """Take back what programs held that died without a word: nobody listens at their socket."""
        for program in tuple(self._programs.values()):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                try:
                    probe.connect(client_data_name(self.base, program.identifier))
                except ConnectionRefusedError:
                    self._detach(program)
                except OSError:
                    continue  # most often EPERM: it is there, and listens to our other socket only

    def _detach(self, program: _Program) -> None:
        if self._programs.get(program.number) is program:
            del self._programs[program.number]
        program.close()
        self._vacate(program.guest.home)

    def _vacate(self, home: GuestPort) -> None:
        """A port without guests is as it was before."""
        if not home.guests:
            home.close()
            self._ports.pop(home.port.name, None)


class _Program:
    """An attached program: its data socket, and what waits there for it to read."""

    def __init__(self, server: IbsimServer, number: int, identifier: int) -> None:
        self._server = server
        self.number = number
        self.identifier = identifier
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._waiting: deque[bytes] = deque()
        self.guest: Guest

    def open(self, home: GuestPort, *, requests: bool) -> None:
        """Join the port and take the socket; raises :class:`GuestError` when either cannot be had."""
        base = self._server.base
        try:
            self._socket.bind(server_data_name(base, self.number))
            self._socket.connect(client_data_name(base, self.identifier))
            self.guest = home.join(self._deliver, requests=requests)
        except OSError as error:
            self._socket.close()
            raise GuestError(f"no sockets for program {self.identifier}: {error.strerror}") from error
        except GuestError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket, self._readable)

    def close(self) -> None:
        """Leave the port and give the socket back."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._waiting.clear()
            self.guest.leave()

    def _readable(self) -> None:
        for _ in range(_BATCH):
            try:
                packet = self._socket.recv(DATAGRAM_LENGTH + 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._failed(error)
                return
            try:
                datagram = SimDatagram.decode(packet)
                self.guest.send(GuestMad(datagram.dlid, datagram.dest_qp, datagram.mad))
            except DecodeError:
                self._server.refused += 1

    def _deliver(self, message: GuestMad) -> None:
        port = self.guest.home.port
        qpn = min(message.qpn, 1)
        packet = SimDatagram(port.lid, message.lid, qpn, message.qpn, message.mad).encode()
        if self._waiting:
            if len(self._waiting) < _MOST_QUEUED:
                self._waiting.append(packet)
            return
        if not self._put(packet):
            self._waiting.append(packet)
            self._loop.add_writer(self._socket, self._writable)

    def _writable(self) -> None:
        while self._waiting and self._put(self._waiting[0]):
            self._waiting.popleft()
        if not self._waiting and self._socket.fileno() >= 0:
            self._loop.remove_writer(self._socket)

    def _put(self, packet: bytes) -> bool:
        """Whether the packet is gone, to the program or with it."""
        if self._socket.fileno() < 0:
            return True
        try:
            self._socket.send(packet)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._failed(error)
        return True

    def _failed(self, error: OSError) -> None:
        if error.errno in _GONE:
            self._server._detach(self)


def _first_port(node: Node) -> Port:
    """The port that a program at a node uses: a switch's management port, else the first with a cable."""
    if node.management is not None:
        return node.management
    return next((port for port in node.ports if port.link is not None), node.ports[0])


def _other_port(port: Port, data: bytes) -> Port:
    """The port of the same node that GET_PORT_INFO asks for: its number in the first byte, 0 for the own one."""
    number = data[0] if data else 0
    return port.node.ports[number - 1] if 1 <= number <= len(port.node.ports) else port


def _may_connect(ancillary: list[tuple[int, int, bytes]]) -> bool:
    """Whether the kernel says that the packet came from a process of this user, or of root."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and len(data) >= _CREDENTIALS.size:
            _, uid, _ = _CREDENTIALS.unpack_from(data)
            return uid in (0, os.geteuid())
    return False
