"""Log lines: a subscriber to events, and a home for what other libraries log, on standard error.

Three rules.  A line's message is constant, everything else is a key.  A room's name and a participant's
identity or that of a holder are shown as a short stable pseudonym (``#1f0c9a4e``); plainly only when the
level is ``debug`` and ``redact`` is off.  Whoever knows a name can find its lines with :func:`pseudonym`;
it is no secret-keeping, only a log that may be shown around.  What a worker has printed itself is shown
without the names that we know, and not at all with ``redact``.  A configured secret is never shown, whatever
text it hides in.

Writing never blocks the daemon: lines go through a bounded queue to a thread, so that a terminal on hold
or a full pipe stops the log, and nothing else.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import logging
import os
import queue
import re
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final, TextIO

from supervisor.events import ClaimDecided, ClaimOutcome, Event, GuardReport, Level

PRIVATE_KEYS: Final = frozenset({"room", "identity", "holder"})
BLOCK_KEYS: Final = ("traceback", "last_output")
"""Fields of several lines: on the console they follow their line, indented."""

OUTPUT_KEPT_OUT: Final = "not shown, since log.redact is set; see: livekit-supervisor logs"

NAMES_KNOWN: Final = 4_096
TEXT_LIMIT: Final = 8_192
LINES_WAITING: Final = 10_000
LINES_AT_ONCE: Final = 100
CLOSE_SECONDS: Final = 2.0
SHORTEST_SECRET: Final = 6
"""A shorter one would blank out ordinary words; it protects nothing anyway."""

QUIET: Final = {"apscheduler": logging.WARNING, "asyncio": logging.WARNING, "aiohttp.access": logging.WARNING}
"""Libraries that tell of every ordinary step at info."""

REPORTS: Final[Mapping[str, str]] = {
    "session_created": "creating a new session",
    "session_reused": "reusing the session",
    "state_reset": "resetting state",
    "single_agent_validated": "single agent validated",
    "human_gone": "human gone",
    "human_returned": "human returned",
    "grace_over": "human did not return",
    "session_failed": "the session's models failed",
    "script_failed": "the script's entry function failed",
    "leaving": "job leaving its room",
    "look_failed": "job could not look at its room",
    "daemon_away": "job was without the supervisor",
}
CLAIMS: Final[Mapping[ClaimOutcome, str]] = {
    ClaimOutcome.GRANTED: "job request received",
    ClaimOutcome.HELD: "duplicate rejected",
}


def rfc3339(wall: float) -> str:
    """Unix seconds as a person and a program can read them, in UTC."""
    moment = datetime.datetime.fromtimestamp(wall, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def pseudonym(name: str) -> str:
    """The same for the same name, on every host and in every run."""
    return "#" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]


class EventLog:
    """Owns the root logger from its creation to :meth:`close`."""

    def __init__(
        self,
        *,
        level: str = "info",
        format: str = "auto",
        redact: bool = False,
        secrets: Iterable[str] = (),
        stream: TextIO | None = None,
    ) -> None:
        stream = stream or sys.stderr
        self._on_terminal = _is_terminal(stream)
        self._formatter: _Formatter = _Json()
        self._writer = _Writer(stream, self._formatter)
        self._logger = logging.getLogger("supervisor")
        self._root = logging.getLogger()
        self._before = (self._root.handlers[:], self._root.level)
        # What no line shows is not looked up for each of them: it is half of what a record costs the loop.
        logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
        self._root.handlers[:] = [self._writer]
        logging.captureWarnings(True)
        self.configure(level=level, format=format, redact=redact, secrets=secrets)

    def configure(self, *, level: str, format: str, redact: bool, secrets: Iterable[str] = ()) -> None:
        """After a reload.  ``level``: ``debug info warning error``, ``format``: ``auto console json``."""
        number = logging.getLevelNamesMapping()[level.upper()]
        self._root.setLevel(number)
        for name, floor in QUIET.items():
            logging.getLogger(name).setLevel(max(floor, number))
        if format == "console" or (format == "auto" and self._on_terminal):
            formatter: _Formatter = _Console(colour=self._on_terminal and not os.environ.get("NO_COLOR"))
        else:
            formatter = _Json()
        formatter.hide_names = redact or number > logging.DEBUG
        formatter.redact = redact
        formatter.secrets = _pattern(secrets)
        formatter.names = self._formatter.names
        self._formatter = formatter
        self._writer.setFormatter(formatter)

    def without_secrets(self, text: str) -> str:
        """As the lines show it: for what others are told, too."""
        return self._formatter.without_secrets(text)

    def __call__(self, event: Event) -> None:
        """The subscriber."""
        if self._logger.isEnabledFor(event.level):
            record = self._logger.makeRecord(
                self._logger.name, event.level, "", 0, message_of(event), (), None, extra={"event": event}
            )
            self._logger.handle(record)

    def close(self) -> None:
        """Write what waits, as far as the stream takes it; give the root logger back."""
        logging.captureWarnings(False)
        self._root.handlers[:], level = self._before
        self._root.setLevel(level)
        self._writer.close()


def message_of(event: Event) -> str:
    """The constant text of an event's line; of those that tell of several things, one text for each."""
    if isinstance(event, GuardReport):
        return REPORTS.get(event.report, event.message)
    if isinstance(event, ClaimDecided):
        return CLAIMS.get(event.outcome, event.message)
    return event.message


