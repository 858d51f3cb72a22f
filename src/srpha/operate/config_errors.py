"""Problems of a configuration file as lines for an operator: file, line, key, value, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

Place = tuple[int | str, ...]

_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.\- \"']+?)\s*\]\]?\s*(?:#.*)?")
_KEY: Final = re.compile(r"\s*([A-Za-z0-9_.\-\"']+(?:\s*\.\s*[A-Za-z0-9_\-\"']+)*)\s*=")
_TOML_PLACE: Final = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_LONGEST: Final = 60
_NUMBER: Final = ("greater", "less", "a multiple")


class ConfigError(ValueError):
    """A configuration cannot be used. ``problems`` are lines of text; nothing of the configuration was taken."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def key_lines(text: str) -> dict[Place, int]:
    """Line numbers of the tables and keys of a TOML text; what stands inside arrays and inline tables is left out.

    It is a help for messages: a multi-line string that looks like TOML may add places that are none.
    """
    lines: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.fullmatch(line)
        if header is not None:
            table = _table_place(_parts(header[2]), counts, is_array=header[1] == "[[")
            lines.setdefault(table, number)
            continue
        key = _KEY.match(line)
        if key is not None:
            lines.setdefault((*table, *_parts(key[1])), number)
    return lines


def problem_lines(
    source: str, details: Iterable[ErrorDetails], lines: Mapping[Place, int], model: type[BaseModel]
) -> tuple[str, ...]:
    """The problems that pydantic found, in the order of the file."""
    found = []
    for detail in details:
        place = tuple(part for part in detail["loc"] if not (isinstance(part, str) and _is_branch(part)))
        line = _line_of(place, lines)
        where = f"{source}:{line}: {_spelled(place)}" if line else f"{source}: {_spelled(place)}"
        found.append((line, _problem(where, place, detail, model)))
    return tuple(dict.fromkeys(text for _, text in sorted(found, key=lambda item: item[0])))


def _problem(where: str, place: Place, detail: ErrorDetails, model: type[BaseModel]) -> str:
    match detail["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key; possible here: {', '.join(_keys_at(place[:-1], model))}"
        case "missing":
            return f"{where}: missing"
        case _:
            value = "" if isinstance(detail["input"], dict | BaseModel) else f" = {_short(detail['input'])}"
            return f"{where}{value}: {_remedy(detail['msg'])}"


def toml_problem(source: str, message: str) -> str:
    """What tomllib says of a file that is not TOML."""
    found = _TOML_PLACE.fullmatch(message)
    if found is None:
        return f"{source}: not TOML: {message}"
    place = f"{source}:{found[2]}:{found[3]}" if found[2] else f"{source}: at its end"
    return f"{place}: not TOML: {found[1][:1].lower()}{found[1][1:]}"


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in text.split("."))


def _table_place(parts: tuple[str, ...], counts: dict[Place, int], *, is_array: bool) -> Place:
    """Where a header leads: arrays of tables are entered at their last element."""
    place: Place = ()
    for part in parts[:-1]:
        place = (*place, part)
        if place in counts:
            place = (*place, counts[place])
    place = (*place, parts[-1])
    if is_array:
        counts[place] = counts.get(place, -1) + 1
        return (*place, counts[place])
    return place


def _is_branch(part: str) -> bool:
    """Pydantic puts the branch of a union into the place: ``literal['off']``, ``int``, ``constrained-str``."""
    return "[" in part or part in ("int", "str", "float", "constrained-str", "constrained-int")


def _line_of(place: Place, lines: Mapping[Place, int]) -> int:
    """The line of the place, or of what it is part of; 0: nowhere."""
    for length in range(len(place), 0, -1):
        if place[:length] in lines:
            return lines[place[:length]]
    return 0


def _spelled(place: Place) -> str:
    """``rule[2].id_ext``; elements are counted from 1, as a person does."""
    text = ""
    for part in place:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the file"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _remedy(message: str) -> str:
    text = message.removeprefix("Value error, ")
    if text.startswith("Input should be "):
        rest = text.removeprefix("Input should be ")
        return f"give a number {rest}" if rest.startswith(_NUMBER) else f"give {rest}"
    return text[:1].lower() + text[1:]


def _keys_at(place: Place, model: type[BaseModel]) -> list[str]:
    table = model
    for part in place:
        for name, field in table.model_fields.items():
            if part == (field.alias or name):
                table = table_in(field.annotation) or table
    return [field.alias or name for name, field in table.model_fields.items()]


def table_in(annotation: object) -> type[BaseModel] | None:
    """The table that a field holds: as such, in a list, or unless it is unset."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    found = (table_in(argument) for argument in get_args(annotation))
    return next((table for table in found if table is not None), None)
