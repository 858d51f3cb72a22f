"""Device Management: what an I/O unit tells of its controllers and their services (IBA 16.3, SRP annex B.7).

A DM MAD has 64 bytes of header (24 common, 40 reserved) and 192 bytes of attribute. The target chooses the names in it:
they go through :func:`srp_id_ext` or :func:`display_text` before anybody uses or sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, IntFlag
from typing import Final

from srpha.wire.errors import DecodeError, EncodeError
from srpha.wire.layout import Buffer, Structure, raw, structure, uint
from srpha.wire.mad import MadHeader, ManagementClass, Method, build_mad, read_header

DM_DATA: Final = 64
"""Offset of the attribute in a DM MAD."""
DM_CLASS_VERSION: Final = 1
MAX_SLOTS: Final = 255
ENTRIES_PER_MAD: Final = 4

SRP_SERVICE_PREFIX: Final = b"SRP.T10:"
SRP_IO_CLASS: Final = 0x0100
SRP_IO_CLASS_REV10: Final = 0xFF00
SRP_IO_SUBCLASS: Final = 0x609E
SRP_PROTOCOL: Final = 0x0108
SRP_PROTOCOL_VERSION: Final = 1


class DmAttribute(IntEnum):
    """Attributes of the class (IBA 16.3.3, table 279)."""

    CLASS_PORT_INFO = 0x0001
    NOTICE = 0x0002
    IO_UNIT_INFO = 0x0010
    IO_CONTROLLER_PROFILE = 0x0011
    SERVICE_ENTRIES = 0x0012
    DIAGNOSTIC_TIMEOUT = 0x0020
    PREPARE_TO_TEST = 0x0021
    TEST_DEVICE_ONCE = 0x0022
    TEST_DEVICE_LOOP = 0x0023
    DIAG_CODE = 0x0024


class DmStatus(IntEnum):
    """Class-specific status values, as they stand in the MAD status (IBA 16.3.1.1)."""

    NO_IOC = 0x0100
    NO_SERVICE_ENTRIES = 0x0200
    IOC_FAILURE = 0x8000


class SlotState(IntEnum):
    """Entries of IOUnitInfo's controller list (IBA 16.3.3.3); other values are reserved."""

    EMPTY = 0x0
    PRESENT = 0x1
    NO_SLOT = 0xF


class IocCapability(IntFlag):
    """Operations that a controller can do (IBA 16.3.3.4): to or from it."""

    SEND_TO = 0x01
    SEND_FROM = 0x02
    RDMA_READ_TO = 0x04
    RDMA_READ_FROM = 0x08
    RDMA_WRITE_TO = 0x10
    RDMA_WRITE_FROM = 0x20
    ATOMIC_TO = 0x40
    ATOMIC_FROM = 0x80