# --- how a line looks -----------------------------------------------------------------------------


class _Formatter(logging.Formatter):
    """What both forms share: which fields a record has, and what of them may be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.hide_names = True
        self.redact = False
        self.secrets: re.Pattern[str] | None = None
        self.names: OrderedDict[str, None] = OrderedDict()
        """Of rooms and people in the lines so far, the newest last."""

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        event = getattr(record, "event", None)
        if isinstance(event, Event):
            return {key: self._shown(key, value) for key, value in event.data().items()}
        fields: dict[str, object] = {"logger": record.name}
        if record.exc_info and record.exc_info[0] is not None:
            fields["traceback"] = self.clean("".join(traceback.format_exception(*record.exc_info)))
        return fields

    def message(self, record: logging.LogRecord) -> str:
        return self.clean(record.getMessage())

    def without_secrets(self, text: str) -> str:
        return self.secrets.sub("***", text) if self.secrets is not None else text

    def clean(self, text: str) -> str:
        text = self.without_secrets(text)
        return text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + "…"

    def _shown(self, key: str, value: object) -> object:
        if not isinstance(value, str):
            return value
        if key in PRIVATE_KEYS:
            self._remember(value)
            return pseudonym(value) if self.hide_names else self.clean(value)
        if key == "last_output" and self.hide_names:
            return OUTPUT_KEPT_OUT if self.redact else self.clean(self._without_names(value))
        return self.clean(value)

    def _remember(self, name: str) -> None:
        self.names[name] = None
        self.names.move_to_end(name)
        if len(self.names) > NAMES_KNOWN:
            self.names.popitem(last=False)

    def _without_names(self, text: str) -> str:
        """Of a program that knows nothing of our rules: it may well have printed whom it talked to."""
        for name in sorted((n for n in self.names if n in text), key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", pseudonym(name), text)
        return text


_encode = json.JSONEncoder(default=str).encode  # json.dumps() would make one for each line


class _Json(_Formatter):
    """One object a line, ASCII only: nothing in it can steer a terminal or break a line."""

    def format(self, record: logging.LogRecord) -> str:
        event = getattr(record, "event", None)
        line: dict[str, object] = {"time": rfc3339(record.created), "level": record.levelname.lower()}
        if isinstance(event, Event):
            line["name"] = event.name()
        return _encode({**line, "message": self.message(record), **self.fields(record)})


class _Console(_Formatter):
    """For a person: time of day, level, message, ``key=value``."""

    COLOURS: Final = {"debug": "2", "warning": "33", "error": "31", "critical": "31"}

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        fields = self.fields(record)
        blocks = [str(fields.pop(key)) for key in BLOCK_KEYS if key in fields]
        clock = datetime.datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        pairs = " ".join(f"{self._paint(f'{key}=', '2')}{_quoted(value)}" for key, value in fields.items())
        head = f"{self._paint(clock, '2')} {self._paint(f'{level:7}', self.COLOURS.get(level, '32'))}"
        first = f"{head} {visible(self.message(record))}  {pairs}".rstrip()
        rest = [f"    {visible(line)}" for block in blocks for line in block.splitlines()]
        return "\n".join([first, *rest])

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def visible(text: str) -> str:
    """Every character that is not printable (control, bidirectional, a lone surrogate) as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _quoted(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = visible(str(value))
    return json.dumps(text, ensure_ascii=False) if not text or re.search(r'[\s"=]', text) else text


def _pattern(secrets: Iterable[str]) -> re.Pattern[str] | None:
    longest_first = sorted((s for s in set(secrets) if len(s) >= SHORTEST_SECRET), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


# --- how it gets out ------------------------------------------------------------------------------


class _Writer(logging.Handler):
    """Hands records to a thread that formats and writes them; counts those for which there is no room."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._stream = stream
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(LINES_WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=CLOSE_SECONDS)
        self._thread.join(CLOSE_SECONDS)
        super().close()

    def _run(self) -> None:
        going_on = True
        while going_on:
            records = self._waiting()
            going_on = None not in records
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                records.append(_dropped_record(dropped))
            self._write([self._line(record) for record in records if record is not None])

    def _waiting(self) -> list[logging.LogRecord | None]:
        """At least one; those of a burst together, so that the event loop is not stopped for each."""
        records = [self._queue.get()]
        with contextlib.suppress(queue.Empty):
            while records[-1] is not None and len(records) < LINES_AT_ONCE:
                records.append(self._queue.get_nowait())
        return records

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record) + "\n"
        except Exception as error:  # a library's wrong arguments to its own message must not end the log
            return f"log record could not be formatted: {type(error).__name__}\n"

    def _write(self, lines: list[str]) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads, or the stream is closed: go on
            self._stream.write("".join(lines))
            self._stream.flush()


def _dropped_record(count: int) -> logging.LogRecord:
    text = "log lines dropped, the stream was blocked: %d"
    return logging.LogRecord("supervisor.log", Level.WARNING, "", 0, text, (count,), None)
