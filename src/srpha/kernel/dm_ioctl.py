"""How often a device-mapper device is open: DM_DEV_STATUS of /dev/mapper/control (linux/dm-ioctl.h)."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

CONTROL: Final = Path("/dev/mapper/control")
DM_DEV_STATUS: Final = 0xC138FD07
"""_IOWR(0xfd, 7, struct dm_ioctl), which is 312 bytes long."""

_HEADER: Final = struct.Struct("=3I2I I i 2I 4x Q 128s 129s 7x")
_VERSION: Final = (4, 0, 0)
_NAME_MAX: Final = 127


def status_request(name: str) -> bytes:
    """The ioctl's argument for the device called ``name`` (``mpatha``)."""
    encoded = name.encode()
    if not 0 < len(encoded) <= _NAME_MAX:
        raise ValueError(f"{name[:40]!r} is no name of a device-mapper device")
    return _HEADER.pack(*_VERSION, _HEADER.size, _HEADER.size, 0, 0, 0, 0, 0, encoded, b"")


def open_count_of(answer: bytes) -> int:
    """The open count in the kernel's answer. Raises ValueError for what is none."""
    if len(answer) != _HEADER.size:
        raise ValueError(f"the kernel's answer has {len(answer)} bytes, not {_HEADER.size}")
    count: int = _HEADER.unpack(answer)[6]
    if count < 0:
        raise ValueError(f"the kernel counts {count} opens")
    return count


def open_count(name: str, control: Path = CONTROL) -> int:
    """How often the device is open now: mounts, holders and processes together. Raises OSError."""
    descriptor = os.open(control, os.O_RDWR | os.O_CLOEXEC)
    try:
        return open_count_of(fcntl.ioctl(descriptor, DM_DEV_STATUS, status_request(name)))
    finally:
        os.close(descriptor)
