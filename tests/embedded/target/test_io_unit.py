from __future__ import annotations

from srpha.embedded.target.io_unit import IoUnit
from srpha.embedded.target.spec import IocSpec, TargetLimits

ONE = IocSpec(guid=1, id_ext=0x11, service_id=0x21)
TWO = IocSpec(guid=2, id_ext=0x12, service_id=0x22, io_class=0xFF00)


def make() -> IoUnit:
    return IoUnit((ONE, TWO), TargetLimits(max_iu=2116, request_limit=30))


def test_slots_keep_their_places() -> None:
    unit = make()
    unit.set_present(0, False)
    assert unit.info().present_slots == (2,)
    assert (unit.controller(1), unit.controller(2)) == (None, TWO)
    assert (unit.profile(1), unit.services(1, 0, 0)) == (None, None)
    unit.set_present(0, True)
    assert unit.info().present_slots == (1, 2)


def test_change_id_moves_with_every_change_and_wraps() -> None:
    unit = make()
    unit.change_id = 0xFFFE
    for present in (True, False, False, True):
        unit.set_present(1, present)
    assert unit.change_id == 0
    assert unit.info().change_id == 0


def test_profile_follows_spec_and_limits() -> None:
    profile = make().profile(2)
    assert profile is not None
    assert (profile.guid, profile.io_class, profile.is_srp) == (2, 0xFF00, True)
    assert (profile.send_message_size, profile.send_queue_depth) == (2116, 30)


def test_services_out_of_range() -> None:
    unit = make()
    assert unit.services(1, 0, 1) is None
    assert unit.services(17, 0, 0) is None
    assert unit.services(0, 0, 0) is None
