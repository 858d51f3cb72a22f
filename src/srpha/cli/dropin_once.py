"""One scan of srp_daemon or ibsrpdm: print what is found, log in if asked to, and say by the result how it went."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from srpha.cli.dropin_flags import Flags
from srpha.cli.dropin_output import Output
from srpha.cli.dropin_world import DropinWorld
from srpha.core.compat.srp_daemon_listing import (
    NO_TARGETS,
    LineStyle,
    complaints,
    connection_line,
    is_connected,
    sightings,
    unit_listing,
)
from srpha.core.discovery.scan_result import ScanResult
from srpha.core.seams import AddTargetError, Connection, Initiator, InitiatorError, MadPortGoneError
from srpha.core.targets.rules import Rules
from srpha.core.targets.target_port import InitiatorExt, InitiatorExtMode, TargetPort
from srpha.daemon.scanner import Member, scan_subnet, subnets, trouble_of


def line_style(flags: Flags, world: DropinWorld) -> LineStyle:
    """How the lines of this command look."""
    return LineStyle(
        initiator_ext=InitiatorExt(InitiatorExtMode.DGID if flags.initiator_ext else InitiatorExtMode.NONE),
        tl_retry_count=flags.tl_retry_count if flags.execute else None,
        max_imm_data=world.max_imm_data(),
    )


async def scan_once(
    flags: Flags, rules: Rules, world: DropinWorld, ports: Sequence[tuple[str, int]], output: Output
) -> bool:
    """Scan for ``ports`` (device and number) and do what ``flags`` say. Whether everything went well.

    A target that stays silent is reported and does not count as a failure, as with srp_daemon; a port that cannot ask,
    an answer of the subnet administrator that did not come and a refused login do.
    """
    well = True
    async with AsyncExitStack() as stack:
        members: list[Member] = []
        for device, number in ports:
            port = await stack.enter_async_context(world.mad_port(device, number, keep=False))
            try:
                identity = port.identity()
            except MadPortGoneError as error:
                trouble = str(error)
            else:
                trouble = trouble_of(identity)
            if trouble:
                output.error(f"port {number} of {device} cannot be used: {trouble}")
                well = False
            else:
                members.append(Member(port, identity))
        async with asyncio.TaskGroup() as group:
            scans = [
                group.create_task(scan_subnet(subnet, lambda _: {}, flags.scan_settings, lambda _: None))
                for subnet in subnets(members)
            ]
        result_of = {name: result for scan in scans for result in scan.result() for name in result.members}
        initiator = None
        connections: tuple[Connection, ...] = ()
        if flags.execute or not (flags.everything or flags.listing):
            initiator = await stack.enter_async_context(world.initiator())
            try:
                connections = await initiator.connections()
            except InitiatorError as error:
                output.error(f"existing connections could not be read: {error}")
                well = False
                initiator = None
        style = line_style(flags, world)
        visits = [
            _Visit(flags, rules, style, member.identity.name, result_of[member.identity.name], connections, output)
            for member in members
        ]
        for visit in visits:
            visit.show()
        async with asyncio.TaskGroup() as group:
            rounds = [group.create_task(visit.go(initiator)) for visit in visits]
        return all([well, *(item.result() for item in rounds)])


@dataclass(slots=True)
class _Visit:
    """What one local port's scan found, and what is done about it."""

    flags: Flags
    rules: Rules
    style: LineStyle
    local_port: str
    result: ScanResult
    connections: tuple[Connection, ...]
    output: Output

    def show(self) -> None:
        """The human listing, if wanted, and what went wrong."""
        for sentence in complaints(self.result, self.local_port):
            self.output.error(sentence)
        if self.flags.verbose and self.result.complete and not self.result.units:
            self.output.result(NO_TARGETS)
        if self.flags.listing:
            for sighting in sightings(self.result, self.local_port):
                self.output.result(unit_listing(sighting.unit, slots=self.flags.verbose))

    async def go(self, initiator: Initiator | None) -> bool:
        """Print lines and log in, as far as wanted, target by target; whether the scan was whole and no login failed.

        Without ``initiator`` nothing is connected.
        """
        flags = self.flags
        well = self.result.complete and all(
            reach.known for reach in self.result.reach if reach.local_port == self.local_port
        )
        if flags.listing:
            return well
        made: set[TargetPort] = set()
        for sighting in sightings(self.result, self.local_port):
            for target in sighting.targets:
                verdict = self.rules.judge(target)
                self.output.debug(f"{self.local_port} -> {target.name}, P_Key {target.pkey:04x}: {verdict.reason}")
                if not verdict.allowed:
                    continue
                there = self._anywhere(target) in made or is_connected(
                    target, self.connections, self.local_port, any_pkey=flags.execute
                )
                if there and not flags.everything:
                    self.output.debug(f"{self.local_port} -> {target.name}: already connected")
                    continue
                line = connection_line(target, verdict, self.style)
                if flags.commands:
                    self.output.result(line + "\n")
                if flags.execute and not there:
                    connected = await self._log_in(initiator, target, line)
                    if connected:
                        made.add(self._anywhere(target))
                    well = well and connected
        return well

    @staticmethod
    def _anywhere(target: TargetPort) -> TargetPort:
        """The target port without its partition: one connection serves all of them."""
        return TargetPort(target.id_ext, target.ioc_guid, target.dgid, target.service_id, 0)

    async def _log_in(self, initiator: Initiator | None, target: TargetPort, line: str) -> bool:
        if initiator is None:
            return False
        try:
            await initiator.add_target(self.local_port, line)
        except AddTargetError as error:
            self.output.error(f"{self.local_port} -> {target.name}: {error}")
            return error.errno == errno.EEXIST  # connected it is, though not by this line
        except InitiatorError as error:
            self.output.error(f"{self.local_port} -> {target.name}: {error}")
            return False
        self.output.debug(f"{self.local_port} -> {target.name}: connected")
        return True
