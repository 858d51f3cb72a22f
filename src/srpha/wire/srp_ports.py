"""SRP port identifiers and the I/O classes that decide their form (SRP rev. 16a annex B; rev. 10).

Apart from the information units, because discovery and rules need no more of SRP.
"""

from __future__ import annotations

import struct
from typing import Final

from srpha.wire.errors import DecodeError, EncodeError

IO_CLASS_REV16A: Final = 0x0100
IO_CLASS_REV10: Final = 0xFF00
_PORT_ID: Final = struct.Struct(">QQ")


def initiator_port_id(initiator_ext: int, guid: int, io_class: int = IO_CLASS_REV16A) -> bytes:
    """16-byte initiator port identifier: extension and port GUID, the other way round for rev. 10 targets."""
    return _port_id(initiator_ext, guid, io_class)


def target_port_id(id_ext: int, ioc_guid: int, io_class: int = IO_CLASS_REV16A) -> bytes:
    """16-byte target port identifier: id_ext and IOC GUID, the other way round for rev. 10 targets."""
    return _port_id(id_ext, ioc_guid, io_class)


def split_port_id(port_id: bytes, io_class: int = IO_CLASS_REV16A) -> tuple[int, int]:
    """``(extension, GUID)`` of an initiator or target port identifier."""
    if len(port_id) != 16:
        raise DecodeError(f"an SRP port identifier has 16 bytes, got {len(port_id)}")
    first, second = _PORT_ID.unpack(port_id)
    return (second, first) if io_class == IO_CLASS_REV10 else (first, second)


def _port_id(extension: int, guid: int, io_class: int) -> bytes:
    if io_class not in {IO_CLASS_REV16A, IO_CLASS_REV10}:
        raise EncodeError(f"SRP has io_class 0x0100 or 0xff00, not {io_class:#06x}")
    pair = (guid, extension) if io_class == IO_CLASS_REV10 else (extension, guid)
    try:
        return _PORT_ID.pack(*pair)
    except struct.error as error:
        raise EncodeError(f"not 64-bit numbers: {extension:#x}, {guid:#x}") from error
