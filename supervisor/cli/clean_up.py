"""``clean-up``: workers that a stop has left over are ended, and it is said where they were looked for.

One rule: systemd's own call, after every stop, says nothing where there is nothing to do.
"""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Mapping

from supervisor.cli.errors import CliError, ExitCode
from supervisor.cli.locate import Installation
from supervisor.cli.own_commands import about
from supervisor.daemon.cleanup import clean_up as end_workers
from supervisor.process.files import StateDirectoryError
from supervisor.process.instance import AlreadyRunning


def clean_up(installation: Installation, environ: Mapping[str, str], *, after_stop: bool) -> str:
    """What to tell, if anything."""
    state = installation.state
    try:
        ended = end_workers(state, after_stop=after_stop)
    except AlreadyRunning as error:
        if after_stop:
            return ""
        raise CliError(str(error), ExitCode.TAKEN) from error
    except StateDirectoryError as error:
        raise CliError(f"{error}{_as_its_user(installation, environ)}", ExitCode.USAGE) from error
    if ended:
        return f"ended {', '.join(map(str, ended))}"
    return "" if after_stop else f"nothing to end in {state}"


def _as_its_user(installation: Installation, environ: Mapping[str, str]) -> str:
    """The command to type where the state directory is another user's."""
    try:
        owner = installation.state.stat().st_uid
    except OSError:
        return ""
    if owner == os.geteuid():
        return ""
    given = environ.get("STATE_DIRECTORY")
    variables = f"env STATE_DIRECTORY={shlex.quote(given)} " if given else ""  # sudo passes none on
    command = about(installation.file, "livekit-supervisor clean-up")
    return f"; run it as that user:\n  sudo -u {shlex.quote(_name(owner))} {variables}{command}"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"
