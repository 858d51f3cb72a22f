"""SRP login: path query, CM connection with LOGIN_REQ in its private data, channels (facts: srp C.1, D).

Everything that can go wrong becomes an :class:`~srpha.core.seams.AddTargetError` with the errno ib_srp gives and one
sentence that the kernel only has in its log.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

from srpha.core.seams import AddTargetError, MadAddress, MadError, MadPortGoneError, MadTimeoutError, PortIdentity
from srpha.core.targets.add_target import TargetLine
from srpha.embedded.initiator.channel import RESERVED_CREDITS, Channel
from srpha.embedded.initiator.settings import InitiatorPort, InitiatorSettings
from srpha.embedded.rdma.rdma_port import CmRejectedError, ConnectError, ConnectOptions, RcConnection
from srpha.wire.class_port_info import ClassPortInfo
from srpha.wire.cm_reject import RejectReason
from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import Gid
from srpha.wire.mad import ManagementClass, Method, describe_status, read_header
from srpha.wire.sa import PathRecord, PathRecordMask, SaAttribute, decode_record, sa_request
from srpha.wire.srp import (
    FORMAT_DIRECT,
    IMMEDIATE_REQUESTED,
    LoginRequest,
    LoginResponse,
    MultichannelAction,
    decode_login_reject,
    decode_login_response,
    describe_login_reject,
)
from srpha.wire.srp_io import IMMEDIATE_OFFSET

_MIN_IT_IU: Final = 64
_IT_IU_HEAD: Final = 48 + 16 + 20
_REDIRECTS: Final = 3
"""Port redirections followed in one login."""
_LID_MULTICAST: Final = 0xC000


@dataclass(frozen=True, slots=True)
class Login:
    """A successful login: its channels (at least one) and the addresses it was made with."""

    channels: tuple[Channel, ...]
    sgid: Gid
    dgid: Gid


async def log_in(
    port: InitiatorPort,
    line: TargetLine,
    settings: InitiatorSettings,
    *,
    initiator_port_id: bytes | None = None,
    only_one: bool = False,
) -> Login:
    """Log in to the target of ``line``: the first channel ends older channels of the same I_T nexus, others join it.

    A later channel that fails only makes them fewer. ``initiator_port_id`` replaces the local port's own (fencing).
    Raises :class:`AddTargetError`; when that happens, or when cancelled, nothing is left open.
    """
    if line.dgid is None or line.service_id is None or line.pkey is None:
        raise AddTargetError(errno.ENXIO, f"{port.mad.name}: dest={line.dest}: the embedded fabric has no IP addresses")
    identity = local_identity(port)
    wanted = 1 if only_one else line.ch_count or settings.ch_count
    own_id = initiator_port_id or line.initiator_port_id(identity.gid)
    channels: list[Channel] = []
    complete = False
    dgid = line.dgid
    try:
        for number in range(wanted):
            action = MultichannelAction.MULTI if number else MultichannelAction.SINGLE
            try:
                channel, dgid = await _open_channel(port, line, settings, dgid, own_id, action, number)
            except AddTargetError:
                if not number:
                    raise
                break
            channels.append(channel)
        complete = True
    finally:
        if not complete:
            for channel in channels:
                channel.close()
    return Login(tuple(channels), identity.gid, dgid)


def local_identity(port: InitiatorPort) -> PortIdentity:
    """The local port's identity; ENODEV when its device is gone."""
    try:
        return port.mad.identity()
    except MadPortGoneError as error:
        raise AddTargetError(errno.ENODEV, f"{port.mad.name}: {error}") from error


async def find_path(port: InitiatorPort, line: TargetLine, settings: InitiatorSettings, dgid: Gid) -> PathRecord:
    """Ask the SA for the path to ``dgid`` as ib_srp does (ServiceID, DGID, SGID, NumbPath 1, P_Key)."""
    name = port.mad.name
    identity = local_identity(port)
    pkey = line.pkey or 0
    if not any((own ^ pkey) & 0x7FFF == 0 and own & 0x7FFF for own in identity.pkeys):
        raise AddTargetError(
            errno.ENOENT, f"{name}: P_Key {pkey:04x} is not in the port's table; ask the subnet's partition manager"
        )
    if not identity.sm_lid or not identity.lid:
        raise AddTargetError(errno.EAGAIN, f"{name}: the port has no LID or subnet manager yet; try again")
    query = PathRecord(service_id=line.service_id or 0, dgid=dgid, sgid=identity.gid, numb_path=1, pkey=pkey)
    mask = (
        PathRecordMask.SERVICE_ID
        | PathRecordMask.DGID
        | PathRecordMask.SGID
        | PathRecordMask.NUMB_PATH
        | PathRecordMask.PKEY
    )
    request = sa_request(Method.GET, SaAttribute.PATH_RECORD, transaction_id=0, mask=mask, record=query)
    address = MadAddress(lid=identity.sm_lid, sl=identity.sm_sl)
    try:
        reply = await port.mad.transact(
            address, request, timeout=settings.path_query_timeout, retries=settings.path_query_retries
        )
        header = read_header(reply)
        if header.status:
            reason = describe_status(ManagementClass.SUBN_ADM, header.status)
            raise AddTargetError(errno.EINVAL, f"{name}: the SA has no path to {dgid}: {reason}")
        path = decode_record(reply, PathRecord)
    except MadTimeoutError as error:
        raise AddTargetError(errno.ETIMEDOUT, f"{name}: the SA did not answer the path query to {dgid}") from error
    except MadError as error:
        raise AddTargetError(errno.EAGAIN, f"{name}: no path query to {dgid} now: {error}") from error
    except DecodeError as error:
        raise AddTargetError(errno.EINVAL, f"{name}: the SA's path to {dgid} is not valid: {error}") from error
    if path.dgid != dgid or not 0 < path.dlid < _LID_MULTICAST or not 0 < path.slid < _LID_MULTICAST:
        raise AddTargetError(errno.EINVAL, f"{name}: the SA's path to {dgid} is not valid: {path}")
    return path


