"""Text for a terminal.

One rule: what comes from outside (room names, identities, reasons, log lines) cannot steer the terminal.
Everything is escaped here before it is shown.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

_STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters: escape sequences begin with one
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction: text that reads otherwise than it is
    "\u2028\u2029\ufeff\ud800-\udfff]"  # other line ends, a byte order mark, halves of characters
)


def plain(text: object) -> str:
    """One line of printable text."""
    return _STEERING.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def parse_time(text: str | None) -> datetime | None:
    """An RFC 3339 time; None where there is none, or none that can be read."""
    try:
        time = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return time if time is None or time.tzinfo is not None else time.replace(tzinfo=UTC)


def localized(time: datetime) -> datetime | None:
    """In this machine's time zone; None where that is no year of the calendar any more."""
    try:
        return time.astimezone()
    except (OverflowError, ValueError, OSError):
        return None


def ago(text: str | None, now: datetime) -> str:
    """How long since then, in a few characters."""
    time = parse_time(text)
    return "-" if time is None else span((now - time).total_seconds())


def span(seconds: float) -> str:
    """A length of time in at most two units."""
    if seconds < 60:
        return f"{max(0, math.floor(seconds))}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h {minutes}m"
    days, hours = divmod(hours, 24)
    return f"{days}d {hours}h"


def short_seconds(seconds: float) -> str:
    """A measured time, with the digits that matter."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else span(seconds)


def size(count: float | None) -> str:
    if not count:
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def local_time(text: str | None) -> str:
    """An RFC 3339 time as people read it, in their own time zone; without the date if it is today's."""
    time = parse_time(text)
    if time is None:
        return "-"
    local = localized(time)
    if local is None:
        return plain(text)
    today = local.date() == datetime.now().astimezone().date()
    return local.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
