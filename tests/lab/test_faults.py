"""Faults of the fabric under verified I/O: what each one comes to, and that no trace is left once it is mended."""

from __future__ import annotations

import asyncio

import pytest
from stage import Stage, staged

from srpha.core.connections.pairs import PairStatus
from srpha.core.discovery.scan_result import Standing
from srpha.core.events import EventKind
from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.core.recovery.remote_port import RemotePortState
from srpha.embedded.fabric.faults import FAULT_USAGE

MODES = pytest.mark.parametrize("mode", list(RecoveryMode), ids=lambda mode: mode.value)
A, B = "host1-a/1", "host1-b/1"
ARRAY1A, ARRAY1B = "array1/1", "array1/2"
MAPS = {"mpatha": 4, "mpathb": 4, "mpathc": 4}
"""Two units of array1, one of array2, and the paths of each."""


async def paths_left(stage: Stage, wanted: dict[str, int], limit: float = 30.0) -> float:
    """Wait until each map has so many usable paths; how long it took."""
    return await stage.until(
        lambda: {item.name: len(stage.usable(item.name)) for item in stage.maps()} == wanted, limit
    )


async def recovery_of(stage: Stage, hosts: set[int]) -> None:
    """The mode's own recovery of these hosts has run its course: gone (OFED), or waiting for a reconnect (kernel)."""

    async def done() -> bool:
        seen = {item.host: item for item in await stage.connections()}
        if stage.lab.settings.recovery is RecoveryMode.OFED:
            return not hosts & seen.keys()
        return all(seen[host].state is RemotePortState.FAIL_FAST for host in hosts)

    await stage.until(done)


async def same_hosts(stage: Stage, before: set[int], *, expected: bool) -> None:
    after = {item.host for item in await stage.connections()}
    assert (after == before) is expected, (before, after)


# --- cables ---


@MODES
@pytest.mark.parametrize(
    ("cable", "left", "affected"),
    [
        (A, {"mpatha": 2, "mpathb": 2, "mpathc": 2}, 4),
        ("leaf-b/1", {"mpatha": 2, "mpathb": 2, "mpathc": 2}, 4),
        (ARRAY1B, {"mpatha": 2, "mpathb": 2, "mpathc": 4}, 2),
    ],
    ids=["host", "switch side", "target"],
)
async def test_cable_out(mode: RecoveryMode, cable: str, left: dict[str, int], affected: int) -> None:
    async with staged(mode) as stage:
        hosts = {item.host for item in await stage.connections()}
        guid = {A: stage.guid(A), "leaf-b/1": stage.guid(B)}.get(cable)
        dead = await (stage.hosts_of(sgid=guid) if guid else stage.hosts_of(dgid=stage.guid(cable)))
        assert len(dead) == affected
        stage.fault(f"link-down {cable}")
        assert await paths_left(stage, left) < 1.0
        await recovery_of(stage, dead)
        await paths_left(stage, left)
        stage.fault(f"link-up {cable}")
        await stage.original()
        # OFED: logged in again as new hosts. Kernel: reconnected in place.
        await same_hosts(stage, hosts, expected=mode is RecoveryMode.KERNEL)


@MODES
async def test_cable_between_the_switches_out(mode: RecoveryMode) -> None:
    """Each side keeps the paths that need no other side; the far side's ports are out of the manager's sight."""
    async with staged(mode) as stage:
        crossing = await stage.hosts_of(sgid=stage.guid(A), dgid=stage.guid(ARRAY1B))
        crossing |= await stage.hosts_of(sgid=stage.guid(B), dgid=stage.guid(ARRAY1A))
        stage.fault("link-down leaf-a/8")
        await recovery_of(stage, crossing)
        inside = await stage.hosts_of(sgid=stage.guid(A), dgid=stage.guid(ARRAY1A))
        inside |= await stage.hosts_of(sgid=stage.guid(B), dgid=stage.guid(ARRAY1B))
        seen = {item.host: item.state for item in await stage.connections()}
        assert {seen[host] for host in inside} == {RemotePortState.RUNNING}
        assert {path.host for path in stage.usable("mpatha")} <= inside
        stage.fault("link-up leaf-b/8")
        await stage.original()


