"""``livekit-supervisor``: the commands, their options and their help.

One rule: this module only says what can be asked.  What a command needs is imported when it runs, so that
``status`` starts in an instant.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from supervisor import __version__
from supervisor.cli.errors import CliError, ExitCode
from supervisor.cli.screen import (
    CANNOT_BE_WRITTEN,
    console,
    open_what_is_closed,
    print_error,
    print_json,
    survive_any_text,
    write_no_more,
)

if TYPE_CHECKING:
    from supervisor.cli.actions import Action
    from supervisor.cli.client import Client
    from supervisor.cli.locate import Installation

RUNNING, LOOKING, ACTING, SETTING_UP = "Run it", "Look", "Act", "Set it up"

app = typer.Typer(
    name="livekit-supervisor",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Begin with `livekit-supervisor run --dev` and, in another terminal, `livekit-supervisor demo`; "
        "then `status --watch` shows what is going on.\n\n"
        "Exit codes: 0 fine; 1 something is wrong now; 2 bad usage or configuration; "
        "3 the daemon is not running; 4 another daemon holds the state."
    ),
)


# --- options that several commands have -----------------------------------------------------------------


def _remember_config(context: typer.Context, value: Path | None) -> Path | None:
    """Before or after the command; what is said after it wins."""
    if value is not None:
        context.find_root().obj = value
    return value


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"livekit-supervisor {__version__}")
        raise typer.Exit


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The configuration file: before or after the command, or in LIVEKIT_SUPERVISOR_CONFIG; "
        "else ./config.yaml.",
        callback=_remember_config,
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the JSON document instead.")]


def _known_agents(context: typer.Context, incomplete: str) -> list[str]:
    """For the shell's completion, which knows of no mistakes: whatever the configuration still tells."""
    try:
        agents = _installation(context).agents
    except CliError:
        return []
    return [
        word for agent in agents for word in (agent.name, agent.id) if word and word.startswith(incomplete)
    ]


AgentArgument = Annotated[
    str,
    typer.Argument(
        metavar="AGENT",
        help="An agent's ID, its name, or the unique beginning of either.",
        autocompletion=_known_agents,
    ),
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Return at once instead of watching until it is done.")
]


def _config_file(context: typer.Context) -> Path:
    said = context.find_root().obj
    return Path(said or os.environ.get("LIVEKIT_SUPERVISOR_CONFIG") or "config.yaml")


def _installation(context: typer.Context) -> Installation:
    from supervisor.cli.locate import locate

    return locate(_config_file(context), os.environ)


def _client(context: typer.Context) -> Client:
    from supervisor.cli.client import Client

    return Client(_installation(context).control_socket, context.find_root().obj)


def _waiting() -> AbstractContextManager[None]:
    from supervisor.cli.client import WAITING
    from supervisor.cli.progress import while_waiting

    return while_waiting(WAITING)


