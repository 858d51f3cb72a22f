"""A port of a lab is drained under verified I/O: no I/O fails, and none takes the port until it is resumed."""

from __future__ import annotations

import pytest
from stage import staged

from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.core.scsi_io import ScsiCommand
from srpha.core.seams import PathState
from srpha.embedded.initiator.device import ScsiDisk

PORT, CABLE = "mlx5_0/1", "host1-a/1"
IO = {0x28, 0x2A, 0x35, 0x88, 0x8A, 0x91}
"""READ, WRITE and SYNCHRONIZE CACHE of 10 and 16 bytes."""


@pytest.mark.virtual_limit(900)
@pytest.mark.parametrize("mode", list(RecoveryMode), ids=lambda mode: mode.value)
async def test_a_cable_is_changed_while_its_port_is_drained(
    mode: RecoveryMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried: list[int] = []
    submit = ScsiDisk.submit

    def counting(disk: ScsiDisk, command: ScsiCommand) -> None:
        if command.cdb[0] in IO:
            carried.append(disk.host.number)
        submit(disk, command)

    monkeypatch.setattr(ScsiDisk, "submit", counting)
    async with staged(mode) as stage:
        supervisor = stage.host.supervisor
        local = {item.host for item in await stage.connections() if item.local_port == PORT}
        assert set(carried) > local

        report = await supervisor.drain(PORT)
        assert report.refused == ()
        assert report.paths
        carried.clear()
        await stage.quiet(2.0)
        await stage.outage(20.0, f"link-down {CABLE}", f"link-up {CABLE}")
        await stage.quiet(20.0)
        now = {item.host for item in await stage.connections() if item.local_port == PORT}
        assert now == (set() if mode is RecoveryMode.OFED else local)
        assert carried
        assert not set(carried) & (local | now)
        behind = [path for item in stage.maps() for path in item.paths if path.host in local | now]
        assert all(path.state is PathState.FAILED for path in behind)

        await supervisor.resume(PORT)
        await stage.original(300)
        carried.clear()
        await stage.quiet(2.0)
        again = {item.host for item in await stage.connections() if item.local_port == PORT}
        assert set(carried) > again
