"""Scans and checks carried out over MadPorts: one scan per subnet, shared by all local ports in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from srpha.core.discovery.conversation import Question
from srpha.core.discovery.sa_questions import partitions
from srpha.core.discovery.scan import Scan, UnitCheck
from srpha.core.discovery.scan_result import IoUnit, ScanResult
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.core.seams import LinkLayer, LinkState, MadError, MadPort, PortIdentity
from srpha.wire.identifiers import LID_UNICAST_MAX

_ASKERS_TRIED = 3
"""Local ports that try to reach a silent subnet administrator before a scan fails."""

_PROGRESS_GAP = 0.02
"""Least seconds between two tellings of what is new: each has its listener compare and decide."""

Knowledge: TypeAlias = Callable[[Collection[str]], Mapping[int, IoUnit]]
"""Gives the known units of the local ports named."""
Progress: TypeAlias = Callable[[ScanResult], None]
"""Hears what is new while a scan goes on; each unit that answered or stayed silent is told once."""


@dataclass(frozen=True, slots=True)
class Member:
    """A local port that takes part in scans."""

    port: MadPort
    identity: PortIdentity


def trouble_of(identity: PortIdentity) -> str:
    """Why a port can neither scan nor log in; empty when it can."""
    if identity.link_layer is not LinkLayer.INFINIBAND:
        return f"its link layer is {identity.link_layer.value}, not InfiniBand"
    if identity.state is not LinkState.ACTIVE:
        return f"the port is {identity.state.value}"
    if not 0 < identity.lid <= LID_UNICAST_MAX:
        return "it has no LID"
    if not 0 < identity.sm_lid <= LID_UNICAST_MAX:
        return "it has no subnet manager"
    if not partitions(identity):
        return "its P_Key table is empty"
    return ""


def link_trouble_of(identity: PortIdentity) -> str:
    """Why a port can log in to no target at all, however it is known; empty when it can."""
    return "" if identity.state is LinkState.ACTIVE else f"the port is {identity.state.value}"


def subnets(members: Iterable[Member]) -> tuple[tuple[Member, ...], ...]:
    """Members by what looks like the same subnet: prefix, SM and partitions (what an SA shows depends on those)."""
    groups: dict[tuple[int, int, tuple[int, ...]], list[Member]] = {}
    for member in members:
        identity = member.identity
        key = identity.gid.prefix, identity.sm_lid, tuple(sorted(partitions(identity)))
        groups.setdefault(key, []).append(member)
    return tuple(tuple(group) for group in groups.values())


async def scan_subnet(
    members: Sequence[Member], known: Knowledge, settings: ScanSettings, progress: Progress
) -> tuple[ScanResult, ...]:
    """Scan for all of ``members``: once if they are in one subnet, again for those that turn out to be in another."""
    results: list[ScanResult] = []
    waiting = [tuple(members)]
    while waiting:
        group = waiting.pop()
        result = await _scan_once(group, known, settings, progress)
        results.append(result)
        if result.strangers:
            waiting.append(tuple(member for member in group if member.identity.name in result.strangers))
    return tuple(results)


async def check_unit(
    members: Sequence[Member],
    known: Mapping[int, IoUnit],
    settings: ScanSettings,
    *,
    guid: int | None = None,
    lid: int | None = None,
) -> ScanResult:
    """Ask about one port only; another member asks when the first gets no answer from the subnet administrator."""
    for turn in range(min(len(members), _ASKERS_TRIED)):
        order = [*members[turn:], *members[:turn]]
        check = UnitCheck([m.identity for m in order], known, settings, _now(), guid=guid, lid=lid)
        await _drive(check, order, None)
        if check.in_subnet:
            break
    return check.result(_now())


async def _scan_once(
    members: Sequence[Member], known: Knowledge, settings: ScanSettings, progress: Progress
) -> ScanResult:
    """One scan; another member takes over the asking when the first gets no answer."""
    names = [member.identity.name for member in members]
    for turn in range(min(len(members), _ASKERS_TRIED)):
        order = [*members[turn:], *members[:turn]]
        scan = Scan([member.identity for member in order], known(names), settings, _now())
        await _drive(scan, order, progress)
        if scan.in_subnet:
            break
    return scan.result(_now())


async def _drive(scan: Scan, members: Sequence[Member], progress: Progress | None) -> None:
    """Send a scan's questions and hand it the answers until it is done."""
    ports = {member.identity.name: member.port for member in members}
    loop = asyncio.get_running_loop()
    news = asyncio.Event()
    asking: dict[int, asyncio.Task[None]] = {}
    told_at = -_PROGRESS_GAP

    async def put(question: Question) -> None:
        ask = question.ask
        try:
            reply: bytes | None = await ports[ask.port].transact(
                ask.address, ask.mad, timeout=ask.timeout, retries=ask.retries
            )
        except MadError:
            reply = None
        asking.pop(question.number, None)
        scan.answer(question.number, reply, loop.time())
        news.set()

    async with asyncio.TaskGroup() as group:
        while True:
            news.clear()
            for question in scan.questions(loop.time()):
                asking[question.number] = group.create_task(put(question))
            for number in scan.lapsed():
                if (task := asking.pop(number, None)) is not None:
                    task.cancel()
            wake = scan.wake
            if progress is not None and scan.has_news:
                if scan.done or loop.time() >= told_at + _PROGRESS_GAP:
                    told_at = loop.time()
                    progress(scan.news(told_at))
                else:
                    wake = told_at + _PROGRESS_GAP if wake is None else min(wake, told_at + _PROGRESS_GAP)
            if scan.done:
                break
            try:
                async with asyncio.timeout_at(wake):
                    await news.wait()
            except TimeoutError:
                pass


def _now() -> float:
    return asyncio.get_running_loop().time()
