"""Local HCA ports as sysfs shows them: which there are, and what each says of itself (facts: srp E).

Reading an attribute may ask the device's firmware: the callers decide how often. What a file says is checked; what is
missing or odd counts as unknown, which for a port means: cannot be used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from srpha.core.seams import LinkLayer, LinkState, MadError, MadPortGoneError, PortIdentity
from srpha.kernel.umad_abi import ABI_VERSION
from srpha.wire.errors import DecodeError
from srpha.wire.identifiers import Gid

SYSFS: Final = Path("/sys")
DEV: Final = Path("/dev")

_DEVICE_NAME: Final = re.compile(r"(?!\.)[A-Za-z0-9_.:-]{1,63}", re.ASCII)
"""The kernel's IB_DEVICE_NAME_MAX is 64 with the final zero."""
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19}", re.ASCII)
_NODE: Final = re.compile(r"umad[0-9]{1,6}", re.ASCII)
_PKEYS_MAX: Final = 0x10000
_STATES: Final = {
    1: LinkState.DOWN,
    2: LinkState.INIT,
    3: LinkState.ARMED,
    4: LinkState.ACTIVE,
    5: LinkState.ACTIVE,  # ACTIVE_DEFER: active, and about to train again
}


class UmadAbiError(MadError):
    """The kernel's user MAD interface has a version that this program does not speak."""


@dataclass(frozen=True, slots=True)
class PortDescription:
    """A port that has a user MAD device."""

    device: str
    port: int
    node: Path
    """The character device, ``/dev/infiniband/umad0``. Its number may be another after the HCA was away."""

    @property
    def name(self) -> str:
        """``device/port``."""
        return f"{self.device}/{self.port}"


def find_ports(sysfs: Path = SYSFS, dev: Path = DEV) -> tuple[PortDescription, ...]:
    """The ports with a user MAD device, in the natural order of their names; none while ib_umad is not loaded.

    An entry that vanishes or says something odd while it is read is left out. Raises :class:`UmadAbiError`.
    """
    folder = sysfs / "class" / "infiniband_mad"
    try:
        nodes = sorted(entry.name for entry in folder.iterdir() if _NODE.fullmatch(entry.name))
    except OSError:
        return ()
    if not nodes:
        return ()
    version = read_text(folder / "abi_version")
    if version != str(ABI_VERSION):
        shown = "is unreadable" if version is None else f"says {version[:20]!r}"
        raise UmadAbiError(f"{folder / 'abi_version'} {shown}; this program speaks version {ABI_VERSION}")
    found: dict[str, PortDescription] = {}
    for node in nodes:
        device = read_text(folder / node / "ibdev")
        port = read_number(folder / node / "port")
        if device is not None and _DEVICE_NAME.fullmatch(device) and port is not None and 0 < port < 256:
            description = PortDescription(device, port, dev / "infiniband" / node)
            found.setdefault(description.name, description)
    return tuple(sorted(found.values(), key=lambda description: (natural(description.device), description.port)))


def natural(name: str) -> tuple[tuple[str, int], ...]:
    """Sort key that puts ``mlx5_2`` before ``mlx5_10``."""
    parts = re.findall(r"(\D*)(\d*)", name, re.ASCII)
    return tuple((text, int(digits) if digits else -1) for text, digits in parts)


@dataclass(frozen=True, slots=True)
class PortFiles:
    """One port's folder in sysfs."""

    device: str
    port: int
    sysfs: Path = SYSFS

    def __post_init__(self) -> None:
        if not _DEVICE_NAME.fullmatch(self.device) or not 0 < self.port < 256:
            raise MadError(f"{self.device[:80]!r} port {self.port} is no name of an RDMA device's port")

    @property
    def folder(self) -> Path:
        return self.sysfs / "class" / "infiniband" / self.device / "ports" / str(self.port)

    def identity(self) -> PortIdentity:
        """Everything, the P_Key table included. Raises :class:`MadPortGoneError` when the port is not there."""
        return self.refreshed(None)

    def refreshed(self, before: PortIdentity | None) -> PortIdentity:
        """The identity now, the parts that cost most to read (GUID, P_Key table) taken from ``before`` if given."""
        folder = self.folder
        state_text = read_text(folder / "state")
        if state_text is None and not folder.is_dir():
            raise MadPortGoneError(f"{self.device}/{self.port}: there is no such port in {self.sysfs}")
        gid = _gid(read_text(folder / "gids" / "0"))
        if before is None:
            node_guid = _guid(read_text(folder.parent.parent / "node_guid"))
            pkeys = self._pkeys()
        else:
            node_guid, pkeys = before.node_guid, before.pkeys
        return PortIdentity(
            device=self.device,
            port=self.port,
            node_guid=node_guid,
            port_guid=gid.guid,
            gid=gid,
            lid=read_number(folder / "lid", 0xFFFF) or 0,
            sm_lid=read_number(folder / "sm_lid", 0xFFFF) or 0,
            sm_sl=read_number(folder / "sm_sl", 15) or 0,
            state=_state(state_text),
            pkeys=pkeys,
            link_layer=_link_layer(read_text(folder / "link_layer")),
        )

    def _pkeys(self) -> tuple[int, ...]:
        """The table by index; an entry that cannot be read counts as unused."""
        folder = self.folder / "pkeys"
        try:
            indices = [int(entry.name) for entry in folder.iterdir() if entry.name.isascii() and entry.name.isdigit()]
        except OSError:
            return ()
        size = max((index for index in indices if index < _PKEYS_MAX), default=-1) + 1
        return tuple(read_number(folder / str(index), 0xFFFF) or 0 for index in range(size))


def read_text(path: Path, longest: int = 4096) -> str | None:
    """A sysfs attribute without its final newline; None when it is missing, unreadable or not printable ASCII."""
    try:
        with path.open("rb", buffering=0) as file:
            data = file.read(longest + 1)
    except OSError:
        return None
    text = data.decode("latin-1").rstrip("\n")
    return text if len(data) <= longest and text.isascii() and text.isprintable() else None


def read_number(path: Path, largest: int = (1 << 63) - 1) -> int | None:
    """A decimal or ``0x`` number of 0 to ``largest``; None for anything else."""
    text = read_text(path)
    if text is None or not _NUMBER.fullmatch(text):
        return None
    number = int(text, 16) if text[:2] in ("0x", "0X") else int(text)
    return number if number <= largest else None


def _state(text: str | None) -> LinkState:
    """``"4: ACTIVE"``; what is not known is not usable."""
    number, colon, _ = (text or "").partition(":")
    return _STATES.get(int(number), LinkState.DOWN) if colon and number.isdigit() else LinkState.DOWN


def _link_layer(text: str | None) -> LinkLayer:
    """Kernels before 2.6.38 have no such file and InfiniBand only."""
    return LinkLayer.INFINIBAND if text in (None, "InfiniBand") else LinkLayer.ETHERNET


def _gid(text: str | None) -> Gid:
    try:
        return Gid.from_hex(text or "")
    except DecodeError:
        return Gid(0, 0)


def _guid(text: str | None) -> int:
    digits = (text or "").replace(":", "")
    return int(digits, 16) if re.fullmatch(r"[0-9a-fA-F]{16}", digits) else 0
