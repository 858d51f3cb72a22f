"""Reads and writes sysfs attributes below a root that tests may choose; what is read is checked before it is used.

An attribute that is absent, vanishes, cannot be read or holds something odd is None: unknown, which is not empty.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import Gid

_PAGE: Final = 4096
"""No attribute is longer than a page."""
_LARGE: Final = 64
"""Entries of a directory that is worth remembering: it is most often the same again."""
_GONE: Final = (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}", re.ASCII)
_HEX: Final = re.compile(r"(?:0[xX])?[0-9a-fA-F]{1,16}", re.ASCII)
_DECIMAL: Final = re.compile(r"-?[0-9]{1,10}", re.ASCII)
_INT_MAX: Final = (1 << 31) - 1


class AttributeGoneError(Exception):
    """The attribute does not exist (any more)."""


class Sysfs:
    """Attributes by path relative to ``root``."""

    def __init__(self, root: Path = Path("/sys")) -> None:
        self.root = root
        self._base = f"{root}/"  # thousands of attributes are read again and again: no Path objects for each
        self._listings: dict[str, tuple[list[str], tuple[str, ...]]] = {}
        """Of large directories what was found last, and the names made of it."""

    def names(self, directory: str) -> tuple[str, ...]:
        """Entries of a directory with names the kernel could have given, sorted; () when it does not exist.

        Raises OSError for a directory that exists but cannot be read.
        """
        try:
            found = os.listdir(self._base + directory)
        except (FileNotFoundError, NotADirectoryError):
            return ()
        known = self._listings.get(directory)
        if known is not None and known[0] == found:
            return known[1]
        names = tuple(sorted(name for name in found if _NAME.fullmatch(name)))
        if len(found) >= _LARGE:
            self._listings[directory] = found, names
        else:
            self._listings.pop(directory, None)
        return names

    def exists(self, path: str) -> bool:
        """Whether the directory or attribute is there."""
        return os.path.lexists(self._base + path)

    def read(self, path: str) -> str:
        """The attribute's one line, stripped.

        Raises :class:`AttributeGoneError`, and OSError for what exists and cannot be read or is no line of plain text.
        """
        try:
            # Non-blocking, so that nothing odd in the attribute's place can hold the caller.
            descriptor = os.open(self._base + path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise self._sorted(error) from error
        try:
            data = os.read(descriptor, _PAGE)
        except OSError as error:
            raise self._sorted(error) from error
        finally:
            os.close(descriptor)
        text = data.decode("ascii", "replace").strip()
        if not text or not text.isascii() or not text.isprintable():
            raise OSError(errno.EILSEQ, "not a line of plain text", self._base + path)
        return text

    def holds(self, path: str, text: str) -> bool:
        """Whether the attribute is ``text`` and nothing else; quicker than reading it."""
        try:
            descriptor = os.open(self._base + path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return os.read(descriptor, _PAGE) == f"{text}\n".encode()
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def write(self, path: str, text: str) -> None:
        """Write the attribute in one piece, as the kernel wants it.

        Raises :class:`AttributeGoneError` when there is no such attribute, and OSError with what the kernel says to
        the write itself.
        """
        try:
            descriptor = os.open(self._base + path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._sorted(error) from error
        try:
            data = text.encode("ascii")
            written = os.write(descriptor, data)
        finally:
            os.close(descriptor)
        if written != len(data):
            raise OSError(errno.EIO, f"only {written} of {len(data)} bytes were taken", self._base + path)

    def text(self, path: str) -> str | None:
        """:meth:`read`, None for unknown."""
        try:
            return self.read(path)
        except (AttributeGoneError, OSError):
            return None

    def name(self, path: str) -> str | None:
        """An attribute that holds a name (a device, a driver)."""
        text = self.text(path)
        return text if text is not None and _NAME.fullmatch(text) else None

    def hexadecimal(self, path: str, bits: int) -> int | None:
        """A number in hexadecimal, with or without 0x, of at most ``bits`` bits."""
        text = self.text(path)
        if text is None or not _HEX.fullmatch(text):
            return None
        number = int(text, 16)
        return number if number >> bits == 0 else None

    def integer(self, path: str) -> int | None:
        """A decimal number that fits an ``int``."""
        return parse_integer(self.text(path))

    def gid(self, path: str) -> Gid | None:
        """A GID in the colon form."""
        text = self.text(path)
        try:
            return None if text is None else Gid.from_hex(text)
        except DecodeError:
            return None

    @staticmethod
    def _sorted(error: OSError) -> OSError | AttributeGoneError:
        """Gone, or there and unreadable."""
        if error.errno in _GONE:
            return AttributeGoneError(str(error))
        return error


def parse_integer(text: str | None) -> int | None:
    """``text`` as a decimal number that fits an ``int``; None for anything else."""
    if text is None or not _DECIMAL.fullmatch(text):
        return None
    number = int(text)
    return number if -_INT_MAX - 1 <= number <= _INT_MAX else None


def numbered(names: tuple[str, ...], prefix: str) -> Iterator[tuple[int, str]]:
    """Names of the form ``<prefix><number>`` with their numbers, by number."""
    found = [
        (int(digits), name)
        for name in names
        if name.startswith(prefix) and (digits := name[len(prefix) :]).isdecimal() and len(digits) < 10
    ]
    yield from sorted(found)