@MODES
async def test_twenty_quick_flaps(mode: RecoveryMode) -> None:
    async with staged(mode) as stage:
        for number in range(20):
            await stage.outage(0.003 + 0.007 * (number % 5), f"link-down {A}", f"link-up {A}")
            await asyncio.sleep(0.002 + 0.011 * (number % 7))
        await stage.original()


@MODES
@pytest.mark.parametrize("out", [0.001, 0.01, 0.03, 0.049, 0.051, 0.07, 0.12])
async def test_link_returns_while_hosts_are_going_away(mode: RecoveryMode, out: float) -> None:
    """The removal race: an old host blocks the login of its successor for 50 ms, while no further notice will come."""
    async with staged(mode) as stage:
        hosts = await stage.hosts_of(sgid=stage.guid(A))
        stage.fault(f"link-down {A}")
        if mode is RecoveryMode.OFED:

            async def going() -> bool:
                return any(item.removing for item in await stage.connections())

            await stage.until(going, step=0.001)
        await asyncio.sleep(out)
        stage.fault(f"link-up {A}")
        took = await stage.original()
        assert took < 8.0, "returned, but only a periodic scan or back-off noticed it"
        if mode is RecoveryMode.OFED:
            assert not hosts & {item.host for item in await stage.connections()}


@MODES
@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        (A, ARRAY1B, {"mpatha": 1, "mpathb": 1, "mpathc": 2}),
        (ARRAY1A, "array2/2", {"mpatha": 2, "mpathb": 2, "mpathc": 2}),
        (B, "leaf-a/8", {"mpatha": 1, "mpathb": 1, "mpathc": 1}),
    ],
)
async def test_two_failures_at_once(mode: RecoveryMode, first: str, second: str, left: dict[str, int]) -> None:
    async with staged(mode) as stage:
        stage.fault(f"link-down {first}", f"link-down {second}")
        await paths_left(stage, left)
        await stage.quiet(2.0)
        stage.fault(f"link-up {second}")
        await stage.quiet(0.5)
        stage.fault(f"link-up {first}")
        await stage.original()


# --- packets lost and late ---


@MODES
@pytest.mark.parametrize("direction", ["both", "tx", "rx"])
@pytest.mark.parametrize("cable", [A, ARRAY1A, "leaf-a/8"], ids=["host", "target", "between"])
async def test_silent_loss(mode: RecoveryMode, direction: str, cable: str) -> None:
    """No end notices anything: retries run out after about half a second, the I/O goes on over other paths."""
    async with staged(mode) as stage:
        stage.fault(f"lose {cable} {direction}")
        await stage.until(lambda: bool(stage.usable()) and len(stage.usable()) < 12, 10)
        await stage.quiet(4.0)
        operations = {name: one.operations for name, one in stage.host.load.by_map.items()}  # type: ignore[union-attr]
        await stage.quiet(1.0)
        load = stage.host.load
        assert load is not None
        assert all(one.operations > operations[name] for name, one in load.by_map.items())
        stage.fault(f"mend {cable}")
        await stage.original(180)
        assert stage.io.max_stall < 3.0


@MODES
@pytest.mark.parametrize("probability", [0.05, 0.3])
async def test_partial_loss(mode: RecoveryMode, probability: float) -> None:
    """Retransmission carries 5 % almost unseen; 30 % may break connections, never I/O."""
    async with staged(mode) as stage:
        stage.fault(f"lose {A} both {probability}")
        await stage.quiet(10.0)
        stage.fault(f"mend {A}")
        await stage.original(180)
        assert stage.io.max_stall < (1.0 if probability < 0.1 else 5.0)


