"""What in an administrator's multipath configuration works against SRP, told in plain sentences.

Order of blacklisting: property, devnode, device, protocol, WWID; each has exceptions of its own (multipath.conf(5);
facts: multipath 1.6, 1.8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from srpha.core.multipath.conf import ConfFile, Option, Section
from srpha.core.multipath.dropin import SRP_ARRAYS, SRP_PROTOCOL, SrpArray, srp_protocols
from srpha.core.multipath.match import excludes

_SAMPLE_DEVNODE: Final = "sda"
_SAMPLE_WWID: Final = "360000000000000000e00000000010001"
_TIMERS: Final = ("fast_io_fail_tmo", "dev_loss_tmo")
_CAREFUL: Final = ("strict", "on", "yes")
"""Values of ``find_multipaths`` with which a single new path makes no map."""


class FindingKind(Enum):
    """How much a finding matters."""

    CONFLICT = "conflict"
    """SRP storage is hidden from multipath, or a setting does not do what it seems to."""
    NOTE = "note"
    """Worth knowing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: ``text`` is a sentence with file and line."""

    kind: FindingKind
    text: str


def find_conflicts(files: Sequence[ConfFile], arrays: Sequence[SrpArray] = SRP_ARRAYS) -> tuple[Finding, ...]:
    """Findings in the administrator's files, which come in the order multipath reads them; ours is not among them."""
    return (
        *(Finding(FindingKind.CONFLICT, complaint) for file in files for complaint in file.complaints),
        *_hidden(files, arrays),
        *_overridden(files, arrays),
        *_without_effect(files),
        *_find_multipaths(files),
    )


def _hidden(files: Sequence[ConfFile], arrays: Sequence[SrpArray]) -> Iterator[Finding]:
    hits: tuple[tuple[str, str, str], ...] = (
        ("devnode", _SAMPLE_DEVNODE, "hides SCSI disks from multipath"),
        ("protocol", SRP_PROTOCOL, "hides every SRP disk from multipath"),
        ("wwid", _SAMPLE_WWID, "hides disks by WWID: only those in blacklist_exceptions are used"),
    )
    for keyword, sample, effect in hits:

        def covers(section: Section, keyword: str = keyword, sample: str = sample) -> Option | None:
            return next((item for item in section.all(keyword) if excludes(item.value, sample)), None)

        for text in _blacklisted(files, covers):
            yield Finding(FindingKind.CONFLICT, f"{text} {effect}")
    for array in arrays:
        for vendor, product in array.samples:

            def names(section: Section, vendor: str = vendor, product: str = product) -> Option | None:
                return next(
                    (_first(device) for device in section.inside("device") if _covers(device, vendor, product)), None
                )

            for text in _blacklisted(files, names):
                what = f"hides {array.title} from multipath (vendor {vendor!r}, product {product!r})"
                yield Finding(FindingKind.CONFLICT, f"{text} {what}")


def _blacklisted(files: Sequence[ConfFile], find: Callable[[Section], Option | None]) -> Iterator[str]:
    """Where something is blacklisted, when no exception takes it back."""
    if any(find(section) for file in files for section in file.all("blacklist_exceptions")):
        return
    for file in files:
        for section in file.all("blacklist"):
            option = find(section)
            if option is not None:
                yield f"{file.path} line {option.line}: the blacklist's {option.keyword} {option.value!r}"


def _covers(device: Section, vendor: str, product: str) -> bool:
    wanted = [(device.get("vendor"), vendor), (device.get("product"), product)]
    given = [(option, text) for option, text in wanted if option is not None]
    return bool(given) and all(excludes(option.value, text) for option, text in given)


def _first(device: Section) -> Option | None:
    return device.options[0] if device.options else None


def _overridden(files: Sequence[ConfFile], arrays: Sequence[SrpArray]) -> Iterator[Finding]:
    ours = {keyword for array in arrays for keyword, _ in array.settings}
    for file in files:
        for section in file.all("overrides"):
            for option in section.options:
                if option.keyword in ours:
                    where = f"{file.path} line {option.line}"
                    text = f"{where}: {option.keyword} {option.value!r} in overrides beats what is set for SRP devices"
                    yield Finding(FindingKind.CONFLICT, text)


def _without_effect(files: Sequence[ConfFile]) -> Iterator[Finding]:
    for file in files:
        for section in srp_protocols(file):
            for keyword in _TIMERS:
                option = section.get(keyword)
                if option is not None:
                    text = (
                        f"{file.path} line {option.line}: {keyword} has no effect for SRP, multipathd does not set "
                        "remote-port timers there; set it in srpha's own configuration"
                    )
                    yield Finding(FindingKind.CONFLICT, text)


def _find_multipaths(files: Sequence[ConfFile]) -> Iterator[Finding]:
    places = [
        (file, option)
        for file in files
        for section in file.all("defaults")
        if (option := section.get("find_multipaths")) is not None
    ]
    if not places:
        text = "find_multipaths is not set; by default a new unit may get no map until its WWID is known to multipath"
        yield Finding(FindingKind.NOTE, text)
        return
    file, option = places[-1]
    if option.value in _CAREFUL:
        text = f"{file.path} line {option.line}: with find_multipaths {option.value!r} a new unit gets no map " + (
            "until its WWID is known to multipath" if option.value == "strict" else "while it has a single path"
        )
        yield Finding(FindingKind.NOTE, text)
