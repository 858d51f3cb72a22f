"""The configuration as a whole: ``srpha.toml``, the rules file and the files of the driver's start scripts.

It is taken whole or not at all: one :class:`ConfigError` names every problem of ``srpha.toml``, or else those of the
files that it names.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from srpha.core.compat.openib_conf import OpenibConf, OpenibConfError, parse_openib_conf
from srpha.core.connections.attempts import BackOff
from srpha.core.discovery.scan_settings import ScanSettings
from srpha.core.multipath.dropin import DropInSettings
from srpha.core.recovery.remote_port import RemotePortTimers
from srpha.core.recovery.timer_policy import Queueing, WithoutPath, review_classes
from srpha.core.targets.access import AccessRule, AccessRules
from srpha.core.targets.rules import Rules, RuleSyntaxError, parse_rules
from srpha.core.targets.static_targets import StaticTarget, conflicts, parse_static_target
from srpha.core.targets.target_mask import MASK_DIGITS, PortMasks, TargetMask, parse_mask, parse_port_masks
from srpha.core.targets.target_port import InitiatorExt, InitiatorExtMode
from srpha.daemon.settings import Settings, TimerClass
from srpha.operate.config_errors import ConfigError, key_lines, problem_lines, toml_problem
from srpha.operate.config_model import CONFIG_FILE, RULES_FILE, Config, MaskTable

__all__ = ["ConfigError", "LoadedConfig", "load_config", "parse_config"]

_SIZE_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration that can be used."""

    config: Config
    settings: Settings
    source: str
    """Where it comes from, for messages."""
    files: tuple[Path, ...] = ()
    """All files that were read."""
    notes: tuple[str, ...] = ()
    """What an operator should know of it although it is valid, a sentence each."""
    uses: PortMasks = field(default_factory=lambda: PortMasks(("*",)))
    excludes: PortMasks = field(default_factory=lambda: PortMasks(()))

    def wants(self, local_port: str) -> bool:
        """Whether the local port (``device/port``) is to be worked with."""
        return self.uses.fits(local_port) and not self.excludes.fits(local_port)

    @property
    def dropin(self) -> DropInSettings:
        """What srpha's drop-in for multipath is to say."""
        table = self.config.multipath
        deadline = None if table.eh_deadline == "off" else table.eh_deadline
        return DropInSettings(table.no_path_retry, deadline, table.find_multipaths)


def load_config(path: Path | None = None, *, needed: Collection[Path] = ()) -> LoadedConfig:
    """Read the file at ``path``, or the default one, which may be missing, and the files that it names.

    ``needed`` are files that must be there, whatever may be missing otherwise: those of the configuration in force.
    Raises :class:`ConfigError`.
    """
    named = path if path is not None else Path(CONFIG_FILE)
    text = _read(named, optional=path is None and named not in needed)
    if text is None:
        source, config = f"the defaults, there is no {named}", Config()
    else:
        source, config = str(named), parse_config(text, str(named))
    files = [] if text is None else [named]
    rules = _rules(config, files, needed)
    openib = _openib(config, files, needed)
    return _loaded(config, rules, openib, source, tuple(files))


def parse_config(text: str, source: str) -> Config:
    """Check the text of ``srpha.toml``. Raises :class:`ConfigError` with every problem found."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError((toml_problem(source, str(error)),)) from None
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(problem_lines(source, error.errors(), key_lines(text), Config)) from None


def _read(path: Path, *, optional: bool) -> str | None:
    """A file's text; None when it may be missing and is."""
    try:
        with path.open("rb") as file:
            raw = file.read(_SIZE_MAX + 1)
    except FileNotFoundError:
        if optional:
            return None
        raise ConfigError((f"{path}: there is no such file",)) from None
    except OSError as error:
        raise ConfigError((f"{path}: cannot be read: {error.strerror}",)) from None
    if len(raw) > _SIZE_MAX:
        raise ConfigError((f"{path}: longer than {_SIZE_MAX} bytes",))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError((f"{path}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8",)) from None


def _rules(config: Config, files: list[Path], needed: Collection[Path]) -> Rules:
    """The rules of srp_daemon.conf with the configured default."""
    allow = config.connect.default == "allow"
    name = config.connect.rules_file
    path = Path(name)
    text = _read(path, optional=name == RULES_FILE and path not in needed) if name else None
    if text is None:
        return Rules(allow_by_default=allow)
    files.append(path)
    try:
        return parse_rules(text.split("\n"), name, allow_by_default=allow)
    except RuleSyntaxError as error:
        raise ConfigError((str(error),)) from None


