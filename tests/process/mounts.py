"""A small file system of one's own, where the machine lets us have one."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from pathlib import Path

from tests.process.programs import PATIENCE, REPOSITORY


@functools.cache
def unshare() -> tuple[str, ...] | None:
    """The command before a command that may mount; None where even that is not allowed."""
    if shutil.which("unshare") is None:
        return None
    for command in (("unshare", "--mount"), ("unshare", "--user", "--map-root-user", "--mount")):
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    return None


def python_on(folder: Path, kind: str, options: str, code: str) -> str:
    """What Python code prints that runs where ``folder`` is a new file system of that kind."""
    command = unshare()
    assert command is not None
    script = 'mount -t "$1" -o "$2" "$1" "$3" && exec "$4" -c "$5"'
    result = subprocess.run(
        [*command, "sh", "-ec", script, "sh", kind, options, str(folder), sys.executable, code],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return result.stdout
