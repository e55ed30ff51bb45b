"""Every command, four ways: when all is well, without a daemon, with bad arguments, and as JSON.

One rule: a command without its row fails.  What a command does in detail is told in the other modules.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main
from typer.core import TyperGroup

from supervisor.cli.app import app
from tests import json_documents
from tests.documents import ROOT
from tests.unit.cli_daemon import ECHO, Daemon
from tests.unit.test_cli_commands import Run, config, daemon, run

__all__ = ["config", "daemon", "run"]


@dataclass(frozen=True)
class Row:
    """How a command ends, each way; a text with ``::`` names the test that shows it."""

    well: tuple[str, ...] | str
    """Its arguments, with which it exits with 0 and says something."""
    bad: tuple[tuple[str, ...], ...]
    """Arguments with which it exits with 2, and asks the daemon nothing."""
    alone: int | str = 3
    """How it exits without a daemon; 3, unless it needs none."""
    schema: dict[str, Any] | str | None = None
    """Of its ``--json``; None where it shows nothing."""


NO_NEED = 0
AGENT = ("Agent_66",)
NO_AGENT = ((), ("Agent_67",), ("Agent_66", "Sales"), ("Agent_66", "--no-such-option"))

GRID = {
    "run": Row(
        "tests/livekit/test_daemon.py::test_ctrl_c_in_development_ends_all_of_it_within_10_seconds",
        (("extra",), ("--deb",), ("--config",)),
        "tests/livekit/test_daemon.py::test_a_second_daemon_exits_with_4_and_touches_nothing",
    ),
    "check": Row((), (("extra",), ("--onlin",)), NO_NEED, json_documents.CHECK),
    "demo": Row(
        "tests/livekit/test_demo.py::test_the_room_ends_with_exactly_one_audible_agent",
        (("Agent_66", "Sales"), ("--jso",)),
        "tests/unit/test_cli_demo.py::test_a_set_up_that_cannot_be_started",
        "tests/livekit/test_demo.py::test_the_room_ends_with_exactly_one_audible_agent",
    ),
    "status": Row((), (("extra",), ("--wacth",)), schema=json_documents.STATUS),
    "rooms": Row((), (("extra",), ("--jsno",)), schema=json_documents.ROOMS),
    "conflicts": Row(
        ("--since", "1h"), (("extra",), ("--since",), ("--since", "soon")), schema=json_documents.CONFLICTS
    ),
    "logs": Row(
        AGENT,
        ((), ("Agent_67",), (*AGENT, "-n", "-1"), (*AGENT, "-n", "x")),
        NO_NEED,
        json_documents.LOG_LINE,
    ),
    "diagnose": Row(
        "tests/livekit/test_diagnose.py::test_all_is_well",
        (("extra",), ("--bundle",), ("--prob",)),
        "tests/unit/test_cli_diagnose.py::test_without_a_daemon_it_says_so_and_how_to_start_it",
        json_documents.DIAGNOSIS,
    ),
    "start": Row(AGENT, NO_AGENT),
    "stop": Row(AGENT, NO_AGENT),
    "restart": Row(AGENT, NO_AGENT),
    "drain": Row(AGENT, NO_AGENT),
    "reload": Row((), (("extra",), ("--now",))),
    "handoff": Row(
        "tests/unit/test_cli_commands.py::test_handoff_waits_until_the_daemon_has_gone",
        (("extra",), ("--now",)),
    ),
    "schema": Row((), (("extra",), ("--referenc",)), NO_NEED, "tests/unit/test_schema.py::test_the_command"),
    "import": Row(
        "tests/unit/test_import.py::test_the_command",
        ((), ("/no/such/file",), ("--output",), ("--observ", ".env")),
        "tests/unit/test_import.py::test_the_command",
    ),
    "install-service": Row(
        ("--user", "--program", "/bin/true"), (("extra",), ("--write-it",)), NO_NEED, json_documents.SERVICE
    ),
    "clean-up": Row(
        "tests/unit/test_install_service.py::test_clean_up_without_anything_to_do",
        (("extra",), ("--after",)),
        "tests/unit/test_install_service.py::test_clean_up_without_anything_to_do",
    ),
}


@pytest.fixture
def log(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / f"{ECHO}.log").write_text('one\n{"message": "two", "level": "INFO"}\n')


def commands() -> dict[str, Any]:
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    return dict(root.commands)


def test_every_command_has_its_row() -> None:
    assert GRID.keys() == commands().keys()
    shown = {name for name, c in commands().items() if any("--json" in p.opts for p in c.params)}
    assert {name for name, row in GRID.items() if row.schema is not None} == shown | {"schema"}


def named() -> list[str]:
    rows = GRID.values()
    texts = (text for row in rows for text in (row.well, row.alone, row.schema) if isinstance(text, str))
    return sorted(set(texts))


@pytest.mark.parametrize("test", named())
def test_what_is_shown_elsewhere_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text()


@pytest.mark.parametrize("name", [name for name, row in GRID.items() if not isinstance(row.well, str)])
def test_when_all_is_well(run: Run, daemon: Daemon, log: None, name: str) -> None:
    daemon.rooms["rooms"] = daemon.rooms["rooms"][:1]
    daemon.on_command = obedient(daemon)
    outcome = run(name, *GRID[name].well)
    assert (outcome.code, bool(outcome.out)) == (0, True), outcome


def obedient(daemon: Daemon) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """Does at once what it is told."""

    def obey(name: str, given: dict[str, Any]) -> dict[str, Any]:
        if "agent" in given:
            state = "stopped" if name in ("stop", "drain") else "ready"
            daemon.agent(given["agent"]).update(state=state, pid=None if state == "stopped" else 5000)
        return {"ok": True}

    return obey


@pytest.mark.parametrize("name", [name for name, row in GRID.items() if isinstance(row.alone, int)])
def test_without_a_daemon(run: Run, log: None, name: str) -> None:
    row = GRID[name]
    outcome = run(name, *(row.well if isinstance(row.well, tuple) else ()))
    assert outcome.code == row.alone, outcome
    if row.alone == 3:
        assert outcome.out == ""
        assert "the daemon is not running" in outcome.err
        assert "livekit-supervisor run" in outcome.err


@pytest.mark.parametrize(
    ("name", "arguments"),
    [(name, arguments) for name, row in GRID.items() for arguments in row.bad],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "nothing",
)
def test_bad_arguments(run: Run, daemon: Daemon, name: str, arguments: tuple[str, ...]) -> None:
    daemon.status["daemon"]["mode"] = "development"
    outcome = run(name, *arguments)
    assert (outcome.code, outcome.out) == (2, ""), outcome
    assert outcome.err
    assert "Traceback" not in outcome.err
    assert daemon.commands == []


@pytest.mark.parametrize("name", [name for name, row in GRID.items() if isinstance(row.schema, dict)])
def test_json(run: Run, daemon: Daemon, log: None, name: str) -> None:
    row = GRID[name]
    schema = row.schema
    assert isinstance(schema, dict)
    outcome = run(name, *(row.well if isinstance(row.well, tuple) else ()), "--json")
    assert outcome.code in (0, 1), outcome
    assert outcome.err == ""
    documents = outcome.out.splitlines() if name == "logs" else [outcome.out]
    for document in documents:
        jsonschema.validate(json.loads(document), schema)


@pytest.mark.parametrize("name", list(GRID))
def test_help_teaches(run: Run, name: str) -> None:
    """What it does, in a sentence; and every argument and option has a word about it."""
    command = commands()[name]
    assert command.help
    assert len(command.help.split()) > 5
    assert [p.name for p in command.params if not p.help] == []
    outcome = run(name, "--help")
    assert (outcome.code, outcome.err) == (0, "")


def test_every_example_in_the_help_is_a_command_that_exists(run: Run) -> None:
    examples = [
        line
        for command in commands().values()
        for line in re.findall(r"`livekit-supervisor ([^`]+)`", command.epilog or "")
    ]
    assert len(examples) >= 8
    for example in examples:
        words = shlex.split(re.split(r" && | \| | > ", example)[0])
        with commands()[words[0]].make_context(words[0], words[1:]):
            pass
