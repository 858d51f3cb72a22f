"""The commands and their options as the command line itself tells them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from srpha.cli.dropin_flags import IBSRPDM_USAGE, SRP_DAEMON_USAGE
from srpha.cli.main import app
from srpha.operate.config_document import example_text, reference_text
from tools.reference.text import plain

_ARGUMENTS_OF_OTHERS = {"srp-daemon", "ibsrpdm"}


def commands() -> str:
    """Every command with its arguments and options, as definition lists."""
    return "\n\n".join(_command(path, command) for path, command in _walk("srpha", typer.main.get_command(app)))


def drop_in_usage(program: str) -> str:
    """The usage text of a drop-in command."""
    usage = SRP_DAEMON_USAGE if program == "srp_daemon" else IBSRPDM_USAGE
    return f"```text\n{usage.strip()}\n```"


def configuration() -> str:
    """The example that ``srpha config example`` prints."""
    return f"```toml\n{example_text().strip()}\n```"


def configuration_keys() -> str:
    """Every table of the configuration: keys, what is allowed, defaults."""
    return reference_text().strip()


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    for name, below in getattr(command, "commands", {}).items():
        if getattr(below, "commands", None):
            yield from _walk(f"{path} {name}", below)
        else:
            yield f"{path} {name}", below


def _command(path: str, command: Any) -> str:
    options: list[str] = []
    usage = [path]
    for parameter in command.params:
        text = plain(getattr(parameter, "help", None) or "")
        name = _metavar(parameter)
        if parameter.param_type_name == "argument":
            usage.append(name if name.startswith("[") or parameter.required else f"[{name}]")
            options.append(f"*{name}*\n: {text}")
            continue
        flag = getattr(parameter, "is_flag", False)
        words = [*parameter.opts, *parameter.secondary_opts]
        spelled = ", ".join(f"`{word}`" if flag else f"`{word}` *{name}*" for word in words)
        if parameter.default is not None and not flag and not callable(parameter.default):
            text += f" Default: `{parameter.default}`."
        elif parameter.secondary_opts:
            text += f" Default: `{parameter.opts[0] if parameter.default else parameter.secondary_opts[0]}`."
        if parameter.envvar:
            text += f" Also: `{parameter.envvar}` in the environment."
        options.append(f"{spelled}\n: {text}")
    if path.rpartition(" ")[2] in _ARGUMENTS_OF_OTHERS:
        usage.append("[FLAG]...")
    elif any(parameter.param_type_name == "option" for parameter in command.params):
        usage.insert(1, "[OPTION]...")
    parts = [f"### {path}", f"`{' '.join(usage)}`", plain(command.help or ""), *options]
    return "\n\n".join(parts)


def _metavar(parameter: Any) -> str:
    if parameter.metavar:
        return str(parameter.metavar)
    if parameter.param_type_name == "argument":
        return str(parameter.name).upper()
    kind = {"seed": "NUMBER", "since": "NUMBER", "recovery": "MODE"}
    return kind.get(str(parameter.name), "FILE")
