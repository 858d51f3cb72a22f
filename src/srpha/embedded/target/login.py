"""Whether a target lets an initiator port in, and on which terms (SRP r16a 5.4 and 6.2 to 6.4, SRP-2 immediate data).

A pure decision: :func:`judge_login` reads the LOGIN_REQ and what the target knows, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from srpha.embedded.target.spec import TargetLimits
from srpha.wire.errors import DecodeError
from srpha.wire.srp import (
    FORMAT_DIRECT,
    FORMAT_INDIRECT,
    IMMEDIATE_REQUESTED,
    LoginReject,
    LoginRejectReason,
    LoginRequest,
    LoginResponse,
    MultichannelAction,
    MultichannelResult,
    decode_login_request,
)
from srpha.wire.srp_io import CMD_LENGTH, RSP_LENGTH

MIN_IT_IU: Final = 64
"""Shortest limit an initiator may ask for: the LOGIN_REQ itself (SRP 6.2)."""
MAX_TI_IU: Final = RSP_LENGTH + 4 + 252
"""Longest unit a target sends: RSP with response data and full sense."""


@dataclass(frozen=True, slots=True)
class Population:
    """Channels that exist when a login comes: of its I_T nexus, and of the whole target."""

    of_nexus: int
    of_target: int


@dataclass(frozen=True, slots=True)
class LoginTerms:
    """An accepted login. ``immediate_offset`` is 0 where immediate data was not agreed on."""

    request: LoginRequest
    request_limit: int
    immediate_offset: int
    result: MultichannelResult

    @property
    def initiator_port_id(self) -> bytes:
        return self.request.initiator_port_id

    @property
    def max_iu(self) -> int:
        """Longest unit that the initiator may send, as it asked for."""
        return self.request.requested_it_iu_length

    @property
    def ends_nexus(self) -> bool:
        """Single channel action: what there was of this I_T nexus ends before the answer goes out."""
        return self.request.multichannel_action == MultichannelAction.SINGLE

    def response(self, limits: TargetLimits) -> bytes:
        """The 52-byte LOGIN_RSP for the private data of the CM REP."""
        return LoginResponse(
            limit_delta=self.request_limit,
            tag=self.request.tag,
            max_it_iu_length=limits.max_iu,
            max_ti_iu_length=MAX_TI_IU,
            buffer_formats=supported_formats(limits),
            flags=self.result | (IMMEDIATE_REQUESTED if self.immediate_offset else 0),
        ).encode()


class LoginRefusedError(Exception):
    """A login that gets LOGIN_REJ; ``tag`` is the request's, 0 when it could not be read."""

    def __init__(self, reason: LoginRejectReason, tag: int) -> None:
        super().__init__(reason.text)
        self.reason = reason
        self.tag = tag

    def reject(self, limits: TargetLimits) -> bytes:
        """The 32-byte LOGIN_REJ for the private data of the CM REJ."""
        return LoginReject(reason=self.reason, tag=self.tag, buffer_formats=supported_formats(limits)).encode()


def supported_formats(limits: TargetLimits) -> int:
    """Bits of the data buffer descriptor formats that a target takes."""
    return FORMAT_DIRECT | (FORMAT_INDIRECT if limits.indirect else 0)


def read_login(private_data: bytes) -> LoginRequest:
    """The LOGIN_REQ in a CM REQ; raises :class:`LoginRefusedError` when it is none."""
    try:
        return decode_login_request(private_data)
    except DecodeError as error:
        raise LoginRefusedError(LoginRejectReason.UNABLE_TO_ESTABLISH, 0) from error


def judge_login(
    request: LoginRequest, *, target_port_id: bytes, enabled: bool, limits: TargetLimits, population: Population
) -> LoginTerms:
    """The terms of a login, or :class:`LoginRefusedError` with the first reason that applies.

    ``enabled`` is that of the HCA port: a disabled one refuses with insufficient resources, as LIO's does.
    """
    single = request.multichannel_action == MultichannelAction.SINGLE
    others = 0 if single else population.of_nexus
    reason = _reason(request, target_port_id, enabled, limits, population, others)
    if reason is not None:
        raise LoginRefusedError(reason, request.tag)
    result = MultichannelResult.NO_CHANNEL
    if population.of_nexus:
        result = MultichannelResult.TERMINATED if single else MultichannelResult.MAINTAINED
    return LoginTerms(request, limits.request_limit, _immediate_offset(request, limits), result)


def _reason(
    request: LoginRequest,
    target_port_id: bytes,
    enabled: bool,
    limits: TargetLimits,
    population: Population,
    others: int,
) -> LoginRejectReason | None:
    if not MIN_IT_IU <= request.requested_it_iu_length <= limits.max_iu:
        return LoginRejectReason.IU_TOO_LARGE
    if request.target_port_id != target_port_id:
        return LoginRejectReason.CANNOT_ASSOCIATE
    if not enabled:
        return LoginRejectReason.INSUFFICIENT_RESOURCES
    if request.buffer_formats & ~supported_formats(limits) or not request.buffer_formats:
        return LoginRejectReason.UNSUPPORTED_FORMAT
    action = request.multichannel_action
    if action not in (MultichannelAction.SINGLE, MultichannelAction.MULTI):
        return LoginRejectReason.UNABLE_TO_ESTABLISH
    if action == MultichannelAction.MULTI and not limits.multichannel:
        return LoginRejectReason.NO_MULTICHANNEL
    if others >= limits.channels_per_nexus:
        return LoginRejectReason.CHANNEL_LIMIT
    if population.of_target - population.of_nexus + others >= limits.channels:
        return LoginRejectReason.INSUFFICIENT_RESOURCES
    return None


def _immediate_offset(request: LoginRequest, limits: TargetLimits) -> int:
    """Where immediate data stands in a CMD; 0 when it is not asked for, is nonsense, or is not granted."""
    if not limits.immediate_data or not request.flags & IMMEDIATE_REQUESTED:
        return 0
    offset = request.immediate_offset
    return offset if CMD_LENGTH + 4 <= offset < request.requested_it_iu_length else 0
