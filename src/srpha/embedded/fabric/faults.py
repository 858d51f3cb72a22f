"""Faults of the embedded world: values, their text form, and who carries them out.

One grammar serves command line, demo and dashboard: ``kind where [word ...]``, words separated by blanks, quoted as in
a shell when they contain any::

    link-down host1-a/1                 lose array1/1 rx 0.2 rc        power-off array1
    link-up host1-a/1                   delay array1/1 2.5 tx rc       remove-pkey array1/1 8001
    mend array1/1                       set-capability a/1 19 off      change-lid array1/1
    target-crash array1

Faults of cables, power and port registers are carried out here; what concerns subnet manager or targets is carried out
by handlers that the world registers. A fault that cannot be carried out raises :class:`FaultError`, nothing is changed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from srpha.embedded.fabric.hardware import Fabric, Impairment, Port, Traffic
from srpha.embedded.fabric.topology import PortRef, TopologyError


class FaultError(ValueError):
    """A fault cannot be read or carried out; one line."""


class Direction(Enum):
    """Seen from the port that is named: packets that leave it, that enter it, or both."""

    BOTH = "both"
    TX = "tx"
    RX = "rx"


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The cable is pulled; both ends notice."""

    ref: PortRef


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The cable is plugged again; the link trains."""

    ref: PortRef


@dataclass(frozen=True, slots=True)
class Lose:
    """The cable loses packets; neither end notices."""

    ref: PortRef
    direction: Direction = Direction.BOTH
    probability: float = 1.0
    kinds: Traffic = Traffic.ALL


@dataclass(frozen=True, slots=True)
class Delay:
    """Packets take ``seconds`` longer, and stay in order."""

    ref: PortRef
    seconds: float
    direction: Direction = Direction.BOTH
    kinds: Traffic = Traffic.ALL


@dataclass(frozen=True, slots=True)
class Mend:
    """Ends every ``lose`` and ``delay`` at a port. What is delayed already stays so."""

    ref: PortRef


@dataclass(frozen=True, slots=True)
class PowerOff:
    """A node loses power."""

    node: str


@dataclass(frozen=True, slots=True)
class PowerOn:
    """A node gets power again; its registers are those of a new one."""

    node: str


@dataclass(frozen=True, slots=True)
class RemovePkey:
    """A P_Key disappears from a port's table (behind the SM's back)."""

    ref: PortRef
    pkey: int


@dataclass(frozen=True, slots=True)
class AddPkey:
    """A P_Key appears in a port's table, in its first free place."""

    ref: PortRef
    pkey: int


@dataclass(frozen=True, slots=True)
class SetCapability:
    """A bit of a port's capability mask is set or cleared; the port's agent sends trap 144."""

    ref: PortRef
    bit: int
    on: bool


@dataclass(frozen=True, slots=True)
class ChangeLid:
    """The subnet manager gives a port another LID."""

    ref: PortRef


@dataclass(frozen=True, slots=True)
class SmLoss:
    """The subnet manager and the SA die where they run."""


@dataclass(frozen=True, slots=True)
class SmStart:
    """A subnet manager starts on an HCA, or again where it was."""

    node: str | None = None


@dataclass(frozen=True, slots=True)
class TargetCrash:
    """A target's software dies: connections freeze or break, its ports stay up."""

    target: str


@dataclass(frozen=True, slots=True)
class TargetRestart:
    """A crashed target's software comes back, without its connections."""

    target: str


@dataclass(frozen=True, slots=True)
class TargetJoin:
    """A late or departed target appears in the fabric."""

    target: str


@dataclass(frozen=True, slots=True)
class TargetLeave:
    """A target disappears from the fabric."""

    target: str


Fault = (
    LinkDown
    | LinkUp
    | Lose
    | Delay
    | Mend
    | PowerOff
    | PowerOn
    | RemovePkey
    | AddPkey
    | SetCapability
    | ChangeLid
    | SmLoss
    | SmStart
    | TargetCrash
    | TargetRestart
    | TargetJoin
    | TargetLeave
)

FAULT_USAGE: Final[dict[str, str]] = {
    "link-down": "PORT",
    "link-up": "PORT",
    "lose": "PORT [both|tx|rx] [PROBABILITY] [all|mad|rc]",
    "delay": "PORT SECONDS [both|tx|rx] [all|mad|rc]",
    "mend": "PORT",
    "power-off": "NODE",
    "power-on": "NODE",
    "remove-pkey": "PORT PKEY",
    "add-pkey": "PORT PKEY",
    "set-capability": "PORT BIT on|off",
    "change-lid": "PORT",
    "sm-loss": "",
    "sm-start": "[NODE]",
    "target-crash": "TARGET",
    "target-restart": "TARGET",
    "target-join": "TARGET",
    "target-leave": "TARGET",
}
"""Every kind of fault and the words after it."""

