from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.core.multipath.disposition import BlockStatus, Disposition, SideEffect, classify, classify_sense
from srpha.wire.scsi.sense import Asc, Sense, SenseKey, encode_descriptor, encode_fixed
from srpha.wire.scsi.status import HostByte, ScsiStatus

D, B = Disposition, BlockStatus


def test_only_six_statuses_are_no_path_errors() -> None:
    innocent = {status for status in BlockStatus if not status.path_error} - {BlockStatus.OK}
    assert innocent == {B.NOTSUPP, B.NOSPC, B.TARGET, B.RESV_CONFLICT, B.MEDIUM, B.PROTECTION}


HOST_BYTES = {
    HostByte.NO_CONNECT: (D.PATH_ERROR, B.IOERR),
    HostByte.BUS_BUSY: (D.PATH_ERROR, B.IOERR),
    HostByte.TIME_OUT: (D.PATH_ERROR, B.IOERR),
    HostByte.BAD_TARGET: (D.PATH_ERROR, B.IOERR),
    HostByte.ABORT: (D.PATH_ERROR, B.IOERR),
    HostByte.PARITY: (D.RETRY, B.IOERR),
    HostByte.ERROR: (D.RETRY, B.IOERR),
    HostByte.SOFT_ERROR: (D.RETRY, B.IOERR),
    HostByte.RESET: (D.RETRY_UNCOUNTED, B.IOERR),
    HostByte.IMM_RETRY: (D.RETRY_UNCOUNTED, B.IOERR),
    HostByte.REQUEUE: (D.RETRY_UNCOUNTED, B.IOERR),
    HostByte.TRANSPORT_DISRUPTED: (D.PATH_ERROR, B.TRANSPORT),
    HostByte.TRANSPORT_FAILFAST: (D.PATH_ERROR, B.TRANSPORT),
    HostByte.TRANSPORT_MARGINAL: (D.PATH_ERROR, B.TRANSPORT),
    HostByte.TARGET_FAILURE: (D.DELIVER_ERROR, B.TARGET),
    HostByte.NEXUS_FAILURE: (D.DELIVER_ERROR, B.RESV_CONFLICT),
    HostByte.ALLOC_FAILURE: (D.DELIVER_ERROR, B.NOSPC),
    HostByte.MEDIUM_ERROR: (D.DELIVER_ERROR, B.MEDIUM),
    HostByte.BAD_INTR: (D.PATH_ERROR, B.IOERR),
    HostByte.PASSTHROUGH: (D.PATH_ERROR, B.IOERR),
}


@pytest.mark.parametrize("host_byte", [item for item in HostByte if item is not HostByte.OK])
def test_every_host_byte_has_its_decision(host_byte: HostByte) -> None:
    verdict = classify(host_byte, ScsiStatus.GOOD, b"")
    assert (verdict.disposition, verdict.status) == HOST_BYTES[host_byte]
    assert host_byte.name in verdict.reason


@pytest.mark.parametrize(
    ("status", "disposition", "result"),
    [
        (ScsiStatus.GOOD, D.COMPLETE, B.OK),
        (ScsiStatus.CONDITION_MET, D.COMPLETE, B.OK),
        (ScsiStatus.BUSY, D.REQUEUE, B.IOERR),
        (ScsiStatus.TASK_SET_FULL, D.REQUEUE, B.IOERR),
        (ScsiStatus.RESERVATION_CONFLICT, D.DELIVER_ERROR, B.RESV_CONFLICT),
        (ScsiStatus.TASK_ABORTED, D.RETRY, B.IOERR),
        (ScsiStatus.ACA_ACTIVE, D.PATH_ERROR, B.IOERR),
        (0x7E, D.PATH_ERROR, B.IOERR),
        (ScsiStatus.CHECK_CONDITION, D.RETRY, B.IOERR),  # without sense
    ],
)
def test_statuses(status: int, disposition: Disposition, result: BlockStatus) -> None:
    verdict = classify(HostByte.OK, status, b"")
    assert (verdict.disposition, verdict.status) == (disposition, result)


