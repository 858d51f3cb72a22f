from __future__ import annotations

import asyncio

from fake_seams import FakeInitiator, FakePathManager, Log
from storage import mapping, path

from srpha.core.seams import DeviceState, PathManagerError, PathState
from srpha.daemon.guard import Guard

DOWN = {0: "the port is down"}
GOOD = (mapping(path(0), path(1)),)
FAILED = (mapping(path(0, state=PathState.FAILED), path(1)),)


def make() -> tuple[Guard, FakePathManager, Log]:
    manager, log = FakePathManager(FakeInitiator(())), Log()
    return Guard(manager, log), manager, log


def calls(manager: FakePathManager) -> list[tuple[str, str]]:
    return [(what, device) for _, what, device in manager.calls]


async def test_fails_once_and_reinstates_when_healthy() -> None:
    guard, manager, log = make()
    assert await guard.act(GOOD, DOWN, {1})
    assert not await guard.act(FAILED, DOWN, {1})
    assert await guard.act(FAILED, {}, {0, 1})
    assert not await guard.act(GOOD, {}, {0, 1})
    assert calls(manager) == [("fail", "sda"), ("reinstate", "sda")]
    assert log.events[0].text == "sda of map mpatha is failed early: the port is down"


async def test_suspicion_that_is_over_may_come_again() -> None:
    guard, manager, _ = make()
    await guard.act(GOOD, DOWN, {1})
    await guard.act(GOOD, {}, {0, 1})  # the path manager took it back by itself
    await guard.act(GOOD, DOWN, {1})
    assert calls(manager) == [("fail", "sda"), ("fail", "sda")]


async def test_name_used_by_another_host_is_another_path() -> None:
    guard, manager, _ = make()
    await guard.act(GOOD, DOWN, {1})
    await guard.act((mapping(path(1)),), DOWN, {1})
    await guard.act(FAILED, {}, {0, 1})
    assert calls(manager) == [("fail", "sda")]


async def test_refusal_is_told() -> None:
    guard, manager, log = make()

    async def refuse(_device: str) -> None:
        raise PathManagerError("no such path")

    manager.fail_path = refuse  # type: ignore[method-assign]
    assert not await guard.act(GOOD, DOWN, {1})
    assert log.events[0].text.endswith("refused: no such path")


async def test_failed_path_is_not_forgotten_while_its_device_comes_back() -> None:
    """The connection runs again before its disk does; nobody but us would ever reinstate the path."""
    guard, manager, _ = make()
    await guard.act(GOOD, DOWN, {1})
    blocked = (mapping(path(0, state=PathState.FAILED, device=DeviceState.BLOCKED), path(1)),)
    assert not await guard.act(blocked, {}, {0, 1})
    assert await guard.act(FAILED, {}, {0, 1})
    assert calls(manager) == [("fail", "sda"), ("reinstate", "sda")]


async def test_what_is_found_failed_is_offered_once_its_connection_is_healthy() -> None:
    """The daemon before this one may have failed it."""
    guard, manager, _ = make()
    assert not await guard.act(FAILED, {}, set())
    assert not await guard.act(FAILED, DOWN, {1})
    assert await guard.act(FAILED, {}, {0, 1})
    assert not await guard.act(FAILED, {}, {0, 1})  # failed by the path manager itself since: its affair
    assert calls(manager) == [("reinstate", "sda")]


async def test_refused_offer_is_repeated_after_a_while() -> None:
    guard, manager, log = make()
    await guard.act(GOOD, DOWN, {1})
    taken = manager.reinstate_path

    async def refuse(_device: str) -> None:
        raise PathManagerError("multipathd cannot be reached")

    manager.reinstate_path = refuse  # type: ignore[method-assign]
    for _ in range(3):
        assert not await guard.act(FAILED, {}, {0, 1})
    assert [event.text for event in log.events if "refused" in event.text] == [
        "sda is offered to multipath again: its connection is healthy; refused: multipathd cannot be reached"
    ]
    manager.reinstate_path = taken  # type: ignore[method-assign]
    await asyncio.sleep(31)
    assert await guard.act(FAILED, {}, {0, 1})
    assert calls(manager) == [("fail", "sda"), ("reinstate", "sda")]
