from __future__ import annotations

import pytest

from srpha.core.targets.add_target import InvalidLineError, format_target_line
from srpha.core.targets.target_port import InitiatorExt, InitiatorExtMode, TargetPort
from srpha.wire.identifiers import Gid

DGID = Gid.from_hex("fe800000000000000002c90200402bed")
TARGET = TargetPort(
    id_ext=0x200500A0B81146A1,
    ioc_guid=0x0002C90200402BEC,
    dgid=DGID,
    service_id=0x200500A0B81146A1,
    pkey=0xFFFF,
    id_ext_text="200500A0B81146A1",
)


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        (InitiatorExt(), 0x0002C90200402BED),
        (InitiatorExt(InitiatorExtMode.DGID_SWAPPED), 0xED2B400002C90200),
        (InitiatorExt(InitiatorExtMode.NONE), None),
        (InitiatorExt(InitiatorExtMode.FIXED, 1), 1),
    ],
)
def test_initiator_ext(rule: InitiatorExt, value: int | None) -> None:
    assert rule.of(DGID) == value


def test_swapping_twice_gives_the_guid_back() -> None:
    swapped = InitiatorExt(InitiatorExtMode.DGID_SWAPPED)
    once = swapped.of(DGID)
    assert once is not None
    assert swapped.of(Gid(0, once)) == DGID.guid


def test_line_of_the_manual() -> None:
    line = TARGET.line(InitiatorExt(InitiatorExtMode.DGID_SWAPPED))
    assert format_target_line(line) == (
        "id_ext=200500A0B81146A1,ioc_guid=0002c90200402bec,dgid=fe800000000000000002c90200402bed,pkey=ffff,"
        "service_id=200500a0b81146a1,initiator_ext=ed2b400002c90200"
    )


def test_line_with_options_of_a_rule() -> None:
    line = TARGET.line(InitiatorExt(), {"queue_size": 32, "tl_retry_count": 2})
    assert (line.queue_size, line.tl_retry_count) == (32, 2)


def test_revision_10_target_says_so() -> None:
    old = TargetPort(1, 2, DGID, 3, 0xFFFF, io_class=0xFF00)
    assert ",io_class=ff00," in format_target_line(old.line(InitiatorExt()))


def test_spelling_that_is_not_the_number_is_refused() -> None:
    forged = TargetPort(1, 2, DGID, 3, 0xFFFF, id_ext_text="1,ch_count=9999")
    with pytest.raises(InvalidLineError):
        forged.line(InitiatorExt())


def test_name() -> None:
    assert TARGET.name == "200500a0b81146a1/0002c90200402bec@0002c90200402bed"


def test_order_is_by_identity() -> None:
    assert sorted([TARGET, TargetPort(1, 2, DGID, 3, 0xFFFF)])[0].id_ext == 1
