"""The shape of ``srpha.toml``: tables, keys, defaults and what is allowed. Meaning across files: ``config.py``.

The descriptions here are the documentation: example file, reference page and JSON schema are made from them.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from srpha.core.connections.attempts import BackOff
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.core.recovery.remote_port import RemotePortTimers
from srpha.core.targets.static_targets import parse_static_target
from srpha.core.targets.target_mask import MASK_DIGITS, parse_mask, parse_port_masks
from srpha.daemon.settings import Settings

CONFIG_FILE: Final = "/etc/srpha/srpha.toml"
RULES_FILE: Final = "/etc/srp_daemon.conf"
OPENIB_FILES: Final = ("/etc/rdma/rdma.conf", "/etc/infiniband/openib.conf")
CONTROL_SOCKET: Final = "/run/srpha/control.sock"

_DAEMON: Final = Settings()
_SCAN: Final = ScanSettings()
_RETRY: Final = BackOff()
_TIMERS: Final = RemotePortTimers()
_WORDS: Final = ("dgid", "dgid-swapped", "none")
_DAY: Final = 86400.0


def _mask_reader(key: str) -> BeforeValidator:
    def read(value: object) -> object:
        if isinstance(value, str):
            parse_mask(value, MASK_DIGITS[key])
        return value

    return BeforeValidator(read)


def _read_port(value: object) -> object:
    if isinstance(value, str):
        parse_port_masks([value])
    return value


def _read_timer(value: object) -> object:
    if isinstance(value, bool) or not (isinstance(value, int) or value == "off"):
        raise ValueError('give whole seconds, or "off"')
    return None if value == "off" else value


def _read_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("give a number of seconds")
    return value


def _read_deadline(value: object) -> object:
    if value != "off" and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 31):
        raise ValueError('give whole seconds from 1, or "off"')
    return value


def _read_extension(value: object) -> object:
    if isinstance(value, str) and value not in _WORDS and not re.fullmatch(r"[0-9a-fA-F]{16}", value, re.ASCII):
        raise ValueError("give dgid, dgid-swapped, none, or 16 hex digits")
    return value


def _read_retry(value: object) -> object:
    if isinstance(value, bool) or not (value in ("queue", "fail") or (isinstance(value, int) and 1 <= value < 1 << 31)):
        raise ValueError('give "queue", "fail", or a number of checks from 1')
    return value


def _read_path(value: object) -> object:
    if isinstance(value, str) and (not value.startswith("/") or not value.isprintable() or len(value) > 4095):
        raise ValueError("give an absolute path")
    return value


def _read_path_or_none(value: object) -> object:
    return value if value == "" else _read_path(value)


_IS_NUMBER: Final = BeforeValidator(_read_number)
Seconds = Annotated[float, Field(gt=0, le=_DAY), _IS_NUMBER]
AnyPath = Annotated[str, BeforeValidator(_read_path)]
SocketPath = Annotated[str, BeforeValidator(_read_path), Field(max_length=107)]
LocalPortMask = Annotated[str, BeforeValidator(_read_port)]
Timer = Annotated[
    int | None,
    BeforeValidator(_read_timer),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"const": "off"}]}),
]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[ -~]+$")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class PortsTable(_Table):
    """Local ports."""

    use: list[LocalPortMask] = Field(
        default=["*"],
        description="local ports to work with: a device such as mlx5_0, or a port such as mlx5_0/1; ? is any "
        "character, * any number of them",
    )
    exclude: list[LocalPortMask] = Field(default=[], description="of these, local ports to leave alone")


class ConnectTable(_Table):
    """Which targets are connected, and how."""

    enable: bool | None = Field(
        default=None,
        description="make connections; false only looks and reports. Unset: as SRPHA_ENABLE or SRP_DAEMON_ENABLE in "
        "one of openib_files says, else true",
    )
    default: Literal["allow", "deny"] = Field(default="allow", description="what becomes of targets that no rule fits")
    initiator_ext: Annotated[str, BeforeValidator(_read_extension)] = Field(
        default="dgid",
        description="initiator_ext of logins: dgid takes the target port's GUID, as srp_daemon -n does; dgid-swapped "
        "the same with its bytes reversed, as OFED did; none gives none; or 16 hex digits",
    )
    tl_retry_count: int | None = Field(
        default=None,
        ge=2,
        le=7,
        description="retries of a packet, for every login whose rule says nothing of it. Unset: "
        "SRP_DEFAULT_TL_RETRY_COUNT of one of openib_files, else the driver's default",
    )
    rules_file: Annotated[str, BeforeValidator(_read_path_or_none)] = Field(
        default=RULES_FILE,
        description="rules in the grammar of srp_daemon.conf, read after the rules of this file; it may be missing as "
        'long as it is the default one. "" reads none',
    )
    openib_files: list[AnyPath] = Field(
        default=list(OPENIB_FILES),
        description="files of the driver's start scripts; the first that exists is read for SRPHA_ENABLE, "
        "SRP_DAEMON_ENABLE and SRP_DEFAULT_TL_RETRY_COUNT",
    )
    deadline: Seconds = Field(
        default=_DAEMON.login_deadline, description="seconds after which a login is no longer waited for"
    )
    retry_first: Seconds = Field(default=_RETRY.first, description="seconds from a failed login to the next one")
    retry_longest: Seconds = Field(
        default=_RETRY.longest, description="the delay doubles with every failure, up to so many seconds"
    )

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.retry_longest < self.retry_first:
            raise ValueError(f"retry_longest {self.retry_longest:g} must be at least retry_first {self.retry_first:g}")
        return self


class OptionsTable(_Table):
    """Options of a login; each unset one is the driver's default."""

    allow_ext_sg: Literal[0, 1] | None = Field(default=None, description="take more segments than fit into a command")
    ch_count: int | None = Field(default=None, ge=1, le=(1 << 31) - 1, description="RDMA channels")
    cmd_sg_entries: int | None = Field(default=None, ge=1, le=255, description="data descriptors in a command")
    comp_vector: int | None = Field(default=None, ge=0, le=(1 << 31) - 1, description="completion vector")
    max_cmd_per_lun: int | None = Field(default=None, ge=1, le=(1 << 31) - 1, description="commands per disk")
    max_sect: int | None = Field(default=None, ge=1, le=(1 << 31) - 1, description="sectors per command")
    queue_size: int | None = Field(default=None, ge=1, le=(1 << 31) - 1, description="commands per channel")
    sg_tablesize: int | None = Field(default=None, ge=1, le=2048, description="segments per command")
    tl_retry_count: int | None = Field(default=None, ge=2, le=7, description="retries of a packet")


