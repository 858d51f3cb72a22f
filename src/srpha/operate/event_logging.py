"""Events as log lines: for a terminal, as JSON, or as entries of systemd's journal. structlog does the rendering."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, Literal, TextIO, TypeAlias

import structlog
from structlog.typing import EventDict, Processor

from srpha.core.events import Severity
from srpha.operate.event_log import LoggedEvent
from srpha.operate.journal import Journal, leads_to_journal

Format: TypeAlias = Literal["auto", "console", "json", "journal"]

_RANK: Final = {Severity.INFO: 0, Severity.NOTICE: 1, Severity.WARNING: 2, Severity.ERROR: 3}
_PRIORITY: Final = {"info": 6, "notice": 5, "warning": 4, "error": 3}
"""syslog's priorities."""


class _Lines:
    """Writes rendered lines; a reader that has gone away must not end the service."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            print(line, file=self._stream, flush=True)
        except OSError:
            return


class _Entries:
    """Hands entries to the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def msg(self, **fields: str) -> None:
        self._journal.send(fields)


class EventLogger:
    """Logs events from ``level`` up. Made once per process; ``close`` ends it."""

    def __init__(
        self,
        form: Format = "auto",
        level: Severity = Severity.INFO,
        *,
        stream: TextIO | None = None,
        journal: Callable[[], Journal] = Journal,
    ) -> None:
        out = stream if stream is not None else sys.stdout
        if form == "auto":
            form = "journal" if leads_to_journal(out.fileno()) else "console"
        self._rank = _RANK[level]
        self._journal = journal() if form == "journal" else None
        processors: list[Processor] = []
        if self._journal is not None:
            processors.append(_journal_fields)
        else:
            processors.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
            processors.append(_renderer(form, coloured=out.isatty()))
        target: object = _Entries(self._journal) if self._journal is not None else _Lines(out)
        self._log: Any = structlog.wrap_logger(
            target, processors=processors, wrapper_class=structlog.BoundLoggerBase, context_class=dict
        )

    def __call__(self, logged: LoggedEvent) -> None:
        """Log one event."""
        event = logged.event
        self.say(event.severity, event.text, kind=event.kind.value, subject=event.subject, **event.fields)

    def say(self, severity: Severity, text: str, **fields: str | int | float | bool) -> None:
        """Log one sentence that is no event."""
        if _RANK[severity] >= self._rank:
            self._log._proxy_to_logger("msg", text, level=severity.value, **fields)

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()


def _renderer(form: Format, *, coloured: bool) -> Processor:
    if form == "json":
        return structlog.processors.JSONRenderer(sort_keys=True)
    return structlog.dev.ConsoleRenderer(colors=coloured, pad_event_to=0, level_styles=_styles(coloured))


def _journal_fields(_logger: object, _method: str, event: EventDict) -> EventDict:
    """MESSAGE and PRIORITY, and everything else under a name of our own."""
    level = str(event.pop("level", "info"))
    fields = {"MESSAGE": str(event.pop("event", "")), "PRIORITY": str(_PRIORITY[level]), "SYSLOG_IDENTIFIER": "srpha"}
    return {**fields, **{f"SRPHA_{name.upper()}": str(value) for name, value in event.items()}}


def _styles(coloured: bool) -> dict[str, str]:
    styles = {"info": "", "notice": "\x1b[36m", "warning": "\x1b[33m", "error": "\x1b[31m\x1b[1m"}
    return styles if coloured else dict.fromkeys(styles, "")
