"""``srpha config``: check a configuration file before it is used, and print an example or the schema."""

from __future__ import annotations

from pathlib import Path

import typer

WRONG = 1


def check_config(path: Path | None) -> int:
    """Read the configuration as the daemon would; 1 with one line per problem when it cannot be used."""
    from srpha.operate.config import ConfigError, load_config  # noqa: PLC0415

    try:
        loaded = load_config(path)
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        return WRONG
    for note in loaded.notes:
        typer.echo(f"note: {note}", err=True)
    also = [str(file) for file in loaded.files if str(file) != loaded.source]
    typer.echo(f"{loaded.source}: good{'; also read: ' + ', '.join(also) if also else ''}")
    return 0


def print_example() -> int:
    """An example with everything in it, commented out."""
    from srpha.operate.config_document import example_text  # noqa: PLC0415

    typer.echo(example_text(), nl=False)
    return 0


def print_schema() -> int:
    """The JSON schema, for editors."""
    from srpha.operate.config_document import schema_text  # noqa: PLC0415

    typer.echo(schema_text(), nl=False)
    return 0