@MODES
async def test_management_lost_storage_not(mode: RecoveryMode) -> None:
    """Subnet manager and SA are cut off for two sweeps: scans fail, and are no reason to touch what works."""
    async with staged(mode) as stage:
        hosts = {item.host for item in await stage.connections()}
        stage.fault("lose sm/1 both 1.0 mad")
        stage.host.supervisor.rescan()
        await stage.until(lambda: bool(stage.events(EventKind.SCAN_FAILED)))
        await stage.quiet(10.0)
        assert len(stage.usable()) == 12
        stage.fault("mend sm/1")
        await stage.quiet(15.0)
        await stage.original()
        await same_hosts(stage, hosts, expected=True)
        assert not stage.events(EventKind.PATH_FAILED)


@MODES
async def test_host_that_answers_no_management_is_routed_to_no_longer(mode: RecoveryMode) -> None:
    """A sweep drops ports that do not answer, and their routes with them: the loss of the host's MADs is an outage."""
    async with staged(mode) as stage:
        for port in (A, B):
            stage.fault(f"lose {port} both 1.0 mad")
        await stage.until(lambda: not stage.usable())
        await stage.quiet(5.0)
        for port in (A, B):
            stage.fault(f"mend {port}")
        await stage.original()


@MODES
async def test_storage_lost_management_not(mode: RecoveryMode) -> None:
    """The target answers every question and carries no command: only the path itself can tell."""
    async with staged(mode) as stage:
        stage.fault(f"lose {ARRAY1A} both 1.0 rc")
        await paths_left(stage, {"mpatha": 2, "mpathb": 2, "mpathc": 4})
        await stage.quiet(5.0)
        stage.fault(f"mend {ARRAY1A}")
        await stage.original()


@MODES
async def test_delay_below_the_timeouts_costs_time_only(mode: RecoveryMode) -> None:
    async with staged(mode) as stage:
        hosts = {item.host for item in await stage.connections()}
        stage.fault(f"delay {A} 0.01")
        await stage.quiet(3.0)
        stage.fault(f"mend {A}")
        await stage.original()
        await same_hosts(stage, hosts, expected=True)
        assert not stage.events(EventKind.PATH_FAILED)
        assert 0.02 < stage.io.max_stall < 0.2


@MODES
async def test_delay_above_the_timeouts_is_a_loss_with_ghosts(mode: RecoveryMode) -> None:
    """Packets of dead connections keep arriving; none of them counts."""
    async with staged(mode) as stage:
        stage.fault(f"delay {A} 1.5 both rc")
        await paths_left(stage, {"mpatha": 2, "mpathb": 2, "mpathc": 2})
        await stage.quiet(3.0)
        stage.fault(f"mend {A}")
        await stage.original()


# --- power ---


@MODES
@pytest.mark.parametrize(
    ("node", "left"),
    [
        ("host1-b", {"mpatha": 2, "mpathb": 2, "mpathc": 2}),
        ("leaf-b", {"mpatha": 1, "mpathb": 1, "mpathc": 1}),
        ("array1", {"mpatha": 0, "mpathb": 0, "mpathc": 4}),
        ("leaf-a", {"mpatha": 1, "mpathb": 1, "mpathc": 1}),
    ],
)
async def test_power_off_and_on(mode: RecoveryMode, node: str, left: dict[str, int]) -> None:
    """I/O on a unit without any path waits (``no_path_retry``), all other goes on. What was acknowledged stays."""
    async with staged(mode) as stage:
        stage.fault(f"power-off {node}")
        await paths_left(stage, left)
        await stage.quiet(4.0)
        stage.fault(f"power-on {node}")
        await stage.original()


@MODES
async def test_power_of_the_subnet_manager(mode: RecoveryMode) -> None:
    """The fabric forwards without its manager: nothing happens to I/O, and nothing is forgotten."""
    async with staged(mode) as stage:
        hosts = {item.host for item in await stage.connections()}
        stage.fault("power-off sm")
        stage.host.supervisor.rescan()
        await stage.quiet(15.0)
        assert len(stage.usable()) == 12
        stage.fault("power-on sm")
        await stage.original()
        await same_hosts(stage, hosts, expected=True)


# --- subnet management ---


