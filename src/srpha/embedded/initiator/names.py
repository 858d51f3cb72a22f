"""Names and numbers of SCSI disks as Linux gives them (drivers/scsi/sd.c): sda, sdb, ...; 8:0, 8:16, ..."""

from __future__ import annotations

from typing import Final

_MAJORS: Final = (8, *range(65, 72), *range(128, 136))


class DiskNumbers:
    """Numbers of the disks that exist; the lowest free one goes to the next disk."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def allocate(self) -> int:
        """The lowest free number."""
        number = 0
        while number in self._taken:
            number += 1
        self._taken.add(number)
        return number

    def release(self, number: int) -> None:
        """Give a number back."""
        self._taken.discard(number)


def disk_name(number: int) -> str:
    """``sda`` for 0, ``sdz`` for 25, ``sdaa`` for 26."""
    letters = ""
    number += 1
    while number:
        number, letter = divmod(number - 1, 26)
        letters = chr(ord("a") + letter) + letters
    return "sd" + letters


def disk_dev_t(number: int) -> str:
    """``major:minor`` of a disk: 16 minors each, 16 disks per major, and extended minors beyond 256 disks."""
    major = _MAJORS[(number & 0xF0) >> 4]
    minor = (number & 0xF) << 4 | number & 0xFFF00
    return f"{major}:{minor}"
