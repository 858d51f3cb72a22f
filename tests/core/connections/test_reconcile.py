from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace

import pytest

from scripted_subnet import local_port
from srpha.core.connections.attempts import Attempts, BackOff
from srpha.core.connections.pairs import Pair, PairStatus
from srpha.core.connections.reconcile import Judgements, LocalPort, Plan, Policy, reconcile
from srpha.core.discovery.inventory import Inventory
from srpha.core.discovery.scan_result import DmAgent, IoUnit, Reach, ScanResult, ScanStatistics, SrpService, Standing
from srpha.core.recovery.remote_port import RemotePortState, RemotePortTimers
from srpha.core.seams import Connection
from srpha.core.targets.access import AccessRule, AccessRules
from srpha.core.targets.rules import Rules, parse_rules
from srpha.core.targets.target_mask import TargetMask, parse_port_masks
from srpha.core.targets.target_port import InitiatorExt, InitiatorExtMode
from srpha.wire.identifiers import Gid

PORT = local_port(1, pkeys=(0xFFFF, 0x8001))
OTHER = local_port(2, pkeys=(0xFFFF,))
GID = Gid(0xFE80000000000000, 0x0002C90200402BED)
SERVICE = SrpService(
    id_ext=0x200500A0B81146A1,
    id_ext_text="200500A0B81146A1",
    ioc_guid=0x0002C90200402BEC,
    service_id=0x200500A0B81146A1,
    io_class=0x0100,
    send_message_size=2116,
    description="array",
)
UNIT = IoUnit(GID, 9, 1, "array", Standing.FOUND, DmAgent(9), services=(SERVICE,), change_id=1)
CONNECTION = Connection(
    host=5,
    device="mlx5_0",
    port=1,
    id_ext=SERVICE.id_ext,
    ioc_guid=SERVICE.ioc_guid,
    service_id=SERVICE.service_id,
    pkey=0xFFFF,
    sgid=PORT.gid,
    dgid=GID,
    orig_dgid=GID,
    remote_port="port-5:1",
    state=RemotePortState.RUNNING,
    timers=RemotePortTimers(),
    failed_reconnects=0,
    req_lim=10,
    zero_req_lim=0,
    ch_count=1,
    devices=(),
)
NOW = 100.0


def stock(
    *units: IoUnit, members: tuple[str, ...] = ("mlx5_0/1",), pkeys: tuple[int, ...] | None = (0xFFFF, 0x8001)
) -> Inventory:
    inventory = Inventory(3, 60)
    reach = (
        ()
        if pkeys is None
        else tuple(Reach(name, True, "", {u.guid: pkeys for u in units} if pkeys else {}) for name in members)
    )
    inventory.apply(ScanResult(members[0], members, (), True, "", units, reach, ScanStatistics()), 1.0)
    return inventory


def plan(
    inventory: Inventory,
    connections: Sequence[Connection] | None = (),
    *,
    policy: Policy | None = None,
    attempts: Attempts | None = None,
    ours: Sequence[int] = (),
    trouble: str = "",
    ports: Sequence[LocalPort] | None = None,
    now: float = NOW,
) -> Plan:
    return reconcile(
        [LocalPort(PORT, trouble)] if ports is None else ports,
        inventory,
        connections,
        Judgements(policy or Policy()),
        attempts or Attempts(BackOff()),
        ours,
        now,
    )


def only(result: Plan) -> Pair:
    (pair,) = result.pairs
    return pair


def policy(text: str, *, default: bool = True) -> Policy:
    return Policy(parse_rules(text.splitlines(), "rules", allow_by_default=default))


def test_new_target_is_due_with_the_line_of_the_manual() -> None:
    pair = only(plan(stock(UNIT), policy=Policy(initiator_ext=InitiatorExt(InitiatorExtMode.DGID_SWAPPED))))
    assert pair.status is PairStatus.DUE
    assert pair.line == (
        "id_ext=200500A0B81146A1,ioc_guid=0002c90200402bec,dgid=fe800000000000000002c90200402bed,pkey=ffff,"
        "service_id=200500a0b81146a1,initiator_ext=ed2b400002c90200"
    )
    assert pair.reason == "allowed by default, no rule matches"


def test_running_connection_is_connected_whoever_made_it() -> None:
    pair = only(plan(stock(UNIT), [CONNECTION]))
    assert (pair.status, pair.host, pair.ours) == (PairStatus.CONNECTED, 5, False)
    assert only(plan(stock(UNIT), [CONNECTION], ours=[5])).ours


