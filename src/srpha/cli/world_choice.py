"""Which world a command means: the packaged one, a world file, or a bare topology with roles given to its HCAs."""

from __future__ import annotations

from pathlib import Path

from srpha.core.recovery.error_recovery import RecoveryMode
from srpha.embedded.roles import world_of_topology
from srpha.embedded.worldspec import WorldSpec


class ChoiceError(Exception):
    """An argument names nothing usable; the message is one line or one line per problem."""


def choose_world(file: Path | None) -> WorldSpec:
    """The world of ``file``; a file that does not end in ``.toml`` is a topology. Raises ``WorldSpecError``."""
    if file is None:
        return WorldSpec.demo()
    return WorldSpec.load(file) if file.suffix == ".toml" else world_of_topology(file)


def choose_recovery(name: str) -> RecoveryMode:
    """The mode called ``name``; raises :class:`ChoiceError`."""
    try:
        return RecoveryMode(name)
    except ValueError:
        known = ", ".join(mode.value for mode in RecoveryMode)
        raise ChoiceError(f"--recovery {name!r}: allowed are {known}") from None
