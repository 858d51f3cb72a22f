"""Targets that the configuration names, beside those that discovery finds."""

from __future__ import annotations

import errno
from collections.abc import Collection, Sequence
from dataclasses import replace

from srpha.core.connections.attempts import Attempts, BackOff
from srpha.core.connections.pairs import Pair, PairStatus
from srpha.core.connections.reconcile import Judgements, LocalPort, Plan, Policy, reconcile
from srpha.core.discovery.inventory import Inventory
from srpha.core.discovery.scan_result import DmAgent, IoUnit, Reach, ScanResult, ScanStatistics, SrpService, Standing
from srpha.core.recovery.remote_port import RemotePortState, RemotePortTimers
from srpha.core.seams import Connection, LinkLayer, LinkState, PortIdentity
from srpha.core.targets.add_target import address_gid
from srpha.core.targets.rules import Rules
from srpha.core.targets.static_targets import StaticTarget, parse_static_target
from srpha.core.targets.target_port import InitiatorExt, InitiatorExtMode
from srpha.wire.identifiers import Gid

ID = "0002c90300ff0010"
ROCE = "its link layer is Ethernet, not InfiniBand"
ONE = parse_static_target(f"id_ext={ID},ioc_guid={ID},dest=192.0.2.1:5555", name="one")
TWO = parse_static_target(f"id_ext={ID},ioc_guid={ID},dest=192.0.2.2:5555", name="two")
IB = parse_static_target(
    f"id_ext={ID},ioc_guid={ID},dgid={'fe80' + '0' * 12}0002c90300ff0011,pkey=ffff,service_id={ID}"
)


def identity(device: str = "rxe0") -> PortIdentity:
    gid = address_gid("192.0.2.100")
    return PortIdentity(device, 1, 1, 1, gid, 0, 0, 0, LinkState.ACTIVE, (0xFFFF,), link_layer=LinkLayer.ETHERNET)


def connection(host: int, address: str | None, **more: object) -> Connection:
    made = Connection(
        host=host,
        device="rxe0",
        port=1,
        id_ext=int(ID, 16),
        ioc_guid=int(ID, 16),
        service_id=None,
        pkey=None,
        sgid=Gid(0, 1),
        dgid=None,
        orig_dgid=None,
        remote_port=f"port-{host}:1",
        state=RemotePortState.RUNNING,
        timers=RemotePortTimers(),
        failed_reconnects=0,
        req_lim=62,
        zero_req_lim=0,
        ch_count=1,
        devices=(),
        destination=address_gid(address) if address else None,
    )
    return replace(made, **more)  # type: ignore[arg-type]


def plan(
    targets: Sequence[StaticTarget],
    connections: Sequence[Connection] | None = (),
    *,
    ports: Sequence[LocalPort] = (LocalPort(identity(), ROCE),),
    attempts: Attempts | None = None,
    ours: Collection[int] = (),
    extension: InitiatorExt | None = None,
) -> Plan:
    policy = Policy(static_targets=tuple(targets), initiator_ext=extension or InitiatorExt())
    inventory = Inventory(1.0, 60.0)
    return reconcile(
        ports, inventory, connections, Judgements(policy), attempts or Attempts(BackOff()), ours, now=100.0
    )


def only(made: Plan) -> Pair:
    (pair,) = made.pairs
    assert pair.static
    return pair


def test_a_port_that_can_only_reach_named_targets_is_to_connect_them() -> None:
    one, two = plan([ONE, TWO]).pairs
    assert [one.status, two.status] == [PairStatus.DUE, PairStatus.DUE]
    assert one.line == f"id_ext={ID},ioc_guid={ID},dest=192.0.2.1:5555,initiator_ext=0000ffffc0000201"
    assert one.reason == "named in the configuration"


def test_from_the_ports_it_names_only() -> None:
    target = parse_static_target(f"id_ext={ID},ioc_guid={ID},dest=192.0.2.1:5555", ["rxe1/1"])
    assert plan([target]).pairs == ()
    assert only(plan([target], ports=[LocalPort(identity("rxe1"), ROCE)])).key.local_port == "rxe1/1"


