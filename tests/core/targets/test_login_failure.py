from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.core.targets.add_target import parse_target_line
from srpha.core.targets.login_failure import destinations, explain_failure, scan_failure
from srpha.wire.identifiers import Gid

PORT = "mlx5_0/1"
SGID = "fe80:0000:0000:0000:0002:c903:00a1:0001"
OTHER_SGID = "fe80:0000:0000:0000:0002:c903:00a1:0002"
DGID = "fe80:0000:0000:0000:0002:c903:00ff:0011"
OTHER = "fe80:0000:0000:0000:0002:c903:00ff:0012"
ID = "0002c90300ff0010"
LINE = parse_target_line(f"id_ext={ID},ioc_guid={ID},dgid={DGID.replace(':', '')},pkey=ffff,service_id={ID}")
RDMA = parse_target_line(f"id_ext={ID},ioc_guid={ID},dest=192.0.2.1:5555")
FAILED = f"scsi host7: ib_srp: Connection 0/44 to {DGID} failed"


def why(code: int, *log: str, sgid: str | None = SGID) -> str:
    failure = explain_failure(code, PORT, LINE, log, Gid.from_hex(sgid) if sgid else None)
    assert failure.text.startswith(f"{PORT} to {DGID}: ")
    return failure.text.removeprefix(f"{PORT} to {DGID}: ")


@pytest.mark.parametrize(
    ("record", "start", "remedy"),
    [
        ("  REJ reason 0x3", "CM REJ reason 3: no resources available", "set ch_count to 1 or 2"),
        ("  REJ reason 0x8", "CM REJ reason 8: invalid service id", "enable the target port"),
        ("  REJ reason 0x77", "CM REJ reason 119: unknown reason", ""),
        ("  REJ reason: stale connection", "CM REJ reason 10: stale connection", "time-wait"),
        ("  REJ reason: IB_CM_REJ_DUPLICATE_LOCAL_COMM_ID", "CM REJ reason 30: duplicate local", "log in again"),
        ("  REJ reason: IB_CM_REJ_PORT_REDIRECT", "CM REJ reason 25: port redirection", ""),
        (
            "  REJ reason: IB_CM_REJ_CONSUMER_DEFINED, opcode 0xc1",
            "CM REJ reason 28: consumer reject without an SRP_LOGIN_REJ, its opcode is c1",
            "no SRP target",
        ),
        (
            "ib_srp: SRP_LOGIN_REJ: requested max_it_iu_len too large",
            "SRP_LOGIN_REJ reason 0x00010002: requested IU length too large",
            "max_it_iu_size",
        ),
        (
            f"ib_srp: SRP LOGIN from {SGID} to {DGID} REJECTED, reason 0x00010006",
            "SRP_LOGIN_REJ reason 0x00010006: channel limit reached",
            "ACL",
        ),
        ("ib_srp: SRP LOGIN REJECTED, reason 0x00010001", "SRP_LOGIN_REJ reason 0x00010001: insufficient", "enable it"),
        ("ib_srp: Unhandled RSP opcode 0xc2", "the target accepted with opcode 0xc2", "what listens there"),
        ("ib_srp: Sending CM REQ failed", "nobody answered the CM request", "its SRP service runs"),
        ("ib_srp: FR pool allocation failed (-12)", "the HCA has no memory regions left", "ch_count"),
    ],
)
def test_the_reason_in_the_log_is_decoded_with_its_remedy(record: str, start: str, remedy: str) -> None:
    text = why(errno.ECONNRESET, "scsi host7: ib_srp: REJ received", f"scsi host7: {record}", FAILED)
    assert text.startswith(start)
    assert remedy in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("record", "start"),
    [
        ("ib_srp: QP creation failed for dev mlx5_0: -2", "no queue pair could be made, error -2"),
        ("ib_srp: mlx5_0: ib_alloc_mr() failed. Try to reduce max_cmd_per_lun, max_sect or ch_count", "the HCA has no"),
        (
            "ib_srp: unknown parameter or missing value 'ch_count=4' in target creation request",
            "the driver does not take the line: unknown parameter or missing value 'ch_count=4'",
        ),
        ("ib_srp: bad max sect parameter 'max_sect=x'", "the driver does not take the line: bad max sect parameter"),
    ],
)
def test_lines_without_a_host_count_when_no_host_says_more(record: str, start: str) -> None:
    assert why(errno.EINVAL, record).startswith(start)
    assert why(errno.ECONNRESET, record, "scsi host7:   REJ reason 0x3").startswith("CM REJ reason 3")


