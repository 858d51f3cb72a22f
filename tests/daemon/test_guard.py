from __future__ import annotations

from fake_seams import FakeInitiator, FakePathManager, Log
from storage import mapping, path

from srpha.core.seams import PathManagerError, PathState
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
