"""The multipath configuration on disk: read all of it, plan srpha's drop-in, write nothing but that (facts: 1.6).

Only the drop-in is ever written, in one piece, and only when it is a file that srpha may own: a plain file or none.
"""

from __future__ import annotations

import difflib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from srpha.core.multipath.conf import ConfFile, parse_conf
from srpha.core.multipath.conflicts import Finding, find_conflicts
from srpha.core.multipath.dropin import FILE_NAME, DropInSettings, make_dropin

ETC: Final = Path("/etc")
_SUFFIX: Final = ".conf"
_MODE: Final = 0o644
_SIZE_MAX: Final = 1 << 20


class MultipathFilesError(Exception):
    """The configuration cannot be read, or the drop-in not written; one sentence for an operator."""


@dataclass(frozen=True, slots=True)
class DropInPlan:
    """What writing the drop-in would do."""

    path: Path
    present: str | None
    """The drop-in as it is; None when there is none."""
    wanted: str
    left_out: tuple[str, ...]
    """What an administrator has said instead, a sentence each."""
    findings: tuple[Finding, ...]

    @property
    def changed(self) -> bool:
        """Whether writing would change anything."""
        return self.present != self.wanted

    def diff(self) -> str:
        """A unified diff from what is there to what would be; empty when nothing changes."""
        old = (self.present or "").splitlines(keepends=True)
        origin = str(self.path) if self.present is not None else "/dev/null"
        lines = difflib.unified_diff(old, self.wanted.splitlines(keepends=True), origin, str(self.path))
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def read_files(etc: Path = ETC) -> tuple[ConfFile, ...]:
    """The administrator's files in the order multipath reads them; srpha's own is left out.

    Raises :class:`MultipathFilesError` for a file that is there and cannot be read.
    """
    folder = etc / "multipath" / "conf.d"
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(_SUFFIX))
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise MultipathFilesError(f"{folder} cannot be read: {error.strerror}") from error
    paths = [etc / "multipath.conf", *(folder / name for name in names if name != FILE_NAME)]
    texts = [(path, _read(path)) for path in paths]
    return tuple(parse_conf(text, str(path)) for path, text in texts if text is not None)


def plan_dropin(settings: DropInSettings, etc: Path = ETC) -> DropInPlan:
    """What the drop-in is and what it should be. Raises :class:`MultipathFilesError`; writes nothing."""
    path = etc / "multipath" / "conf.d" / FILE_NAME
    files = read_files(etc)
    dropin = make_dropin(settings, files)
    return DropInPlan(path, _read(path), dropin.text, dropin.left_out, find_conflicts(files, settings.arrays))


def write_dropin(plan: DropInPlan) -> bool:
    """Put the planned text in place, whole or not at all; whether anything changed.

    multipathd reads it at its next ``reconfigure``. Raises :class:`MultipathFilesError`, also when the drop-in is not
    any more what the plan was made from.
    """
    if _read(plan.path) != plan.present:
        raise MultipathFilesError(f"{plan.path} has changed since it was looked at; look again")
    if not plan.changed:
        return False
    try:
        plan.path.parent.mkdir(parents=True, exist_ok=True)
        _replace(plan.path, plan.wanted)
    except OSError as error:
        raise MultipathFilesError(f"{plan.path} cannot be written: {error.strerror}") from error
    return True


def _replace(path: Path, text: str) -> None:
    # the name does not end in .conf, so multipath never reads a half-written file
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), _MODE)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path) -> str | None:
    """The file's text; None when there is none. Anything but a plain file of sensible size is refused."""
    try:
        # a FIFO in the file's place must not hold the caller
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MultipathFilesError(f"{path} cannot be read: {error.strerror}") from error
    try:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode) or state.st_size > _SIZE_MAX:
            raise MultipathFilesError(f"{path} is no plain file of at most {_SIZE_MAX} bytes")
        with open(handle, "rb", closefd=False) as file:
            # old files may hold any character set in their comments
            return file.read(_SIZE_MAX).decode("utf-8", "replace")
    finally:
        os.close(handle)
