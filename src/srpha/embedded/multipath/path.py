"""A path of the embedded engine: a SCSI device with the commands that are out on it."""

from __future__ import annotations

from srpha.core.multipath.path import PathSlot
from srpha.core.scsi_io import ScsiCommand, ScsiDevice
from srpha.core.seams import CheckerState, DeviceState
from srpha.embedded.multipath.io import BlockIo


class DevicePath(PathSlot):
    """A path slot bound to its device."""

    __slots__ = ("active", "checker_state", "device", "identity", "kept_out", "submit")

    def __init__(self, device: ScsiDevice) -> None:
        identity = device.identity
        super().__init__(
            device.dev_t,
            serial=identity.serial,
            node_name=device.nexus.target_port_id,
            target_port_group=identity.target_port_group,
        )
        self.device = device
        self.submit = device.submit
        self.identity = identity
        """What the unit said of itself when it was asked last."""
        self.checker_state = CheckerState.UNDEF
        self.kept_out = ""
        """Why the path may not be used although it answers; empty when it may."""
        self.active: dict[ScsiCommand, BlockIo] = {}
        """Commands out on the device, oldest first."""

    @property
    def running(self) -> bool:
        """The device takes commands."""
        return self.device.state is DeviceState.RUNNING

    def forget(self, command: ScsiCommand, io: BlockIo) -> None:
        """Stop waiting for a command."""
        del self.active[command]
        self.in_flight -= 1
        self.in_flight_bytes -= io.size