async def _open_channel(
    port: InitiatorPort,
    line: TargetLine,
    settings: InitiatorSettings,
    dgid: Gid,
    own_id: bytes,
    action: MultichannelAction,
    number: int,
) -> tuple[Channel, Gid]:
    """One channel, and the port it was made to after redirections."""
    request = _login_request(line, settings, own_id, action, number)
    options = ConnectOptions(
        retry_count=line.tl_retry_count or settings.tl_retry_count,
        ack_timeout=settings.ack_timeout,
        max_cm_retries=settings.max_cm_retries,
        cm_response_timeout=settings.cm_response_timeout,
    )
    where = f"{port.mad.name} to {dgid}"
    for _ in range(_REDIRECTS + 1):
        path = await find_path(port, line, settings, dgid)
        where = f"{port.mad.name} to {dgid}"
        try:
            connection = await port.rdma.connect(path, line.service_id or 0, request.encode(), options)
        except CmRejectedError as error:
            redirected = _redirection(error)
            if redirected is None:
                raise AddTargetError(errno.ECONNRESET, f"{where}: {_refusal(error)}") from error
            dgid = redirected
        except ConnectError as error:
            raise AddTargetError(errno.ECONNRESET, f"{where}: {error}") from error
        else:
            return _accept(port, line, settings, connection, request, where), dgid
    raise AddTargetError(errno.ECONNRESET, f"{where}: redirected {_REDIRECTS + 1} times; check the target's ports")


def _login_request(
    line: TargetLine, settings: InitiatorSettings, own_id: bytes, action: MultichannelAction, number: int
) -> LoginRequest:
    length = _IT_IU_HEAD + 16 * (line.cmd_sg_entries or settings.cmd_sg_entries)
    if settings.use_immediate_data:
        length = max(length, IMMEDIATE_OFFSET + settings.max_immediate_data)
    if line.max_it_iu_size:
        length = max(_MIN_IT_IU, min(length, line.max_it_iu_size))
    immediate = settings.use_immediate_data and length > IMMEDIATE_OFFSET
    return LoginRequest(
        tag=number,
        requested_it_iu_length=length,
        flags=action | (IMMEDIATE_REQUESTED if immediate else 0),
        immediate_offset=IMMEDIATE_OFFSET if immediate else 0,
        initiator_port_id=own_id,
        target_port_id=line.target_port_id,
    )


def _accept(
    port: InitiatorPort,
    line: TargetLine,
    settings: InitiatorSettings,
    connection: RcConnection,
    request: LoginRequest,
    where: str,
) -> Channel:
    """Make a channel of a connection whose LOGIN_RSP makes sense; else disconnect."""
    problem = ""
    response = LoginResponse()
    try:
        response = decode_login_response(connection.private_data)
    except DecodeError as error:
        problem = str(error)
    else:
        if response.tag != request.tag:
            problem = f"its tag is {response.tag:#x}, not {request.tag:#x}"
        elif not RESERVED_CREDITS < response.limit_delta < 1 << 31:
            problem = f"it allows {response.limit_delta} requests; at least {RESERVED_CREDITS + 1} are needed"
        elif response.max_it_iu_length < _MIN_IT_IU:
            problem = f"it takes units of {response.max_it_iu_length} bytes; at least {_MIN_IT_IU} are needed"
        elif not response.buffer_formats & FORMAT_DIRECT:
            problem = "it does not take direct buffer descriptors"
    if problem:
        connection.disconnect()
        raise AddTargetError(errno.ECONNRESET, f"{where}: the target's SRP_LOGIN_RSP is of no use: {problem}")
    max_iu = min(response.max_it_iu_length, request.requested_it_iu_length)
    immediate = request.flags & response.flags & IMMEDIATE_REQUESTED
    return Channel(
        port.rdma,
        connection,
        req_lim=response.limit_delta,
        queue_size=line.queue_size or settings.queue_size,
        max_iu=max_iu,
        immediate_limit=min(settings.max_immediate_data, max_iu - IMMEDIATE_OFFSET) if immediate else 0,
    )


def _redirection(error: CmRejectedError) -> Gid | None:
    """Where a REJ sends us: reasons 24 (ClassPortInfo) and 25 (GID) in the additional information (IBA 12.6.7.2)."""
    try:
        if error.reason == RejectReason.PORT_CM_REDIRECT:
            return ClassPortInfo.decode(error.ari).redirect_gid
        if error.reason == RejectReason.PORT_REDIRECT:
            return Gid.from_bytes(error.ari[:16])
    except DecodeError:
        return None
    return None


def _refusal(error: CmRejectedError) -> str:
    """The REJ in words; for a consumer reject what SRP says about it."""
    if error.reason != RejectReason.CONSUMER_DEFINED:
        return str(error)
    try:
        return describe_login_reject(decode_login_reject(error.private_data).reason)
    except DecodeError as bad:
        return f"{error}; {bad}"
