"""Discovery of SRP targets in one subnet, without I/O (IBA 15.2.5, 16.3; SRP annex B; facts: srp B.2).

One scan serves all local ports of a subnet. The *asker* gets the tables that are the same for all of them (nodes, ports
with a Device Management agent); every *member* asks for its own paths, which tell what it reaches in which partition;
then all units are walked at once. A slow or silent answer costs nobody but whoever depends on it.

The owner sends what :meth:`Scan.questions` gives, hands in what comes, and reads :meth:`Scan.result` when done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from srpha.core.discovery.conversation import Conversations, Question, Reply, Talk
from srpha.core.discovery.dm_walk import Way, walk
from srpha.core.discovery.sa_questions import (
    NoAnswer,
    SaQuestions,
    partitions,
    read_class_port_info,
    read_one,
    read_table,
)
from srpha.core.discovery.scan_result import DmAgent, IoUnit, Reach, ScanResult, Standing
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.core.seams import PortIdentity
from srpha.wire.identifiers import Gid
from srpha.wire.sa import NodeRecord, PathRecord, PortInfoRecord
from srpha.wire.smp import PortInfo

_MAX_WAYS: Final = 2
"""Local ports that ask a unit before it counts as silent."""


@dataclass(slots=True)
class _MemberPaths:
    """What is known of one member's paths so far."""

    port: PortIdentity
    done: bool = False
    failure: NoAnswer | None = None
    pkeys: dict[int, list[int]] = field(default_factory=dict)
    """By port GUID, in the order of the member's table."""
    guid_of_lid: dict[int, Gid] = field(default_factory=dict)
    version: int = 0
    """Moves with every path."""
    _reach: tuple[tuple[int, bool, NoAnswer | None], Reach] | None = None
    """What was told last, and of what: progress tells it again and again."""

    def add(self, pkey: int, record: PathRecord) -> None:
        """Take a path to a port in the partition of the member's ``pkey``."""
        self.version += 1
        known = self.pkeys.setdefault(record.dgid.guid, [])
        if pkey not in known:
            known.append(pkey)
        self.guid_of_lid[record.dlid] = record.dgid

    def reach(self) -> Reach:
        """The result; the paths that did come are told even when others did not."""
        basis = self.version, self.done, self.failure
        if self._reach is not None and self._reach[0] == basis:
            return self._reach[1]
        reason = "" if self.failure is None else self.failure.reason
        reach = Reach(
            self.port.name,
            self.done and self.failure is None,
            reason,
            {guid: tuple(keys) for guid, keys in self.pkeys.items()},
        )
        self._reach = basis, reach
        return reach


