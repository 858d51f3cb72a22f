"""Logins of one local port: the driver takes one at a time, so that a dead target must not get into the line.

Before a login waits for its turn, the target port is asked whether it is alive, from this very local port. All targets
are asked at once; only those that answer queue up.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from srpha.core.connections.pairs import PairKey
from srpha.core.discovery.dm_walk import Way, aliveness_question, is_sign_of_life
from srpha.core.discovery.scan_result import DmAgent
from srpha.core.seams import AddTargetError, Initiator, InitiatorError, MadError, MadPort
from srpha.daemon.settings import Settings


@dataclass(frozen=True, slots=True)
class Login:
    """One login to carry out."""

    key: PairKey
    line: str
    way: Way | None
    """None, as ``agent``, for a target that the configuration names: nobody knows an agent of it to ask."""
    agent: DmAgent | None


@dataclass(frozen=True, slots=True)
class LoginOutcome:
    """How it ended: ``errno`` 0 means that the driver said yes. The message is one sentence."""

    login: Login
    errno: int
    message: str


Wanted: TypeAlias = Callable[[PairKey], bool]
"""Tells whether a login that waited for its turn is still to be made."""
Report: TypeAlias = Callable[[LoginOutcome], None]
"""Hears the outcome of a login, exactly once; notes it and returns."""


class Connector:
    """Carries out the logins of one local port."""

    def __init__(
        self,
        port: MadPort,
        initiator: Initiator,
        settings: Callable[[], Settings],
        wanted: Wanted,
        report: Report,
    ) -> None:
        self._port = port
        self._initiator = initiator
        self._settings = settings
        self._wanted = wanted
        self._report = report
        self._submitted: asyncio.Queue[Login] = asyncio.Queue()
        self._alive: asyncio.Queue[Login] = asyncio.Queue()

    def submit(self, login: Login) -> None:
        """Take a login on; its outcome is reported."""
        self._submitted.put_nowait(login)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._log_in_one_by_one())
            while True:
                login = await self._submitted.get()
                if login.way is None or login.agent is None:
                    self._alive.put_nowait(login)
                else:
                    group.create_task(self._ask_whether_alive(login, login.way, login.agent))

    async def _ask_whether_alive(self, login: Login, way: Way, agent: DmAgent) -> None:
        settings = self._settings()
        ask = aliveness_question(way, agent, settings.probe_timeout, settings.probe_retries)
        try:
            reply = await self._port.transact(ask.address, ask.mad, timeout=ask.timeout, retries=ask.retries)
        except MadError as error:
            self._report(
                LoginOutcome(login, errno.EHOSTUNREACH, f"not tried, the target port does not answer: {error}")
            )
            return
        if is_sign_of_life(reply):
            self._alive.put_nowait(login)
        else:
            message = "not tried, something that is no Device Management agent answered"
            self._report(LoginOutcome(login, errno.EHOSTUNREACH, message))

    async def _log_in_one_by_one(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                login = await self._alive.get()
                if not self._wanted(login.key):
                    self._report(LoginOutcome(login, errno.ECANCELED, "not tried, no longer wanted"))
                    continue
                task = group.create_task(self._log_in(login))
                deadline = self._settings().login_deadline
                done, _ = await asyncio.wait([task], timeout=deadline)
                if done:
                    self._report(task.result())
                    continue
                self._report(LoginOutcome(login, errno.ETIMEDOUT, f"the login still hangs after {deadline:g} s"))
                await asyncio.wait([task])  # the driver takes the next one only when this one is over

    async def _log_in(self, login: Login) -> LoginOutcome:
        try:
            await self._initiator.add_target(self._port.name, login.line)
        except AddTargetError as error:
            return LoginOutcome(login, error.errno, str(error))
        except InitiatorError as error:
            return LoginOutcome(login, errno.EIO, str(error))
        return LoginOutcome(login, 0, "logged in")
