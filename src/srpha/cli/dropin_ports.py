"""Which local port a command line of srp_daemon means (facts: srp A.2)."""

from __future__ import annotations

from collections.abc import Sequence

from srpha.cli.dropin_flags import Flags
from srpha.cli.dropin_world import DropinWorld, HostError, LocalPort
from srpha.core.seams import LinkLayer, LinkState, MadPortGoneError, PortIdentity


async def choose_ports(flags: Flags, world: DropinWorld) -> tuple[tuple[str, int], ...]:
    """Device and number of the ports meant; at least one. Raises :class:`HostError`.

    ``-i`` and ``-j`` come before ``-d``; without any of them it is the first port that is active. ``--all-ports`` means
    all InfiniBand ports.
    """
    if flags.device is not None:
        return ((flags.device, flags.port),)
    ports = world.ports()
    if flags.umad is not None:
        return (_of_umad(flags.umad, ports),)
    usable = [
        (item, identity)
        for item in ports
        if (identity := await _identity(world, item)) is not None and identity.link_layer is LinkLayer.INFINIBAND
    ]
    if flags.all_ports and usable:
        return tuple((item.device, item.port) for item, _ in usable)
    for item, identity in usable:
        if identity.state is LinkState.ACTIVE:
            return ((item.device, item.port),)
    what = "InfiniBand port" if flags.all_ports else "active InfiniBand port"
    raise HostError(f"this host has no {what} with a user MAD device: is ib_umad loaded and the cable in?")


def _of_umad(path: str, ports: Sequence[LocalPort]) -> tuple[str, int]:
    _, slash, name = path.rpartition("/")
    if not slash or not name:
        raise HostError(f"-d {path[:80]!r}: a user MAD device with its folder is needed, as in /dev/infiniband/umad0")
    for item in ports:
        if item.umad == name:
            return item.device, item.port
    known = ", ".join(item.umad for item in ports) or "none"
    raise HostError(f"-d {path[:80]!r}: there is no such user MAD device; there are {known}")


async def _identity(world: DropinWorld, item: LocalPort) -> PortIdentity | None:
    async with world.mad_port(item.device, item.port, keep=False) as port:
        try:
            return port.identity()
        except MadPortGoneError:
            return None
