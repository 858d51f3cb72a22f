"""The ``srpha`` command. Each command imports what it needs when it runs, so that help and completion stay quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srpha import __version__

app = typer.Typer(
    name="srpha",
    help="SRP (SCSI RDMA Protocol) high availability for Linux.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
lab = typer.Typer(help="An embedded fabric with targets, initiator and multipath, kept running.", no_args_is_help=True)
app.add_typer(lab, name="lab")
config = typer.Typer(help="srpha's configuration file: check it, print an example or its schema.", no_args_is_help=True)
app.add_typer(config, name="config")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
SocketOption = Annotated[
    Path | None, typer.Option("--socket", help="Control socket of the lab or daemon.", envvar="SRPHA_SOCKET")
]

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Configuration file; default: /etc/srpha/srpha.toml.")
]
HostOption = Annotated[str | None, typer.Option(help="Host of a lab that has several.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"srpha {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command()
def demo(
    topology: Annotated[
        Path | None,
        typer.Option(help="World file (TOML) or topology in ibsim/ibnetdiscover format; default: the packaged one."),
    ] = None,
    recovery: Annotated[
        str, typer.Option(help="Recovery as OFED's ib_srp (ofed) or today's kernel (kernel).")
    ] = "ofed",
    seed: Annotated[int, typer.Option(help="Seed of everything that is random.")] = 1,
    json: JsonOption = False,
    fast: Annotated[
        bool, typer.Option("--fast", help="In virtual time: quick, and the same for the same seed.")
    ] = False,
    capture: Annotated[Path | None, typer.Option(help="Write all management datagrams to this pcap file.")] = None,
) -> None:
    """Pull a cable under verified I/O and watch everything return to its original state."""
    from srpha.cli.demo import run_demo  # noqa: PLC0415

    raise typer.Exit(
        run_demo(topology=topology, recovery=recovery, seed=seed, as_json=json, fast=fast, capture=capture)
    )


@lab.command()
def up(
    file: Annotated[Path | None, typer.Argument(help="World file (TOML) or topology; default: the demo's.")] = None,
    recovery: Annotated[str, typer.Option(help="ofed or kernel.")] = "kernel",
    seed: Annotated[int, typer.Option(help="Seed of everything that is random.")] = 1,
    load: Annotated[bool, typer.Option(help="Run verified I/O on every multipath device.")] = True,
    ibsim: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Let programs attach to its nodes over ibsim's sockets of this name."),
    ] = None,
    socket: SocketOption = None,
) -> None:
    """Start a world and keep it running until interrupted or until 'srpha lab down'."""
    from srpha.cli.lab import lab_up  # noqa: PLC0415

    raise typer.Exit(lab_up(file=file, recovery=recovery, seed=seed, load=load, ibsim=ibsim, socket=socket))


@lab.command()
def down(socket: SocketOption = None) -> None:
    """Stop the running world."""
    from srpha.cli.lab import lab_down  # noqa: PLC0415

    raise typer.Exit(lab_down(socket))


@lab.command()
def fault(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="FAULT [ARGUMENT]...", help="For example: link-down host1-a/1")
    ] = None,
    json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Inject a fault into the running world; without a fault, list the kinds."""
    from srpha.cli.lab import lab_fault  # noqa: PLC0415

    raise typer.Exit(lab_fault(words or [], as_json=json, socket=socket))


@app.command()
def discover(json: JsonOption = False, socket: SocketOption = None) -> None:
    """Scan now, and show every SRP target port in reach."""
    from srpha.cli.show import show_discover  # noqa: PLC0415

    raise typer.Exit(show_discover(as_json=json, socket=socket))


@app.command()
def status(json: JsonOption = False, socket: SocketOption = None) -> None:
    """One line per multipath device: paths up of expected, redundancy, state. Exit 1 when something is degraded."""
    from srpha.cli.show import show_status  # noqa: PLC0415

    raise typer.Exit(show_status(as_json=json, socket=socket))


@app.command()
def paths(json: JsonOption = False, socket: SocketOption = None) -> None:
    """Every target port from every local port: connected or why not, remote-port state, timers, devices."""
    from srpha.cli.show import show_paths  # noqa: PLC0415

    raise typer.Exit(show_paths(as_json=json, socket=socket))


@app.command()
def daemon(
    config: ConfigOption = None,
    socket: Annotated[
        Path | None, typer.Option("--socket", help="Control socket; default: as the configuration says.")
    ] = None,
    log: Annotated[str | None, typer.Option(help="auto, console, json or journal; default: as configured.")] = None,
) -> None:
    """Keep this host's SRP storage connected, in the foreground; connections stay when it ends."""
    from srpha.cli.daemon import run_daemon  # noqa: PLC0415

    raise typer.Exit(run_daemon(config=config, socket=socket, log_format=log))


