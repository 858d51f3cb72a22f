"""Desired connections minus actual ones: what to do for each pair of local port and target port, and why.

Nothing here acts; :func:`reconcile` compares values and answers with a :class:`Pair` for each pair it looked at: DUE
is to be connected, CONNECTED and RECOVERING are to be adopted when they are not ours yet, everything else waits or is
left alone for the reason it gives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from srpha.core.add_target import format_target_line, with_options
from srpha.core.attempts import Attempt, Attempts
from srpha.core.inventory import Inventory, TargetStatus
from srpha.core.pairs import OtherConnection, Pair, PairKey, PairStatus
from srpha.core.remote_port import RemotePortState
from srpha.core.rules import Rules, Verdict
from srpha.core.sa_questions import partitions
from srpha.core.scan_result import SrpService, Standing
from srpha.core.seams import Connection, PortIdentity
from srpha.core.target_port import InitiatorExt, TargetPort

__all__ = [
    "LocalPort",
    "OtherConnection",
    "Pair",
    "PairKey",
    "PairStatus",
    "Plan",
    "Policy",
    "reconcile",
]

_HEALTH: Final = {
    RemotePortState.RUNNING: 0,
    RemotePortState.BLOCKED: 1,
    RemotePortState.FAIL_FAST: 2,
    RemotePortState.LOST: 3,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say about logins."""

    rules: Rules = field(default_factory=Rules)
    initiator_ext: InitiatorExt = field(default_factory=InitiatorExt)
    max_imm_data: int | None = None
    """The driver's immediate-data size in bytes when it uses any; a target that takes less gets ``max_it_iu_size``."""