@pytest.mark.parametrize(
    ("state", "status", "reason"),
    [
        (RemotePortState.BLOCKED, PairStatus.RECOVERING, "host5 is blocked; reconnects every 10 s"),
        (RemotePortState.FAIL_FAST, PairStatus.RECOVERING, "host5 fails its I/O at once; reconnects every 10 s"),
        (RemotePortState.LOST, PairStatus.REMOVING, "waiting until host5 is removed"),
    ],
)
def test_connection_in_trouble_is_not_doubled(state: RemotePortState, status: PairStatus, reason: str) -> None:
    pair = only(plan(stock(UNIT), [replace(CONNECTION, state=state)]))
    assert (pair.status, pair.reason) == (status, reason)


def test_driver_that_does_not_reconnect_is_told() -> None:
    timers = RemotePortTimers(None, 15, None)
    pair = only(plan(stock(UNIT), [replace(CONNECTION, state=RemotePortState.BLOCKED, timers=timers)]))
    assert pair.reason == "host5 is blocked; the driver does not reconnect (reconnect_delay is off)"


def test_removal_race_waits_and_then_is_due_at_once() -> None:
    inventory, attempts = stock(UNIT), Attempts(BackOff())
    leaving = replace(CONNECTION, removing=True)
    assert only(plan(inventory, [leaving], attempts=attempts)).status is PairStatus.REMOVING
    assert only(plan(inventory, [], attempts=attempts)).status is PairStatus.DUE


def test_new_host_counts_before_the_old_one_on_its_way_out() -> None:
    pair = only(plan(stock(UNIT), [replace(CONNECTION, host=4, removing=True), CONNECTION]))
    assert (pair.status, pair.host) == (PairStatus.CONNECTED, 5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"service_id": 1}, "its service ID is 0000000000000001, not 200500a0b81146a1"),
        ({"pkey": 0x8009}, "its P_Key is 8009, not ffff"),
    ],
)
def test_connection_that_differs_is_not_adopted(change: dict[str, int], reason: str) -> None:
    pair = only(plan(stock(UNIT), [replace(CONNECTION, **change)]))  # type: ignore[arg-type]
    assert pair.status is PairStatus.OCCUPIED
    assert pair.reason == f"host5 is left alone: {reason}"


def test_limited_and_full_membership_are_one_partition() -> None:
    assert only(plan(stock(UNIT), [replace(CONNECTION, pkey=0x7FFF)])).status is PairStatus.CONNECTED


@pytest.mark.parametrize(
    "change",
    [
        {"device": "mlx5_01"},
        {"port": 2},
        {"id_ext": 1},
        {"ioc_guid": 1},
        {"orig_dgid": Gid(1, 1)},
        {"orig_dgid": None, "dgid": None, "service_id": None, "pkey": None},
    ],
)
def test_foreign_connections_are_left_alone(change: dict[str, object]) -> None:
    result = plan(stock(UNIT), [replace(CONNECTION, **change)])  # type: ignore[arg-type]
    assert only(result).status is PairStatus.DUE
    assert [other.host for other in result.others] == [5]


def test_redirected_connection_is_known_by_its_original_target() -> None:
    assert only(plan(stock(UNIT), [replace(CONNECTION, dgid=Gid(1, 1))])).status is PairStatus.CONNECTED


def test_unreadable_connections_make_nothing_due() -> None:
    pair = only(plan(stock(UNIT), None))
    assert pair.status is PairStatus.UNREACHABLE
    assert "could not be read" in pair.reason


def test_reasons_to_wait() -> None:
    silent = replace(UNIT, standing=Standing.SILENT, reason="no answer")
    assert only(plan(stock(UNIT), trouble="link is down")).status is PairStatus.PORT_DOWN
    assert only(plan(stock(UNIT, pkeys=None))).status is PairStatus.UNREACHABLE
    assert only(plan(stock(UNIT, pkeys=()))).status is PairStatus.UNREACHABLE
    known = stock(UNIT)
    known.apply(ScanResult("mlx5_0/1", ("mlx5_0/1",), (), True, "", (silent,), (), ScanStatistics()), 2.0)
    pair = only(plan(known))
    assert (pair.status, pair.reason) == (PairStatus.TARGET_SILENT, "no answer")
    gone = replace(UNIT, standing=Standing.GONE, reason="the subnet does not list it any more")
    known.apply(ScanResult("mlx5_0/1", ("mlx5_0/1",), (), True, "", (gone,), (), ScanStatistics()), 3.0)
    assert only(plan(known)).status is PairStatus.TARGET_LEFT
    assert only(plan(known, [CONNECTION])).status is PairStatus.CONNECTED