@app.callback()
def livekit_supervisor(
    context: typer.Context,
    config: Config = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Keeps exactly one live agent in every LiveKit room with a human, and one process per agent ID."""


# --- run it -------------------------------------------------------------------------------------------


@app.command(rich_help_panel=RUNNING)
def run(
    context: typer.Context,
    dev: Annotated[
        bool, typer.Option("--dev", help="Bring up a LiveKit server on loopback, too, and drain 2 s at most.")
    ] = False,
    config: Config = None,
) -> None:
    """Run the daemon in the foreground, until SIGTERM or Ctrl-C.

    The first signal drains the agents and stops everything; a second one skips the drain. To leave the
    workers running for the next daemon, use **handoff** instead.
    """
    from supervisor.cli.settings import load_settings
    from supervisor.daemon import run as run_daemon

    file = _config_file(context)
    raise typer.Exit(run_daemon(load_settings(file, os.environ), dev=dev, config_path=file.absolute()))


@app.command(
    rich_help_panel=RUNNING,
    epilog="Example: `livekit-supervisor check --online && systemctl reload livekit-supervisor`",
)
def check(
    context: typer.Context,
    online: Annotated[
        bool, typer.Option("--online", help="Ask LiveKit, too: is it there, is the key good?")
    ] = False,
    json: Json = False,
    config: Config = None,
) -> None:
    """Check the configuration, the scripts and their Python environments, without starting anything.

    Prints every problem at once, as FILE:LINE: key: message, and exits with 2 if there is one.
    """
    from supervisor.cli.check import check_file
    from supervisor.cli.progress import progress

    with progress() as tell:
        report = check_file(_config_file(context), os.environ, online=online, tell=tell)
    if json:
        print_json(report.document())
    else:
        report.print()
    raise typer.Exit(ExitCode.FINE if report.good else ExitCode.USAGE)


@app.command(rich_help_panel=RUNNING)
def demo(
    context: typer.Context,
    agent: Annotated[
        str | None,
        typer.Argument(
            metavar="AGENT",
            help="Which agent to try it on; the first that is ready, if left out.",
            autocompletion=_known_agents,
        ),
    ] = None,
    json: Json = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="The same as NO_COLOR=1.")] = False,
    config: Config = None,
) -> None:
    """Disturb a real call in every way that hurts, and watch it heal: about a minute.

    A synthetic human joins a room of the development server and listens, while the agent is dispatched
    twice, its worker is killed, LiveKit is killed, and the human leaves and comes back. Uses the running
    daemon if it is in development mode, starts one if none runs, and touches nothing otherwise.

    Exits with 0 when the room ended with exactly one audible agent; 1 when it did not; 2 when the running
    daemon is not in development mode, or something needed is not installed; 3 when no development set-up
    could be started.
    """
    from supervisor.cli.demo import run_demo

    if no_color:
        os.environ["NO_COLOR"] = "1"
    raise typer.Exit(run_demo(_config_file(context), agent, as_json=json))


# --- look ---------------------------------------------------------------------------------------------


@app.command(rich_help_panel=LOOKING, epilog="Example: `livekit-supervisor status --json | jq .problems`")
def status(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="A live screen, until Ctrl-C.")] = False,
    json: Json = False,
    config: Config = None,
) -> None:
    """What is wrong now, if anything; then the agents, rooms and LiveKit.

    Exits with 1 when something is wrong. With --watch and --json: one document a line, one line a second.
    """
    from supervisor.cli import status_view

    client = _client(context)
    if watch:
        from supervisor.cli.watch import watch_status

        watch_status(client, as_json=json)
        return
    with _waiting():
        document = client.status()
    if json:
        print_json(document)
    else:
        status_view.show(document, client.config)
    raise typer.Exit(ExitCode.WRONG if status_view.is_wrong(document) else ExitCode.FINE)


@app.command(rich_help_panel=LOOKING)
def rooms(context: typer.Context, json: Json = False, config: Config = None) -> None:
    """Every room of ours: its humans, its agents, who holds it, and why if it is not healthy.

    The holder is marked with an asterisk. Exits with 1 when a room is not healthy.
    """
    from supervisor.cli import rooms_view

    client = _client(context)
    with _waiting():
        document = client.rooms()
    if json:
        print_json(document)
    else:
        console().print(rooms_view.render_rooms(document))
    raise typer.Exit(ExitCode.WRONG if rooms_view.is_wrong(document) else ExitCode.FINE)


@app.command(rich_help_panel=LOOKING, epilog="Example: `livekit-supervisor conflicts --since 2h`")
def conflicts(
    context: typer.Context,
    since: Annotated[
        str,
        typer.Option(help="Since then: a length of time (90s, 15m, 2h, 7d) or a time (2026-01-31T12:00)."),
    ] = "1d",
    json: Json = False,
    config: Config = None,
) -> None:
    """What was put right, when, how, and how long it took."""
    from supervisor.cli import rooms_view
    from supervisor.cli.since import parse
    from supervisor.store.sqlite import CONFLICTS_LIMIT

    client, moment = _client(context), parse(since, time.time())
    with _waiting():
        document = client.conflicts(moment)
    if json:
        print_json(document)
    else:
        console().print(rooms_view.render_conflicts(document))
    if len(document["conflicts"]) == CONFLICTS_LIMIT:
        print_error(f"only the last {CONFLICTS_LIMIT:,} are shown; older ones since then are left out")


@app.command(rich_help_panel=LOOKING, epilog="Example: `livekit-supervisor logs -f Agent_66`")
def logs(
    context: typer.Context,
    agent: AgentArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on, across rotation, until Ctrl-C.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="How many of the last lines first.")
    ] = 50,
    json: Annotated[bool, typer.Option("--json", help="Print each line as a JSON object.")] = False,
    config: Config = None,
) -> None:
    """What an agent's worker printed; LiveKit's JSON lines made readable.

    Reads the file itself, so it needs no running daemon.
    """
    from supervisor.cli.logs import show_logs

    show_logs(_installation(context), agent, follow=follow, lines=lines, as_json=json)


@app.command(
    rich_help_panel=LOOKING,
    epilog="Example: `livekit-supervisor diagnose --bundle report.tar.gz`",
)
def diagnose(
    context: typer.Context,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Make an empty room for a moment, to see whether webhooks arrive and how rooms are set.",
        ),
    ] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write all of it into a .tar.gz for a bug report, secrets removed."
        ),
    ] = None,
    json: Json = False,
    config: Config = None,
) -> None:
    """Look at everything: configuration, daemon, processes, LiveKit and its settings, rooms, logs, machine.

    Each finding comes with what shows it and the command, or the lines of livekit.yaml, that mend it. Works
    without the daemon, too, and touches nothing. Exits with 1 when something is wrong now.
    """
    from supervisor.cli import diagnose_view
    from supervisor.cli.diagnose import diagnose as look
    from supervisor.cli.progress import progress

    with progress() as tell:
        report, situation = look(_config_file(context), os.environ, probe=probe, tell=tell)
    if json:
        print_json(report.document())
    else:
        console().print(diagnose_view.render(report), crop=False)
    if bundle is not None:
        from supervisor.cli.diagnose_bundle import write_bundle

        names = write_bundle(bundle, report, diagnose_view.as_text(report), situation)
        print_error(
            f"{bundle}: {', '.join(names)}\nIt names rooms and people: look into it before you send it."
        )
    raise typer.Exit(ExitCode.WRONG if report.wrong else ExitCode.FINE)


# --- act ----------------------------------------------------------------------------------------------


@app.command(rich_help_panel=ACTING)
def start(
    context: typer.Context, agent: AgentArgument, no_wait: NoWait = False, config: Config = None
) -> None:
    """Start a stopped agent; at once, if it is waiting after a crash."""
    from supervisor.cli import actions

    _carry_out(context, actions.start(), agent, no_wait)


@app.command(rich_help_panel=ACTING, epilog="Example: `livekit-supervisor stop --drain Agent_66`")
def stop(
    context: typer.Context,
    agent: AgentArgument,
    drain: Annotated[bool, typer.Option("--drain", help="Wait for rooms with a human first.")] = False,
    no_wait: NoWait = False,
    config: Config = None,
) -> None:
    """Stop an agent; it stays stopped, whatever becomes of the daemon, until **start**."""
    from supervisor.cli import actions

    _carry_out(context, actions.stop(drain=drain), agent, no_wait)


@app.command(
    rich_help_panel=ACTING,
    epilog="Example, after an agent's code has changed: `livekit-supervisor restart Agent_66`",
)
def restart(
    context: typer.Context,
    agent: AgentArgument,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for rooms with a human.")] = False,
    no_wait: NoWait = False,
    config: Config = None,
) -> None:
    """Drain an agent, then start it anew."""
    from supervisor.cli import actions

    _carry_out(context, actions.restart(now=now), agent, no_wait)


@app.command(rich_help_panel=ACTING)
def drain(
    context: typer.Context, agent: AgentArgument, no_wait: NoWait = False, config: Config = None
) -> None:
    """Give an agent no new rooms, wait for those with a human, then stop it."""
    from supervisor.cli import actions

    _carry_out(context, actions.drain(), agent, no_wait)


@app.command(rich_help_panel=ACTING)
def reload(context: typer.Context, config: Config = None) -> None:
    """Read the configuration again: only agents that changed are touched; a bad file changes nothing."""
    from supervisor.cli import actions

    print(actions.reload(_client(context)))


@app.command(rich_help_panel=ACTING)
def handoff(context: typer.Context, config: Config = None) -> None:
    """End the daemon, leave the workers and their calls to the next one: for upgrades."""
    from supervisor.cli import actions

    print(actions.handoff(_client(context), _installation(context).state))


def _carry_out(context: typer.Context, action: Action, agent: str, no_wait: bool) -> None:
    from supervisor.cli.actions import carry_out

    print(carry_out(_client(context), action, agent, wait=not no_wait))


# --- set it up ----------------------------------------------------------------------------------------


@app.command(rich_help_panel=SETTING_UP, epilog="Example: `livekit-supervisor schema > config.schema.json`")
def schema(
    reference: Annotated[
        bool, typer.Option("--reference", help="The same as a page to read: docs/configuration.md.")
    ] = False,
    config: Config = None,
) -> None:
    """Print the JSON Schema of config.yaml, for completion and checks in your editor."""
    from supervisor.cli import schema as json_schema
    from supervisor.cli import schema_reference

    print(schema_reference.render() if reference else json_schema.render(), end="")


@app.command(
    name="import",
    rich_help_panel=SETTING_UP,
    epilog="Example: `livekit-supervisor import .env /etc/systemd/system/voice-agent.service -o config.yaml`",
)
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Files, or folders to look through: .env, .service, start scripts, supervisord's, PM2's.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write it there, and LiveKit's secret beside it."
        ),
    ] = None,
    observe: Annotated[
        bool,
        typer.Option("--observe", help="Stand in for the old workers, to observe only: none is started."),
    ] = False,
    config: Config = None,
) -> None:
    """Make a config.yaml from the pieces of an older installation.

    Files are read, never run. What could not be told stands in the result as a comment. It begins by
    observing: rooms and second processes are reported, and left alone.
    """
    from supervisor.cli.importing import import_files, write
    from supervisor.cli.own_commands import about

    imported = import_files(files, os.environ, output=output, observe=observe)
    for remark in imported.remarks:
        print_error(f"not told: {remark}")
    if output is None:
        print(imported.config, end="")
        return
    for path in write(output, imported):
        print(f"wrote {path}")
    print(f"next: {about(output, 'livekit-supervisor check --online')}")


@app.command(
    rich_help_panel=SETTING_UP,
    epilog="Example: `sudo livekit-supervisor install-service --config /etc/livekit-supervisor/config.yaml`",
)
def install_service(
    context: typer.Context,
    user: Annotated[
        bool, typer.Option("--user", help="For your user's systemd instead of the machine's.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Write the files, too, not only show them.")] = False,
    program: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The livekit-supervisor to run; this one, if left out."),
    ] = None,
    json: Json = False,
    config: Config = None,
) -> None:
    """Show, or write, the systemd units that run this configuration at boot.

    Without --write nothing is touched. What comes next, and what you have to see to, is said after the files.
    """
    from supervisor.cli import install_service as service

    plan = service.plan(_config_file(context), os.environ, user=user, program=program)
    if write:
        service.write(plan.units)
    if json:
        print_json(plan.document(written=write))
        return
    for unit in plan.units:
        print(f"# {'wrote' if write else 'would write'} {unit.path}")
        if not write:
            print(unit.content)
    for note in plan.notes:
        print_error(f"note: {note}")
    print("# next:" if write else "# next, after the same with --write:")
    print("\n".join(plan.commands))


@app.command(hidden=True)
def clean_up(
    context: typer.Context,
    after_stop: Annotated[
        bool, typer.Option("--after-stop", help="Only if the daemon had been told to stop.")
    ] = False,
    config: Config = None,
) -> None:
    """End workers that are left over while no daemon runs; systemd's unit does so after a stop."""
    from supervisor.cli.clean_up import clean_up as end_workers

    told = end_workers(_installation(context), os.environ, after_stop=after_stop)
    if told:
        print(told)


# --- from the outside -----------------------------------------------------------------------------------


def main() -> None:
    open_what_is_closed()
    survive_any_text()
    sys.exit(_guarded(lambda: app(prog_name="livekit-supervisor")))


def _guarded(command: Callable[[], None]) -> int:
    """The one place where failures become messages and exit codes."""
    try:
        _require_our_own_package()
        try:
            command()
        finally:
            sys.stdout.flush()
    except CliError as error:
        print_error(error.message)
        return error.code
    except BrokenPipeError:
        # Whoever read us has left (``| head``).
        write_no_more()
        return ExitCode.FINE
    except OSError as error:
        if error.errno not in CANNOT_BE_WRITTEN:
            raise
        write_no_more()
        print_error(f"the output cannot be written: {error.strerror}")
        return ExitCode.WRONG
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.FINE
    return ExitCode.FINE


def _require_our_own_package() -> None:
    if Path(__file__).parent.with_name("supervisord.py").exists():
        raise CliError(
            "PyPI's `supervisor` (supervisord) is in the same environment, under the same import name: each "
            "overwrites files of the other. Install livekit-supervisor into an environment of its own",
            ExitCode.USAGE,
        )