def _openib(config: Config, files: list[Path], needed: Collection[Path]) -> OpenibConf:
    """What the first of the start scripts' files that exists says."""
    for name in config.connect.openib_files:
        path = Path(name)
        text = _read(path, optional=path not in needed)
        if text is not None:
            files.append(path)
            try:
                return parse_openib_conf(text.split("\n"), name)
            except OpenibConfError as error:
                raise ConfigError((str(error),)) from None
    return OpenibConf()


def _loaded(config: Config, rules: Rules, openib: OpenibConf, source: str, files: tuple[Path, ...]) -> LoadedConfig:
    connect = config.connect
    retries = connect.tl_retry_count if connect.tl_retry_count is not None else openib.tl_retry_count
    extension = _extension(connect.initiator_ext)
    static = tuple(_static(config, retries))
    clashes = conflicts(static, extension)
    if clashes:
        raise ConfigError(tuple(f"{source}: {sentence}" for sentence in clashes))
    timers, notes = _timers(config)
    enable = connect.enable
    if enable is None:
        enable = openib.enabled is not False
        if not enable:
            notes.append(
                f"{files[-1]} says not to connect (SRPHA_ENABLE or SRP_DAEMON_ENABLE), so srpha only looks; "
                "connect.enable = true overrides it"
            )
    scan = config.scan
    defaults = Settings()
    settings = replace(
        defaults,
        rules=AccessRules(
            tuple(_own_rules(config, source)), rules, {} if retries is None else {"tl_retry_count": retries}
        ),
        initiator_ext=extension,
        scan=ScanSettings(
            timeout=scan.timeout,
            retries=scan.retries,
            sa_timeout=scan.sa_timeout,
            sa_retries=scan.sa_retries,
            window=scan.window,
            unit_window=scan.unit_window,
        ),
        scan_interval=scan.interval,
        scan_hold=scan.hold,
        scan_gap=scan.gap,
        poll_interval=config.poll.interval,
        removal_poll=config.poll.removal,
        subscription_interval=scan.subscription_interval,
        probe_interval=scan.silent_first,
        login_deadline=connect.deadline,
        back_off=BackOff(first=connect.retry_first, longest=connect.retry_longest),
        timers=timers.get(""),
        timer_classes=tuple(
            TimerClass(item.name, _target_mask(item), timers[item.name]) for item in config.timer_classes
        ),
        fail_suspect_paths=config.multipath.fail_suspect_paths,
        remove_departed=config.multipath.remove_departed,
        static_targets=static,
        connect=enable,
    )
    ports = config.ports
    uses, excludes = parse_port_masks(ports.use), parse_port_masks(ports.exclude)
    return LoadedConfig(config, settings, source, files, tuple(notes), uses, excludes)


def _own_rules(config: Config, source: str) -> list[AccessRule]:
    rules = []
    for number, table in enumerate(config.rules, start=1):
        named = f" ({table.name})" if table.name else ""
        rules.append(
            AccessRule(
                allow=table.action == "allow",
                target=_target_mask(table),
                local_ports=None if table.local_ports is None else parse_port_masks(table.local_ports),
                options=table.options.model_dump(exclude_none=True),
                where=f"{source}: rule {number}{named}",
            )
        )
    return rules


def _target_mask(table: MaskTable) -> TargetMask:
    return TargetMask({key: parse_mask(text, MASK_DIGITS[key]) for key, text in table.masks().items()})


def _extension(text: str) -> InitiatorExt:
    try:
        return InitiatorExt(InitiatorExtMode(text))
    except ValueError:
        return InitiatorExt(InitiatorExtMode.FIXED, int(text, 16))


def _static(config: Config, retries: int | None) -> list[StaticTarget]:
    targets = []
    for table in config.static_targets:
        target = parse_static_target(table.line, table.local_ports, table.name or "")
        if target.line.tl_retry_count is None and retries is not None:
            target = replace(target, line=replace(target.line, tl_retry_count=retries))
        targets.append(target)
    return targets


def _timers(config: Config) -> tuple[Mapping[str, RemotePortTimers], list[str]]:
    """Timers by class, ``""`` for all others; adjusted where that is wanted, and what there is to say of them."""
    given = {item.name: item.timers() for item in config.timer_classes}
    if len(given) < len(config.timer_classes):
        raise ConfigError(("timer_class: every class needs a name of its own",))
    if config.timers is not None:
        given[""] = config.timers.timers()
    table = config.multipath
    if table.no_path_retry is None:
        return given, []
    retry = table.no_path_retry if isinstance(table.no_path_retry, int) else WithoutPath(table.no_path_retry)
    queueing = Queueing(retry, table.polling_interval)
    named = {name or "all other targets": timers for name, timers in given.items()}
    reviews = review_classes(named, queueing, adjust=table.adjust_timers)
    notes = [finding.text for review in reviews.values() for finding in review.findings]
    return {name: reviews[name or "all other targets"].timers for name in given}, notes
