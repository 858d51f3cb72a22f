"""One RDMA channel of an SRP target port: its information units, credits and commands (SRP r16a chapters 5 and 6).

The way of a command: :meth:`SrpChannel._receive` reads it; with no data to fetch, service time or hold it is executed
and answered on the spot, else an :class:`~srpha.embedded.target.srp_task.SrpTask` sees it through. Task attributes are
not told apart: every command is SIMPLE, and may be executed before an earlier one whose data are still on their way.

An initiator that breaks the protocol loses this channel and nothing else.
"""

from __future__ import annotations

from asyncio import TimerHandle
from collections import deque
from collections.abc import Callable
from enum import Enum, IntEnum
from typing import Final, Protocol

from srpha.embedded.rdma.rc_outcome import CloseReason
from srpha.embedded.target import task_management
from srpha.embedded.target.data_buffers import BadBufferError, Pieces, check_buffer, place
from srpha.embedded.target.hold import Hold
from srpha.embedded.target.logical_unit import LogicalUnit
from srpha.embedded.target.login import LoginTerms
from srpha.embedded.target.outcome import TASK_SET_FULL, Outcome
from srpha.embedded.target.spec import TargetLimits
from srpha.embedded.target.srp_task import SrpTask
from srpha.embedded.target.target_device import TargetDevice
from srpha.embedded.target.transport import Channel
from srpha.embedded.target.unit_attention import ScsiNexus
from srpha.wire.errors import DecodeError
from srpha.wire.scsi.sense import Sense, encode_fixed
from srpha.wire.srp import (
    CreditRequest,
    CreditResponse,
    EventResponse,
    InitiatorLogout,
    Opcode,
    TargetLogout,
    TaskManagement,
    encode_event,
)
from srpha.wire.srp_io import (
    CMD_OPCODE,
    IMMEDIATE_OFFSET,
    BufferFormat,
    Command,
    Response,
    ResponseCode,
    decode_cmd,
    encode_good_rsp,
    encode_rsp,
)

_CREDIT_MASK: Final = 0xFFFFFFFF


class LogoutReason(IntEnum):
    """Reasons of T_LOGOUT (SRP r16a 6.6)."""

    NONE = 0
    INACTIVE = 1
    INVALID_IU = 2
    SPURIOUS_RESPONSE = 3
    MULTICHANNEL = 4


class ChannelEnd(Enum):
    """Why a channel of a target ended."""

    INITIATOR_LOGOUT = "the initiator logged out"
    PROTOCOL_ERROR = "the initiator broke the protocol"
    NEW_LOGIN = "the initiator port logged in anew"
    TARGET = "the target ended it"
    TRANSPORT = "the connection was lost"


class ChannelHost(Protocol):
    """The target that a channel belongs to."""

    @property
    def device(self) -> TargetDevice: ...
    @property
    def limits(self) -> TargetLimits: ...
    @property
    def holds(self) -> list[Hold]: ...
    def call_later(self, delay: float, callback: Callable[[], None]) -> TimerHandle: ...
    def channel_ended(self, channel: SrpChannel, end: ChannelEnd) -> None: ...


class SrpNexus:
    """An I_T nexus with its channels, oldest first."""

    __slots__ = ("channels", "scsi")

    def __init__(self, scsi: ScsiNexus) -> None:
        self.scsi = scsi
        self.channels: list[SrpChannel] = []


