"""Runs the daemon's parts over all user MAD devices of this host, and tells what they see, a line of JSON each.

Started by the lab under the umad shim. Commands come line by line on stdin: ``scan``, or ``burst`` for several hundred
questions at once; at its end the program ends. ``--subscribe`` subscribes to notices, ``--mute`` leaves them
unanswered, ``--brisk`` waits for the SA half a second.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping

from srpha.core.discovery.sa_questions import SaQuestions, read_one
from srpha.core.discovery.scan_result import ScanResult, Standing
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.core.seams import MadPort, MadPortGoneError
from srpha.core.targets.add_target import format_target_line
from srpha.daemon.scanner import Member, scan_subnet, subnets, trouble_of
from srpha.daemon.settings import Settings
from srpha.daemon.subscriptions import Subscriptions
from srpha.kernel.ports import find_ports
from srpha.kernel.umad import UmadPort
from srpha.wire.notice import CapabilityTrap144, GidTrap, Trap
from srpha.wire.sa import NodeRecord


def tell(kind: str, **values: object) -> None:
    sys.stdout.write(json.dumps({"kind": kind, **values}) + "\n")
    sys.stdout.flush()


def tell_identity(port: MadPort) -> None:
    try:
        identity = port.identity()
    except MadPortGoneError as error:
        tell("identity", port=port.name, trouble=str(error))
    else:
        pkeys = [pkey for pkey in identity.pkeys if pkey]
        tell(
            "identity",
            port=port.name,
            trouble=trouble_of(identity),
            guid=identity.port_guid,
            lid=identity.lid,
            sm_lid=identity.sm_lid,
            pkeys=pkeys,
        )


def tell_trap(name: str, trap: Trap) -> None:
    if isinstance(trap, GidTrap):
        tell("trap", port=name, number=int(trap.number), guid=trap.gid.guid)
    elif isinstance(trap, CapabilityTrap144):
        tell("trap", port=name, number=144, lid=trap.lid)


def lines_of(result: ScanResult, settings: Settings) -> Mapping[str, list[str]]:
    """``add_target`` lines by local port, one for each service, partition and port of a target."""
    found: dict[str, list[str]] = {}
    for reach in result.reach:
        found[reach.local_port] = [
            format_target_line(service.at(unit.gid, pkey).line(settings.initiator_ext))
            for unit in result.units
            if unit.standing is Standing.FOUND
            for pkey in reach.pkeys.get(unit.guid, ())
            for service in unit.services
        ]
    return found


async def scan(ports: tuple[UmadPort, ...], settings: Settings) -> None:
    members = [Member(port, port.identity()) for port in ports if not trouble_of(port.identity())]
    for group in subnets(members):
        for result in await scan_subnet(group, lambda _: {}, settings.scan, lambda _: None):
            statistics = result.statistics
            tell(
                "scan",
                asker=result.asker,
                members=result.members,
                strangers=result.strangers,
                complete=result.complete,
                reason=result.reason,
                units={f"{unit.guid:016x}": unit.standing.value for unit in result.units},
                lines=lines_of(result, settings),
                queries=statistics.queries,
                round_trips=statistics.round_trips,
                duration=statistics.duration,
            )
    tell("scanned", subnets=len(subnets(members)))


async def burst(port: UmadPort, settings: Settings) -> None:
    """Ask for the node at every LID up to 500 at once, and tell which answers name the LID asked for."""
    questions = SaQuestions(port.identity(), settings.scan)

    async def node_at(lid: int) -> object:
        ask = questions.node_by_lid(lid)
        record = read_one(await port.transact(ask.address, ask.mad, timeout=5.0, retries=2), NodeRecord)
        return record.lid if isinstance(record, NodeRecord) else record

    answers = await asyncio.gather(*(node_at(lid) for lid in range(1, 501)))
    tell(
        "burst",
        right=[lid for lid, answer in enumerate(answers, 1) if answer == lid],
        absent=sum(answer is None for answer in answers),
    )


async def main() -> None:
    settings = Settings(scan=ScanSettings(sa_timeout=0.5, sa_retries=0)) if "--brisk" in sys.argv else Settings()
    ports = tuple(UmadPort(port.device, port.port) for port in find_ports())
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(port.run()) for port in ports]
        for port in ports:
            if "--mute" in sys.argv:
                port.reply = lambda address, mad: None  # type: ignore[method-assign]
            port.watch(lambda port=port: tell_identity(port))
            if "--subscribe" in sys.argv:
                subscriptions = Subscriptions(port, lambda: settings, tell_trap, lambda: tell("subscribed"))
                port.watch(subscriptions.renew)
                tasks.append(group.create_task(subscriptions.run()))
        tell("ports", names=[port.name for port in ports])
        while command := (await stdin.readline()).decode().strip():
            if command == "scan":
                await scan(ports, settings)
            if command == "burst":
                await burst(ports[0], settings)
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main())
