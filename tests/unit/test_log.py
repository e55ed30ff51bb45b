"""Log lines: their two forms, what is hidden in them, and that a blocked stream blocks nobody."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from supervisor.core.conflicts import ConflictKind, Resolution
from supervisor.core.model import ClaimOutcome
from supervisor.events import (
    ClaimDecided,
    ConflictDetected,
    ConflictResolved,
    Event,
    GuardReport,
    InternalError,
    LiveKitDown,
    RestartReason,
    RoomStateChanged,
    WebhookOutcome,
    WebhookReceived,
    WorkerExited,
)
from supervisor.log import LINES_WAITING, OUTPUT_KEPT_OUT, EventLog, message_of, pseudonym, rfc3339

SECRET = "APISECRETdevsecretdevsecretdevsecret"
CONFLICT = ConflictResolved(
    kind=ConflictKind.DUPLICATE_AGENT,
    resolution=Resolution.EVICTED,
    seconds=0.012345678,
    room="Anna's room",
    identity="agent-AJ_1",
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def logging_to(stream: Any, **settings: Any) -> Iterator[EventLog]:
    log = EventLog(stream=stream, **settings)
    try:
        yield log
    finally:
        log.close()


def lines(*events: Event, stream: io.StringIO | None = None, **settings: Any) -> list[str]:
    stream = stream or io.StringIO()
    with logging_to(stream, **settings) as log:
        for event in events:
            log(event)
    return stream.getvalue().splitlines()


def objects(*events: Event, **settings: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(*events, format="json", **settings)]


# --- form -----------------------------------------------------------------------------------------


def test_a_json_line() -> None:
    before = rfc3339(time.time())
    (line,) = objects(CONFLICT)
    assert before <= line.pop("time") <= rfc3339(time.time())
    assert line == {
        "level": "info",
        "name": "conflict_resolved",
        "message": "conflict resolved",
        "kind": "duplicate_agent",
        "resolution": "evicted",
        "seconds": 0.012345678,
        "room": pseudonym("Anna's room"),
        "identity": pseudonym("agent-AJ_1"),
    }


def test_a_console_line() -> None:
    (line,) = lines(CONFLICT, format="console")
    clock, rest = line.split(" ", 1)
    assert len(clock) == len("12:00:00.000")
    assert rest == (
        "info    conflict resolved  kind=duplicate_agent resolution=evicted seconds=0.01235"
        f" room={pseudonym(CONFLICT.room)} identity={pseudonym(CONFLICT.identity)}"
    )


def test_values_with_spaces_are_quoted_on_the_console() -> None:
    (line,) = lines(LiveKitDown(url="ws://x", error='refused "again" = no'), format="console")
    assert line.endswith('url=ws://x error="refused \\"again\\" = no"')


def test_a_traceback_follows_its_line_on_the_console() -> None:
    first, *rest = lines(InternalError(where="rooms", error="E", traceback="one\n  two"), format="console")
    assert "unexpected error" in first
    assert "traceback" not in first
    assert rest == ["    one", "      two"]


def test_auto_is_console_on_a_terminal_and_json_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert json.loads(lines(CONFLICT)[0])
    (coloured,) = lines(CONFLICT, stream=Terminal())
    assert "\x1b[32minfo" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    (plain,) = lines(CONFLICT, stream=Terminal())
    assert "\x1b" not in plain
    assert "conflict resolved" in plain


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (GuardReport(agent_id="a", report="session_created"), "creating a new session"),
        (GuardReport(agent_id="a", report="session_reused"), "reusing the session"),
        (GuardReport(agent_id="a", report="state_reset"), "resetting state"),
        (GuardReport(agent_id="a", report="single_agent_validated"), "single agent validated"),
        (GuardReport(agent_id="a", report="something of a later guard"), "guard report"),
        (
            ClaimDecided(agent_id="a", room="r", job_id="j", outcome=ClaimOutcome.GRANTED),
            "job request received",
        ),
        (ClaimDecided(agent_id="a", room="r", job_id="j", outcome=ClaimOutcome.HELD), "duplicate rejected"),
        (ClaimDecided(agent_id="a", room="r", job_id="j", outcome=ClaimOutcome.FULL), "job request answered"),
    ],
)
def test_an_event_that_tells_of_several_things_has_a_message_for_each(event: Event, message: str) -> None:
    assert message_of(event) == message


def test_a_field_named_event_stays() -> None:
    (line,) = objects(WebhookReceived(event="room_started", outcome=WebhookOutcome.ACCEPTED), level="debug")
    assert (line["name"], line["event"]) == ("webhook_received", "room_started")


# --- levels ---------------------------------------------------------------------------------------


def test_levels() -> None:
    debug = RoomStateChanged(room="r", old="healthy", new="conflict")
    warning = ConflictDetected(kind=ConflictKind.GHOST_AGENT)
    events = (debug, CONFLICT, warning)
    shown = {
        level: [o["level"] for o in objects(*events, level=level)]
        for level in ("debug", "info", "warning", "error")
    }
    assert shown == {
        "debug": ["debug", "info", "warning"],
        "info": ["info", "warning"],
        "warning": ["warning"],
        "error": [],
    }


def test_the_level_changes_with_a_reload() -> None:
    stream = io.StringIO()
    with logging_to(stream) as log:
        log(RoomStateChanged(room="r", old="a", new="b"))
        log.configure(level="debug", format="json", redact=False)
        log(RoomStateChanged(room="r", old="b", new="c"))
    assert [json.loads(line)["new"] for line in stream.getvalue().splitlines()] == ["c"]


def test_the_form_changes_with_a_reload() -> None:
    stream = io.StringIO()
    with logging_to(stream, format="json") as log:
        log.configure(level="info", format="console", redact=False)
        log(CONFLICT)
    assert "resolution=evicted" in stream.getvalue()


# --- what is hidden -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "redact", "plain"),
    [("debug", False, True), ("debug", True, False), ("info", False, False), ("info", True, False)],
)
def test_names_are_plain_only_at_debug_level_without_redact(level: str, redact: bool, plain: bool) -> None:
    held = ClaimDecided(
        agent_id="agent-a", room="lobby", job_id="j", outcome=ClaimOutcome.HELD, holder="agent-AJ_2"
    )
    for format in ("json", "console"):
        (line,) = lines(held, level=level, redact=redact, format=format)
        assert ("lobby" in line) is plain
        assert ("agent-AJ_2" in line) is plain
        assert (pseudonym("lobby") in line) is not plain
        assert "agent-a" in line


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"level": "debug"}, "caller +4930123 in lobby, not in lobby2"),
        ({"level": "info"}, f"caller {pseudonym('+4930123')} in {pseudonym('lobby')}, not in lobby2"),
        ({"level": "info", "redact": True}, OUTPUT_KEPT_OUT),
        ({"level": "debug", "redact": True}, OUTPUT_KEPT_OUT),
    ],
    ids=str,
)
def test_what_a_worker_printed_last_is_shown_without_the_names_that_are_known(
    settings: dict[str, Any], told: str
) -> None:
    returned = GuardReport(agent_id="a", report="human_returned", room="lobby", identity="+4930123")
    last = "caller +4930123 in lobby, not in lobby2"
    ended = WorkerExited(agent_id="a", pid=1, reason=RestartReason.EXIT, last_output=last)
    (_, line) = objects(returned, ended, **settings)
    assert line["last_output"] == told


def test_a_pseudonym_is_short_and_stable() -> None:
    assert pseudonym("lobby") == pseudonym("lobby") == "#4b5dc076"
    assert pseudonym("lobby") != pseudonym("Lobby")
    assert pseudonym("\ud800")


def test_a_secret_is_never_shown_wherever_it_hides() -> None:
    events = [
        LiveKitDown(url=f"wss://user:{SECRET}@host", error=f"401 {SECRET}"),
        WorkerExited(agent_id="a", pid=1, reason=RestartReason.EXIT, last_output=f"env: {SECRET}\n{SECRET}"),
        InternalError(where="x", error=SECRET, traceback=SECRET),
    ]
    stream = io.StringIO()
    for format in ("json", "console"):
        with logging_to(stream, format=format, level="debug", secrets=[SECRET, "short", ""]) as log:
            for event in events:
                log(event)
            logging.getLogger("livekit").warning("token made with %s", SECRET)
            try:
                raise ValueError(SECRET)
            except ValueError:
                logging.getLogger("aiohttp.server").exception("failed")
    assert SECRET not in stream.getvalue()
    assert "wss://user:***@host" in stream.getvalue()


@pytest.mark.parametrize("format", ["json", "console"])
def test_control_characters_are_escaped(format: str) -> None:
    hostile = "a\x1b[2Jb\rc\nd\x9be\u202ef\u2028g\ud800"
    event = LiveKitDown(url="x", error=hostile)
    output = "\n".join(lines(event, format=format, level="debug"))
    assert len(output.splitlines()) == 1
    assert output.isprintable()
    output.encode()  # no lone surrogate
    many = "\n".join(
        lines(
            WorkerExited(agent_id="a", pid=1, reason=RestartReason.EXIT, last_output=hostile), format=format
        )
    )
    assert many.replace("\n", "").isprintable()


def test_long_text_is_cut() -> None:
    (line,) = objects(LiveKitDown(url="x", error="e" * 100_000))
    assert len(line["error"]) < 10_000


# --- other libraries ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("default")
def test_other_libraries_log_into_the_same_stream() -> None:
    stream = io.StringIO()
    with logging_to(stream):
        logging.getLogger("some.library").error("no %s", "connection")
        logging.getLogger("aiohttp.access").info("GET /metrics")
        logging.getLogger("apscheduler.executors.default").info("Running job")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    got = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(o["level"], o["logger"]) for o in got] == [("error", "some.library"), ("warning", "py.warnings")]
    assert got[0]["message"] == "no connection"


def test_a_library_s_wrong_arguments_do_not_end_the_log() -> None:
    stream = io.StringIO()
    with logging_to(stream):
        logging.getLogger("some.library").error("%d", "no number")
        logging.getLogger("some.library").error("next")
    assert json.loads(stream.getvalue().splitlines()[-1])["message"] == "next"


def test_the_root_logger_is_given_back() -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    with logging_to(io.StringIO(), level="debug"):
        assert root.handlers != before[0]
    assert (root.handlers, root.level) == before


# --- the stream -----------------------------------------------------------------------------------


def test_a_stream_that_nobody_reads_blocks_nobody() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        log = EventLog(stream=stream)
        started = time.monotonic()
        for _ in range(LINES_WAITING + 2_000):
            log(CONFLICT)
        assert time.monotonic() - started < 5
        received: list[str] = []

        def read() -> None:
            with os.fdopen(reader) as source:
                received.extend(source)

        thread = threading.Thread(target=read)
        thread.start()
        deadline = time.monotonic() + 20
        while not any("log lines dropped" in line for line in received):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        log(CONFLICT)
        log.close()
    thread.join(20)
    assert json.loads(received[-1])["message"] == "conflict resolved"
    assert len(received) < LINES_WAITING + 2_000


def test_a_broken_pipe_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    with logging_to(stream) as log:
        log(CONFLICT)
        log(CONFLICT)
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_a_closed_stream_is_no_error() -> None:
    stream = io.StringIO()
    stream.close()
    with logging_to(stream) as log:
        log(CONFLICT)
