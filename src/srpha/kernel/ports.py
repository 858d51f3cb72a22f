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
from srpha.kernel.sysfs import Sysfs, numbered
from srpha.kernel.umad_abi import ABI_VERSION
from srpha.wire.identifiers import Gid

SYSFS: Final = Path("/sys")
DEV: Final = Path("/dev")

_DEVICE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}", re.ASCII)
"""The kernel's IB_DEVICE_NAME_MAX is 64 with the final zero."""
_PORT_MAX: Final = 255
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,9}", re.ASCII)
_GUID: Final = re.compile(r"[0-9a-fA-F]{4}(:[0-9a-fA-F]{4}){3}", re.ASCII)
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
    files = Sysfs(sysfs)
    folder = "class/infiniband_mad"
    try:
        nodes = [name for _, name in numbered(files.names(folder), "umad")]
    except OSError as error:
        raise UmadAbiError(f"cannot list {sysfs / folder}: {error.strerror}") from error
    if not nodes:
        return ()
    version = files.text(f"{folder}/abi_version")
    if version != str(ABI_VERSION):
        shown = "is unreadable" if version is None else f"says {version[:20]!r}"
        raise UmadAbiError(f"{sysfs / folder}/abi_version {shown}; this program speaks version {ABI_VERSION}")
    found: dict[str, PortDescription] = {}
    for node in nodes:
        device = files.name(f"{folder}/{node}/ibdev")
        port = files.integer(f"{folder}/{node}/port")
        if device is not None and port is not None and 0 < port <= _PORT_MAX:
            description = PortDescription(device, port, dev / "infiniband" / node)
            found.setdefault(description.name, description)
    return tuple(sorted(found.values(), key=lambda description: (natural(description.device), description.port)))


def natural(name: str) -> tuple[tuple[str, int], ...]:
    """Sort key that puts ``mlx5_2`` before ``mlx5_10``."""
    parts = re.findall(r"(\D*)(\d*)", name, re.ASCII)
    return tuple((text, int(digits) if digits else -1) for text, digits in parts)


class PortFiles:
    """One port's folder in sysfs."""

    def __init__(self, device: str, port: int, sysfs: Path = SYSFS) -> None:
        if not _DEVICE_NAME.fullmatch(device) or not 0 < port <= _PORT_MAX:
            raise ValueError(f"{device[:80]!r} port {port} is no name of an RDMA device's port")
        self._device = device
        self._port = port
        self._files = Sysfs(sysfs)
        self._folder = f"class/infiniband/{device}/ports/{port}"

    def identity(self, before: PortIdentity | None = None) -> PortIdentity:
        """What the port says of itself; raises :class:`MadPortGoneError` when it is not there.

        The parts that cost most to read (node GUID, P_Key table) are taken from ``before`` if that is given.
        """
        files, folder = self._files, self._folder
        state = files.text(f"{folder}/state")
        if state is None and not files.exists(folder):
            raise MadPortGoneError(f"{self._device}/{self._port}: there is no such port in {files.root}")
        gid = files.gid(f"{folder}/gids/0") or Gid(0, 0)
        if before is None:
            node_guid, pkeys = self._node_guid(), self._pkeys()
        else:
            node_guid, pkeys = before.node_guid, before.pkeys
        return PortIdentity(
            device=self._device,
            port=self._port,
            node_guid=node_guid,
            port_guid=gid.guid,
            gid=gid,
            lid=self._number("lid", 0xFFFF),
            sm_lid=self._number("sm_lid", 0xFFFF),
            sm_sl=self._number("sm_sl", 15),
            state=_state(state),
            pkeys=pkeys,
            link_layer=_link_layer(files.text(f"{folder}/link_layer")),
        )

    def _number(self, name: str, largest: int) -> int:
        """A decimal or ``0x`` number of the port; 0, which means "none" for all of them, for anything odd."""
        text = self._files.text(f"{self._folder}/{name}")
        if text is None or not _NUMBER.fullmatch(text):
            return 0
        number = int(text, 16) if text[:2] in ("0x", "0X") else int(text)
        return number if number <= largest else 0

    def _node_guid(self) -> int:
        text = self._files.text(f"class/infiniband/{self._device}/node_guid")
        return int(text.replace(":", ""), 16) if text is not None and _GUID.fullmatch(text) else 0

    def _pkeys(self) -> tuple[int, ...]:
        """The table by index; an entry that cannot be read counts as unused."""
        try:
            indices = [number for number, _ in numbered(self._files.names(f"{self._folder}/pkeys"), "")]
        except OSError:
            return ()
        size = max((index for index in indices if index < _PKEYS_MAX), default=-1) + 1
        return tuple(self._number(f"pkeys/{index}", 0xFFFF) for index in range(size))


def _state(text: str | None) -> LinkState:
    """``"4: ACTIVE"``; what is not known is not usable."""
    number, colon, _ = (text or "").partition(":")
    return _STATES.get(int(number), LinkState.DOWN) if colon and number.isdigit() else LinkState.DOWN


def _link_layer(text: str | None) -> LinkLayer:
    """Kernels before 2.6.38 have no such file, and InfiniBand only."""
    return LinkLayer.INFINIBAND if text in (None, "InfiniBand") else LinkLayer.ETHERNET