class SrpChannel:
    """Serves one connection from the login until it ends, for whatever reason."""

    __slots__ = (
        "_answering",
        "_asked",
        "_credits",
        "_immediate_offset",
        "_next_tag",
        "_open",
        "_owed",
        "_questions",
        "commands",
        "connection",
        "device",
        "fault",
        "holds",
        "host",
        "immediate",
        "max_iu",
        "nexus",
        "port",
        "scsi",
        "tasks",
    )

    def __init__(self, host: ChannelHost, nexus: SrpNexus, connection: Channel, terms: LoginTerms, port: int) -> None:
        """``port`` is the index of the target's HCA port."""
        self.host = host
        self.holds = host.holds
        self.device = host.device
        self.nexus = nexus
        self.scsi = nexus.scsi
        self.connection = connection
        self.port = port
        self.max_iu = terms.max_iu
        self.immediate = terms.immediate_offset > 0
        self._immediate_offset = terms.immediate_offset or IMMEDIATE_OFFSET
        self.tasks: dict[int, SrpTask] = {}
        """Commands in progress by tag."""
        self.commands = 0
        """Commands received since the login."""
        self.fault = ""
        """How the initiator broke the protocol, empty while it has not."""
        self._credits = terms.request_limit
        self._owed = 0
        """Credits to give back beside those of responses; negative: responses to be sent without one."""
        self._answering = False
        self._open = True
        self._questions: deque[tuple[int, Callable[[int], bytes]]] = deque()
        self._asked: tuple[int, int] | None = None
        self._next_tag = 1
        connection.on_receive = self._receive
        connection.on_closed = self._closed

    @property
    def is_open(self) -> bool:
        return self._open

    @property
    def credits(self) -> int:
        """Requests that the initiator may send now."""
        return self._credits

    def end(self, end: ChannelEnd, logout: LogoutReason | None = None) -> None:
        """End the channel: abort its commands, say T_LOGOUT if a reason is given, disconnect. Again is harmless."""
        if not self._open:
            return
        self._open = False
        self._abort_tasks()
        if logout is not None:
            self.connection.send(TargetLogout(reason=logout, tag=self._take_tag()).encode())
        self.connection.disconnect()
        self.host.channel_ended(self, end)

    def vanish(self) -> None:
        """Be gone without a word, as when the target crashes."""
        self._open = False
        self._abort_tasks()
        self.connection.destroy()

    def throttle(self, credit_count: int) -> None:
        """Keep the next ``credit_count`` credits back: responses carry none until they are withheld."""
        self._owed -= credit_count

    def unthrottle(self, credit_count: int) -> None:
        """Give ``credit_count`` more credits, at once by CRED_REQ when none are being withheld."""
        self._owed += credit_count
        self._offer_credits()

    def report_event(self, lun_field: int, sense: Sense) -> None:
        """Send an AER_REQ (SRP 6.12): an event of a unit; at most one request of ours is unanswered at a time."""
        encoded = encode_fixed(sense)
        self._ask(Opcode.AER_RSP, lambda tag: encode_event(tag, lun_field, encoded))

    def return_credit(self) -> None:
        """A command ended without a response: its credit goes back with the next one, or by CRED_REQ."""
        self._owed += 1
        if not self._answering:
            self._offer_credits()

    def refuse(self, tag: int) -> None:
        """Answer a request whose fields make no sense: response code REQUEST FIELDS INVALID."""
        self._respond_code(tag, ResponseCode.INVALID_FIELDS)

    # Requests of the initiator

    def _receive(self, data: bytes) -> None:
        if not self._open:
            return
        if not data or len(data) > self.max_iu:
            self._violation(f"an IU of {len(data)} bytes, agreed on were 1 to {self.max_iu}")
            return
        if data[0] != CMD_OPCODE:
            self._receive_other(data)
            return
        try:
            command = decode_cmd(data, self._immediate_offset)
        except DecodeError as error:
            self._violation(str(error))
            return
        if self._credits <= 0:
            self._violation("a request without a credit")
            return
        self._credits -= 1
        self.commands += 1
        if self.tasks and command.tag in self.tasks:
            self._violation(f"tag {command.tag:#x} is in use")
            return
        unit = self.device.unit_at(command.lun)
        if unit is not None and not unit.service_time and not self.holds:
            out, into = command.data_out, command.data_in
            if into is None:
                pieces: Pieces | None = ()
            elif into.table is None and into.length <= unit.max_transfer:
                pieces = into.descriptors
            else:
                pieces = None
            if pieces is not None:
                if out is None:
                    self.respond(command, pieces, unit.execute(self.scsi, command.cdb))
                    return
                if self.immediate and out.format is BufferFormat.IMMEDIATE:
                    self.respond(command, pieces, unit.execute(self.scsi, command.cdb, out.immediate))
                    return
        self._start(command, unit)

    def _start(self, command: Command, unit: LogicalUnit | None) -> None:
        """Take a command that is not done on the spot."""
        limits = self.host.limits
        try:
            for buffer in (command.data_out, command.data_in):
                if buffer is not None:
                    check_buffer(buffer, limits.max_transfer, indirect=limits.indirect, immediate=self.immediate)
        except BadBufferError:
            self.refuse(command.tag)
            return
        if unit is None:
            # nothing at an absent unit takes data, and a table longer than its descriptors is not worth a READ
            pieces = () if command.data_in is None else command.data_in.descriptors
            self.respond(command, pieces, self.device.absent.execute(self.scsi, command.cdb))
        elif unit.tasks.full:
            self.respond(command, (), TASK_SET_FULL)
        else:
            task = SrpTask(self, command, unit)
            self.tasks[command.tag] = task
            unit.tasks.add(task)
            task.start()

    def _receive_other(self, data: bytes) -> None:
        try:
            match data[0]:
                case Opcode.TSK_MGMT:
                    self._manage(TaskManagement.decode(data))
                case Opcode.I_LOGOUT:
                    InitiatorLogout.decode(data)
                    self.end(ChannelEnd.INITIATOR_LOGOUT)
                case Opcode.CRED_RSP:
                    self._answered(Opcode.CRED_RSP, CreditResponse.decode(data).tag)
                case Opcode.AER_RSP:
                    self._answered(Opcode.AER_RSP, EventResponse.decode(data).tag)
                case unknown:
                    self._violation(f"opcode {unknown:#04x}", LogoutReason.INVALID_IU)
        except DecodeError as error:
            self._violation(str(error))

    def _manage(self, request: TaskManagement) -> None:
        if self._credits <= 0:
            self._violation("a request without a credit")
            return
        self._credits -= 1
        self._answering = True
        code = task_management.perform(request, self.device, self.nexus, self)
        self._answering = False
        self._respond_code(request.tag, code)

    # Responses

    def respond(self, command: Command, in_pieces: Pieces, outcome: Outcome) -> None:
        """Place data-in, then send the RSP with residuals (SRP 6.9) and the credit."""
        if not self._open:
            return
        status, sense, data, taken = outcome
        in_residual = out_residual = 0
        data_in, data_out = command.data_in, command.data_out
        if data_in is not None:
            in_residual = data_in.length - len(data)
            if data:
                place(self.connection, in_pieces, data)
        elif data:
            in_residual = -len(data)
        if data_out is not None:
            out_residual = data_out.length - taken
        elif taken:
            out_residual = -taken
        if status or in_residual or out_residual:
            response = Response(command.tag, status, self._grant(), sense, b"", out_residual, in_residual)
            self.connection.send(encode_rsp(response))
        else:
            self.connection.send(encode_good_rsp(command.tag, self._grant()))

    def _respond_code(self, tag: int, code: ResponseCode) -> None:
        if self._open:
            self.connection.send(encode_rsp(Response(tag, 0, self._grant(), response_data=bytes([0, 0, 0, code]))))

    def _grant(self) -> int:
        """The request limit delta of a response: its own credit, more when some are owed, none while withheld."""
        delta = self._owed + 1
        if delta < 0:
            self._owed = delta
            return 0
        self._owed = 0
        self._credits += delta
        return delta

    # Requests of the target

    def _offer_credits(self) -> None:
        if self._open and self._owed > 0 and self._asked is None:
            self._ask(Opcode.CRED_RSP, self._credit_request)

    def _credit_request(self, tag: int) -> bytes:
        delta, self._owed = max(self._owed, 0), min(self._owed, 0)
        self._credits += delta
        return CreditRequest(limit_delta=delta & _CREDIT_MASK, tag=tag).encode()

    def _ask(self, answer: int, make: Callable[[int], bytes]) -> None:
        """Send a request of ours now, or after the unanswered one."""
        self._questions.append((answer, make))
        self._ask_next()

    def _ask_next(self) -> None:
        if self._open and self._asked is None and self._questions:
            answer, make = self._questions.popleft()
            tag = self._take_tag()
            self._asked = (answer, tag)
            self.connection.send(make(tag))

    def _answered(self, answer: int, tag: int) -> None:
        if self._asked != (answer, tag):
            self._violation(f"a response {answer:#04x} with tag {tag:#x} to nothing", LogoutReason.SPURIOUS_RESPONSE)
            return
        self._asked = None
        self._ask_next()
        self._offer_credits()

    def _take_tag(self) -> int:
        tag, self._next_tag = self._next_tag, self._next_tag + 1
        return tag

    # The end

    def _violation(self, what: str, reason: LogoutReason = LogoutReason.NONE) -> None:
        self.fault = what
        self.end(ChannelEnd.PROTOCOL_ERROR, reason)

    def _closed(self, _reason: CloseReason) -> None:
        if self._open:
            self._open = False
            self._abort_tasks()
            self.host.channel_ended(self, ChannelEnd.TRANSPORT)

    def _abort_tasks(self) -> None:
        for task in tuple(self.tasks.values()):
            task.abort()
