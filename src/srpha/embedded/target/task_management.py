"""Task management functions (SAM-5 chapter 7, SRP r16a 6.7): which commands they end, and whom they tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from srpha.embedded.target.target_device import TargetDevice
from srpha.embedded.target.unit_attention import Attention
from srpha.wire.srp import TaskFunction, TaskManagement
from srpha.wire.srp_io import ResponseCode

if TYPE_CHECKING:
    from srpha.embedded.target.logical_unit import LogicalUnit
    from srpha.embedded.target.srp_channel import SrpChannel, SrpNexus


def perform(request: TaskManagement, device: TargetDevice, nexus: SrpNexus, channel: SrpChannel) -> ResponseCode:
    """Perform one function for ``nexus``, asked for on ``channel``; the code for the RSP.

    When this returns, no aborted command will be executed any more nor touch initiator memory behind the response.
    """
    unit = device.unit_at(request.lun)
    if unit is None:
        return ResponseCode.FAILED
    match request.function:
        case TaskFunction.ABORT_TASK:
            _abort_task(request.task_tag, unit, nexus, channel)
        case TaskFunction.ABORT_TASK_SET:
            unit.tasks.abort(lambda task: task.nexus is nexus.scsi)
        case TaskFunction.CLEAR_TASK_SET:
            for loser in unit.tasks.abort():
                if loser is not nexus.scsi:
                    loser.establish(unit.lun, Attention.COMMANDS_CLEARED)
        case TaskFunction.LUN_RESET:
            device.reset_unit(unit.lun)
        case _:
            # CLEAR ACA among them: there is no auto contingent allegiance here
            return ResponseCode.NOT_SUPPORTED
    return ResponseCode.COMPLETE


def _abort_task(tag: int, unit: LogicalUnit, nexus: SrpNexus, channel: SrpChannel) -> None:
    """Abort a command of this nexus, looked for on the asking channel first; one that is not there has ended."""
    for candidate in (channel, *nexus.channels):
        task = candidate.tasks.get(tag)
        if task is not None and task.unit is unit:
            task.abort()
            return
