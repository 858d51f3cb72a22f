"""SCSI status bytes (SAM-4 5.3) and the Linux host bytes that stand beside them (include/scsi/scsi_status.h)."""

from __future__ import annotations

from enum import IntEnum


class ScsiStatus(IntEnum):
    """Status byte of a completed command."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40


class HostByte(IntEnum):
    """How the initiator's driver ended a command; values are the kernel's ``DID_*``."""

    OK = 0x00
    NO_CONNECT = 0x01
    BUS_BUSY = 0x02
    TIME_OUT = 0x03
    BAD_TARGET = 0x04
    ABORT = 0x05
    PARITY = 0x06
    ERROR = 0x07
    RESET = 0x08
    BAD_INTR = 0x09
    PASSTHROUGH = 0x0A
    SOFT_ERROR = 0x0B
    IMM_RETRY = 0x0C
    REQUEUE = 0x0D
    TRANSPORT_DISRUPTED = 0x0E
    TRANSPORT_FAILFAST = 0x0F
    TARGET_FAILURE = 0x10
    NEXUS_FAILURE = 0x11
    ALLOC_FAILURE = 0x12
    MEDIUM_ERROR = 0x13
    TRANSPORT_MARGINAL = 0x14
