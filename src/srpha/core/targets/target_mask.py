"""Masks over what identifies a target port: hexadecimal digits with ``?`` for one digit and ``*`` for any number.

The keys are the match keys of srp_daemon.conf (srp_daemon(8)). A mask is compared digit by digit with the value written
out in full, leading zeros included; a mask without ``?`` and ``*`` is a number and may leave leading zeros out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from srpha.core.targets.target_port import TargetPort

MASK_DIGITS: Final[Mapping[str, int]] = {"id_ext": 16, "ioc_guid": 16, "dgid": 32, "service_id": 16, "pkey": 4}
"""What a mask can speak of, and how many digits its value has."""

_TEXT: Final = re.compile(r"[0-9a-fA-F?*]+", re.ASCII)


class InvalidMaskError(ValueError):
    """A mask that cannot fit anything; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class HexMask:
    """A mask for a value of ``digits`` hexadecimal digits. ``text`` is in lower case, without ``0x``."""

    text: str
    digits: int

    def fits(self, value: int) -> bool:
        """Whether the value, written out in full, is of this form."""
        return self._pattern.fullmatch(f"{value:0{self.digits}x}") is not None

    @property
    def _pattern(self) -> re.Pattern[str]:
        # the re module keeps what it has compiled
        return re.compile(self.text.replace("?", "[0-9a-f]").replace("*", "[0-9a-f]*"), re.ASCII)


def parse_mask(text: str, digits: int) -> HexMask:
    """Read a mask for values of ``digits`` digits; raises :class:`InvalidMaskError`."""
    body = text.removeprefix("0x").removeprefix("0X")
    rule = f"hex digits, ? for any digit, * for any number of them, {digits} digits in all"
    if not _TEXT.fullmatch(body):
        raise InvalidMaskError(rule)
    body = re.sub(r"\*+", "*", body.lower())
    if "*" not in body and "?" not in body:
        body = body.rjust(digits, "0")
    fixed = len(body.replace("*", ""))
    if fixed > digits or ("*" not in body and fixed != digits):
        raise InvalidMaskError(f"{rule}, not {fixed}")
    return HexMask(body, digits)


@dataclass(frozen=True, slots=True)
class TargetMask:
    """Masks by key; all must fit. Without any it fits every target port."""

    masks: Mapping[str, HexMask]

    def fits(self, target: TargetPort) -> bool:
        """Whether the mask speaks of ``target``."""
        values = {
            "id_ext": target.id_ext,
            "ioc_guid": target.ioc_guid,
            "dgid": target.dgid.prefix << 64 | target.dgid.guid,
            "service_id": target.service_id,
            "pkey": target.pkey & 0xFFFF,
        }
        return all(mask.fits(values[key]) for key, mask in self.masks.items())


@dataclass(frozen=True, slots=True)
class PortMasks:
    """Local ports by name (``device/port``), with ``?`` and ``*``; a device's name alone means all its ports.

    ``*`` stands for any characters of a device's name or a port's number, never for the slash between them.
    """

    names: tuple[str, ...]

    def fits(self, local_port: str) -> bool:
        """Whether one of the names means ``local_port``."""
        return any(_port_pattern(name).fullmatch(local_port) is not None for name in self.names)


_PORT_NAME: Final = re.compile(r"[A-Za-z0-9_.:?*-]{1,64}(?:/[0-9?*]{1,3})?", re.ASCII)


def parse_port_masks(names: Iterable[str]) -> PortMasks:
    """Check names of local ports; raises :class:`InvalidMaskError`."""
    checked = []
    for name in names:
        if not _PORT_NAME.fullmatch(name):
            raise InvalidMaskError(
                f"{name[:80]!r} names no local port; a device such as mlx5_0 or a port such as mlx5_0/1, with ? and *"
            )
        checked.append(name)
    return PortMasks(tuple(checked))


def _port_pattern(name: str) -> re.Pattern[str]:
    whole = name if "/" in name else f"{name}/*"
    return re.compile(re.escape(whole).replace(r"\?", "[^/]").replace(r"\*", "[^/]*"))