@structure(length=132)
class IoUnitInfo(Structure):
    """IOUnitInfo, 132 bytes (IBA 16.3.3.3). ``change_id`` moves whenever the controller list does."""

    change_id: int = uint(0, 16)
    max_controllers: int = uint(2, 8)
    option_rom: int = uint(3, 1)
    diagnostic_device_id: int = uint(3, 1, bit=1)
    controllers: bytes = raw(4, 128)

    def slot(self, number: int) -> int:
        """The 4-bit entry of slot ``number``, 1 to ``max_controllers``; normally a :class:`SlotState`."""
        if not 1 <= number <= self.max_controllers:
            raise EncodeError(f"slot {number} is not one of 1 to {self.max_controllers}")
        byte = self.controllers[(number - 1) // 2]
        return byte >> 4 if number % 2 else byte & 0xF

    @property
    def present_slots(self) -> tuple[int, ...]:
        """Numbers of the slots that hold a controller, ascending."""
        return tuple(n for n in range(1, self.max_controllers + 1) if self.slot(n) == SlotState.PRESENT)

    @classmethod
    def of_slots(cls, states: Sequence[int], *, change_id: int) -> IoUnitInfo:
        """IOUnitInfo of a unit whose slot n has ``states[n - 1]``."""
        if len(states) > MAX_SLOTS:
            raise EncodeError(f"an I/O unit has at most {MAX_SLOTS} slots, not {len(states)}")
        entries = bytearray(128)
        for index, state in enumerate(states):
            if not 0 <= state <= 0xF:
                raise EncodeError(f"a slot state has 4 bits, got {state}")
            entries[index // 2] |= state if index % 2 else state << 4
        return cls(change_id=change_id, max_controllers=len(states), controllers=bytes(entries))


@structure(length=128)
class IoControllerProfile(Structure):
    """IOControllerProfile, 128 bytes (IBA 16.3.3.4). ``id_string`` may lack a terminating zero."""

    guid: int = uint(0, 64)
    vendor_id: int = uint(8, 24)
    device_id: int = uint(12, 32)
    device_version: int = uint(16, 16)
    subsystem_vendor_id: int = uint(20, 24)
    subsystem_id: int = uint(24, 32)
    io_class: int = uint(28, 16)
    io_subclass: int = uint(30, 16)
    protocol: int = uint(32, 16)
    protocol_version: int = uint(34, 16)
    service_connections: int = uint(36, 16)
    initiators_supported: int = uint(38, 16)
    send_queue_depth: int = uint(40, 16)
    rdma_read_depth: int = uint(43, 8)
    send_message_size: int = uint(44, 32)
    rdma_transfer_size: int = uint(48, 32)
    operation_capabilities: int = uint(52, 8)
    service_capabilities: int = uint(53, 8)
    service_entries: int = uint(54, 8)
    id_string: bytes = raw(64, 64)

    @property
    def is_srp(self) -> bool:
        """Whether class, subclass and protocol are those of SRP, revision 10 or 16a (SRP annex B.7)."""
        return (
            self.io_class in (SRP_IO_CLASS, SRP_IO_CLASS_REV10)
            and self.io_subclass == SRP_IO_SUBCLASS
            and self.protocol == SRP_PROTOCOL
        )

    @property
    def id_text(self) -> str:
        return display_text(self.id_string)


@structure(length=48)
class ServiceEntry(Structure):
    """One service of a controller: name (40 bytes) and service ID (IBA 16.3.3.5)."""

    name: bytes = raw(0, 40)
    service_id: int = uint(40, 64)

    @property
    def id_ext(self) -> int | None:
        """The SRP identifier extension, or None when this is no well-formed SRP service."""
        return srp_id_ext(self.name)

    @property
    def name_text(self) -> str:
        return display_text(self.name)

    @classmethod
    def of_srp(cls, id_ext: int, service_id: int) -> ServiceEntry:
        """The service entry of an SRP target port."""
        return cls(name=SRP_SERVICE_PREFIX + f"{id_ext:016X}".encode("ascii"), service_id=service_id)


@structure(length=192)
class ServiceEntries(Structure):
    """Four service entries, 192 bytes (IBA 16.3.3.5)."""

    entry0: bytes = raw(0, 48)
    entry1: bytes = raw(48, 48)
    entry2: bytes = raw(96, 48)
    entry3: bytes = raw(144, 48)

    @property
    def entries(self) -> tuple[ServiceEntry, ServiceEntry, ServiceEntry, ServiceEntry]:
        return (
            ServiceEntry.decode(self.entry0),
            ServiceEntry.decode(self.entry1),
            ServiceEntry.decode(self.entry2),
            ServiceEntry.decode(self.entry3),
        )

    @classmethod
    def of(cls, entries: Sequence[ServiceEntry]) -> ServiceEntries:
        """The attribute that holds up to four ``entries``."""
        if len(entries) > ENTRIES_PER_MAD:
            raise EncodeError(f"a ServiceEntries attribute holds {ENTRIES_PER_MAD} entries, not {len(entries)}")
        return cls.decode(b"".join(entry.encode() for entry in entries).ljust(cls.LENGTH, b"\0"))


def service_entries_modifier(slot: int, first: int, last: int) -> int:
    """Attribute modifier that asks for services ``first`` to ``last`` (0-based, inclusive, at most 4) of ``slot``."""
    if not (1 <= slot <= MAX_SLOTS and 0 <= first <= last <= 255 and last - first < ENTRIES_PER_MAD):
        raise EncodeError(f"no ServiceEntries query for slot {slot}, services {first} to {last}")
    return slot << 16 | last << 8 | first


def read_service_entries_modifier(modifier: int) -> tuple[int, int, int]:
    """Slot, first and last service of a modifier; raises :class:`DecodeError` for a range nobody may ask for."""
    slot, last, first = modifier >> 16, modifier >> 8 & 0xFF, modifier & 0xFF
    if not (1 <= slot <= MAX_SLOTS and first <= last and last - first < ENTRIES_PER_MAD):
        raise DecodeError(f"ServiceEntries modifier {modifier:#010x} names no valid range")
    return slot, first, last


def dm_request(
    method: int, attribute: int, *, transaction_id: int, modifier: int = 0, attribute_data: Structure | None = None
) -> bytes:
    """A DM request, 256 bytes. ``attribute_data`` is what a Set writes."""
    header = MadHeader(
        mgmt_class=ManagementClass.DEVICE_MGMT,
        class_version=DM_CLASS_VERSION,
        method=method,
        transaction_id=transaction_id,
        attribute_id=attribute,
        attribute_modifier=modifier,
    )
    return build_mad(header, b"" if attribute_data is None else attribute_data.encode(), at=DM_DATA)


def dm_response(request: Buffer, attribute_data: Structure | None = None, *, status: int = 0) -> bytes:
    """The answer to a DM request, 256 bytes: ``attribute_data``, or a zero attribute with an error ``status``."""
    header = read_header(request).response(status)
    return build_mad(header, b"" if attribute_data is None else attribute_data.encode(), at=DM_DATA)


def read_dm_header(mad: Buffer) -> MadHeader:
    """Header of a received DM MAD; raises :class:`DecodeError` unless length, class and versions are right."""
    header = read_header(mad)
    if header.mgmt_class != ManagementClass.DEVICE_MGMT or header.class_version != DM_CLASS_VERSION:
        raise DecodeError(
            f"class {header.mgmt_class:#04x} version {header.class_version} is not Device Management version 1"
        )
    return header


def read_io_unit_info(mad: Buffer) -> IoUnitInfo:
    """The IOUnitInfo of a successful response."""
    _expect(mad, DmAttribute.IO_UNIT_INFO)
    return IoUnitInfo.decode(mad, DM_DATA)


def read_io_controller_profile(mad: Buffer) -> IoControllerProfile:
    """The IOControllerProfile of a successful response; raises :class:`DecodeError` for a controller without a GUID."""
    _expect(mad, DmAttribute.IO_CONTROLLER_PROFILE)
    profile = IoControllerProfile.decode(mad, DM_DATA)
    if profile.guid == 0:
        raise DecodeError("the I/O controller has GUID 0")
    return profile


def read_service_entries(mad: Buffer, first: int, last: int) -> tuple[ServiceEntry, ...]:
    """Services ``first`` to ``last`` (0-based, inclusive, at most 4) of a successful response to that query."""
    _expect(mad, DmAttribute.SERVICE_ENTRIES)
    if not 0 <= last - first < ENTRIES_PER_MAD:
        raise EncodeError(f"a ServiceEntries answer does not hold services {first} to {last}")
    return ServiceEntries.decode(mad, DM_DATA).entries[: last - first + 1]


def _expect(mad: Buffer, attribute: DmAttribute) -> None:
    header = read_dm_header(mad)
    if header.method != Method.GET_RESP or header.attribute_id != attribute or header.status != 0:
        raise DecodeError(
            f"not a good {attribute.name} response: method {header.method:#04x}, "
            f"attribute {header.attribute_id:#06x}, status {header.status:#06x}"
        )


def srp_id_ext(service_name: bytes) -> int | None:
    """The identifier extension in an SRP service name, or None for any other name.

    The name is ``SRP.T10:`` and exactly 16 hex digits, either ended there (zero bytes to the end of the field) or
    followed by ``:`` and text reserved by T10 (SRP annex B.7). Everything else is refused: the text is a stranger's.
    """
    text = service_name.rstrip(b"\0")
    if not text.startswith(SRP_SERVICE_PREFIX):
        return None
    digits, tail = text[len(SRP_SERVICE_PREFIX) : 24], text[24:]
    if len(digits) != 16 or not all(c in b"0123456789abcdefABCDEF" for c in digits):
        return None
    if tail and not (tail.startswith(b":") and all(0x20 <= c < 0x7F for c in tail)):
        return None
    return int(digits, 16)


def display_text(field: Buffer) -> str:
    """Text of a fixed field up to its first zero byte, safe for terminals and logs.

    Anything but printable ASCII becomes ``?``; blanks at the end are dropped.
    """
    text = bytes(field).split(b"\0", 1)[0]
    return "".join(chr(c) if 0x20 <= c < 0x7F else "?" for c in text).rstrip()
