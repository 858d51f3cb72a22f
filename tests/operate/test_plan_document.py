from __future__ import annotations

import asyncio

from house import House

from srpha.core.targets.rules import parse_rules
from srpha.daemon.settings import Settings
from srpha.operate.client import Json
from srpha.operate.plan_document import fulfilled, plan_document


def table(document: dict[str, Json], name: str) -> list[dict[str, Json]]:
    found = document[name]
    assert isinstance(found, list)
    return [item for item in found if isinstance(item, dict)]


async def test_every_pair_with_its_reason() -> None:
    house = House(settings=Settings(rules=parse_rules(["d ioc_guid=0"], "rules")))
    async with house.running() as supervisor:
        await house.connected(4)
        document = plan_document(supervisor.snapshot())
        pairs = table(document, "pairs")
        assert [(pair["desired"], pair["actual"], pair["met"]) for pair in pairs] == [(True, "running", True)] * 4
        assert all(pair["reason"] for pair in pairs)
        assert fulfilled(document)

        house.ports[0].change(state=type(house.ports[0].identity().state).DOWN)
        house.initiator.drop(next(item.host for item in house.initiator.made if item.local_port == "mlx5_0/1"))
        await asyncio.sleep(5)
        document = plan_document(supervisor.snapshot())
        missing = [pair for pair in table(document, "pairs") if not pair["met"]]
        assert missing
        assert all(str(pair["reason"]).startswith("mlx5_0/1") for pair in missing)
        assert not fulfilled(document)
        assert [port["usable"] for port in table(document, "ports")] == [False, True]


async def test_what_is_not_desired_is_met() -> None:
    house = House(settings=Settings(rules=parse_rules(["d"], "rules")))
    async with house.running() as supervisor:
        await house.until(lambda seen: seen.settled and bool(seen.pairs))
        document = plan_document(supervisor.snapshot())
        assert [(p["desired"], p["reason"]) for p in table(document, "pairs")] == [(False, "disallowed by rules:1")] * 4
        assert fulfilled(document)


async def test_a_failed_login_says_when_the_next_one_comes() -> None:
    from srpha.core.seams import AddTargetError

    house = House(ports=1, targets=1)
    house.initiator.always = AddTargetError(104, "REJ reason 3: lower ch_count")
    async with house.running() as supervisor:
        await asyncio.sleep(2)
        (pair,) = table(plan_document(supervisor.snapshot()), "pairs")
        assert (pair["status"], pair["reason"]) == ("backing-off", "REJ reason 3: lower ch_count")
        assert isinstance(pair["next_attempt_in"], float)
        assert 0 < pair["next_attempt_in"] <= 3


async def test_unknown_is_not_fulfilled() -> None:
    house = House()
    house.initiator.unreadable = True
    async with house.running() as supervisor:
        await asyncio.sleep(2)
        document = plan_document(supervisor.snapshot())
        assert document["connections_known"] is False
        assert not fulfilled(document)