@dataclass(frozen=True, slots=True)
class LocalPort:
    """A local port for the reconciler; ``trouble`` says why it cannot log in now, empty when it can."""

    identity: PortIdentity
    trouble: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome: pairs by key, and the connections that belong to none of them."""

    pairs: tuple[Pair, ...]
    others: tuple[OtherConnection, ...]


def reconcile(
    ports: Sequence[LocalPort],
    inventory: Inventory,
    connections: Sequence[Connection] | None,
    policy: Policy,
    attempts: Attempts,
    ours: Collection[int],
    now: float,
) -> Plan:
    """Compare. ``connections`` None means that they could not be read: then nothing is due. ``ours``: host numbers."""
    pairs = [
        _judge(port, status, service, inventory, connections, policy, attempts, ours, now)
        for port in ports
        for status, service in _services(inventory.targets, port.identity.name)
    ]
    pairs.sort(key=lambda pair: pair.key)
    pairs = list(_one_per_driver_key(pairs))
    taken = {pair.host for pair in pairs}
    local = {port.identity.name for port in ports}
    others = tuple(
        OtherConnection(item.host, _why_other(item, local)) for item in connections or () if item.host not in taken
    )
    return Plan(tuple(pairs), others)


def _services(targets: Iterable[TargetStatus], local_port: str) -> Iterator[tuple[TargetStatus, SrpService]]:
    for status in targets:
        if local_port in status.members or status.standing is Standing.GONE:
            for service in status.unit.services:
                yield status, service


def _judge(
    port: LocalPort,
    status: TargetStatus,
    service: SrpService,
    inventory: Inventory,
    connections: Sequence[Connection] | None,
    policy: Policy,
    attempts: Attempts,
    ours: Collection[int],
    now: float,
) -> Pair:
    """One pair."""
    name, gid = port.identity.name, status.unit.gid
    pkeys = inventory.pkeys(name, gid.guid)
    target, verdict = _choose(service, status, pkeys or partitions(port.identity)[:1] or (0xFFFF,), policy.rules)
    key = PairKey(name, target.id_ext, target.ioc_guid, gid, policy.initiator_ext.of(gid) or 0)
    attempt = attempts.of(key)
    pair = Pair(key, PairStatus.DUE, "to be connected", target, "", failures=attempt.failures)
    if verdict.allowed and pkeys:
        pair = replace(pair, line=_line(target, verdict.options, policy))
    if connections is None:
        return replace(pair, status=PairStatus.UNREACHABLE, reason="the host's connections could not be read")
    present = sorted((c for c in connections if key.names(c)), key=_worth)
    if present:
        return _connected(pair, present[0], verdict, present[0].host in ours)
    return _unconnected(pair, port, status, pkeys, verdict, attempt, now)


def _choose(
    service: SrpService, status: TargetStatus, pkeys: Sequence[int], rules: Rules
) -> tuple[TargetPort, Verdict]:
    """The target port in the first shared partition that the rules allow, else in the first."""
    first: tuple[TargetPort, Verdict] | None = None
    for pkey in pkeys:
        target = service.at(status.unit.gid, pkey)
        verdict = rules.judge(target)
        if verdict.allowed:
            return target, verdict
        first = first or (target, verdict)
    if first is None:
        raise ValueError("a target port is judged in at least one partition")
    return first


def _worth(connection: Connection) -> tuple[bool, int, int]:
    """Sort key: the connection that stands for a pair when several have its identity."""
    return connection.removing, _HEALTH[connection.state], connection.host


def _connected(pair: Pair, connection: Connection, verdict: Verdict, ours: bool) -> Pair:
    """A pair whose connection exists."""
    host = connection.host
    pair = replace(pair, host=host, ours=ours)
    if connection.removing or connection.state is RemotePortState.LOST:
        return replace(pair, status=PairStatus.REMOVING, reason=f"waiting until host{host} is removed")
    difference = _difference(pair.target, connection)
    if difference and not ours:
        return replace(pair, status=PairStatus.OCCUPIED, reason=f"host{host} is left alone: {difference}")
    if not verdict.allowed:
        reason = f"{verdict.reason}; host{host} is connected all the same and is left alone"
        return replace(pair, status=PairStatus.DISALLOWED, reason=reason)
    if connection.state is RemotePortState.RUNNING:
        return replace(pair, status=PairStatus.CONNECTED, reason=f"host{host} is running")
    word = "is blocked" if connection.state is RemotePortState.BLOCKED else "fails its I/O at once"
    delay = connection.timers.reconnect_delay
    then = "the driver does not reconnect (reconnect_delay is off)" if delay is None else f"reconnects every {delay} s"
    return replace(pair, status=PairStatus.RECOVERING, reason=f"host{host} {word}; {then}")


def _difference(target: TargetPort, connection: Connection) -> str:
    """In what a connection of the same identity is not what we would have made."""
    if connection.service_id is not None and connection.service_id != target.service_id:
        return f"its service ID is {connection.service_id:016x}, not {target.service_id:016x}"
    if connection.pkey is not None and (connection.pkey ^ target.pkey) & 0x7FFF:
        return f"its P_Key is {connection.pkey:04x}, not {target.pkey:04x}"
    return ""


def _unconnected(
    pair: Pair,
    port: LocalPort,
    status: TargetStatus,
    pkeys: Sequence[int] | None,
    verdict: Verdict,
    attempt: Attempt,
    now: float,
) -> Pair:
    """A pair without a connection: why it must wait, or DUE."""
    name = port.identity.name
    if attempt.under_way:
        return replace(pair, status=PairStatus.CONNECTING, reason="a login is under way")
    if port.trouble:
        return replace(pair, status=PairStatus.PORT_DOWN, reason=f"{name}: {port.trouble}")
    if status.standing is Standing.GONE:
        return replace(pair, status=PairStatus.TARGET_LEFT, reason=status.unit.reason)
    if pkeys is None:
        return replace(pair, status=PairStatus.UNREACHABLE, reason=f"the paths of {name} are not known yet")
    if not pkeys:
        reason = f"the subnet has no path from {name} in a partition that both are in"
        return replace(pair, status=PairStatus.UNREACHABLE, reason=reason)
    if not verdict.allowed:
        return replace(pair, status=PairStatus.DISALLOWED, reason=verdict.reason)
    if status.standing is Standing.SILENT:
        return replace(pair, status=PairStatus.TARGET_SILENT, reason=status.unit.reason)
    if attempt.next_at > now:
        return replace(pair, status=PairStatus.BACKING_OFF, reason=attempt.reason, next_attempt=attempt.next_at)
    return replace(pair, reason=attempt.reason or verdict.reason)


def _line(target: TargetPort, options: Mapping[str, int], policy: Policy) -> str:
    """The ``add_target`` line, options in the order of the rule (facts: srp A.4)."""
    line = target.line(policy.initiator_ext, options)
    limit = target.send_message_size
    if policy.max_imm_data is not None and 0 < limit < policy.max_imm_data:
        line = with_options(line, {"max_it_iu_size": limit})
    return format_target_line(line, [name for name in options if name != "tl_retry_count"])


def _one_per_driver_key(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Let one pair of each driver key through; with a fixed initiator_ext others would only get EEXIST."""
    pairs = list(pairs)
    holders: dict[tuple[str, int, int, int], Pair] = {}
    for pair in sorted(pairs, key=_claim):
        holders.setdefault(pair.key.driver_key, pair)
    for pair in pairs:
        holder = holders[pair.key.driver_key]
        if pair is holder or pair.host is not None or pair.status is not PairStatus.DUE:
            yield pair
        else:
            reason = (
                f"initiator_ext {pair.key.initiator_ext:016x} allows one connection per local port and target; "
                f"target port {holder.key.dgid.guid:016x} has it"
            )
            yield replace(pair, status=PairStatus.OCCUPIED, reason=reason, line="")


def _claim(pair: Pair) -> tuple[bool, bool, PairKey]:
    """Sort key: who holds a driver key that several pairs want."""
    willing = pair.status in (PairStatus.DUE, PairStatus.CONNECTING, PairStatus.BACKING_OFF)
    return pair.host is None, not willing, pair.key


def _why_other(connection: Connection, local_ports: Collection[str]) -> str:
    if connection.orig_dgid is None and connection.dgid is None:
        return "made over RDMA/CM: its target port is not to be seen"
    if connection.local_port not in local_ports:
        return f"its local port {connection.local_port} is not looked after"
    return "discovery knows no such target port"
