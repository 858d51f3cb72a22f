"""``srpha plan --once`` looks, and does nothing else."""

from __future__ import annotations

from pathlib import Path

from house import House
from test_service import FakeBlocks, FakeWorld

from srpha.cli.daemon import DaemonWorld
from srpha.cli.plan_once import look_once
from srpha.core.connections.pairs import PairStatus
from srpha.operate.config import load_config


def made(house: House) -> DaemonWorld:
    return DaemonWorld(FakeWorld(house), FakeBlocks(house.paths), lambda: None)


async def test_it_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "srpha.toml"
    path.write_text(
        '[connect]\nrules_file = ""\nopenib_files = []\n[ports]\nexclude = ["mlx5_1"]\n'
        "[timers]\nfast_io_fail_tmo = 5\n[multipath]\nremove_departed = true\n"
    )
    house = House()
    snapshot = await look_once(lambda: made(house), load_config(path))
    assert [pair.status for pair in snapshot.pairs] == [PairStatus.DUE] * 2
    assert all(pair.line for pair in snapshot.pairs)
    assert house.initiator.lines == []
    house.settings = load_config(path).settings
    async with house.running():
        await house.connected(4)
    before = (house.initiator.timer_sets[:], house.paths.calls[:], house.initiator.lines[:])
    snapshot = await look_once(lambda: made(house), load_config(path))
    assert [pair.status for pair in snapshot.pairs] == [PairStatus.CONNECTED] * 2
    assert (house.initiator.timer_sets, house.paths.calls, house.initiator.lines) == before


async def test_a_host_that_cannot_be_read_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "srpha.toml"
    path.write_text('[connect]\nrules_file = ""\nopenib_files = []\n')
    house = House()
    house.initiator.unreadable = True
    snapshot = await look_once(lambda: made(house), load_config(path), limit=1000)
    assert snapshot.time < 10
    assert snapshot.connections is None
