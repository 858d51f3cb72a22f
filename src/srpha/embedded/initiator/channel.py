"""One SRP channel: a queue pair, its request limit, and the commands that are outstanding on it (SRP 4.4, 5.5).

A channel knows nothing of states and timers: it sends what it is given while it has credits, matches responses by tag,
and tells its host once when it is of no use any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from srpha.core.recovery.error_recovery import TaskManagementOutcome
from srpha.embedded.rdma.rdma_port import CloseReason, RcConnection, RdmaPort
from srpha.wire.errors import DecodeError
from srpha.wire.scsi.status import HostByte, ScsiStatus
from srpha.wire.srp import (
    CreditRequest,
    CreditResponse,
    EventRequestHeader,
    EventResponse,
    Opcode,
    TargetLogout,
    TaskFunction,
    TaskManagement,
    decode_event,
    signed_delta,
)
from srpha.wire.srp_io import (
    RSP_OPCODE,
    Command,
    DataBuffer,
    Response,
    ResponseCode,
    decode_rsp,
    direct_buffer,
    encode_cmd,
    encode_immediate_cmd,
    encode_read_write_cmd,
)

if TYPE_CHECKING:
    from srpha.embedded.initiator.device import UnitQueue
    from srpha.embedded.initiator.request import Request

RESERVED_CREDITS: Final = 1
"""Kept for task management, so that error recovery is not stuck behind the commands it is to abort."""
TASK_MANAGEMENT_TAG: Final = 1 << 31
"""Set in tags of task management functions (facts: srp D)."""
_TAG_STEP: Final = 1 << 32
"""Command tags count in the upper half, so that they never look like one of task management."""

_STATUS: Final = {int(status): status for status in ScsiStatus}


class ChannelOwner(Protocol):
    """Who hears of what happens on a channel."""

    queued: dict[UnitQueue, None]
    """Units with commands that wait to be sent."""

    def drain(self) -> None:
        """Credits came back while :attr:`queued` is not empty."""
        ...

    def late_response(self, request: Request) -> None:
        """A command that had timed out was answered."""
        ...

    def task_management_answered(self, tag: int, outcome: TaskManagementOutcome) -> None: ...

    def channel_lost(self, channel: Channel, reason: str) -> None:
        """The channel is closed; its requests are still in :attr:`Channel.requests`. Called once."""
        ...


class Channel:
    """One logged-in channel. Created closed to commands; :meth:`adopt` hands it to its host."""

    __slots__ = (
        "_connection",
        "_immediate_limit",
        "_max_iu",
        "_owner",
        "_rdma",
        "_send",
        "_tag",
        "is_open",
        "limit",
        "lost_reason",
        "req_lim",
        "requests",
        "target_logouts",
        "unknown_tags",
        "zero_req_lim",
    )

    def __init__(
        self,
        rdma: RdmaPort,
        connection: RcConnection,
        *,
        req_lim: int,
        queue_size: int,
        max_iu: int,
        immediate_limit: int,
    ) -> None:
        self._rdma = rdma
        self._connection = connection
        self._send = connection.send
        self._owner: ChannelOwner | None = None
        self._immediate_limit = immediate_limit
        self._max_iu = max_iu
        self._tag = 0
        self.requests: dict[int, Request] = {}
        """Outstanding requests by tag, in the order they were sent in."""
        self.req_lim = req_lim
        """Requests the target takes now (SRP 5.5); may fall to or below zero."""
        self.limit = min(queue_size, req_lim - RESERVED_CREDITS)
        """can_queue of the kernel: most commands outstanding."""
        self.zero_req_lim = 0
        """Times a command had to wait for credits."""
        self.unknown_tags = 0
        """Responses to no command of ours: late, doubled or made up."""
        self.target_logouts = 0
        self.is_open = True
        self.lost_reason = ""
        connection.on_receive = self._receive
        connection.on_closed = self._closed

    def adopt(self, owner: ChannelOwner, first_tag: int) -> None:
        """Hand the channel to its host; ``first_tag`` keeps tags of successive channels of a host apart.

        A channel that was lost before tells the owner now.
        """
        self._owner = owner
        self._tag = first_tag * _TAG_STEP
        if not self.is_open:
            owner.channel_lost(self, self.lost_reason)

    @property
    def has_credit(self) -> bool:
        """Whether one more command may be sent; a refusal for want of credits is counted."""
        if len(self.requests) >= self.limit or not self.is_open:
            return False
        if self.req_lim <= RESERVED_CREDITS:
            self.zero_req_lim += 1
            return False
        return True

    def transmit(self, request: Request) -> None:
        """Send a command. The caller has checked :attr:`has_credit` and that the command fits the channel."""
        command = request.command
        tag = self._tag = self._tag + 1
        lun = request.unit.lun_field
        cdb = command.cdb
        if command.data_in:
            region = request.region = self._rdma.register(command.data_in)
            if len(cdb) <= 16:
                unit = encode_read_write_cmd(tag, lun, cdb, False, region.address, region.rkey, region.length)
            else:
                unit = encode_cmd(
                    Command(tag, lun, cdb, None, direct_buffer(region.address, region.rkey, region.length))
                )
        elif command.data_out:
            unit = self._encode_write(request, tag, lun, cdb)
        else:
            unit = encode_cmd(Command(tag, lun, cdb))
        request.tag = tag
        self.req_lim -= 1
        self.requests[tag] = request
        command.delivered = True
        self._send(unit)

    def _encode_write(self, request: Request, tag: int, lun: int, cdb: bytes) -> bytes:
        data = request.command.data_out
        if len(data) <= self._immediate_limit and len(cdb) <= 16:
            return encode_immediate_cmd(tag, lun, cdb, data)
        region = request.region = self._rdma.register(data)
        if len(cdb) <= 16:
            return encode_read_write_cmd(tag, lun, cdb, True, region.address, region.rkey, region.length)
        buffer: DataBuffer = direct_buffer(region.address, region.rkey, region.length)
        return encode_cmd(Command(tag, lun, cdb, buffer))

    def fits(self, cdb_length: int) -> bool:
        """Whether a command with a CDB of this length fits the longest unit the target takes."""
        return cdb_length <= 16 or 48 + (cdb_length - 16 + 3 & -4) + 16 <= self._max_iu

    def send_task_management(self, tag: int, function: TaskFunction, lun_field: int, task_tag: int) -> bool:
        """Send a task management function; False when the channel has no credit or is closed."""
        if not self.is_open or self.req_lim <= 0:
            return False
        self.req_lim -= 1
        self._send(TaskManagement(tag=tag, lun=lun_field, function=function, task_tag=task_tag).encode())
        return True

    def withdraw(self, tags: Sequence[int]) -> list[Request]:
        """Take outstanding commands off the channel: the target has confirmed that it is rid of them."""
        withdrawn = [request for tag in tags if (request := self.requests.pop(tag, None)) is not None]
        for request in withdrawn:
            request.unit.active -= 1
            self._unmap(request)
        return withdrawn

    def close(self) -> dict[int, Request]:
        """Disconnect silently; the requests outstanding, whose memory the target cannot reach any more."""
        if self.is_open:
            self.is_open = False
            self._connection.on_closed = _nobody_listens
            self._connection.disconnect()
        return self._release()

    def destroy(self) -> dict[int, Request]:
        """As :meth:`close` but without a word to the target: our host has crashed."""
        self.is_open = False
        self._connection.destroy()
        return self._release()

    def fail(self, reason: str) -> None:
        """Close the channel from this side and tell the owner."""
        if self.is_open:
            self.is_open = False
            self._connection.on_closed = _nobody_listens
            self._connection.disconnect()
            self._lost(reason)

    def _release(self) -> dict[int, Request]:
        requests, self.requests = self.requests, {}
        for request in requests.values():
            self._unmap(request)
        return requests

    def _unmap(self, request: Request) -> None:
        if request.region is not None:
            self._rdma.deregister(request.region)
            request.region = None

    def _closed(self, reason: CloseReason) -> None:
        if self.is_open:
            self.is_open = False
            self._lost(reason.value)

    def _lost(self, reason: str) -> None:
        self.lost_reason = reason
        if self._owner is not None:
            self._owner.channel_lost(self, reason)

    def _receive(self, message: bytes) -> None:
        if not self.is_open:
            return
        try:
            if message[:1] == _RSP:
                response = decode_rsp(message)
            else:
                self._receive_other(message)
                return
        except DecodeError as error:
            self.fail(f"the target broke the SRP protocol: {error}")
            return
        self.req_lim += response.limit_delta
        owner = self._owner
        request = self.requests.pop(response.tag, None)
        if request is None:
            self._unmatched(response)
        else:
            if request.region is not None:
                self._rdma.deregister(request.region)
                request.region = None
            command = request.command
            if response.status or response.in_residual or response.out_residual or response.response_data:
                _judge(request, response)
            if owner is not None and request.expired:
                owner.late_response(request)
            request.unit.active -= 1
            command.done(command)
        if owner is not None and owner.queued:
            owner.drain()

    def _unmatched(self, response: Response) -> None:
        """A response that belongs to no command: of task management, or late, doubled, made up."""
        if response.tag < _TAG_STEP and response.tag & TASK_MANAGEMENT_TAG and self._owner is not None:
            code = response.response_code
            complete = code is None or code == ResponseCode.COMPLETE
            outcome = TaskManagementOutcome.COMPLETE if complete else TaskManagementOutcome.REFUSED
            self._owner.task_management_answered(response.tag, outcome)
        else:
            self.unknown_tags += 1

    def _receive_other(self, message: bytes) -> None:
        """Requests of the target; answers to them cost no credit (SRP 5.5)."""
        match message[0] if message else None:
            case Opcode.CRED_REQ:
                credit = CreditRequest.decode(message)
                self.req_lim += signed_delta(credit.limit_delta)
                self._send(CreditResponse(tag=credit.tag).encode())
            case Opcode.AER_REQ:
                event: EventRequestHeader = decode_event(message)[0]
                self.req_lim += signed_delta(event.limit_delta)
                self._send(EventResponse(tag=event.tag).encode())
            case Opcode.T_LOGOUT:
                # ib_srp only logs it: the target's DREQ, which follows, ends the channel.
                TargetLogout.decode(message)
                self.target_logouts += 1
            case opcode:
                raise DecodeError(f"unit with opcode {opcode} from a target")
        if self._owner is not None and self._owner.queued:
            self._owner.drain()


_RSP: Final = bytes([RSP_OPCODE])


def _judge(request: Request, response: Response) -> None:
    """Put a response that is not plain GOOD into the command; what cannot be is an error of the host adapter."""
    command = request.command
    status = _STATUS.get(response.status)
    asked_out, asked_in = len(command.data_out), len(command.data_in or b"")
    if status is None or response.out_residual > asked_out or response.in_residual > asked_in:
        command.host_byte = HostByte.ERROR
        return
    command.status = status
    command.sense = bytes(response.sense)
    command.residual = response.in_residual or response.out_residual
    if response.response_code:
        # The target could not make sense of our unit: it says so instead of a SCSI status (SRP 6.9).
        command.host_byte = HostByte.ERROR


def _nobody_listens(_reason: CloseReason) -> None:
    """Stands in for ``on_closed`` once the owner has let go of the channel."""
