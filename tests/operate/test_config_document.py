"""What is made of the models is what is shipped, and says what the models do."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from srpha.operate.config import parse_config
from srpha.operate.config_document import example_text, reference_text, schema_text
from srpha.operate.config_model import Config

ROOT = Path(__file__).parent.parent.parent


def uncommented(text: str) -> str:
    return "\n".join(
        line[1:] if line.startswith("#") and not line.startswith("# ") else line for line in text.splitlines()
    )


def test_the_shipped_example_and_schema_are_those_of_the_models() -> None:
    assert (ROOT / "dist/srpha.toml").read_text() == example_text(), "srpha config example > dist/srpha.toml"
    assert (ROOT / "dist/srpha.schema.json").read_text() == schema_text(), (
        "srpha config schema > dist/srpha.schema.json"
    )


def test_the_example_changes_nothing_as_it_stands() -> None:
    assert parse_config(example_text(), "example") == Config()


def test_everything_in_the_example_is_valid_and_every_key_is_there() -> None:
    text = uncommented(example_text())
    parse_config(text, "example")
    given = tomllib.loads(text)
    schema = json.loads(schema_text())
    for name, value in schema["properties"].items():
        table = value
        for branch in value.get("anyOf", ()):
            table = branch if "$ref" in branch else table
        table = value.get("items", table)
        keys = set(schema["$defs"][table["$ref"].rpartition("/")[2]]["properties"])
        shown = given[name][0] if isinstance(given[name], list) else given[name]
        assert set(shown) == keys, name


def test_every_key_says_what_it_means() -> None:
    for line in reference_text().splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]
            assert len(cells) == 4, line
            assert all(cells), line


def test_the_schema_uses_words_of_json_schema_only() -> None:
    known = {
        "$schema", "$defs", "$ref", "additionalProperties", "anyOf", "const", "default", "description", "enum",
        "exclusiveMinimum", "items", "maxLength", "maximum", "minItems", "minLength", "minimum", "pattern",
        "properties", "required", "title", "type",
    }  # fmt: skip

    def walk(node: object, *, names: bool) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                assert names or key in known, key
                if key != "default":
                    walk(value, names=not names and key in ("properties", "$defs"))
        elif isinstance(node, list):
            for item in node:
                walk(item, names=False)

    walk(json.loads(schema_text()), names=False)