def test_a_path_query_that_was_refused_is_no_bad_line() -> None:
    log = (
        "scsi host7: ib_srp: Got failed path rec status -22",
        f"scsi host7: ib_srp: Path record query failed: sgid {SGID}, dgid {DGID}, pkey 0xffff, service_id 0x{ID}",
        FAILED,
    )
    failure = explain_failure(errno.EINVAL, PORT, LINE, log)
    assert failure.errno == errno.EHOSTUNREACH
    assert "the subnet administrator gave no path" in failure.text
    assert explain_failure(errno.EINVAL, PORT, LINE, ()).errno == errno.EINVAL


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (errno.EINVAL, "EINVAL, the driver does not take the line"),
        (errno.ENOMEM, "ENOMEM, not enough memory"),
        (errno.ENOENT, "ENOENT, pkey is not in the local port's P_Key table"),
        (errno.ETIMEDOUT, "ETIMEDOUT, the subnet administrator did not answer"),
        (errno.ECONNRESET, "ECONNRESET, the target refused the login or did not answer it"),
        (errno.ENODEV, "ENODEV, the driver could not make the SCSI host"),
        (errno.ENXIO, "ENXIO, dest was not resolved"),
        (errno.EHOSTUNREACH, "EHOSTUNREACH, dest cannot be reached"),
        (errno.EINTR, "EINTR, the login was interrupted"),
        (errno.EACCES, "EACCES, add_target may not be written"),
        (errno.EPROTO, "EPROTO, the login failed (see the kernel log)"),
        (99999, "99999, the login failed"),
    ],
)
def test_without_a_log_the_errno_speaks(code: int, text: str) -> None:
    assert why(code).startswith(text)


def test_why_there_is_no_log_is_said() -> None:
    failure = explain_failure(errno.ECONNRESET, PORT, LINE, (), trouble="the kernel log could not be read")
    assert failure.text.endswith("; the kernel log could not be read")


def test_a_duplicate_is_named_by_what_the_driver_compares() -> None:
    log = (f"scsi host8: ib_srp: Already connected to target port with id_ext={ID};ioc_guid={ID};initiator_ext={ID}",)
    text = why(errno.EEXIST, *log)
    assert text.startswith(f"already connected to id_ext={ID}, ioc_guid={ID}, initiator_ext=0000000000000000")


class TestOtherLoginsInTheSameLog:
    def test_another_target(self) -> None:
        log = (
            "scsi host8:   REJ reason 0x8",
            f"scsi host8: ib_srp: Connection 0/4 to {OTHER} failed",
            "scsi host7:   REJ reason 0x3",
            FAILED,
        )
        assert why(errno.ECONNRESET, *log).startswith("CM REJ reason 3:")
        assert " or " not in why(errno.ECONNRESET, *log).split("(")[0]

    def test_the_same_target_from_another_local_port(self) -> None:
        log = (
            f"scsi host8: ib_srp: SRP LOGIN from {OTHER_SGID} to {DGID} REJECTED, reason 0x00010001",
            f"scsi host8: ib_srp: Connection 0/4 to {DGID} failed",
            f"scsi host7: ib_srp: SRP LOGIN from {SGID} to {DGID} REJECTED, reason 0x00010006",
            FAILED,
        )
        assert "0x00010006" in why(errno.ECONNRESET, *log)
        assert "0x00010001" not in why(errno.ECONNRESET, *log)

    def test_where_the_log_does_not_tell_them_apart_both_are_given(self) -> None:
        log = ("scsi host8:   REJ reason 0x3", FAILED.replace("7", "8", 1), "scsi host7:   REJ reason 0x8", FAILED)
        text = why(errno.ECONNRESET, *log)
        assert "CM REJ reason 3" in text
        assert " or CM REJ reason 8" in text

    def test_a_login_that_only_lost_a_later_channel(self) -> None:
        log = (
            "scsi host8:   REJ reason 0x3",
            f"scsi host8: ib_srp: Connection 3/4 to {DGID} failed",
            "scsi host7: ib_srp: Sending CM REQ failed",
            FAILED,
        )
        assert why(errno.ECONNRESET, *log).startswith("nobody answered")

    def test_a_duplicate_of_another_target(self) -> None:
        log = (f"scsi host8: ib_srp: Already connected to target port with id_ext={'1' * 16};ioc_guid={'2' * 16};x=",)
        assert why(errno.ECONNRESET, *log).startswith("ECONNRESET")

    def test_records_that_are_none_of_the_drivers(self) -> None:
        log = (
            "REJ reason 0x3",
            "usb 1-1: REJ reason 0x3",
            "sd 7:0:0:0: [sdb] REJ reason 0x3",
            "scsi host:  REJ reason",
        )
        assert why(errno.ECONNRESET, *log).startswith("ECONNRESET")


