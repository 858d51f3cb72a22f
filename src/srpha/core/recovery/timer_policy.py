"""Whether a remote port's timers go together with each other and with multipath's queueing.

The kernel takes combinations that cannot work as intended, and multipathd, which adjusts such timers for Fibre Channel,
leaves those of SRP alone (facts: multipath 1.8). Each finding is a sentence for an operator; some come with a repair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from srpha.core.recovery.remote_port import FAST_IO_FAIL_MAX, RemotePortTimers


class WithoutPath(Enum):
    """multipath's ``no_path_retry`` where it is a word."""

    FAIL = "fail"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True)
class Queueing:
    """What multipath does with I/O when no path is left: ``no_path_retry`` and the checker's interval in seconds."""

    no_path_retry: WithoutPath | int = WithoutPath.FAIL
    polling_interval: int = 5

    def __post_init__(self) -> None:
        if isinstance(self.no_path_retry, int) and self.no_path_retry < 0:
            raise ValueError(f"no_path_retry is {self.no_path_retry}; give fail, queue, or a number of at least 0")
        if self.polling_interval < 1:
            raise ValueError(f"polling_interval is {self.polling_interval}; give at least 1 s")

    @property
    def seconds(self) -> int | None:
        """How long I/O is queued after the last path has failed; None for ever."""
        if isinstance(self.no_path_retry, WithoutPath):
            return 0 if self.no_path_retry is WithoutPath.FAIL else None
        return self.no_path_retry * self.polling_interval

    def __str__(self) -> str:
        if isinstance(self.no_path_retry, WithoutPath):
            return f"no_path_retry {self.no_path_retry.value}"
        return f"no_path_retry {self.no_path_retry} x polling_interval {self.polling_interval} s = {self.seconds} s"


@dataclass(frozen=True, slots=True)
class TimerFinding:
    """Something that does not go together; ``repaired`` when the timers of the review avoid it."""

    text: str
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class TimerReview:
    """The timers to use, and what was found about those that were given."""

    timers: RemotePortTimers
    findings: tuple[TimerFinding, ...] = ()


def review_timers(timers: RemotePortTimers, queueing: Queueing, *, adjust: bool) -> TimerReview:
    """Judge ``timers``; with ``adjust`` repair what has one right repair, else only tell."""
    findings: list[TimerFinding] = []
    used = timers
    for repair in (_give_fast_io_fail_its_turn, _outlast_queueing):
        repaired, text = repair(used, queueing)
        if text and adjust and repaired != used:
            findings.append(TimerFinding(f"{text}; {_changes(used, repaired)}", repaired=True))
            used = repaired
        elif text:
            findings.append(TimerFinding(text))
    findings += [TimerFinding(text) for text in _warnings(used, queueing)]
    return TimerReview(used, tuple(findings))


def review_classes(
    classes: Mapping[str, RemotePortTimers], queueing: Queueing, *, adjust: bool
) -> Mapping[str, TimerReview]:
    """Judge the timers of every target class; each sentence begins with the name of its class."""
    reviews = {}
    for name, timers in classes.items():
        review = review_timers(timers, queueing, adjust=adjust)
        findings = tuple(replace(item, text=f"timers of {name}: {item.text}") for item in review.findings)
        reviews[name] = replace(review, findings=findings)
    return reviews


def _give_fast_io_fail_its_turn(timers: RemotePortTimers, queueing: Queueing) -> tuple[RemotePortTimers, str]:
    """A reconnect that begins before fast_io_fail_tmo ends holds the port against it while packets get lost.

    Measured on Linux 6.1: the reconnect keeps the remote port's mutex for the 90 s or so in which it fails, and the
    port stays blocked meanwhile.
    """
    reconnect, fast = timers.reconnect_delay, timers.fast_io_fail_tmo
    if reconnect is None or fast is None or reconnect > fast:
        return timers, ""
    text = (
        f"reconnect_delay {reconnect} s is not longer than fast_io_fail_tmo {fast} s: when packets get lost silently, "
        f"the reconnect that is under way keeps the port blocked and its I/O does not move to another path"
    )
    return replace(timers, reconnect_delay=fast + 1), text


def _outlast_queueing(timers: RemotePortTimers, queueing: Queueing) -> tuple[RemotePortTimers, str]:
    """Disks that vanish while multipath still queues for them come back under other names, or too late."""
    loss, seconds = timers.dev_loss_tmo, queueing.seconds
    if loss is None or (seconds is not None and loss > seconds):
        return timers, ""
    if seconds is None:
        text = f"dev_loss_tmo {loss} s removes disks for which multipath queues I/O for ever ({queueing})"
        return replace(timers, dev_loss_tmo=None) if _may_be_off(timers) else timers, text
    text = f"dev_loss_tmo {loss} s removes disks while multipath still queues I/O for them ({queueing})"
    longer = seconds + 1
    if timers.fast_io_fail_tmo is None and longer > FAST_IO_FAIL_MAX:
        return timers, f"{text}, and while fast_io_fail_tmo is off it cannot be longer than {FAST_IO_FAIL_MAX} s"
    return replace(timers, dev_loss_tmo=longer), text


def _may_be_off(timers: RemotePortTimers) -> bool:
    """Whether without dev_loss_tmo the connection would still come back by itself."""
    return timers.reconnect_delay is not None


def _warnings(timers: RemotePortTimers, queueing: Queueing) -> list[str]:
    """What has no one right repair."""
    reconnect, fast, loss = timers.reconnect_delay, timers.fast_io_fail_tmo, timers.dev_loss_tmo
    seconds = queueing.seconds
    texts: list[str] = []
    if fast is None:
        held = "for ever" if loss is None else f"until dev_loss_tmo, {loss} s"
        texts.append(f"fast_io_fail_tmo is off: I/O on a dead path is held {held} instead of moving to another path")
    if reconnect is None:
        end = "stays dead until it is removed by hand" if loss is None else f"is dead until dev_loss_tmo, {loss} s"
        texts.append(f"reconnect_delay is off: a connection that broke {end}, then srpha logs in anew")
    if seconds is not None and seconds > 0 and reconnect is not None:
        # Queueing begins when the last path fails, fast_io_fail_tmo after the first sign of trouble.
        until = seconds + (fast or 0)
        if until <= reconnect:
            texts.append(
                f"multipath gives up {until} s after the last path broke ({queueing}), before the driver first tries "
                f"to reconnect (reconnect_delay {reconnect} s)"
            )
    if seconds == 0 and fast is not None:
        texts.append(f"{queueing}: when all paths are down for longer than fast_io_fail_tmo {fast} s, I/O fails")
    return texts


def _changes(before: RemotePortTimers, after: RemotePortTimers) -> str:
    """``reconnect_delay 6 s is used``: the values that are not those given."""
    return " and ".join(
        f"{name} {'off' if (value := getattr(after, name)) is None else f'{value} s'} is used"
        for name in ("reconnect_delay", "fast_io_fail_tmo", "dev_loss_tmo")
        if getattr(before, name) != getattr(after, name)
    )
