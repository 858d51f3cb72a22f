"""Hosts for the drop-in commands, in memory: their ports and their initiator, and what the commands said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fake_seams import FakeInitiator, FakeMadPort

from scripted_subnet import ScriptedSubnet, local_port, srp_unit
from srpha.cli.dropin_flags import parse_flags
from srpha.cli.dropin_output import Output
from srpha.cli.dropin_run import run_dropin
from srpha.cli.dropin_world import HostError, LocalPort
from srpha.core.seams import Initiator, MadPort
from srpha.embedded.world import EmbeddedHost


@dataclass
class Said:
    """Everything that was said, and an :class:`Output` that notes it."""

    results: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    debug: list[str] = field(default_factory=list)

    @property
    def output(self) -> Output:
        return Output(self.results.append, self.errors.append, self.debug.append)

    @property
    def lines(self) -> list[str]:
        return "".join(self.results).splitlines()


class FakeHost:
    """A :class:`DropinWorld` over fake seams: ``ports`` local ports and ``targets`` targets in one subnet."""

    def __init__(self, ports: int = 1, targets: int = 2) -> None:
        identities = [local_port(number) for number in range(1, ports + 1)]
        self.subnet = ScriptedSubnet(ports=identities, units=[srp_unit(n) for n in range(1, targets + 1)])
        self.mad_ports = {identity.name: FakeMadPort(identity, self.subnet) for identity in identities}
        self.fake_initiator = FakeInitiator(tuple(self.mad_ports))
        self.initiators = 0
        self.imm_data: int | None = None
        self.trouble = ""
        self.hidden = False

    def ports(self) -> Sequence[LocalPort]:
        if self.trouble:
            raise HostError(self.trouble)
        if self.hidden:
            return ()
        names = [name.split("/") for name in self.mad_ports]
        return [LocalPort(device, int(port), f"umad{index}") for index, (device, port) in enumerate(names)]

    @asynccontextmanager
    async def mad_port(self, device: str, port: int, *, keep: bool) -> AsyncGenerator[MadPort, None]:
        name = f"{device}/{port}"
        if name in self.mad_ports:
            yield self.mad_ports[name]
        else:
            absent = FakeMadPort(local_port(99), self.subnet)
            absent.current = None
            yield absent

    @asynccontextmanager
    async def initiator(self) -> AsyncGenerator[Initiator, None]:
        self.initiators += 1
        yield self.fake_initiator

    def max_imm_data(self) -> int | None:
        return self.imm_data


class EmbeddedDropinHost:
    """A :class:`DropinWorld` over a host of the embedded world."""

    def __init__(self, host: EmbeddedHost) -> None:
        self._host = host

    def ports(self) -> Sequence[LocalPort]:
        names = [port.name.split("/") for port in self._host.mad_ports]
        return [LocalPort(device, int(port), f"umad{index}") for index, (device, port) in enumerate(names)]

    @asynccontextmanager
    async def mad_port(self, device: str, port: int, *, keep: bool) -> AsyncGenerator[MadPort, None]:
        yield next(item for item in self._host.mad_ports if item.name == f"{device}/{port}")

    @asynccontextmanager
    async def initiator(self) -> AsyncGenerator[Initiator, None]:
        yield self._host.initiator

    def max_imm_data(self) -> int | None:
        return None


async def run(host: FakeHost | EmbeddedDropinHost, words: str, rules: Path | None = None) -> tuple[int, Said]:
    """Run ``words`` (a program and its arguments); its exit code and what it said."""
    program, *arguments = words.split()
    if program != "ibsrpdm":
        arguments += ["-f", str(rules or "/nonexistent/srp_daemon.conf")]
    said = Said()
    async with asyncio.timeout(600):
        code = await run_dropin(parse_flags(program, arguments), host, said.output, Path("/nonexistent"))
    return code, said
