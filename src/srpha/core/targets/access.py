"""Which target ports may be used, from which local port: srpha's own rules, then those of srp_daemon.conf.

srpha's own rules go beyond the grammar of srp_daemon(8): masks instead of numbers only, and local ports. The first rule
that fits decides, own rules first; for what no rule speaks of, the default of
:class:`~srpha.core.targets.rules.Rules` counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from srpha.core.targets.rules import Rules, Verdict
from srpha.core.targets.target_mask import PortMasks, TargetMask
from srpha.core.targets.target_port import TargetPort


@dataclass(frozen=True, slots=True)
class AccessRule:
    """One of srpha's own rules."""

    allow: bool
    target: TargetMask
    local_ports: PortMasks | None = None
    """The local ports that it speaks of; None: all."""
    options: Mapping[str, int] = field(default_factory=dict)
    """For the login of a target that it allows."""
    where: str = ""
    """Where it stands, for messages: file, number and name."""

    def fits(self, target: TargetPort, local_port: str) -> bool:
        """Whether the rule speaks of ``target`` seen from ``local_port``."""
        return (self.local_ports is None or self.local_ports.fits(local_port)) and self.target.fits(target)


@dataclass(frozen=True, slots=True)
class AccessRules:
    """All rules of a host. Implements :class:`srpha.core.connections.reconcile.TargetRules`."""

    own: tuple[AccessRule, ...] = ()
    rules: Rules = field(default_factory=Rules)
    """Those of srp_daemon.conf, and the default."""
    options: Mapping[str, int] = field(default_factory=dict)
    """For every login whose rule does not say otherwise."""

    def judge(self, target: TargetPort, local_port: str = "") -> Verdict:
        """The verdict of the first rule that fits."""
        verdict = self._first(target, local_port)
        if not self.options or not verdict.allowed:
            return verdict
        return replace(verdict, options={**self.options, **verdict.options})

    def _first(self, target: TargetPort, local_port: str) -> Verdict:
        for rule in self.own:
            if rule.fits(target, local_port):
                word = "allowed" if rule.allow else "disallowed"
                return Verdict(rule.allow, f"{word} by {rule.where}", rule.options if rule.allow else {})
        return self.rules.judge(target, local_port)
