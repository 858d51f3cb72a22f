"""The SCSI target device: its logical units, and the I_T nexuses that must hear what happens to them (SAM-5 4.6).

No transport here either. A change made through this class reaches every initiator as a unit attention condition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from srpha.embedded.target.backing import Backing, FileBacking, MemoryBacking
from srpha.embedded.target.logical_unit import AbsentUnit, LogicalUnit
from srpha.embedded.target.spec import SpecError, TargetSpec, UnitSpec
from srpha.embedded.target.unit_attention import Attention, ScsiNexus
from srpha.wire.errors import DecodeError
from srpha.wire.scsi.alua import AccessState
from srpha.wire.scsi.lun import LunAddressing, decode_lun, encode_lun

BackingMaker = Callable[[UnitSpec], Backing]


def make_backing(spec: UnitSpec) -> Backing:
    """Memory, or the file that ``spec`` names; raises :class:`~srpha.embedded.target.backing.BackingError`."""
    size = spec.blocks * spec.block_size
    return MemoryBacking(size) if spec.path is None else FileBacking(spec.path, size)


class TargetDevice:
    """Logical units by LUN, nexuses by initiator port and controller."""

    def __init__(self, spec: TargetSpec, backing_maker: BackingMaker = make_backing) -> None:
        """Make all units of ``spec``; raises :class:`~srpha.embedded.target.backing.BackingError`."""
        self._spec = spec
        self._make_backing = backing_maker
        self._access_states = [ioc.access_state for ioc in spec.iocs]
        self._units: dict[int, LogicalUnit] = {}
        self._luns: tuple[int, ...] = ()
        self._by_field: dict[int, LogicalUnit] = {}
        self._nexuses: dict[tuple[bytes, int], ScsiNexus] = {}
        self._known: set[tuple[bytes, int]] = set()
        """Nexuses that have existed since power on: one that returns hears of its loss, a new one of the power on."""
        self.absent = AbsentUnit(self)
        for unit in spec.units:
            self._place(unit)

    @property
    def spec(self) -> TargetSpec:
        return self._spec

    @property
    def luns(self) -> tuple[int, ...]:
        return self._luns

    @property
    def access_states(self) -> list[AccessState]:
        return self._access_states

    @property
    def units(self) -> Mapping[int, LogicalUnit]:
        """Units by LUN."""
        return MappingProxyType(self._units)

    def unit_at(self, field: int) -> LogicalUnit | None:
        """The unit that an 8-byte LUN field addresses; None when there is none or the field is not understood."""
        found = self._by_field.get(field)
        if found is None:
            try:
                return self._units.get(decode_lun(field))
            except DecodeError:
                return None
        return found

    def open_nexus(self, initiator_port_id: bytes, controller: int) -> ScsiNexus:
        """A new nexus; an older one of the same ports must have been closed."""
        key = (initiator_port_id, controller)
        nexus = ScsiNexus(initiator_port_id, controller)
        nexus.establish_all(self._luns, Attention.NEXUS_LOSS if key in self._known else Attention.POWER_ON)
        self._known.add(key)
        self._nexuses[key] = nexus
        return nexus

    def close_nexus(self, nexus: ScsiNexus) -> None:
        """I_T nexus loss (SAM-5 6.3.4): its commands are aborted and what it has not heard is forgotten."""
        for unit in self._units.values():
            unit.tasks.abort(lambda task: task.nexus is nexus)
        key = (nexus.initiator_port_id, nexus.controller)
        if self._nexuses.get(key) is nexus:
            del self._nexuses[key]

    def power_on(self) -> None:
        """All state but the data is lost: nexuses, tasks, attentions. Data stays, as on a disk."""
        for unit in self._units.values():
            unit.tasks.abort()
        self._nexuses.clear()
        self._known.clear()

    def add_unit(self, spec: UnitSpec) -> LogicalUnit:
        """Add a unit; raises :class:`SpecError` when its LUN is taken."""
        if spec.lun in self._units:
            raise SpecError(f"target {self._spec.name} has a LUN {spec.lun} already")
        self._tell(Attention.LUNS_CHANGED)
        unit = self._place(spec)
        for nexus in self._nexuses.values():
            nexus.establish(spec.lun, Attention.POWER_ON)
        return unit

    def remove_unit(self, lun: int) -> None:
        """Take a unit away: its commands are aborted, its blocks are gone (a file stays)."""
        unit = self._unit(lun)
        unit.tasks.abort()
        del self._units[lun]
        self._index()
        unit.backing.close()
        for nexus in self._nexuses.values():
            nexus.forget(lun)
        self._tell(Attention.LUNS_CHANGED)

    def resize_unit(self, lun: int, blocks: int) -> None:
        """Give a unit another size; blocks beyond a smaller one are lost."""
        if blocks < 1:
            raise SpecError(f"blocks of LUN {lun} is {blocks}; give at least 1")
        unit = self._unit(lun)
        unit.backing.resize(blocks * unit.block_size)
        unit.blocks = blocks
        self.announce(lun, Attention.CAPACITY_CHANGED)

    def reset_unit(self, lun: int) -> None:
        """Logical unit reset (SAM-5 6.3.3): all its commands are aborted, all initiators hear of it."""
        self._unit(lun).tasks.abort()
        self.announce(lun, Attention.UNIT_RESET)

    def protect_unit(self, lun: int, write_protected: bool) -> None:
        """Set or lift write protection, which shows in MODE SENSE."""
        self._unit(lun).write_protected = write_protected
        self.announce(lun, Attention.MODE_PARAMETERS_CHANGED)

    def identify_unit(self, lun: int, naa: int, serial: str) -> None:
        """Let another disk appear at a LUN, as a wrongly plugged cable does: identity changes, blocks stay."""
        unit = self._unit(lun)
        if naa >> 124 != 6 or not 1 <= len(serial) <= 32:
            raise SpecError(f"identity of LUN {lun}: give an NAA-6 number and a serial of 1 to 32 characters")
        unit.naa, unit.serial = naa, serial
        self.announce(lun, Attention.INQUIRY_CHANGED)

    def set_access_state(self, controller: int, state: AccessState) -> None:
        """Change the asymmetric access state of one controller's group for all units."""
        if self._access_states[controller] is not state:
            self._access_states[controller] = state
            self._tell(Attention.ACCESS_STATE_CHANGED)

    def announce(self, lun: int, attention: Attention) -> None:
        """Establish a unit attention condition of one unit for every nexus."""
        for nexus in self._nexuses.values():
            nexus.establish(lun, attention)

    def close(self) -> None:
        """Release all backings; nothing may be executed afterwards."""
        for unit in self._units.values():
            unit.tasks.abort()
            unit.backing.close()

    def _tell(self, attention: Attention) -> None:
        for nexus in self._nexuses.values():
            nexus.establish_all(self._luns, attention)

    def _unit(self, lun: int) -> LogicalUnit:
        unit = self._units.get(lun)
        if unit is None:
            raise SpecError(f"target {self._spec.name} has no LUN {lun}")
        return unit

    def _place(self, spec: UnitSpec) -> LogicalUnit:
        unit = self._units[spec.lun] = LogicalUnit(spec, self, self._make_backing(spec))
        self._index()
        return unit

    def _index(self) -> None:
        self._luns = tuple(sorted(self._units))
        self._by_field = {int.from_bytes(encode_lun(lun), "big"): unit for lun, unit in self._units.items()}
        for lun, unit in self._units.items():
            self._by_field[int.from_bytes(encode_lun(lun, LunAddressing.FLAT), "big")] = unit
