from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srpha.embedded.target.spec import IocSpec, SpecError, TargetLimits, TargetSpec, UnitSpec, ioc_of_node, naa6
from tests.embedded.target.conftest import make_spec

IOC = IocSpec(guid=0x0002C90300A1B2C3, id_ext=0x200500A0B81146A1, service_id=7)


def test_target_port_id_by_io_class() -> None:
    assert IOC.target_port_id.hex() == "200500a0b81146a10002c90300a1b2c3"
    assert dataclasses.replace(IOC, io_class=0xFF00).target_port_id.hex() == "0002c90300a1b2c3200500a0b81146a1"


def test_the_srp_service_comes_first() -> None:
    ioc = dataclasses.replace(IOC, services=(("Console", 9),))
    assert ioc.service_entries == (("SRP.T10:200500A0B81146A1", 7), ("Console", 9))


def test_a_linux_target_has_one_number_for_all() -> None:
    assert ioc_of_node(0x0002C90300A1B2C3).target_port_id.hex() == "0002c90300a1b2c3" * 2


def test_naa6_golden() -> None:
    assert f"{naa6(0x0002C90300A1B2C3, 5):032x}" == "60002c9300a1b2c30000000000000005"


@given(
    st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 0x3FFF)),
    st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 0x3FFF)),
)
def test_naa6_is_unique_and_of_its_format(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert naa6(*one) >> 124 == 6
    assert (naa6(*one) == naa6(*other)) == (one == other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lun": 0x4000}, "lun is 16384; give 0..16383"),
        ({"block_size": 520}, "block_size of LUN 1 is 520"),
        ({"blocks": 0}, "blocks of LUN 1 is 0"),
        ({"serial": ""}, "serial of LUN 1"),
        ({"serial": "a\tb"}, "serial of LUN 1"),
        ({"naa": 5 << 124}, "naa of LUN 1"),
        ({"service_time": -1.0}, "service_time of LUN 1"),
        ({"queue_depth": 0}, "queue_depth of LUN 1"),
    ],
)
def test_impossible_units_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        UnitSpec(**{"lun": 1, "blocks": 8, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guid": 0}, "guid of an IOC is 0x0"),
        ({"id_ext": 1 << 64}, "id_ext of an IOC"),
        ({"io_class": 0x0101}, "io_class of IOC"),
        ({"id_string": "x" * 65}, "id_string of IOC"),
        ({"services": (("a" * 41, 1),)}, "service 'a+' of IOC"),
        ({"services": (("a", 1),) * 255}, "256 services"),
    ],
)
def test_impossible_controllers_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(IOC, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iocs": ()}, "has 0 IOCs"),
        ({"iocs": (IOC, IOC)}, "uses one IOC GUID twice"),
        ({"units": (UnitSpec(lun=1, blocks=1), UnitSpec(lun=1, blocks=1))}, "uses one LUN twice"),
        ({"vendor": "TOO LONG!"}, "vendor of target array"),
        ({"product": "ü"}, "product of target array"),
        ({"revision": ""}, "revision of target array"),
    ],
)
def test_impossible_targets_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make_spec(**change)


@pytest.mark.parametrize("change", [{"request_limit": 0}, {"max_iu": 63}, {"channels": 0}, {"channels_per_nexus": 0}])
def test_impossible_limits_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(SpecError):
        TargetLimits(**change)  # type: ignore[arg-type]


def test_a_target_without_units_is_possible() -> None:
    assert isinstance(make_spec(units=()), TargetSpec)
