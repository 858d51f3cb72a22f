"""srp_daemon without ``-o``: the supervisor of the daemon, restricted to the port or ports of the command line."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from srpha.cli.dropin_flags import Flags, configuration_report
from srpha.cli.dropin_lock import port_lock
from srpha.cli.dropin_output import Output
from srpha.cli.dropin_ports import choose_ports
from srpha.cli.dropin_rules import read_rules
from srpha.cli.dropin_world import DropinWorld, HostError
from srpha.core.compat.srp_daemon_listing import unit_listing
from srpha.core.connections.pairs import Pair, PairStatus
from srpha.core.discovery.scan_result import Standing
from srpha.core.events import Event, EventKind, Severity
from srpha.core.seams import LinkLayer, MadPort, MadPortGoneError
from srpha.core.targets.rules import Rule, Rules, RuleSyntaxError
from srpha.core.targets.target_port import InitiatorExt, InitiatorExtMode
from srpha.daemon.settings import Settings
from srpha.daemon.supervisor import Supervisor

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
_PORTS_POLL: Final = 5.0
"""Seconds between looks for ports while a host that is to serve all of them has none."""
_SETTLE_POLL: Final = 0.05
_SETTLE_POLLS: Final = 100
"""Looks before targets are printed though something is still under way."""
_CONNECTED: Final = (PairStatus.CONNECTED, PairStatus.RECOVERING, PairStatus.OCCUPIED)
_SHOWN: Final = (
    PairStatus.DUE,
    PairStatus.CONNECTING,
    PairStatus.BACKING_OFF,
    PairStatus.REMOVING,
    PairStatus.PORT_DOWN,
)


async def serve(
    flags: Flags,
    rules: Rules,
    world: DropinWorld,
    output: Output,
    run_directory: Path,
    *,
    signals: asyncio.Queue[int] | None = None,
) -> int:
    """Work until SIGINT or SIGTERM; minus that signal's number. Raises :class:`HostError`.

    SIGHUP reads the rules file again (one that is wrong leaves the old rules in force), SIGUSR1 asks for a full scan.
    ``signals`` stands in for the process's own.
    """
    async with AsyncExitStack() as stack:
        if signals is None:
            signals = await stack.enter_async_context(_own_signals())
        names = await _wait_for_ports(flags, world, signals)
        if isinstance(names, int):
            return names
        ports = []
        for device, number in names:
            stack.enter_context(port_lock(device, number, run_directory))
            port = await stack.enter_async_context(world.mad_port(device, number, keep=True))
            _check(port, device, number)
            ports.append(port)
            if flags.verbose:
                output.result(configuration_report(flags, device, number, os.getpid()))
        initiator = await stack.enter_async_context(world.initiator())
        settings = settings_of(flags, rules, world.max_imm_data())
        printer = Printer(flags, output)
        supervisor = Supervisor(ports, initiator, None, settings, printer.take)
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(supervisor.run()), group.create_task(printer.run(supervisor))]
            while True:
                number = await signals.get()
                if number == signal.SIGHUP:
                    settings = _reloaded(flags, settings, output)
                    supervisor.apply(settings)
                elif number == signal.SIGUSR1:
                    supervisor.rescan()
                else:
                    break
            for worker in workers:
                worker.cancel()
        return -number


def settings_of(flags: Flags, rules: Rules, max_imm_data: int | None) -> Settings:
    """The daemon's settings that a command line stands for."""
    defaults = Settings()
    return replace(
        defaults,
        rules=with_tl_retry_count(rules, flags.tl_retry_count),
        initiator_ext=InitiatorExt(InitiatorExtMode.DGID if flags.initiator_ext else InitiatorExtMode.NONE),
        scan=flags.scan_settings,
        scan_interval=defaults.scan_interval if flags.rescan is None else float(flags.rescan),
        max_imm_data=max_imm_data,
        connect=flags.execute,
    )


