"""``logs``: an agent's worker output, from its file.  One rule: it needs no running daemon."""

from __future__ import annotations

from supervisor.cli.errors import CliError, ExitCode
from supervisor.cli.locate import Installation
from supervisor.cli.log_lines import document, readable
from supervisor.cli.references import resolve
from supervisor.cli.screen import print_json
from supervisor.process import logs as log_files


def show_logs(installation: Installation, text: str, *, follow: bool, lines: int, as_json: bool) -> None:
    agent = resolve(text, installation.agents)
    path = installation.logs / f"{agent.id}.log"
    try:
        if not follow and not path.exists():
            raise CliError(f"{path}: nothing was logged yet by {agent}", ExitCode.WRONG)
        for line in log_files.follow(path, lines) if follow else log_files.tail(path, lines):
            _print(line, as_json=as_json)
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        raise
    except PermissionError as error:
        hint = "use the command as the user that the daemon runs as"
        raise CliError(f"{path}: not permitted; {hint}", ExitCode.WRONG) from error
    except OSError as error:
        raise CliError(f"{path}: {error.strerror or error}", ExitCode.WRONG) from error


def _print(line: str, *, as_json: bool) -> None:
    if as_json:
        print_json(document(line), one_line=True)
    else:
        print(readable(line), flush=True)