class TestRdmaCm:
    def test_the_destination_is_the_name(self) -> None:
        log = ("scsi host3:   REJ reason 0x8", "scsi host3: ib_srp: Connection 0/1 to 192.0.2.1 failed")
        text = explain_failure(errno.ECONNRESET, "rxe0/1", RDMA, log).text
        assert text.startswith("rxe0/1 to 192.0.2.1:5555: CM REJ reason 8")

    def test_another_destination_is_left_out(self) -> None:
        log = ("scsi host3:   REJ reason 0x8", "scsi host3: ib_srp: Connection 0/1 to 192.0.2.2 failed")
        assert "ECONNRESET" in explain_failure(errno.ECONNRESET, "rxe0/1", RDMA, log).text

    @pytest.mark.parametrize(
        ("code", "record", "text"),
        [
            (errno.ENXIO, "ib_srp: Resolving address 192.0.2.1:5555 failed (-6)", "dest was not resolved"),
            (errno.EHOSTUNREACH, "scsi host3: ib_srp: Path resolution failed", "no RDMA route to dest was found"),
            (
                errno.ENODEV,
                "ib_srp: No route available from 0.0.0.0:0 to 192.0.2.1:5555 (-19)",
                "no RDMA device has a route to dest",
            ),
        ],
    )
    def test_addresses_and_routes(self, code: int, record: str, text: str) -> None:
        assert text in explain_failure(code, "rxe0/1", RDMA, (record,)).text

    def test_where_connections_go_is_learnt_from_the_log(self) -> None:
        new = f"ib_srp: new target: id_ext {ID} ioc_guid {ID} sgid {SGID} dest"
        log = (
            f"scsi host3: {new} 192.0.2.1",
            f"scsi host4: {new} 2001:0db8:0000:0000:0000:0000:0000:0001",
            f"scsi host5: {new} somewhere",
            f"scsi host6: {new.replace('sgid', 'pkey ffff service_id 1 sgid').replace('dest', 'dgid')} {DGID}",
        )
        assert destinations(log) == {3: "192.0.2.1", 4: "2001:db8::1"}


def test_a_host_whose_scan_failed_is_on_its_way_out() -> None:
    log = ("scsi host7: ib_srp: SCSI scan failed - removing SCSI host",)
    failure = scan_failure(PORT, LINE, log)
    assert failure is not None
    assert failure.errno == errno.ENODEV
    assert "lost channels during the SCSI scan" in failure.text
    assert scan_failure(PORT, LINE, ("scsi host7: ib_srp: using immediate data",)) is None
    named = (f"scsi host7: ib_srp: SRP LOGIN from {OTHER_SGID} to {OTHER} REJECTED, reason 0x00010001", *log)
    assert scan_failure(PORT, LINE, named, Gid.from_hex(SGID)) is None


@given(st.lists(st.text(alphabet=st.characters(max_codepoint=126), max_size=80)), st.integers(1, 200))
def test_any_log_gives_one_sentence(log: list[str], code: int) -> None:
    records = [f"scsi host1: {text}" for text in log] + log
    text = explain_failure(code, PORT, LINE, records, Gid.from_hex(SGID)).text
    assert text.startswith(PORT)
