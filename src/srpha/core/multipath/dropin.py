"""A drop-in for multipath with what SRP storage needs, apart from the administrator's files (facts: multipath 1.6, 6).

multipath reads /etc/multipath.conf, then ``conf.d/*.conf`` by name, and the last word counts. So the drop-in is made
with those files in view: whatever an administrator has said of a device is left out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from srpha.core.multipath.conf import ConfFile, Section, quote
from srpha.core.multipath.match import matches

SRP_PROTOCOL: Final = "scsi:srp"
FILE_NAME: Final = "90-srpha.conf"
_HEADER: Final = (
    "# Written by srpha for SRP storage; it is written anew, so put nothing of your own here.",
    "# A device section of yours, in /etc/multipath.conf or another file of this folder, takes precedence.",
)
_FIND_MULTIPATHS: Final = ("off", "on", "greedy", "smart", "strict")
_RDAC: Final = (
    ("path_grouping_policy", "group_by_prio"),
    ("path_checker", "rdac"),
    ("features", "2 pg_init_retries 50"),
    ("hardware_handler", "1 rdac"),
    ("prio", "rdac"),
    ("failback", "immediate"),
)
_ALUA: Final = (
    ("path_grouping_policy", "group_by_prio"),
    ("hardware_handler", "1 alua"),
    ("prio", "alua"),
    ("failback", "immediate"),
)
_NO_PATH_RETRY: Final = "no_path_retry"


class InvalidDropInError(ValueError):
    """A setting of the drop-in that multipath would not take; the message names it and what is allowed."""


@dataclass(frozen=True, slots=True)
class SrpArray:
    """A kind of SRP storage and what multipath should know of it."""

    title: str
    vendor: str
    """Extended regular expression over INQUIRY's vendor, as multipath wants it."""
    product: str
    samples: tuple[tuple[str, str], ...]
    """Vendors and products it stands for: they tell which sections of other files mean the same devices."""
    settings: tuple[tuple[str, str], ...]
    product_blacklist: str = ""
    """Products that are no storage (a management LUN)."""


SRP_ARRAYS: Final = (
    SrpArray(
        "LIO (ib_srpt)",
        "(LIO-ORG|SUSE)",
        ".",
        (("LIO-ORG", "disk0"), ("SUSE", "disk0")),
        # LIO answers TEST UNIT READY with GOOD though its backing store is dead
        (*_ALUA, ("path_checker", "directio"), ("detect_checker", "no"), (_NO_PATH_RETRY, "12")),
    ),
    SrpArray(
        "SCST",
        "^SCST_",
        ".",
        (("SCST_FIO", "disk0"), ("SCST_BIO", "disk0")),
        (*_ALUA, (_NO_PATH_RETRY, "12")),
    ),
    SrpArray(
        "DDN SFA, S2A and EF3015",
        "DDN",
        "^(EF3015|S2A|SFA)",
        (("DDN", "SFA14K"), ("DDN", "S2A 9900"), ("DDN", "EF3015")),
        (*_ALUA, (_NO_PATH_RETRY, "30")),
    ),
    SrpArray(
        "DDN EF3010",
        "DDN",
        "^EF3010",
        (("DDN", "EF3010"),),
        (("path_grouping_policy", "multibus"), (_NO_PATH_RETRY, "30")),
    ),
    SrpArray(
        "IBM DCS9900 (DDN)",
        "IBM",
        "^DCS9900",
        (("IBM", "DCS9900"),),
        (*_ALUA, (_NO_PATH_RETRY, "30")),
    ),
    SrpArray(
        "NetApp E-Series and its rebrands",
        "(NETAPP|LSI|ENGENIO)",
        "INF-01-00",
        (("NETAPP", "INF-01-00"), ("LSI", "INF-01-00"), ("ENGENIO", "INF-01-00")),
        (*_RDAC, (_NO_PATH_RETRY, "30")),
        product_blacklist="Universal Xport",
    ),
    SrpArray(
        "TMS RamSan and IBM FlashSystem up to 900",
        "(TMS|IBM)",
        "(RamSan|FlashSystem)",
        (("TMS", "RamSan-810"), ("IBM", "FlashSystem")),
        (("path_grouping_policy", "multibus"),),
    ),
    SrpArray(
        "Violin 3000 and 6000 with ALUA",
        "VIOLIN",
        "SAN ARRAY ALUA",
        (("VIOLIN", "SAN ARRAY ALUA"),),
        (*_ALUA, (_NO_PATH_RETRY, "30")),
    ),
)
"""Storage that is known to speak SRP. The regular expressions are multipath-tools' own names for it."""


