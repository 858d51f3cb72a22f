"""Subscriptions of one local port to the SA's notices 64, 65 and 144 (IBA 13.4.8.3, 15.2.4.3; facts: srp A.8).

They are never ended: all programs of a port share QP1, so that one program's goodbye would silence the others. An SA
drops a subscriber that does not answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

from srpha.core.discovery.sa_questions import sa_address
from srpha.core.seams import MadError, MadPort, MadPortGoneError, PortIdentity, ReceivedMad
from srpha.daemon.scanner import trouble_of
from srpha.daemon.settings import Settings
from srpha.wire.errors import DecodeError
from srpha.wire.mad import CommonAttribute, MadHeader, Method, status_response
from srpha.wire.notice import (
    CapabilityTrap144,
    GidTrap,
    Trap,
    TrapNumber,
    capability_subscription,
    gid_subscription,
    read_notice,
    read_trap,
)
from srpha.wire.sa import SaAttribute, SaHeader, sa_request

TrapSink: TypeAlias = Callable[[str, Trap], None]
"""Hears a trap and the local port that it came to; notes it and returns."""

_RETRY: Final = 5.0
"""Seconds before a subscription that failed is tried again; doubling."""


class Subscriptions:
    """Keeps one port subscribed. ``settings`` gives the settings of the moment.

    ``look`` is called whenever the SA has taken all subscriptions, the first time or again: no notice tells what
    happened before that, so that the subnet is to be looked at anew.
    """

    def __init__(
        self, port: MadPort, settings: Callable[[], Settings], sink: TrapSink, look: Callable[[], None]
    ) -> None:
        self._port = port
        self._settings = settings
        self._sink = sink
        self._look = look
        self._again = asyncio.Event()
        self.subscribed = False
        """The SA has taken all subscriptions."""

    def renew(self) -> None:
        """The subnet manager may be another, or have forgotten: subscribe again soon."""
        self.subscribed = False
        self._again.set()

    async def run(self) -> None:
        """Work until cancelled."""
        unwatch = self._port.watch_reports(self._receive)
        failures = 0
        try:
            while True:
                self._again.clear()
                self.subscribed = await self._subscribe()
                failures = 0 if self.subscribed else failures + 1
                if self.subscribed:
                    self._look()
                pause = self._settings().subscription_interval
                if failures:
                    pause = min(pause, _RETRY * 2.0 ** min(failures - 1, 30))
                try:
                    async with asyncio.timeout(pause):
                        await self._again.wait()
                    failures = 0
                except TimeoutError:
                    pass
        finally:
            unwatch()

    async def _subscribe(self) -> bool:
        try:
            identity = self._port.identity()
        except MadPortGoneError:
            return False
        if trouble_of(identity):
            return False
        infos = (
            gid_subscription(TrapNumber.GID_IN_SERVICE),
            gid_subscription(TrapNumber.GID_OUT_OF_SERVICE),
            capability_subscription(),
        )
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(
                    self._ask(
                        identity,
                        sa_request(Method.SET, SaAttribute.INFORM_INFO, transaction_id=0, mask=int(mask), record=info),
                    )
                )
                for info, mask in infos
            ]
        return all(task.result() for task in asked)

    async def _ask(self, identity: PortIdentity, mad: bytes) -> bool:
        limits = self._settings().scan
        try:
            reply = await self._port.transact(
                sa_address(identity), mad, timeout=limits.sa_timeout, retries=limits.sa_retries
            )
            header = MadHeader.decode(reply)
        except (MadError, DecodeError):
            return False
        return header.is_response and header.attribute_id == SaAttribute.INFORM_INFO and header.status == 0

    def _receive(self, received: ReceivedMad) -> None:
        """A Report: answer it (ReportResp repeats its body), then pass on what it says. Anything else is dropped."""
        try:
            header = SaHeader.decode(received.mad).mad
            if header.method != Method.REPORT or header.attribute_id != CommonAttribute.NOTICE:
                return
            notice = read_notice(received.mad, SaHeader.LENGTH)
            response = status_response(received.mad, 0)
        except DecodeError:
            return
        # the answer goes to QP1 of the sender, in the partition the report came in
        self._port.reply(replace(received.source, gid_index=0), response)
        trap = read_trap(notice)
        if isinstance(trap, GidTrap | CapabilityTrap144):
            self._sink(self._port.name, trap)
