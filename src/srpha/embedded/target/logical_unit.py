"""A SCSI logical unit: a disk without a transport (SAM-5 4.6, SPC-4, SBC-3).

:class:`LogicalUnit` executes one command descriptor block at a time and answers at once; what takes time, and aborts,
are the transport's business. Sense data are in fixed format, as the control mode page says (D_SENSE 0).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from srpha.embedded.target import sbc_commands, spc_commands
from srpha.embedded.target.backing import Backing
from srpha.embedded.target.outcome import Outcome, check, invalid_field, report_attention
from srpha.embedded.target.sbc_commands import Data, Handler
from srpha.embedded.target.spc_commands import ALLOWED_IN_STANDBY, NEVER_REFUSED
from srpha.embedded.target.spec import TargetSpec, UnitSpec, naa6
from srpha.embedded.target.task_set import TaskSet
from srpha.embedded.target.unit_attention import ScsiNexus
from srpha.wire.errors import DecodeError
from srpha.wire.scsi.alua import AccessState
from srpha.wire.scsi.cdb import CDB_LENGTHS, Op, parse
from srpha.wire.scsi.inquiry import PERIPHERAL_NONE, StandardInquiry
from srpha.wire.scsi.sense import Asc, Sense, SenseKey

_NACA: Final = 0x04
"""Bit of the CONTROL byte that asks for auto contingent allegiance, which is not supported (SAM-5 5.2)."""

_COMMANDS: Final[Mapping[int, tuple[Handler, int]]] = MappingProxyType(
    {
        opcode: (handler, CDB_LENGTHS[opcode >> 5] - 1)
        for commands in (sbc_commands.COMMANDS, spc_commands.COMMANDS)
        for opcode, handler in commands.items()
    }
)
"""Handler and place of the CONTROL byte by operation code."""

_NOT_READY: Final[Mapping[AccessState, Asc]] = MappingProxyType(
    {
        AccessState.STANDBY: Asc.ALUA_STANDBY,
        AccessState.UNAVAILABLE: Asc.ALUA_UNAVAILABLE,
        AccessState.OFFLINE: Asc.OFFLINE,
        AccessState.TRANSITIONING: Asc.ALUA_TRANSITION,
    }
)


class Surroundings(Protocol):
    """What a unit knows of the SCSI target device that it is in."""

    @property
    def spec(self) -> TargetSpec: ...
    @property
    def luns(self) -> tuple[int, ...]:
        """All LUNs, ascending."""
        ...

    @property
    def access_states(self) -> Sequence[AccessState]:
        """By index of the I/O controller."""
        ...


class LogicalUnit:
    """One disk. Whoever changes ``blocks`` or ``write_protected`` tells the initiators, as the target device does."""

    __slots__ = (
        "_injected",
        "backing",
        "block_size",
        "blocks",
        "device",
        "lun",
        "max_transfer",
        "naa",
        "serial",
        "service_time",
        "tasks",
        "write_protected",
    )

    def __init__(self, spec: UnitSpec, device: Surroundings, backing: Backing) -> None:
        """``backing`` has at least the bytes that ``spec`` promises."""
        first = device.spec.iocs[0].guid
        self.lun = spec.lun
        self.blocks = spec.blocks
        self.block_size = spec.block_size
        self.write_protected = spec.write_protected
        self.service_time = spec.service_time
        """Seconds from the arrival of a command and its data to its execution; 0 means at once."""
        self.max_transfer = device.spec.limits.max_transfer
        self.serial = f"{first:016x}{spec.lun:04x}" if spec.serial is None else spec.serial
        self.naa = naa6(first, spec.lun) if spec.naa is None else spec.naa
        self.device = device
        self.backing = backing
        self.tasks = TaskSet(spec.queue_depth)
        self._injected: deque[Outcome] = deque()

    def inject(self, outcome: Outcome, count: int = 1) -> None:
        """Answer the next ``count`` commands with ``outcome`` instead of executing them.

        For tests of BUSY, TASK SET FULL or any sense. INQUIRY, REPORT LUNS and REQUEST SENSE are still executed.
        """
        self._injected.extend([outcome] * count)

    def execute(self, nexus: ScsiNexus, cdb: bytes, data_out: Data = b"") -> Outcome:
        """Execute one command of ``nexus`` and tell how it ended. Never raises for what the initiator sent."""
        if not cdb:
            return invalid_field(0)
        opcode = cdb[0]
        if nexus.pending or self._injected or self.device.access_states[nexus.controller]:
            refusal = self._refusal(nexus, opcode)
            if refusal is not None:
                return refusal
        known = _COMMANDS.get(opcode)
        if known is None:
            return check(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_OPCODE)
        handler, control = known
        if len(cdb) <= control:
            return invalid_field(len(cdb))
        if cdb[control] & _NACA:
            return invalid_field(control)
        return handler(self, nexus, cdb, data_out)

    def _refusal(self, nexus: ScsiNexus, opcode: int) -> Outcome | None:
        """Why a command is not even looked at: unit attention, injected answer, access state; in that order."""
        if opcode in NEVER_REFUSED:
            return None
        attention = nexus.take(self.lun)
        if attention is not None:
            return report_attention(attention)
        if self._injected:
            return self._injected.popleft()
        code = _NOT_READY.get(self.device.access_states[nexus.controller])
        if code is not None and opcode not in ALLOWED_IN_STANDBY:
            return check(SenseKey.NOT_READY, code)
        return None


class AbsentUnit:
    """What answers at a LUN without a logical unit (SPC-4 6.6.2 peripheral qualifier 3, SAM-5 5.13)."""

    __slots__ = ("device",)

    def __init__(self, device: Surroundings) -> None:
        self.device = device

    def execute(self, nexus: ScsiNexus, cdb: bytes, _data_out: Data = b"") -> Outcome:
        """As :meth:`LogicalUnit.execute`: only INQUIRY, REPORT LUNS and REQUEST SENSE succeed."""
        unsupported = check(SenseKey.ILLEGAL_REQUEST, Asc.LUN_NOT_SUPPORTED)
        try:
            if cdb[:1] == bytes([Op.REPORT_LUNS]):
                return spc_commands.report_luns(self.device.luns, nexus, cdb)
            if cdb[:1] == bytes([Op.REQUEST_SENSE]):
                sense = Sense.of(SenseKey.ILLEGAL_REQUEST, Asc.LUN_NOT_SUPPORTED)
                return spc_commands.request_sense(sense, cdb)
            if cdb[:1] == bytes([Op.INQUIRY]):
                return self._inquiry(cdb)
        except DecodeError:
            return invalid_field(0)
        return unsupported

    def _inquiry(self, cdb: bytes) -> Outcome:
        fields = parse(cdb)
        if fields.evpd or fields.page:
            return invalid_field(1 if fields.evpd else 2)
        spec = self.device.spec
        standard = StandardInquiry(spec.vendor, spec.product, spec.revision, peripheral=PERIPHERAL_NONE)
        return Outcome(0, b"", standard.encode()[: fields.length])
