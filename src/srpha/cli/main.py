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
    rich_markup_mode=None,  # plain help: laying it out with rich takes longer than everything else together
)
lab = typer.Typer(help="An embedded world, kept running.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(lab, name="lab")
config = typer.Typer(
    help="The configuration file: check, example, schema.", no_args_is_help=True, rich_markup_mode=None
)
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
    """Pull a cable under verified I/O and judge what follows.

    Exit 0 only if every step held and everything returned to its original state.
    """
    from srpha.cli.demo import run_demo  # noqa: PLC0415

    raise typer.Exit(
        run_demo(topology=topology, recovery=recovery, seed=seed, as_json=json, fast=fast, capture=capture)
    )


@lab.command()
def up(
    file: Annotated[Path | None, typer.Argument(help="World file (TOML) or topology; default: the demo's.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="Configuration file with the daemon's rules, times and remote-port timers."
        ),
    ] = None,
    recovery: Annotated[str, typer.Option(help="ofed or kernel.")] = "kernel",
    seed: Annotated[int, typer.Option(help="Seed of everything that is random.")] = 1,
    load: Annotated[bool, typer.Option(help="Run verified I/O on every multipath device.")] = True,
    ibsim: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Let programs attach to its nodes over ibsim's sockets of this name."),
    ] = None,
    socket: SocketOption = None,
) -> None:
    """Start a world and keep it running.

    It ends when it is interrupted, or with 'srpha lab down'.
    """
    from srpha.cli.lab import lab_up  # noqa: PLC0415

    raise typer.Exit(
        lab_up(file=file, config=config, recovery=recovery, seed=seed, load=load, ibsim=ibsim, socket=socket)
    )


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
    """Break or mend something in the running world.

    Without a fault, list the kinds.
    """
    from srpha.cli.lab import lab_fault  # noqa: PLC0415

    raise typer.Exit(lab_fault(words or [], as_json=json, socket=socket))


@lab.command()
def dm(json: JsonOption = False, socket: SocketOption = None) -> None:
    """Show the running world's maps as dmsetup would.

    For each map the line of 'dmsetup table', then that of 'dmsetup status'.
    """
    from srpha.cli.lab import lab_dm  # noqa: PLC0415

    raise typer.Exit(lab_dm(as_json=json, socket=socket))


@app.command()
def discover(json: JsonOption = False, socket: SocketOption = None) -> None:
    """Scan now and show every SRP target port in reach."""
    from srpha.cli.show import show_discover  # noqa: PLC0415

    raise typer.Exit(show_discover(as_json=json, socket=socket))


@app.command()
def status(json: JsonOption = False, socket: SocketOption = None) -> None:
    """Health of every multipath device, a line each.

    Paths up of expected, redundancy, state. Exit 1 when something is degraded.
    """
    from srpha.cli.show import show_status  # noqa: PLC0415

    raise typer.Exit(show_status(as_json=json, socket=socket))


@app.command()
def paths(json: JsonOption = False, socket: SocketOption = None) -> None:
    """Every target port from every local port, and why.

    Connected or why not, remote-port state, timers, credits, disks; then every path of every device.
    """
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
    """Keep this host's SRP storage connected.

    Runs in the foreground; connections stay when it ends.
    """
    from srpha.cli.daemon import run_daemon  # noqa: PLC0415

    raise typer.Exit(run_daemon(config=config, socket=socket, log_format=log))


@app.command()
def plan(
    json: JsonOption = False,
    socket: SocketOption = None,
    once: Annotated[bool, typer.Option("--once", help="Look for yourself, without a daemon.")] = False,
    config: ConfigOption = None,
) -> None:
    """Desired against actual connections, and why.

    Exit 1 when something desired is not there.
    """
    from srpha.cli.control import show_plan  # noqa: PLC0415

    raise typer.Exit(show_plan(as_json=json, socket=socket, once=once, config=config))


@app.command()
def reload(json: JsonOption = False, socket: SocketOption = None) -> None:
    """Have the daemon read its configuration again.

    A wrong one leaves the one in force, and exits 1.
    """
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
    """Move I/O away from a local port.

    For maintenance: nothing logs in from it until it is resumed. Exit 1 when refused.
    """
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
    """End the daemon and its connections in order.

    Flushes its maps first. Exit 1, and nothing done, when something of it is in use.
    """
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
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    socket: SocketOption = None,
) -> None:
    """What happened, oldest first."""
    from srpha.cli.show import show_events  # noqa: PLC0415

    raise typer.Exit(show_events(since=since, follow=follow, as_json=json, socket=socket))


@config.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="The file; default: /etc/srpha/srpha.toml.")] = None,
) -> None:
    """Read a configuration as the daemon would.

    Exit 1 and one line per problem when it cannot be used.
    """
    from srpha.cli.config import check_config  # noqa: PLC0415

    raise typer.Exit(check_config(file))


@config.command()
def example() -> None:
    """Print an example with every key and its default."""
    from srpha.cli.config import print_example  # noqa: PLC0415

    raise typer.Exit(print_example())


@config.command()
def schema() -> None:
    """Print the JSON schema of the configuration."""
    from srpha.cli.config import print_schema  # noqa: PLC0415

    raise typer.Exit(print_schema())


_UNPARSED = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@app.command("srp-daemon", context_settings=_UNPARSED, add_help_option=False)
def srp_daemon(context: typer.Context) -> None:
    """Stand in for srp_daemon, flag by flag.

    Its flags, output and exit codes; --all-ports does what srp_daemon.sh does.
    """
    from srpha.cli.dropin import run_as_process  # noqa: PLC0415

    raise typer.Exit(run_as_process("srp_daemon", context.args))


@app.command(context_settings=_UNPARSED, add_help_option=False)
def ibsrpdm(context: typer.Context) -> None:
    """Stand in for ibsrpdm, flag by flag."""
    from srpha.cli.dropin import run_as_process  # noqa: PLC0415

    raise typer.Exit(run_as_process("ibsrpdm", context.args))


def main() -> None:
    """Run the ``srpha`` command; see also :mod:`srpha.cli.entry`."""
    app()