def test_rules_say_no_and_say_where() -> None:
    pair = only(plan(stock(UNIT), policy=policy("a id_ext=1\nd")))
    assert (pair.status, pair.reason, pair.line) == (PairStatus.DISALLOWED, "disallowed by rules:2", "")
    pair = only(plan(stock(UNIT), [CONNECTION], policy=policy("d")))
    assert (pair.status, pair.host) == (PairStatus.DISALLOWED, 5)


def test_first_allowed_partition_is_taken() -> None:
    pair = only(plan(stock(UNIT), policy=policy("d pkey=ffff")))
    assert pair.target.pkey == 0x8001
    assert ",pkey=8001," in pair.line


def test_options_keep_the_order_of_the_rule() -> None:
    pair = only(plan(stock(UNIT), policy=policy("a queue_size=32,ch_count=2,tl_retry_count=2,max_sect=64")))
    assert pair.line.endswith(",initiator_ext=0002c90200402bed,tl_retry_count=2,queue_size=32,ch_count=2,max_sect=64")


def test_small_target_gets_its_iu_size_last() -> None:
    pair = only(plan(stock(UNIT), policy=Policy(max_imm_data=8192)))
    assert pair.line.endswith(",max_it_iu_size=2116")
    assert "max_it_iu_size" not in only(plan(stock(UNIT), policy=Policy(max_imm_data=2116))).line


def test_without_initiator_ext_one_target_port_per_local_port() -> None:
    second = replace(UNIT, gid=Gid(GID.prefix, GID.guid + 1), lid=10)
    none = Policy(initiator_ext=InitiatorExt(InitiatorExtMode.NONE))
    result = plan(stock(UNIT, second), policy=none)
    assert [pair.status for pair in result.pairs] == [PairStatus.DUE, PairStatus.OCCUPIED]
    assert "initiator_ext" not in result.pairs[0].line
    held = replace(CONNECTION, dgid=second.gid, orig_dgid=second.gid)
    result = plan(stock(UNIT, second), [held], policy=none)
    assert [pair.status for pair in result.pairs] == [PairStatus.OCCUPIED, PairStatus.CONNECTED]
    assert "target port 0002c90200402bee has it" in result.pairs[0].reason


def test_each_local_port_has_its_own_pair() -> None:
    inventory = stock(UNIT, members=("mlx5_0/1", "mlx5_1/1"))
    result = plan(inventory, [CONNECTION], ports=[LocalPort(OTHER, ""), LocalPort(PORT, "")])
    assert [(pair.key.local_port, pair.status) for pair in result.pairs] == [
        ("mlx5_0/1", PairStatus.CONNECTED),
        ("mlx5_1/1", PairStatus.DUE),
    ]


def test_failures_back_off_and_are_explained() -> None:
    inventory, attempts = stock(UNIT), Attempts(BackOff())
    key = only(plan(inventory)).key
    attempts.started(key)
    assert only(plan(inventory, attempts=attempts)).status is PairStatus.CONNECTING
    delays = []
    for _ in range(7):
        attempts.failed(key, errno.ECONNRESET, "rejected", NOW)
        pair = only(plan(inventory, attempts=attempts))
        assert (pair.status, pair.reason) == (PairStatus.BACKING_OFF, "rejected")
        assert pair.next_attempt is not None
        delays.append(pair.next_attempt - NOW)
    assert delays == [3, 6, 12, 24, 48, 60, 60]
    assert only(plan(inventory, attempts=attempts, now=NOW + 60)).status is PairStatus.DUE
    attempts.hasten(lambda seen: seen == key)
    assert only(plan(inventory, attempts=attempts)).status is PairStatus.DUE
    attempts.succeeded(key)
    assert attempts.of(key).failures == 0


def test_verdicts_without_rules() -> None:
    assert only(plan(stock(UNIT), policy=Policy(Rules(allow_by_default=False)))).status is PairStatus.DISALLOWED


def test_rules_may_speak_of_one_local_port_only() -> None:
    rule = AccessRule(False, TargetMask({}), parse_port_masks(["mlx5_1"]), where="srpha.toml: rule 1")
    ports = [LocalPort(PORT, ""), LocalPort(OTHER, "")]
    inventory = stock(UNIT, members=(PORT.name, OTHER.name), pkeys=(0xFFFF,))
    result = plan(inventory, policy=Policy(AccessRules((rule,))), ports=ports)
    assert {pair.key.local_port: pair.status for pair in result.pairs} == {
        PORT.name: PairStatus.DUE,
        OTHER.name: PairStatus.DISALLOWED,
    }
