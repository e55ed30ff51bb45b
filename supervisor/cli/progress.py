"""What is going on, for whoever waits.

One rule: one line on standard error, on a terminal only, gone when it is over.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Tell = Callable[[str], None]


def untold(_: str) -> None:
    """For whoever has nobody waiting."""


@contextlib.contextmanager
def progress() -> Iterator[Tell]:
    if not sys.stderr.isatty():
        yield untold
        return
    from rich.status import Status

    from supervisor.cli.screen import console

    with Status("", console=console(stderr=True)) as status:
        yield status.update
