"""The host's supervisor: keeps every local port connected to every target that the rules allow.

Three loops run beside the ports' own: one scans (:mod:`srpha.daemon.scan_scheduler`), one re-reads the host's
connections and maps, one decides. Hints only make them run earlier. Connections survive the supervisor's end; the next
one adopts them.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Collection, Mapping, Sequence

from srpha.core.connections.attempts import Attempts
from srpha.core.connections.pairs import Pair, PairKey, PairStatus
from srpha.core.connections.reconcile import Judgements, LocalPort, Plan, reconcile
from srpha.core.discovery.dm_walk import Way
from srpha.core.discovery.inventory import Inventory
from srpha.core.discovery.scan_result import ScanResult, Standing
from srpha.core.events import Event, EventKind, EventSink, Severity
from srpha.core.recovery.remote_port import RemotePortState
from srpha.core.seams import Connection, Initiator, MadPort, PathManager
from srpha.daemon.connector import Login, LoginOutcome
from srpha.daemon.drains import DrainReport, Drains
from srpha.daemon.guard import Guard
from srpha.daemon.host_reader import HostReader
from srpha.daemon.port_agent import PortAgent, PortChange
from srpha.daemon.scan_records import ScanRecords
from srpha.daemon.scan_scheduler import ScanScheduler, Subject
from srpha.daemon.scanner import Member
from srpha.daemon.settings import Settings
from srpha.daemon.snapshot import PortStatus, Snapshot
from srpha.daemon.upkeep import Upkeep
from srpha.wire.notice import CapabilityTrap144, GidTrap, Trap

_READ_GAP = 0.02
"""Least seconds between two readings of the host, so that a burst of hints costs few."""


class Supervisor:
    """Joins discovery, initiator and path manager of one host. ``path_manager`` None: no multipath is looked at."""

    def __init__(
        self,
        mad_ports: Sequence[MadPort],
        initiator: Initiator,
        path_manager: PathManager | None,
        settings: Settings,
        events: EventSink,
    ) -> None:
        self._settings = settings
        self._events = events
        self._initiator = initiator
        self._path_manager = path_manager
        self._inventory = Inventory(settings.probe_interval, settings.scan_interval)
        self._attempts = Attempts(settings.back_off)
        self._judgements = Judgements(settings.policy)
        self._reader = HostReader(initiator, path_manager, events)
        self._drains = Drains(initiator, path_manager, events)
        self._guard = None if path_manager is None else Guard(path_manager, events)
        self._scheduler = ScanScheduler(self._members, self._inventory, self._current, self)
        self._agents = {port.name: self._agent(port) for port in mad_ports}
        self._other_ports = asyncio.Event()
        self._plan = Plan((), ())
        self._basis: tuple[tuple[LocalPort, ...], int, int, frozenset[int]] | None = None
        """What the plan was made of, with the two below: compared to spare making it again."""
        self._compared: tuple[Connection, ...] | None = None
        self._judged_by = self._judgements
        self._ours: set[int] = set()
        self._outcomes: list[LoginOutcome] = []
        self._hinted: set[str] = set()
        self._records = ScanRecords(self._inventory, self._hasten_target, events)
        self._upkeep = Upkeep(initiator, events)
        self._stir = asyncio.Event()
        self._stale = asyncio.Event()
        self._now = 0.0

    async def run(self) -> None:
        """Work until cancelled. Connections stay when it ends."""
        unwatches = [self._initiator.watch(self._stale.set)]
        if self._path_manager is not None:
            unwatches.append(self._path_manager.watch(self._stale.set))
        try:
            async with asyncio.TaskGroup() as group:
                self._refresh_ports()
                group.create_task(self._serve_ports())
                group.create_task(self._scheduler.run())
                group.create_task(self._read_loop())
                group.create_task(self._decide_loop())
        finally:
            for unwatch in unwatches:
                unwatch()

    def snapshot(self) -> Snapshot:
        """The state now; cheap, at any time."""
        pending = (PairStatus.DUE, PairStatus.CONNECTING, PairStatus.REMOVING)
        usable = {name for name, agent in self._agents.items() if not agent.trouble}
        busy = any(
            pair.status in pending and (self._settings.connect or pair.status is not PairStatus.DUE)
            for pair in self._plan.pairs
        )
        return Snapshot(
            time=self._now,
            ports=tuple(
                PortStatus(
                    agent.name,
                    agent.identity,
                    not agent.trouble,
                    agent.trouble,
                    agent.subscribed,
                    self._drains.holds(agent.name),
                )
                for agent in self._agents.values()
            ),
            targets=self._inventory.targets,
            pairs=self._plan.pairs,
            others=self._plan.others,
            connections=self._reader.connections,
            maps=self._reader.maps,
            scans=self._records.scans,
            totals=self._records.totals,
            troubles=tuple(text for text in (self._reader.connections_trouble, self._reader.maps_trouble) if text),
            settled=not busy
            and not self._outcomes
            and self._scheduler.idle
            and usable <= self._records.scanned
            and self._reader.connections is not None,
        )

    def rescan(self) -> None:
        """Ask for a full scan soon."""
        self._scheduler.want_scan(self._agents)

    def set_ports(self, mad_ports: Sequence[MadPort]) -> None:
        """Have these local ports from now on. One that is not among them is looked after no longer.

        Its connections stay, as its targets do: what happens to them is the driver's affair.
        """
        before = self._agents
        self._agents = {}
        for port in mad_ports:
            agent = before.get(port.name)
            self._agents[port.name] = agent if agent is not None and agent.port is port else self._agent(port)
        for name, agent in before.items():
            if self._agents.get(name) is not agent:
                self._forget_port(agent)
        self._records.keep(self._agents)
        self._other_ports.set()
        self._stale.set()
        self._stir.set()

    def apply(self, settings: Settings) -> None:
        """Take other settings from now on; what is connected stays."""
        self._settings = settings
        self._attempts.back_off = settings.back_off
        self._judgements = Judgements(settings.policy)
        self._inventory.probe_delays(settings.probe_interval, settings.scan_interval)
        self._stale.set()
        self._stir.set()

    @property
    def drained(self) -> Mapping[str, Collection[str]]:
        """Drained ports, and the maps that were named to be left without a path for each."""
        return self._drains.drained

    def restore_drains(self, drained: Mapping[str, Collection[str]]) -> None:
        """Have these ports drained, as a daemon before this one had."""
        self._drains.restore(drained)

    async def drain(self, port: str, force: Collection[str] = ()) -> DrainReport:
        """Move I/O away from a local port and log in from it no more, until :meth:`resume`.

        ``force`` names maps that may lose their last path by it. Raises
        :class:`~srpha.daemon.drains.DrainRefusedError`.
        """
        report = await self._drains.drain(port, self._agents, force)
        self._stale.set()
        self._stir.set()
        return report

    async def resume(self, port: str) -> DrainReport:
        """Use a drained port again. Raises :class:`~srpha.daemon.drains.DrainRefusedError`."""
        report = await self._drains.resume(port)
        self._attempts.hasten(lambda key: key.local_port == port)
        self._stale.set()
        self._stir.set()
        return report

    @property
    def ours(self) -> Collection[int]:
        """Hosts of the connections that this daemon has made or adopted."""
        return frozenset(self._ours)

    # --- what scans say (ScanListener) ---

    def scan_progress(self, result: ScanResult) -> None:
        """Part of a scan: targets that answered are connected while others are still silent."""
        self._records.progress(result, self._time())
        self._stir.set()

    def scan_finished(self, result: ScanResult) -> None:
        """A scan is over."""
        self._records.finished(result, self._time())
        self._attempts.keep({pair.key for pair in self._plan.pairs})
        self._stale.set()
        self._stir.set()

    def check_finished(self, subject: Subject, result: ScanResult) -> None:
        """A check of one port is over."""
        self._records.checked(result, self._time())
        self._stale.set()
        self._stir.set()

    def _hasten_target(self, guid: int) -> None:
        self._attempts.hasten(lambda key: key.dgid.guid == guid)

    # --- ports and notices ---

    def _agent(self, port: MadPort) -> PortAgent:
        def hint() -> None:
            self._hinted.add(port.name)
            self._stir.set()

        def look() -> None:
            self._scheduler.want_scan([port.name])

        return PortAgent(
            port, self._initiator, self._current, hint, self._trap, look, self._still_wanted, self._outcome
        )

    async def _serve_ports(self) -> None:
        """Have one agent run for every port there is."""
        async with asyncio.TaskGroup() as group:
            serving: dict[PortAgent, asyncio.Task[None]] = {}
            while True:
                self._other_ports.clear()
                present = tuple(self._agents.values())
                for agent in [agent for agent in serving if agent not in present]:
                    serving.pop(agent).cancel()
                for agent in present:
                    if agent not in serving:
                        serving[agent] = group.create_task(agent.run())
                await self._other_ports.wait()

    def _forget_port(self, agent: PortAgent) -> None:
        self._records.unsettle(agent.name)
        self._hinted.discard(agent.name)
        # a login that was under way is nobody's now
        self._attempts.forget(lambda key: key.local_port == agent.name)
        if agent.identity is not None:
            text = f"{agent.name} is down: it is not there any more"
            self._event(EventKind.PORT_DOWN, Severity.WARNING, agent.name, text)

    def _members(self) -> tuple[Member, ...]:
        return tuple(agent.member for agent in self._agents.values() if agent.member is not None)

    def _trap(self, local_port: str, trap: Trap) -> None:
        if isinstance(trap, GidTrap):
            text = f"port {trap.gid.guid:016x} {'came into' if trap.in_service else 'went out of'} service"
            fields: dict[str, str | int | float | bool] = {"trap": int(trap.number), "guid": f"{trap.gid.guid:016x}"}
        elif isinstance(trap, CapabilityTrap144):
            text, fields = f"the port with LID {trap.lid} changed its capabilities", {"trap": 144, "lid": trap.lid}
        else:
            return
        self._event(EventKind.NOTICE, Severity.INFO, local_port, f"notice to {local_port}: {text}", fields)
        self._scheduler.take_trap(local_port, trap)

    def _refresh_ports(self) -> None:
        """Read all identities; act on what changed and on hints that name no change (a re-registration)."""
        hinted, self._hinted = self._hinted, set()
        for agent in self._agents.values():
            change = agent.refresh()
            if change is not None:
                self._port_changed(agent, change)
            elif agent.name in hinted and not agent.trouble:
                agent.renew()
                self._scheduler.want_scan([agent.name])

    def _port_changed(self, agent: PortAgent, change: PortChange) -> None:
        name = agent.name
        if change.went_up:
            self._event(EventKind.PORT_UP, Severity.NOTICE, name, f"{name} is up: {change.text}")
        elif change.went_down:
            self._event(EventKind.PORT_DOWN, Severity.WARNING, name, f"{name} is down: {change.text}")
        elif change.moved:
            self._event(EventKind.PORT_CHANGED, Severity.NOTICE, name, f"{name} changed: {change.text}")
        if change.went_up or change.moved:
            self._records.unsettle(name)
            self._scheduler.want_scan([name])
        if not agent.link_trouble:
            self._attempts.hasten(lambda key: key.local_port == name)
        self._stale.set()

    # --- deciding ---

    async def _decide_loop(self) -> None:
        while True:
            self._stir.clear()
            self._refresh_ports()
            self._decide()
            now = self._time()
            due = [pair.next_attempt for pair in self._plan.pairs if pair.next_attempt is not None]
            try:
                async with asyncio.timeout_at(min([now + self._settings.poll_interval, *due])):
                    await self._stir.wait()
            except TimeoutError:
                pass

    def _decide(self) -> None:
        """Compare desired and actual, start the logins that are due."""
        before = self._plan
        self._adopt()
        if self._plan is not before:
            self._tell_refused(before)
        due = [pair for pair in self._plan.pairs if pair.status is PairStatus.DUE]
        if self._settings.connect:
            for pair in due:
                self._log_in(pair)
        if due:
            self._plan = self._compare()

    def _tell_refused(self, before: Plan) -> None:
        refused = (PairStatus.DISALLOWED, PairStatus.OCCUPIED)
        known = {pair.key: pair.status for pair in before.pairs}
        for pair in self._plan.pairs:
            if pair.status in refused and known.get(pair.key) is not pair.status:
                text = f"{pair.name} is not connected: {pair.reason}"
                self._event(EventKind.TARGET_REFUSED, Severity.INFO, pair.name, text)

    def _compare(self) -> Plan:
        """The plan for now; the one before while nothing has changed that it depends on."""
        served = set(self._initiator.ports())
        ports = tuple(
            LocalPort(
                agent.identity,
                agent.trouble or unserved,
                agent.link_trouble or unserved,
                self._drains.holds(agent.name),
            )
            for agent in self._agents.values()
            if agent.identity is not None
            for unserved in ["" if agent.name in served else "no SRP initiator serves it"]
        )
        now = self._time()
        connections = self._reader.connections
        basis = (ports, self._inventory.version, self._attempts.version, frozenset(self._ours))
        same = basis == self._basis and connections is self._compared and self._judgements is self._judged_by
        if same and not any(pair.next_attempt is not None and pair.next_attempt <= now for pair in self._plan.pairs):
            return self._plan
        self._basis, self._compared, self._judged_by = basis, connections, self._judgements
        return reconcile(ports, self._inventory, connections, self._judgements, self._attempts, self._ours, now)

    def _log_in(self, pair: Pair) -> None:
        agent = self._agents[pair.key.local_port]
        status = self._inventory.target(pair.key.dgid.guid)
        if agent.identity is None or (status is None and not pair.static):
            return
        login = Login(pair.key, pair.line, None, None)
        if status is not None and not pair.static:
            login = Login(pair.key, pair.line, Way(agent.identity, pair.target.pkey), status.unit.agent)
        self._attempts.started(pair.key)
        self._event(EventKind.CONNECTING, Severity.INFO, pair.name, f"{pair.name}: connecting", {"line": pair.line})
        agent.connector.submit(login)

    def _still_wanted(self, key: PairKey) -> bool:
        """Whether a login that waited for its turn makes sense now."""
        status = self._inventory.target(key.dgid.guid)
        agent = self._agents.get(key.local_port)
        if agent is None or self._drains.holds(key.local_port) or not self._settings.connect:
            return False
        if any(key.names(item) for item in self._reader.connections or ()):
            return False
        if any(pair.static and pair.key == key for pair in self._plan.pairs):
            return not agent.link_trouble
        return not agent.trouble and status is not None and status.standing is Standing.FOUND

    def _outcome(self, outcome: LoginOutcome) -> None:
        self._outcomes.append(outcome)
        self._stale.set()

    # --- reading ---

    async def _read_loop(self) -> None:
        while True:
            self._stale.clear()
            await self._read()
            await asyncio.sleep(_READ_GAP)
            changing = any(pair.status in (PairStatus.REMOVING, PairStatus.CONNECTING) for pair in self._plan.pairs)
            pause = self._settings.removal_poll if changing else self._settings.poll_interval
            try:
                async with asyncio.timeout(pause):
                    await self._stale.wait()
            except TimeoutError:
                pass

    async def _read(self) -> None:
        """Read the host once and act on it."""
        outcomes, self._outcomes = self._outcomes, []
        known = await self._reader.read_connections(self._time(), lambda fresh: self._settle(fresh, outcomes))
        if not known:
            self._outcomes = outcomes + self._outcomes
        self._stir.set()
        maps_known = await self._reader.read_maps(self._time())
        if known:
            changed = await self._upkeep.set_timers(self._plan.pairs, self._reader.connections or (), self._settings)
            if self._settings.remove_departed:
                gone = {t.unit.guid for t in self._inventory.targets if t.standing is Standing.GONE}
                changed |= await self._upkeep.remove_departed(self._plan.pairs, gone)
            if changed:
                self._stale.set()
        if known and maps_known and self._guard is not None and self._settings.fail_suspect_paths:
            suspects, healthy = self._suspicions()
            if await self._guard.act(self._reader.maps or (), suspects, healthy):
                self._stale.set()
        if known and maps_known and await self._drains.act(self._reader.maps or (), self._reader.connections or ()):
            self._stale.set()

    def _settle(self, fresh: tuple[Connection, ...], outcomes: Sequence[LoginOutcome]) -> Collection[int]:
        """Close logins that ended, adopt what is as we would have made it; hosts that need no event of their own."""
        hosts = {item.host for item in fresh}
        self._ours &= hosts
        under_way = self._attempts.under_way
        keys = [pair.key for pair in self._plan.pairs if pair.key in under_way] if under_way else []
        logging_in = {item.host for key in keys for item in fresh if key.names(item)}
        for outcome in outcomes:
            self._close(outcome, fresh)
        self._adopt()
        return self._ours | logging_in

    def _adopt(self) -> None:
        """Compare, and take as ours what is as we would have made it."""
        self._plan = self._compare()
        adopted = False
        for pair in self._plan.pairs:
            host = pair.host
            if host is None or host in self._ours or pair.status not in (PairStatus.CONNECTED, PairStatus.RECOVERING):
                continue
            if self._attempts.of(pair.key).under_way:
                continue
            adopted = True
            self._ours.add(host)
            self._attempts.succeeded(pair.key)
            text = f"{pair.name}: host{host} is adopted, it is as srpha would have made it"
            self._event(EventKind.CONNECTION_ADOPTED, Severity.INFO, pair.name, text, {"host": host})
        if adopted:
            self._plan = self._compare()
            self._stale.set()

    def _close(self, outcome: LoginOutcome, fresh: Sequence[Connection]) -> None:
        """What a login's end means, now that the connections have been read again."""
        key = outcome.login.key
        name = next((pair.name for pair in self._plan.pairs if pair.key == key), key.local_port)
        alive = [
            item for item in fresh if key.names(item) and not item.removing and item.state is not RemotePortState.LOST
        ]
        if outcome.errno == errno.ECANCELED:
            self._attempts.cancelled(key)
            return
        if outcome.errno == 0 and alive:
            host = max(item.host for item in alive)
            self._ours.add(host)
            self._attempts.succeeded(key)
            text = f"{name}: connected as host{host}"
            self._event(EventKind.CONNECTED, Severity.NOTICE, name, text, {"host": host})
            return
        if alive:  # EEXIST and the like: adopted below when it is as it should be
            self._attempts.succeeded(key)
            return
        code, message = outcome.errno, outcome.message
        if code == 0:
            code, message = errno.ENOTCONN, "logged in, but the connection was gone when it was looked for"
        attempt = self._attempts.failed(key, code, message, self._time())
        self._inventory.doubt(key.dgid.guid)
        if attempt.failures:
            wait = attempt.next_at - self._time()
            text = f"{name}: login failed: {message}; next try in {wait:.0f} s"
            symbol = errno.errorcode.get(code, str(code))
            fields: dict[str, str | int | float | bool] = {"errno": symbol, "failures": attempt.failures}
            self._event(EventKind.CONNECT_FAILED, Severity.WARNING, name, text, fields)

    def _suspicions(self) -> tuple[dict[int, str], set[int]]:
        """Connections with positive evidence against them and why, and those that are healthy all over."""
        suspects: dict[int, str] = {}
        healthy: set[int] = set()
        static = {pair.host for pair in self._plan.pairs if pair.static}
        for item in self._reader.connections or ():
            if item.host not in self._ours:
                continue
            dgid = item.orig_dgid or item.dgid
            status = None if dgid is None else self._inventory.target(dgid.guid)
            agent = self._agents.get(item.local_port)
            trouble = "" if agent is None else agent.link_trouble if item.host in static else agent.trouble
            if trouble:
                suspects[item.host] = f"{item.local_port}: {trouble}"
            elif status is not None and status.standing is Standing.GONE:
                suspects[item.host] = f"target port {status.unit.guid:016x} left the subnet"
            elif item.removing or item.state is not RemotePortState.RUNNING:
                state = "being removed" if item.removing else item.state.value
                suspects[item.host] = f"host{item.host} is {state}"
            elif (status is None or status.standing is Standing.FOUND) and not self._drains.holds(item.local_port):
                healthy.add(item.host)
        return suspects, healthy

    # --- small things ---

    def _current(self) -> Settings:
        return self._settings

    def _time(self) -> float:
        self._now = asyncio.get_running_loop().time()
        return self._now

    def _event(
        self,
        kind: EventKind,
        severity: Severity,
        subject: str,
        text: str,
        fields: dict[str, str | int | float | bool] | None = None,
    ) -> None:
        self._events(Event(self._time(), kind, severity, subject, text, fields or {}))
