"""Why ib_srp did not log in: one sentence with the remedy, from its errno and what it wrote to the kernel log.

The errno alone rarely tells (a refusal of any kind is ECONNRESET); the reason is in the log, as a number (facts: srp
C.1). Other logins write to the same log at the same time, so lines that name another target are left out.
"""

from __future__ import annotations

import errno
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from srpha.core.targets.add_target import TargetLine
from srpha.wire.cm_reject import RejectReason, describe_reject
from srpha.wire.identifiers import Gid
from srpha.wire.srp import LoginRejectReason, describe_login_reject


@dataclass(frozen=True, slots=True)
class LoginFailure:
    """A failed login: the errno for whoever tries again, and the sentence for the operator."""

    errno: int
    text: str


_HOST_LINE: Final = re.compile(r"scsi host(\d{1,9}): (.*)", re.ASCII)
_DRIVER_LINE: Final = re.compile(r"ib_srp: (.*)")
_GID: Final = re.compile(r"(?<![0-9a-f:])[0-9a-f]{4}(?::[0-9a-f]{4}){7}(?![0-9a-f:])")
_CONNECTION: Final = re.compile(r"Connection (\d+)/\d+ to (\S+) failed")
_DUPLICATE: Final = re.compile(r"Already connected to target port with id_ext=([0-9a-f]{16});ioc_guid=([0-9a-f]{16})")
_NEW_TARGET: Final = re.compile(r"new target: id_ext [0-9a-f]{16} ioc_guid [0-9a-f]{16} .*\bdest (\S+)")
_SCAN_FAILED: Final = "SCSI scan failed"

_Cause = Callable[[re.Match[str]], str]
_CAUSES: Final[tuple[tuple[re.Pattern[str], _Cause], ...]] = (
    (re.compile(r"REJ reason 0x([0-9a-f]{1,8})\b"), lambda m: describe_reject(int(m[1], 16))),
    (re.compile(r"REJ reason: stale connection"), lambda _: describe_reject(RejectReason.STALE_CONNECTION)),
    (
        re.compile(r"REJ reason: IB_CM_REJ_DUPLICATE_LOCAL_COMM_ID"),
        lambda _: describe_reject(RejectReason.DUPLICATE_LOCAL_COMM_ID),
    ),
    (re.compile(r"REJ reason: IB_CM_REJ_PORT_REDIRECT"), lambda _: describe_reject(RejectReason.PORT_REDIRECT)),
    (
        re.compile(r"REJ reason: IB_CM_REJ_CONSUMER_DEFINED, opcode 0x([0-9a-f]{2})"),
        lambda m: (
            f"CM REJ reason {RejectReason.CONSUMER_DEFINED}: consumer reject without an SRP_LOGIN_REJ, its opcode is "
            f"{m[1]} (what listens on this service_id may be no SRP target; discover it again)"
        ),
    ),
    (
        re.compile(r"SRP_LOGIN_REJ: requested max_it_iu_len too large"),
        lambda _: describe_login_reject(LoginRejectReason.IU_TOO_LARGE),
    ),
    (re.compile(r"SRP LOGIN .*\bREJECTED, reason 0x([0-9a-f]{8})"), lambda m: describe_login_reject(int(m[1], 16))),
    (
        re.compile(r"Unhandled RSP opcode (0x[0-9a-f]{1,2}|0)\b"),
        lambda m: f"the target accepted with opcode {m[1]} instead of an SRP_LOGIN_RSP (check what listens there)",
    ),
    (
        re.compile(r"Sending CM REQ failed"),
        lambda _: "nobody answered the CM request (check that the target port is up and its SRP service runs)",
    ),
    (
        re.compile(r"Path record query failed|Got failed path rec status"),
        lambda _: (
            "the subnet administrator gave no path (check that the subnet manager runs, that dgid is on the subnet "
            "and that both ports are in the partition of pkey)"
        ),
    ),
    (re.compile(r"Path resolution failed"), lambda _: "no RDMA route to dest was found (check the IP route and src)"),
    (
        re.compile(r"No route available from"),
        lambda _: "no RDMA device has a route to dest (check addresses, src and network namespace)",
    ),
    (re.compile(r"Resolving address \S+ failed"), lambda _: "dest was not resolved (check that it answers ARP or ND)"),
    (
        re.compile(r"FR pool allocation failed|ib_alloc_mr\(\) failed"),
        lambda _: "the HCA has no memory regions left (lower max_cmd_per_lun, max_sect or ch_count)",
    ),
    (
        re.compile(r"QP creation failed for dev \S+: (-?\d+)"),
        lambda m: f"no queue pair could be made, error {m[1]} (lower queue_size or ch_count; check pkey)",
    ),
    (
        re.compile(r"(unknown parameter or missing value|(?:bad|invalid|unknown) .*param|bad .*(?:value|count|size))"),
        lambda m: f"the driver does not take the line: {m.string[:120]} (this kernel may not know the option)",
    ),
    (
        re.compile(_SCAN_FAILED),
        lambda _: "it lost channels during the SCSI scan and is removed again (lower ch_count; see the target's log)",
    ),
)

