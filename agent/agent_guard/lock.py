"""The agent's lock, held by the worker itself and by nothing else.

One rule: the descriptor stays open for the worker's whole life, and in no descendant: closed on exec,
and closed in every child made by a plain fork.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import MutableMapping

from agent_guard.settings import LOCK_FD, GuardError

_held: int | None = None


def hold(environ: MutableMapping[str, str]) -> None:
    """Take over the inherited descriptor; without the variable there is nothing to hold."""
    global _held
    text = environ.pop(LOCK_FD, "")
    if not text:
        return
    try:
        descriptor = int(text)
        os.set_inheritable(descriptor, False)
    except (ValueError, OSError) as error:
        raise GuardError(f"{LOCK_FD}={text!r} is no open descriptor: {error}") from None
    _held = descriptor
    os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    """Once only: in a grandchild the number may belong to some other file."""
    global _held
    descriptor, _held = _held, None
    if descriptor is not None:
        with contextlib.suppress(OSError):
            os.close(descriptor)