@app.command()
def plan(
    json: JsonOption = False,
    socket: SocketOption = None,
    once: Annotated[bool, typer.Option("--once", help="Look for yourself, without a daemon.")] = False,
    config: ConfigOption = None,
) -> None:
    """What is desired, what is, and for each target and port why. Exit 1 when something desired is not there."""
    from srpha.cli.control import show_plan  # noqa: PLC0415

    raise typer.Exit(show_plan(as_json=json, socket=socket, once=once, config=config))


@app.command()
def reload(json: JsonOption = False, socket: SocketOption = None) -> None:
    """Have the daemon read its configuration again; a wrong one leaves the one in force and exits 1."""
    from srpha.cli.control import ask_reload  # noqa: PLC0415

    raise typer.Exit(ask_reload(socket, as_json=json))


@app.command()
def drain(
    port: Annotated[str, typer.Argument(help="For example mlx5_0/1.")],
    force: Annotated[
        list[str] | None, typer.Option(help="A map that may lose its last path by it; may be repeated.")
    ] = None,
    host: HostOption = None,
    json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Move I/O away from a local port before maintenance, and log in from it no more; exit 1 when refused."""
    from srpha.cli.control import ask_drain  # noqa: PLC0415

    raise typer.Exit(ask_drain(port, force or [], host, socket, as_json=json))


@app.command()
def resume(
    port: Annotated[str, typer.Argument(help="For example mlx5_0/1.")],
    host: HostOption = None,
    json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Use a drained local port again."""
    from srpha.cli.control import ask_resume  # noqa: PLC0415

    raise typer.Exit(ask_resume(port, host, socket, as_json=json))


@app.command()
def shutdown(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """Flush the daemon's maps, remove its connections and end it; exit 1 when something of it is in use."""
    from srpha.cli.control import ask_shutdown  # noqa: PLC0415

    raise typer.Exit(ask_shutdown(dry_run=dry_run, socket=socket, as_json=json))


@app.command()
def multipath(
    config: ConfigOption = None,
    diff: Annotated[bool, typer.Option("--diff", help="Print what would change instead of the whole file.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Write it.")] = False,
) -> None:
    """Print the drop-in file for multipath, apart from the administrator's own; exit 1 when it would change."""
    from srpha.cli.multipath import multipath_dropin  # noqa: PLC0415

    raise typer.Exit(multipath_dropin(config, diff=diff, write=write))


@app.command()
def events(
    since: Annotated[int, typer.Option(help="Only events after this number.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep showing new events.")] = False,
    json: JsonOption = False,
    socket: SocketOption = None,
) -> None:
    """What happened, oldest first; with --json one object per line."""
    from srpha.cli.show import show_events  # noqa: PLC0415

    raise typer.Exit(show_events(since=since, follow=follow, as_json=json, socket=socket))


@config.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="The file; default: /etc/srpha/srpha.toml.")] = None,
) -> None:
    """Read a configuration as the daemon would; exit 1 and one line per problem when it cannot be used."""
    from srpha.cli.config import check_config  # noqa: PLC0415

    raise typer.Exit(check_config(file))


@config.command()
def example() -> None:
    """Print an example with every key, its meaning and its default, all commented out."""
    from srpha.cli.config import print_example  # noqa: PLC0415

    raise typer.Exit(print_example())


@config.command()
def schema() -> None:
    """Print the JSON schema of the configuration, for editors."""
    from srpha.cli.config import print_schema  # noqa: PLC0415

    raise typer.Exit(print_schema())


_UNPARSED = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@app.command("srp-daemon", context_settings=_UNPARSED, add_help_option=False)
def srp_daemon(context: typer.Context) -> None:
    """Stand in for srp_daemon, with its flags, output and exit codes; --all-ports for srp_daemon.sh."""
    from srpha.cli.dropin import run_as_process  # noqa: PLC0415

    raise typer.Exit(run_as_process("srp_daemon", context.args))


@app.command(context_settings=_UNPARSED, add_help_option=False)
def ibsrpdm(context: typer.Context) -> None:
    """Stand in for ibsrpdm, with its flags, output and exit codes."""
    from srpha.cli.dropin import run_as_process  # noqa: PLC0415

    raise typer.Exit(run_as_process("ibsrpdm", context.args))


def main() -> None:
    """Run the ``srpha`` command; see also :mod:`srpha.cli.entry`."""
    app()
