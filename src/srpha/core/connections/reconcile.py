"""Desired connections minus actual ones: what to do for each pair of local port and target port, and why.

Nothing here acts; :func:`reconcile` compares values and answers with a :class:`Pair` for each pair it looked at: DUE
is to be connected, CONNECTED and RECOVERING are to be adopted when they are not ours yet, everything else waits or is
left alone for the reason it gives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from srpha.core.connections.attempts import Attempt, Attempts
from srpha.core.connections.pairs import ConnectionIdentity, OtherConnection, Pair, PairKey, PairStatus, identity_of
from srpha.core.discovery.inventory import Inventory, TargetStatus
from srpha.core.discovery.sa_questions import partitions
from srpha.core.discovery.scan_result import SrpService, Standing
from srpha.core.recovery.remote_port import RemotePortState
from srpha.core.seams import Connection, PortIdentity
from srpha.core.targets.add_target import format_target_line, with_options
from srpha.core.targets.rules import Rules, Verdict
from srpha.core.targets.static_targets import StaticTarget
from srpha.core.targets.target_port import InitiatorExt, TargetPort
from srpha.wire.identifiers import PKEY_DEFAULT_FULL, Gid

__all__ = [
    "Judgements",
    "LocalPort",
    "OtherConnection",
    "Pair",
    "PairKey",
    "PairStatus",
    "Plan",
    "Policy",
    "TargetRules",
    "reconcile",
]

_REMEMBERED: Final = 65536
"""Judgements kept; more are those of targets that are long gone."""
_NAMED: Final = Verdict(True, "named in the configuration")
_HEALTH: Final = {
    RemotePortState.RUNNING: 0,
    RemotePortState.BLOCKED: 1,
    RemotePortState.FAIL_FAST: 2,
    RemotePortState.LOST: 3,
}


class TargetRules(Protocol):
    """Rules over target ports."""

    def judge(self, target: TargetPort, local_port: str) -> Verdict:
        """Whether ``target`` may be connected from ``local_port`` (``device/port``), why, and with which options."""
        ...


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say about logins."""

    rules: TargetRules = field(default_factory=Rules)
    initiator_ext: InitiatorExt = field(default_factory=InitiatorExt)
    max_imm_data: int | None = None
    """The driver's immediate-data size in bytes when it uses any; a target that takes less gets ``max_it_iu_size``."""
    static_targets: tuple[StaticTarget, ...] = ()
    """Connected beside those that discovery finds; the rules do not speak of them."""


