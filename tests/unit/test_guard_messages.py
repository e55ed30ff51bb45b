"""The guard's messages: what docs/protocol.md says goes over the wire, and what is taken from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent_guard import messages as m

PROTOCOL = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()

JOB = m.JobHello(
    agent_id="a",
    guard="1",
    agents="1.8",
    executor="process",
    room="r",
    job_id="j",
    dispatch_id="d",
    identity="i",
    epoch=None,
    joined=False,
)
SENT: list[m.ToDaemon] = [
    m.WorkerHello(agent_id="a", guard="1", agents="1.8", executor="thread", max_load=None),
    JOB,
    m.Registered(worker_id="w", agent_name="", http_port=1),
    m.Unregistered(error="gone"),
    m.Request(id=1, room="r", room_sid="s", job_id="j", dispatch_id="d", agent_name="n", identity="i"),
    m.Abandon(job_id="j", reason="r"),
    m.Heartbeat(jobs=1, late=0.0),
    m.Jobs(jobs=(m.RunningJob(job_id="j", room="r", dispatch_id="d", identity="i", pid=1),)),
    m.Joined(identity="i", sid="s"),
    m.Census(agents=("i",), humans=1),
    m.Report(report="human_gone"),
    m.Failed(reason="r"),
    m.Goodbye(reason="r"),
]


def _documented(direction: str) -> dict[str, str]:
    """Type to the fields column, of one table of the document."""
    section = PROTOCOL.split(f"## {direction}")[1].split("\n## ")[0]
    rows = (line.split("|") for line in section.splitlines() if line.startswith("| `"))
    return {row[1].strip(" `"): row[3] for row in rows}


def test_every_documented_message_of_the_guard_exists_and_no_other() -> None:
    assert {message.type for message in SENT} == set(_documented("Guard to daemon"))


@pytest.mark.parametrize("message", SENT, ids=lambda message: type(message).__name__)
def test_every_field_is_documented(message: m.ToDaemon) -> None:
    documented = set(re.findall(r"`(\w+)`", _documented("Guard to daemon")[message.type]))
    if message.type == "report":
        documented |= {"room", "job_id", "detail"}
    assert set(m.to_wire(message)) - {"type"} <= documented


def test_texts_are_cut_to_what_the_daemon_takes() -> None:
    assert len(str(m.to_wire(m.Failed(reason="x" * 5_000))["reason"])) == 1024


def test_every_documented_message_of_the_daemon_is_understood() -> None:
    wires = {
        "welcome": {},
        "refused": {},
        "answer": {"id": 1, "outcome": "granted"},
        "drain": {},
        "resume": {},
        "leave": {},
        "reset": {},
    }
    assert set(wires) == set(_documented("Daemon to guard"))
    for kind, fields in wires.items():
        message = m.parse({"type": kind, **fields})
        assert message is not None
        assert message.type == kind


def test_a_welcome_as_the_document_has_it() -> None:
    welcome = m.parse(
        {
            "type": "welcome",
            "v": 1,
            "instance": "i",
            "heartbeat": {"interval": 2, "timeout": 10},
            "human_return_grace": 15.0,
            "reconnect_grace": 5.0,
            "epoch": 3,
            "hold": False,
        }
    )
    assert welcome == m.Welcome(
        instance="i", heartbeat_interval=2.0, human_return_grace=15.0, epoch=3, hold=False
    )


def test_unknown_types_and_fields_are_passed_over() -> None:
    assert m.parse({"type": "news", "of": "later versions"}) is None
    assert m.parse({"type": "resume", "and": "more"}) == m.Resume()


@pytest.mark.parametrize(
    "wire",
    [
        {},
        {"type": 1},
        {"type": "answer", "outcome": "granted"},
        {"type": "answer", "id": "1", "outcome": "granted"},
        {"type": "answer", "id": True, "outcome": "granted"},
        {"type": "answer", "id": 1, "outcome": 7},
        {"type": "answer", "id": 1, "outcome": "held", "terminate": "yes"},
        {"type": "leave", "epoch": "1"},
        {"type": "welcome", "human_return_grace": -1},
        {"type": "welcome", "human_return_grace": True},
        {"type": "welcome", "hold": 0},
    ],
)
def test_a_field_of_the_wrong_type_is_an_error(wire: dict[str, object]) -> None:
    with pytest.raises(m.MessageError):
        m.parse(wire)
