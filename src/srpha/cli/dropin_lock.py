"""srp_daemon's lock file, one per local port: two daemons never serve the same port (facts: srp A.5)."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from srpha.cli.dropin_world import HostError


@contextmanager
def port_lock(device: str, port: int, directory: Path) -> Generator[None, None, None]:
    """Hold the lock of a port. The file stays when it ends. Raises :class:`HostError` when another process has it."""
    path = directory / f"srp_daemon_{device}_{port}"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise HostError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise HostError(f"{path} is locked: another srp_daemon serves port {port} of {device}") from error
            raise HostError(f"{path} cannot be locked: {error.strerror}") from error
        yield
    finally:
        os.close(descriptor)
