"""Asymmetric logical unit access: REPORT and SET TARGET PORT GROUPS data (SPC-4 5.15, 6.37, 6.45)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from srpha.wire.errors import DecodeError, EncodeError

SUPPORT_ALL: Final = 0xDF
"""Support bits of all states: T, O, LBD, U, S, AN, AO."""


class AccessState(IntEnum):
    """Asymmetric access states."""

    ACTIVE_OPTIMIZED = 0x0
    ACTIVE_NON_OPTIMIZED = 0x1
    STANDBY = 0x2
    UNAVAILABLE = 0x3
    LBA_DEPENDENT = 0x4
    OFFLINE = 0xE
    TRANSITIONING = 0xF


class StatusCode(IntEnum):
    """Why a group is in its state."""

    NONE = 0
    ALTERED_BY_SET = 1
    ALTERED_IMPLICITLY = 2


@dataclass(frozen=True, slots=True)
class TargetPortGroup:
    """One target port group descriptor; ``ports`` are relative target port identifiers."""

    group: int
    state: AccessState
    ports: tuple[int, ...] = ()
    preferred: bool = False
    support: int = SUPPORT_ALL
    status_code: int = StatusCode.NONE
    vendor: int = 0

    def encode(self) -> bytes:
        """8 bytes and 4 per port."""
        if len(self.ports) > 0xFF or not 0 <= self.group <= 0xFFFF:
            raise EncodeError(f"target port group {self.group} with {len(self.ports)} ports does not fit")
        if not all(0 <= value <= 0xFF for value in (self.support, self.status_code, self.vendor)):
            raise EncodeError(f"{self!r} does not fit its fields")
        if not all(0 < port <= 0xFFFF for port in self.ports):
            raise EncodeError(f"relative target port identifiers are 1..65535, got {self.ports}")
        head = bytes([self.preferred << 7 | self.state, self.support])
        tail = bytes([0, self.status_code, self.vendor, len(self.ports)])
        return head + self.group.to_bytes(2, "big") + tail + b"".join([port.to_bytes(4, "big") for port in self.ports])


@dataclass(frozen=True, slots=True)
class TargetPortGroups:
    """REPORT TARGET PORT GROUPS data; ``transition_seconds`` 0 means not told (a host assumes 60)."""

    groups: tuple[TargetPortGroup, ...]
    transition_seconds: int | None = None
    """Implicit transition time; only the extended header has it, ``None`` stands for the short header."""

    def group_of(self, relative_port: int) -> TargetPortGroup | None:
        """The group that holds a relative target port."""
        return next((group for group in self.groups if relative_port in group.ports), None)


def encode_rtpg(report: TargetPortGroups) -> bytes:
    """REPORT TARGET PORT GROUPS data, with the extended header when a transition time is given."""
    body = b"".join([group.encode() for group in report.groups])
    if report.transition_seconds is not None:
        if not 0 <= report.transition_seconds <= 0xFF:
            raise EncodeError(f"implicit transition time is 0..255 s, got {report.transition_seconds}")
        body = bytes([0x10, report.transition_seconds, 0, 0]) + body
    return len(body).to_bytes(4, "big") + body


def decode_rtpg(data: bytes) -> TargetPortGroups:
    """Read REPORT TARGET PORT GROUPS data; the header's form is told by its format field."""
    if len(data) < 4:
        raise DecodeError(f"RTPG data has at least 4 bytes, got {len(data)}")
    end = int.from_bytes(data[:4], "big") + 4
    if end > len(data):
        raise DecodeError(f"RTPG data says {end} bytes, got {len(data)}")
    at = 4
    transition = None
    # the format field stands in bits 6..4, where a short-header descriptor has reserved bits
    if end >= 8 and data[4] & 0x70 == 0x10:
        transition = data[5]
        at = 8
    groups: list[TargetPortGroup] = []
    while at < end:
        if at + 8 > end:
            raise DecodeError(f"target port group descriptor at {at} reaches past the end {end}")
        count = data[at + 7]
        stop = at + 8 + 4 * count
        if stop > end:
            raise DecodeError(f"target port group at {at} with {count} ports reaches past the end {end}")
        groups.append(
            TargetPortGroup(
                int.from_bytes(data[at + 2 : at + 4], "big"),
                _state(data[at] & 0x0F),
                tuple(int.from_bytes(data[port + 2 : port + 4], "big") for port in range(at + 8, stop, 4)),
                bool(data[at] & 0x80),
                data[at + 1],
                data[at + 5],
                data[at + 6],
            )
        )
        at = stop
    return TargetPortGroups(tuple(groups), transition)


def encode_stpg(states: Sequence[tuple[int, AccessState]]) -> bytes:
    """SET TARGET PORT GROUPS parameter list: (group, wanted state) pairs."""
    if not all(0 <= group <= 0xFFFF for group, _ in states):
        raise EncodeError(f"target port groups have 16-bit numbers, got {states}")
    return bytes(4) + b"".join([bytes([state, 0]) + group.to_bytes(2, "big") for group, state in states])


def decode_stpg(data: bytes) -> list[tuple[int, AccessState]]:
    """Read a SET TARGET PORT GROUPS parameter list."""
    if len(data) < 4 or len(data) % 4:
        raise DecodeError(f"an STPG list has 4 bytes and 4 per group, got {len(data)}")
    return [(int.from_bytes(data[at + 2 : at + 4], "big"), _state(data[at] & 0x0F)) for at in range(4, len(data), 4)]


def _state(value: int) -> AccessState:
    known = AccessState._value2member_map_.get(value)
    if not isinstance(known, AccessState):
        raise DecodeError(f"reserved asymmetric access state {value:#x}")
    return known
