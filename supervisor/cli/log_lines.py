"""A worker's log lines, made readable.

One rule: a line that is not LiveKit's JSON is shown as it is, except that it cannot steer the terminal.
"""

from __future__ import annotations

import json

from supervisor.cli.text import localized, parse_time, plain

_SHOWN_ELSEWHERE = frozenset({"message", "level", "timestamp", "name", "exc_info", "stack_info"})
_NOISE = ("code.", "pid")
"""Where in the code a line was logged, and by which process: there in the file for whoever needs it."""

_LEVEL_WIDTH = 7


def document(line: str) -> dict[str, object]:
    """The line as a JSON object; one that is none becomes its ``message``."""
    parsed = _parsed(line)
    return {"message": line} if parsed is None else parsed


def readable(line: str) -> str:
    """Time, level, message, keys; a traceback on lines of its own."""
    parsed = _parsed(line)
    if parsed is None or "message" not in parsed:
        return plain(line.replace("\t", "    "))
    keys = " ".join(f"{plain(k)}={_value(v)}" for k, v in parsed.items() if _is_shown(k))
    level = plain(parsed.get("level", "")).ljust(_LEVEL_WIDTH)
    parts = (_clock(parsed), level, plain(parsed["message"]), keys)
    return "\n".join([" ".join(p for p in parts if p), *_traceback(parsed)])


def _parsed(line: str) -> dict[str, object] | None:
    if not line.startswith("{"):
        return None
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _is_shown(key: str) -> bool:
    return key not in _SHOWN_ELSEWHERE and not key.startswith(_NOISE)


def _clock(parsed: dict[str, object]) -> str:
    text = parsed.get("timestamp")
    time = parse_time(text) if isinstance(text, str) else None
    if time is None:
        return ""
    local = localized(time)
    return plain(text) if local is None else local.strftime("%H:%M:%S.%f")[:-3]


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return plain(text) if text and " " not in text else json.dumps(plain(text))


def _traceback(parsed: dict[str, object]) -> list[str]:
    texts = (parsed.get("exc_info"), parsed.get("stack_info"))
    return ["    " + plain(line) for text in texts if isinstance(text, str) for line in text.splitlines()]
