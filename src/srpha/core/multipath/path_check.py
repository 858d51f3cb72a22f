"""One check of a path as a sequence of SCSI commands: is it ready, is it still the same unit, what is its priority.

TEST UNIT READY comes first. A path that is to be taken into use again is asked who it is as well (VPD page 0x83, READ
CAPACITY (16), MODE SENSE (6)), and an ALUA unit tells the state of its target port group (SPC-4 6.6, 6.37, 7.8.6; SBC-3
5.16). The machine has no clock: who runs it sends :attr:`PathCheck.request` and brings the answer.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import Final

from srpha.core.multipath.checker import TUR_RETRIES, USABLE, judge_tur
from srpha.core.multipath.disposition import Disposition, SideEffect, classify
from srpha.core.multipath.grouping import alua_priority
from srpha.core.scsi_io import UnitIdentity
from srpha.core.seams import CheckerState
from srpha.wire.errors import DecodeError
from srpha.wire.scsi import cdb
from srpha.wire.scsi.alua import decode_rtpg
from srpha.wire.scsi.capacity import ReadCapacity16
from srpha.wire.scsi.mode import PAGE_ALL, decode_mode_sense
from srpha.wire.scsi.status import HostByte, ScsiStatus
from srpha.wire.scsi.vpd import PAGE_IDENTIFICATION, decode_identification, wwid


class _Step(Enum):
    READY = cdb.test_unit_ready(), 0
    WHO = cdb.inquiry(4096, PAGE_IDENTIFICATION), 4096
    SIZE = cdb.read_capacity_16(32), 32
    MODE = cdb.mode_sense_6(PAGE_ALL), 192
    GROUPS = cdb.report_target_port_groups(4096), 4096


_OPTIONAL: Final = frozenset({_Step.SIZE, _Step.MODE, _Step.GROUPS})
"""A unit that does not know these commands keeps what its identity says already."""


class PathCheck:
    """A check under way. ``identity`` is what is known of the unit; it is brought up to date by a verifying check."""

    __slots__ = ("_steps", "_tries", "effects", "identity", "priority", "reason", "state", "verified")

    def __init__(self, identity: UnitIdentity, *, verify: bool, priority: bool) -> None:
        self.identity = identity
        self.state: CheckerState | None = None
        """The result; None while the check goes on."""
        self.reason = ""
        """Why the path is not ready."""
        self.priority: int | None = None
        """From the ALUA state of the path's target port group; None where it was not asked or not told."""
        self.verified = False
        """``identity`` was read anew."""
        self.effects = SideEffect.NONE
        """What unit attentions told on the way."""
        self._tries = 0
        self._steps = [_Step.READY]
        if verify:
            self._steps += [_Step.WHO, _Step.SIZE, _Step.MODE]
        if priority and identity.target_port_group is not None:
            self._steps.append(_Step.GROUPS)

    @property
    def request(self) -> tuple[bytes, int] | None:
        """CDB to send and bytes to make room for; None when the check is over."""
        return None if self.state is not None else self._steps[0].value

    def fail(self, state: CheckerState, reason: str) -> None:
        """End the check from outside: no answer came, or the device cannot be asked."""
        self.state = state
        self.reason = reason

    def answer(self, host_byte: HostByte, status: ScsiStatus | int, sense: bytes, data: bytes) -> None:
        """Take the answer to :attr:`request`; ``data`` is what was read."""
        if self.state is not None:
            raise ValueError("the check is over")
        verdict = classify(host_byte, status, sense)
        self.effects |= verdict.effects
        self._tries += 1
        step = self._steps[0]
        if step is _Step.READY:
            ready = judge_tur(host_byte, status, sense, self._tries)
            if ready is None:
                return
            if ready not in USABLE:
                self.fail(ready, verdict.reason)
                return
            self._next(ready)
            return
        retry = verdict.disposition in (Disposition.RETRY, Disposition.RETRY_UNCOUNTED, Disposition.REQUEUE)
        if retry and self._tries <= TUR_RETRIES:
            return
        if verdict.disposition is not Disposition.COMPLETE:
            if step not in _OPTIONAL or host_byte is not HostByte.OK:
                self.fail(CheckerState.FAULTY, verdict.reason)
                return
        else:
            try:
                self._take(step, data)
            except DecodeError as error:
                self.fail(CheckerState.FAULTY, f"{step.name} answer: {error}")
                return
        self._next(self._ready)

    @property
    def _ready(self) -> CheckerState:
        return CheckerState.GHOST if self.reason else CheckerState.READY

    def _next(self, state: CheckerState) -> None:
        if state is CheckerState.GHOST:
            self.reason = "standby"
        self._tries = 0
        done = self._steps.pop(0)
        if done is _Step.MODE:
            self.verified = True
        if not self._steps:
            self.state = state

    def _take(self, step: _Step, data: bytes) -> None:
        if step is _Step.WHO:
            name = wwid(decode_identification(data))
            self.identity = replace(self.identity, wwid=name or "")
        elif step is _Step.SIZE:
            size = ReadCapacity16.decode(data)
            self.identity = replace(self.identity, blocks=size.last_lba + 1, block_size=size.block_length)
        elif step is _Step.MODE:
            self.identity = replace(self.identity, write_protected=decode_mode_sense(data).write_protected)
        else:
            for group in decode_rtpg(data).groups:
                if group.group == self.identity.target_port_group:
                    self.priority = alua_priority(group.state, group.preferred)
