"""The configuration file: any bytes are settings, or problems that tell the reader where and what.

Nothing that came from the environment, and nothing of a secret's place, may be told.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from supervisor.config import ConfigError, Problem, load
from tests.fuzz.checks import hold, scratch, soon

WRITTEN_SECRET = "5ecret-that-was-written-down"
"""Stands in the file: it may be told where it was written as something that is no secret."""

ENVIRONMENT = {
    "HOME": "/nowhere",
    "PATH": "/usr/bin:/bin",
    "SECRET": "5ecret-of-the-environment",
    "SECRET_PATH": "/5ecret/of/the/environment",
    "URL": "ws://5ecret.of.the.environment",
    "NUMBER": "3",
    "BROKEN_NUMBER": "0b_",
    "LONG_NUMBER": "5" * 5_000,
    "SEXAGESIMAL": "1" + ":0" * 300 + ".5",
    "NOT_A_NUMBER": ".nan",
    "LINES": "5ecret-of-the-environment\n- a: b\n\x1b[2J",
    "NOT_UTF8": "5ecret-of-the-environment\udcff",
    "EMPTY": "",
}
_OF_THE_ENVIRONMENT = re.compile(r"5ecret.of.the.environment|5{100}")
_SECRET_PLACES = re.compile(r"livekit\.\w*(secret|key)\w*")


@functools.cache
def _folder() -> Path:
    folder = scratch() / "config"
    folder.mkdir()
    for name in ("agent.py", "empty", "python"):
        (folder / name).touch()
    (folder / "python").chmod(0o755)
    (folder / "dir").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "binary").write_bytes(b"\xff\xfe")
    (folder / "secret").write_text("5ecret-of-the-environment\n")
    (folder / "good.env").write_text("A=1\nexport B='two'\n# no\n")
    (folder / "bad.env").write_text("A=1\nnothing 5ecret-of-the-environment\nB='5ecret-of-the-environment\n")
    return folder


def config_file(data: bytes) -> None:
    file = _folder() / "config.yaml"
    file.write_bytes(data)
    with soon():
        try:
            load(file, ENVIRONMENT)
        except ConfigError as error:
            problems, told = error.problems, str(error)
        else:
            return
    hold(bool(problems), "refused without a reason")
    hold(len(told.split("\n")) == len(problems), "a problem is not one line:", told)
    for problem in problems:
        _check(problem)


def _check(problem: Problem) -> None:
    told = str(problem)
    hold(told.isprintable(), "told with control characters:", told)
    hold(bool(problem.message), "nothing is told:", told)
    hold(problem.line is None or problem.line > 0, "a line that is none:", told)
    hold(Path(problem.file).is_absolute(), "which file?", told)
    hold(_OF_THE_ENVIRONMENT.search(told) is None, "tells what came from the environment:", told)
    secret = not problem.key or _SECRET_PLACES.fullmatch(problem.key) is not None
    hold(not (secret and WRITTEN_SECRET in told), "tells a secret:", told)
