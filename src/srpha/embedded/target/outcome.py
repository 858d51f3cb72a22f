"""How a logical unit answers a command: status, sense data (SPC-4 4.5, fixed format), data, and bytes it took."""

from __future__ import annotations

from typing import Final, NamedTuple

from srpha.embedded.target.unit_attention import Attention
from srpha.wire.scsi.sense import Asc, Sense, SenseKey, encode_fixed
from srpha.wire.scsi.status import ScsiStatus


class Outcome(NamedTuple):
    """The end of a command. ``data`` is data-in; ``taken`` counts the bytes of data-out that the command is about.

    ``taken`` may exceed what the initiator sent: the transport then reports an overflow (SRP 6.9 DOOVER).
    """

    status: int
    sense: bytes = b""
    data: bytes = b""
    taken: int = 0


GOOD: Final = Outcome(ScsiStatus.GOOD)
BUSY: Final = Outcome(ScsiStatus.BUSY)
TASK_SET_FULL: Final = Outcome(ScsiStatus.TASK_SET_FULL)


def good(data: bytes, allocation: int) -> Outcome:
    """GOOD with data-in, cut to the CDB's allocation length (SPC-4 4.2.5.6)."""
    return Outcome(ScsiStatus.GOOD, b"", data[:allocation])


def check(key: SenseKey, code: Asc, information: int | None = None, taken: int = 0) -> Outcome:
    """CHECK CONDITION."""
    sense = Sense(key, code.asc, code.ascq, information=information)
    return Outcome(ScsiStatus.CHECK_CONDITION, encode_fixed(sense), b"", taken)


def invalid_field(byte: int, taken: int = 0) -> Outcome:
    """ILLEGAL REQUEST, INVALID FIELD IN CDB, pointing at ``byte`` of the CDB (sense-key specific data)."""
    code = Asc.INVALID_FIELD_IN_CDB
    sense = Sense(SenseKey.ILLEGAL_REQUEST, code.asc, code.ascq, field_pointer=byte)
    return Outcome(ScsiStatus.CHECK_CONDITION, encode_fixed(sense), b"", taken)


def attention_sense(attention: Attention) -> Sense:
    """UNIT ATTENTION sense of a condition."""
    asc, ascq = attention.value
    return Sense(SenseKey.UNIT_ATTENTION, asc, ascq)


def report_attention(attention: Attention) -> Outcome:
    """CHECK CONDITION that reports a unit attention condition."""
    return Outcome(ScsiStatus.CHECK_CONDITION, encode_fixed(attention_sense(attention)))