class Scan:
    """One scan of one subnet for ``members``, the first of which is the asker.

    ``known`` are units by port GUID: what a walk may be spared for, and what may turn out to be gone. ``now`` is in
    seconds.
    """

    def __init__(
        self, members: Sequence[PortIdentity], known: Mapping[int, IoUnit], settings: ScanSettings, now: float
    ) -> None:
        self._settings = settings
        self._known = dict(known)
        self._talks = Conversations(settings, now)
        self._asker = members[0]
        self._sa = SaQuestions(self._asker, settings)
        self._paths = {port.name: _MemberPaths(port) for port in members}
        self._listed: dict[int, IoUnit] | None = None
        """Units of the subnet by GUID; None while the list is not there."""
        self._failure = ""
        """Why the list is not complete."""
        self._walked: dict[int, IoUnit] = {}
        self._untold: list[IoUnit] = []
        self._unwalked: list[IoUnit] = []
        self._strangers: tuple[str, ...] = ()
        self._asked_singly: set[str] = set()
        self._begin()

    @property
    def done(self) -> bool:
        """All answers are in or given up."""
        return self._talks.done

    @property
    def wake(self) -> float | None:
        """When :meth:`questions` has something new though no answer came; None: not by itself."""
        return self._talks.wake

    @property
    def in_subnet(self) -> bool:
        """Whether the asker got an answer from its subnet administrator."""
        return self._listed is not None

    @property
    def has_news(self) -> bool:
        """Whether a unit was asked to the end since :meth:`news`."""
        return bool(self._untold)

    def questions(self, now: float) -> list[Question]:
        """What to send now. Ask :attr:`done` afterwards: a unit's time may have run out."""
        return self._talks.questions(now)

    def lapsed(self) -> list[int]:
        """Numbers of questions that need no answer any more, each told once."""
        return self._talks.lapsed()

    def answer(self, number: int, reply: Reply, now: float) -> None:
        """Hand in the answer to a question, or None when it got none."""
        self._talks.answer(number, reply, now)
        self._progress()

    def news(self, now: float) -> ScanResult:
        """What was found since the last call: each unit that answered or stayed silent is told once."""
        units, self._untold = self._untold, []
        return self._result(units, now)

    def result(self, now: float) -> ScanResult:
        """What was found until now; final once :attr:`done`. What is still being asked is UNKNOWN."""
        complete = self._complete
        units = list(self._walked.values())
        for guid, unit in self._known.items():
            if guid in self._walked:
                continue
            if complete and guid in (self._listed or {}):
                units.append(replace(unit, standing=Standing.UNKNOWN, reason="its agent is still being asked"))
            elif complete:
                units.append(replace(unit, standing=Standing.GONE, reason="the subnet does not list it any more"))
            else:
                units.append(replace(unit, standing=Standing.UNKNOWN, reason=self._failure or "the scan was cut short"))
        return self._result(units, now)

    @property
    def _complete(self) -> bool:
        return self._listed is not None and not self._failure

    def _result(self, units: Sequence[IoUnit], now: float) -> ScanResult:
        members = [name for name in self._paths if name not in self._strangers]
        return ScanResult(
            asker=self._asker.name,
            members=tuple(members),
            strangers=self._strangers,
            complete=self._complete,
            reason="" if self._complete else self._failure or "the scan was cut short",
            units=tuple(sorted(units, key=lambda unit: unit.guid)),
            reach=tuple(self._paths[name].reach() for name in members),
            statistics=self._talks.statistics(now),
        )

    def _begin(self) -> None:
        self._talks.start(self._survey())
        for paths in self._paths.values():
            self._talks.start(self._all_paths(paths))

    def _survey(self) -> Talk:
        """The list of I/O units: what the SA can do and the nodes, then the ports."""
        replies = yield [self._sa.class_port_info(), self._sa.all_nodes()]
        if replies[0] is None:
            self._failure = "no answer from the subnet administrator"
            return
        ability = read_class_port_info(replies[0])
        match_bits = not isinstance(ability, NoAnswer) and ability.matches_capability_bits
        nodes = read_table(replies[1], NodeRecord)
        if isinstance(ability, NoAnswer) and isinstance(nodes, NoAnswer):
            self._failure = ability.reason  # somebody answers there, but no subnet administrator
            return
        (reply,) = yield [self._sa.io_unit_ports(match_bits=match_bits)]
        ports = read_table(reply, PortInfoRecord)
        if isinstance(ports, NoAnswer) and ports.refused and match_bits:
            (reply,) = yield [self._sa.io_unit_ports(match_bits=False)]
            ports = read_table(reply, PortInfoRecord)
        if isinstance(ports, NoAnswer):
            self._failure = ports.reason
            return
        self._enlist(ports, nodes)

    def _all_paths(self, paths: _MemberPaths) -> Talk:
        """A member's paths, one table per partition."""
        sa = SaQuestions(paths.port, self._settings)
        pkeys = partitions(paths.port)
        replies = yield [sa.all_paths(pkey) for pkey in pkeys]
        for pkey, reply in zip(pkeys, replies, strict=True):
            table = read_table(reply, PathRecord)
            if isinstance(table, NoAnswer):
                paths.failure = table if paths.failure is None or not table.refused else paths.failure
                continue
            for record in table:
                paths.add(pkey, record)
        paths.done = paths.failure is None or not paths.failure.refused

    def _single_paths(self, paths: _MemberPaths, units: Sequence[IoUnit]) -> Talk:
        """The same with one question for each unit and partition, for an SA that does not give the table."""
        sa = SaQuestions(paths.port, self._settings)
        asks = [(unit, pkey) for unit in units for pkey in partitions(paths.port)]
        paths.failure = None
        replies = yield [sa.path(unit.gid, pkey) for unit, pkey in asks]
        for (_, pkey), reply in zip(asks, replies, strict=True):
            record = read_one(reply, PathRecord)
            if isinstance(record, NoAnswer):
                paths.failure = record
            elif record is not None:
                paths.add(pkey, record)
        paths.done = True

    def _enlist(self, ports: Sequence[PortInfoRecord], nodes: Sequence[NodeRecord] | NoAnswer) -> None:
        """Make units of the ports that have an agent. Without the nodes, paths must tell the GUIDs."""
        node_of: dict[int, NodeRecord] = {}
        if isinstance(nodes, NoAnswer):
            self._failure = nodes.reason
        else:
            node_of = {record.lid: record for record in nodes}
            guids = {record.info.port_guid for record in nodes}
            self._strangers = tuple(
                name
                for name, paths in self._paths.items()
                if paths.port.port_guid not in guids and name != self._asker.name
            )
        listed: dict[int, IoUnit] = {}
        for record in ports:
            info = record.info
            if not info.is_device_management_supported:
                continue
            unit = self._unit(record.endport_lid, info, node_of.get(record.endport_lid))
            if unit is None:
                self._failure = self._failure or f"the port with LID {record.endport_lid} has no node record"
            else:
                listed.setdefault(unit.guid, unit)
        self._listed = listed
        self._unwalked = list(listed.values())

    def _unit(self, lid: int, info: PortInfo, node: NodeRecord | None) -> IoUnit | None:
        """The unit at a port; None when its GUID cannot be told."""
        prefix = info.gid_prefix or self._asker.gid.prefix
        if node is not None and node.info.port_guid:
            gid, node_guid, description = Gid(prefix, node.info.port_guid), node.info.node_guid, node.description_text
        else:
            seen = (
                paths.guid_of_lid.get(lid + offset) for paths in self._paths.values() for offset in range(1 << info.lmc)
            )
            found = next((gid for gid in seen if gid is not None), None)
            if found is None:
                return None
            gid, node_guid, description = found, 0, ""
        return IoUnit(gid, lid, node_guid, description, Standing.UNKNOWN, DmAgent(lid))

    def _progress(self) -> None:
        """Start the walks and the single path questions that can start now."""
        if self._listed is None:
            return
        for name, paths in self._paths.items():
            refused = not paths.done and paths.failure is not None and paths.failure.refused
            if refused and name not in self._asked_singly:
                self._asked_singly.add(name)
                self._talks.start(self._single_paths(paths, tuple(self._listed.values())))
        all_done = all(paths.done for name, paths in self._paths.items() if name not in self._strangers)
        waiting = []
        for unit in self._unwalked:
            ways = self._ways(unit, fall_back=all_done)
            if all_done or (ways and ways[0].port.name == self._asker.name):
                self._talks.start(walk(unit, ways, self._known.get(unit.guid), self._settings, self._clock, self._note))
            else:
                waiting.append(unit)
        self._unwalked = waiting

    def _ways(self, unit: IoUnit, *, fall_back: bool) -> tuple[Way, ...]:
        """Members that reach ``unit``; those of unknown reach when there is none and ``fall_back`` is set."""
        usable = [paths for name, paths in self._paths.items() if name not in self._strangers]
        ways = [
            Way(paths.port, paths.pkeys[unit.guid][0]) for paths in usable if paths.done and unit.guid in paths.pkeys
        ]
        if not ways and fall_back:
            ways = [
                Way(paths.port, partitions(paths.port)[0])
                for paths in usable
                if paths.failure is not None and partitions(paths.port)
            ]
        return tuple(ways[:_MAX_WAYS])

    def _note(self, unit: IoUnit) -> None:
        self._walked[unit.guid] = unit
        self._untold.append(unit)

    def _clock(self) -> float:
        return self._talks.now


