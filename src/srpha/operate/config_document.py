"""The configuration's documentation, made from its models: an example file, a reference page and a JSON schema."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from srpha.operate.client import Json
from srpha.operate.config_errors import table_in
from srpha.operate.config_model import CONFIG_FILE, Config

_WIDTH: Final = 100
_FIRST: Final = ("name", "action")
_SCHEMA: Final = "https://json-schema.org/draft/2020-12/schema"
_SHOWN: Final[dict[str, dict[str, object]]] = {
    "rule": {"name": "site storage", "action": "allow", "id_ext": "200500A0B8*", "local_ports": ["mlx5_0", "mlx5_1/1"]},
    "rule.options": {"ch_count": 4, "queue_size": 128},
    "timers": {"reconnect_delay": 20, "fast_io_fail_tmo": 5, "dev_loss_tmo": "off"},
    "timer_class": {"name": "fast arrays", "ioc_guid": "0002c9*", "reconnect_delay": 3, "fast_io_fail_tmo": 1},
    "static_target": {
        "name": "array over RoCE",
        "line": "id_ext=0002c90300a0b0c1,ioc_guid=0002c90300a0b0c1,dest=192.0.2.1:5555",
        "local_ports": ["mlx5_2/1"],
    },
}
"""Values for keys that have no default, or none that shows their form, by table."""


def schema_text() -> str:
    """The JSON schema of ``srpha.toml``."""
    schema = {"$schema": _SCHEMA, **Config.model_json_schema(by_alias=True)}
    return json.dumps(schema, indent=2) + "\n"


def example_text() -> str:
    """An example in which everything is commented out: as it stands it changes nothing."""
    parts = [
        f"# srpha's configuration, {CONFIG_FILE}. Everything below is commented out; keys that show a\n"
        "# default behave as shown when they stay so. Check a change with: srpha config check\n"
        "# Take it into use with: srpha reload (or systemctl reload srpha)\n"
    ]
    for name, is_array, model, description in _tables():
        head = f"[[{name}]]" if is_array else f"[{name}]"
        lines = [_comment(description), f"#{head}" if _optional(name) else head]
        for key, field in _keys(model):
            lines.append(_comment(_meaning(field)))
            lines.append(f"#{key} = {_toml(_example(name, key, field))}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def reference_text() -> str:
    """The reference page in Markdown: one table per section."""
    parts = []
    for name, is_array, model, description in _tables():
        parts.append(f"## `{'[[' if is_array else '['}{name}{']]' if is_array else ']'}`\n\n{description}\n")
        rows = ["| key | allowed | default | meaning |", "|---|---|---|---|"]
        properties = _properties(model)
        for key, field in _keys(model):
            cells = (f"`{key}`", _allowed(properties[key]), _default(field), _meaning(field))
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _tables() -> Iterator[tuple[str, bool, type[BaseModel], str]]:
    """All tables in the order of the model: name, whether there may be several, model, description."""
    for name, field in Config.model_fields.items():
        key = field.alias or name
        model = table_in(field.annotation)
        assert model is not None
        yield key, isinstance(field.default, list), model, _words(model.__doc__)
        for inner, inner_field in model.model_fields.items():
            inner_model = table_in(inner_field.annotation)
            if inner_model is not None:
                yield f"{key}.{inner}", False, inner_model, _words(inner_model.__doc__)


def _keys(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """The keys of a table that hold values: what a person gives first comes first."""
    found = [(name, field) for name, field in model.model_fields.items() if table_in(field.annotation) is None]
    return iter(sorted(found, key=lambda item: _FIRST.index(item[0]) if item[0] in _FIRST else len(_FIRST)))


def _optional(name: str) -> bool:
    """Whether the table's mere presence means something."""
    first, _, _ = name.partition(".")
    field = next(field for key, field in Config.model_fields.items() if (field.alias or key) == first)
    return not isinstance(field.default, BaseModel)


def _meaning(field: FieldInfo) -> str:
    return field.description or ""


def _example(table: str, key: str, field: FieldInfo) -> object:
    shown = _SHOWN.get(table, {})
    if key in shown:
        return shown[key]
    if field.default is not None and field.default is not PydanticUndefined:
        return field.default
    return _FORMS.get(key, "")


_FORMS: Final[dict[str, object]] = {
    "enable": True,
    "tl_retry_count": 7,
    "no_path_retry": 12,
    "find_multipaths": "strict",
    "group": "disk",
    "id_ext": "200500A0B8*",
    "ioc_guid": "0002c9*",
    "dgid": "fe80000000000000*",
    "service_id": "200500A0B8*",
    "pkey": "?fff",
    "allow_ext_sg": 1,
    "cmd_sg_entries": 255,
    "comp_vector": 0,
    "max_cmd_per_lun": 62,
    "max_sect": 8192,
    "queue_size": 64,
    "sg_tablesize": 255,
}
"""Keys that are unset unless given, each in its form."""


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    return "unset" if field.default is None else f"`{_toml(field.default)}`"


def _properties(model: type[BaseModel]) -> dict[str, dict[str, Json]]:
    properties: dict[str, dict[str, Json]] = model.model_json_schema(by_alias=True)["properties"]
    return properties


def _allowed(schema: dict[str, Json]) -> str:
    """What a key may hold, in words, out of its JSON schema."""
    branches = schema.get("anyOf")
    if isinstance(branches, list):
        words = [_allowed(branch) for branch in branches if isinstance(branch, dict) and branch.get("type") != "null"]
        return " or ".join(words)
    if "const" in schema:
        return f"`{_toml(schema['const'])}`"
    choices = schema.get("enum")
    if isinstance(choices, list):
        return ", ".join(f"`{_toml(choice)}`" for choice in choices)
    items = schema.get("items")
    if isinstance(items, dict):
        return f"list of {_allowed(items)}"
    names = {"string": "text", "integer": "number", "number": "number", "boolean": "`true`, `false`"}
    return names[str(schema["type"])] + _range(schema)


def _range(schema: dict[str, Json]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above = schema.get("exclusiveMinimum")
    parts = []
    if low is not None:
        parts.append(f"from {low:g}" if isinstance(low, int | float) else "")
    if above is not None:
        parts.append(f"above {above:g}" if isinstance(above, int | float) else "")
    if isinstance(high, int | float) and high < (1 << 31) - 1:
        parts.append(f"up to {high:g}")
    return f" {' '.join(parts)}" if parts else ""


def _words(text: str | None) -> str:
    return " ".join((text or "").replace("``", "").split())


def _comment(text: str) -> str:
    return "\n".join(textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# "))
