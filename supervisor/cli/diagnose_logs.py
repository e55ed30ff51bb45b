"""What the workers' logs tell of late: conflicts refused, more than one agent, errors.

One rule: the lines are evidence for people; nothing is wrong *now* because of what a log says.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from supervisor.cli.diagnose_findings import Area, Finding, Notes, Situation
from supervisor.cli.log_lines import document, readable
from supervisor.cli.text import count, plain
from supervisor.process.logfile import open_to_read
from supervisor.process.logs import last_output

TAIL_BYTES = 262_144
LINES_SHOWN = 5
LONGEST_LINE = 300

# The guard's own words; it and we know nothing of each other, so a test compares.
CONFLICTS = {
    "duplicate rejected": "a second agent was refused before it joined",
    "more than one agent in the room": "more than one agent was seen in a room",
    "leaving the room": "a job left because its room had been given to another",
}
TROUBLE = {
    "supervisor unreachable, looking at the room itself": "a worker had to decide without the daemon",
    "could not look at the room": "a worker could not see a room, and refused the job",
    "refused by the supervisor": "the daemon refused a worker's connection",
    "could not reset the session": "a session could not be reset for a returning human",
    "the room was not left in time": "a job did not leave its room in time",
}


def look(situation: Situation) -> list[Finding]:
    notes = Notes(Area.LOGS)
    if situation.installation is None:
        notes.unknown("where the logs are is not known while the configuration cannot be read")
        return notes.findings
    places = situation.installation
    unreadable = []
    for agent in places.agents:
        path = places.logs / f"{agent.id}.log"
        fault = _fault(path)
        if fault:
            unreadable.append(f"{path}: {fault}")
        else:
            _tell_log(agent.id, path, notes)
    if unreadable:
        notes.unknown(f"{count(len(unreadable), 'log')} could not be read", *unreadable)
    if not notes.findings:
        notes.ok("nothing of note in the workers' logs")
    return notes.findings


def _fault(path: Path) -> str:
    """Why it cannot be read; one that is not there yet holds nothing."""
    try:
        os.close(open_to_read(path))
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or "is not a plain file"
    return ""


def _tell_log(agent_id: str, path: Path, notes: Notes) -> None:
    lines = last_output(path, 0, TAIL_BYTES)
    parsed = [(line, document(line)) for line in lines]
    counts = Counter(str(entry.get("message")) for _, entry in parsed)
    fix = f"livekit-supervisor logs {agent_id}"
    for word, meaning in CONFLICTS.items():
        if counts[word]:
            notes.ok(f"{plain(agent_id)}: {meaning}, {_times(counts[word])}", *_last(parsed, word))
    for word, meaning in TROUBLE.items():
        if counts[word]:
            notes.warning(
                f"{plain(agent_id)}: {meaning}, {_times(counts[word])}", *_last(parsed, word), fix=fix
            )
    errors = [line for line, entry in parsed if entry.get("level") in ("ERROR", "CRITICAL")]
    if errors:
        notes.warning(
            f"{plain(agent_id)}: {count(len(errors), 'error')} in the end of its log",
            *_shown(errors),
            fix=fix,
        )


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _last(parsed: list[tuple[str, dict[str, object]]], word: str) -> list[str]:
    return _shown([line for line, entry in parsed if entry.get("message") == word])


def _shown(lines: list[str]) -> list[str]:
    return [readable(line).splitlines()[0][:LONGEST_LINE] for line in lines[-LINES_SHOWN:]]
