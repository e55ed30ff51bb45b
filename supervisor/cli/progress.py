"""What is going on, for whoever waits.

One rule: one line on standard error, on a terminal only, gone when it is over.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

Tell = Callable[[str], None]

_SILENCE = 1.0
"""What takes no longer needs no word."""


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


@contextlib.contextmanager
def while_waiting(what: str) -> Iterator[None]:
    """Say what is waited for once that has taken over a second; nothing when it is quicker."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.status import Status
    from rich.text import Text

    from supervisor.cli.screen import console

    status = Status(Text(what), console=console(stderr=True))
    timer = threading.Timer(_SILENCE, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()