class MaskTable(_Table):
    """Masks over a target port; all that are given must fit. ``?`` is any hex digit, ``*`` any number of them."""

    id_ext: Annotated[str | None, _mask_reader("id_ext")] = Field(default=None, description="16 hex digits")
    ioc_guid: Annotated[str | None, _mask_reader("ioc_guid")] = Field(default=None, description="16 hex digits")
    dgid: Annotated[str | None, _mask_reader("dgid")] = Field(default=None, description="32 hex digits, no colons")
    service_id: Annotated[str | None, _mask_reader("service_id")] = Field(default=None, description="16 hex digits")
    pkey: Annotated[str | None, _mask_reader("pkey")] = Field(default=None, description="4 hex digits")

    def masks(self) -> dict[str, str]:
        """The masks that are given, by key."""
        return {key: value for key in MASK_DIGITS if (value := getattr(self, key)) is not None}


class RuleTable(MaskTable):
    """A rule. The first that fits decides; a rule without masks fits every target."""

    name: Name | None = Field(default=None, description="for messages")
    action: Literal["allow", "deny"] = Field(description="what becomes of the targets it fits")
    local_ports: list[LocalPortMask] | None = Field(
        default=None, min_length=1, description="local ports it speaks of, as in [ports]. Unset: all"
    )
    options: OptionsTable = Field(default=OptionsTable(), description="of the logins it allows, see [rule.options]")

    @model_validator(mode="after")
    def _options_go_with_allow(self) -> Self:
        if self.action == "deny" and self.options != OptionsTable():
            raise ValueError("options stand in a rule that denies; they go with action allow only")
        return self


class TimersTable(_Table):
    """Timers of the SRP remote ports, in seconds or "off". Unset keys of the table are the driver's defaults."""

    reconnect_delay: Timer = Field(default=_TIMERS.reconnect_delay, description="from a failure to the next reconnect")
    fast_io_fail_tmo: Timer = Field(
        default=_TIMERS.fast_io_fail_tmo,
        description="from a failure until I/O on the path fails and moves to another; smaller than reconnect_delay",
    )
    dev_loss_tmo: Timer = Field(default=_TIMERS.dev_loss_tmo, description="from a failure until the disks are removed")

    @model_validator(mode="after")
    def _valid(self) -> Self:
        self.timers()
        return self

    def timers(self) -> RemotePortTimers:
        """As the driver takes them; raises :class:`srpha.core.recovery.remote_port.InvalidTimersError`."""
        return RemotePortTimers(self.reconnect_delay, self.fast_io_fail_tmo, self.dev_loss_tmo)


class TimerClassTable(TimersTable, MaskTable):
    """Timers for the targets that the masks fit. The first class that fits decides, then [timers]."""

    name: Name = Field(description="for messages")


class StaticTargetTable(_Table):
    """A target that is connected without discovery: RoCE by address, or a subnet without Device Management."""

    name: Name | None = Field(default=None, description="for messages")
    line: str = Field(
        description="as the kernel's add_target takes it: id_ext, ioc_guid and dest (RDMA/CM), or dgid with pkey and "
        "service_id; what is left out is filled in"
    )
    local_ports: list[str] = Field(
        default=[], description="local ports to connect from, exactly as in mlx5_0/1. Empty: all"
    )

    @model_validator(mode="after")
    def _valid(self) -> Self:
        parse_static_target(self.line, self.local_ports, self.name or "")
        return self


