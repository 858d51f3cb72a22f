"""The MadPort seam over a user MAD device (IBA 13.5; Linux ``user_mad``; facts: srp E).

One descriptor carries all of a port's transactions at once. They are told apart by the low 32 bits of the transaction
ID, because the kernel writes the agent's number into the high ones.

**Retries belong to the kernel**: timeout and number of retries go into each request's header, and one packet comes
back, the answer or status 110. A try thus keeps its transaction ID, so that a late answer to the first try still ends
the transaction. Retries of our own would need a new ID for each, because the kernel refuses one that is in flight;
they would lose such answers and wake us up for each try. What we add is a guard: the kernel drops a request whose send
itself fails without a word (it reports response timeouts only), so that a transaction also ends some seconds after its
last try should have.

The device may go (EIO, POLLERR) and come again under another number. The port then fails what is in flight, and opens
the device anew with the next transaction or with :meth:`UmadPort.run`'s next look.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol, TypeVar

from srpha.core.hints import Hints
from srpha.core.seams import (
    LinkLayer,
    LinkState,
    MadAddress,
    MadError,
    MadPortGoneError,
    MadTimeoutError,
    PortIdentity,
    ReceivedMad,
    Unwatch,
)
from srpha.kernel.ports import DEV, SYSFS, PortFiles, find_ports
from srpha.kernel.umad_abi import TIMED_OUT, Agent, Received, packet, read_packet
from srpha.kernel.umad_device import CharacterDevice, Descriptor, TableTooLongError, UmadDevice
from srpha.kernel.worker import Worker
from srpha.wire.errors import DecodeError
from srpha.wire.mad import (
    MAD_HEADER_LENGTH,
    MAD_LENGTH,
    ManagementClass,
    Method,
    is_response_method,
    transaction_key,
)

POLL_INTERVAL: Final = 2.0
"""Seconds between looks at state, LIDs and GID."""
FULL_INTERVAL: Final = 30.0
"""Seconds between looks at everything, the P_Key table too: many small files, each a question to the firmware."""
GUARD_TIME: Final = 5.0
"""Seconds past the last try after which a transaction ends without the kernel's word."""

_PACKETS_AT_ONCE: Final = 64
"""Packets read before other callbacks get their turn."""
_GONE: Final = (errno.EIO, errno.ENODEV, errno.EPIPE, errno.ENXIO, errno.EBADF)
"""What a device that is gone or going answers to reads, writes and registrations."""

_T = TypeVar("_T")


class Offload(Protocol):
    """Runs blocking work off the loop; the usual one is a :class:`srpha.kernel.worker.Worker`."""

    async def __call__(self, work: Callable[[], _T], /) -> _T: ...


@dataclass(slots=True)
class _Transaction:
    """A request in flight."""

    mgmt_class: int
    tid: int
    done: asyncio.Future[Received | str]
    """What came, or why nothing will: the device is gone."""


class _Session:
    """The time between an open and the close of the device: its agents and transactions."""

    def __init__(self, device: UmadDevice) -> None:
        self.device = device
        self.agents: dict[int, int] = {}
        """Agent ID by management class."""
        self.hears_reports = True
        self.transactions: dict[int, _Transaction] = {}
        """By the low 32 bits of the transaction ID."""

    def forget(self, transaction: _Transaction) -> None:
        """A late answer is nobody's."""
        if self.transactions.get(transaction.tid) is transaction:
            del self.transactions[transaction.tid]


