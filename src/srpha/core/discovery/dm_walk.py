"""The Device Management walk of one I/O unit: unit, controllers, services (IBA 16.3.3; SRP annex B.7; facts: srp B.2).

What a unit says is a stranger's word: only services that are fit for an ``add_target`` line come out as such, the
others as sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, TypeVar

from srpha.core.discovery.conversation import Ask, Race, Reply, Talk
from srpha.core.discovery.scan_result import Controller, DmAgent, IoUnit, SrpService, Standing
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.core.seams import MadAddress, PortIdentity
from srpha.wire.class_port_info import ClassPortInfo
from srpha.wire.dm import (
    DM_DATA,
    ENTRIES_PER_MAD,
    SRP_SERVICE_PREFIX,
    DmAttribute,
    DmStatus,
    IoControllerProfile,
    IoUnitInfo,
    ServiceEntry,
    dm_request,
    read_dm_header,
    read_io_controller_profile,
    read_io_unit_info,
    read_service_entries,
    service_entries_modifier,
)
from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import PKEY_MEMBERSHIP
from srpha.wire.mad import MadStatus, ManagementClass, Method, describe_status
from srpha.wire.srp_ports import IO_CLASS_REV10, IO_CLASS_REV16A

K = TypeVar("K")

_BUSY: Final = int(MadStatus.BUSY)
_REDIRECT: Final = int(MadStatus.REDIRECT)
_REFUSED_KEPT: Final = 16
"""Sentences kept per unit: a unit with thousands of bad names must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to a unit: the local port that asks and the P_Key of its table that it shares with the unit."""

    port: PortIdentity
    pkey: int

    def address(self, agent: DmAgent) -> MadAddress:
        """Where to send a question to ``agent``."""
        pkey = self.pkey if agent.pkey is None else agent.pkey
        index = pkey_index(self.port.pkeys, pkey)
        return MadAddress(
            lid=agent.lid,
            qpn=agent.qpn,
            qkey=agent.qkey,
            sl=agent.sl,
            pkey_index=pkey_index(self.port.pkeys, self.pkey) or 0 if index is None else index,
        )


def pkey_index(table: Sequence[int], pkey: int) -> int | None:
    """Index of the partition of ``pkey`` in a P_Key table, a full membership before a limited one."""
    limited: int | None = None
    for index, own in enumerate(table):
        if (own ^ pkey) & 0x7FFF == 0 and own & 0x7FFF:
            if own & PKEY_MEMBERSHIP:
                return index
            if limited is None:
                limited = index
    return limited


def aliveness_question(way: Way, agent: DmAgent, timeout: float, retries: int) -> Ask:
    """The question that any living Device Management agent answers."""
    mad = dm_request(Method.GET, DmAttribute.IO_UNIT_INFO, transaction_id=0)
    return Ask(way.port.name, way.address(agent), mad, timeout, retries)


def is_sign_of_life(reply: Reply) -> bool:
    """Whether a reply comes from a Device Management agent, be it a refusal."""
    if reply is None:
        return False
    try:
        return read_dm_header(reply).is_response
    except DecodeError:
        return False


def walk(
    unit: IoUnit,
    ways: Sequence[Way],
    known: IoUnit | None,
    settings: ScanSettings,
    clock: Callable[[], float],
    done: Callable[[IoUnit], None],
) -> Talk:
    """Ask ``unit`` for its services, over that of ``ways`` which gets the first answer; ``done`` hears the outcome.

    When IOUnitInfo still has the change ID of ``known``, its services stand and no further question is asked. A unit
    that was found before is not called silent in haste.
    """
    if not ways:
        done(replace(unit, standing=Standing.SILENT, reason="no local port has a path to it"))
        return
    attempts = [_Walk(unit, way, known, settings, clock) for way in ways]
    patient = known is not None and known.standing is Standing.FOUND
    replies = yield Race(tuple(attempt.first_question() for attempt in attempts), patient)
    for attempt, reply in zip(attempts, replies, strict=True):
        if reply is not None:
            done((yield from attempt.run(reply)))
            return
    names = " and ".join(way.port.name for way in ways)
    reason = f"no answer from its Device Management agent, asked from {names}"
    done(replace(unit, standing=Standing.SILENT, reason=reason))


def srp_service(profile: IoControllerProfile, entry: ServiceEntry) -> SrpService | None:
    """The SRP service that ``entry`` of a controller is; None when its name or the controller's class is not SRP's."""
    id_ext = entry.id_ext
    if id_ext is None or profile.io_class not in (IO_CLASS_REV16A, IO_CLASS_REV10):
        return None
    return SrpService(
        id_ext=id_ext,
        id_ext_text=entry.name[len(SRP_SERVICE_PREFIX) : len(SRP_SERVICE_PREFIX) + 16].decode("ascii"),
        ioc_guid=profile.guid,
        service_id=entry.service_id,
        io_class=profile.io_class,
        send_message_size=profile.send_message_size,
        description=profile.id_text,
    )


class _Walk:
    """One attempt over one way."""

    def __init__(
        self, unit: IoUnit, way: Way, known: IoUnit | None, settings: ScanSettings, clock: Callable[[], float]
    ) -> None:
        self._unit = unit
        self._way = way
        self._known = known
        self._settings = settings
        self._clock = clock
        self._deadline = 0.0
        self._agent = unit.agent
        self._refused: list[str] = []
        self._missing = ""
        self._info: IoUnitInfo | None = None
        self._controllers: tuple[Controller, ...] = ()

    def first_question(self) -> Ask:
        """IOUnitInfo."""
        return self._ask(DmAttribute.IO_UNIT_INFO)

    def run(self, reply: bytes) -> Generator[Sequence[Ask], list[Reply], IoUnit]:
        """Go on after the answer to the first question."""
        self._deadline = self._clock() + self._settings.unit_time
        redirected = yield from self._redirected(reply)
        if redirected is None:
            return self._silent(f"no answer from where its agent redirects to, asked from {self._way.port.name}")
        reply = redirected
        try:
            header = read_dm_header(reply)
            if header.status:
                return self._silent(f"refuses: {describe_status(ManagementClass.DEVICE_MGMT, header.status)}")
            info = read_io_unit_info(reply)
        except DecodeError as error:
            return self._silent(f"unreadable answer: {error}")
        self._info = info
        known = self._known
        if known is not None and known.change_id is not None and known.change_id == info.change_id:
            self._controllers = known.controllers
            return self._found(known.services, known.refused, info.change_id)
        profiles = yield from self._profiles(info)
        services = yield from self._services(profiles)
        if not self._missing:
            return self._found(services, tuple(self._refused), info.change_id)
        old = () if known is None else tuple(item for item in known.services if item not in services)
        return self._found((*services, *old), tuple(self._refused), None, self._missing)

    def _redirected(self, reply: bytes) -> Generator[Sequence[Ask], list[Reply], Reply]:
        """The answer to IOUnitInfo with a redirect followed once (IBA 13.5.2)."""
        if not _status(reply) & _REDIRECT:
            return reply
        (where,) = yield [self._ask(DmAttribute.CLASS_PORT_INFO)]
        if where is None:
            return reply
        try:
            header, info = read_dm_header(where), ClassPortInfo.decode(where, DM_DATA)
        except DecodeError:
            return reply
        if header.attribute_id != DmAttribute.CLASS_PORT_INFO or not info.redirect_lid:
            return reply
        self._agent = DmAgent(
            lid=info.redirect_lid,
            qpn=info.redirect_qpn or self._agent.qpn,
            qkey=info.redirect_qkey or self._agent.qkey,
            sl=info.redirect_sl,
            pkey=info.redirect_pkey or None,
        )
        (answer,) = yield [self._ask(DmAttribute.IO_UNIT_INFO)]
        return answer

    def _profiles(self, info: IoUnitInfo) -> Generator[Sequence[Ask], list[Reply], dict[int, IoControllerProfile]]:
        """Profiles of the controllers present, by slot."""
        profiles: dict[int, IoControllerProfile] = {}
        asks = {slot: self._ask(DmAttribute.IO_CONTROLLER_PROFILE, slot) for slot in info.present_slots}
        answers = yield from self._in_chunks(asks)
        for slot, reply in answers.items():
            if reply is None or _is_busy(reply):
                self._lacks(f"controller {slot} did not answer")
                continue
            if _status(reply) == DmStatus.NO_IOC:
                continue
            try:
                profile = read_io_controller_profile(reply)
            except DecodeError as error:
                self._refuse(f"controller {slot}: {error}")
                continue
            self._controllers += (Controller(slot, profile, ()),)
            if profile.io_class in (IO_CLASS_REV16A, IO_CLASS_REV10):
                profiles[slot] = profile
            else:
                self._refuse(f"controller {slot}: I/O class {profile.io_class:04x} is not one of SRP (0100, ff00)")
        return profiles

    def _services(
        self, profiles: Mapping[int, IoControllerProfile]
    ) -> Generator[Sequence[Ask], list[Reply], tuple[SrpService, ...]]:
        """SRP services of the controllers, in the order of slots and entries, each identity once."""
        asks: dict[tuple[int, int, int], Ask] = {}
        for slot, profile in profiles.items():
            for first in range(0, profile.service_entries, ENTRIES_PER_MAD):
                last = min(first + ENTRIES_PER_MAD, profile.service_entries) - 1
                modifier = service_entries_modifier(slot, first, last)
                asks[slot, first, last] = self._ask(DmAttribute.SERVICE_ENTRIES, modifier)
        answers = yield from self._in_chunks(asks)
        services: dict[tuple[int, int], SrpService] = {}
        listed: dict[int, list[tuple[int, ServiceEntry]]] = {slot: [] for slot in profiles}
        for (slot, first, last), reply in answers.items():
            if reply is None or _is_busy(reply):
                self._lacks(f"services {first} to {last} of controller {slot} did not come")
                continue
            try:
                entries = read_service_entries(reply, first, last)
            except DecodeError as error:
                self._refuse(f"controller {slot}, services {first} to {last}: {error}")
                continue
            for number, entry in enumerate(entries, first):
                if not entry.name.startswith(SRP_SERVICE_PREFIX):
                    continue  # another protocol's service, or an empty entry
                listed[slot].append((number, entry))
                service = srp_service(profiles[slot], entry)
                if service is None:
                    self._refuse(f"controller {slot}: service name {entry.name_text!r} does not hold 16 hex digits")
                else:
                    services.setdefault((service.id_ext, service.ioc_guid), service)
        self._controllers = tuple(
            replace(item, services=tuple(listed.get(item.slot, ()))) for item in self._controllers
        )
        return tuple(services.values())

    def _in_chunks(self, asks: Mapping[K, Ask]) -> Generator[Sequence[Ask], list[Reply], dict[K, Reply]]:
        """Ask a few at a time; stop when none of a few is answered or the unit's time is over."""
        answers: dict[K, Reply] = dict.fromkeys(asks)
        rest = iter(asks.items())
        while chunk := list(islice(rest, self._settings.unit_window)):
            replies = yield [ask for _, ask in chunk]
            answers.update(zip((key for key, _ in chunk), replies, strict=True))
            if all(reply is None for reply in replies) or self._clock() > self._deadline:
                break
        return answers

    def _ask(self, attribute: DmAttribute, modifier: int = 0) -> Ask:
        mad = dm_request(Method.GET, attribute, transaction_id=0, modifier=modifier)
        address = self._way.address(self._agent)
        return Ask(self._way.port.name, address, mad, self._settings.timeout, self._settings.retries)

    def _lacks(self, what: str) -> None:
        self._missing = self._missing or what

    def _refuse(self, what: str) -> None:
        if len(self._refused) < _REFUSED_KEPT:
            self._refused.append(what)

    def _silent(self, reason: str) -> IoUnit:
        return replace(self._unit, standing=Standing.SILENT, reason=reason, agent=self._agent)

    def _found(
        self, services: tuple[SrpService, ...], refused: tuple[str, ...], change_id: int | None, reason: str = ""
    ) -> IoUnit:
        return replace(
            self._unit,
            standing=Standing.FOUND,
            reason=reason,
            agent=self._agent,
            services=services,
            refused=refused,
            change_id=change_id,
            info=self._info,
            controllers=self._controllers,
        )


def _status(reply: bytes) -> int:
    """The status of an answer, whose header :class:`srpha.core.discovery.conversation.Conversations` has checked."""
    return int.from_bytes(reply[4:6], "big")


def _is_busy(reply: bytes) -> bool:
    return bool(_status(reply) & _BUSY)
