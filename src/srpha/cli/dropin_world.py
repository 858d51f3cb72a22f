"""What the drop-in commands need of the host they run on, and the kernel's answer to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from srpha.core.seams import Initiator, MadPort


class HostError(Exception):
    """The host lacks something. ``str()`` is one sentence saying what and where."""


@dataclass(frozen=True, slots=True)
class LocalPort:
    """A local port and the user MAD device that serves it."""

    device: str
    port: int
    umad: str
    """Name of the device node without its folder, ``umad0``."""


class DropinWorld(Protocol):
    """A host: its local ports and its SRP initiator."""

    def ports(self) -> Sequence[LocalPort]:
        """Local ports by name. Raises :class:`HostError`."""
        ...

    def mad_port(self, device: str, port: int, *, keep: bool) -> AbstractAsyncContextManager[MadPort]:
        """A port to ask with. ``keep``: for long, so that changes of its identity are to be heard of."""
        ...

    def initiator(self) -> AbstractAsyncContextManager[Initiator]:
        """The SRP initiator."""
        ...

    def max_imm_data(self) -> int | None:
        """Size of the initiator's immediate data in bytes, None when it uses none."""
        ...


class KernelWorld:
    """The host that this program runs on. ``SYSFS_PATH`` moves the root of sysfs, as it does for srp_daemon."""

    def __init__(self, sysfs: Path | None = None, dev: Path = Path("/dev")) -> None:
        self._sysfs = Path(os.environ.get("SYSFS_PATH") or "/sys") if sysfs is None else sysfs
        self._dev = dev

    def ports(self) -> Sequence[LocalPort]:
        """See :class:`DropinWorld`."""
        from srpha.core.seams import MadError  # noqa: PLC0415
        from srpha.kernel.ports import find_ports  # noqa: PLC0415

        try:
            found = find_ports(self._sysfs, self._dev)
        except MadError as error:
            raise HostError(str(error)) from error
        return tuple(LocalPort(item.device, item.port, item.node.name) for item in found)

    @asynccontextmanager
    async def mad_port(self, device: str, port: int, *, keep: bool) -> AsyncGenerator[MadPort, None]:
        """See :class:`DropinWorld`."""
        from srpha.kernel.umad import UmadPort  # noqa: PLC0415

        umad = UmadPort(device, port, sysfs=self._sysfs, dev=self._dev)
        if not keep:
            try:
                yield umad
            finally:
                umad.close()
            return
        async with asyncio.TaskGroup() as group:
            task = group.create_task(umad.run())
            try:
                yield umad
            finally:
                task.cancel()

    @asynccontextmanager
    async def initiator(self) -> AsyncGenerator[Initiator, None]:
        """See :class:`DropinWorld`."""
        from srpha.kernel.ib_srp import IbSrpInitiator  # noqa: PLC0415
        from srpha.kernel.sysfs import Sysfs  # noqa: PLC0415

        initiator = IbSrpInitiator(Sysfs(self._sysfs))
        try:
            yield initiator
        finally:
            initiator.close()

    def max_imm_data(self) -> int | None:
        """See :class:`DropinWorld`."""
        from srpha.kernel.sysfs import Sysfs  # noqa: PLC0415

        sysfs = Sysfs(self._sysfs)
        parameters = "module/ib_srp/parameters"
        if sysfs.text(f"{parameters}/use_imm_data") != "Y":
            return None
        return sysfs.integer(f"{parameters}/max_imm_data")