_BY_ERRNO: Final[Mapping[int, str]] = {
    errno.EINVAL: "the driver does not take the line (this kernel may not know one of its options)",
    errno.ENOMEM: "not enough memory for the login (lower queue_size, cmd_sg_entries or ch_count)",
    errno.ENOENT: "pkey is not in the local port's P_Key table (have the subnet manager add the port to the partition)",
    errno.ETIMEDOUT: "the subnet administrator did not answer the path query (check the subnet manager)",
    errno.ECONNRESET: "the target refused the login or did not answer it (see the kernel log and the target's log)",
    errno.ENODEV: "the driver could not make the SCSI host (see the kernel log)",
    errno.ENXIO: "dest was not resolved (check that it answers ARP or ND)",
    errno.EHOSTUNREACH: "dest cannot be reached (check the route and that the target listens)",
    errno.EINTR: "the login was interrupted by a signal; it will be tried again",
    errno.EACCES: "add_target may not be written (it takes root)",
    errno.EPERM: "add_target may not be written (it takes root)",
}


def explain_failure(
    code: int, port: str, line: TargetLine, log: Sequence[str], sgid: Gid | None = None, trouble: str = ""
) -> LoginFailure:
    """The sentence for a login that ended with errno ``code``.

    ``log`` is what the kernel logged since the login began, ``sgid`` the GID of the local port, if known, and
    ``trouble`` says why there is no log, empty when there is one. A path query that the SA refused comes back from
    the kernel as EINVAL, though the line was taken; it is given as EHOSTUNREACH, since it may succeed next time.
    """
    where = f"{port} to {line.dest if line.dest is not None else line.dgid}"
    groups, loose = _grouped(log)
    own = [group for group in groups.values() if _may_be_of(group, line, sgid)]
    named = [group for group in own if _names(group, line)]
    causes = _distinct(_cause_of(group) for group in named or own) or _distinct(_cause_of([text]) for text in loose)
    if code == errno.EEXIST:
        text = (
            f"already connected to id_ext={line.id_ext:016x}, ioc_guid={line.ioc_guid:016x}, "
            f"initiator_ext={line.initiator_extension:016x}; another connection needs another initiator_ext"
        )
        return LoginFailure(code, f"{where}: {text}")
    if code == errno.EINVAL and any("path rec" in item.lower() for group in own for item in group):
        code = errno.EHOSTUNREACH
    symbol = errno.errorcode.get(code, str(code))
    if causes:
        return LoginFailure(code, f"{where}: {' or '.join(causes)}")
    text = _BY_ERRNO.get(code, "the login failed (see the kernel log)")
    hint = f"; {trouble}" if trouble else ""
    return LoginFailure(code, f"{where}: {symbol}, {text}{hint}")


def scan_failure(port: str, line: TargetLine, log: Sequence[str], sgid: Gid | None = None) -> LoginFailure | None:
    """For a login that ended well: whether the log says that its host is removed again (facts: srp C.1)."""
    groups, _ = _grouped(log)
    for group in groups.values():
        if _may_be_of(group, line, sgid) and any(_SCAN_FAILED in text for text in group):
            where = f"{port} to {line.dest if line.dest is not None else line.dgid}"
            return LoginFailure(errno.ENODEV, f"{where}: {_cause_of([_SCAN_FAILED])}")
    return None


def destinations(log: Iterable[str]) -> dict[int, str]:
    """IP addresses of RDMA/CM logins by host number, from what the driver logs when one has ended well.

    sysfs does not show them (facts: srp C.2).
    """
    groups, _ = _grouped(log)
    found: dict[int, str] = {}
    for host, group in groups.items():
        for text in group:
            if match := _NEW_TARGET.search(text):
                try:
                    found[host] = str(ipaddress.ip_address(match[1]))
                except ValueError:
                    continue
    return found


def _grouped(log: Iterable[str]) -> tuple[dict[int, list[str]], list[str]]:
    """What ib_srp wrote, by the number of the host that a login makes first of all, and without such a number."""
    groups: dict[int, list[str]] = {}
    loose: list[str] = []
    for record in log:
        if host := _HOST_LINE.fullmatch(record):
            groups.setdefault(int(host[1]), []).append(host[2])
        elif driver := _DRIVER_LINE.fullmatch(record):
            loose.append(driver[1])
    return groups, loose


def _may_be_of(group: Sequence[str], line: TargetLine, sgid: Gid | None) -> bool:
    """Nothing in the group speaks of another login, and its first channel is not the one that went well."""
    for text in group:
        if duplicate := _DUPLICATE.search(text):
            if (int(duplicate[1], 16), int(duplicate[2], 16)) != (line.id_ext, line.ioc_guid):
                return False
            continue
        connection = _CONNECTION.search(text)
        if connection is not None and int(connection[1]) > 0:
            return False
        if connection is not None and line.dest is not None and not _same_address(connection[2], line.dest.host):
            return False
        gids = {Gid.from_hex(found) for found in _GID.findall(text)}
        strangers = gids - ({line.dgid, sgid} if sgid is not None else {line.dgid})
        if line.dest is None and strangers and (sgid is not None or line.dgid not in gids):
            return False
    return True


def _names(group: Sequence[str], line: TargetLine) -> bool:
    """The group names the target by its address."""
    if line.dest is not None:
        host = line.dest.host
        return any((found := _CONNECTION.search(text)) and _same_address(found[2], host) for text in group)
    return any(line.dgid is not None and str(line.dgid) in text for text in group)


def _same_address(text: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(text) == ipaddress.ip_address(host)
    except ValueError:
        return False


def _cause_of(group: Iterable[str]) -> str:
    """The first cause that a line of the group tells: what follows from it comes after it."""
    for text in group:
        for pattern, describe in _CAUSES:
            if match := pattern.search(text):
                return describe(match)
    return ""


def _distinct(causes: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(cause for cause in causes if cause))