class ScanTable(_Table):
    """Discovery. Notices of the subnet ask for scans beside those on the timer."""

    interval: Seconds = Field(default=_DAEMON.scan_interval, description="seconds between full scans")
    gap: Seconds = Field(default=_DAEMON.scan_gap, description="least seconds between scans that notices ask for")
    hold: Annotated[float, Field(ge=0, le=60), _IS_NUMBER] = Field(
        default=_DAEMON.scan_hold, description="seconds a notice waits for others before the scan"
    )
    timeout: Seconds = Field(default=_SCAN.timeout, description="seconds per try of a question to a target")
    retries: int = Field(default=_SCAN.retries, ge=0, le=15, description="further tries of it")
    sa_timeout: Seconds = Field(
        default=_SCAN.sa_timeout, description="seconds per try of a question to the subnet administrator"
    )
    sa_retries: int = Field(default=_SCAN.sa_retries, ge=0, le=15, description="further tries of it")
    window: int = Field(default=_SCAN.window, ge=1, le=1024, description="questions in flight")
    unit_window: int = Field(default=_SCAN.unit_window, ge=1, le=1024, description="of these to one target")
    subscription_interval: Seconds = Field(
        default=_DAEMON.subscription_interval, description="seconds between renewals of the subscription to notices"
    )
    silent_first: Seconds = Field(
        default=_DAEMON.probe_interval,
        description="seconds until a silent target is asked again; it doubles up to interval",
    )


class PollTable(_Table):
    """How often the host's state is read again when nothing hints at a change."""

    interval: Seconds = Field(default=_DAEMON.poll_interval, description="seconds")
    removal: Seconds = Field(
        default=_DAEMON.removal_poll, description="seconds, while a connection is being made or removed"
    )


class MultipathTable(_Table):
    """What is done about multipath paths, and what srpha's drop-in for multipath says."""

    fail_suspect_paths: bool = Field(
        default=_DAEMON.fail_suspect_paths,
        description="fail paths as soon as a port or target is known to be gone, if another path is healthy",
    )
    remove_departed: bool = Field(
        default=_DAEMON.remove_departed,
        description="remove connections to targets that have left the subnet; else dev_loss_tmo decides",
    )
    no_path_retry: Annotated[int | str | None, BeforeValidator(_read_retry)] = Field(
        default=None,
        description='what multipath does with I/O when no path is left: "fail", "queue", or wait so many checks. '
        "Unset: as suits each kind of storage",
    )
    polling_interval: int = Field(
        default=5, ge=1, le=3600, description="multipath's seconds between checks; timers are judged with it"
    )
    eh_deadline: Annotated[int | Literal["off"], BeforeValidator(_read_deadline)] = Field(
        default=30, description="seconds that the kernel's error handler may take before it resets the host, or off"
    )
    find_multipaths: Literal["off", "on", "greedy", "smart", "strict"] | None = Field(
        default=None, description="multipath's find_multipaths, for all of its devices. Unset: left to others"
    )
    adjust_timers: bool = Field(
        default=False, description="repair timers that do not go together with each other or with no_path_retry"
    )


class ControlTable(_Table):
    """The control socket of commands such as srpha status. A change counts from the next start on."""

    socket: SocketPath = Field(default=CONTROL_SOCKET, description="its path")
    group: Annotated[str | None, Field(min_length=1, max_length=32)] = Field(
        default=None, description="group that may use it beside its owner. Unset: the daemon's own"
    )


class LogTable(_Table):
    """The log. A change counts from the next start on."""

    format: Literal["auto", "console", "json", "journal"] = Field(
        default="auto",
        description="auto is journal when standard output goes to systemd's journal, console otherwise",
    )
    level: Literal["info", "notice", "warning", "error"] = Field(
        default="info", description="least severity that is logged"
    )


class ServiceTable(_Table):
    """How the service behaves under systemd."""

    ready_wait: Annotated[float, Field(ge=0, le=600), _IS_NUMBER] = Field(
        default=30.0,
        description="readiness is told when all targets in reach are connected, or after so many seconds; without a "
        "local port at once",
    )


class Config(_Table):
    """``srpha.toml``. A file that is wrong anywhere is not used at all."""

    ports: PortsTable = PortsTable()
    connect: ConnectTable = ConnectTable()
    rules: list[RuleTable] = Field(default=[], alias="rule")
    static_targets: list[StaticTargetTable] = Field(default=[], alias="static_target")
    timers: TimersTable | None = None
    timer_classes: list[TimerClassTable] = Field(default=[], alias="timer_class")
    scan: ScanTable = ScanTable()
    poll: PollTable = PollTable()
    multipath: MultipathTable = MultipathTable()
    control: ControlTable = ControlTable()
    log: LogTable = LogTable()
    service: ServiceTable = ServiceTable()