class UmadPort:
    """A local HCA port; implements :class:`srpha.core.seams.MadPort`.

    Nothing is opened before it is needed. While :meth:`run` works the identity is kept up to date by it; without it
    every :meth:`identity` reads sysfs.
    """

    def __init__(
        self,
        device: str,
        port: int,
        *,
        sysfs: Path = SYSFS,
        dev: Path = DEV,
        open_device: Callable[[Path], Descriptor] = CharacterDevice,
        offload: Offload | None = None,
        poll_interval: float = POLL_INTERVAL,
        full_interval: float = FULL_INTERVAL,
    ) -> None:
        self._name = f"{device}/{port}"
        self._files = PortFiles(device, port, sysfs)
        self._sysfs = sysfs
        self._dev = dev
        self._open_device = open_device
        self._worker = Worker(f"umad {self._name}")
        self._offload = offload or self._worker.call
        self._poll_interval = poll_interval
        self._full_interval = full_interval
        self._session: _Session | None = None
        self._last_tid = 0
        self._running = False
        self._identity: PortIdentity | None = None
        self._why_gone = "not looked at yet"
        self._stir = asyncio.Event()
        self._full_look = False
        self._reopen_at = -math.inf
        self._hints = Hints()
        self._receivers: list[Callable[[ReceivedMad], None]] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def hears_reports(self) -> bool:
        """False when another program on this host has the port's SA Reports: notices then do not come here."""
        return self._session is None or self._session.hears_reports

    def identity(self) -> PortIdentity:
        """See :class:`srpha.core.seams.MadPort`."""
        if not self._running:
            return self._files.identity()
        if self._identity is None:
            raise MadPortGoneError(self._why_gone)
        return self._identity

    async def transact(self, address: MadAddress, mad: bytes, *, timeout: float, retries: int) -> bytes:
        """See :class:`srpha.core.seams.MadPort`. Classes are subnet administration and Device Management.

        A table carried by RMPP must be complete within ``timeout``. Other failures of the kernel to send are
        :class:`MadError`.
        """
        if len(mad) != MAD_LENGTH or is_response_method(mad[3]):
            raise ValueError("a transaction starts with a request of 256 bytes")
        if self._running and self._identity is not None and (trouble := _cannot_send(self._identity)):
            raise MadPortGoneError(f"{self._name}: {trouble}")
        session = self._opened()
        transaction = _Transaction(mad[1], 0, asyncio.get_running_loop().create_future())
        patience = timeout * (retries + 1) + GUARD_TIME
        try:
            async with asyncio.timeout(patience):
                await self._send(session, transaction, address, mad, timeout, retries)
                received = await transaction.done
        except TimeoutError:
            received = Received(0, TIMED_OUT, address, b"")
        finally:
            session.forget(transaction)
        if isinstance(received, str):
            raise MadPortGoneError(received)
        if received.status == TIMED_OUT:
            raise MadTimeoutError(
                f"{self._name}: no answer from {_where(address)} within {timeout:g} s, tried {retries + 1} times"
            )
        if received.status:
            raise MadError(f"{self._name}: sending to {_where(address)} failed: {os.strerror(received.status)}")
        return received.mad

    def reply(self, address: MadAddress, mad: bytes) -> None:
        """See :class:`srpha.core.seams.MadPort`."""
        if len(mad) != MAD_LENGTH or not is_response_method(mad[3]):
            raise ValueError("a reply is a response of 256 bytes")
        session = self._session
        agent = None if session is None else session.agents.get(mad[1])
        if session is None or agent is None:
            return
        try:
            session.device.write(packet(agent, address, mad))
        except OSError as error:
            # lost, as a datagram may be; the sender repeats its report
            if error.errno in _GONE:
                self._lose(session, f"the device is gone ({error.strerror})")

    def watch_reports(self, receiver: Callable[[ReceivedMad], None]) -> Unwatch:
        """See :class:`srpha.core.seams.MadPort`."""
        self._receivers.append(receiver)

        def leave() -> None:
            if receiver in self._receivers:
                self._receivers.remove(receiver)

        return leave

    def watch(self, hint: Callable[[], None]) -> Unwatch:
        """See :class:`srpha.core.seams.MadPort`. Hints come while :meth:`run` works."""
        return self._hints.add(hint)

    def stir(self) -> None:
        """Something may have changed (a uevent, a notice): look at everything soon."""
        self._full_look = True
        self._stir.set()

    async def run(self) -> None:
        """Keep the device open and the identity true until cancelled; then close."""
        loop = asyncio.get_running_loop()
        full_due = -math.inf
        try:
            while True:
                self._stir.clear()
                full = self._full_look or self._identity is None or loop.time() >= full_due
                self._full_look = False
                if full:
                    full_due = loop.time() + self._full_interval
                await self._look(full=full)
                try:
                    async with asyncio.timeout(self._poll_interval):
                        await self._stir.wait()
                except TimeoutError:
                    pass
        finally:
            self._running = False
            self.close()

    def close(self) -> None:
        """Let go of the device; what is in flight ends. The port may be used again."""
        if self._session is not None:
            self._end(self._session, f"{self._name}: closed")
        self._worker.close()

    async def _look(self, *, full: bool) -> None:
        """Read the identity and open the device if it can be; hint when something is different."""
        before, why_before = self._identity, self._why_gone
        known = None if full else before
        try:
            identity = await self._offload(lambda: self._files.identity(known))
            if known is not None and known != identity:  # another SM may write another P_Key table
                identity = await self._offload(self._files.identity)
            self._identity, self._why_gone = identity, ""
        except MadPortGoneError as error:
            self._identity, self._why_gone = None, str(error)
        self._running = True
        if self._identity is None:
            self.close()
        else:
            self._tend(full=full)
            trouble = _cannot_send(self._identity)
            if trouble and self._session is not None:
                self._fail(self._session, f"{self._name}: {trouble}")
        if before != self._identity or why_before != self._why_gone:
            self._hints.ring()

    def _tend(self, *, full: bool) -> None:
        """Have the device open, and with it the port's reports once whoever had them leaves."""
        if self._session is None and asyncio.get_running_loop().time() < self._reopen_at:
            return
        try:
            session = self._opened()
        except MadError as error:
            self._why_gone = str(error)
            return
        if full and not session.hears_reports:
            self._register_reports(session)

    def _opened(self) -> _Session:
        """The open device; raises :class:`MadPortGoneError` when it cannot be opened."""
        if self._session is None:
            self._session = self._open()
        return self._session

    def _open(self) -> _Session:
        found = next((port for port in find_ports(self._sysfs, self._dev) if port.name == self._name), None)
        if found is None:
            raise MadPortGoneError(
                f"{self._name}: no user MAD device; is the HCA there, and the module ib_umad loaded?"
            )
        try:
            device = UmadDevice(self._open_device(found.node))
        except OSError as error:
            denied = error.errno in (errno.EACCES, errno.EPERM)
            advice = "; run as root, in the network namespace that the device is in" if denied else ""
            raise MadPortGoneError(f"{self._name}: cannot open {found.node}: {error.strerror}{advice}") from error
        try:
            session = self._register(device)
        except OSError as error:
            device.close()
            raise MadPortGoneError(f"{self._name}: {found.node} refuses to serve: {error.strerror}") from error
        device.watch(lambda: self._readable(session))
        return session

    def _register(self, device: UmadDevice) -> _Session:
        session = _Session(device)
        device.enable_pkeys()
        self._register_reports(session)
        if not session.hears_reports:
            silent = Agent(ManagementClass.SUBN_ADM, 2, rmpp_version=1)
            session.agents[silent.mgmt_class] = device.register(silent)
        management = Agent(ManagementClass.DEVICE_MGMT, 1)
        session.agents[management.mgmt_class] = device.register(management)
        return session

    def _register_reports(self, session: _Session) -> None:
        """Subnet administration with its Reports, unless another program has those: they have one owner per port."""
        agent = Agent(ManagementClass.SUBN_ADM, 2, rmpp_version=1, methods=(Method.REPORT,))
        try:
            session.agents[agent.mgmt_class] = session.device.register(agent)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            session.hears_reports = False
        else:
            session.hears_reports = True

    def _enter(self, session: _Session, transaction: _Transaction) -> None:
        """Give it an ID that is not in flight; 0 is left out, OpenSM ignores it."""
        session.forget(transaction)
        while True:
            self._last_tid = self._last_tid % 0xFFFFFFFF + 1
            if self._last_tid not in session.transactions:
                break
        transaction.tid = self._last_tid
        session.transactions[transaction.tid] = transaction

    async def _send(
        self,
        session: _Session,
        transaction: _Transaction,
        address: MadAddress,
        mad: bytes,
        timeout: float,
        retries: int,
    ) -> None:
        """Write the request."""
        agent = session.agents.get(transaction.mgmt_class)
        if agent is None:
            raise ValueError(f"no transactions in management class {transaction.mgmt_class:#04x}")
        timeout_ms = max(1, math.ceil(timeout * 1000))
        for last in (False, True):
            self._enter(session, transaction)
            numbered = mad[:8] + transaction.tid.to_bytes(8, "big") + mad[16:]
            data = packet(agent, address, numbered, timeout_ms=timeout_ms, retries=retries)
            try:
                if address.gid is None:
                    session.device.write(data)
                else:
                    # with a GRH on Ethernet the kernel may have to find the neighbour first: up to a second
                    await self._offload(partial(session.device.write, data))
            except OSError as error:
                if error.errno in _GONE:
                    self._lose(session, f"the device is gone ({error.strerror})")
                elif error.errno != errno.EINVAL or last:
                    raise MadError(f"{self._name}: cannot send to {_where(address)}: {error.strerror}") from error
                else:
                    continue  # the ID may be in flight still, for a transaction that was cancelled
            return

    def _readable(self, session: _Session) -> None:
        """Take what the kernel has for us."""
        try:
            for _ in range(_PACKETS_AT_ONCE):
                self._take(session, read_packet(session.device.read()))
                if session is not self._session:
                    return  # a listener closed the port
        except (BlockingIOError, InterruptedError):
            return
        except TableTooLongError as error:
            self._lose(session, f"started again after {error.strerror}")
        except OSError as error:
            self._lose(session, f"the device is gone ({error.strerror})")
        except DecodeError as error:
            self._lose(session, f"started again: {error}")

    def _take(self, session: _Session, received: Received) -> None:
        mad = received.mad
        if len(mad) < MAD_HEADER_LENGTH:
            return
        mgmt_class, method = mad[1], mad[3]
        if received.status == 0 and not is_response_method(method):
            if mgmt_class == ManagementClass.SUBN_ADM and method == Method.REPORT:
                for receiver in tuple(self._receivers):
                    receiver(ReceivedMad(received.source, mad))
            return
        # The transaction first, the status after: a late timeout of another question is not this one's.
        transaction = session.transactions.get(transaction_key(mad))
        if transaction is None or transaction.mgmt_class != mgmt_class or transaction.done.done():
            return
        if received.status == 0 and len(mad) < MAD_LENGTH and mgmt_class != ManagementClass.SUBN_ADM:
            return
        transaction.done.set_result(received)

    def _lose(self, session: _Session, reason: str) -> None:
        """The device does not serve any more."""
        self._why_gone = f"{self._name}: {reason}"
        if session is self._session:
            self._end(session, self._why_gone)
            # a device on its way out can be opened and fails again at once
            self._reopen_at = asyncio.get_running_loop().time() + self._poll_interval / 2
            self.stir()
            self._hints.ring()

    def _end(self, session: _Session, reason: str) -> None:
        self._session = None
        session.device.close()
        self._fail(session, reason)

    def _fail(self, session: _Session, reason: str) -> None:
        for transaction in session.transactions.values():
            if not transaction.done.done():
                transaction.done.set_result(reason)


def _cannot_send(identity: PortIdentity) -> str:
    """Why nothing gets through now; empty when it may. Without a LID datagrams with a GRH still go, on Ethernet."""
    if identity.state is not LinkState.ACTIVE:
        return f"the port is {identity.state.value}"
    if identity.link_layer is LinkLayer.INFINIBAND and not identity.lid:
        return "the port has no LID"
    return ""


def _where(address: MadAddress) -> str:
    return f"LID {address.lid}" if address.gid is None else f"GID {address.gid}"
