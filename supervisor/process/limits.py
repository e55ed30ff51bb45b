"""How many files may be open at once: each job takes us two, and without a free one we see nothing.

One rule: the raised limit is ours alone; those that we start go on with the one that we were started with,
since a program that uses ``select`` must have no more.
"""

from __future__ import annotations

import contextlib
import resource

_ENOUGH = 65_536


def raise_open_files() -> int:
    """Take as many as we may, or are enough; the soft limit from before, for those that we start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return soft


def limit_open_files(child: int, soft: int) -> None:
    """Set the soft limit of a child that has not been waited for; not of one with another user's rights."""
    with contextlib.suppress(PermissionError, ProcessLookupError):
        _, hard = resource.prlimit(child, resource.RLIMIT_NOFILE)
        resource.prlimit(child, resource.RLIMIT_NOFILE, (soft, hard))
