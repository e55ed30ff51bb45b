"""``logs``: LiveKit's lines made readable, other lines as they are, and none of them steers the terminal."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.cli.errors import CliError, ExitCode
from supervisor.cli.locate import Installation
from supervisor.cli.log_lines import document, readable
from supervisor.cli.logs import show_logs
from supervisor.cli.references import Reference
from tests.unit.closed import closed

AGENT = Reference("agent-1", "Agent_66")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "agent-1.log"


def write(log: Path, *lines: str) -> None:
    with log.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


# --- readable -----------------------------------------------------------------------------------------


def test_a_json_line_is_made_readable() -> None:
    line = json.dumps(
        {
            "message": "received job request",
            "level": "INFO",
            "name": "livekit.agents",
            "job_id": "AJ_1",
            "room": "the lobby",
            "resuming": False,
            "pid": 12,
            "code.file.path": "/x.py",
            "timestamp": "2026-01-31T12:00:00.123456+00:00",
        }
    )
    shown = readable(line)
    assert shown.endswith('INFO    received job request job_id=AJ_1 room="the lobby" resuming=false')
    assert ".123 " in shown


def test_a_traceback_is_on_lines_of_its_own() -> None:
    line = json.dumps(
        {"message": "boom", "level": "ERROR", "exc_info": "Traceback:\n  File x\nValueError: no"}
    )
    assert readable(line).splitlines() == [
        "ERROR   boom",
        "    Traceback:",
        "      File x",
        "    ValueError: no",
    ]


@pytest.mark.parametrize("line", ["plain text", "{not json", "{}", "[1]", '{"a": 1}', "{" * 50_000, ""])
def test_other_lines_stay_as_they_are(line: str) -> None:
    assert readable(line) == line


@pytest.fixture(params=["Etc/GMT-14", "Etc/GMT+12"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The two ends of the clock: east of it a day comes first, west of it last."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z"]
)
def test_a_time_at_the_end_of_the_calendar_is_shown(moment: str) -> None:
    shown, _, message = readable(json.dumps({"message": "hello", "timestamp": moment})).partition("  ")
    assert shown == moment or re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", shown)
    assert message.strip() == "hello"


@given(st.text())
def test_no_line_steers_the_terminal(text: str) -> None:
    for line in (text, json.dumps({"message": text, "level": text, text: text, "exc_info": text})):
        shown = readable(line).replace("\n", "")
        assert shown.isprintable() or not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)


def test_every_line_is_a_document() -> None:
    assert document('{"message": "m"}') == {"message": "m"}
    assert document("plain") == {"message": "plain"}
    assert document("[1]") == {"message": "[1]"}


# --- the command --------------------------------------------------------------------------------------


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "config.yaml", tmp_path, tmp_path, tmp_path, (AGENT,))


def test_logs_by_name(installation: Installation, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(log, "one", '{"message": "two", "level": "INFO"}')
    with log.open("a") as file:
        file.write("three")
    show_logs(installation, "Agent_66", follow=False, lines=3, as_json=False)
    assert capsys.readouterr().out == "one\nINFO    two\nthree\n"
    show_logs(installation, "agent-1", follow=False, lines=2, as_json=True)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"message": "two", "level": "INFO"},
        {"message": "three"},
    ]


def test_logs_of_an_agent_that_never_ran(installation: Installation) -> None:
    with pytest.raises(CliError, match="nothing was logged yet") as error:
        show_logs(installation, "Agent_66", follow=False, lines=2, as_json=False)
    assert error.value.code is ExitCode.WRONG


@pytest.mark.parametrize("follow", [False, True])
def test_logs_that_this_user_may_not_look_at(
    installation: Installation, log: Path, tmp_path: Path, follow: bool
) -> None:
    write(log, "one")
    with closed(tmp_path), pytest.raises(CliError, match=f"{log}: not permitted; use the command as"):
        show_logs(installation, "Agent_66", follow=follow, lines=2, as_json=False)


def test_logs_of_an_unknown_agent(installation: Installation) -> None:
    with pytest.raises(CliError, match="did you mean") as error:
        show_logs(installation, "agent_67", follow=False, lines=2, as_json=False)
    assert error.value.code is ExitCode.USAGE


def test_logs_followed_until_interrupted(
    installation: Installation, log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(log, "one")
    coming = iter(["two", "three"])

    def sleep(_: float) -> None:
        try:
            write(log, next(coming))
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("supervisor.process.logs.time.sleep", sleep)
    show_logs(installation, "Agent_66", follow=True, lines=5, as_json=False)
    assert capsys.readouterr().out == "one\ntwo\nthree\n"