_KINDS: Final[dict[str, type[Fault]]] = {
    "link-down": LinkDown,
    "link-up": LinkUp,
    "lose": Lose,
    "delay": Delay,
    "mend": Mend,
    "power-off": PowerOff,
    "power-on": PowerOn,
    "remove-pkey": RemovePkey,
    "add-pkey": AddPkey,
    "set-capability": SetCapability,
    "change-lid": ChangeLid,
    "sm-loss": SmLoss,
    "sm-start": SmStart,
    "target-crash": TargetCrash,
    "target-restart": TargetRestart,
    "target-join": TargetJoin,
    "target-leave": TargetLeave,
}
_NAMES: Final = {made: name for name, made in _KINDS.items()}
_DELEGATED: Final = frozenset({ChangeLid, SmLoss, SmStart, TargetCrash, TargetRestart, TargetJoin, TargetLeave})
_LONGEST_DELAY: Final = 86400.0
_HEX: Final = re.compile(r"(?:0x)?[0-9a-fA-F]{1,4}")


def fault_kind(fault: Fault) -> str:
    """The word a fault's text form begins with."""
    return _NAMES[type(fault)]


def format_fault(fault: Fault) -> str:
    """The text form; :func:`parse_fault` reads it back."""
    words: list[str] = [fault_kind(fault)]
    match fault:
        case LinkDown(ref) | LinkUp(ref) | Mend(ref) | ChangeLid(ref):
            words.append(str(ref))
        case Lose(ref, direction, probability, kinds):
            words += [str(ref), direction.value, repr(probability), kinds.value]
        case Delay(ref, seconds, direction, kinds):
            words += [str(ref), repr(seconds), direction.value, kinds.value]
        case RemovePkey(ref, pkey) | AddPkey(ref, pkey):
            words += [str(ref), f"{pkey:04x}"]
        case SetCapability(ref, bit, on):
            words += [str(ref), str(bit), "on" if on else "off"]
        case PowerOff(name) | PowerOn(name) | TargetCrash(name) | TargetRestart(name):
            words.append(name)
        case TargetJoin(name) | TargetLeave(name):
            words.append(name)
        case SmStart(node):
            words += [] if node is None else [node]
        case SmLoss():
            pass
    return shlex.join(words)