@dataclass(frozen=True, slots=True)
class DropInSettings:
    """What the drop-in should say. Checked when made."""

    no_path_retry: int | str | None = None
    """How long I/O waits without a path: a number of checks, ``queue`` or ``fail``; None takes each array's own."""
    eh_deadline: int | None = 30
    """Seconds that the kernel's error handler may take over aborts and resets before it resets the host, which for
    ib_srp is a reconnect; None leaves the kernel's default, no limit."""
    find_multipaths: str | None = None
    """It holds for all devices of the machine, so it is left to the administrator unless given."""
    arrays: tuple[SrpArray, ...] = SRP_ARRAYS

    def __post_init__(self) -> None:
        retry = self.no_path_retry
        if (isinstance(retry, int) and not 1 <= retry < 1 << 31) or (
            isinstance(retry, str) and retry not in ("queue", "fail")
        ):
            raise InvalidDropInError(f"no_path_retry is {retry!r}; give a number of checks from 1, 'queue' or 'fail'")
        if self.eh_deadline is not None and not 1 <= self.eh_deadline < 1 << 31:
            raise InvalidDropInError(f"eh_deadline is {self.eh_deadline}; give at least 1 s, or nothing")
        if self.find_multipaths is not None and self.find_multipaths not in _FIND_MULTIPATHS:
            allowed = ", ".join(_FIND_MULTIPATHS)
            raise InvalidDropInError(f"find_multipaths is {self.find_multipaths!r}; allowed are {allowed}")


@dataclass(frozen=True, slots=True)
class DropIn:
    """The drop-in's text, and what was left out of it because an administrator has said it, a sentence each."""

    text: str
    left_out: tuple[str, ...]


def make_dropin(settings: DropInSettings, administrators: Sequence[ConfFile]) -> DropIn:
    """The drop-in for ``settings``; ``administrators`` are all other files that multipath reads."""
    left_out: list[str] = []
    blocks: list[list[str]] = []
    if settings.find_multipaths is not None:
        said = _say("find_multipaths", [(file, section) for file in administrators for section in file.all("defaults")])
        if said is None:
            blocks.append(_block("defaults", [_line("find_multipaths", settings.find_multipaths)]))
        else:
            left_out.append(f"find_multipaths stays as {said}")
    devices = [part for array in settings.arrays for part in _device(array, settings, administrators, left_out)]
    if devices:
        blocks.append(_block("devices", devices))
    if settings.eh_deadline is not None:
        blocks += _protocol(settings.eh_deadline, administrators, left_out)
    text = "\n".join("\n".join(block) + "\n" for block in ([*_HEADER], *blocks))
    return DropIn(text, tuple(left_out))


def device_sections(file: ConfFile, array: SrpArray) -> tuple[Section, ...]:
    """The device sections of a file that mean (some of) the same devices as ``array``."""
    return tuple(
        device
        for devices in file.all("devices")
        for device in devices.inside("device")
        if any(_means(device, vendor, product) for vendor, product in array.samples)
    )


def srp_protocols(file: ConfFile) -> tuple[Section, ...]:
    """The protocol sections of a file that are for SRP."""
    return tuple(
        protocol
        for overrides in file.all("overrides")
        for protocol in overrides.inside("protocol")
        if (kind := protocol.get("type")) is not None and kind.value == SRP_PROTOCOL
    )


def _device(
    array: SrpArray, settings: DropInSettings, administrators: Sequence[ConfFile], left_out: list[str]
) -> list[str]:
    wanted = dict(array.settings)
    if settings.no_path_retry is not None:
        wanted[_NO_PATH_RETRY] = str(settings.no_path_retry)
    if array.product_blacklist:
        wanted["product_blacklist"] = array.product_blacklist
    lines = []
    for keyword, value in wanted.items():
        said = _say(keyword, [(file, section) for file in administrators for section in device_sections(file, array)])
        if said is None:
            lines.append(_line(keyword, value))
        else:
            left_out.append(f"{array.title}: {keyword} stays as {said}")
    if not lines:
        return []
    identity = [f"# {array.title}", _line("vendor", array.vendor), _line("product", array.product)]
    return _block("device", [*identity, *lines])


def _protocol(eh_deadline: int, administrators: Sequence[ConfFile], left_out: list[str]) -> list[list[str]]:
    said = _say("eh_deadline", [(file, section) for file in administrators for section in srp_protocols(file)])
    if said is not None:
        left_out.append(f"SRP: eh_deadline stays as {said}")
        return []
    protocol = _block("protocol", [_line("type", SRP_PROTOCOL), f"eh_deadline {eh_deadline}"])
    return [_block("overrides", protocol)]


def _say(keyword: str, places: Sequence[tuple[ConfFile, Section]]) -> str | None:
    """Where and how an administrator has set ``keyword``; the last place decides."""
    for file, section in reversed(places):
        option = section.get(keyword)
        if option is not None:
            return f"{file.path} line {option.line} has it: {option.value}"
    return None


def _means(device: Section, vendor: str, product: str) -> bool:
    wanted_vendor, wanted_product = device.get("vendor"), device.get("product")
    if wanted_vendor is None and wanted_product is None:
        return False
    return (wanted_vendor is None or matches(wanted_vendor.value, vendor)) and (
        wanted_product is None or matches(wanted_product.value, product)
    )


def _line(keyword: str, value: str) -> str:
    return f"{keyword} {quote(value)}" if not value.isdigit() else f"{keyword} {value}"


def _block(keyword: str, lines: Sequence[str]) -> list[str]:
    return [f"{keyword} {{", *(f"\t{line}" for line in lines), "}"]
