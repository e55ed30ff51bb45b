"""A worker's log line as a person reads it.

One rule: whatever a worker writes, what is shown is printable text that cannot steer a terminal, one line for
one line but for a traceback's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import cast

_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but for tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction: text that reads otherwise than it is
    "\u2028\u2029\ufeff\ud800-\udfff]"  # other line ends, a byte order mark, halves of characters
)
_BARE = re.compile(r"[^\s=\"'{}\[\]]+")

_PLACES = frozenset({"pid", "code.file.path", "code.function.name", "code.line.number"})
"""Where in its code a line comes from: livekit-agents adds them to every one."""
_HEAD = ("timestamp", "level", "name", "message")
_BLOCKS = ("exc_info", "stack_info")
"""Texts of several lines, which follow theirs indented."""


def render(line: str) -> str:
    """``TIME LEVEL NAME  MESSAGE  KEY=VALUE ...`` for a JSON line of livekit-agents; any other as it is."""
    record = _record(line)
    if record is None:
        return escape(line)
    head = " ".join(escape(text) for text in _head(record) if text)
    pairs = " ".join(f"{escape(key)}={_value(value)}" for key, value in _others(record))
    return "\n".join(["  ".join(filter(None, (head, pairs))), *_blocks(record)])


def escape(text: str) -> str:
    return _STEERING.sub(_escaped, text).replace("\n", "\\n")


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _record(line: str) -> Mapping[str, object] | None:
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or "message" not in record or "level" not in record:
        return None
    return cast("dict[str, object]", record)


def _head(record: Mapping[str, object]) -> Iterator[str]:
    time, level, name, message = (str(record.get(key, "")) for key in _HEAD)
    yield _time(time)
    yield f"{level:<7}"
    yield name
    yield f" {message}"


def _time(text: str) -> str:
    """RFC 3339 in UTC, to the millisecond; what is no such time as it is."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d{1,3})?\d*(?:\+00:00|Z)", text)
    return f"{match[1]} {match[2]}{(match[3] or '.').ljust(4, '0')}" if match else text


def _others(record: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    hidden = {*_HEAD, *_BLOCKS, *_PLACES}
    return ((key, value) for key, value in record.items() if key not in hidden)


def _value(value: object) -> str:
    if isinstance(value, str) and _BARE.fullmatch(value):
        return escape(value)
    return escape(json.dumps(value, ensure_ascii=False))


def _blocks(record: Mapping[str, object]) -> Iterator[str]:
    for key in _BLOCKS:
        text = record.get(key)
        if isinstance(text, str):
            yield from (f"    {escape(line)}" for line in text.split("\n"))
