"""The keys of openib.conf and rdma.conf that concern SRP (facts: srp A.13, G).

``/etc/infiniband/openib.conf`` (OFED) and ``/etc/rdma/rdma.conf`` (RHEL) are shell fragments that init scripts source.
Only assignments of plain values are read; whatever else a shell would make of the file is left to the shell, except
where it hides the value of a key that is wanted here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

_ASSIGNMENT: Final = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.ASCII)
_QUOTED: Final = re.compile(r"""(?:"([^"\\$`]*)"|'([^']*)'|([^\s"'\\$`;&|<>()#]*))[ \t]*(?:;[ \t]*)?(?:#.*)?""")
_YES: Final = frozenset({"yes", "y", "1", "on", "true"})
_NO: Final = frozenset({"no", "n", "0", "off", "false", ""})


class OpenibConfError(ValueError):
    """A value is wrong. ``str()`` is one line: file, line, key, value and what is allowed."""


@dataclass(frozen=True, slots=True)
class OpenibConf:
    """What the file says of SRP; None: it says nothing."""

    srp_load: bool | None = None
    """``SRP_LOAD``: load ib_srp with the driver."""
    srpha_enable: bool | None = None
    """``SRPHA_ENABLE`` (OFED until 2.0): connect automatically and keep paths highly available."""
    srp_daemon_enable: bool | None = None
    """``SRP_DAEMON_ENABLE`` (OFED from 2.1 on): the same wish."""
    tl_retry_count: int | None = None
    """``SRP_DEFAULT_TL_RETRY_COUNT``, 2 to 7: ``tl_retry_count`` of every connection that no rule gives one."""

    @property
    def enabled(self) -> bool | None:
        """Whether connections are to be made automatically: either key says so. None: neither says anything."""
        said = [value for value in (self.srpha_enable, self.srp_daemon_enable) if value is not None]
        return any(said) if said else None


_SWITCHES: Final = {
    "SRP_LOAD": "srp_load",
    "SRPHA_ENABLE": "srpha_enable",
    "SRP_DAEMON_ENABLE": "srp_daemon_enable",
}
_RETRIES: Final = "SRP_DEFAULT_TL_RETRY_COUNT"


def parse_openib_conf(lines: Iterable[str], source: str) -> OpenibConf:
    """Read a file given as lines; of a repeated key the last counts. Raises :class:`OpenibConfError`.

    Other keys, and lines that are no assignments, are skipped.
    """
    conf = OpenibConf()
    for number, text in enumerate(lines, start=1):
        match = _ASSIGNMENT.fullmatch(text.rstrip("\r\n"))
        if match is None or (match[1] not in _SWITCHES and match[1] != _RETRIES):
            continue
        key = match[1]
        where = f"{source}:{number}: {key}"
        value = _plain(match[2], where)
        if key == _RETRIES:
            conf = replace(conf, tl_retry_count=_retries(value, where))
        else:
            conf = replace(conf, **{_SWITCHES[key]: _switch(value, where)})
    return conf


def _plain(text: str, where: str) -> str:
    match = _QUOTED.fullmatch(text)
    if match is None:
        raise OpenibConfError(
            f"{where}={text.strip()[:40]!r}: a plain value is needed, not one for a shell to work out"
        )
    return next((group for group in match.groups() if group is not None), "").strip()


def _switch(value: str, where: str) -> bool:
    if value.lower() in _YES:
        return True
    if value.lower() in _NO:
        return False
    raise OpenibConfError(f"{where}={value[:40]!r}: yes or no is needed")


def _retries(value: str, where: str) -> int | None:
    if not value:
        return None
    if not re.fullmatch(r"[2-7]", value, re.ASCII):
        raise OpenibConfError(f"{where}={value[:40]!r}: a number from 2 to 7 is needed")
    return int(value)
