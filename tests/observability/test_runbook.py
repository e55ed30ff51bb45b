"""The runbook: a section for each alert, links that lead somewhere, and commands that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from grafana import generate
from grafana.source.alerts import ALERTS
from supervisor.cli.app import app
from supervisor.config import AgentSettings, Settings
from tests.observability.prometheus import GRAFANA

ROOT = GRAFANA.parent
RUNBOOK = ROOT / "docs" / "runbook.md"
PARTS = ["Means", "Impact", "Look at", "Mend"]


def anchor(heading: str) -> str:
    """As a forge makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_one_section_for_each_alert_in_the_same_order() -> None:
    assert list(sections()) == [alert.name for alert in ALERTS]


@pytest.mark.parametrize("name", [alert.name for alert in ALERTS])
def test_a_section_says_what_it_is_and_what_to_do(name: str) -> None:
    text = sections()[name]
    assert re.findall(r"^\*\*([\w ]+)\*\*", text, re.MULTILINE) == PARTS
    look = text.split("**Look at**")[1].split("**Mend**")[0]
    assert len(re.findall(r"^- ", look, re.MULTILINE)) >= 2


def test_whatever_counts_as_a_failing_store_is_named() -> None:
    """Log rotation and stop wishes are counted with it, so neither text may speak of the database alone."""
    (alert,) = (a for a in ALERTS if a.name == "LiveKitSupervisorStoreFailing")
    assert "state or logs" in alert.summary
    for text in (alert.description, sections()[alert.name]):
        for failing in ("history", "stop", "rotated"):
            assert failing in text, (failing, text)
    operations = {
        operation
        for path in (ROOT / "supervisor" / "daemon").glob("*.py")
        for operation in re.findall(r'StoreFailed\(operation="([^"]+)"', path.read_text())
    }
    assert operations
    assert all(f"`{operation}`" in sections()[alert.name] for operation in operations), operations


def runbook_links() -> Iterator[tuple[str, str]]:
    for name, content in generate.files("docs").items():
        for link in re.findall(r"(?:docs|\$\{docs\})/runbook\.md[\w#-]*", content):
            yield name, link


def test_every_link_to_the_runbook_leads_to_a_section() -> None:
    anchors = {anchor(heading) for heading in sections()}
    links = list(runbook_links())
    assert {name.split("/")[0] for name, _ in links} == {"prometheus", "provisioning", "dashboards"}
    for name, link in links:
        _, hash_sign, target = link.partition("#")
        assert not hash_sign or target in anchors, f"{name}: {link}"


@pytest.mark.parametrize("path", [RUNBOOK, GRAFANA / "README.md"], ids=lambda path: path.name)
def test_links_inside_resolve(path: Path) -> None:
    text = path.read_text()
    anchors = {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (path.parent / target.partition("#")[0]).exists(), target


def commands() -> Iterator[str]:
    text = RUNBOOK.read_text()
    yield from re.findall(r"^(livekit-supervisor [^#\n]+)", text, re.MULTILINE)
    yield from (" ".join(c.split()) for c in re.findall(r"`(livekit-supervisor [^`]+)`", text))


@pytest.mark.parametrize("command", sorted({command.strip() for command in commands()}))
def test_a_command_is_one_that_exists(command: str) -> None:
    _, *arguments = shlex.split(command)
    told = CliRunner().invoke(app, [*arguments, "--help"])  # after its options have been looked at
    assert told.exit_code == 0, told.output


def test_the_commands_of_an_operator_are_used() -> None:
    used = {command.split()[1] for command in commands()}
    wanted = "status rooms conflicts diagnose logs check start stop restart reload"
    assert set(wanted.split()) <= used


def test_settings_that_it_names_exist() -> None:
    sections = {**AgentSettings.model_fields, **Settings.model_fields}
    named = set(re.findall(r"`(\w+)\.(\w+)(?:: [^`]+)?`", RUNBOOK.read_text())) - {("supervisor", "db")}
    assert len(named) >= 10
    for section, setting in (pair for pair in named if pair[0] in sections):
        model = sections[section].annotation
        assert isinstance(model, type), section
        assert issubclass(model, BaseModel)
        assert setting in model.model_fields, f"{section}.{setting}"