def parse_fault(text: str) -> Fault:
    """Read the text form. Raises :class:`FaultError` saying what is expected."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise FaultError(f"{text!r}: {error}") from None
    if not words:
        raise FaultError(f"no fault given; possible are {', '.join(FAULT_USAGE)}")
    kind, rest = words[0], words[1:]
    if kind not in FAULT_USAGE:
        raise FaultError(f"{kind!r} is no fault; possible are {', '.join(FAULT_USAGE)}")
    usage = FAULT_USAGE[kind].split()
    needed = sum(not word.startswith("[") for word in usage)
    if not needed <= len(rest) <= len(usage):
        raise FaultError(f"{text!r}: expected {kind} {FAULT_USAGE[kind]}".rstrip())
    try:
        return _make(kind, rest)
    except TopologyError as error:
        raise FaultError(f"{text!r}: {error}") from None
    except ValueError as error:
        raise FaultError(f"{text!r}: {error}; expected {kind} {FAULT_USAGE[kind]}") from None


def _make(kind: str, words: list[str]) -> Fault:
    made = _KINDS[kind]
    match words:
        case _ if kind == "lose":
            direction, probability, kinds = [*words[1:], *("both", "1.0", "all")[len(words) - 1 :]]
            return Lose(PortRef.parse(words[0]), Direction(direction), _number(probability, 1.0), Traffic(kinds))
        case _ if kind == "delay":
            direction, kinds = [*words[2:], *("both", "all")[len(words) - 2 :]]
            seconds = _number(words[1], _LONGEST_DELAY)
            return Delay(PortRef.parse(words[0]), seconds, Direction(direction), Traffic(kinds))
        case [ref, bit, on] if kind == "set-capability":
            if not (bit.isascii() and bit.isdecimal()) or int(bit) > 31:
                raise ValueError(f"{bit!r} is no bit from 0 to 31")
            if on not in ("on", "off"):
                raise ValueError(f"{on!r} is neither on nor off")
            return SetCapability(PortRef.parse(ref), int(bit), on == "on")
        case [ref, pkey] if made is RemovePkey or made is AddPkey:
            return made(PortRef.parse(ref), _pkey(pkey))
        case [ref] if made is LinkDown or made is LinkUp or made is Mend or made is ChangeLid:
            return made(PortRef.parse(ref))
        case [name] if made is PowerOff or made is PowerOn or made is SmStart:
            return made(name)
        case [name] if made is TargetCrash or made is TargetRestart or made is TargetJoin or made is TargetLeave:
            return made(name)
        case _:
            return SmLoss() if made is SmLoss else SmStart()


def _number(text: str, most: float) -> float:
    value = float(text)
    if not 0 <= value <= most:
        raise ValueError(f"{text!r} is no number from 0 to {most:g}")
    return value


def _pkey(text: str) -> int:
    value = int(text, 16) if _HEX.fullmatch(text) else 0
    if value & 0x7FFF == 0:
        raise ValueError(f"{text!r} is no P_Key of 1 to 4 hex digits")
    return value


class FaultInjector:
    """Carries faults out on one fabric.

    ``watch`` hears each fault after it was carried out; ``register`` names who carries out a kind that is not about
    cables, power or registers.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._handlers: dict[str, Callable[[Fault], None]] = {}
        self._watchers: list[Callable[[Fault], None]] = []

    def register(self, kind: str, handler: Callable[[Fault], None]) -> None:
        """Have faults of this kind (``sm-loss``, ``target-crash``, ...) carried out by ``handler``.

        The handler raises :class:`FaultError` when it cannot. ValueError for a kind that the fabric itself carries out.
        """
        if kind not in _KINDS or _KINDS[kind] not in _DELEGATED:
            raise ValueError(f"{kind!r} is no fault that takes a handler")
        self._handlers[kind] = handler

    def watch(self, heard: Callable[[Fault], None]) -> Callable[[], None]:
        """Hear every fault that was carried out."""
        self._watchers.append(heard)

        def unwatch() -> None:
            if heard in self._watchers:
                self._watchers.remove(heard)

        return unwatch

    def apply(self, fault: Fault) -> None:
        """Carry a fault out, now, on the event loop. :class:`FaultError`: no such place, or nobody to do it."""
        try:
            self._carry_out(fault)
        except TopologyError as error:
            raise FaultError(f"{format_fault(fault)}: {error}") from None
        for heard in tuple(self._watchers):
            heard(fault)

    def _carry_out(self, fault: Fault) -> None:
        fabric = self._fabric
        match fault:
            case LinkDown(ref):
                fabric.set_plugged(ref, False)
            case LinkUp(ref):
                fabric.set_plugged(ref, True)
            case Lose(ref, direction, probability, kinds):
                self._impair(ref, direction, Impairment(kinds, probability=probability))
            case Delay(ref, seconds, direction, kinds):
                self._impair(ref, direction, Impairment(kinds, delay=seconds))
            case Mend(ref):
                port = self._cabled(ref)
                port.tx_impairments = port.rx_impairments = ()
                fabric.changed()
            case PowerOff(name):
                fabric.set_power(fabric.node(name), False)
            case PowerOn(name):
                fabric.set_power(fabric.node(name), True)
            case RemovePkey(ref, pkey):
                port = fabric.port(ref)
                if pkey not in port.pkeys:
                    raise TopologyError(f"{ref} has no P_Key {pkey:04x}")
                port.set_pkeys(port.pkeys.index(pkey), (0,))
            case AddPkey(ref, pkey):
                self._add_pkey(fabric.port(ref), pkey)
            case SetCapability(ref, bit, on):
                fabric.port(ref).set_capability(1 << bit, on)
            case _:
                handler = self._handlers.get(fault_kind(fault))
                if handler is None:
                    raise FaultError(f"{format_fault(fault)}: nobody in this world carries that out")
                handler(fault)

    def _cabled(self, ref: PortRef) -> Port:
        port = self._fabric.port(ref)
        if port.link is None:
            raise TopologyError(f"{ref}: the port has no cable")
        return port

    def _impair(self, ref: PortRef, direction: Direction, impairment: Impairment) -> None:
        port = self._cabled(ref)
        if direction is not Direction.RX:
            port.tx_impairments = (*port.tx_impairments, impairment)
        if direction is not Direction.TX:
            port.rx_impairments = (*port.rx_impairments, impairment)
        self._fabric.changed()

    def _add_pkey(self, port: Port, pkey: int) -> None:
        if pkey in port.pkeys:
            return
        if 0 not in port.pkeys:
            raise TopologyError(f"{port.name}: the P_Key table is full")
        port.set_pkeys(port.pkeys.index(0), (pkey,))
