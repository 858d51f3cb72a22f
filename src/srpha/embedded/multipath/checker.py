"""The checker of one path: checks on a timer, each with a time limit of its own, so that no path delays another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from srpha.core.multipath.checker import USABLE, judge_device, next_interval
from srpha.core.multipath.path_check import PathCheck
from srpha.core.multipath.policy import Prioritizer
from srpha.core.scsi_io import ScsiCommand
from srpha.core.seams import CheckerState
from srpha.embedded.multipath.path import DevicePath
from srpha.embedded.multipath.settings import MultipathSettings

Report = Callable[[DevicePath, PathCheck], None]
"""Takes the result of a check."""


class PathChecker:
    """Checks its path now and then until it is stopped. A path that is not in use is always asked who it is."""

    def __init__(self, path: DevicePath, settings: MultipathSettings, report: Report) -> None:
        self._path = path
        self._settings = settings
        self._report = report
        self._interval = settings.polling_interval
        self._last: CheckerState | None = None
        self._check: PathCheck | None = None
        self._again: bool | None = None
        """Another check was asked for meanwhile: whether it is to verify."""
        self._command: ScsiCommand | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def check(self, *, verify: bool = False) -> None:
        """Check now, or once more when the check under way is done."""
        if self._check is not None:
            self._again = verify or bool(self._again)
        elif not self._stopped:
            self._begin(verify)

    def soon(self) -> None:
        """The path has failed: check at the shortest interval from now."""
        self._interval = self._settings.polling_interval
        self._last = None
        if self._check is None and not self._stopped:
            self._set_timer(self._interval, self._due)

    def device_changed(self) -> None:
        """The device's state has changed: what it was asked before counts no more."""
        self._check = self._command = self._again = None
        self.check(verify=True)

    def stop(self) -> None:
        """End for good."""
        self._stopped = True
        self._check = self._command = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._begin(False)

    def _begin(self, verify: bool) -> None:
        path, settings = self._path, self._settings
        check = PathCheck(
            path.identity, verify=verify or not path.usable, priority=settings.prio is not Prioritizer.CONST
        )
        self._check = check
        unable = judge_device(path.device.state)
        if unable is not None:
            check.fail(unable, f"the device is {path.device.state.value}")
            self._finish(check)
            return
        self._set_timer(settings.checker_timeout, self._time_out)
        self._send(check)

    def _send(self, check: PathCheck) -> None:
        request = check.request
        if request is None:
            self._finish(check)
            return
        cdb, length = request
        data = bytearray(length) if length else None
        command = ScsiCommand(
            cdb, self._answered, data_in=data, timeout=self._settings.checker_timeout, fail_fast=True, context=check
        )
        self._command = command
        self._path.submit(command)

    def _answered(self, command: ScsiCommand) -> None:
        check = self._check
        if check is None or command is not self._command:
            return
        self._command = None
        data = b""
        if command.data_in is not None:
            data = bytes(command.data_in[: len(command.data_in) - max(0, command.residual)])
        check.answer(command.host_byte, command.status, command.sense, data)
        self._send(check)

    def _time_out(self) -> None:
        check = self._check
        if check is not None:
            check.fail(CheckerState.TIMEOUT, f"no answer within {self._settings.checker_timeout:g} s")
            self._finish(check)

    def _finish(self, check: PathCheck) -> None:
        self._check = self._command = None
        settings = self._settings
        state = check.state
        changed, self._last = state is not self._last, state
        self._interval = next_interval(
            self._interval, changed, state in USABLE, settings.polling_interval, settings.max_polling_interval
        )
        self._set_timer(self._interval, self._due)
        self._report(self._path, check)
        again, self._again = self._again, None
        if again is not None and self._check is None and not self._stopped:
            self._begin(again)

    def _set_timer(self, delay: float, callback: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, callback)
