from __future__ import annotations

import contextlib
import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.core.targets.add_target import (
    InvalidLineError,
    NetworkAddress,
    TargetLine,
    format_target_line,
    parse_target_line,
    with_options,
)
from srpha.wire.identifiers import Gid

MANUAL = (
    "id_ext=200500A0B81146A1,ioc_guid=0002c90200402bec,dgid=fe800000000000000002c90200402bed,pkey=ffff,"
    "service_id=200500a0b81146a1,initiator_ext=ed2b400002c90200"
)

OPTIONS = {
    "tl_retry_count": (2, 7),
    "max_sect": (1, 2**31 - 1),
    "max_cmd_per_lun": (1, 2**31 - 1),
    "queue_size": (1, 2**31 - 1),
    "target_can_queue": (1, 2**31 - 1),
    "cmd_sg_entries": (1, 255),
    "sg_tablesize": (1, 2048),
    "allow_ext_sg": (0, 1),
    "comp_vector": (0, 2**31 - 1),
    "ch_count": (1, 2**31 - 1),
    "max_it_iu_size": (0, 2**31 - 1),
}
U64 = st.integers(0, 2**64 - 1)


@st.composite
def lines(draw: st.DrawFn) -> TargetLine:
    options = {key: draw(st.none() | st.integers(*limits)) for key, limits in OPTIONS.items()}
    return TargetLine(
        id_ext=draw(U64),
        ioc_guid=draw(U64),
        dgid=draw(st.builds(Gid, U64, U64)),
        pkey=draw(st.integers(0, 0xFFFF)),
        service_id=draw(U64),
        io_class=draw(st.sampled_from([None, 0xFF00])),
        initiator_ext=draw(st.none() | U64),
        **options,
    )


def test_the_manuals_line() -> None:
    line = parse_target_line(MANUAL)
    assert line.id_ext == 0x200500A0B81146A1
    assert line.dgid == Gid(0xFE80000000000000, 0x0002C90200402BED)
    assert line.initiator_extension == 0xED2B400002C90200
    assert format_target_line(line) == MANUAL
    assert line.target_port_id.hex() == "200500a0b81146a10002c90200402bec"
    assert line.initiator_port_id(Gid(0, 0x1234)).hex() == "ed2b400002c902000000000000001234"


def test_revision_10_swaps_the_halves_of_both_port_identifiers() -> None:
    line = parse_target_line(MANUAL + ",io_class=ff00")
    assert line.target_port_id.hex() == "0002c90200402bec200500a0b81146a1"
    assert line.initiator_port_id(Gid(0, 0x1234)).hex() == "0000000000001234ed2b400002c90200"


def test_order_of_keys_is_srp_daemons() -> None:
    line = parse_target_line("max_it_iu_size=100,ch_count=2,queue_size=9,tl_retry_count=2,io_class=ff00\n" + MANUAL)
    text = format_target_line(line, ("queue_size", "ch_count"))
    assert [item.partition("=")[0] for item in text.split(",")] == [
        "id_ext",
        "ioc_guid",
        "dgid",
        "pkey",
        "service_id",
        "io_class",
        "initiator_ext",
        "tl_retry_count",
        "queue_size",
        "ch_count",
        "max_it_iu_size",
    ]
    with pytest.raises(InvalidLineError, match="pkey"):
        format_target_line(line, ("pkey",))


@given(lines(), st.permutations(list(OPTIONS)[1:-1]))
def test_what_is_written_is_read(line: TargetLine, order: list[str]) -> None:
    assert parse_target_line(format_target_line(line, order)) == line


def test_last_of_a_repeated_key_counts_and_empty_items_do_not() -> None:
    line = parse_target_line(f"pkey=1,,{MANUAL},\npkey=0x7fff\n")
    assert line.pkey == 0x7FFF


@pytest.mark.parametrize("key", OPTIONS)
def test_limits_of_every_option(key: str) -> None:
    low, high = OPTIONS[key]
    for good in (low, high):
        assert getattr(parse_target_line(f"{MANUAL},{key}={good}"), key) == good
        assert getattr(with_options(parse_target_line(MANUAL), {key: good}), key) == good
    for bad in (str(low - 1), str(high + 1), "", "0x1", "1 ", "a", "\u0661"):
        with pytest.raises(InvalidLineError, match=key):
            parse_target_line(f"{MANUAL},{key}={bad}")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "id_ext missing"),
        ("id_ext=1", "ioc_guid missing"),
        ("id_ext=1,ioc_guid=2", "dgid, pkey, service_id missing"),
        (MANUAL + ",ch_count", "ch_count"),
        (MANUAL + ",nonsense=1", "nonsense"),
        (MANUAL + ",ID_EXT=1", "ID_EXT"),
        (MANUAL + ",id_ext=12345678901234567", "id_ext"),
        (MANUAL + ",id_ext=-1", "id_ext"),
        (MANUAL + ",id_ext=1_0", "id_ext"),
        (MANUAL + ",pkey=10000", "pkey"),
        (MANUAL + ",dgid=fe80", "dgid"),
        (MANUAL + ",dgid=fe80:0000:0000:0000:0002:c902:0040:2bed", "dgid"),
        (MANUAL + ",io_class=101", "io_class"),
        ("id_ext=1,ioc_guid=2,dest=192.0.2.1", "port is needed"),
        ("id_ext=1,ioc_guid=2,dest=192.0.2.1:", "dest"),
        ("id_ext=1,ioc_guid=2,dest=192.0.2.1:0", "dest"),
        ("id_ext=1,ioc_guid=2,dest=192.0.2.1:65536", "dest"),
        ("id_ext=1,ioc_guid=2,dest=host:1", "dest"),
        ("id_ext=1,ioc_guid=2,dest=[192.0.2.1]:1", "dest"),
        ("id_ext=1,ioc_guid=2,dest=[2001:db8::1:1", "dest"),
        ("id_ext=1,ioc_guid=2,dest=2001:db8::1:1", "dest"),
        ("id_ext=1,ioc_guid=2,dest=[2001:db8::1]1", "dest"),
        ("a" * 5000, "5000 characters"),
    ],
)
def test_bad_lines_are_refused_as_a_whole(text: str, match: str) -> None:
    with pytest.raises(InvalidLineError, match=match) as caught:
        parse_target_line(text)
    assert caught.value.errno == errno.EINVAL


def test_rdma_cm_addresses() -> None:
    text = "id_ext=0000000000000001,ioc_guid=0000000000000002,dest=[2001:db8::1]:5555,src=192.0.2.1"
    line = parse_target_line(text)
    assert line.uses_rdma_cm
    assert line.dest == NetworkAddress("2001:db8::1", 5555)
    assert line.src == NetworkAddress("192.0.2.1", None)
    assert format_target_line(line) == text


def test_options_of_a_rule_cannot_change_the_identity() -> None:
    line = parse_target_line(MANUAL)
    with pytest.raises(InvalidLineError, match="pkey"):
        with_options(line, {"pkey": 1})


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidLineError):
        parse_target_line(text)


def test_id_ext_text_must_stand_for_id_ext() -> None:
    with pytest.raises(InvalidLineError, match="id_ext"):
        TargetLine(id_ext=1, ioc_guid=2, dgid=Gid(0, 0), pkey=1, service_id=1, id_ext_text="2")
