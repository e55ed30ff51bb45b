"""What the documents tell a reader to type, typed: into a shell, against one daemon on a real LiveKit server.

Each line once, as it is written but for ``AGENT``, in the order in which an operator would: looking, acting,
and at last leaving.  What is typed elsewhere stands in ``tests/documents.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import jsonschema
import pytest

from tests import json_documents
from tests.documents import COMMAND, to_run
from tests.livekit.server import LiveKitServer
from tests.livekit.shell import Shell
from tests.livekit.supervised import Supervised

ORDER = (
    *("schema", "check", "status", "rooms", "conflicts", "logs", "diagnose", "install-service", "reload"),
    *("stop", "start", "restart", "drain", "handoff", "clean-up"),
)
"""A command that is not here has no place in the story yet, and fails the test."""

WRONG_MAY_BE = ("diagnose",)
"""Exits with 1 when this machine has little memory, or the like."""

JSON = {
    "status --json": json_documents.STATUS,
    "rooms --json": json_documents.ROOMS,
    "conflicts --json": json_documents.CONFLICTS,
    "check --online --json": json_documents.CHECK,
    "diagnose --json": json_documents.DIAGNOSIS,
    "install-service --user --json": json_documents.SERVICE,
}


@pytest.fixture
async def subject(
    livekit_server: LiveKitServer, tmp_path: Path, runtime_dir: Path
) -> AsyncIterator[Supervised]:
    agent = {
        "id": "agent-66",
        "name": "Agent_66",
        "command": ["sh", "-c", "echo here I am; exec sleep 600"],
        "stop": {"drain": "5s", "kill": "3s"},
    }
    subject = Supervised(tmp_path / "daemon", runtime_dir, livekit_server, agents=[agent])
    await subject.start()
    yield subject
    await subject.close()


def place(line: str) -> int:
    found = re.match(rf"{COMMAND} (?:--config \S+ )?([a-z-]+)", line)
    assert found, line
    assert found[1] in ORDER, f"where in the story does it belong? {line}"
    return ORDER.index(found[1])


async def test_every_line_of_the_documents(subject: Supervised) -> None:
    shell = Shell(subject.folder)
    before = await subject.agent()
    for command, schema in JSON.items():
        code, out, err = await shell.type(f"{COMMAND} {command}")
        assert code == 0 or command.startswith(WRONG_MAY_BE), f"{command}: {out}{err}"
        jsonschema.validate(json.loads(out), schema)
    lines = sorted(to_run(), key=place)
    assert len(lines) > 15
    for line in lines:
        code, out, err = await shell.type(re.sub(r"\bAGENT\b", "Agent_66", line))
        name = ORDER[place(line)]
        assert code == 0 or (code == 1 and name in WRONG_MAY_BE), f"{line}: {out}{err}"
        assert out or ">" in line or name == "clean-up", f"{line} says nothing"
        if name == "restart":
            after = await subject.agent()
            assert after["pid"] not in (None, before["pid"])
            before = after
    schema_file = json.loads((subject.folder / "config.schema.json").read_text())
    assert schema_file["$schema"]
    assert (subject.folder / "report.tar.gz").stat().st_size > 1000
    assert await subject.ended() == 0
    assert out == f"ended {before['pid']}\n", "clean-up comes last, and leaves nobody"