SENSES = [
    (SenseKey.NO_SENSE, 0, 0, D.COMPLETE, B.OK),
    (SenseKey.RECOVERED_ERROR, 0x17, 0x01, D.COMPLETE, B.OK),
    (SenseKey.ABORTED_COMMAND, 0x4B, 0x04, D.RETRY, B.IOERR),
    (SenseKey.ABORTED_COMMAND, 0x10, 0x01, D.DELIVER_ERROR, B.PROTECTION),
    (SenseKey.UNIT_ATTENTION, 0x29, 0x00, D.RETRY, B.IOERR),
    (SenseKey.UNIT_ATTENTION, 0x28, 0x00, D.RETRY, B.IOERR),
    (SenseKey.NOT_READY, 0x04, 0x01, D.RETRY_DELAYED, B.IOERR),
    (SenseKey.NOT_READY, 0x04, 0x0A, D.RETRY_DELAYED, B.IOERR),
    (SenseKey.NOT_READY, 0x04, 0x24, D.RETRY_DELAYED, B.IOERR),
    (SenseKey.NOT_READY, 0x04, 0x02, D.PATH_ERROR, B.IOERR),
    (SenseKey.NOT_READY, 0x04, 0x0B, D.PATH_ERROR, B.IOERR),
    (SenseKey.NOT_READY, 0x04, 0x0C, D.PATH_ERROR, B.IOERR),
    (SenseKey.NOT_READY, 0x3A, 0x00, D.PATH_ERROR, B.IOERR),
    (SenseKey.MEDIUM_ERROR, 0x11, 0x00, D.DELIVER_ERROR, B.MEDIUM),
    (SenseKey.MEDIUM_ERROR, 0x14, 0x01, D.DELIVER_ERROR, B.MEDIUM),
    (SenseKey.MEDIUM_ERROR, 0x0C, 0x00, D.RETRY, B.MEDIUM),
    (SenseKey.HARDWARE_ERROR, 0x44, 0x00, D.DELIVER_ERROR, B.TARGET),
    (SenseKey.DATA_PROTECT, 0x27, 0x07, D.DELIVER_ERROR, B.NOSPC),
    (SenseKey.DATA_PROTECT, 0x27, 0x00, D.DELIVER_ERROR, B.TARGET),
    (SenseKey.MISCOMPARE, 0x1D, 0x00, D.DELIVER_ERROR, B.TARGET),
    (SenseKey.BLANK_CHECK, 0, 0, D.DELIVER_ERROR, B.TARGET),
    (SenseKey.VOLUME_OVERFLOW, 0, 0, D.DELIVER_ERROR, B.TARGET),
    (SenseKey.COPY_ABORTED, 0, 0, D.DELIVER_ERROR, B.TARGET),
    (SenseKey.ILLEGAL_REQUEST, 0x20, 0x00, D.DELIVER_ERROR, B.TARGET),
    (SenseKey.ILLEGAL_REQUEST, 0x24, 0x00, D.DELIVER_ERROR, B.TARGET),
    (SenseKey.ILLEGAL_REQUEST, 0x25, 0x00, D.PATH_ERROR, B.IOERR),
    (SenseKey.VENDOR_SPECIFIC, 0x80, 0x00, D.PATH_ERROR, B.IOERR),
]


@pytest.mark.parametrize(("key", "asc", "ascq", "disposition", "status"), SENSES)
@pytest.mark.parametrize("encode", [encode_fixed, encode_descriptor])
def test_sense_in_either_format(key, asc, ascq, disposition, status, encode) -> None:  # type: ignore[no-untyped-def]
    verdict = classify(HostByte.OK, ScsiStatus.CHECK_CONDITION, encode(Sense(key, asc, ascq)))
    assert (verdict.disposition, verdict.status) == (disposition, status)


def test_deferred_sense_is_about_another_command() -> None:
    verdict = classify_sense(Sense(SenseKey.MEDIUM_ERROR, 0x11, 0x00, deferred=True))
    assert verdict.disposition is D.RETRY


@pytest.mark.parametrize(
    ("code", "effect"),
    [
        (Asc.CAPACITY_CHANGED, SideEffect.CAPACITY_CHANGED),
        (Asc.REPORTED_LUNS_CHANGED, SideEffect.LUNS_CHANGED),
        (Asc.INQUIRY_CHANGED, SideEffect.INQUIRY_CHANGED),
        (Asc.ALUA_STATE_CHANGED, SideEffect.ACCESS_STATE_CHANGED),
        (Asc.MODE_PARAMETERS_CHANGED, SideEffect.ACCESS_STATE_CHANGED),
        (Asc.NEXUS_LOSS, SideEffect.RESET),
        (Asc.POWER_ON, SideEffect.RESET),
        (Asc.THIN_SPACE_THRESHOLD, SideEffect.SPACE_LOW),
        (Asc.MEDIUM_MAY_HAVE_CHANGED, SideEffect.NONE),
    ],
)
def test_unit_attentions_tell_something_besides(code: Asc, effect: SideEffect) -> None:
    assert classify_sense(Sense.of(SenseKey.UNIT_ATTENTION, code)).effects == effect
    assert classify_sense(Sense.of(SenseKey.ABORTED_COMMAND, code)).effects == SideEffect.NONE


@given(st.sampled_from(HostByte), st.integers(0, 255), st.binary(max_size=32))
def test_anything_a_target_may_send_gets_a_consistent_verdict(host: HostByte, status: int, sense: bytes) -> None:
    verdict = classify(host, status, sense)
    match verdict.disposition:
        case D.COMPLETE:
            assert verdict.status is B.OK
        case D.DELIVER_ERROR:
            assert not verdict.status.path_error
            assert verdict.status is not B.OK
        case D.PATH_ERROR:
            assert verdict.status.path_error
        case _:
            assert verdict.status is not B.OK
