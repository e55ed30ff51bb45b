"""``--since``: a length of time (``2h``) or a time (``2026-01-31T12:00``, RFC 3339)."""

from __future__ import annotations

import re
from datetime import datetime

from supervisor.cli.errors import CliError, ExitCode
from supervisor.cli.text import plain

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


def parse(text: str, now: float) -> float:
    """Unix seconds.  A time without a zone is local."""
    length = _LENGTH.fullmatch(text.strip())
    if length:
        return now - float(length[1]) * _UNITS[length[2]]
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise CliError(
            f"--since: {plain(text)!r} is neither a length of time (90s, 15m, 2h, 7d) "
            "nor a time (2026-01-31T12:00)",
            ExitCode.USAGE,
        ) from None