class UnitCheck(Scan):
    """The same for one port only, named by its GUID or its LID: is it (still) an I/O unit, and what does it offer?"""

    def __init__(
        self,
        members: Sequence[PortIdentity],
        known: Mapping[int, IoUnit],
        settings: ScanSettings,
        now: float,
        *,
        guid: int | None = None,
        lid: int | None = None,
    ) -> None:
        self._subject_guid = guid
        self._subject_lid = lid
        concerned = {key: unit for key, unit in known.items() if key == guid or (guid is None and unit.lid == lid)}
        super().__init__(members, concerned, settings, now)

    def _begin(self) -> None:
        for paths in self._paths.values():
            paths.failure = NoAnswer("the paths were not asked for", refused=True)  # ask singly, once listed
        self._talks.start(self._survey())

    def _survey(self) -> Talk:
        if self._subject_guid is not None:
            ask = self._sa.node_by_guid(self._subject_guid)
        else:
            ask = self._sa.node_by_lid(self._subject_lid or 0)
        (reply,) = yield [ask]
        node = read_one(reply, NodeRecord)
        if isinstance(node, NoAnswer):
            self._failure = node.reason
            return
        if node is None:
            self._listed = {}
            return
        (reply,) = yield [self._sa.port_by_lid(node.lid)]
        port = read_one(reply, PortInfoRecord)
        if isinstance(port, NoAnswer):
            self._failure = port.reason
            return
        self._enlist(() if port is None else (port,), (node,))
        self._strangers = ()