def with_tl_retry_count(rules: Rules, count: int | None) -> Rules:
    """``rules`` with ``-l`` added to every login whose rule says nothing of ``tl_retry_count``."""
    if count is None:
        return rules
    options = {"tl_retry_count": count}
    made = [replace(rule, options={**options, **rule.options}) if rule.allow else rule for rule in rules.rules]
    if rules.allow_by_default:
        made.append(Rule(True, {}, options))
    return replace(rules, rules=tuple(made))


class Printer:
    """Prints what srp_daemon prints while it runs: each full scan's listing or lines, or the lines it connects with."""

    def __init__(self, flags: Flags, output: Output) -> None:
        self._flags = flags
        self._output = output
        self._scanned = asyncio.Event()

    def take(self, event: Event) -> None:
        """The supervisor's event sink."""
        if event.kind is EventKind.CONNECTING:
            if self._flags.commands:
                self._output.result(f"{event.fields.get('line', '')}\n")
        elif event.kind in (EventKind.SCAN_FINISHED, EventKind.SCAN_FAILED):
            self._scanned.set()
        if event.severity in (Severity.WARNING, Severity.ERROR):
            self._output.error(event.text)
        else:
            self._output.debug(event.text)

    async def run(self, supervisor: Supervisor) -> None:
        """Print after every full scan until cancelled."""
        while True:
            await self._scanned.wait()
            self._scanned.clear()
            for _ in range(_SETTLE_POLLS):
                if supervisor.snapshot().settled:
                    break
                await asyncio.sleep(_SETTLE_POLL)
            self._print(supervisor)

    def _print(self, supervisor: Supervisor) -> None:
        snapshot = supervisor.snapshot()
        if self._flags.listing:
            for status in snapshot.targets:
                if status.standing is Standing.FOUND:
                    self._output.result(unit_listing(status.unit, slots=self._flags.verbose))
        elif self._flags.commands:
            for line in self._wanted(snapshot.pairs):
                self._output.result(f"{line}\n")

    def _wanted(self, pairs: Iterable[Pair]) -> Iterable[str]:
        for pair in pairs:
            # With -e a line was printed when its login began.
            fresh = pair.status in _SHOWN and not self._flags.execute
            if pair.line and (fresh or (pair.status in _CONNECTED and self._flags.everything)):
                yield pair.line


def _reloaded(flags: Flags, settings: Settings, output: Output) -> Settings:
    try:
        rules = read_rules(flags, output)
    except (HostError, RuleSyntaxError) as error:
        output.error(f"{error}; the rules in force stay")
        return settings
    return replace(settings, rules=with_tl_retry_count(rules, flags.tl_retry_count))


def _check(port: MadPort, device: str, number: int) -> None:
    """A port may be down, it will come; one that is not there or cannot be an InfiniBand port is an error."""
    try:
        identity = port.identity()
    except MadPortGoneError as error:
        raise HostError(f"port {number} of {device} cannot be used: {error}") from error
    if identity.link_layer is not LinkLayer.INFINIBAND:
        raise HostError(f"port {number} of {device} has link layer {identity.link_layer.value}, not InfiniBand")


async def _wait_for_ports(
    flags: Flags, world: DropinWorld, signals: asyncio.Queue[int]
) -> Sequence[tuple[str, int]] | int:
    """The ports to serve, or minus the signal that came first. Only ``--all-ports`` waits for a first one to appear."""
    while True:
        try:
            return await choose_ports(flags, world)
        except HostError:
            if not flags.all_ports:
                raise
        try:
            async with asyncio.timeout(_PORTS_POLL):
                number = await signals.get()
        except TimeoutError:
            continue
        if number in (signal.SIGINT, signal.SIGTERM):
            return -number


@asynccontextmanager
async def _own_signals() -> AsyncGenerator[asyncio.Queue[int], None]:
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[int] = asyncio.Queue()
    for number in SIGNALS:
        loop.add_signal_handler(number, queue.put_nowait, number)
    try:
        yield queue
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
