"""Consoles: where text goes, and whether it may have colours.

One rule: standard output is what was asked for, standard error is everything else; colours only on a
terminal, and never with ``NO_COLOR``.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

CANNOT_BE_WRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""A full disk behind ``>``: no defect of ours."""

GOOD, WARN, BAD, QUIET = "green", "yellow", "bold red", "dim"

STATE_STYLES = {
    "ready": GOOD,
    "healthy": GOOD,
    "stopped": QUIET,
    "empty": QUIET,
    "starting": WARN,
    "draining": WARN,
    "stopping": WARN,
    "backoff": BAD,
    "crash_loop": BAD,
    "missing_agent": BAD,
    "conflict": BAD,
    "unknown": WARN,
}


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=False)


def table(*, header: bool = True) -> Table:
    """Columns without lines around them: it is read by people and by awk."""
    from rich.table import Table

    return Table(box=None, show_header=header, header_style=QUIET, pad_edge=False, padding=(0, 2, 0, 0))


def print_json(document: Mapping[str, object], *, one_line: bool = False) -> None:
    """ASCII only: nothing in it can steer a terminal."""
    text = json.dumps(document, indent=None if one_line else 2, ensure_ascii=True)
    print(text.replace("\x7f", "\\u007f"), flush=True)


def print_error(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def open_what_is_closed() -> None:
    """``>&-``: what is said there is said to nobody, and no file that is opened later takes its place."""
    for descriptor, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
            mode = "r" if descriptor == 0 else "w"
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def write_no_more() -> None:
    """Nothing more can be written, not even at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def survive_any_text() -> None:
    """A terminal without UTF-8 gets escapes instead of a traceback."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