def test_a_link_that_is_down_holds_it_back() -> None:
    pair = only(plan([ONE], ports=[LocalPort(identity(), "the port is down", "the port is down")]))
    assert (pair.status, pair.reason) == (PairStatus.PORT_DOWN, "rxe0/1: the port is down")


def test_unknown_connections_are_not_none() -> None:
    assert only(plan([ONE], None)).status is PairStatus.UNREACHABLE


def test_connections_are_told_apart_by_their_address() -> None:
    one, two = plan([ONE, TWO], [connection(5, "192.0.2.2")], ours=[5]).pairs
    assert (one.status, one.host) == (PairStatus.DUE, None)
    assert (two.status, two.host, two.ours) == (PairStatus.CONNECTED, 5, True)


def test_one_whose_address_is_not_known_may_be_any_of_them_and_none_is_made_twice() -> None:
    made = plan([ONE, TWO], [connection(5, None)])
    assert [(pair.status, pair.host) for pair in made.pairs] == [(PairStatus.CONNECTED, 5)] * 2
    assert made.others == ()


def test_an_infiniband_target_is_not_taken_for_one_over_rdma_cm() -> None:
    made = plan([IB], [connection(5, None), connection(6, "192.0.2.9")])
    assert only(made).status is PairStatus.DUE
    assert [(item.host, item.reason) for item in made.others] == [
        (5, "made over RDMA/CM: its target port is not to be seen"),
        (6, "made over RDMA/CM: the configuration names no target of its address"),
    ]


def test_removal_is_waited_for() -> None:
    pair = only(plan([ONE], [connection(5, "192.0.2.1", removing=True, state=RemotePortState.LOST)]))
    assert pair.status is PairStatus.REMOVING


def test_another_service_in_its_place_is_left_alone() -> None:
    other = connection(5, None, dgid=IB.dgid, orig_dgid=IB.dgid, service_id=7, pkey=0xFFFF)
    assert only(plan([IB], [other])).status is PairStatus.OCCUPIED


def test_failed_logins_wait() -> None:
    attempts = Attempts(BackOff())
    key = ONE.key("rxe0/1", InitiatorExt())
    attempts.started(key)
    assert only(plan([ONE], attempts=attempts)).status is PairStatus.CONNECTING
    attempts.failed(key, errno.ECONNRESET, "refused", 99.0)
    pair = only(plan([ONE], attempts=attempts))
    assert (pair.status, pair.reason, pair.next_attempt) == (PairStatus.BACKING_OFF, "refused", 102.0)
    attempts.hasten(lambda _: True)
    pair = only(plan([ONE], attempts=attempts))
    assert (pair.status, pair.reason) == (PairStatus.DUE, "refused")


def test_the_driver_takes_one_of_two_with_one_initiator_ext() -> None:
    one, two = plan([ONE, TWO], extension=InitiatorExt(InitiatorExtMode.NONE)).pairs
    assert [one.status, two.status] == [PairStatus.DUE, PairStatus.OCCUPIED]


def test_the_configuration_goes_before_discovery() -> None:
    gid = IB.dgid
    service = SrpService(int(ID, 16), ID, int(ID, 16), int(ID, 16), 0x0100, 0, "array")
    unit = IoUnit(gid, 9, 1, "array", Standing.FOUND, DmAgent(9), services=(service,), change_id=1)
    inventory = Inventory(3, 60)
    reach = (Reach("rxe0/1", True, "", {gid.guid: (0xFFFF,)}),)
    inventory.apply(ScanResult("rxe0/1", ("rxe0/1",), (), True, "", (unit,), reach, ScanStatistics()), 1.0)
    refuse_all = Rules(allow_by_default=False)
    for targets, status in (((), PairStatus.DISALLOWED), ((IB,), PairStatus.DUE)):
        policy = Policy(rules=refuse_all, static_targets=targets)
        ports = [LocalPort(identity(), "")]
        made = reconcile(ports, inventory, (), Judgements(policy), Attempts(BackOff()), (), now=100.0)
        (pair,) = made.pairs
        assert (pair.status, pair.static) == (status, bool(targets))