@MODES
async def test_subnet_manager_dies_and_another_takes_over(mode: RecoveryMode) -> None:
    """Another SM LID: the ports subscribe there, so that the next target to come is found by its notice."""
    async with staged(mode) as stage:
        hosts = {item.host for item in await stage.connections()}
        stage.fault("sm-loss")
        await stage.quiet(5.0)
        stage.fault("sm-start array2")
        new_lid = stage.world.fabric.port("array2/1").lid
        await stage.until(
            lambda: all(
                port.subscribed and port.identity is not None and port.identity.sm_lid == new_lid
                for port in stage.host.supervisor.snapshot().ports
            )
        )
        await stage.original()
        await same_hosts(stage, hosts, expected=True)
        assert not stage.events(EventKind.PATH_FAILED, EventKind.TARGET_LEFT)
        stage.fault("target-join array3")
        assert await stage.complete(3) < 5.0


@MODES
async def test_unknown_is_not_empty(mode: RecoveryMode) -> None:
    """The subnet manager dies in the midst of a scan, after which nothing answers: nobody has left."""
    async with staged(mode) as stage:
        hosts = {item.host for item in await stage.connections()}
        stage.host.supervisor.rescan()
        await stage.until(lambda: not stage.host.supervisor.snapshot().settled, step=0.0001)
        stage.fault("sm-loss")
        await stage.until(lambda: bool(stage.events(EventKind.SCAN_FAILED)))
        seen = stage.host.supervisor.snapshot()
        assert [status.standing for status in seen.targets if status.standing is Standing.GONE] == []
        assert [pair.status for pair in seen.pairs] == [PairStatus.CONNECTED] * 8
        assert len(stage.usable()) == 12
        stage.fault("sm-start")
        await stage.original()
        await same_hosts(stage, hosts, expected=True)
        assert not stage.events(EventKind.TARGET_LEFT, EventKind.PATH_FAILED)


@MODES
@pytest.mark.parametrize("port", [A, ARRAY1A])
async def test_port_gets_another_lid(mode: RecoveryMode, port: str) -> None:
    """Connections made to the old LID break and are made anew."""
    async with staged(mode) as stage:
        before = stage.world.fabric.port(port).lid
        stage.fault(f"change-lid {port}")
        await stage.until(lambda: stage.world.fabric.port(port).lid != before)
        await stage.until(lambda: len(stage.usable()) < 12)
        await stage.original()


# --- port registers ---


@MODES
@pytest.mark.parametrize("port", [A, ARRAY1A])
async def test_partition_removed_and_returned(mode: RecoveryMode, port: str) -> None:
    async with staged(mode) as stage:
        stage.fault(f"remove-pkey {port} ffff")
        await stage.until(lambda: len(stage.usable()) < 12)
        await stage.quiet(4.0)
        stage.fault(f"add-pkey {port} ffff")
        await stage.original()


@MODES
async def test_device_management_capability_cleared_and_set(mode: RecoveryMode) -> None:
    """The port is no longer announced as an I/O unit: what is connected works and is left alone."""
    async with staged(mode) as stage:
        hosts = {item.host for item in await stage.connections()}
        stage.fault(f"set-capability {ARRAY1A} 19 off")
        guid = stage.guid(ARRAY1A)

        def standing() -> Standing | None:
            seen = {status.unit.guid: status.standing for status in stage.host.supervisor.snapshot().targets}
            return seen.get(guid)

        await stage.until(lambda: standing() is not Standing.FOUND, 5)
        await stage.quiet(5.0)
        await same_hosts(stage, hosts, expected=True)
        stage.fault(f"set-capability {ARRAY1A} 19 on")
        await stage.until(lambda: standing() is Standing.FOUND, 5)
        await stage.original()
        await same_hosts(stage, hosts, expected=True)


def test_no_kind_of_fault_is_forgotten(pytestconfig: pytest.Config) -> None:
    """Each kind of the grammar is named in a test of this folder."""
    folder = pytestconfig.rootpath / "tests" / "lab"
    text = "".join(path.read_text() for path in sorted(folder.glob("test_fault*.py")))
    kinds = [kind for kind in FAULT_USAGE if f'"{kind} ' not in text and f'"{kind}"' not in text]
    assert [kind for kind in kinds if f"{kind} {{" not in text] == []