@dataclass(frozen=True, slots=True)
class LocalPort:
    """A local port for the reconciler.

    ``trouble`` says why it cannot log in now to what discovery finds, ``link_trouble`` why to no target at all; empty
    when it can. A port of Ethernet, or without a subnet manager, has the first only.
    """

    identity: PortIdentity
    trouble: str
    link_trouble: str = ""
    drained: bool = False
    """No new login from it until it is resumed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome: pairs by key, and the connections that belong to none of them."""

    pairs: tuple[Pair, ...]
    others: tuple[OtherConnection, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the settings make of a service at a port GID: the target port, the rules' verdict, the login's line."""

    target: TargetPort
    verdict: Verdict
    line: str
    """Empty when the rules say no."""


class Judgements:
    """Judgements under one policy, each made once: a host asks for the same ones every few seconds."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._made: dict[tuple[str, SrpService, Gid, tuple[int, ...]], Judgement] = {}

    def of(self, local_port: str, service: SrpService, gid: Gid, pkeys: tuple[int, ...]) -> Judgement:
        """Judge a service in the first of ``pkeys`` that the rules allow, else in the first (at least one is given)."""
        key = local_port, service, gid, pkeys
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= _REMEMBERED:
                self._made.clear()
            made = self._made[key] = self._judge(local_port, service, gid, pkeys)
        return made

    def _judge(self, local_port: str, service: SrpService, gid: Gid, pkeys: tuple[int, ...]) -> Judgement:
        targets = [service.at(gid, pkey) for pkey in pkeys]
        verdicts = [self.policy.rules.judge(target, local_port) for target in targets]
        index = next((index for index, verdict in enumerate(verdicts) if verdict.allowed), 0)
        target, verdict = targets[index], verdicts[index]
        return Judgement(target, verdict, _line(target, verdict.options, self.policy) if verdict.allowed else "")


def reconcile(
    ports: Sequence[LocalPort],
    inventory: Inventory,
    connections: Sequence[Connection] | None,
    judgements: Judgements,
    attempts: Attempts,
    ours: Collection[int],
    now: float,
) -> Plan:
    """Compare. ``connections`` None means that they could not be read: then nothing is due. ``ours``: host numbers."""
    present: dict[ConnectionIdentity, list[Connection]] = {}
    for item in connections or ():
        present.setdefault(identity_of(item), []).append(item)
    pairs = []
    named: set[PairKey] = set()
    for port in ports:
        for static in judgements.policy.static_targets:
            if static.fits(port.identity.name):
                pair = _judge_static(port, static, judgements.policy, connections, present, attempts, ours, now)
                pairs.append(pair)
                named.add(pair.key)
        for status, service in _services(inventory.targets, port.identity.name):
            pkeys = inventory.pkeys(port.identity.name, status.unit.guid)
            judgement = judgements.of(
                port.identity.name,
                service,
                status.unit.gid,
                pkeys or partitions(port.identity)[:1] or (PKEY_DEFAULT_FULL,),
            )
            target = judgement.target
            extension = judgements.policy.initiator_ext.of(target.dgid) or 0
            key = PairKey(port.identity.name, target.id_ext, target.ioc_guid, target.dgid, extension)
            if key in named:
                continue
            attempt = attempts.of(key)
            candidates = present.get(key.connection_identity, [])
            host: int | None = None
            if connections is None:
                standing = PairStatus.UNREACHABLE, "the host's connections could not be read"
            elif candidates:
                best = min(candidates, key=_worth)
                host = best.host
                standing = _connected(best, target, judgement.verdict, host in ours)
            else:
                standing = _unconnected(port, status, pkeys, judgement.verdict, attempt, now)
            pairs.append(
                Pair(
                    key=key,
                    status=standing[0],
                    reason=standing[1],
                    target=target,
                    line=judgement.line if pkeys else "",
                    host=host,
                    failures=attempt.failures,
                    next_attempt=attempt.next_at if standing[0] is PairStatus.BACKING_OFF else None,
                    ours=host in ours,
                )
            )
    pairs.sort(key=lambda pair: pair.key)
    pairs = list(_one_per_driver_key(pairs))
    taken = {pair.host for pair in pairs}
    local = {port.identity.name for port in ports}
    others = tuple(
        OtherConnection(item.host, _why_other(item, local)) for item in connections or () if item.host not in taken
    )
    return Plan(tuple(pairs), others)


def _judge_static(
    port: LocalPort,
    static: StaticTarget,
    policy: Policy,
    connections: Sequence[Connection] | None,
    present: Mapping[ConnectionIdentity, Sequence[Connection]],
    attempts: Attempts,
    ours: Collection[int],
    now: float,
) -> Pair:
    """The pair with a target that the configuration names."""
    key = static.key(port.identity.name, policy.initiator_ext)
    attempt = attempts.of(key)
    candidates = present.get(key.connection_identity, ())
    if not candidates and static.line.uses_rdma_cm:
        # A connection whose address nobody knows may be this one: rather one too few than a second one.
        candidates = present.get((key.local_port, key.id_ext, key.ioc_guid, None), ())
    host: int | None = None
    if connections is None:
        standing = PairStatus.UNREACHABLE, "the host's connections could not be read"
    elif candidates:
        best = min(candidates, key=_worth)
        host = best.host
        standing = _connected(best, static.target, _NAMED, host in ours)
    elif attempt.under_way:
        standing = PairStatus.CONNECTING, "a login is under way"
    elif port.drained:
        standing = PairStatus.DRAINED, _drained(port)
    elif port.link_trouble:
        standing = PairStatus.PORT_DOWN, f"{port.identity.name}: {port.link_trouble}"
    elif attempt.next_at > now:
        standing = PairStatus.BACKING_OFF, attempt.reason
    else:
        standing = PairStatus.DUE, attempt.reason or _NAMED.reason
    return Pair(
        key=key,
        status=standing[0],
        reason=standing[1],
        target=static.target,
        line=format_target_line(static.login(policy.initiator_ext)),
        host=host,
        failures=attempt.failures,
        next_attempt=attempt.next_at if standing[0] is PairStatus.BACKING_OFF else None,
        ours=host in ours,
        static=True,
    )


def _services(targets: Iterable[TargetStatus], local_port: str) -> Iterator[tuple[TargetStatus, SrpService]]:
    for status in targets:
        if local_port in status.members or status.standing is Standing.GONE:
            for service in status.unit.services:
                yield status, service


def _worth(connection: Connection) -> tuple[bool, int, int]:
    """Sort key: the connection that stands for a pair when several have its identity."""
    return connection.removing, _HEALTH[connection.state], connection.host


def _connected(connection: Connection, target: TargetPort, verdict: Verdict, ours: bool) -> tuple[PairStatus, str]:
    """Status and reason of a pair whose connection exists."""
    host = connection.host
    if connection.removing or connection.state is RemotePortState.LOST:
        return PairStatus.REMOVING, f"waiting until host{host} is removed"
    difference = _difference(target, connection)
    if difference and not ours:
        return PairStatus.OCCUPIED, f"host{host} is left alone: {difference}"
    if not verdict.allowed:
        return PairStatus.DISALLOWED, f"{verdict.reason}; host{host} is connected all the same and is left alone"
    if connection.state is RemotePortState.RUNNING:
        return PairStatus.CONNECTED, f"host{host} is running"
    word = "is blocked" if connection.state is RemotePortState.BLOCKED else "fails its I/O at once"
    delay = connection.timers.reconnect_delay
    then = "the driver does not reconnect (reconnect_delay is off)" if delay is None else f"reconnects every {delay} s"
    return PairStatus.RECOVERING, f"host{host} {word}; {then}"


def _difference(target: TargetPort, connection: Connection) -> str:
    """In what a connection of the same identity is not what we would have made."""
    if connection.service_id is not None and connection.service_id != target.service_id:
        return f"its service ID is {connection.service_id:016x}, not {target.service_id:016x}"
    if connection.pkey is not None and (connection.pkey ^ target.pkey) & 0x7FFF:
        return f"its P_Key is {connection.pkey:04x}, not {target.pkey:04x}"
    return ""


def _unconnected(
    port: LocalPort,
    status: TargetStatus,
    pkeys: Sequence[int] | None,
    verdict: Verdict,
    attempt: Attempt,
    now: float,
) -> tuple[PairStatus, str]:
    """Status and reason of a pair without a connection: why it must wait, or DUE."""
    name = port.identity.name
    if attempt.under_way:
        return PairStatus.CONNECTING, "a login is under way"
    if port.drained:
        return PairStatus.DRAINED, _drained(port)
    if port.trouble:
        return PairStatus.PORT_DOWN, f"{name}: {port.trouble}"
    if status.standing is Standing.GONE:
        return PairStatus.TARGET_LEFT, status.unit.reason
    if pkeys is None:
        return PairStatus.UNREACHABLE, f"the paths of {name} are not known yet"
    if not pkeys:
        return PairStatus.UNREACHABLE, f"the subnet has no path from {name} in a partition that both are in"
    if not verdict.allowed:
        return PairStatus.DISALLOWED, verdict.reason
    if status.standing is Standing.SILENT:
        return PairStatus.TARGET_SILENT, status.unit.reason
    if attempt.next_at > now:
        return PairStatus.BACKING_OFF, attempt.reason
    return PairStatus.DUE, attempt.reason or verdict.reason


def _drained(port: LocalPort) -> str:
    name = port.identity.name
    return f"{name} is drained; 'srpha resume {name}' ends that"


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
    if connection.local_port not in local_ports:
        return f"its local port {connection.local_port} is not looked after"
    if connection.orig_dgid is None and connection.dgid is None:
        if connection.destination is not None:
            return "made over RDMA/CM: the configuration names no target of its address"
        return "made over RDMA/CM: its target port is not to be seen"
    return "discovery knows no such target port"
