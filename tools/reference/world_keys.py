"""The keys of world files, from the models that check them; what a key means stands here, once per key."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel

from srpha.embedded.worldfile import WorldFile
from tools.reference.text import table

_MEANING: Final[Mapping[str, str]] = MappingProxyType(
    {
        "topology": "an ibsim or ibnetdiscover file, relative to this one, whose nodes and cables come first",
        "subnet.prefix": "GID prefix of the subnet",
        "subnet.sm": "the HCA whose first port runs the subnet manager; without it the first HCA",
        "switch.name": "name of the switch in links and faults",
        "switch.ports": "number of outer ports",
        "switch.node_guid": "node GUID; without it one by its place in the file",
        "switch.description": "NodeDescription; without it the name",
        "hca.name": "name of the HCA in links and faults",
        "hca.ports": "number of ports; without it 1",
        "hca.host": "the host that has this HCA; without it the HCA is a target's, the subnet manager's or idle",
        "hca.device": "the device's name on its host; without it mlx5_0, mlx5_1, ...",
        "hca.node_guid": "node GUID; without it one by its place in the file",
        "hca.port_guids": "port GUIDs from port 1 on; a missing one is node GUID + port number",
        "hca.description": "NodeDescription; without it host and device, or the name",
        "link.a": "one end of the cable, as `NODE/PORT`",
        "link.b": "its other end",
        "link.latency_us": "time in microseconds for the cable and the node behind it",
        "host.name": "name of a host; once one host is listed all must be",
        "target.name": "name of the target in faults",
        "target.hcas": "its HCAs; all their cabled ports lead to all its IOCs",
        "target.late": "powered off until the fault `target-join`",
        "target.alua": "whether its units report ALUA states and target port groups",
        "target.request_limit": "credits that a login gets",
        "target.max_iu": "longest information unit from the initiator, in bytes",
        "target.ioc.guid": "IOC GUID; without it the node GUID of the target's HCA in the same place",
        "target.ioc.id_ext": "identifier extension; without it the IOC GUID",
        "target.ioc.service_id": "CM service ID; without it the IOC GUID",
        "target.ioc.id_string": "ID string of the controller",
        "target.ioc.io_class": "I/O class: SRP revision 16a, or 10 with its other byte order of identifiers",
        "target.ioc.access": "ALUA access state of its target port group",
        "target.ioc.service.name": "name of a further service entry, SRP's or not",
        "target.ioc.service.id": "its service ID",
        "target.unit.lun": "logical unit number",
        "target.unit.size": 'bytes, or text as `"64 MiB"`; a multiple of the block size',
        "target.unit.block_size": "bytes per block",
        "target.unit.file": "file that keeps the blocks, relative to this one, made if missing; without it: memory",
        "target.unit.serial": "unit serial number; without it one from IOC GUID and LUN",
        "target.unit.naa": "NAA 6 identifier; without it one from IOC GUID and LUN",
        "target.unit.write_protected": "writes are refused with DATA PROTECT",
        "target.unit.service_time_ms": "time in milliseconds that each command takes",
        "target.unit.queue_depth": "commands in the task set, beyond which TASK SET FULL is answered",
    }
)


def world_keys() -> str:
    """One table per table of the file."""
    return "\n\n".join(_tables(WorldFile, ""))


def meanings() -> tuple[set[str], set[str]]:
    """The keys that are described, and the keys that there are."""
    return set(_MEANING), set(_names(WorldFile, ""))


def _names(model: type[BaseModel], path: str) -> list[str]:
    names: list[str] = []
    for key, field in _fields(model):
        below = _model_in(field.annotation)
        names += _names(below, f"{path}{key}.") if below else [f"{path}{key}"]
    return names


def _tables(model: type[BaseModel], path: str) -> list[str]:
    rows: list[tuple[str, ...]] = []
    below: list[str] = []
    for key, field in _fields(model):
        inner = _model_in(field.annotation)
        if inner is None:
            rows.append((f"`{key}`", _kind(field), _default(field), _MEANING[f"{path}{key}"]))
            continue
        listed = get_origin(field.annotation) is list
        head = f"[[{path}{key}]]" if listed else f"[{path}{key}]"
        below += [f"## `{head}`", *_tables(inner, f"{path}{key}.")]
    head_row = ("key", "value", "default", "meaning")
    return [*([table(head_row, rows)] if rows else []), *below]


def _fields(model: type[BaseModel]) -> list[tuple[str, Any]]:
    return [(field.alias or name, field) for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _kind(field: Any) -> str:
    annotation = field.annotation
    limits = {type(one).__name__.lower(): one for one in (*field.metadata, *_inner_limits(annotation))}
    kinds = [one for one in get_args(annotation) if one is not type(None)] or [annotation]
    first = kinds[0]
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value!r}`".replace("'", '"') for value in kinds)
    if get_origin(annotation) is list:
        return "list of GUIDs" if first is not str and "gt" in _limit_names(first) else "list of names"
    base = _base(first)
    if base is bool:
        return "true or false"
    if base is str:
        most = next((one.max_length for one in limits.values() if hasattr(one, "max_length")), None)
        return f"text, at most {most} characters" if most else "text"
    if "gt" in limits:
        return "16 hex digits"
    low = next((one.ge for one in limits.values() if hasattr(one, "ge")), None)
    high = next((one.le for one in limits.values() if hasattr(one, "le")), None)
    below = next((one.lt for one in limits.values() if hasattr(one, "lt")), None)
    if low == 6 << 124:
        return "32 hex digits, the first 6"
    if below == 1 << 50:
        return "512 bytes to 1 PiB"
    word = "number" if base is float else "integer"
    if high is not None:
        return f"{word} from {low} to {high:.0f}"
    if below is not None:
        return f"{word} from {low} to below {below:.0f}"
    return f"{word} from {low:g}" if low is not None else word


def _base(kind: Any) -> Any:
    return get_args(kind)[0] if hasattr(kind, "__metadata__") else kind


def _inner_limits(annotation: Any) -> list[Any]:
    found: list[Any] = []
    for one in (annotation, *get_args(annotation)):
        for item in getattr(one, "__metadata__", ()):
            found += getattr(item, "metadata", [])
    return found


def _limit_names(kind: Any) -> set[str]:
    return {type(one).__name__.lower() for one in _inner_limits(kind)}


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    match field.default:
        case None | "" | []:
            return "none"
        case bool():
            return "true" if field.default else "false"
        case int() if field.default > 1 << 32:
            return f"`{field.default:x}`"
        case str():
            return f'`"{field.default}"`'
        case _:
            return f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
