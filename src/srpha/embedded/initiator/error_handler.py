"""Carries out what the error ladder decides: task management over a host's channels, holds, resets (facts: srp C.5)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from srpha.core.recovery.error_recovery import (
    AbortTask,
    ErrorLadder,
    FinishAborted,
    FinishLun,
    RecoveryAction,
    ResetHost,
    ResetLun,
    TaskManagementOutcome,
)
from srpha.embedded.initiator.channel import TASK_MANAGEMENT_TAG, Channel
from srpha.embedded.initiator.request import Request
from srpha.wire.scsi.status import HostByte
from srpha.wire.srp import TaskFunction


class RecoveringHost(Protocol):
    """What error recovery needs of its host."""

    @property
    def channels(self) -> Sequence[Channel]: ...

    def hold_unit(self, lun_field: int, *, held: bool) -> None:
        """Send nothing more to a unit, or go on."""
        ...

    def finish_outstanding(self, channel: Channel, tags: Sequence[int], host_byte: HostByte) -> None:
        """Complete commands that are outstanding on a channel; tags that are not are passed over."""
        ...

    def reset(self) -> None:
        """Reconnect the remote port."""
        ...


class ErrorHandler:
    """Error recovery of one host. Commands stay outstanding until the target or the transport has let go of them."""

    __slots__ = ("_host", "_ladder", "_loop", "_sent", "_tag", "_timer")

    def __init__(self, host: RecoveringHost, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._loop = loop
        self._ladder = ErrorLadder()
        self._timer: asyncio.TimerHandle | None = None
        self._sent = 0
        self._tag: int | None = None
        """Tag of the task management function that is outstanding."""

    def timed_out(self, request: Request) -> None:
        """A command's time is over."""
        self._perform(self._ladder.command_timed_out(request.tag, request.unit.lun_field, self._loop.time()))

    def answered_late(self, request: Request) -> None:
        """A command that had timed out was answered."""
        self._ladder.command_finished(request.tag)

    def task_management_answered(self, tag: int, outcome: TaskManagementOutcome) -> None:
        """A response to task management; one that nobody waits for is passed over."""
        if tag == self._tag:
            self._tag = None
            self._perform(self._ladder.task_management_done(outcome, self._loop.time()))

    def transport_finished(self) -> None:
        """The channels are gone, and their commands have been taken from them."""
        self._ladder.transport_finished()
        self._tag = None
        self._arm()

    def _perform(self, actions: Sequence[RecoveryAction]) -> None:
        pending = deque(actions)
        while pending:
            match pending.popleft():
                case AbortTask(tag, lun):
                    channel = next((item for item in self._host.channels if tag in item.requests), None)
                    if not self._send(channel, TaskFunction.ABORT_TASK, lun, tag):
                        pending.extend(self._unanswered())
                case ResetLun(lun):
                    self._host.hold_unit(lun, held=True)
                    channel = next((item for item in self._host.channels if item.is_open), None)
                    if not self._send(channel, TaskFunction.LUN_RESET, lun, 0):
                        pending.extend(self._unanswered())
                case FinishAborted(tag):
                    for channel in self._host.channels:
                        self._host.finish_outstanding(channel, (tag,), HostByte.ABORT)
                case FinishLun(lun):
                    for channel in self._host.channels:
                        tags = [tag for tag, item in channel.requests.items() if item.unit.lun_field == lun]
                        self._host.finish_outstanding(channel, tags, HostByte.RESET)
                    self._host.hold_unit(lun, held=False)
                case ResetHost():
                    self._host.reset()
        self._arm()

    def _send(self, channel: Channel | None, function: TaskFunction, lun_field: int, task_tag: int) -> bool:
        self._sent += 1
        tag = TASK_MANAGEMENT_TAG | self._sent & (TASK_MANAGEMENT_TAG - 1)
        if channel is None or not channel.send_task_management(tag, function, lun_field, task_tag):
            return False
        self._tag = tag
        return True

    def _unanswered(self) -> tuple[RecoveryAction, ...]:
        self._tag = None
        return self._ladder.task_management_done(TaskManagementOutcome.SILENT, self._loop.time())

    def _expire(self) -> None:
        self._timer = None
        deadline = self._ladder.deadline
        if deadline is not None and self._loop.time() >= deadline:
            self._perform(self._unanswered())
        else:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._ladder.deadline
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self._expire)
