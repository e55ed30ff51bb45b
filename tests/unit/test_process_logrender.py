"""What a worker writes, as it is shown."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.process.logrender import escape, render

LINE: dict[str, Any] = {
    "level": "INFO",
    "name": "livekit.agents",
    "message": "registered worker",
    "timestamp": "2026-01-02T03:04:05.678901+00:00",
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "2026-01-02 03:04:05.678 INFO    livekit.agents  registered worker"),
        (
            {"agent_name": "Agent_66", "id": "AW_x", "pid": 7, "code.line.number": 1},
            "2026-01-02 03:04:05.678 INFO    livekit.agents  registered worker  agent_name=Agent_66 id=AW_x",
        ),
        (
            {"text": "two words", "count": 3, "list": [1, "é"], "none": None},
            "2026-01-02 03:04:05.678 INFO    livekit.agents  registered worker  "
            'text="two words" count=3 list=[1, "é"] none=null',
        ),
        (
            {"timestamp": "2026-01-02T03:04:05Z"},
            "2026-01-02 03:04:05.000 INFO    livekit.agents  registered worker",
        ),
        ({"timestamp": "soon"}, "soon INFO    livekit.agents  registered worker"),
        (
            {"message": "a\nb\x1b[2Jc", "key\x07": "\x1b]0;x\x07"},
            '2026-01-02 03:04:05.678 INFO    livekit.agents  a\\nb\\x1b[2Jc  key\\x07="\\u001b]0;x\\u0007"',
        ),
    ],
)
def test_a_json_line(fields: dict[str, Any], expected: str) -> None:
    assert render(json.dumps({**LINE, **fields})) == expected


def test_a_traceback_follows_indented() -> None:
    shown = render(json.dumps({**LINE, "exc_info": "Traceback:\n  File x\nValueError: \x1b"})).splitlines()
    assert shown[1:] == ["    Traceback:", "      File x", "    ValueError: \\x1b"]


@pytest.mark.parametrize(
    "line",
    ["plain text", "", "{", "{}", "[1]", '{"message": "without level"}', "{" * 10_000, "tab\tstays", "5"],
)
def test_any_other_line_is_as_it_is(line: str) -> None:
    assert render(line) == line


def test_what_livekit_agents_itself_writes() -> None:
    from livekit.agents.cli.log import JsonFormatter

    try:
        raise ValueError("no such room")
    except ValueError:
        record = logging.LogRecord(
            "my.agent", logging.ERROR, __file__, 1, "it %s", ("failed",), sys.exc_info()
        )
    record.room = "r 1"
    head, *block = render(JsonFormatter().format(record)).splitlines()
    at = datetime.fromtimestamp(record.created, UTC)
    assert head == f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03} ERROR   my.agent  it failed  " + (
        'room="r 1"'
    )
    assert block[0] == "    Traceback (most recent call last):"
    assert block[-1] == "    ValueError: no such room"


_TEXT = st.text(st.characters(codec=None))


@given(st.one_of(_TEXT, st.dictionaries(_TEXT, _TEXT).map(lambda d: json.dumps({**LINE, **d}))))
def test_nothing_can_steer_the_terminal(line: str) -> None:
    shown = render(line)
    assert not any(c != "\n" and c != "\t" and (ord(c) < 32 or 127 <= ord(c) < 160) for c in shown)
    assert not set(shown) & set("\u202e\u2066\u2028\ufeff")
    shown.encode()


def test_escaping_keeps_what_is_text() -> None:
    assert escape("grüße 你好 👋\ttab") == "grüße 你好 👋\ttab"
    assert escape("\u202eevil\ud800") == "\\u202eevil\\ud800"
